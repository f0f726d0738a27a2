"""timeout(), deadline(), shield() and Group as blocks: what is ambient, in whatever order they end.

In order: test_timeout.py, test_cancel.py, test_group.py. Go: none; contexts are passed on by hand.
"""

import asyncio
import collections
import contextlib
import operator
import sys
import threading
import time
import types

import pytest

import gopoll
from gopoll import Canceled, DeadlineExceeded
from gopoll.runtime._sched import current_g
from plugins.guard import wait_parked, wait_until
from plugins.header import FREE_THREADED
from runtime.tools import ONE

BLOCKS = {
    "timeout": lambda: gopoll.timeout(30),
    "shield": gopoll.shield,
    "group": gopoll.Group,
}


@pytest.fixture(params=BLOCKS)
def block(request):
    """Return what makes a block."""
    return BLOCKS[request.param]


async def numbers(make):
    async with make():
        for n in range(3):
            await gopoll.gosched()
            yield n


async def is_untouched(outer):
    """Assert that the goroutine is under *outer* and nothing else: new blocks and waits work."""
    assert gopoll.current_context() is outer
    with pytest.raises(DeadlineExceeded):
        async with gopoll.timeout(0.001):
            await gopoll.sleep(3600)
    async with gopoll.shield(), gopoll.timeout(30):
        await gopoll.sleep(0.0001)
    await gopoll.gosched()
    assert gopoll.current_context() is outer
    assert not current_g().shield_count


async def first(make):
    async for n in numbers(make):
        return n
    raise AssertionError("there are three")


@pytest.mark.parametrize("options", [ONE, {"procs": 4}], ids=str)
def test_a_generator_that_is_left_takes_its_block_with_it(run, block, options):
    """It is closed when nobody holds it any more, by a goroutine of the runtime's."""

    async def main():
        outer = gopoll.current_context()
        for _ in range(20):
            assert await first(block) == 0
            async with gopoll.timeout(30):
                await gopoll.sleep(0.0002)
        for _ in range(10_000):
            if gopoll.current_context() is outer:
                break
            await gopoll.sleep(0.001)  # not wait_until, which has a block of its own
        await is_untouched(outer)

    run(main, **options)


def test_a_bound_set_while_the_block_is_left_behind_holds(run, block):
    async def main():
        await first(block)
        with pytest.raises(DeadlineExceeded):
            async with gopoll.timeout(0.01):
                await gopoll.sleep(3600)

    run(main)


def test_blocks_that_end_in_the_order_in_which_they_began(run, block):
    async def main():
        outer = gopoll.current_context()
        one, two = block(), gopoll.timeout(0.05)
        await one.__aenter__()
        await two.__aenter__()
        await one.__aexit__(None, None, None)
        with pytest.raises(Canceled):  # the bound of the second holds
            await gopoll.sleep(3600)
        await two.__aexit__(None, None, None)
        await is_untouched(outer)

    run(main)


def test_two_generators_are_closed_the_first_first(run, block):
    async def main():
        outer = gopoll.current_context()
        one, two = numbers(block), numbers(block)
        assert [await anext(one), await anext(two)] == [0, 0]
        await one.aclose()
        assert await anext(two) == 1
        await two.aclose()
        await is_untouched(outer)

    run(main)


def test_a_generator_that_another_goroutine_ends(run, block):
    async def rest(agen):
        got = [n async for n in agen]
        await is_untouched(gopoll.current_context())
        return got

    async def main():
        agen = numbers(block)
        await anext(agen)
        assert await gopoll.go(rest, agen) == [1, 2]
        async with gopoll.timeout(30):
            await gopoll.sleep(0.0001)
        await gopoll.gosched()

    run(main)


def test_what_is_above_still_ends_who_is_below_a_block_left_out_of_order(run, block):
    async def main():
        agen, outer, inner = numbers(block), gopoll.timeout(None), gopoll.timeout(30)

        async def body():
            async with outer:
                await anext(agen)
                async with inner:
                    await agen.aclose()
                    outer.reschedule(time.monotonic() + 0.01)
                    await gopoll.sleep(3600)

        with pytest.raises(DeadlineExceeded):
            await body()
        assert inner.context.cause is outer.context.cause

    run(main)


