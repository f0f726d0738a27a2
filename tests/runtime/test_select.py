"""select(): one of several channels. What stands in Go's chan_test.go has its name there."""

import gc
import threading
import time
import weakref

import pytest

import gopoll
from gopoll import Chan, ChanClosed, select
from plugins.guard import wait_parked, wait_until

PROCS = [1, 2, 8]


class Thing:
    """Something whose death can be seen."""


def test_the_case_that_is_ready_is_done(run):
    async def main():
        a, b, full = Chan(1), Chan(1), Chan()
        await b.send("b")
        assert await select(a.recv_case(), b.recv_case(), full.send_case(1)) == (1, "b")
        assert await select(b.recv_case(), a.send_case("a"), full.recv_case()) == (1, None)
        assert await a.recv() == "a"

    run(main)


@pytest.mark.parametrize("sends", [False, True])
def test_a_parked_select_is_woken_by_one_and_leaves_the_others(run, sends):
    async def main():
        chans = [Chan() for _ in range(4)]
        cases = [c.send_case(i) if sends else c.recv_case() for i, c in enumerate(chans)]
        for chosen in (2, 0, 3):
            g = gopoll.go(select(*cases))
            await wait_parked(g)
            assert g.wait_reason == "select"
            if sends:
                assert await chans[chosen].recv() == chosen
                assert await g == (chosen, None)
            else:
                await chans[chosen].send("x")
                assert await g == (chosen, "x")
            for c in chans:
                assert c.try_recv() == (None, False)
                assert not c.try_send(1)

    run(main)


def test_a_default_and_a_timeout_answer_for_nobody(run):
    async def main():
        chan = Chan()
        assert await select(chan.recv_case(), default=True) == (-1, None)
        assert await select(chan.recv_case(), timeout=0) == (-1, None)
        assert await select(chan.recv_case(), timeout=-1) == (-1, None)
        start = time.monotonic()
        assert await select(chan.recv_case(), timeout=0.02) == (-1, None)
        assert time.monotonic() - start >= 0.02
        assert not chan.try_send(1)
        g = gopoll.go(select(chan.recv_case(), timeout=60))
        await wait_parked(g)
        await chan.send(1)
        assert await g == (0, 1)
        assert await select(timeout=0.001) == (-1, None)
        assert await select(None, default=True) == (-1, None)

    run(main)  # which sees whether a timer is left


def test_none_is_never_ready(run):
    async def main():
        chan = Chan(1)
        await chan.send(1)
        assert await select(None, chan.recv_case(), None) == (1, 1)

    run(main)


def test_a_closed_channel_is_ready_and_says_which(run):
    async def main():
        a, b = Chan(), Chan()
        b.close()
        for case in (b.recv_case(), b.send_case(1)):
            with pytest.raises(ChanClosed) as caught:
                await select(a.recv_case(), case)
            assert caught.value.index == 1
        g = gopoll.go(select(None, a.recv_case(), a.send_case(1)))
        await wait_parked(g)
        a.close()
        with pytest.raises(ChanClosed) as caught:
            await g
        assert caught.value.index in (1, 2)

    run(main)


def test_what_is_buffered_comes_before_the_close(run):
    async def main():
        chan = Chan(1)
        await chan.send(1)
        chan.close()
        assert await select(chan.recv_case()) == (0, 1)
        with pytest.raises(ChanClosed, match="receive on closed channel"):
            await select(chan.recv_case())

    run(main)


def test_cases_are_cases():
    with pytest.raises(
        TypeError, match=r"case 1 of select\(\) is a Chan; cases are chan.recv_case"
    ):
        select(None, Chan())
    with pytest.raises(ValueError, match=r"^timeout is not a number$"):
        select(timeout=float("nan"))
    with pytest.raises(TypeError, match=r"^timeout must be seconds or None, not str$"):
        select(timeout="1")
    with pytest.warns(RuntimeWarning, match=r"select\(\) was never awaited"):
        select(Chan().recv_case())


def test_outside_a_goroutine_it_does_what_need_not_wait():
    def step(op):
        with pytest.raises(StopIteration) as stop:
            next(op)
        return stop.value.value

    chan = Chan(1)
    assert step(select(chan.send_case(1), chan.recv_case()).__await__()) == (0, None)
    assert step(select(chan.recv_case(), default=True).__await__()) == (0, 1)
    with pytest.raises(RuntimeError, match=r"select\(\) would block outside a goroutine"):
        next(select(chan.recv_case(), timeout=1).__await__())


@pytest.mark.parametrize("procs", PROCS)
def test_two_selects_meet(run, procs):
    """Each sends or receives on either of two channels, whichever comes first: they pair up."""
    rounds, parties = 60, 4

    async def main():
        a, b, sums = Chan(), Chan(), []

        async def party():
            total = 0
            for _ in range(rounds):
                index, value = await select(
                    a.send_case(1), b.send_case(1), a.recv_case(), b.recv_case()
                )
                total += value if index >= 2 else -1
            sums.append(total)

        gs = [gopoll.go(party) for _ in range(parties)]
        # Rounds add up to an even number, but one party may be left with nobody but itself.
        extra = 0
        while not all(g.done for g in gs):
            index, value = await select(a.recv_case(), b.recv_case(), timeout=0.01)
            extra += value if index >= 0 else 0
        for g in gs:
            await g
        assert sum(sums) + extra == 0

    run(main, procs=procs)


