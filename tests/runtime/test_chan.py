"""Chan: send, receive, close; cancellation, plain threads, other loops and other runs.

What stands in Go's runtime/chan_test.go has its name there in the docstring.
"""

import gc
import sys
import threading
import warnings
import weakref

import pytest

import gopoll
from gopoll import Chan, ChanClosed
from plugins.guard import wait_parked, wait_until

PROCS = [1, 2, 8]


class Thing:
    """Something whose death can be seen."""


# -- what a channel is -----------------------------------------------------------------------------


def test_an_unbuffered_send_waits_for_its_receiver(run):
    async def main():
        chan = Chan()
        sender = gopoll.go(chan.send, "hello")
        await wait_parked(sender)
        assert sender.wait_reason == "send"
        assert len(chan) == 0
        assert await chan.recv() == "hello"
        assert await sender is None

    run(main)


def test_a_receiver_waits_and_is_handed_the_value(run):
    async def main():
        chan = Chan()
        receiver = gopoll.go(chan.recv)
        await wait_parked(receiver)
        assert receiver.wait_reason == "recv"
        await chan.send(7)
        assert await receiver == 7

    run(main)


@pytest.mark.parametrize("capacity", [1, 2, 5])
def test_a_buffer_takes_as_much_as_it_holds_and_keeps_the_order(run, capacity):
    """H5: who sends waits while it is full, and is let in by who takes."""

    async def main():
        chan = Chan(capacity)
        assert chan.capacity == capacity
        for turn in range(3):  # round the ring
            for i in range(capacity):
                await chan.send((turn, i))
            assert len(chan) == capacity
            assert not chan.try_send("too much")
            late = gopoll.go(chan.send, "late")
            await wait_parked(late)
            assert [await chan.recv() for _ in range(capacity + 1)] == [
                *((turn, i) for i in range(capacity)),
                "late",
            ]
            await late
            assert len(chan) == 0

    run(main)


def test_trying_needs_no_goroutine():
    chan = Chan(1)
    assert chan.try_recv() == (None, False)
    assert chan.try_send(None)
    assert not chan.try_send(1)
    assert chan.try_recv() == (None, True)


def test_trying_meets_who_waits(run):
    async def main():
        chan = Chan()
        assert not chan.try_send(1)
        receiver = gopoll.go(chan.recv)
        await wait_parked(receiver)
        assert chan.try_send(1)
        assert not chan.try_send(2)
        assert await receiver == 1
        sender = gopoll.go(chan.send, 3)
        await wait_parked(sender)
        assert chan.try_recv() == (3, True)
        await sender

    run(main)


def test_who_waits_longest_is_served_first(run):
    async def main():
        chan, order = Chan(), []

        async def receive(name):
            order.append((name, await chan.recv()))

        receivers = []
        for name in "abcd":
            receivers.append(gopoll.go(receive, name))
            await wait_parked(*receivers)
        for i in range(4):
            await chan.send(i)
        for g in receivers:
            await g
        assert sorted(order) == [("a", 0), ("b", 1), ("c", 2), ("d", 3)]
        senders = []
        for i in range(4):
            senders.append(gopoll.go(chan.send, i))
            await wait_parked(*senders)
        assert [await chan.recv() for _ in range(4)] == [0, 1, 2, 3]
        for g in senders:
            await g

    run(main)


def test_iteration_ends_at_the_close(run):
    async def main():
        chan = Chan(1)

        async def produce():
            for i in range(5):
                await chan.send(i)
            chan.close()

        producer = gopoll.go(produce)
        assert [value async for value in chan] == [0, 1, 2, 3, 4]
        assert [value async for value in chan] == []
        await producer

    run(main)


def test_a_channel_is_true_and_says_how_it_is():
    chan = Chan(2)
    assert chan
    assert repr(chan) == "<Chan 0/2>"
    chan.try_send(1)
    chan.close()
    assert chan
    assert repr(chan) == "<Chan 1/2, closed>"
    assert Chan[int].__origin__ is Chan
    with pytest.raises(ValueError, match=r"Chan\(-1\): the capacity must not be below 0"):
        Chan(-1)
    with pytest.raises(RuntimeError, match="made once"):
        chan.__init__(5)


# -- close -----------------------------------------------------------------------------------------


def test_a_closed_channel_gives_what_is_left_and_then_raises(run):
    async def main():
        chan = Chan(3)
        await chan.send(1)
        await chan.send(2)
        chan.close()
        assert await chan.recv() == 1
        assert chan.try_recv() == (2, True)
        for _ in range(2):
            with pytest.raises(ChanClosed, match=r"^receive on closed channel$") as caught:
                await chan.recv()
            assert caught.value.index == -1
            with pytest.raises(ChanClosed, match=r"^receive on closed channel$"):
                chan.try_recv()
            with pytest.raises(ChanClosed, match=r"^send on closed channel$"):
                await chan.send(3)
            with pytest.raises(ChanClosed, match=r"^send on closed channel$"):
                chan.try_send(3)
            with pytest.raises(ChanClosed, match=r"^close of closed channel$"):
                chan.close()

    run(main)


