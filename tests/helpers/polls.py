"""Raw pollers for the tests of the core: waiters that can be counted, threads, watched descriptors.

Called by tests, on the main thread.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gopoll

FAR = 1 << 62  # ns: a moment that no test lives to see


class Waiter:
    """Something that waits. Only its identity and its references count."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<waiter {self.name}>"


def references(waiter: object) -> int:
    """Return how many references *waiter* has; compare it with another call only."""
    return sys.getrefcount(waiter)


def park(desc: gopoll.PollDesc, mode: int, waiter: object) -> gopoll.ParkRequest:
    """Prepare, announce and commit, as a driver does; fail if there was nothing to wait for."""
    desc.reset(mode)
    request = desc.wait(mode)
    assert request.commit(waiter), "it was ready already"
    return request


def park_word(desc: Any, mode: int, word: int) -> None:
    """As park(), for a pollDesc of the probe's: its waiter is any number."""
    assert desc.wait(mode) == -1
    assert desc.commit(mode, word)


def retire(*descs: gopoll.PollDesc) -> None:
    """Evict and close, whatever has been done to them."""
    for desc in descs:
        try:
            desc.evict()
        except (gopoll.ClosedError, gopoll.InternalError):
            pass
        desc.close()


def drain(poller: gopoll.Poller) -> list[Any]:
    """Poll until nothing is left; all that came out, in order."""
    found = []
    while True:
        got = poller.netpoll(0)
        found += got
        if not got:
            return found


def is_readable(fd: int) -> bool:
    """Report whether a host that watches *fd* would be told, now."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def wait_readable(fd: int, *, seconds: float = 60) -> None:
    """Wait as a host does until *fd* is readable."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(seconds * 1000), "the host was never told"


def until(condition: Callable[[], object], *, seconds: float = 60) -> None:
    """Give way to the other threads until condition() is true. For what no event tells."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it has not come about"
        os.sched_yield()


class Running:
    """A function on a thread of its own: join() returns what it returned or raises its error."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(function, args), daemon=True)
        self.thread.start()

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            self.result = function(*args)
        except BaseException as exc:
            self.error = exc

    @property
    def is_done(self) -> bool:
        """Whether it has come to its end."""
        return not self.thread.is_alive()

    def join(self, *, seconds: float = 60) -> Any:
        """Wait for the end."""
        self.thread.join(seconds)
        assert self.is_done, "the thread does not come back"
        if self.error is not None:
            raise self.error
        return self.result


@contextmanager
def eventfd(value: int = 0) -> Iterator[int]:
    """Give an eventfd: readable above 0, always writable."""
    fd = os.eventfd(value, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