def test_a_cancelled_select_leaves_every_queue(run):
    async def main():
        a, b = Chan(), Chan()
        g = gopoll.go(select(a.recv_case(), b.send_case(1), timeout=60))
        await wait_parked(g)
        g.cancel()
        with pytest.raises(gopoll.Canceled):
            await g
        assert not a.try_send(1)
        assert b.try_recv() == (None, False)

    run(main)


def test_a_select_that_is_woken_for_nothing_waits_on(run):
    async def main():
        a, b = Chan(), Chan()
        g = gopoll.go(select(a.recv_case(), b.recv_case(), timeout=60))
        await wait_parked(g)
        gopoll.runtime._sched.interrupt(g._g)
        await gopoll.sleep(0.001)
        await wait_parked(g)
        await b.send(5)
        assert await g == (1, 5)

    run(main)


def test_dead_waiters_are_no_partners(run):
    """H2: a select that has been decided still stands in other queues until it runs."""

    async def main():
        a, b = Chan(), Chan()
        g = gopoll.go(select(a.recv_case(), b.recv_case()))
        await wait_parked(g)
        assert a.try_send(1)
        assert not b.try_send(2)  # handoff=False: g has not run
        late = gopoll.go(b.recv)
        await wait_parked(late)
        assert b.try_send(3)
        assert await g == (0, 1)
        assert await late == 3

    run(main, handoff=False)


def test_a_timeout_and_a_partner_do_not_both_win(run):
    async def main():
        chan, answers = Chan(), []

        async def wait():
            answers.append(await select(chan.recv_case(), timeout=0.0005))

        sent = 0
        for _ in range(200):
            g = gopoll.go(wait)
            await gopoll.sleep(0.0004)
            sent += chan.try_send("x")
            await g
        assert answers.count((0, "x")) == sent
        assert answers.count((-1, None)) == 200 - sent

    run(main)


def test_values_of_cases_that_were_not_chosen_are_let_go(run):
    async def main():
        a, b = Chan(1), Chan()
        seen = []

        def thing():
            made = Thing()
            seen.append(weakref.ref(made))
            return made

        await select(a.send_case(thing()), b.send_case(thing()))
        await a.recv()
        g = gopoll.go(select(b.send_case(thing()), b.send_case(thing())))
        await wait_parked(g)
        await b.recv()
        await g
        del g

        def are_gone():
            gc.collect()
            return all(ref() is None for ref in seen)

        await wait_until(are_gone)  # the thread that ran g may still be about to drop it

    run(main)


def test_a_plain_thread_wakes_a_select(run):
    async def main():
        a, b = Chan(), Chan()
        g = gopoll.go(select(a.recv_case(), b.recv_case()))
        await wait_parked(g)
        thread = threading.Thread(target=b.send_sync, args=("from a thread", 30))
        thread.start()
        assert await g == (1, "from a thread")
        thread.join()

    run(main)


# -- Go's own --------------------------------------------------------------------------------------


def test_go_pseudo_random_send(run):
    """TestPseudoRandomSend: both of two cases that are ready are chosen."""

    async def main():
        for capacity in (0, 50):
            chan = Chan(capacity)
            got = []

            async def receive(chan=chan, got=got):
                for _ in range(100):
                    got.append(await chan.recv())

            g = gopoll.go(receive)
            for _ in range(100):
                await select(chan.send_case(0), chan.send_case(1))
            await g
            assert 20 < sum(got) < 80

    run(main)


@pytest.mark.parametrize("sends", [True, False])
def test_a_select_that_waits_twice_on_one_channel_prefers_neither(run, sends):
    """It stood in the channel's queue in the order of its cases, and the first was served."""

    async def main():
        chan = Chan()
        seen = set()
        for _ in range(60):
            if sends:
                g = gopoll.go(lambda: select(chan.send_case(0), chan.send_case(1)))
                await wait_parked(g)
                await chan.recv()
            else:
                g = gopoll.go(lambda: select(chan.recv_case(), chan.recv_case()))
                await wait_parked(g)
                await chan.send("x")
            seen.add((await g)[0])
        assert seen == {0, 1}

    run(main)


def test_go_select_fairness(run):
    """TestSelectFairness: of four channels, two are always ready; neither is preferred."""
    trials = 3000

    async def main():
        c1, c2, c3, c4 = Chan(trials + 1), Chan(trials + 1), Chan(), Chan()
        for _ in range(trials + 1):
            await c1.send(1)
            await c2.send(2)
        cases = [c.recv_case() for c in (c3, c4, c1, c2)]
        counts = [0, 0, 0, 0]
        for _ in range(trials):
            counts[(await select(*cases))[0]] += 1
        assert counts[:2] == [0, 0]
        # 3,000 throws of a coin: 0.45 to 0.55 is more than five standard deviations
        assert 0.45 < counts[2] / trials < 0.55

    run(main)


