"""What is left when main has ended: waited for while it goes on, left behind if it is stuck.

Called by sched.py, on the thread of an M. Go: none; what is left there dies with main.

E10: what is left is left behind when two looks find every goroutine of it where it was: in the same
    slice at the same spot, or in the same wait that nothing can end but what is stuck. A wait for
    something else may be ended by a descriptor, a timer, a signal or a thread of the program: while
    there is one of those, it is waited for. So is all while one has run()'s own thread, on which
    run() returns.
"""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Collection
from typing import Any

from gopoll.runtime import stacks
from gopoll.runtime._g import GBase
from gopoll.runtime.report import tell

__all__ = ["Leftovers", "close_now"]


class Leftovers:
    """The goroutines that a run has left, and where they were at the last look."""

    def __init__(self, sched: Any) -> None:
        self._sched = sched  # the Scheduler, which imports us
        # What alone can wake a goroutine, while it waits for that: the children of its Group, or
        # its call of blocking(). Each step on it is atomic.
        self.awaits: dict[GBase, Collection[object]] = {}
        self._signs: dict[object, object] = {}
        self._kept_by: GBase | None = None  # who has run()'s own thread, and has been told of

    def are_stuck(self, left: list[GBase], hopeless: bool) -> bool:
        """Look at *left*; report whether it is stuck where it was at the last look.

        hopeless: no descriptor and no timer is waited for.
        """
        signs = self._look(left, hopeless)
        stuck = bool(signs) and signs == self._signs
        self._signs = signs
        return stuck

    def _look(self, left: list[GBase], hopeless: bool) -> dict[object, object]:
        """Return where each of *left* and of the calls that it may wait for is; nothing if one of
        them is about to go on.
        """
        spots = stacks.spots()
        signs: dict[object, object] = {}
        waiting: set[object] = set()
        for g in left:
            state = g.state_name
            if state == "waiting":
                signs[g] = g.since
                waiting.add(g)
                continue
            m = self._sched.m_of(g) if self._sched.handoff else None
            if state != "running" or m is None:
                return {}
            signs[g] = m.slice_word, _sign(spots.get(m.ident), m.clock)
        if waiting:
            for call, thread in self._sched.pool.calls().items():
                where = None if thread is None else spots.get(thread[0])
                signs[call] = thread and (thread[0], _sign(where, thread[1]))
            open_ = self._not_held(waiting, signs.keys() - waiting)
            if open_ and (not hopeless or self._sched.has_outsiders):
                return {}
        return signs

    def _not_held(self, waiting: set[object], stuck: set[object]) -> set[object]:
        """Return those of *waiting* that something else than *stuck* could wake."""
        while True:
            held = {g for g in waiting if self._is_held(g, stuck)}
            if not held:
                return waiting
            waiting, stuck = waiting - held, stuck | held

    def _is_held(self, g: Any, stuck: set[object]) -> bool:
        found = self.awaits.get(g)
        whom = found.copy() if isinstance(found, set) else found  # one step: children end meanwhile
        return bool(whom) and stuck.issuperset(whom or ()) and g.context.deadline is None

    def keep_run(self, left: list[GBase]) -> bool:
        """Report whether one of *left* has the thread that run() is to return on; warn of it, once.

        run() waits for that one, so it may end as any other: it is told that it is cancelled, and
        its error ends the run.
        """
        sched = self._sched
        for g in left:
            if g.state_name == "running" and sched.m_of(g) is sched.m0:
                if self._kept_by is not g:
                    self._kept_by = g
                    found = stacks.of_threads().get(sched.m0.ident, traceback.StackSummary())
                    self._warn(g, "is stuck", "run() waits for it", found.format())
                return True
        return False

    def leave(self, left: list[GBase]) -> None:
        """Warn that *left* is left behind, with its stacks."""
        sched = self._sched
        sched.pool.give_up()
        self._signs = {}
        found = stacks.of_threads()
        for g in left:
            stack = stacks.of_goroutine(g)
            what = "is stuck" if stack is None else "waits for ever"
            if stack is None:
                stack = found.get(sched.thread_of(g), traceback.StackSummary()).format()
            self._warn(g, what, "it is left behind", stack)

    def _warn(self, g: GBase, what: str, fate: str, stack: list[str]) -> None:
        ended = self._sched.main.state_name == "dead"
        since = "main has ended" if ended else "an error has ended the run"
        text = f"goroutine {g.id} ({g.name}) {what} since {since}: {fate}"
        warnings.warn(f"{text}\n{''.join(stack)}", RuntimeWarning, stacklevel=4)


def _sign(spot: object, clock: int) -> object:
    """Return what tells whether a thread moves: where it is, else what it has used of the CPU.

    faulthandler, which tells without a GIL, knows at most 100 threads and needs a descriptor.
    """
    if spot is not None:
        return spot
    try:
        return time.clock_gettime_ns(clock)
    except OSError:
        return object()  # it has just ended


def close_now(agen: Any) -> None:
    """Close an async generator where nothing can wait any more: what it awaits is closed (A12)."""
    closing = agen.aclose()
    try:
        closing.send(None)
        name = agen.__qualname__
        warnings.warn(
            f"async generator {name} was dropped too late to wait in its clean-up: close it with "
            "contextlib.aclosing()",
            ResourceWarning,
            stacklevel=2,
        )
        closing.throw(GeneratorExit)
    except (StopIteration, GeneratorExit):
        pass
    except Exception as err:  # as an error in a finaliser: told, and no more
        tell(err)
