"""The scheduler's policy: run, go, what is run next, and how a program ends.

A goroutine (G) runs on a thread (M) that holds the right to run (P). This version has one P and
one M; the words that more of them need are in place (_p.pyx, A1).
Go: runtime/proc.go (go1.27).
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

from gopoll.errors import Canceled
from gopoll.runtime._p import (
    GBase,
    MBase,
    PBase,
    SchedBase,
    current_g,
    current_poller,
    current_sched,
)
from gopoll.runtime._sysmon import Sysmon
from gopoll.runtime._waits import Gosched, Join, Sleep
from gopoll.runtime.blocking import Pool
from gopoll.runtime.context import Context, background
from gopoll.runtime.signals import Signals

__all__ = [
    "Goroutine",
    "Stats",
    "current",
    "current_poller",
    "go",
    "gosched",
    "run",
    "sleep",
    "stats",
]

_T = TypeVar("_T")

CHECK_TICKS = 61  # every so many slices the global queue and the network come first
STATES = ("runnable", "running", "waiting", "dead")


class G(GBase):
    """A goroutine, as the scheduler sees it. Users hold a Goroutine."""

    __slots__ = ("_handle",)

    _handle: weakref.ref[Goroutine[Any]] | None


class M(MBase):
    """A thread that runs goroutines."""

    __slots__ = ()


class P(PBase):
    """The right to run goroutines, with a local queue."""

    __slots__ = ()


class Goroutine(Generic[_T]):
    """The handle of a goroutine: await it, cancel it, ask how it is. Made by go().

    If a goroutine ends with an error, the error goes to whoever awaits it. If nobody can any more
    (no handle is left, or the last is dropped without an await), run() ends with that error.
    """

    __slots__ = ("__weakref__", "_g")

    def __init__(self, g: G) -> None:
        """Wrap *g*; go() and current() do this."""
        self._g = g
        g.handle_made()
        g._handle = weakref.ref(self)

    def __await__(self) -> Generator[Any, Any, _T]:
        """Wait for the end; return the result or raise the error."""
        return Join(self._g).__await__()

    def cancel(self, cause: object = None) -> None:
        """Have every park of the goroutine raise Canceled(cause) from now on. Any thread."""
        self._g.sched.cancel(self._g, cause)

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._g.done

    def result(self, timeout: float | None = None) -> _T:
        """Wait for the end from a plain thread, at most *timeout* seconds, and return the result.

        Raises the goroutine's error, TimeoutError, or RuntimeError on the thread that runs it.
        """
        g = self._g
        if not g.done:
            if current_g() is not None:
                raise RuntimeError("result() would block the goroutines: await the handle instead")
            ended = threading.Event()
            if g.add_joiner(ended.set) and not ended.wait(timeout):
                raise TimeoutError(f"goroutine {g.id} has not ended within {timeout} s")
        g.awaited = True
        if g.error is not None:
            raise g.error
        value: _T = g.result
        return value

    @property
    def id(self) -> int:
        """A number of its own, from 1 (main) up."""
        return self._g.id

    @property
    def name(self) -> str:
        """The name given to go(), else that of the function."""
        return str(self._g.name)

    @property
    def state(self) -> str:
        """One of runnable, running, waiting, dead."""
        return STATES[self._g.state]

    @property
    def wait_reason(self) -> str | None:
        """What it waits in while its state is waiting, else None."""
        park = self._g.park_request
        return None if park is None or self.state != "waiting" else _reason(park)

    def __repr__(self) -> str:
        return f"<Goroutine {self.id} {self.name} {self.state}>"

    def __del__(self) -> None:
        g = getattr(self, "_g", None)
        if g is not None and g.handle_dropped() and g.done:
            g.sched.unwaited(g)


def _reason(park: object) -> str:
    return type(park).__name__.removesuffix("Op").lower()


@dataclasses.dataclass(frozen=True)
class Stats:
    """Counters of one scheduler, all since its start but the last three."""

    polls: int
    events: int
    parks: int
    wakes: int
    spurious: int
    stale: int
    breaks: int
    switches: int
    overruns: int
    goroutines: int
    descriptors: int
    timers: int


class Scheduler(SchedBase):
    """What one run() is: its goroutines, its P and M, its poller and its sysmon."""

    def __init__(self) -> None:
        super().__init__()
        self.p = P(0)
        self.m = M(1)
        self.m.p = self.p
        self.allgs: dict[int, G] = {}
        self.ids = itertools.count(1)
        self.fatal: BaseException | None = None
        self.main: G | None = None
        self.ending = False
        self.sysmon = Sysmon(self, self.p)
        self._pool: Pool | None = None

    @property
    def pool(self) -> Pool:
        """The threads of blocking(), made on first use."""
        if self._pool is None:
            self._pool = Pool()
        return self._pool

    def current_p(self) -> P:
        return self.p

    # Goroutines.

    def newproc(
        self, coro: Coroutine[Any, Any, Any], context: Context, name: str, system: bool = False
    ) -> G:
        """Make a goroutine and queue it. On the scheduler's thread. Go: newproc."""
        g = G(self, coro, context, 0 if system else next(self.ids), name)
        g.system = system
        g._handle = None
        context._enter(g)
        self.allgs[id(g)] = g
        self.p.runq.put(g)
        return g

    def goexit(self, g: G, result: object, error: BaseException | None) -> None:
        """Take the outcome of *g*. Go: goexit0."""
        g.context._leave(g)
        del self.allgs[id(g)]
        awaited = g.finish(result, error) or g.awaited
        if error is not None and not awaited and not g.live_handles and g is not self.main:
            self.unwaited(g)
        if self.ending or g is self.main:
            self.stopping = True  # somebody looks whether this was the last

    def unwaited(self, g: G) -> None:
        """Nobody can see the error of *g* any more: end run() with it (E2). Any thread."""
        error = g.error
        if error is None or g.awaited or g.system or isinstance(error, Canceled):
            return
        g.awaited = True
        if self.main is None:
            # run() is over: too late to end it, never too late to say so.
            sys.excepthook(type(error), error, error.__traceback__)
            return
        if self.fatal is None:
            self.fatal = error
        else:
            self.fatal.add_note(f"goroutine {g.id} ({g.name}) ended with {error!r} too")
        self.stopping = True
        self.wake_net_poller()

    def cancel(self, g: GBase, cause: object) -> None:
        """Cancel one goroutine. Any thread."""
        if g.done or g.canceled:
            return
        g.cancel_cause = cause
        g.canceled = True  # G1: the state, then the park
        g.interrupt()

    def run_callable(self, fn: Callable[[], object]) -> None:
        """Run a due callable (the expiry of a context) between two goroutines."""
        try:
            fn()
        except Exception as err:
            sys.excepthook(type(err), err, err.__traceback__)

    # What runs next.

    def schedule(self) -> None:
        """Run goroutines until the scheduler is told to stop. Go: schedule."""
        p, m = self.p, self.m
        while not self.stopping:
            self.find_runnable(p)
            self.execute(p, m, CHECK_TICKS)

    def find_runnable(self, p: P) -> None:
        """Put work into p's queue, waiting for it if need be. Go: findRunnable.

        The order is Go's: now and then the global queue and the network before all else (a due
        timer must not wait for an empty queue), then what is local, then a batch of the global
        queue, then the network without waiting, at last the network until something happens.
        """
        if p.runq:
            self.globq_get(p, 1)
            self.poll(p.runq)
            return
        if self.globq_get(p, len(self.globq)) or self.poll(p.runq) or p.runq:
            return
        self.block(p.runq)

    def globq_get(self, p: P, most: int) -> int:
        """Move up to *most* of the global queue to p. Go: globrunqget."""
        return self.globq.move_to(p.runq, min(most, 128))

    def inject_glist(self, glist: list[Any]) -> None:
        """Queue what sysmon has found, from its thread, without a P. Go: injectglist."""
        for g in glist:
            if isinstance(g, GBase):
                self.globq.put(g)
            else:
                self.poller.post(g)  # a callable: the scheduler's own thread runs it
        self.wake_net_poller()  # S1: queued first

    # From start to end.

    def run(self, coro: Coroutine[Any, Any, Any]) -> Any:
        """Run *coro* as the main goroutine. Go: schedinit, main, exit."""
        self.enter_thread()
        watcher = threading.Thread(target=self.sysmon.loop, name="gopoll-sysmon", daemon=True)
        main = None
        try:
            watcher.start()
            with Signals(self) as signals:
                main = self.main = self.newproc(coro, background(), _name(coro))
                signals.start()
                try:
                    self.schedule()
                finally:
                    if not self.is_forked:
                        self.shut_down()
        finally:
            self.leave_thread()
            if not self.is_forked:
                self.sysmon.stop()
                watcher.join()
                if self._pool is not None:
                    self._pool.close()
                self.poller.close()
            self.main = None
            if main is None:
                coro.close()
        if self.fatal is not None:
            raise self.fatal
        if main.error is not None:
            raise main.error
        if main.pending is not None:
            raise main.pending  # a Ctrl-C that came too late for a park is not lost
        return main.result

    def shut_down(self) -> None:
        """Cancel what still runs and run it to its end, `finally` blocks and all."""
        self.ending = True
        for system in (False, True):
            for g in [g for g in self.allgs.values() if g.system is system]:
                self.cancel(g, "the main goroutine has ended")
            while any(g.system is system for g in self.allgs.values()):
                self.stopping = False
                self.schedule()
        self.stopping = True