@pytest.mark.parametrize("capacity", [0, 2])
def test_close_wakes_everybody(run, capacity):
    """H3: whichever side waits."""

    async def main():
        chan = Chan(capacity)
        receivers = [gopoll.go(chan.recv) for _ in range(5)]
        await wait_parked(*receivers)
        chan.close()
        for g in receivers:
            with pytest.raises(ChanClosed, match="receive on closed channel"):
                await g
        chan = Chan(capacity)
        for i in range(capacity):
            await chan.send(i)
        senders = [gopoll.go(chan.send, "never sent") for _ in range(5)]
        await wait_parked(*senders)
        chan.close()
        for g in senders:
            with pytest.raises(ChanClosed, match="send on closed channel"):
                await g
        assert [value async for value in chan] == list(range(capacity))

    run(main)


def test_close_from_a_plain_thread_wakes(run):
    async def main():
        chan = Chan()
        receiver = gopoll.go(chan.recv)
        await wait_parked(receiver)
        threading.Thread(target=chan.close).start()
        with pytest.raises(ChanClosed):
            await receiver

    run(main)


# -- operations ------------------------------------------------------------------------------------


def test_an_operation_is_awaited_once(run):
    async def main():
        chan = Chan(1)
        op = chan.send(1)
        await op
        with pytest.raises(RuntimeError, match=r"cannot await the same Chan.send\(\) twice"):
            await op
        assert len(chan) == 1
        await chan.recv()
        op = chan.recv()

        async def wait():
            return await op

        first = gopoll.go(wait)
        await wait_parked(first)
        with pytest.raises(RuntimeError, match=r"cannot await the same Chan.recv\(\) twice"):
            await op
        await chan.send(2)
        assert await first == 2

    run(main)


@pytest.mark.parametrize("make", [lambda c: c.send(1), lambda c: c.recv()], ids=["send", "recv"])
def test_a_forgotten_await_is_told(make):
    with pytest.warns(RuntimeWarning, match=r"Chan\.(send|recv)\(\) was never awaited"):
        make(Chan())


def test_values_of_every_kind_pass(run):
    values = [None, (), (1, 2), StopIteration(3), ValueError("x"), [], StopAsyncIteration()]

    async def main():
        for chan in (Chan(), Chan(1)):
            for value in values:
                sender = gopoll.go(chan.send, value)
                assert await chan.recv() is value
                await sender
                receiver = gopoll.go(chan.recv)
                await wait_parked(receiver)
                await chan.send(value)
                assert await receiver is value

    run(main)


def test_a_slice_of_operations_that_never_wait_ends(run):
    """A13: the others run although nothing parks."""

    async def main():
        chan, ticks = Chan(1), []

        async def tick():
            ticks.append(None)

        gopoll.go(tick)
        for _ in range(100):
            await chan.send(1)
            await chan.recv()
            if ticks:
                break
        assert ticks

    run(main, handoff=False)


# -- cancellation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("procs", PROCS)
def test_a_cancelled_receiver_takes_nothing(run, procs):
    async def main():
        chan = Chan()
        receivers = [gopoll.go(chan.recv) for _ in range(3)]
        await wait_parked(*receivers)
        receivers[1].cancel("enough")
        with pytest.raises(gopoll.Canceled):
            await receivers[1]
        await chan.send("a")
        await chan.send("b")
        assert sorted([await receivers[0], await receivers[2]]) == ["a", "b"]

    run(main, procs=procs)


def test_a_cancelled_sender_sends_nothing(run):
    async def main():
        chan = Chan(1)
        await chan.send(0)
        senders = [gopoll.go(chan.send, i) for i in (1, 2, 3)]
        await wait_parked(*senders)
        for g in senders:
            g.cancel()
        for g in senders:
            with pytest.raises(gopoll.Canceled):
                await g
        assert await chan.recv() == 0
        assert chan.try_recv() == (None, False)

    run(main)


def test_a_timeout_ends_a_receive(run):
    async def main():
        chan = Chan()
        with pytest.raises(TimeoutError):
            async with gopoll.timeout(0.01):
                await chan.recv()
        assert not chan.try_send(1)

    run(main)


@pytest.mark.parametrize("kind", ["recv", "send", "select"])
def test_what_has_been_handed_over_is_not_lost_to_a_cancellation(run, kind):
    """H4: the cancellation comes between the hand-over and the resume; the next park raises."""

    async def main():
        chan, seen = Chan(), []

        async def work():
            if kind == "recv":
                seen.append(await chan.recv())
            elif kind == "send":
                seen.append(await chan.send("value"))
            else:
                seen.append(await gopoll.select(chan.recv_case()))
            await gopoll.sleep(60)

        g = gopoll.go(work)
        await wait_parked(g)
        if kind == "send":
            assert chan.try_recv() == ("value", True)
        else:
            assert chan.try_send("value")
        g.cancel()  # handoff=False: it has not run since
        with pytest.raises(gopoll.Canceled):
            await g
        assert seen == [{"recv": "value", "send": None, "select": (0, "value")}[kind]]

    run(main, handoff=False)


