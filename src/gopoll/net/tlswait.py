"""Waits: goroutines that wait for what another one of the same connection does.

Called by tlscore, in goroutines; wake() by any thread. Go: its halfConn has mutexes alone.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

from gopoll._polldesc import Note
from gopoll.errors import ClosedError
from gopoll.runtime._sched import current_poller
from gopoll.runtime.context import background, with_deadline

__all__ = ["Waits", "tell_moved"]


class Waits:
    """Those who wait, each for a condition of its own and no longer than to a deadline.

    Who waits lists itself under *lock*, then looks at the condition; who may have changed that does
    so and then calls wake(), after which all look again. The deadline is looked at as well: who
    moves it wakes them too.
    """

    __slots__ = ("_lock", "_notes")

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._notes: set[Note] = set()

    def __bool__(self) -> bool:
        """Whether somebody waits."""
        return bool(self._notes)

    async def wait(
        self, reason: str, is_over: Callable[[], bool], deadline: Callable[[], float | None]
    ) -> None:
        """Wait until woken, or for *deadline*, unless is_over(). Raises what these raise.

        Both are called under the lock. reason: as Goroutine.wait_reason shows it.
        """
        note = Note(current_poller(), reason)
        try:
            with self._lock:
                self._notes.add(note)
                if is_over():
                    return
                when = deadline()
            await _wait_to(note, when)
        finally:
            with self._lock:
                self._notes.discard(note)

    def wake(self) -> None:
        """Have all who wait look again. Any thread."""
        with self._lock:
            notes, self._notes = self._notes, set()
        for note in notes:
            try:
                note.wake()
            except ClosedError:
                pass  # its run() has ended


async def _wait_to(note: Note, when: float | None) -> None:
    """Wait for *note*, to *when* at the most (time.monotonic() seconds)."""
    if when is None:
        await note
        return
    late, cancel = with_deadline(background(), when)
    stop = late.after_func(note.wake)
    try:
        await note
    finally:
        stop()
        cancel()


def tell_moved(ref: weakref.ref[Any], mode: int) -> None:
    """Tell a connection that the deadline of *mode* has been moved on the one below (W7)."""
    core = ref()
    if core is not None:
        core._deadline_moved(mode)