def _name(coro: Any) -> str:
    return getattr(coro, "__qualname__", None) or type(coro).__name__


async def _await(awaitable: Awaitable[_T]) -> _T:
    return await awaitable


def _coroutine(fn: Any, args: tuple[Any, ...], what: str) -> Coroutine[Any, Any, Any]:
    """Make a coroutine of an async function and arguments, or of any awaitable."""
    if callable(fn) and not inspect.isawaitable(fn):
        made = fn(*args)
        if not inspect.isawaitable(made):
            raise TypeError(
                f"{what} takes an async function or an awaitable; {_name(fn)} returned "
                f"{type(made).__name__}"
            )
        return made if inspect.iscoroutine(made) else _await(made)
    if not inspect.isawaitable(fn):
        raise TypeError(f"{what} takes an async function or an awaitable, not {type(fn).__name__}")
    if args:
        raise TypeError(f"{what} takes arguments only with a function, not with an awaitable")
    return fn if inspect.iscoroutine(fn) else _await(fn)


def run(main: Any, *args: Any, procs: int | None = None, handoff: bool = True) -> Any:
    """Run *main* (an async function with *args*, or a coroutine) to its end; return its result.

    When it returns, the goroutines that still run are cancelled and their `finally` blocks run. An
    exception that nobody awaits ends run() with it. On the main thread Ctrl-C raises
    KeyboardInterrupt in the main goroutine. Any thread; RuntimeError if one runs here already.

    procs: 1, the only number of Ps that this version has (ValueError). handoff=False promises that
    no two goroutines run Python between two awaits, which one P always keeps.
    """
    if procs is not None and procs != 1:
        raise ValueError(f"procs={procs}: this version of gopoll has one P")
    return Scheduler().run(_coroutine(main, args, "run()"))


