"""The scheduler's policy: what is run next, who runs it, and how a program ends.

A goroutine (G) runs on a thread (M) that holds a P, the right to run. The transitions are in
_sched.pyx and _exec.pyx; here is what decides between them. Go: runtime/proc.go (go1.27).

E1: a signal handler of the program may raise anywhere in here. What it interrupts on the thread of
    an M comes to die(), which does all again that the end of a run needs; each of those pieces may
    be done twice, and none counts what it is only about to do.
"""

from __future__ import annotations

import contextvars
import inspect
import os
import sys
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from gopoll._park import running_loop
from gopoll._pollerbase import init_poller
from gopoll.errors import Canceled, ClosedError, DeadlockError, InternalError
from gopoll.runtime import debug, notify
from gopoll.runtime._base import do_all
from gopoll.runtime._exec import ExecBase
from gopoll.runtime._frames import have_gil
from gopoll.runtime._g import GBase
from gopoll.runtime._p import MBase
from gopoll.runtime._sched import current_g, current_poller, current_sched
from gopoll.runtime._stall import Watcher
from gopoll.runtime._sysmon import Sysmon
from gopoll.runtime.blocking import Pool
from gopoll.runtime.context import Context, background
from gopoll.runtime.end import Leftovers, close_now
from gopoll.runtime.report import note, tell
from gopoll.runtime.signals import Signals

__all__ = ["Scheduler", "current_g", "current_poller", "current_sched"]

PATIENCE_NS = 4 * 10**9  # what is stuck gets, a thread or a generator, when all else has ended
LOOK_AGAIN_NS = 10**9
LOOK_SELDOM_NS = 8 * 10**9
TURNS = 16  # so often may a signal handler raise in one step of the end
MAX_DEATHS = 8  # exceptions of the scheduler's own that a run survives
EXITS = (KeyboardInterrupt, SystemExit)  # they end a program, as os.Exit does in Go


