"""Sides of the scheduler's groups: switch, spawn and join, wake another, timers.

Called by bench/test_sched.py. Each main runs within its loop and takes the time there, so no start
of a loop is in the figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

import gopoll
from bench.micro.contest import OURS, Round, Side, now_ns
from bench.micro.rivals import in_go, load, on_gopoll, on_greenlets, on_kernel, on_loops

TASKS = 100
TIMERS = 10_000
LOOPS = ("asyncio", "uvloop", "rloop")

# -- a switch: TASKS tasks take turns --------------------------------------------------------------


def share(count):
    """Return the turns of each of TASKS, and how many that are in all."""
    turns = max(1, count // TASKS)
    return turns, turns * TASKS


async def gopoll_switch(count):
    turns, in_all = share(count)
    gosched = gopoll.gosched

    async def take_turns():
        for _ in range(turns):
            await gosched()

    began = now_ns()
    for g in [gopoll.go(take_turns) for _ in range(TASKS)]:
        await g
    return (now_ns() - began) / in_all


async def asyncio_switch(count):
    turns, in_all = share(count)
    sleep = asyncio.sleep

    async def take_turns():
        for _ in range(turns):
            await sleep(0)

    began = now_ns()
    for task in [asyncio.create_task(take_turns()) for _ in range(TASKS)]:
        await task
    return (now_ns() - began) / in_all


async def trio_switch(trio, count):
    """trio's cheapest checkpoint."""
    turns, in_all = share(count)
    checkpoint = trio.lowlevel.cancel_shielded_checkpoint

    async def take_turns():
        for _ in range(turns):
            await checkpoint()

    began = now_ns()
    async with trio.open_nursery() as nursery:
        for _ in range(TASKS):
            nursery.start_soon(take_turns)
    return (now_ns() - began) / in_all


async def curio_switch(curio, count):
    turns, in_all = share(count)
    sleep = curio.sleep

    async def take_turns():
        for _ in range(turns):
            await sleep(0)

    began = now_ns()
    for task in [await curio.spawn(take_turns) for _ in range(TASKS)]:
        await task.join()
    return (now_ns() - began) / in_all


def gevent_switch(gevent, count):
    turns, in_all = share(count)
    sleep = gevent.sleep

    def take_turns():
        for _ in range(turns):
            sleep(0)

    began = now_ns()
    gevent.joinall([gevent.spawn(take_turns) for _ in range(TASKS)])
    return (now_ns() - began) / in_all