def go(fn: Any, *args: Any, name: str | None = None) -> Goroutine[Any]:
    """Start a goroutine: an async function with *args*, or any awaitable.

    It inherits a copy of the contextvars and the ambient Context. RuntimeError outside run().
    """
    sched: Scheduler = current_sched()
    coro = _coroutine(fn, args, "go()")
    g = current_g()
    context = background() if g is None else g.context
    return Goroutine(sched.newproc(coro, context, name or _name(coro)))


def gosched() -> Gosched:
    """Let the others run: go to the tail of the global queue. An op. Go: runtime.Gosched."""
    return Gosched()


def sleep(seconds: float) -> Any:
    """Park for *seconds*, never shorter; 0 or less is gosched(). An op. Go: time.Sleep."""
    if seconds > 0:
        return Sleep(current_sched(), min(int(seconds * 1e9) + 1, 2**62))
    if seconds != seconds:
        raise ValueError("cannot sleep for nan seconds")
    return Gosched()


def current() -> Goroutine[Any] | None:
    """Return the goroutine that runs on this thread, or None."""
    g = current_g()
    if g is None or g.system:
        return None
    handle = g._handle() if g._handle is not None else None
    return handle or Goroutine(g)


def stats() -> Stats:
    """Return the counters of the scheduler on this thread. RuntimeError outside run()."""
    sched: Scheduler = current_sched()
    polls = sched.poller.stats()
    fields = {name: polls[name] for name in _POLL_FIELDS}
    return Stats(
        switches=sched.switches,
        overruns=sched.sysmon.overruns,
        goroutines=sum(not g.system for g in sched.allgs.values()),
        **fields,
    )


_POLL_FIELDS = (
    "polls",
    "events",
    "parks",
    "wakes",
    "spurious",
    "stale",
    "breaks",
    "descriptors",
    "timers",
)
