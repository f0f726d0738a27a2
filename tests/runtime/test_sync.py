"""Mutex, RWMutex, Cond, WaitGroup and Once."""

import random

import pytest

import gopoll
from gopoll import Chan, Cond, Mutex, Once, RWMutex, WaitGroup
from plugins.guard import wait_parked
from runtime.tools import Value

PROCS = [1, 2, 8]


# -- Mutex -----------------------------------------------------------------------------------------


def test_a_mutex_lets_one_in(run):
    async def main():
        mutex = Mutex()
        assert repr(mutex) == "<Mutex unlocked>"
        await mutex.lock()
        assert repr(mutex) == "<Mutex locked>"
        assert not mutex.try_lock()
        mutex.unlock()
        assert mutex.try_lock()
        g = gopoll.go(mutex.lock)
        await wait_parked(g)
        assert g.wait_reason == "lock"
        mutex.unlock()
        await g
        assert not mutex.try_lock()
        mutex.unlock()
        async with mutex as entered:
            assert entered is None
            assert not mutex.try_lock()
        assert mutex.try_lock()

    run(main)


def test_an_error_in_the_block_unlocks(run):
    async def main():
        mutex = Mutex()
        with pytest.raises(ZeroDivisionError):
            async with mutex:
                raise ZeroDivisionError
        assert mutex.try_lock()

    run(main)


def test_unlocking_what_is_not_locked_is_an_error():
    with pytest.raises(RuntimeError, match=r"^unlock of unlocked mutex$"):
        Mutex().unlock()
    with pytest.raises(RuntimeError, match=r"^unlock of unlocked RWMutex$"):
        RWMutex().unlock()
    with pytest.raises(RuntimeError, match=r"^runlock of unlocked RWMutex$"):
        RWMutex().runlock()
    mutex = RWMutex()
    assert mutex.try_rlock()
    with pytest.raises(RuntimeError, match=r"^unlock of unlocked RWMutex$"):
        mutex.unlock()
    mutex.runlock()
    with pytest.raises(RuntimeError, match=r"^runlock of unlocked RWMutex$"):
        mutex.runlock()


def test_who_waits_longest_gets_the_mutex(run):
    """H6: handed over, never free beside a waiter."""

    async def main():
        mutex, order = Mutex(), []

        async def work(name):
            async with mutex:
                order.append(name)

        await mutex.lock()
        gs = []
        for name in "abc":
            gs.append(gopoll.go(work, name))
            await wait_parked(*gs)
        mutex.unlock()
        assert not mutex.try_lock()
        for g in gs:
            await g
        assert order == ["a", "b", "c"]

    run(main, handoff=False)


def test_a_cancelled_waiter_is_passed_over(run):
    async def main():
        mutex = Mutex()
        await mutex.lock()
        first, second = gopoll.go(mutex.lock), gopoll.go(mutex.lock)
        await wait_parked(first, second)
        first.cancel()
        with pytest.raises(gopoll.Canceled):
            await first
        mutex.unlock()
        await second

    run(main)


@pytest.mark.parametrize("how", ["cancel", "pending"])
def test_a_waiter_that_is_cancelled_after_the_hand_over_gives_it_on(run, how):
    async def main():
        mutex = Mutex()
        await mutex.lock()
        first, second = gopoll.go(mutex.lock), gopoll.go(mutex.lock)
        await wait_parked(first, second)
        mutex.unlock()  # handoff=False: first owns it and has not run
        if how == "cancel":
            first.cancel()
        else:
            first._g.set_pending(ZeroDivisionError())
        with pytest.raises(gopoll.Canceled if how == "cancel" else ZeroDivisionError):
            await first
        await second
        mutex.unlock()
        assert mutex.try_lock()

    run(main, handoff=False)


def test_a_lock_that_would_wait_needs_a_goroutine():
    mutex = Mutex()
    with pytest.raises(StopIteration):
        next(mutex.lock().__await__())
    with pytest.raises(RuntimeError, match=r"Mutex.lock\(\) would block outside a goroutine"):
        next(mutex.lock().__await__())
    with pytest.warns(RuntimeWarning, match=r"Mutex.lock\(\) was never awaited"):
        mutex.lock()


