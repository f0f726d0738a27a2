"""Seen from outside: stats(), dump(), stall reports, schedtrace and GOPOLL_DEBUG.

Called by programs on any thread where a docstring says so, and by sysmon.
Go: runtime/proc.go (schedtrace), runtime/traceback.go (go1.27).
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import IO, Any, Self, TypeAlias

from gopoll.runtime import stacks
from gopoll.runtime._g import GBase
from gopoll.runtime._sched import current_sched
from gopoll.runtime._stall import WatchBase, set_stall
from gopoll.runtime.report import tell

__all__ = ["Stall", "StallWatch", "Stats", "dump", "on_stall", "stats"]

_UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|ms|s)?")
_DEFAULT_STALL_NS = 50 * 10**6
_NEVER_NS = 1 << 62


@dataclasses.dataclass(frozen=True)
class Stats:
    """Counters of one scheduler: since its start, but for threads and what follows, which are now.

    parks and wakes: waits for a descriptor or a deadline (those for channels, locks and joins are
    switches only); polls, events, breaks: of epoll_wait; switches: slices of goroutines;
    spurious: events that found nobody waiting; stale: events of a descriptor closed since;
    overruns: slices of 10 ms or more; retakes: Ps that sysmon took from such; handoffs: Ps that
    syscall() gave up; steals: goroutines' queues robbed by an idle P; starved: Ps left alone
    because the GIL was not to be had; stalls: slices over the stall threshold;
    lowered, lowered_ns: how often the interpreter's switch interval has been lowered for this run,
    beside a goroutine or thread that computes, and for how long.
    """

    polls: int
    events: int
    parks: int
    wakes: int
    spurious: int
    stale: int
    breaks: int
    switches: int
    steals: int
    handoffs: int
    overruns: int
    retakes: int
    starved: int
    stalls: int
    lowered: int
    lowered_ns: int
    threads: int
    goroutines: int
    descriptors: int
    timers: int


@dataclasses.dataclass(frozen=True)
class Stall:
    """A goroutine that has kept its thread too long, or a loop that a StallWatch watches.

    goroutine: its id, 0 for a loop. duration: seconds so far. kind: python (it computes), c_nogil
    (it is in C without the GIL), gil_starved (it waits for the GIL), gil_held (it was in C and kept
    the GIL). stack: the Python stack of its thread, innermost last; None for gil_held, and
    without a GIL for C that stays attached: it cannot be read while it lasts. A call that keeps the
    GIL and sleeps is counted in stats().stalls, but not told: nobody can say whose it was.
    """

    goroutine: int
    name: str
    duration: float
    kind: str
    stack: traceback.StackSummary | None


Hook = Callable[[Stall], object]

running: dict[int, Any] = {}  # the schedulers of this process by id(); each step on it is atomic

# Guards all that follow. It may be taken again by a signal handler or a finaliser that runs on the
# thread that has it.
_lock = threading.RLock()
_Entry: TypeAlias = tuple[Hook, int]
_hooks: tuple[_Entry, ...] = ()
_env_stall_ns = 0
_warned: set[str] = set()


def _parse(text: str) -> dict[str, str]:
    pairs = (item.partition("=") for item in text.split(",") if item)
    return {key.strip(): value.strip() for key, _, value in pairs}


def warn_once(text: str) -> None:
    """Tell what is wrong with the environment, once in this process.

    Where a function two calls up was called: run() and gomaxprocs() are.
    """
    with _lock:
        new = text not in _warned
        _warned.add(text)
    if new:
        warnings.warn(text, RuntimeWarning, stacklevel=4)


def check_environment() -> None:
    """Warn of what GOPOLL_DEBUG asks for and does not get. From run()."""
    for key, value in _parse(os.environ.get("GOPOLL_DEBUG", "")).items():
        item = f"{key}={value}" if value else key
        if key not in ("stall", "schedtrace"):
            warn_once(f"GOPOLL_DEBUG: {item!r} is ignored: known are stall and schedtrace")
        elif not _DURATION.fullmatch(value):
            warn_once(f"GOPOLL_DEBUG: {item!r} is ignored: give a duration, such as {key}=50ms")


def _duration_ns(text: str) -> int:
    """Return "50ms", "2s" or "50" (ms) in ns, 0 for what is none."""
    match = _DURATION.fullmatch(text)
    return int(min(float(match[1]) * _UNITS[match[2] or "ms"], _NEVER_NS)) if match else 0


def trace_ns() -> int:
    """Return how often a line of schedtrace is asked for, 0 for never."""
    return _duration_ns(_parse(os.environ.get("GOPOLL_DEBUG", "")).get("schedtrace", ""))


def _renew() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may have had it


os.register_at_fork(after_in_child=_renew)


def _apply() -> None:
    """Tell sysmon the least threshold. Under _lock."""
    limits = [ns for _, ns in _hooks] + ([_env_stall_ns] if _env_stall_ns else [])
    set_stall(min(limits, default=_DEFAULT_STALL_NS), bool(limits))


def on_stall(fn: Hook, threshold: float = 0.05) -> Callable[[], None]:
    """Have fn(Stall) called, on the watching thread, when a goroutine keeps its thread for
    *threshold* seconds. Returns a function that ends it. fn must be quick. Any thread.
    """
    if not callable(fn):
        raise TypeError(f"on_stall() wants a function, not {type(fn).__name__}")
    try:
        is_above = threshold > 0
    except TypeError:
        kind = type(threshold).__name__
        raise TypeError(f"threshold must be seconds, not {kind}") from None
    if not is_above:
        raise ValueError(f"threshold must be above 0 seconds, not {threshold}")
    entry = (fn, max(1, int(min(threshold, _NEVER_NS / 1e9) * 1e9)))
    _change(lambda hooks: (*hooks, entry))
    return lambda: _change(lambda hooks: tuple(each for each in hooks if each is not entry))


def _change(make: Callable[[tuple[_Entry, ...]], tuple[_Entry, ...]]) -> None:
    """Put make(hooks) in the place of the hooks. A finaliser or a signal handler may come between,
    and do the same.
    """
    global _hooks
    with _lock:
        while True:
            old = _hooks
            new = make(old)
            if _hooks is old:  # nothing can come between this and the next
                _hooks = new
                break
        _apply()


def _read_environment() -> None:
    global _env_stall_ns
    with _lock:
        _env_stall_ns = _duration_ns(_parse(os.environ.get("GOPOLL_DEBUG", "")).get("stall", ""))
        _apply()


_read_environment()


def next_stall(ns: int) -> int:
    """Return how long a slice that has been reported after *ns* must last to be reported again."""
    with _lock:
        limits = [limit for _, limit in _hooks] + [_env_stall_ns]
    return min((limit for limit in limits if limit > ns), default=_NEVER_NS)


def report_stall(
    sched: Any,
    gid: int,
    name: str | None,
    ns: int,
    due: int,
    kind: str,
    stack: traceback.StackSummary | None,
) -> None:
    """Tell the hooks, and stderr if GOPOLL_DEBUG asks for it. From sysmon.

    due: the least threshold that has not been reported; those below it have.
    """
    if gid != 0:  # the runtime's own
        names = (str(g.name) for g in sched.goroutines() if g.id == gid)
        _tell(gid, name or next(names, "ended"), ns, due, kind, stack)


def _tell(
    gid: int, name: str, ns: int, due: int, kind: str, stack: traceback.StackSummary | None
) -> None:
    stall = Stall(gid, name, ns / 1e9, kind, stack)
    with _lock:
        hooks = [fn for fn, limit in _hooks if due <= limit <= ns]
        told = _env_stall_ns > 0 and due <= _env_stall_ns <= ns
    for fn in hooks:
        try:
            fn(stall)
        except BaseException as err:  # SystemExit too: a report ends neither run() nor a watch
            tell(err)
    if told:
        who = f"goroutine {gid} ({name})" if gid else name
        lines = [f"gopoll: {who} stalls for {ns / 1e6:.0f} ms ({kind})\n"]
        _print("".join(lines + (stack.format() if stack else [])))


class StallWatch(WatchBase):
    """Report the stalls of a loop of your own to on_stall() and to GOPOLL_DEBUG=stall.

    Make it on the loop's thread. tick() before each piece of work and idle() before the loop waits
    for events cost some ten nanoseconds; both raise RuntimeError on another thread. A piece of work
    that lasts for the threshold is reported once, as a Stall of goroutine 0 with *name*, by a
    thread of the watch's own, which sleeps while the loop idles. close() ends it, also from another
    thread; `with` does that. Once the loop's thread has closed it both raise RuntimeError. Only the
    loop's thread is ever looked at. Go: none.
    """

    def report(self, ns: int, due: int, kind: str, stack: traceback.StackSummary | None) -> int:
        """Tell the hooks; returns the ns at which it is due again. From the watch's thread."""
        _tell(0, self.name, ns, due, kind, stack)
        return next_stall(ns)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def wait_reason(g: GBase) -> str | None:
    """Return what *g* waits in, as a word: read, sleep, join, recv; None if it does not wait."""
    park = g.park_request
    if park is None or g.state_name != "waiting":
        return None
    return str(getattr(park, "wait_reason", None) or type(park).__name__.removesuffix("Op").lower())


