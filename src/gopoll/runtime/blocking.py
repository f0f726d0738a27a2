"""blocking(): run a function that blocks without holding up the goroutines.

Called by goroutines (name look-ups, reads of regular files). Threads are made when needed, at most
so many per scheduler, and end with it. Go: entersyscallblock, and cgo's getaddrinfo threads.
"""

from __future__ import annotations

import collections
import contextvars
import threading
import time
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from gopoll._polldesc import Note
from gopoll.errors import ClosedError
from gopoll.runtime import stacks
from gopoll.runtime._sched import current_sched

_P = ParamSpec("_P")
_T = TypeVar("_T")

MAX_THREADS = 32
JOIN_SECONDS = 5.0


class _Job:
    """One call: the worker stores the outcome, then wakes the note."""

    def __init__(self, call: Callable[[], object], note: Note) -> None:
        self.call = call
        self.note = note
        self.result: object = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Run it, on a worker."""
        try:
            self.result = self.call()
        except BaseException as err:
            self.error = err
        try:
            self.note.wake()
        except ClosedError:
            pass  # run() has ended; nobody waits any more


class Pool:
    """The threads of one scheduler. Jobs are taken in order."""

    def __init__(self) -> None:
        self._ready = threading.Condition()  # guards all that follows
        self._jobs: collections.deque[_Job] = collections.deque()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closed = False

    def submit(self, job: _Job) -> None:
        """Queue *job*; start a thread if none is idle and there may be another."""
        with self._ready:
            self._jobs.append(job)
            if self._idle >= len(self._jobs) or len(self._threads) >= MAX_THREADS:
                self._ready.notify()
                return
            # Daemon: a call that never returns must not keep the interpreter from ending.
            thread = threading.Thread(
                target=self._work, name=f"gopoll-blocking-{len(self._threads)}", daemon=True
            )
            self._threads.append(thread)
        try:
            thread.start()
        except RuntimeError:  # no thread to be had
            with self._ready:
                self._threads.remove(thread)
                if self._threads:  # it waits for one of those
                    return
                if job in self._jobs:
                    self._jobs.remove(job)
            raise

    @property
    def is_busy(self) -> bool:
        """Whether a job is queued or under way."""
        with self._ready:
            return bool(self._jobs) or self._idle < len(self._threads)

    @property
    def threads(self) -> set[threading.Thread]:
        """The threads there are."""
        with self._ready:
            return set(self._threads)

    def withdraw(self, job: _Job) -> None:
        """Drop *job* if no thread has taken it."""
        with self._ready:
            if job in self._jobs:
                self._jobs.remove(job)

    def _work(self) -> None:
        while True:
            with self._ready:
                while not self._jobs:
                    if self._closed:
                        return
                    self._idle += 1
                    self._ready.wait()
                    self._idle -= 1
                job = self._jobs.popleft()
            job.run()
            del job

    def close(self) -> None:
        """End the threads: wait up to 5 s for calls under way, then leave them with a warning."""
        with self._ready:
            self._closed = True
            self._jobs.clear()
            self._ready.notify_all()
        until = time.monotonic() + JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        for thread in self._threads:
            if thread.is_alive():
                warnings.warn(_stuck(thread), RuntimeWarning, stacklevel=2)


def _stuck(thread: threading.Thread) -> str:
    found = stacks.of_threads().get(thread.ident or 0)
    stack = "" if found is None else "".join(found.format())
    return f"{thread.name} is still in a blocking() call {JOIN_SECONDS:g} s after run():\n{stack}"


async def blocking(fn: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run fn(*args) on a thread and return its result, while the other goroutines go on.

    It sees the caller's contextvars. At most 32 calls run at once, the others queue. Cancellation
    stops the waiting, not fn. Raises what fn raises.
    """
    sched = current_sched()
    context = contextvars.copy_context()
    job = _Job(lambda: context.run(fn, *args, **kwargs), Note(sched.poller))
    pool = sched.pool
    pool.submit(job)
    try:
        await job.note
    except BaseException:
        pool.withdraw(job)
        raise
    if job.error is not None:
        try:
            raise job.error
        finally:
            job.error = None  # no cycle through the traceback
    return job.result  # type: ignore[return-value]