@pytest.mark.parametrize("procs", PROCS)
def test_a_mutex_keeps_others_out(run, procs):
    """Also where a part of those who want it is cancelled at some moment."""

    async def main():
        mutex, inside, total = Mutex(), [0], [0]

        async def work():
            for _ in range(40):
                async with mutex:
                    inside[0] += 1
                    assert inside[0] == 1
                    total[0] += 1
                    try:
                        await gopoll.gosched()
                    finally:
                        inside[0] -= 1

        gs = [gopoll.go(work) for _ in range(6)]
        for _ in range(20):
            victim = gopoll.go(work)
            for _ in range(random.randrange(4)):
                await gopoll.gosched()
            victim.cancel()
            try:
                await victim
            except gopoll.Canceled:
                pass
        for g in gs:
            await g
        assert total[0] >= 240
        assert mutex.try_lock()

    run(main, procs=procs)


# -- RWMutex ---------------------------------------------------------------------------------------


def test_readers_share_and_a_writer_does_not(run):
    async def main():
        mutex = RWMutex()
        async with mutex.reading(), mutex.reading():
            assert repr(mutex) == "<RWMutex 2 readers>"
            assert not mutex.try_lock()
            assert mutex.try_rlock()
            mutex.runlock()
        async with mutex:
            assert repr(mutex) == "<RWMutex locked>"
            assert not mutex.try_lock()
            assert not mutex.try_rlock()
            g = gopoll.go(mutex.rlock)
            await wait_parked(g)
            assert g.wait_reason == "rlock"
        await g
        writer = gopoll.go(mutex.lock)
        await wait_parked(writer)
        assert writer.wait_reason == "lock"
        mutex.runlock()
        await writer
        mutex.unlock()
        assert mutex.try_lock()

    run(main)


def test_a_writer_that_waits_keeps_new_readers_out(run):
    """And after it the readers come before the next writer."""

    async def main():
        mutex, order = RWMutex(), []

        async def read():
            async with mutex.reading():
                order.append("r")
                await gopoll.gosched()

        async def write():
            async with mutex:
                order.append("w")
                await gopoll.gosched()

        await mutex.rlock()
        gs = []
        for fn in (write, read, write, read):
            gs.append(gopoll.go(fn))
            await wait_parked(*gs)
        assert not mutex.try_rlock()
        mutex.runlock()
        for g in gs:
            await g
        assert order == ["w", "r", "r", "w"]

    run(main, handoff=False)


def test_a_cancelled_writer_lets_the_readers_in(run):
    """H7."""

    async def main():
        mutex = RWMutex()
        await mutex.rlock()
        writer = gopoll.go(mutex.lock)
        await wait_parked(writer)
        readers = [gopoll.go(mutex.rlock) for _ in range(3)]
        await wait_parked(*readers)
        writer.cancel()
        with pytest.raises(gopoll.Canceled):
            await writer
        for g in readers:
            await g
        assert repr(mutex) == "<RWMutex 4 readers>"

    run(main)


@pytest.mark.parametrize("kind", ["lock", "rlock"])
def test_what_a_cancelled_goroutine_has_been_handed_is_given_on(run, kind):
    async def main():
        mutex = RWMutex()
        await mutex.lock()
        first = gopoll.go(getattr(mutex, kind))
        await wait_parked(first)
        second = gopoll.go(mutex.lock)
        await wait_parked(second)
        mutex.unlock()  # to first, which has not run
        first.cancel()
        with pytest.raises(gopoll.Canceled):
            await first
        await second

    run(main, handoff=False)


