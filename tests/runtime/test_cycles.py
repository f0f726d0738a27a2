"""What ends with an error leaves nothing to the collector: no error is in a cycle with its frames.

A connection, or a large buffer, in a variable of a goroutine that was cut would else live until
Python happens to collect. Whoever keeps the handle of a goroutine in a variable of a frame that
its error has gone through has made such a cycle himself, as with a task of asyncio.
"""

import gc
import time
import weakref

import pytest

import gopoll
from gopoll import Canceled, Chan, ChanClosed, Cond, Group, Mutex, Reader, WaitGroup
from net.tlstools import tls_pair
from net.tools import pair
from plugins.guard import wait_parked
from plugins.header import FREE_THREADED

CASES = {}


def case(fn):
    CASES[fn.__name__] = fn
    return fn


class Held:
    """In a variable of a frame: it goes when the frame does."""


async def through(held, op):
    """Await *op* with *held* in a variable."""
    return await op


async def fails(held):
    raise ZeroDivisionError


def cut(held, op):
    """Return what waits for *op* in a block that soon expires."""

    async def body():
        async with gopoll.timeout(0.001):
            await through(held, op)

    return body()


async def ends_with(kind, awaitable):
    """Await *awaitable*, or the one in that list, which raises *kind*."""
    try:
        # Out of every variable: it may be a goroutine, which has the error, and that the frames.
        await (awaitable.pop() if isinstance(awaitable, list) else awaitable)
    except kind:
        return
    pytest.fail(f"no {kind.__name__}")


@case
async def timeout_around_a_sleep(held):
    await ends_with(TimeoutError, cut(held, gopoll.sleep(3600)))


@case
async def timeout_around_another(held):
    async def inner():
        async with gopoll.timeout(3600):
            await gopoll.sleep(3600)

    await ends_with(TimeoutError, cut(held, inner()))


@case
async def timeout_around_waits(held):
    mutex, counter = Mutex(), WaitGroup()
    await mutex.lock()
    counter.add(1)
    for op in (mutex.lock(), counter.wait(), Chan().recv(), gopoll.select(Chan().recv_case())):
        await ends_with(TimeoutError, cut(held, op))


@case
async def timeout_around_a_condition(held):
    async def body():
        mutex = Mutex()
        cond = Cond(mutex)
        async with mutex:
            await cond.wait()

    await ends_with(TimeoutError, cut(held, body()))


@case
async def timeout_around_a_connection(held):
    async with pair() as (conn, _):
        for op in (conn.read(), conn.readinto(bytearray(10)), Reader(conn).read_line()):
            await ends_with(TimeoutError, cut(held, op))


@case
async def timeout_around_tls(held):
    async with tls_pair() as (conn, _):
        for op in (conn.read(), conn.readinto(bytearray(10))):
            await ends_with(TimeoutError, cut(held, op))


@case
async def timeout_around_a_function(held):
    await ends_with(TimeoutError, cut(held, gopoll.blocking(time.sleep, 0.01)))


@case
async def timeout_in_a_variable(held):
    async def body(held):
        async with gopoll.timeout(0.001) as _bound:
            await gopoll.sleep(3600)

    await ends_with(TimeoutError, [gopoll.go(body, held)])


@case
async def shield_in_a_variable(held):
    async def body(held):
        async with gopoll.shield() as _shield:
            await fails(held)

    await ends_with(ZeroDivisionError, [gopoll.go(body, held)])


@case
async def deadline_of_a_connection(held):
    async with pair() as (conn, _):
        conn.set_read_timeout(0.001)
        await ends_with(TimeoutError, through(held, conn.read()))
        await ends_with(TimeoutError, through(held, Reader(conn).read_line()))


@case
async def connection_that_is_closed(held):
    async with pair() as (conn, _):
        reading = [gopoll.go(through, held, conn.read())]
        await wait_parked(*reading)
        conn.close()
        await ends_with(gopoll.ClosedError, reading)


@case
async def connection_that_is_reset(held):
    async with pair() as (conn, peer):
        peer.set_linger(0)
        await peer.close()
        await ends_with(ConnectionResetError, through(held, conn.read()))


@case
async def tls_that_is_cut(held):
    async with tls_pair() as (conn, peer):
        await peer.net_conn.close()
        await ends_with(OSError, through(held, conn.read()))


@case
async def dial_that_is_refused(held):
    for address in ("127.0.0.1:1", "localhost:1"):
        await ends_with(ConnectionRefusedError, through(held, gopoll.dial("tcp", address)))


@case
async def goroutine_that_fails(held):
    await ends_with(ZeroDivisionError, [gopoll.go(fails, held)])


@case
async def goroutine_that_is_cancelled(held):
    g = [gopoll.go(through, held, gopoll.sleep(3600))]
    await wait_parked(*g)
    g[0].cancel()
    await ends_with(Canceled, g)


@case
async def context_that_ends(held):
    ctx, _ = gopoll.with_timeout(gopoll.current_context(), 0.001)
    await ends_with(Canceled, [gopoll.go(through, held, gopoll.sleep(3600), context=ctx)])


@case
async def channel_that_is_closed(held):
    channel = Chan()
    receiving = [gopoll.go(through, held, channel.recv())]
    await wait_parked(*receiving)
    channel.close()
    await ends_with(ChanClosed, receiving)


@case
async def group_whose_body_fails(held):
    async def body(held):
        async with Group() as group:
            group.go(gopoll.sleep, 3600)
            await fails(held)

    await ends_with(ExceptionGroup, body(held))


@case
async def group_whose_child_fails(held):
    async def body(held):
        async with Group() as group:
            group.go(through, held, gopoll.sleep(3600))
            group.go(fails, held)

    await ends_with(ExceptionGroup, body(held))


@case
async def group_that_is_cancelled_in_its_wait(held):
    async def body(held):
        async with Group() as group:
            group.go(through, held, gopoll.sleep(3600))

    await ends_with(TimeoutError, cut(held, body(held)))
    g = [gopoll.go(body, held)]
    await wait_parked(*g)
    g[0].cancel()
    await ends_with(Canceled, g)


@case
async def function_that_fails(held):
    def fails(held):
        raise ZeroDivisionError

    if not FREE_THREADED:  # there it waits for the thread that has made it, which sleeps
        await ends_with(ZeroDivisionError, gopoll.blocking(fails, held))
        await ends_with(ZeroDivisionError, [gopoll.go(gopoll.blocking, fails, held)])
    g = [gopoll.go(through, held, gopoll.blocking(time.sleep, 0.1))]
    await wait_parked(*g)
    g[0].cancel()
    await ends_with(Canceled, g)


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_left_to_the_collector(run, name):
    async def main():
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                held = Held()
                gone = weakref.ref(held)
                await CASES[name](held)
                del held
                await gopoll.gosched()
                assert gone() is None
        finally:
            gc.enable()

    run(main, procs=1, handoff=False)  # who drops it on another thread leaves it to that one
