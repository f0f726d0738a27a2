"""timeout(), deadline(), shield() and Group as blocks: what is ambient, in whatever order they end.

In order: test_timeout.py, test_cancel.py, test_group.py. Go: none; contexts are passed on by hand.
"""

import asyncio
import time

import pytest

import gopoll
from gopoll import Canceled, DeadlineExceeded
from gopoll.runtime._sched import current_g
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


def test_what_waits_for_a_note_says_in_a_task_of_asyncio_why_it_cannot(run):
    """It yields what asyncio took for no future: "Task got bad yield"."""

    async def tasks():
        ctx, cancel = gopoll.with_cancel(gopoll.background())
        for op in (gopoll.blocking(int), ctx.wait()):
            with pytest.raises(RuntimeError, match=r"would wait in a task of asyncio"):
                await op
        cancel()

    async def main():
        asyncio.run(tasks())

    run(main)