def describe(sched: Any) -> str:
    """Return every goroutine with its state, reason, age and stack, as a text."""
    now = time.monotonic_ns()
    threads = stacks.of_threads()
    parts = []
    for g in sorted(sched.goroutines(), key=lambda g: (g.system, g.id)):
        reason = wait_reason(g)
        state = g.state_name if reason is None else f"{g.state_name}: {reason}"
        age = max(0, now - g.since) / 1e9
        locked = ", locked to thread" if g.is_locked else ""
        who = "runtime" if g.system else f"goroutine {g.id}"
        stack = stacks.of_goroutine(g)
        if stack is None:  # as it was a moment ago, if it has not run then
            found = threads.get(sched.thread_of(g))
            stack = [] if found is None else found.format()
        parts.append(f"{who} ({g.name}) [{state}, {age:.1f} s{locked}]:\n" + "".join(stack))
    return "\n".join(parts)


def dump(file: IO[str] | None = None) -> None:
    """Write every goroutine of every run() of this process to *file*, else to stderr: id, state,
    wait reason, age in that state and Python stack. SIGQUIT does the same. Any thread.
    """
    stream = sys.stderr if file is None else file
    if not (file is None or hasattr(file, "write")):
        raise TypeError(f"file must be an open text file, not {type(file).__name__}")
    for sched in list(running.values()):
        print(f"gopoll: {sched.live} goroutines\n\n{describe(sched)}", file=stream, flush=True)


