"""Sides of the poller's other groups: register, pollDesc, park and wake, a break across threads.

Called by bench/test_poller.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import select
import selectors
import threading

import gopoll
from bench.micro.contest import CONTROL, FLOOR, OURS, Round, Side, looped, now_ns
from bench.micro.polls import MASK
from bench.micro.rivals import floor, in_c, library, load, on_loops, probe
from bench.micro.trips import LOOPS, unix_pair

# -- register and close ----------------------------------------------------------------------------


def nothing():
    """What a reader would be told."""


def gopoll_register(stack: contextlib.ExitStack, count: int) -> Round:
    ours, _ = map(stack.enter_context, unix_pair())
    poller, fd = gopoll.Poller(), ours.fileno()
    stack.callback(poller.close)

    def cycle():
        desc = poller.open(fd)
        desc.evict()
        desc.close()

    return looped(cycle, count)


def epoll_register(stack: contextlib.ExitStack, count: int) -> Round:
    ours, _ = map(stack.enter_context, unix_pair())
    epoll, fd = stack.enter_context(select.epoll()), ours.fileno()

    def cycle():
        epoll.register(fd, MASK)
        epoll.unregister(fd)

    return looped(cycle, count)


def selectors_register(stack: contextlib.ExitStack, count: int) -> Round:
    ours, _ = map(stack.enter_context, unix_pair())
    selector, fd = stack.enter_context(selectors.EpollSelector()), ours.fileno()

    def cycle():
        selector.register(fd, selectors.EVENT_READ)
        selector.unregister(fd)

    return looped(cycle, count)


async def asyncio_register(count):
    loop = asyncio.get_running_loop()
    ours, theirs = unix_pair()
    with ours, theirs:
        fd = ours.fileno()

        def cycle():
            loop.add_reader(fd, nothing)
            loop.remove_reader(fd)

        return looped(cycle, count)()


def c_register(stack: contextlib.ExitStack):
    """Make the arguments for C."""
    ours, _ = map(stack.enter_context, unix_pair())
    return stack.enter_context(select.epoll()).fileno(), ours.fileno()


REGISTER = (
    in_c("floor_register", maker=c_register),
    Side("gopoll", gopoll_register, OURS),
    Side("epoll", epoll_register),
    Side("selectors", selectors_register),
    *on_loops(asyncio_register, LOOPS),
)

# -- pollDesc --------------------------------------------------------------------------------------


def gopoll_alloc(stack: contextlib.ExitStack, count: int) -> Round:
    poller, alloc_and_free = gopoll.Poller(), probe().alloc_and_free
    stack.callback(poller.close)

    def measure() -> float:
        began = now_ns()
        alloc_and_free(poller, count)
        return (now_ns() - began) / count

    return measure


def c_malloc(stack: contextlib.ExitStack, count: int) -> Round:
    size = probe().DESC_BYTES
    library()
    return lambda: floor("floor_malloc", size, count) / count


ALLOC = (Side("malloc", c_malloc, FLOOR), Side("gopoll", gopoll_alloc, OURS))

# -- park, commit, wake: one waiter, one byte ------------------------------------------------------


def byte_alone(ours, theirs, stack):
    """A cycle without poller: the two system calls that all others make too."""

    def cycle():
        theirs.send(b"x")
        ours.recv(16)

    return cycle


def byte_gopoll(ours, theirs, stack):
    """A cycle of Poller: announce, park, a byte comes, take the waiter out, read."""
    poller = gopoll.Poller()
    desc = poller.open(ours.fileno())
    stack.callback(poller.close)
    stack.callback(desc.close)
    stack.callback(desc.evict)
    read, waiter = gopoll.READ, object()
    poller.netpoll(0)  # the edge of the registration

    def cycle():
        desc.reset(read)
        desc.wait(read).commit(waiter)
        theirs.send(b"x")
        (woken,) = poller.netpoll(0)
        ours.recv(16)
        return woken

    return cycle


def byte_epoll(ours, theirs, stack):
    """A cycle of select.epoll with the waiters in a dict."""
    epoll = stack.enter_context(select.epoll())
    fd, waiters, waiter = ours.fileno(), {}, object()
    epoll.register(fd, MASK)
    epoll.poll(0)

    def cycle():
        waiters[fd] = waiter
        theirs.send(b"x")
        ((ready, _),) = epoll.poll(0, 1)
        woken = waiters.pop(ready)
        ours.recv(16)
        return woken

    return cycle


def byte_selectors(ours, theirs, stack):
    """A cycle of selectors: registered all the time, the waiters in a dict."""
    selector = stack.enter_context(selectors.EpollSelector())
    waiters, waiter = {}, object()
    selector.register(ours, selectors.EVENT_READ, ours)

    def cycle():
        waiters[ours] = waiter
        theirs.send(b"x")
        ((key, _),) = selector.select(0)
        woken = waiters.pop(key.data)
        ours.recv(16)
        return woken

    return cycle


def on_a_pair(make, stack: contextlib.ExitStack, count: int) -> Round:
    """Return a round of the cycle that make(ours, theirs, stack) returns."""
    ours, theirs = map(stack.enter_context, unix_pair())
    return looped(make(ours, theirs, stack), count)


def c_park(stack: contextlib.ExitStack):
    """Make the arguments for C."""
    ours, theirs = map(stack.enter_context, unix_pair())
    epoll = stack.enter_context(select.epoll())
    epoll.register(ours, MASK)
    epoll.poll(0)
    return epoll.fileno(), ours.fileno(), theirs.fileno()


PARK = (
    in_c("floor_park", maker=c_park),
    Side("gopoll", functools.partial(on_a_pair, byte_gopoll), OURS),
    Side("epoll-dict", functools.partial(on_a_pair, byte_epoll)),
    Side("selectors", functools.partial(on_a_pair, byte_selectors)),
    Side("no-poller", functools.partial(on_a_pair, byte_alone), CONTROL),
)

# -- break to wake-up: two threads wake each other; half a round trip ------------------------------


def to_and_fro(wake_there, wait_here, wake_here, wait_there, count: int) -> float:
    """Have a second thread answer; return the ns from a wake-up to the return of the wait."""

    def answer():
        for _ in range(count):
            wait_there()
            wake_here()

    thread = threading.Thread(target=answer)
    thread.start()
    began = now_ns()
    for _ in range(count):
        wake_there()
        wait_here()
    took = now_ns() - began
    thread.join()
    return took / (2 * count)


def gopoll_wake(stack: contextlib.ExitStack, count: int) -> Round:
    """netpoll_break ends netpoll(-1)."""
    here, there = gopoll.Poller(), gopoll.Poller()
    stack.callback(here.close)
    stack.callback(there.close)

    def wait(poller):
        return functools.partial(poller.netpoll, -1)

    return lambda: to_and_fro(
        there.netpoll_break, wait(here), here.netpoll_break, wait(there), count
    )


def epoll_wake(stack: contextlib.ExitStack, count: int) -> Round:
    """A write to an eventfd ends select.epoll.poll; it is read, as loops do."""

    def make():
        epoll, fd = stack.enter_context(select.epoll()), os.eventfd(0, os.EFD_NONBLOCK)
        stack.callback(os.close, fd)
        epoll.register(fd, select.EPOLLIN)

        def wait():
            epoll.poll()
            os.eventfd_read(fd)

        return functools.partial(os.eventfd_write, fd, 1), wait

    (wake_here, wait_here), (wake_there, wait_there) = make(), make()
    return lambda: to_and_fro(wake_there, wait_here, wake_here, wait_there, count)


def gopoll_goroutines(stack: contextlib.ExitStack, count: int) -> Round:
    """Two runs on two threads; their goroutines wait for channels, on which the others send."""

    def measure() -> float:
        out, back = gopoll.Chan(), gopoll.Chan()

        async def answer():
            for _ in range(count):
                await out.recv()
                await back.send(None)

        async def main():
            began = now_ns()
            for _ in range(count):
                await out.send(None)
                await back.recv()
            return now_ns() - began

        thread = threading.Thread(target=gopoll.run, args=(answer,), kwargs={"procs": 1})
        thread.start()
        took = gopoll.run(main, procs=1)
        thread.join()
        return took / (2 * count)

    return measure


def loop_wake(name: str, stack: contextlib.ExitStack, count: int) -> Round:
    """Two loops on two threads; call_soon_threadsafe has the other call back."""
    new_loop = load(name).new_event_loop

    def measure() -> float:
        here, there = new_loop(), new_loop()
        left, took = count, 0

        def answer():
            here.call_soon_threadsafe(asked)

        def asked():
            nonlocal left, took
            if left == 0:
                took = now_ns() - began
                there.call_soon_threadsafe(there.stop)
                here.stop()
                return
            left -= 1
            there.call_soon_threadsafe(answer)

        thread = threading.Thread(target=there.run_forever)
        thread.start()
        here.call_soon(asked)
        began = now_ns()
        here.run_forever()
        thread.join()
        here.close()
        there.close()
        return took / (2 * count)

    return measure


WAKE = (
    in_c("floor_wake", per=2),
    Side("gopoll", gopoll_wake, OURS),
    Side("gopoll-chan", gopoll_goroutines, OURS),
    Side("epoll-eventfd", epoll_wake),
    *(Side(n, functools.partial(loop_wake, n)) for n in LOOPS),
)
