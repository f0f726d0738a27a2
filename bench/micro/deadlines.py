"""Sides of the deadline groups: set and cleared, moved later, moved earlier, expired.

Called by bench/test_conn.py. A deadline stands beside a single other one at most; all loops get a
turn after each BETWEEN operations, or asyncio would pile up what it has cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import gopoll
from bench.micro.contest import OURS, Round, Side, now_ns
from bench.micro.rivals import in_go, on_gopoll, on_greenlets, on_kernel, on_loops
from bench.micro.trips import LOOPS, unix_pair

BETWEEN = 100
HOUR = 3600.0
AHEAD_NS = 20_000_000  # from setting the deadlines that are to expire until they do
SLACK_NS = 3_000_000  # uvloop's clock has milliseconds


def batches(count):
    """Return ranges of BETWEEN numbers that make up *count*, or a little more."""
    return [range(n, n + BETWEEN) for n in range(0, count, BETWEEN)]


# -- set and cleared -------------------------------------------------------------------------------


def gopoll_deadlines(set_one):
    """Return a main that calls set_one(conn's set_read_timeout, numbers) for each batch."""

    async def main(count):
        ours, theirs = map(gopoll.from_socket, unix_pair())
        async with ours, theirs:
            parts = batches(count)
            began = now_ns()
            for numbers in parts:
                set_one(ours.set_read_timeout, numbers)
                await gopoll.gosched()
            took = now_ns() - began
        return took / (len(parts) * BETWEEN)

    return main


def gopoll_set(set_read_timeout, numbers):
    for _ in numbers:
        set_read_timeout(HOUR)
        set_read_timeout(None)


def gopoll_later(set_read_timeout, numbers):
    for _ in numbers:
        set_read_timeout(HOUR)


def gopoll_earlier(set_read_timeout, numbers):
    for i in numbers:
        set_read_timeout(1000 * HOUR - i / 1000)


def ring():
    """What an hour later would be called."""


def asyncio_deadlines(set_one):
    """Return a main that calls set_one(call_later, its last handle, numbers) for each batch."""

    async def main(count):
        call_later = asyncio.get_running_loop().call_later
        handle = call_later(HOUR, ring)
        parts = batches(count)
        began = now_ns()
        for numbers in parts:
            handle = set_one(call_later, handle, numbers)
            await asyncio.sleep(0)
        took = now_ns() - began
        handle.cancel()
        return took / (len(parts) * BETWEEN)

    return main


def asyncio_set(call_later, handle, numbers):
    for _ in numbers:
        call_later(HOUR, ring).cancel()
    return handle


def asyncio_later(call_later, handle, numbers):
    for _ in numbers:
        handle.cancel()
        handle = call_later(HOUR, ring)
    return handle


def asyncio_earlier(call_later, handle, numbers):
    for i in numbers:
        handle.cancel()
        handle = call_later(1000 * HOUR - i / 1000, ring)
    return handle


def reschedules(delay):
    """Return a main of asyncio.timeout(): reschedule() is its way to move one."""

    async def main(count):
        now = asyncio.get_running_loop().time
        parts = batches(count)
        async with asyncio.timeout(1000 * HOUR) as timeout:
            began = now_ns()
            for numbers in parts:
                for i in numbers:
                    timeout.reschedule(now() + delay(i))
                await asyncio.sleep(0)
            took = now_ns() - began
        return took / (len(parts) * BETWEEN)

    return main


def trio_deadlines(delay):
    """Return a main of trio: the deadline of a cancel scope is assigned."""

    async def main(trio, count):
        now = trio.current_time
        checkpoint = trio.lowlevel.cancel_shielded_checkpoint
        parts = batches(count)
        with trio.CancelScope() as scope:
            began = now_ns()
            for numbers in parts:
                for i in numbers:
                    scope.deadline = now() + delay(i)
                await checkpoint()
            took = now_ns() - began
        return took / (len(parts) * BETWEEN)

    return main


def gevent_set(gevent, count):
    start = gevent.Timeout.start_new
    began = now_ns()
    for _ in range(count):
        start(HOUR).close()
    return (now_ns() - began) / count


def later(i):
    return HOUR


def earlier(i):
    return 1000 * HOUR - i / 1000


SET = (
    on_gopoll(gopoll_deadlines(gopoll_set)),
    *on_loops(asyncio_deadlines(asyncio_set), LOOPS),
    on_greenlets("gevent", gevent_set),
    in_go("set"),
)
LATER = (
    on_gopoll(gopoll_deadlines(gopoll_later)),
    *on_loops(asyncio_deadlines(asyncio_later), LOOPS),
    *on_loops(reschedules(later), LOOPS[:2], "-timeout"),
    on_kernel("trio", trio_deadlines(later)),
    in_go("later"),
)
EARLIER = (
    on_gopoll(gopoll_deadlines(gopoll_earlier)),
    *on_loops(asyncio_deadlines(asyncio_earlier), LOOPS),
    *on_loops(reschedules(earlier), LOOPS[:2], "-timeout"),
    on_kernel("trio", trio_deadlines(earlier)),
    in_go("earlier"),
)

# -- expired: all at one moment; from when the loop may look until it has called the last ----------


def spin_until(when_ns):
    """Pass the time: nothing of the loop runs meanwhile."""
    while time.monotonic_ns() < when_ns:
        pass


def gopoll_expire(stack: contextlib.ExitStack, count: int) -> Round:
    """Parked waiters whose deadlines pass come out of netpoll."""
    poller = gopoll.Poller()
    stack.callback(poller.close)
    descs = []
    for _ in range(count):
        ours, _ = map(stack.enter_context, socket.socketpair())
        desc = poller.open(ours.fileno())
        descs.append(desc)
        stack.callback(desc.close)
        stack.callback(desc.evict)
    poller.netpoll(0, 256)  # what was ready from the first

    def measure() -> float:
        when = time.monotonic_ns() + AHEAD_NS
        for desc in descs:
            desc.set_deadline_ns(0)
            desc.reset(gopoll.READ)
            assert desc.wait(gopoll.READ).commit(desc)
            desc.set_deadline_ns(when, gopoll.READ)
        assert time.monotonic_ns() < when, "the machine is too slow for this"
        spin_until(when + SLACK_NS)
        netpoll, left = poller.netpoll, count
        began = now_ns()
        while left:
            left -= len(netpoll(0))
        return (now_ns() - began) / count

    return measure


async def asyncio_expire(count):
    """The callbacks of as many timers."""
    loop = asyncio.get_running_loop()
    last, left = loop.create_future(), count

    def ring():
        nonlocal left
        left -= 1
        if left == 0:
            last.set_result(now_ns())

    await asyncio.sleep(0)
    for _ in range(count):
        loop.call_later(AHEAD_NS * 1e-9, ring)
    spin_until(time.monotonic_ns() + AHEAD_NS + SLACK_NS)
    assert left == count
    began = now_ns()
    await asyncio.sleep(0)  # uvloop would wait by a clock that it read before
    return (await last - began) / count


EXPIRE = (
    Side("gopoll", gopoll_expire, OURS),
    *on_loops(asyncio_expire, LOOPS),
    in_go("expire"),
)