def test_goroutines_started_below_a_block_that_was_left_outlive_it(run):
    async def sleeper():
        await gopoll.sleep(0.01)
        return "slept"

    async def main():
        agen = numbers(BLOCKS["timeout"])
        await anext(agen)
        async with gopoll.timeout(30):
            await agen.aclose()
        g = gopoll.go(sleeper)
        async with gopoll.timeout(30):
            pass
        assert await g == "slept"

    run(main)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_task_of_asyncio_in_a_goroutine_is_refused(run, name):
    """It would be around the goroutine that runs the loop, and every other task of that."""
    outcomes = []

    async def task():
        with pytest.raises(RuntimeError, match=r"in a task of asyncio would be around every task"):
            async with BLOCKS[name]():
                pass
        outcomes.append(name)

    async def tasks():
        await asyncio.gather(task(), task())

    async def main():
        outer = gopoll.current_context()
        asyncio.run(tasks())
        await is_untouched(outer)

    run(main)
    assert outcomes == [name] * 2


@pytest.mark.parametrize("name", BLOCKS)
def test_a_run_in_a_callback_of_asyncio_has_blocks_as_any_other(run, name):
    """As in a cell of a notebook: the loop that waits below run() was taken for one in it."""

    async def main():
        outer = gopoll.current_context()
        async with BLOCKS[name]():
            await gopoll.sleep(0.0001)
        await is_untouched(outer)
        return name

    async def cell():
        return run(main)

    assert asyncio.run(cell()) == name


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_entered_while_another_thread_imports_asyncio(run, monkeypatch, name):
    """AttributeError: partially initialized module 'asyncio' has no attribute ..."""

    async def main():
        monkeypatch.setitem(sys.modules, "asyncio", types.ModuleType("asyncio"))
        async with BLOCKS[name]():
            await gopoll.sleep(0.0001)
        monkeypatch.undo()

    run(main)


def test_what_waits_for_a_note_says_in_a_task_of_asyncio_why_it_cannot(run):
    """It yields what asyncio took for no future: "Task got bad yield"."""

    async def tasks():
        ctx, cancel = gopoll.with_cancel(gopoll.background())
        refused = threading.Event()  # what is done already is no wait
        for op in (gopoll.blocking(refused.wait, 10), ctx.wait()):
            with pytest.raises(RuntimeError, match=r"would wait in a task of asyncio"):
                await op
        refused.set()
        cancel()

    async def main():
        asyncio.run(tasks())

    run(main)


async def numbers_in_time(seconds):
    async with gopoll.timeout(seconds):
        for n in range(3):
            yield n


async def expired():
    """Return a generator whose bound has just ended the goroutine's wait, and its context."""
    agen = numbers_in_time(0.001)
    await anext(agen)
    ctx = gopoll.current_context()
    with pytest.raises(Canceled):
        await gopoll.sleep(3600)
    return agen, ctx


async def close_elsewhere(agen):
    await gopoll.go(agen.aclose(), context=gopoll.background())


async def in_vain(agen):
    """Have another goroutine close *agen*: the wait for that is under the bound, which is over."""
    async with gopoll.shield():
        await close_elsewhere(agen)


async def sleeps():
    before = time.monotonic()
    await gopoll.sleep(0.01)
    assert time.monotonic() - before >= 0.01


async def receives():
    chan = gopoll.Chan()
    g = gopoll.go(chan.recv(), context=gopoll.background())
    await wait_parked(g)
    await chan.send(1)
    assert await g == 1
    g = gopoll.go(sends_late(chan), context=gopoll.background())
    assert await chan.recv() == 2
    await g


async def sends_late(chan):
    await gopoll.sleep(0.002)
    await chan.send(2)


async def locks():
    mutex = gopoll.Mutex()
    await mutex.lock()
    g = gopoll.go(unlocks_late(mutex), context=gopoll.background())
    await mutex.lock()
    mutex.unlock()
    await g


async def unlocks_late(mutex):
    await gopoll.sleep(0.002)
    mutex.unlock()


async def selects():
    assert await gopoll.select(gopoll.Chan().recv_case(), timeout=0.002) == (-1, None)


async def joins():
    async def late():
        await gopoll.sleep(0.002)
        return 3

    assert await gopoll.go(late, context=gopoll.background()) == 3


