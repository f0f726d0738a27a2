"""sleep, gosched and join: how long they last, in which order they end, and what they refuse.

Go: time/sleep.go, timeSleep and Gosched in runtime.
"""

import asyncio
import math
import time

import pytest

import gopoll
from gopoll import Canceled
from plugins.guard import wait_parked, wait_until
from runtime.tools import ONE, fails, value

# -- sleep -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [1e-9, 1e-6, 2e-4, 9.99e-4, 1e-3, 1.001e-3, 0.02])
def test_a_sleep_never_ends_early(run, seconds):
    async def main():
        for _ in range(5):
            began = time.monotonic()
            assert await gopoll.sleep(seconds) is None
            assert time.monotonic() - began >= seconds

    run(main)


def test_sleeps_end_no_earlier_beside_a_hundred_others(run):
    async def main():
        async def worker(seconds):
            began = time.monotonic()
            await gopoll.sleep(seconds)
            return time.monotonic() - began - seconds

        seconds = [(i * 37 % 100) / 5000 for i in range(100)]
        late = [await g for g in [gopoll.go(worker, s) for s in seconds]]
        assert min(late) >= 0

    run(main)


def test_below_a_millisecond_a_sleep_is_not_rounded_up_to_one(run):
    """Of 300 sleeps of 0.1 ms at least one must come back before 1 ms: a rounded one never does."""

    async def main():
        shortest = math.inf
        for _ in range(300):
            began = time.monotonic()
            await gopoll.sleep(1e-4)
            shortest = min(shortest, time.monotonic() - began)
        assert shortest < 1e-3

    run(main)


def test_sleepers_wake_in_the_order_of_their_moments_whoever_began(run):
    async def main():
        order = []

        async def worker(seconds):
            when = time.monotonic() + seconds
            await gopoll.sleep(seconds)
            order.append(when)

        gs = [gopoll.go(worker, s) for s in (0.09, 0.03, 0.06, 0.001)]
        for g in gs:
            await g
        assert order == sorted(order)

    run(main, **ONE)


@pytest.mark.parametrize("seconds", [0, 0.0, -0.0, -1, -1e9, -math.inf])
def test_a_sleep_of_nothing_is_gosched(run, seconds):
    async def main():
        order = []

        async def worker(wait):
            for _ in range(2):
                order.append(wait)
                await wait()

        def nothing():
            return gopoll.sleep(seconds)

        waits = [nothing, gopoll.gosched, nothing, gopoll.gosched]
        timers = gopoll.stats().timers
        gs = [gopoll.go(worker, wait) for wait in waits]
        await gopoll.gosched()
        assert gopoll.stats().timers == timers
        for g in gs:
            await g
        assert order == waits * 2

    run(main, **ONE)


def test_a_sleep_of_nan_is_refused(run):
    async def main():
        with pytest.raises(TypeError, match=r"^seconds are a number, not str$"):
            gopoll.sleep("1")
        with pytest.raises(ValueError, match=r"^cannot sleep for nan seconds$"):
            gopoll.sleep(math.nan)
        with pytest.raises(TypeError):
            gopoll.sleep("1")

    run(main)


def test_a_very_long_sleep_can_be_had(run):
    async def main():
        g = gopoll.go(gopoll.sleep, 1e9)
        longer = gopoll.go(gopoll.sleep, 1e200)
        await wait_parked(g, longer)
        for sleeper in (g, longer):
            sleeper.cancel()
            with pytest.raises(Canceled):
                await sleeper

    run(main)


def test_the_shortest_sleep_parks_and_lets_the_others_run(run):
    """It had passed before the await looked at the clock: a loop of such kept all others waiting,
    for ever without hand-off, and saw no cancellation.
    """

    async def main():
        async def shortest(times):
            for _ in range(times):
                await gopoll.sleep(1e-9)

        ran = []
        other = gopoll.go(lambda: value(ran.append(1)))
        await shortest(1000)
        assert ran
        await other
        g = gopoll.go(shortest, 3)
        g.cancel()
        with pytest.raises(Canceled):
            await g

    run(main, **ONE)


def test_a_sleep_begins_with_its_await(run):
    async def main():
        sleep = gopoll.sleep(0.02)
        time.sleep(0.02)
        began = time.monotonic()
        await sleep
        assert time.monotonic() - began >= 0.02

    run(main)


def test_a_forgotten_await_is_told(run):
    async def main():
        with pytest.warns(RuntimeWarning, match=r"^sleep\(\) was never awaited$"):
            gopoll.sleep(0.001)
        yields = r"^gosched\(\) or sleep\(0\) was never awaited$"
        for make in (gopoll.gosched, lambda: gopoll.sleep(0)):
            with pytest.warns(RuntimeWarning, match=yields):
                make()

    run(main)


def test_a_sleep_is_awaited_once(run):
    async def main():
        sleep = gopoll.sleep(3600)
        g = gopoll.go(sleep)
        await wait_parked(g)
        with pytest.raises(RuntimeError, match=r"^cannot await the same sleep\(\) twice$"):
            await sleep
        g.cancel()
        with pytest.raises(Canceled):
            await g

    run(main)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: gopoll.sleep(0.001), "sleep"),
        (lambda: gopoll.sleep(0), "gosched"),
        (gopoll.gosched, "gosched"),
    ],
    ids=["sleep", "sleep of nothing", "gosched"],
)
def test_one_that_is_over_is_not_awaited_again(run, make, name):
    async def main():
        op = make()
        await op
        for _ in range(2):
            with pytest.raises(RuntimeError, match=rf"^cannot await the same {name}\(\) twice$"):
                await op

    run(main)


