"""What attach() of every host has in common: a Guest that ends in the host's own turns.

Used by _attach_aio and trio, on the host's thread.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from gopoll._polldesc import Note
from gopoll.embed.guest import Guest, Host
from gopoll.runtime.blocking import JOIN_SECONDS
from gopoll.runtime.goroutine import sleep

__all__ = ["AttachedGuest", "runs_trio"]

LOOK_SECONDS = 0.01


def runs_trio() -> bool:
    """Whether trio runs on this thread. Does not import it."""
    trio = sys.modules.get("trio")
    if trio is None:
        return False
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


class AttachedGuest(Guest):
    """A Guest that tells when a goroutine's error has ended it, and ends without blocking."""

    def __init__(self, host: Host, fail: Callable[[], object]) -> None:
        """fail: called once, when a goroutine has ended the guest with an error."""
        self._fail = fail
        self._ended: Note | None = None  # while the block waits for the end
        super().__init__(host)

    def _look(self) -> None:
        sched = self._sched
        if sched.fatal is not None and not sched.has_raised:
            sched.has_raised = True
            if self._ended is None:
                self._fail()
        if sched.is_finished and self._ended is not None and not self._ended.is_set:
            self._ended.wake()

    def shut_down(self) -> None:
        """Cancel every goroutine."""
        if not (self._sched.is_ending or self._sched.is_forked):
            self._sched.shut_down()

    async def wait_ended(self) -> None:
        """Wait until the last has ended, and up to 5 s for what blocking() has begun.

        May be called again after an exception.
        """
        if self._ended is None:
            self._ended = Note(self._sched.poller, "end")
        if self._sched.is_forked:
            return
        try:
            await self._wait_ended(self._ended)
        except RuntimeError:
            if not self.is_closed:  # else by give_up()
                raise

    async def _wait_ended(self, ended: Note) -> None:
        if not self._sched.is_finished:
            await ended
        pool = self._sched.pool
        until = time.monotonic() + JOIN_SECONDS
        while pool.is_busy and time.monotonic() < until:
            await sleep(LOOK_SECONDS)  # close() would wait for it too, and hold the host up
        if pool.is_busy:
            pool.give_up()

    def give_up(self) -> None:
        """Close, as the host has no more turns: what is left runs to its end here and now."""
        self._sched.has_raised = True  # end() raises it
        self.close()

    @property
    def error(self) -> BaseException | None:
        """The error of a goroutine that nobody has awaited, which has ended all."""
        return self._sched.fatal

    def end(self, exc: BaseException | None) -> None:
        """Close; *exc* has ended the body. Raises the goroutine's error, if there is one."""
        self._sched.has_raised = True
        self.close()
        error = self.error
        if error is not None:
            if exc is not None and exc is not error and isinstance(exc, Exception):
                error.add_note(f"the body of attach() ended with {exc!r} too")
            raise error