@pytest.mark.parametrize("handed", [True, False])
def test_an_exception_that_is_no_cancellation_waits_for_the_next_park(run, handed):
    """H4: a Ctrl-C is one; it must not be lost, and neither must the value."""

    async def main():
        chan, seen = Chan(), []

        async def work():
            seen.append(await chan.recv())
            await gopoll.sleep(60)

        g = gopoll.go(work)
        await wait_parked(g)
        if handed:
            assert chan.try_send("value")
        g._g.set_pending(ZeroDivisionError("from outside"))
        gopoll.runtime._sched.interrupt(g._g)
        with pytest.raises(ZeroDivisionError, match="from outside"):
            await g
        assert seen == (["value"] if handed else [])

    run(main, handoff=False)


def test_a_receiver_that_is_woken_for_nothing_waits_on(run):
    async def main():
        chan = Chan()
        g = gopoll.go(chan.recv)
        await wait_parked(g)
        gopoll.runtime._sched.interrupt(g._g)
        await gopoll.sleep(0.001)
        await wait_parked(g)
        await chan.send(5)
        assert await g == 5

    run(main)


@pytest.mark.parametrize("handed", [True, False])
def test_a_coroutine_that_is_closed_leaves_the_queue(run, handed):
    async def main():
        chan = Chan()

        async def work():
            await chan.recv()

        coro = work()
        request = coro.send(None)  # we drive it ourselves
        woken = []
        assert request.commit(lambda: woken.append(1))
        if handed:
            assert chan.try_send("handed over")
        coro.close()
        assert woken == [1] * handed
        assert not chan.try_send(1)
        assert chan.try_recv() == (("handed over", True) if handed else (None, False))  # H11

    run(main)


def test_a_driver_that_throws_without_abort_gets_its_waiter_back(run):
    async def main():
        chan = Chan()

        async def work():
            await chan.recv()

        coro = work()
        request = coro.send(None)

        class Waiter:
            def __call__(self):
                raise AssertionError("woken")

        waiter = Waiter()
        assert request.commit(waiter)
        gone = weakref.ref(waiter)
        with pytest.raises(ZeroDivisionError):
            coro.throw(ZeroDivisionError())
        del waiter
        assert gone() is None
        assert not chan.try_send(1)

    run(main)


@pytest.mark.parametrize("procs", PROCS)
def test_nothing_is_lost_or_doubled_while_receivers_are_cancelled(run, procs):
    """Every value arrives once, although half of the receivers are cancelled at some moment."""
    count, workers = 400, 6

    async def main():
        chan, got = Chan(), []

        async def receive():
            while True:
                got.append(await chan.recv())

        async def produce():
            for i in range(count):
                await chan.send(i)

        producer = gopoll.go(produce)
        receivers = [gopoll.go(receive) for _ in range(workers)]
        while not producer.done:
            victim = receivers.pop(0)
            victim.cancel()
            receivers.append(gopoll.go(receive))
            with pytest.raises(gopoll.Canceled):
                await victim
        await producer
        for g in receivers:
            g.cancel()
            with pytest.raises(gopoll.Canceled):
                await g
        assert sorted(got) == list(range(count))

    run(main, procs=procs)


# -- memory ----------------------------------------------------------------------------------------


def test_a_channel_in_its_own_buffer_is_collected():
    chan = Chan(2)
    chan.try_send([chan])
    gone = weakref.ref(chan)
    del chan
    gc.collect()
    assert gone() is None


def test_no_value_is_kept(run):
    async def main():
        seen = []

        def thing():
            made = Thing()
            seen.append(weakref.ref(made))
            return made

        for capacity in (0, 1):
            chan = Chan(capacity)
            receiver = gopoll.go(chan.recv)
            await wait_parked(receiver)
            await chan.send(thing())
            del receiver  # which keeps the result
            sender = gopoll.go(chan.send, thing())
            await chan.recv()
            await sender
            cancelled = [gopoll.go(chan.send, thing()) for _ in range(3)]
            await wait_parked(*cancelled[capacity:])
            for g in cancelled:
                g.cancel()
            for g in cancelled[capacity:]:
                with pytest.raises(gopoll.Canceled):
                    await g
            del g, cancelled
            chan.close()
            with pytest.raises(ChanClosed):
                await chan.send(thing())
            del chan
        # Without a GIL what one thread has made and another dropped dies at a collection.
        await wait_until(lambda: gc.collect() >= 0 and all(r() is None for r in seen))

    run(main)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="None is immortal")
def test_none_keeps_its_count():
    before = sys.getrefcount(None)
    for _ in range(1000):
        chan = Chan(3)
        chan.try_send(1)
        chan.try_recv()
        chan.try_send(None)
        chan.try_recv()
    del chan
    assert abs(sys.getrefcount(None) - before) < 100


def test_an_operation_that_waits_is_queued_once_and_left_by_its_waiter_alone():
    chan, got = Chan(), []
    op = chan.recv()
    first, second = (lambda: got.append(1)), (lambda: got.append(2))
    assert op.commit(first)
    assert not op.commit(second)
    assert not op.abort(second)
    assert chan.try_send("x")
    assert not chan.try_send("y")
    assert got == [1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was never awaited
        del op