def stats() -> Stats:
    """Return the counters of the scheduler on this thread. RuntimeError outside run()."""
    sched: Any = current_sched()
    poll = sched.poller.stats()
    mon = sched.sysmon
    return Stats(
        **{name: poll[name] for name in _POLL_FIELDS},
        switches=sum(m.switches for m in sched.allm),
        steals=sum(m.steals for m in sched.allm),
        handoffs=sum(m.handoffs for m in sched.allm),
        overruns=mon.overruns,
        retakes=mon.retakes,
        starved=mon.starved,
        stalls=mon.stalls,
        lowered=mon.lowered,
        lowered_ns=mon.lowered_ns,
        threads=1 + sum(m.thread is not None and m.thread.is_alive() for m in sched.allm),
        goroutines=sched.live,
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


def print_trace(sched: Any, now: int) -> None:
    """Print one line, as GODEBUG=schedtrace does."""
    ms = (now - sched.started_ns) // 10**6
    threads = 1 + sum(m.thread is not None and m.thread.is_alive() for m in sched.allm)
    queues = " ".join(str(p.queued) for p in sched.allp)
    _print(
        f"SCHED {ms}ms: gomaxprocs={sched.nprocs} idleprocs={sched.npidle} threads={threads} "
        f"spinningthreads={sched.nmspinning} idlethreads={sched.nmidle} "
        f"runqueue={len(sched.globq)} [{queues}]\n"
    )


def _print(text: str) -> None:
    """Write *text* to stderr, if that is there and whole; what is not must not end run()."""
    try:
        sys.stderr.write(text)
    except (AttributeError, OSError, ValueError):  # AttributeError: there is none
        pass
