"""blocking(): run a function that blocks without holding up the goroutines.

Called by goroutines (name look-ups, reads of regular files). Threads are made when needed, at most
so many per scheduler, and end with it. Go: entersyscallblock, and cgo's getaddrinfo threads.
"""

from __future__ import annotations

import collections
import contextvars
import os
import queue
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from gopoll._polldesc import Note
from gopoll.errors import ClosedError, ForkedError
from gopoll.runtime import stacks
from gopoll.runtime._sched import current_g, current_sched
from gopoll.runtime.report import check_plain

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


class Pool:
    """The threads of one scheduler. Jobs are taken in order.

    E1: nothing is counted, and what is woken by is in C: a signal handler may raise anywhere here.
    """

    def __init__(self, sched: Any) -> None:
        self._sched = sched
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()  # a ring for each job
        self._lock = threading.RLock()  # guards all that follows
        self._jobs: collections.deque[_Job] = collections.deque()
        self._threads: set[threading.Thread] = set()
        # The call that each works on, and the CPU clock of the thread.
        self._working: dict[threading.Thread, tuple[_Job, int]] = {}
        self._wait = JOIN_SECONDS
        self._closed = False
        self._kept: weakref.WeakKeyDictionary[object, Any] = weakref.WeakKeyDictionary()

    def kept_for(self, owner: object, make: Callable[[], _T]) -> _T:
        """Return what *owner* keeps in this run, made by make() at the first call.

        It lasts as long as both do: nothing outside of the run() holds on to it.
        """
        with self._lock:
            found: _T | None = self._kept.get(owner)
            if found is None:
                found = self._kept[owner] = make()
            return found

    def submit(self, job: _Job) -> None:
        """Queue *job*; start a thread if none is idle and there may be another."""
        with self._lock:
            self._jobs.append(job)
            alive = [t for t in self._threads if t.is_alive()]  # of the others none has begun
            if len(alive) - len(self._working) < len(self._jobs) and len(alive) < MAX_THREADS:
                # Daemon: a call that never returns must not keep the interpreter from ending.
                name = f"gopoll-blocking-{len(alive)}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._threads = {*alive, thread}
                try:
                    thread.start()
                except RuntimeError:  # no thread to be had: it waits for one of those
                    if not alive:
                        raise
        self._bell.put(None)

    def start(self, call: Callable[[], object]) -> None:
        """Run call() on a thread; nobody waits for it, and it must not raise."""
        job = _Job(call, Note(self._sched.poller))
        try:
            self.submit(job)
        except BaseException:
            self.withdraw(job)
            raise

    @property
    def is_busy(self) -> bool:
        """Whether a job is queued or under way."""
        with self._lock:
            return bool(self._jobs or self._working)

    def calls(self) -> dict[object, tuple[int, int] | None]:
        """Return each call with its thread (identifier and CPU clock), None if it is queued."""
        with self._lock:
            found: dict[object, tuple[int, int] | None] = dict.fromkeys(self._jobs)
            for thread, (job, clock) in self._working.items():
                found[job] = thread.ident or 0, clock
            return found

    def give_up(self) -> None:
        """Have close() wait no longer for calls that are under way: they are stuck."""
        self._wait = 0.0

    @property
    def threads(self) -> set[threading.Thread]:
        """The threads there are."""
        with self._lock:
            return set(self._threads)

    def withdraw(self, job: _Job) -> None:
        """Drop *job* if no thread has taken it."""
        with self._lock:
            if job in self._jobs:
                self._jobs.remove(job)

    def _work(self) -> None:
        me, pid = threading.current_thread(), os.getpid()
        clock = time.pthread_getcpuclockid(threading.get_ident())
        while True:
            self._bell.get()
            with self._lock:
                if self._closed:
                    self._bell.put(None)  # for the next: one whose start was interrupted is unknown
                    return
                if not self._jobs:
                    continue
                job = self._jobs.popleft()
                self._working[me] = job, clock
            job.run()
            if os.getpid() != pid:
                self._sched.end_child(ForkedError("a function given to blocking() returned in a "
                                                  "forked child: call os._exit there"))  # fmt: skip
            try:
                job.note.wake()
            except ClosedError:
                pass  # run() has ended; nobody waits any more
            del job
            with self._lock:
                self._working.pop(me, None)
            if self._sched.is_quiet:  # who looked for a deadlock meanwhile has taken us for work
                self._sched.wake_net_poller()

    def close(self) -> None:
        """End the threads: wait up to 5 s for calls under way, then leave them with a warning."""
        with self._lock:
            self._closed = True
            self._jobs.clear()
            threads = [t for t in self._threads if t.is_alive()]
        self._bell.put(None)
        until = time.monotonic() + self._wait
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        for thread in threads:
            if thread.is_alive():
                warnings.warn(_stuck(thread), RuntimeWarning, stacklevel=2)


def _stuck(thread: threading.Thread) -> str:
    found = stacks.of_threads().get(thread.ident or 0)
    stack = "" if found is None else "".join(found.format())
    return f"{thread.name} is still in a blocking() call {JOIN_SECONDS:g} s after run():\n{stack}"


async def blocking(fn: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run fn(*args) on a thread and return its result, while the other goroutines go on.

    It sees the caller's contextvars. At most 32 calls run at once, the others queue. Cancellation
    stops the waiting, not fn. Raises what fn raises; for a StopIteration a RuntimeError with
    that as its cause, as every coroutine does.
    """
    sched = current_sched()
    check_plain("blocking()", fn)
    context = contextvars.copy_context()
    job = _Job(lambda: context.run(fn, *args, **kwargs), Note(sched.poller, "blocking"))
    pool = sched.pool
    g, awaits = current_g(), sched.leftovers.awaits
    try:
        pool.submit(job)
        awaits[g] = (job,)
        await job.note
    except BaseException:
        pool.withdraw(job)
        raise
    finally:
        awaits.pop(g, None)
        del g  # no cycle through the traceback: it may end with this error
    if job.error is not None:
        try:
            raise job.error
        finally:
            job.error = None  # no cycle through the traceback
    return job.result  # type: ignore[return-value]