class _SwitchInterval:
    """The interpreter has one switch interval, however many runs want it low. Any thread."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.usual = self.low = 0.0
        self.wanted: set[int] = set()  # by whom it is low: the ids of their schedulers

    def lower(self, whose: object, seconds: float) -> bool:
        """Make it at most *seconds*; False if the program has it so low already."""
        with self.lock:
            was = sys.getswitchinterval()
            if was > seconds:
                self.usual = was
                sys.setswitchinterval(seconds)
                self.low = sys.getswitchinterval()
            if self.low:
                self.wanted.add(id(whose))
            return self.low > 0

    def restore(self, whose: object) -> None:
        """Put it back if nobody wants it low any more, unless the program has set it meanwhile."""
        with self.lock:
            self.wanted.discard(id(whose))
            if self.low and not self.wanted:
                if sys.getswitchinterval() == self.low:
                    sys.setswitchinterval(self.usual)
                self.low = 0.0

    def forked(self) -> None:
        """In a child nobody wants it, and nobody has the lock."""
        self.lock = threading.RLock()
        self.wanted.clear()
        self.restore(None)


_interval = _SwitchInterval()
os.register_at_fork(after_in_child=_interval.forked)


class Scheduler(ExecBase):
    """What one run() is: its goroutines, its Ps and Ms, its poller and its sysmon."""

    is_guest = False

    def __init__(self, procs: int = 1, handoff: bool = True) -> None:
        super().__init__(handoff)
        self.set_nprocs(procs)
        self.m0 = self.first_m()
        self.fatal: BaseException | None = None
        self.deaths = 0
        self.sysmon = Sysmon(self, debug.trace_ns())
        self.watcher = threading.Thread(target=self.sysmon.loop, name="gopoll-sysmon", daemon=True)
        self.started_ns = time.monotonic_ns()
        self._agens: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        # Async generators that nobody holds any more, with the contextvars of who let go of them.
        self._dropped: deque[tuple[Any, contextvars.Context]] = deque()
        self._end_lock = threading.RLock()  # one at a time takes from _dropped, or sees it empty
        self._closing_ns = 0  # when the last async generator began to be closed
        self.has_outcome = False  # what run() raises or returns is decided
        self.outer_loop: object = None  # asyncio's, in a callback of which run() was called
        self._patience: Any = None  # the timer of _abandon()
        self.leftovers = Leftovers(self)
        self._others: set[int] = set()  # threads of the program, when we last looked for a deadlock
        self._look_ns = LOOK_AGAIN_NS  # and in how long we look again
        self._looking: Any = None  # the timer of that
        self.pool = Pool(self)  # the threads of blocking(), made when needed

    @property
    def signal_chans(self) -> int:
        """How many channels wait for signals, of whichever run."""
        return notify.count()

    # Goroutines.

    def newproc(
        self, coro: Coroutine[Any, Any, Any], context: Context, name: str, system: bool = False
    ) -> GBase:
        """Make a goroutine and queue it. On a thread of the scheduler. Go: newproc."""
        g = self.make_g(coro, context, name, system)
        self.start_g(g)
        return g

    def goexit(self, g: GBase, error: BaseException | None) -> None:
        """See to what the end of *g* means for others. Go: goexit0."""
        if g is self.main:
            self.shut_down()
        elif g.system and error is not None and not isinstance(error, Canceled):
            self.die(error)
        elif error is not None and not g.is_claimed:
            exits = isinstance(error, EXITS) and not g.was_awaited  # who holds it may never look
            if exits or not g.live_handles:
                self.unwaited(g)
        if self.is_ending:
            self.check_end()

    def goroutines(self) -> Iterator[GBase]:
        """Yield every live goroutine, the runtime's own included."""
        for m in list(self.allm):
            yield from list(m.gs.values())

    def unwaited(
        self, g: GBase, canceled: type = Canceled, told: Any = tell, is_a: Any = isinstance
    ) -> None:
        """Nobody can see the error of *g* any more: end run() with it (E2). Any thread.

        It may come when the interpreter ends, and the globals of this module, and then Python's
        own names, are gone.
        """
        error = g.error
        if error is None or g.system or is_a(error, canceled) or not g.claim():
            return
        what = f"goroutine {g.id} ({g.name}) ended with"
        if not self.is_finished:
            self._condemn(error, what, " too")
            if isinstance(error, InternalError):
                self.finish_all()  # the state cannot be trusted
            else:
                self.shut_down()
            return
        # Without a GIL a thread that ends is the last to drop some handles: E2 holds until run()
        # has its outcome. Stored, then looked; _outcome() does both the other way round.
        if not self.has_outcome:
            self._condemn(error, what, " too")
        if self.has_outcome:  # too late to end run(), never too late to say so
            told(error)

    def run_callable(self, fn: Callable[[], object]) -> None:
        """Run a due callable (the expiry of a context) between two goroutines."""
        try:
            fn()
        except Exception as err:
            if getattr(fn, "__self__", None) is self:
                raise  # of a signal handler: ours do not (E1)
            tell(err)

    # What runs next.

    def inject_glist(self, glist: list[Any]) -> None:
        """Queue what sysmon has found, from its thread, without a P. Go: injectglist."""
        ready = 0
        for g in glist:
            if isinstance(g, GBase):
                self.globq.put(g)
                ready += 1
            else:
                self.poller.post(g)  # a callable: an M runs it when it polls
        self.start_idle(ready)
        self.wake_net_poller()  # S1: queued first

    # Threads.

    def start_thread(self, m: MBase) -> bool:
        """Start the thread of *m*. Go: newm."""
        # Daemon: a call that never returns must not keep the interpreter from ending.
        thread = threading.Thread(
            target=self._mstart, args=(m, m.boot, m.thread), name=f"gopoll-m{m.id}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as err:
            if not str(err).startswith("can't "):
                raise  # of a signal handler
            return False  # no thread to be had
        m.thread = thread
        return True

    def thread_exhaustion(self) -> None:
        """Say, once, that there can be no more threads. Go: checkmcount, which ends the program."""
        warnings.warn(
            f"gopoll.run() has {self.max_ms} threads, all at work, and starts no more: goroutines "
            "wait for one that comes back (what blocks so many?)",
            RuntimeWarning,
            stacklevel=2,
        )

    def _mstart(self, m: MBase, boot: int, before: threading.Thread | None) -> None:
        """Be *m*, after the thread that was it *before*. Go: mstart."""
        if not m.begins(boot):  # U2
            return
        m.thread = threading.current_thread()
        if before is not None:
            before.join()  # it has nothing left to do; who joins us has joined it
        self._enter(m)
        hooks = sys.get_asyncgen_hooks()
        try:
            sys.set_asyncgen_hooks(self._begin_agen, self._drop_agen)
            self.mloop(m)
        except BaseException as err:
            if not self.is_forked:
                raise
            self.end_child(err)
        finally:
            sys.set_asyncgen_hooks(*hooks)
            self.leave_thread()
            self.drop_m(m)

    def end_child(self, error: BaseException) -> None:
        """End a forked child: the forking thread is all that is left, and run() is not under it."""
        tell(error)
        sys.stderr.flush()
        os._exit(1)

    def _enter(self, m: MBase) -> None:
        m.begin(threading.get_ident())
        self.enter_thread(m)

    def can_leave(self, m: MBase) -> bool:
        return m is not self.m0

    def lower_switch_interval(self, seconds: float) -> bool:
        """Have threads that hold the GIL give it up sooner, while one has lost its P (B4).

        False if there is nothing to lower.
        """
        return have_gil() and _interval.lower(self, seconds)

    def restore_switch_interval(self) -> None:
        """Undo lower_switch_interval."""
        _interval.restore(self)

    # Async generators (A12): the hooks belong to threads, a goroutine may change its thread.

    def _begin_agen(self, agen: Any) -> None:
        self._agens[id(agen)] = agen

    def _drop_agen(self, agen: Any) -> None:
        """Close an async generator that nobody holds any more. Any thread."""
        if self.is_forked:
            return
        # Then the post: check_end() may come before it.
        self._dropped.append((agen, contextvars.copy_context()))
        try:
            self.poller.post(self._close_dropped)
        except ClosedError:
            pass  # a plain thread has dropped it while run() returned
        if self.is_finished:  # stored, then looked; _stop() looks when all is over
            self._close_late()

    def _close_late(self) -> None:
        """Close what has been dropped when no goroutine could do it any more. Any thread."""
        while True:
            try:
                agen, vars_ = self._dropped.popleft()
            except IndexError:
                return
            vars_.run(close_now, agen)

    def _close_dropped(self) -> None:
        """Start closing what has been dropped, each in a goroutine of its own. On an M (E1)."""
        with self._end_lock:
            while self._dropped and not self.is_over:  # then _stop() closes them (J3)
                agen, vars_ = self._dropped[0]
                name = f"aclose {agen.__qualname__}"
                g = vars_.run(self.make_g, self._aclose(agen), background(), name, True)
                g.closes = True  # it is counted as that from the moment that it is queued
                self._closing_ns = time.monotonic_ns()
                self.start_g(g)
                self._dropped.popleft()

    async def _aclose(self, agen: Any) -> None:
        try:
            await agen.aclose()
        except Canceled:
            pass
        except GeneratorExit:
            raise  # run() has left it behind
        except Exception as err:  # as an error in a finaliser: told, and no more
            tell(err)
        except BaseException as err:
            self.die(err)

    # From start to end.

    def run(self, coro: Coroutine[Any, Any, Any]) -> Any:
        """Run *coro* as the main goroutine. Go: schedinit, main, exit."""
        hooks = sys.get_asyncgen_hooks()
        self.outer_loop = running_loop()
        signals = Signals(self)
        try:
            signals.hold()
            init_poller(self.poller)
            self._enter(self.m0)
            sys.set_asyncgen_hooks(self._begin_agen, self._drop_agen)
            self.watcher.start()
            signals.install()
            self.take_p(self.m0)
            # No other M runs before main's first slice wakes one: it begins on this thread.
            self.main = self.make_g(coro, background(), name_of(coro))
            self.main.claim()  # its outcome is ours: no handle that goes later tells of it (E2)
            self.start_g(self.main, wake=False)
            signals.start()
            debug.running[id(self)] = self
            self.mloop(self.m0)
        finally:
            ours = () if self.is_forked else (self.finish_all, self._stop)
            do_all(
                TURNS,
                signals.stop,
                lambda: debug.running.pop(id(self), None),
                lambda: sys.set_asyncgen_hooks(*hooks),
                self.leave_thread,
                *ours,
                lambda: coro.close() if self.main is None else None,
                signals.restore,
            )
        return self._outcome()

    def _stop(self) -> None:
        """Wait for the threads to end, and close the poller."""
        waits = self.sysmon.stop, self._join_watcher, self._join_threads, self._leave_queues
        closes = self._close_late, self.restore_switch_interval, self.poller.close
        do_all(1, lambda: do_all(2, *waits), lambda: do_all(TURNS, *closes))

    def _join_watcher(self) -> None:
        if self.watcher.is_alive():  # else it has not begun, and leaves at once when it does
            self.watcher.join()

    def _outcome(self) -> Any:
        self.has_outcome = True
        main = self.main
        if self.fatal is not None:
            left = main.state_name == "left behind"
            if not (main.error is None or isinstance(main.error, Canceled) or left):
                note(self.fatal, "the main goroutine ended with", main.error, " too")
            raise self.fatal
        if main.error is not None:
            raise main.error
        unthrown = main.take_unthrown()
        if unthrown is not None:
            raise unthrown  # a Ctrl-C that came too late for a park is not lost
        return main.result

    def shut_down(self) -> None:
        """Cancel what still runs; all is over when that has ended, `finally` blocks and all."""
        self.begin_ending()
        if self._looking is not None:
            self._looking.stop()
        self._look_after(PATIENCE_NS)
        for g in self.goroutines():
            if not g.system:
                self.cancel(g, self.why_ending)
        if self.live == 0:  # the last may have ended before, and nobody have seen that it was (E1)
            try:
                self.poller.post(self.check_end)
            except ClosedError:
                pass  # seen after all, on another thread

    def check_end(self) -> None:
        """Go on with the end: the program's goroutines, its async generators, the runtime's own.

        On the thread of an M.
        """
        with self._end_lock:
            if self.live or self.closing:
                return
            agens = [ref() for ref in self._agens.valuerefs()]  # a copy: others may drop some
            vars_ = contextvars.copy_context()
            self._dropped.extend((agen, vars_) for agen in agens if agen is not None)
            self._agens.clear()
            if self._dropped:
                self._close_dropped()
                return
            for g in self.goroutines():
                self.cancel(g, self.why_ending)
            if self.system_live or not self.end_if_last():  # J3
                return
        self.finish_all()

    def _look_after(self, ns: int) -> None:
        """Have _abandon() look in *ns*."""
        when = time.monotonic_ns() + ns
        if self._patience is None:
            self._patience = self.poller.call_at_ns(when, self._abandon)
        else:
            self._patience.move(when)

    def _abandon(self) -> None:
        """If all that is left is stuck, leave it behind (E10). If it is async generators that are
        being closed, and have been for too long, cancel that.
        """
        hopeless = self.is_hopeless  # before our timer is in the heap again
        self._look_after(LOOK_AGAIN_NS)
        left = [g for g in self.goroutines() if not g.system or g.closes]
        if all(g.closes for g in left) and time.monotonic_ns() - self._closing_ns >= PATIENCE_NS:
            for g in left:
                self.cancel(g, self.why_ending)
        if self.leftovers.are_stuck(left, hopeless) and not self.leftovers.keep_run(left):
            try:
                self.leftovers.leave(left)
            finally:
                self.finish_all()

    def m_of(self, g: GBase) -> MBase | None:
        """Return the M that runs *g*, or None."""
        number = g.m_id
        return next((m for m in self.allm if m.id == number), None)

    def thread_of(self, g: GBase) -> int:
        """Return the identifier of the thread that runs *g*, 0 if none does."""
        m = self.m_of(g)
        return 0 if m is None else m.ident

    def _join_threads(self) -> None:
        """Wait for the Ms, but not for one that has been left behind."""
        for m in self.allm:
            if m.thread is not None and not m.in_slice:
                m.thread.join(PATIENCE_NS / 1e9)
        self.pool.close()

    def _leave_queues(self) -> None:
        """Take what is left behind asleep out of what it waits in (H10), and tell who waits for its
        end (J2). The threads have ended, or are stuck in a slice.
        """
        for g in self.goroutines():
            g.forsake()
        for g in self.goroutines():
            text = f"goroutine {g.id} was left behind when run() ended"
            self.leave_behind(g, RuntimeError(text))
            if g.m_id == 0 and inspect.getcoroutinestate(g.coro) == inspect.CORO_CREATED:
                g.coro.close()  # a run that was cut short has never begun it
        self.empty_queues()

    def die(self, error: BaseException) -> None:
        """End run() with *error*: cancel everything. Any thread. Again if interrupted (E1)."""
        self._condemn(error, "then the scheduler met")
        self.deaths += 1
        if isinstance(error, InternalError) or self.deaths > MAX_DEATHS:
            self.finish_all()  # its state cannot be trusted, or it cannot go on
        else:
            self.shut_down()

    def _condemn(self, error: BaseException, what: str, too: str = "") -> None:
        if self.fatal is None:
            self.fatal, self.why_ending = error, "the run ends with an error"
        elif self.fatal is not error:
            note(self.fatal, what, error, too)

    def check_dead(self) -> None:
        """Every P is idle and nothing is waited for: is there anything outside? Go: checkdead."""
        if self.live == 0 or self.nmidlelocked < 0 or self.signal_chans or self.pool.is_busy:
            return
        others = self._other_threads()
        if others:
            self._look_again(others)
            return
        if not self.is_quiet:
            return  # the last thread outside has woken somebody, and ended since we looked
        self.die(DeadlockError(debug.describe(self)))

    def _look_again(self, others: set[int]) -> None:
        """Be here again in a while: a thread that ends tells nobody. Seldom, if they stay the same.

        A timer wakes the M, which finds nothing to run and looks.
        """
        same = others == self._others
        self._others = others
        self._look_ns = min(2 * self._look_ns, LOOK_SELDOM_NS) if same else LOOK_AGAIN_NS
        when = time.monotonic_ns() + self._look_ns
        if self._looking is None:
            self._looking = self.poller.call_at_ns(when, int)
        else:
            self._looking.move(when)

    @property
    def has_outsiders(self) -> bool:
        """Whether there is anything outside of this run that could wake a goroutine."""
        return bool(self.signal_chans or self._other_threads())

    def _other_threads(self) -> set[int]:
        """Return the threads that are not the runtime's own."""
        ours = {m.thread for m in self.allm} | {self.watcher} | self.pool.threads
        idents = {t.ident for t in ours if t is not None} | {self.m0.ident}
        return {
            t.ident or 0
            for t in threading.enumerate()
            if t.ident not in idents and not isinstance(t, Watcher)
        }

    # What sysmon says.

    def stalled(self, gid: int, name: str | None, ns: int, due: int, kind: str, stack: Any) -> int:
        """A goroutine stalls: tell the hooks; the ns at which it is due again. From sysmon.

        name: if its slice is over.
        """
        debug.report_stall(self, gid, name, ns, due, kind, stack)
        return debug.next_stall(ns)

    def trace(self, now: int) -> None:
        """Print a line of schedtrace. From sysmon."""
        debug.print_trace(self, now)


def name_of(coro: Any) -> str:
    """Return what the goroutine of *coro* is called if nobody says."""
    return getattr(coro, "__qualname__", None) or type(coro).__name__