@pytest.mark.parametrize("procs", PROCS)
def test_readers_and_writers_never_meet(run, procs):
    async def main():
        mutex, readers, writers = RWMutex(), [0], [0]
        count = Mutex()

        async def read():
            for _ in range(30):
                async with mutex.reading():
                    async with count:
                        readers[0] += 1
                    assert writers[0] == 0
                    await gopoll.gosched()
                    async with count:
                        readers[0] -= 1

        async def write():
            for _ in range(30):
                async with mutex:
                    writers[0] += 1
                    assert (readers[0], writers[0]) == (0, 1)
                    await gopoll.gosched()
                    writers[0] -= 1

        async def give_up():
            for _ in range(30):
                try:
                    async with gopoll.timeout(0.0003):
                        await mutex.lock()
                except TimeoutError:
                    continue
                mutex.unlock()

        gs = [gopoll.go(fn) for fn in (read, write, read, write, give_up, read)]
        for g in gs:
            await g
        assert mutex.try_lock()

    run(main, procs=procs)


# -- Cond ------------------------------------------------------------------------------------------


def waiter(mutex, cond, left):
    """Return a coroutine function that waits for *cond* once and says when it has."""

    async def wait(name):
        async with mutex:
            await cond.wait()
            left.append(name)

    return wait


def test_signal_wakes_one_and_broadcast_all(run):
    async def main():
        mutex = Mutex()
        cond, left = Cond(mutex), []
        wait = waiter(mutex, cond, left)
        gs = []
        for name in "abcd":
            gs.append(gopoll.go(wait, name))
            await wait_parked(*gs)
        assert gs[0].wait_reason == "cond"
        assert mutex.try_lock()  # waiting has unlocked it
        mutex.unlock()
        cond.signal()
        await gs[0]
        assert left == ["a"]
        async with mutex:
            cond.broadcast()
            assert left == ["a"]
        for g in gs[1:]:
            await g
        assert sorted(left) == ["a", "b", "c", "d"]
        cond.signal()
        cond.broadcast()
        assert mutex.try_lock()

    run(main)


def test_waiting_needs_the_mutex_and_a_goroutine(run):
    async def main():
        mutex = Mutex()
        with pytest.raises(RuntimeError, match=r"Cond.wait\(\) with the mutex unlocked"):
            await Cond(mutex).wait()

    run(main)
    mutex = Mutex()
    assert mutex.try_lock()
    with pytest.raises(RuntimeError, match=r"Cond.wait\(\) would block outside a goroutine"):
        next(Cond(mutex).wait().__await__())
    assert not mutex.try_lock()
    with pytest.raises(TypeError):
        Cond(None)


def test_a_cancelled_wait_holds_the_mutex_again(run):
    """H8: and for that it waits, cancelled or not."""

    async def main():
        mutex = Mutex()
        cond, seen = Cond(mutex), []

        async def wait():
            async with mutex:
                try:
                    await cond.wait()
                finally:
                    seen.append(mutex.try_lock())

        g = gopoll.go(wait)
        await wait_parked(g)
        await mutex.lock()
        g.cancel("enough")
        await gopoll.sleep(0.002)
        assert not g.done
        assert seen == []
        mutex.unlock()
        with pytest.raises(gopoll.Canceled) as caught:
            await g
        assert caught.value.cause == "enough"
        assert seen == [False]
        assert mutex.try_lock()

    run(main)


def test_an_exception_while_the_mutex_is_awaited_is_raised_with_it_held(run):
    async def main():
        mutex = Mutex()
        cond = Cond(mutex)
        g = gopoll.go(waiter(mutex, cond, []), 1)
        await wait_parked(g)
        await mutex.lock()
        g.cancel()
        await wait_parked(g)  # now for the mutex
        g._g.set_pending(ZeroDivisionError())
        gopoll.runtime._sched.interrupt(g._g)
        mutex.unlock()
        with pytest.raises(ZeroDivisionError):
            await g
        assert mutex.try_lock()

    run(main)


@pytest.mark.parametrize("signalled_first", [True, False])
def test_a_signal_is_not_lost_to_a_cancelled_waiter(run, signalled_first):
    async def main():
        mutex = Mutex()
        cond, left = Cond(mutex), []
        wait = waiter(mutex, cond, left)
        first = gopoll.go(wait, "first")
        await wait_parked(first)
        second = gopoll.go(wait, "second")
        await wait_parked(second)
        if signalled_first:
            cond.signal()  # first has not run since: its wait is done, and returns
            first.cancel()
            await first
            cond.signal()
        else:
            first.cancel()
            cond.signal()
            with pytest.raises(gopoll.Canceled):
                await first
        await second
        assert left == ["first", "second"][not signalled_first :]

    run(main, handoff=False)


