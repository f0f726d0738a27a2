"""A contest: all sides of a group take their rounds in turn, so the machine's moods meet them all.

Called by bench/conftest.py, on the main thread. pytest-benchmark measures one after the other; here
the rounds of all sides are taken first, and each test hands the figures of its side on, by way of a
timer that repeats them.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from bench.macro.build import Missing

Round = Callable[[], float]  # measures one round; returns ns per operation
Enter = Callable[[contextlib.ExitStack, int], Round]  # makes it ready; may raise Missing

now_ns = time.perf_counter_ns

OURS, FLOOR, RIVAL, CONTROL = "ours", "floor", "rival", "control"


@dataclass(frozen=True)
class Side:
    """One of those that are compared. A control is no rival: less than what the others do."""

    name: str
    enter: Enter
    kind: str = RIVAL


@dataclass(frozen=True)
class Group:
    """One operation, and who does it. *count*: how many a round has, before --micro-scale."""

    name: str
    title: str
    unit: str
    count: int
    sides: tuple[Side, ...]


@dataclass
class Outcome:
    """What a group has brought: {side: ns of each round}, and why others have none."""

    ns: dict[str, list[float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    preempted: float = 0.0  # times a second, by processes that are none of ours

    def tell(self, name: str) -> None:
        """Raise the error of a side, if it has one: what pytest-benchmark runs for its rounds."""
        if name in self.errors:
            raise self.errors[name]


@contextlib.contextmanager
def one_cpu() -> Iterator[int]:
    """Keep this thread, and what it starts, on one CPU under SCHED_BATCH; give its number.

    That is the low-noise place of bench/macro too: nobody preempts another at a wake-up.
    """
    before = os.sched_getaffinity(0), os.sched_getscheduler(0)
    cpu = min(before[0])
    no_priority = os.sched_param(0)
    os.sched_setaffinity(0, {cpu})
    os.sched_setscheduler(0, os.SCHED_BATCH, no_priority)
    try:
        yield cpu
    finally:
        os.sched_setaffinity(0, before[0])
        os.sched_setscheduler(0, before[1], no_priority)


@contextlib.contextmanager
def no_collector() -> Iterator[None]:
    """Collect what is there, then let the garbage collector rest, for everybody."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@contextlib.contextmanager
def preemptions(outcome: Outcome) -> Iterator[None]:
    """Count how often others took the CPU from us meanwhile."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw, now_ns()
    yield
    took = (now_ns() - began) * 1e-9
    outcome.preempted = (resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - before) / took


def hold(group: Group, sides: list[Side], rounds: int, scale: float) -> Outcome:
    """Measure *rounds* of each of *sides*: in each round all in turn, in an order of its own.

    A side that fails is out; the others go on. One more round, the first, warms up.
    """
    outcome = Outcome()
    ready: dict[str, Round] = {}
    count = max(1, int(group.count * scale))
    dice = random.Random(group.name)  # the same orders in every run
    with one_cpu(), contextlib.ExitStack() as stack, preemptions(outcome):
        for side in sides:
            try:
                ready[side.name] = side.enter(stack, count)
            except Missing as missing:
                outcome.skipped[side.name] = str(missing)
            except Exception as exc:
                outcome.errors[side.name] = exc
        for n in range(rounds + 1):
            with no_collector():
                for name in dice.sample(sorted(ready), len(ready)):
                    try:
                        ns = ready[name]()
                    except Exception as exc:
                        outcome.errors[name] = exc
                        outcome.ns.pop(name, None)
                        del ready[name]
                    else:
                        if n > 0:
                            outcome.ns.setdefault(name, []).append(ns)
    return outcome


class Replay:
    """A timer for pytest-benchmark: between two calls passes what was measured before."""

    def __init__(self) -> None:
        self._now, self._rounds, self._inside = 0.0, iter(()), False

    def load(self, ns: Iterable[float]) -> None:
        """Take the rounds that pytest-benchmark is to see next."""
        self._rounds, self._inside = iter(ns), False

    def __call__(self) -> float:
        if self._inside:
            self._now += next(self._rounds) * 1e-9
        self._inside = not self._inside
        return self._now


replay = Replay()
MARKS = (
    pytest.mark.benchmark(timer=replay),
    # rloop leaves its sockets to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
)


def contestants(groups: Iterable[Group]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that makes a test of each side of each group: arguments group and side."""
    pairs = [
        pytest.param(group, side, id=f"{group.name}-{side.name}")
        for group in groups
        for side in group.sides
    ]

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        for mark in (*MARKS, pytest.mark.parametrize(("group", "side"), pairs)):
            test = mark(test)
        return test

    return decorate


def clock_cost() -> int:
    """Return the ns between two looks at the clock that have nothing between them."""
    found = []
    for _ in range(1000):
        began = now_ns()
        found.append(now_ns() - began)
    return sorted(found)[len(found) // 2]


def looped(cycle: Callable[[], Any], count: int) -> Round:
    """Return a round of *count* calls of *cycle*; the loop's own time is in it, for all sides."""

    def measure() -> float:
        numbers = range(count)
        began = now_ns()
        for _ in numbers:
            cycle()
        return (now_ns() - began) / count

    return measure
