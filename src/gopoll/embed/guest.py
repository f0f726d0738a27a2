"""Guest: goroutines inside another event loop, and Host: what that loop gives for it.

Called by the modules that attach gopoll to a loop (aio, trio), and by authors of others; all but
wake() on the host's thread. The scheduler below is runtime.guest.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import warnings
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from gopoll._host import HostLink
from gopoll.errors import ClosedError
from gopoll.runtime.guest import GuestScheduler

__all__ = ["Guest", "Host"]

BUDGET = 64
METHODS = ("watch", "unwatch", "make_future")  # what every Host gives


class Host:
    """What an event loop does for a guest. Three methods; the rest has defaults.

    All are called on the loop's thread.
    """

    # What makes a future of asyncio's kind, instead of make_future: without a frame for each wait.
    _create_future: Callable[[], Awaitable[Any]] | None = None

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Call callback() whenever *fd* is readable, until unwatch(fd). Level-triggered.

        It runs a bounded batch of goroutines and returns; what is left keeps *fd* readable. The
        error of a goroutine that nobody awaits it raises, once; attach() raises that in the block.
        """
        raise NotImplementedError

    def unwatch(self, fd: int) -> None:
        """Call it no more. *fd* is closed after that."""
        raise NotImplementedError

    def make_future(
        self,
    ) -> tuple[Awaitable[Any], Callable[[Any], object], Callable[[BaseException], object]]:
        """Return (awaitable, set_result, set_error) for the task that runs now.

        It awaits the awaitable, by the loop's own protocol, until one of the two is called with a
        value or an exception. On an awaitable that is done, or was given up, both do nothing; a
        future of asyncio's kind is asked for that before.
        """
        raise NotImplementedError

    def comes_again(self, error: BaseException) -> bool:
        """Tell whether the loop raises *error*, with which it ends an await, at the next await too.

        Then an operation that is done already returns, and *error* comes there. Else it raises
        *error* at once (but for asyncio's own CancelledError): a value that a channel has handed
        over by then goes back to the channel, what it has sent stays sent. Called on the host's
        thread, in the task, only where an operation is done already.
        """
        return False


def _check(host: object) -> None:
    """TypeError if *host* is not a Host with its three methods."""
    if isinstance(host, Host):
        given = {
            m for m in METHODS if getattr(getattr(host, m), "__func__", None) is not vars(Host)[m]
        }
        if len(given) == len(METHODS):
            return
    raise TypeError(
        f"a host is a Host that has watch(), unwatch() and make_future(), and not {host!r}"
    )


class Guest:
    """A scheduler without threads: goroutines run inside the host's thread, in its turns.

    go(), channels, timers, contexts and Group work in it, and on the host's thread go() does too.
    What blocks in a goroutine blocks the host; blocking() has threads of its own. It belongs to
    the thread that makes it (RuntimeError if a scheduler runs there already), until close(). One
    that is dropped before is a ResourceWarning; the thread is free again if nothing ran in it.

    host: watches the descriptor, and has tasks in which gopoll's awaitables can be awaited. Without
    one, call run_nowait() when fileno() is readable: it is, whenever a goroutine can run, an
    operation is ready or a deadline has passed. Nothing else is needed; who sleeps by timeout_ns()
    too may.

    An error of a goroutine that nobody awaits cancels all the others and is raised by run_nowait(),
    once; close() then ends the rest. KeyboardInterrupt and SystemExit do so although a handle is
    held.
    """

    _fd = -1  # while it has none: before and after

    def __init__(self, host: Host | None = None) -> None:
        if host is not None:
            _check(host)
        self._host = host
        self._sched = GuestScheduler()
        make_link = None
        if host is not None:
            make_link = functools.partial(
                HostLink,
                make_future=host.make_future,
                comes_again=host.comes_again,
                create_future=host._create_future,
            )
        self._sched.enter(make_link)
        self._fd = self._sched.poller.fileno()
        if host is not None:
            try:
                host.watch(self._fd, self._sched.pump(BUDGET, self._look))
            except BaseException:
                self._host = None
                self.close()
                raise

    def _look(self) -> None:
        """Raise what has ended the guest; after a turn of the host's once it is ending."""
        self._sched.raise_fatal()

    def fileno(self) -> int:
        """Return the descriptor to watch: readable when run_nowait() has something to do."""
        return self._fd

    def timeout_ns(self) -> int:
        """Return the ns until there is something to do: 0 now, -1 unknown (no deadline)."""
        return 0 if self._sched.has_work else self._sched.poller.timeout_ns()

    def run_nowait(self, budget: int = BUDGET) -> int:
        """Poll, and run up to *budget* slices of goroutines; return how many there were.

        Never waits. A slice lasts until its goroutine waits, or has done so much without. Raises
        the error of a goroutine that nobody awaits; RuntimeError in a goroutine, on another thread
        and after close().
        """
        if isinstance(budget, bool) or not isinstance(budget, int):
            raise TypeError(f"budget is a number of slices, an int, and not {budget!r}")
        if budget < 1:
            raise ValueError(f"budget {budget} is below 1")
        if self._sched.is_closed:
            raise RuntimeError("the guest is closed")
        return self._sched.turn(budget)

    def wake(self) -> None:
        """Make fileno() readable. Any thread, coalesced. Does nothing after close()."""
        with contextlib.suppress(ClosedError):
            self._sched.poller.netpoll_break()

    def close(self) -> None:
        """Cancel the goroutines, run them to their end, their `finally` blocks too, and go.

        Waits for that, and up to 5 s for functions given to blocking(). Operations that wait in
        tasks of the host fail. Raises the error of a goroutine that nobody awaits, if run_nowait()
        has not, and what the host's unwatch() raises, when all is done. RuntimeError in a goroutine
        and on another thread: it is as before then. A second call does nothing.
        """
        sched = self._sched
        if sched.is_closed:
            return
        sched.check_close()
        host, self._host = self._host, None
        try:
            if host is not None:
                host.unwatch(self._fd)
        finally:
            sched.close()
            self._fd = -1
            sched.raise_fatal()

    def __del__(self, warn: Any = warnings.warn, module: Any = sys) -> None:
        """Warn of a guest that nobody can close any more, and give its thread back if nothing runs.

        Any thread, between any two steps of the program; also when the interpreter ends.
        """
        if self._fd < 0 or self._sched.is_closed or self._sched.is_forked:
            return
        fate = "its thread is taken for good"
        try:
            if self._host is None and not module.is_finalizing() and self._sched.close_if_idle():
                fate = "it is closed now"
        finally:
            warn(f"a Guest was dropped without close(): {fate}", ResourceWarning, stacklevel=2)

    @property
    def is_closed(self) -> bool:
        """Whether close() has been called."""
        return self._sched.is_closed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
