"""Sides of a selector's calls: NetpollSelector and selectors.EpollSelector on like descriptors.

Called by bench/test_selector.py. The descriptors are eventfds: ready ones hold a one, idle ones
nothing. What is timed is the CPU time of the thread, because a call is a microsecond or less.
"""

from __future__ import annotations

import contextlib
import functools
import os
import selectors
import time
from collections.abc import Callable

from bench.macro.build import Missing
from bench.macro.measure import fd_limit
from bench.micro.contest import OURS, RIVAL, Round, Side
from gopoll.embed.selector import NetpollSelector

READ, BOTH = selectors.EVENT_READ, selectors.EVENT_READ | selectors.EVENT_WRITE
SPARE_FDS = 200


def eventfd(stack: contextlib.ExitStack, value: int) -> int:
    """Return an eventfd that *stack* closes."""
    fd = os.eventfd(value, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def select(selector: selectors.BaseSelector, _fd: int, count: int) -> None:
    """Take out what is ready."""
    for _ in range(count):
        selector.select(0)


def register(selector: selectors.BaseSelector, fd: int, count: int) -> None:
    """Register and unregister."""
    selector.unregister(fd)
    for _ in range(count):
        selector.register(fd, READ)
        selector.unregister(fd)
    selector.register(fd, READ)


def modify(selector: selectors.BaseSelector, fd: int, count: int) -> None:
    """Change the events, and back."""
    for _ in range(count):
        selector.modify(fd, BOTH)
        selector.modify(fd, READ)


def modify_data(selector: selectors.BaseSelector, fd: int, count: int) -> None:
    """Change the data, and back: no system call."""
    for _ in range(count):
        selector.modify(fd, READ, 1)
        selector.modify(fd, READ, 2)


Act = Callable[[selectors.BaseSelector, int, int], None]


def enter(
    kind: type, act: Act, ready: int, idle: int, stack: contextlib.ExitStack, count: int
) -> Round:
    """Return a round of *count* times *act*, with so many descriptors registered."""
    if 2 * (ready + idle) + SPARE_FDS > fd_limit():
        raise Missing(f"{2 * (ready + idle)} descriptors are wanted (raise RLIMIT_NOFILE)")
    fds = [eventfd(stack, i < ready) for i in range(ready + idle)]
    selector = stack.enter_context(contextlib.closing(kind()))
    for fd in fds:
        selector.register(fd, READ)
    assert len(selector.select(0)) == ready

    def one() -> float:
        began = time.thread_time_ns()
        act(selector, fds[0], count)
        return (time.thread_time_ns() - began) / count

    return one


def sides(act: Act, ready: int, idle: int) -> tuple[Side, ...]:
    """Return both sides of *act*."""
    return (
        Side("gopoll", functools.partial(enter, NetpollSelector, act, ready, idle), OURS),
        Side(
            "selectors",
            functools.partial(enter, selectors.EpollSelector, act, ready, idle),
            RIVAL,
        ),
    )