def test_a_wait_that_is_thrown_into_before_it_is_woken_stands_in_the_mutexs_queue(run):
    """H1: taken out of the cond's queue by a broadcast, which has still to wake it."""

    async def main():
        mutex, woken, parks = Mutex(), [], []
        cond = Cond(mutex)

        async def wait():
            await cond.wait()

        a, b = wait(), wait()

        def interrupt():
            woken.append("a")
            parks.append(b.throw(ZeroDivisionError))
            assert parks[0].commit(lambda: woken.append("b has the mutex"))

        for coro, waiter in ((a, interrupt), (b, lambda: woken.append("b"))):
            assert mutex.try_lock()
            assert coro.send(None).commit(waiter)
        assert mutex.try_lock()
        cond.broadcast()
        assert woken == ["a", "b"]
        mutex.unlock()
        assert woken == ["a", "b", "b has the mutex"]
        with pytest.raises(ZeroDivisionError):
            b.send(None)
        assert not mutex.try_lock()
        a.close()
        mutex.unlock()
        assert mutex.try_lock()

    run(main)


def test_a_wait_that_is_closed_on_its_way_back_gives_its_signal_on(run):
    """H8: as one that raises."""

    async def main():
        mutex, left = Mutex(), []
        cond = Cond(mutex)
        await mutex.lock()

        async def closed():
            await cond.wait()

        coro = closed()
        assert coro.send(None).commit(lambda: None)
        other = gopoll.go(waiter(mutex, cond, left), "other")
        await wait_parked(other)
        await mutex.lock()
        cond.signal()
        assert coro.send(None).commit(lambda: None)  # it wants the mutex
        coro.close()
        mutex.unlock()
        await other
        assert left == ["other"]

    run(main)


@pytest.mark.parametrize("signalled", [True, False])
def test_a_wait_that_is_closed_gives_its_signal_on(run, signalled):
    async def main():
        mutex = Mutex()
        cond, left = Cond(mutex), []
        await mutex.lock()

        async def closed():
            await cond.wait()

        coro = closed()
        assert coro.send(None).commit(lambda: None)
        other = gopoll.go(waiter(mutex, cond, left), "other")
        await wait_parked(other)
        if signalled:
            cond.signal()
        coro.close()
        if not signalled:
            cond.signal()
        await other
        assert left == ["other"]

    run(main)


@pytest.mark.parametrize("procs", PROCS)
def test_a_queue_made_of_a_cond(run, procs):
    """Producers and consumers, some of which give up, lose nothing."""
    count = 150

    async def main():
        mutex = Mutex()
        filled, items, got = Cond(mutex), [], []

        async def consume():
            while True:
                async with mutex:
                    while not items:
                        await filled.wait()
                    item = items.pop()
                got.append(item)
                if item is None:
                    return

        async def produce(offset):
            for i in range(count):
                async with mutex:
                    items.append(offset + i)
                    filled.signal()
                if i % 10 == 0:
                    await gopoll.gosched()

        consumers = [gopoll.go(consume) for _ in range(3)]
        producers = [gopoll.go(produce, k * count) for k in range(2)]
        while not all(g.done for g in producers):
            victim = gopoll.go(consume)
            await gopoll.gosched()
            victim.cancel()
            with pytest.raises(gopoll.Canceled):
                await victim
        for g in producers:
            await g
        for _ in consumers:
            async with mutex:
                items.insert(0, None)
                filled.broadcast()
        for g in consumers:
            await g
        assert sorted(i for i in got if i is not None) == list(range(2 * count))

    run(main, procs=procs)


# -- WaitGroup -------------------------------------------------------------------------------------