def test_go_self_select(run):
    """TestSelfSelect: selects that send and receive on one channel do not meet themselves."""

    async def main():
        for capacity in (0, 10):
            wg = gopoll.WaitGroup()
            chan = Chan(capacity)

            async def party(number, chan=chan, capacity=capacity):
                for i in range(200):
                    if number == 0 or i % 2 == 0:
                        cases = chan.send_case(number), chan.recv_case()
                    else:
                        cases = chan.recv_case(), chan.send_case(number)
                    _, value = await select(*cases, timeout=0.2)
                    if capacity == 0 and value is not None:
                        assert value != number

            wg.go(party, 0)
            wg.go(party, 1)
            await wg.wait()

    run(main, procs=2)


@pytest.mark.parametrize("procs", PROCS)
def test_go_select_stress(run, procs):
    """TestSelectStress: four channels, senders and receivers one by one and by select."""
    n = 60

    async def main():
        chans = [Chan(), Chan(), Chan(2), Chan(3)]
        wg = gopoll.WaitGroup()

        async def send_each(chan):
            for _ in range(n):
                await chan.send(0)

        async def recv_each(chan):
            for _ in range(n):
                await chan.recv()

        async def by_select(sends):
            left = [n] * 4
            while any(left):
                cases = [
                    None if not k else c.send_case(0) if sends else c.recv_case()
                    for c, k in zip(chans, left, strict=True)
                ]
                left[(await select(*cases))[0]] -= 1

        for chan in chans:
            wg.go(send_each, chan)
            wg.go(recv_each, chan)
        wg.go(by_select, True)
        wg.go(by_select, False)
        await wg.wait()

    run(main, procs=procs)


@pytest.mark.parametrize("procs", PROCS)
def test_go_select_duplicate_channel(run, procs):
    """TestSelectDuplicateChannel: the same channel twice leaves no waiter behind."""

    async def main():
        c, d, e = Chan(), Chan(), Chan()

        async def a():
            await select(c.recv_case(), c.recv_case(), d.recv_case())
            await e.send(9)

        async def b():
            await c.recv()

        ga = gopoll.go(a)
        await wait_parked(ga)
        gb = gopoll.go(b)
        await wait_parked(gb)
        await d.send(7)  # wakes a
        assert await e.recv() == 9
        await c.send(8)  # wakes b, if a is in no queue any more
        await ga
        await gb

    run(main, procs=procs)


@pytest.mark.parametrize("procs", PROCS)
def test_go_nonblock_select_race(run, procs):
    """TestNonblockSelectRace: with a default, one of two channels that hold something is found."""

    async def main():
        for _ in range(100):
            c1, c2 = Chan(1), Chan(1)
            await c1.send(1)

            async def look(c1=c1, c2=c2):
                return await select(c1.recv_case(), c2.recv_case(), default=True)

            g = gopoll.go(look)
            await c2.send(1)
            await select(c1.recv_case(), default=True)
            assert (await g)[0] >= 0

    run(main, procs=procs)


@pytest.mark.parametrize("procs", PROCS)
def test_go_chan_send_select_barrier(run, procs):
    """TestChanSendSelectBarrier."""

    async def main():
        async def one():
            chan, cell = Chan(), [0]

            async def write():
                for i in range(60):
                    cell[0] = i
                    await select(chan.send_case(None))
                    await select(chan.recv_case())

            writer = gopoll.go(write)
            for i in range(60):
                await select(chan.recv_case())
                assert cell[0] == i
                await select(chan.send_case(None))
            await writer

        for g in [gopoll.go(one) for _ in range(4)]:
            await g

    run(main, procs=procs)


@pytest.mark.parametrize("procs", PROCS)
def test_nothing_is_lost_while_selects_are_cancelled_and_time_out(run, procs):
    count = 300

    async def main():
        a, b, got = Chan(), Chan(1), []

        async def receive(timeout):
            while True:
                index, value = await select(a.recv_case(), b.recv_case(), timeout=timeout)
                if index >= 0:
                    got.append(value)

        async def produce(offset):
            for i in range(count):
                await select(a.send_case(offset + i), b.send_case(offset + i))

        producers = [gopoll.go(produce, k * count) for k in range(3)]
        receivers = [gopoll.go(receive, t) for t in (None, 0.0002, 0.0005, None)]
        while not all(g.done for g in producers):
            victim = receivers.pop(0)
            victim.cancel()
            receivers.append(gopoll.go(receive, 0.0003))
            with pytest.raises(gopoll.Canceled):
                await victim
        for g in producers:
            await g
        for g in receivers:
            g.cancel()
            with pytest.raises(gopoll.Canceled):
                await g
        while len(b):
            got.append(await b.recv())
        assert sorted(got) == list(range(3 * count))

    run(main, procs=procs)