def greenlet_switch(greenlet, count):
    """To and fro between two greenlets: nobody decides who is next."""
    turns = max(1, count // 2)
    main = greenlet.getcurrent()

    def answer():
        while True:
            main.switch()

    other = greenlet.greenlet(answer)
    began = now_ns()
    for _ in range(turns):
        other.switch()
    return (now_ns() - began) / (2 * turns)


SWITCH = (
    on_gopoll(gopoll_switch),
    *on_loops(asyncio_switch, LOOPS),
    on_kernel("trio", trio_switch),
    on_kernel("curio", curio_switch),
    on_greenlets("gevent", gevent_switch),
    on_greenlets("greenlet", greenlet_switch),
    in_go("switch"),
)

# -- spawn and join --------------------------------------------------------------------------------


async def nothing():
    """End at once."""


async def gopoll_spawn(count):
    go = gopoll.go
    began = now_ns()
    for _ in range(count):
        await go(nothing)
    return (now_ns() - began) / count


async def asyncio_spawn(count):
    create_task = asyncio.create_task
    began = now_ns()
    for _ in range(count):
        await create_task(nothing())
    return (now_ns() - began) / count


async def trio_spawn(trio, count):
    """A nursery for each: that is how one waits for one."""
    open_nursery = trio.open_nursery
    began = now_ns()
    for _ in range(count):
        async with open_nursery() as nursery:
            nursery.start_soon(nothing)
    return (now_ns() - began) / count


async def curio_spawn(curio, count):
    spawn = curio.spawn
    began = now_ns()
    for _ in range(count):
        task = await spawn(nothing)
        await task.join()
    return (now_ns() - began) / count


def gevent_spawn(gevent, count):
    spawn = gevent.spawn

    def nothing():
        pass

    began = now_ns()
    for _ in range(count):
        spawn(nothing).join()
    return (now_ns() - began) / count


def greenlet_spawn(greenlet, count):
    """Made and run to its end at once: nobody waits in a queue."""
    make = greenlet.greenlet

    def nothing():
        pass

    began = now_ns()
    for _ in range(count):
        make(nothing).switch()
    return (now_ns() - began) / count


SPAWN = (
    on_gopoll(gopoll_spawn),
    *on_loops(asyncio_spawn, LOOPS),
    on_kernel("trio", trio_spawn),
    on_kernel("curio", curio_spawn),
    on_greenlets("gevent", gevent_spawn),
    on_greenlets("greenlet", greenlet_spawn),
    in_go("spawn"),
)

# -- wake another and wait for it ------------------------------------------------------------------


async def gopoll_channel(count):
    """Send a value to a goroutine that waits for it and wait for the answer."""
    out, back = gopoll.Chan(), gopoll.Chan()

    async def answer():
        async for value in out:
            await back.send(value)

    g = gopoll.go(answer)
    began = now_ns()
    for i in range(count):
        await out.send(i)
        await back.recv()
    took = now_ns() - began
    out.close()
    await g
    return took / count


async def asyncio_futures(count):
    """The same with futures, asyncio's cheapest way."""
    loop = asyncio.get_running_loop()
    box = [loop.create_future(), loop.create_future()]

    async def answer():
        for _ in range(count):
            await box[0]
            box[0] = loop.create_future()
            box[1].set_result(None)

    task = loop.create_task(answer())
    await asyncio.sleep(0)
    began = now_ns()
    for _ in range(count):
        box[0].set_result(None)
        await box[1]
        box[1] = loop.create_future()
    took = now_ns() - began
    await task
    return took / count


async def trio_channel(trio, count):
    out, incoming = trio.open_memory_channel(0)
    back, answers = trio.open_memory_channel(0)

    async def answer():
        async for value in incoming:
            await back.send(value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        began = now_ns()
        for i in range(count):
            await out.send(i)
            await answers.receive()
        took = now_ns() - began
        out.close()
    return took / count


async def curio_queue(curio, count):
    out, back = curio.Queue(), curio.Queue()

    async def answer():
        for _ in range(count):
            await back.put(await out.get())

    task = await curio.spawn(answer)
    began = now_ns()
    for i in range(count):
        await out.put(i)
        await back.get()
    took = now_ns() - began
    await task.join()
    return took / count


def gevent_queue(gevent, count):
    queue = load("gevent.queue")
    out, back = queue.SimpleQueue(), queue.SimpleQueue()

    def answer():
        for _ in range(count):
            back.put(out.get())

    greenlet = gevent.spawn(answer)
    began = now_ns()
    for i in range(count):
        out.put(i)
        back.get()
    took = now_ns() - began
    greenlet.join()
    return took / count


CHANNEL = (
    on_gopoll(gopoll_channel),
    *on_loops(asyncio_futures, LOOPS),
    on_kernel("trio", trio_channel),
    on_kernel("curio", curio_queue),
    on_greenlets("gevent", gevent_queue),
    in_go("channel"),
)

# -- timers: TIMERS of them, moved to later again and again ----------------------------------------


def gopoll_timers(stack: contextlib.ExitStack, count: int) -> Round:
    """Move every timer of a Poller in turn."""
    poller = gopoll.Poller()
    stack.callback(poller.close)
    when = time.monotonic_ns() + 3600 * 10**9
    timers = [poller.call_at_ns(when, None) for _ in range(TIMERS)]
    for timer in timers:
        stack.callback(timer.stop)

    def measure() -> float:
        nonlocal when
        moves = max(1, count // TIMERS)
        began = now_ns()
        for _ in range(moves):
            when += 10**6
            for timer in timers:
                timer.move(when)
        return (now_ns() - began) / (moves * TIMERS)

    return measure


async def asyncio_timers(count):
    """The same with call_later: cancel and make anew. Cancelled ones are taken out meanwhile."""
    loop = asyncio.get_running_loop()

    def ring():
        pass

    timers = [loop.call_later(3600, ring) for _ in range(TIMERS)]
    moves, took = max(1, count // TIMERS), 0
    for i in range(moves):
        began = now_ns()
        for k, timer in enumerate(timers):
            timer.cancel()
            timers[k] = loop.call_later(3600 + i / 1000, ring)
        await asyncio.sleep(0)
        took += now_ns() - began
    for timer in timers:
        timer.cancel()
    return took / (moves * TIMERS)


TIMER = (
    Side("gopoll", gopoll_timers, OURS),
    *on_loops(asyncio_timers, LOOPS),
    in_go("timers"),
)