async def blocks():
    assert await gopoll.blocking(time.sleep, 0.002) is None


async def waits_for_another_context():
    ctx, cancel = gopoll.with_timeout(gopoll.background(), 0.002)
    await ctx.wait()
    cancel()


async def signals():
    mutex = gopoll.Mutex()
    cond = gopoll.Cond(mutex)
    happened = []

    async def late():
        await gopoll.sleep(0.002)
        async with mutex:
            happened.append(1)
            cond.signal()

    async with mutex:
        g = gopoll.go(late, context=gopoll.background())
        while not happened:
            await cond.wait()
        assert not mutex.try_lock()
    await g


async def reads():
    async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
        g = gopoll.go(gopoll.dial("tcp", listener.addr), context=gopoll.background())
        async with await listener.accept() as there, await g as here:
            g = gopoll.go(writes_late(there), context=gopoll.background())
            assert await here.read(1) == b"x"
            await g


async def writes_late(conn):
    await gopoll.sleep(0.002)
    await conn.write(b"x")


WAITS = [
    sleeps, receives, locks, selects, joins, blocks, waits_for_another_context, signals, reads,
    gopoll.gosched,
]  # fmt: skip


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("options", [ONE, {"procs": 4}], ids=str)
def test_a_bound_that_has_passed_ends_no_wait_once_its_block_is_left(run, wait, options):
    """No block is entered or left after that: it is stepped over where the wait begins."""

    async def main():
        outer = gopoll.current_context()
        agen, ctx = await expired()
        closer = gopoll.go(agen.aclose(), context=gopoll.background())
        while not closer.done:  # awaiting anything may raise yet
            with contextlib.suppress(Canceled):
                await gopoll.gosched()
        for _ in range(2):
            await wait()
        assert ctx.done
        assert gopoll.current_context() is outer
        await is_untouched(outer)

    run(main, **options)


def test_a_bound_that_has_passed_still_ends_who_has_entered_a_block_below_it(run):
    """That block is done, and stays so: what is above it counts when it has been left."""

    async def main():
        outer = gopoll.current_context()
        agen = numbers_in_time(0.001)
        await anext(agen)
        async with gopoll.timeout(30) as inner:
            with pytest.raises(Canceled):
                await gopoll.sleep(3600)
            async with gopoll.shield():
                await agen.aclose()
            for _ in range(2):
                with pytest.raises(Canceled):
                    await gopoll.sleep(0)
            assert inner.context.done
        await gopoll.sleep(0.001)
        await is_untouched(outer)

    run(main)


def test_what_was_started_under_a_bound_that_has_passed_stays_cancelled(run):
    """It has only inherited the context: leaving the block out of order takes nothing back."""
    seen = []

    async def heir():
        try:
            await gopoll.sleep(3600)
        except Canceled:
            for wait in (gopoll.sleep(0), gopoll.Chan().recv()):
                with pytest.raises(Canceled):
                    await wait
            async with gopoll.shield():
                await gopoll.sleep(0.001)
            with pytest.raises(Canceled):
                await gopoll.sleep(0)
            seen.append(gopoll.current_context())

    async def main():
        agen = numbers_in_time(0.02)
        await anext(agen)
        ctx = gopoll.current_context()
        g = gopoll.go(heir)
        await wait_parked_under_nothing(g)
        with pytest.raises(Canceled):
            await gopoll.sleep(3600)
        await in_vain(agen)
        await g
        assert seen == [ctx]

    run(main, **ONE)


async def wait_parked_under_nothing(g):
    await gopoll.go(wait_parked(g), context=gopoll.background())


@pytest.mark.parametrize("first", ["passed", "left"])
def test_a_bound_that_passes_just_as_its_block_is_left_out_of_order(run, first):
    """Whether it has and taking it off are one look, under the lock: there is no third order."""

    async def main():
        outer = gopoll.current_context()
        agen = numbers_in_time(30)
        await anext(agen)
        ctx = gopoll.current_context()
        async with gopoll.timeout(30):
            if first == "passed":
                ctx._finish(DeadlineExceeded())
            await agen.aclose()
            if first == "left":
                ctx._finish(DeadlineExceeded())
        await is_untouched(outer)

    run(main)