def test_in_a_task_of_asyncio_it_says_so(run):
    async def task(op):
        with pytest.raises(RuntimeError, match=r"gosched\(\) outside a goroutine: await it inside"):
            await gopoll.gosched()
        with pytest.raises(RuntimeError, match=r"gosched\(\) outside a goroutine: await it inside"):
            await gopoll.sleep(0)
        with pytest.raises(RuntimeError, match="no scheduler runs on this thread"):
            await gopoll.sleep(0.001)
        with pytest.raises(RuntimeError, match="a sleep belongs to the scheduler it was made on"):
            await op
        return "went on"

    async def main():
        op = gopoll.sleep(0.001)
        assert await gopoll.blocking(lambda: asyncio.run(task(op))) == "went on"
        await op

    run(main)


def test_a_cancelled_sleep_leaves_no_timer(run):
    async def main():
        before = gopoll.stats().timers
        gs = [gopoll.go(gopoll.sleep, 3600 + i) for i in range(100)]
        await wait_parked(*gs)
        for g in gs[::2] + gs[1::2]:
            g.cancel()
        for g in gs:
            with pytest.raises(Canceled):
                await g
        assert gopoll.stats().timers == before

    run(main)


def test_a_sleeper_wakes_while_the_program_is_otherwise_idle(run):
    """An earlier timer must shorten a wait that is under way on another thread."""

    async def main():
        for _ in range(20):
            ctx, cancel = gopoll.with_cancel(gopoll.background())
            g = gopoll.go(ctx.wait)
            await wait_parked(g)
            await gopoll.sleep(0.001)
            cancel()
            await g

    run(main)


# -- gosched ---------------------------------------------------------------------------------------


def test_gosched_alone_comes_back(run):
    async def main():
        for _ in range(1000):
            assert await gopoll.gosched() is None

    run(main)


def test_gosched_lets_the_others_run_first(run):
    async def main():
        ran = []

        async def worker(i):
            ran.append(i)

        gs = [gopoll.go(worker, i) for i in range(500)]
        await gopoll.gosched()
        assert ran == list(range(500))
        for g in gs:
            await g

    run(main, **ONE)


# -- join ------------------------------------------------------------------------------------------


def test_joiners_wake_in_the_order_in_which_they_came(run):
    async def main():
        gate, open_gate = gopoll.with_cancel(gopoll.background())
        g = gopoll.go(gate.wait)
        order = []

        async def joiner(i):
            await g
            order.append(i)

        joiners = []
        for i in range(5):
            joiners.append(gopoll.go(joiner, i))
            await wait_parked(joiners[-1])
        open_gate()
        for j in joiners:
            await j
        assert order == list(range(5))

    run(main, **ONE)


def test_a_joiner_that_is_cancelled_leaves_the_others_waiting(run):
    async def main():
        gate, open_gate = gopoll.with_cancel(gopoll.background())

        async def worker():
            await gate.wait()
            return "result"

        async def joiner(g):
            return await g

        g = gopoll.go(worker)
        joiners = [gopoll.go(joiner, g) for _ in range(3)]
        await wait_parked(g, *joiners)
        joiners[1].cancel("not this one")
        with pytest.raises(Canceled) as caught:
            await joiners[1]
        assert caught.value.cause == "not this one"
        assert not g.done
        assert [j.done for j in joiners] == [False, True, False]
        open_gate()
        assert [await joiners[0], await joiners[2]] == ["result"] * 2

    run(main)


def test_joining_a_cancelled_goroutine_raises_canceled_and_cancels_nobody_else(run):
    async def main():
        g = gopoll.go(gopoll.sleep, 3600)
        await wait_parked(g)
        g.cancel("its own")
        with pytest.raises(Canceled) as caught:
            await g
        assert caught.value.cause == "its own"
        await gopoll.sleep(0.0001)  # main itself may park

    run(main)


def test_results_that_look_like_exceptions_or_tuples_come_back_as_they_are(run):
    async def main():
        async def give(thing):
            return thing

        error = StopIteration("a value, not an error")
        things = [(), (1, 2), error, ValueError("also a value"), None, StopIteration]
        for thing in things:
            assert await gopoll.go(give, thing) is thing
            done = gopoll.go(give, thing)
            await wait_until(lambda done=done: done.done)
            assert await done is thing

    run(main)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_what_ends_a_program_goes_to_who_awaits_it(run, error):
    """E2 holds where somebody waits: it is his to raise, or to catch."""

    async def leave(gate):
        await gate.recv()
        raise error

    async def wait(g):
        with pytest.raises(type(error)) as caught:
            await g
        assert caught.value is error
        return "seen"

    async def main():
        gate = gopoll.Chan()
        g = gopoll.go(leave, gate)
        waiter = gopoll.go(wait, g)
        await wait_parked(waiter)
        await gate.send(None)
        assert await waiter == "seen"

    run(main)


def test_an_error_of_any_class_comes_through_a_join(run):
    class Odd(BaseException):
        pass

    async def main():
        for error in (ValueError("v"), Odd("o"), GeneratorExit()):
            g = gopoll.go(fails, error)
            with pytest.raises(type(error)) as caught:
                await g
            assert caught.value is error
        assert await gopoll.go(value, 1) == (1,)

    run(main)