def test_a_wait_group_waits_for_all(run):
    async def main():
        wg, release, ended = WaitGroup(), Chan(), []
        await wg.wait()

        async def work(i):
            await release.recv()
            ended.append(i)
            return i

        gs = [wg.go(work, i) for i in range(3)]
        assert repr(wg) == "<WaitGroup 3>"
        assert gs[0].name.endswith("work")
        waiters = [gopoll.go(wg.wait) for _ in range(2)]
        await wait_parked(*waiters)
        assert waiters[0].wait_reason == "waitgroup"
        for _ in gs:
            assert not any(g.done for g in waiters)
            await release.send(None)
        for g in waiters:
            await g
        assert sorted(ended) == [0, 1, 2]
        assert [await g for g in gs] == [0, 1, 2]

    run(main)


def test_a_counter_below_zero_is_an_error():
    wg = WaitGroup()
    with pytest.raises(RuntimeError, match=r"^negative WaitGroup counter$"):
        wg.done()
    wg.add(2)
    with pytest.raises(RuntimeError, match=r"^negative WaitGroup counter$"):
        wg.add(-3)
    wg.done()
    wg.done()
    assert repr(wg) == "<WaitGroup 0>"


def test_what_is_no_int_is_not_counted():
    """It was cut short: add(1.5) added 1, add(0.5) nothing."""
    wg = WaitGroup()
    for n in (0.5, 1.5, "1", None):
        with pytest.raises(TypeError):
            wg.add(n)
    assert repr(wg) == "<WaitGroup 0>"


def test_a_goroutine_that_fails_is_counted_out(run):
    async def main():
        wg = WaitGroup()

        async def fail():
            raise ZeroDivisionError

        g = wg.go(fail)
        await wg.wait()
        with pytest.raises(ZeroDivisionError):
            await g
        for args, text in (
            ((lambda: None,), r"takes .* or an awaitable; .*<lambda> returned NoneType$"),
            ((5,), "takes an async function or an awaitable, not int$"),
            ((Value(5), 1), "takes arguments only with a function"),
        ):
            with pytest.raises(TypeError, match=rf"^WaitGroup\.go\(\) {text}"):
                wg.go(*args)
        assert await wg.go(Value(5)) == 5
        assert repr(wg) == "<WaitGroup 0>"

    run(main)


def test_outside_of_run_nothing_is_counted():
    wg = WaitGroup()
    with pytest.raises(RuntimeError, match=r"call gopoll.run"):
        wg.go(gopoll.gosched)
    assert repr(wg) == "<WaitGroup 0>"


def test_a_cancelled_wait_ends(run):
    async def main():
        wg = WaitGroup()
        wg.add()
        g = gopoll.go(wg.wait)
        await wait_parked(g)
        g.cancel()
        with pytest.raises(gopoll.Canceled):
            await g
        wg.done()
        await wg.wait()

    run(main)


@pytest.mark.parametrize("procs", PROCS)
def test_a_wait_group_under_many_hands(run, procs):
    async def main():
        for _ in range(30):
            wg, count = WaitGroup(), [0]
            mutex = Mutex()

            async def work(mutex=mutex, count=count):
                async with mutex:
                    count[0] += 1

            gs = [wg.go(work) for _ in range(8)]
            await wg.wait()
            assert count == [8]
            for g in gs:
                await g

    run(main, procs=procs)


# -- Once ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("procs", PROCS)
def test_once_runs_one_function_and_all_wait_for_it(run, procs):
    async def main():
        once, calls, release = Once(), [], Chan()

        async def slow():
            calls.append("begin")
            await release.recv()
            calls.append("end")

        async def ask():
            await once.do(slow)
            assert calls == ["begin", "end"]

        gs = [gopoll.go(ask) for _ in range(5)]
        await wait_parked(*gs)
        await release.send(None)
        for g in gs:
            await g
        await once.do(lambda: calls.append("never"))
        assert calls == ["begin", "end"]

    run(main, procs=procs)


@pytest.mark.parametrize("is_async", [True, False])
def test_once_is_done_even_if_it_raises(run, is_async):
    async def main():
        once, calls = Once(), []

        async def fails():
            calls.append(1)
            raise ZeroDivisionError

        def fails_too():
            calls.append(1)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await once.do(fails if is_async else fails_too)
        await once.do(fails)
        assert calls == [1]

    run(main)