def test_a_bound_that_is_taken_off_while_it_passes_ends_nothing(run):
    """It has passed, the timer is out of the heap, and the block is left before the end of it."""

    async def main():
        outer = gopoll.current_context()
        agen = numbers_in_time(30)
        await anext(agen)
        ctx = gopoll.current_context()
        async with gopoll.timeout(30) as inner:
            when = ctx._when = time.monotonic()
            with pytest.raises(StopIteration):
                agen.aclose().send(None)
            ctx._finish(DeadlineExceeded(), when)  # as _expire goes on that has seen it
            ctx._expire()
            assert not inner.context.done
            await gopoll.sleep(0.001)
        await is_untouched(outer)

    run(main)


@pytest.mark.parametrize("first", ["left", "ended"])
def test_a_block_whose_goroutine_has_ended_leaves_nothing_with_the_context_above(run, block, first):
    """G3: whichever of the two comes first, the other ends the context."""

    async def begins(agen):
        await anext(agen)
        if first == "left":
            await gopoll.go(agen.aclose(), context=gopoll.background())

    async def main():
        ctx, cancel = gopoll.with_cancel(gopoll.background())
        agens = [numbers(block) for _ in range(10)]
        for agen in agens:
            await gopoll.go(begins, agen, context=ctx)
            await agen.aclose()
        await wait_until(lambda: ctx._below == 0)  # just after their ends
        cancel()

    run(main)


@pytest.mark.parametrize("parked", [False, True])
def test_a_shield_left_out_of_order_shields_no_more(run, parked):
    async def shielded(agen, gate, closed):
        await anext(agen)
        if parked:
            await gate.recv()
            raise AssertionError("there is nothing to receive")
        await gate.recv()
        while not closed:
            await gopoll.gosched()
        await gopoll.sleep(3600)

    async def main():
        agen, gate, closed = numbers(gopoll.shield), gopoll.Chan(), []
        g = gopoll.go(shielded, agen, gate, closed)
        await wait_parked(g)
        g.cancel()
        if not parked:
            await gate.send(None)
        await agen.aclose()
        closed.append(True)
        with pytest.raises(Canceled):
            await g

    run(main)


def test_a_block_that_was_not_entered_cannot_be_left(run):
    """It wrote into None, or ended the process."""
    text = r"^the block of timeout\(\) or deadline\(\) has not been entered$"
    for block in (gopoll.timeout(1), gopoll.deadline(None)):
        with pytest.raises(RuntimeError, match=r"^no goroutine runs here"):
            block.__aenter__()
        with pytest.raises(RuntimeError, match=text):
            block.__aexit__(None, None, None)

    async def main():
        block = gopoll.timeout(1)
        with pytest.raises(RuntimeError, match=text):
            await block.__aexit__(None, None, None)
        async with block:
            await gopoll.gosched()
        with pytest.raises(RuntimeError, match=text.replace("not been entered", "been left")):
            await block.__aexit__(None, None, None)
        group = gopoll.Group()
        text_of_group = r"^the block of the Group has not been entered, or has been left$"
        with pytest.raises(RuntimeError, match=text_of_group):
            await group.__aexit__(None, None, None)
        async with group:
            await gopoll.gosched()
        with pytest.raises(RuntimeError, match=text_of_group):
            await group.__aexit__(None, None, None)

    run(main)


def test_others_may_look_which_context_is_ambient(run):
    """Without a GIL it could end under their hands, and the process with it.

    The end of a run looks. Here two threads do while goroutines go from block to block.
    """

    async def change(over):
        while not over.is_set():
            async with gopoll.timeout(60):
                await gopoll.gosched()

    def look(gs, over):
        for _ in range(200_000 if FREE_THREADED else 100):
            collections.deque(map(operator.attrgetter("context"), gs), maxlen=0)
        over.set()

    async def main():
        over = threading.Event()
        changing = [gopoll.go(change, over) for _ in range(8)]
        gs = [handle._g for handle in changing]
        looking = [threading.Thread(target=look, args=(gs, over)) for _ in range(2)]
        for thread in looking:
            thread.start()
        for handle in changing:
            await handle
        for thread in looking:
            thread.join()

    run(main)
