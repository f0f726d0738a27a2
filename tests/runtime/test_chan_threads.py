"""Channels from plain threads, other loops and other runs; and Go's own tests of channels."""

import asyncio
import functools
import signal
import threading

import pytest

import gopoll
from gopoll import Chan, ChanClosed
from helpers.child import run_python

PROCS = [1, 2, 8]


class Thing:
    """Something whose death can be seen."""


# -- plain threads, other loops, other runs --------------------------------------------------------


def test_threads_and_goroutines_share_a_channel(run):
    count = 300

    async def main():
        to_thread, back = Chan(), Chan(4)

        def work():
            for _ in range(count):
                back.send_sync(to_thread.recv_sync(30) + 1, 30)
            back.close()

        thread = threading.Thread(target=work)
        thread.start()

        async def produce():
            for i in range(count):
                await to_thread.send(i)

        producer = gopoll.go(produce)
        assert [v async for v in back] == list(range(1, count + 1))
        await producer
        thread.join()

    run(main)


def test_threads_talk_without_any_run():
    chan, back = Chan(), Chan()

    def work():
        try:
            while True:
                back.send_sync(chan.recv_sync() * 2)
        except ChanClosed:
            back.close()

    thread = threading.Thread(target=work)
    thread.start()
    for i in range(100):
        chan.send_sync(i, timeout=30)
        assert back.recv_sync(timeout=30) == 2 * i
    chan.close()
    with pytest.raises(ChanClosed, match="receive on closed channel"):
        back.recv_sync()
    thread.join()


def test_a_thread_waits_as_long_as_it_says():
    chan = Chan()
    with pytest.raises(TimeoutError, match=r"Chan.recv\(\) is not done after 0.01 s"):
        chan.recv_sync(0.01)
    with pytest.raises(TimeoutError, match=r"Chan.send\(\) is not done after 0 s"):
        chan.send_sync(1, 0)
    for call in (chan.recv_sync, functools.partial(chan.send_sync, 1)):
        with pytest.raises(ValueError, match=r"^timeout must not be nan$"):
            call(float("nan"))
        with pytest.raises(TypeError, match=r"^timeout must be seconds, not str$"):
            call("x")
    assert chan.try_recv() == (None, False)
    assert not chan.try_send(1)


def test_a_goroutine_may_not_block_its_thread(run):
    async def main():
        chan = Chan(1)
        with pytest.raises(RuntimeError, match=r"await recv\(\) or send\(\) instead"):
            chan.send_sync(1)
        with pytest.raises(RuntimeError, match=r"await recv\(\) or send\(\) instead"):
            chan.recv_sync()
        assert len(chan) == 0

    run(main)


def test_a_blocked_thread_runs_signal_handlers():
    chan, ran = Chan(), threading.Event()
    main = threading.main_thread().ident
    before = signal.signal(signal.SIGUSR1, lambda *args: ran.set())

    def kill():
        while not ran.wait(0.01):
            signal.pthread_kill(main, signal.SIGUSR1)
        chan.send_sync("after the handler", 30)

    thread = threading.Thread(target=kill)
    try:
        thread.start()
        assert chan.recv_sync(30) == "after the handler"
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)


def test_a_handler_that_raises_ends_the_wait_and_loses_nothing():
    chan, ended = Chan(), threading.Event()
    main = threading.main_thread().ident

    def handler(signum, frame):
        raise ZeroDivisionError

    before = signal.signal(signal.SIGUSR1, handler)

    def kill():
        signal.pthread_kill(main, signal.SIGUSR1)
        ended.wait(30)
        chan.send_sync("not lost", 30)

    thread = threading.Thread(target=kill)

    def start_and_wait():
        thread.start()
        chan.recv_sync(30)

    try:
        with pytest.raises(ZeroDivisionError):
            start_and_wait()
        ended.set()
        assert chan.recv_sync(30) == "not lost"
    finally:
        ended.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)


def test_where_nothing_can_park_a_wait_is_refused():
    chan = Chan(1)
    chan.try_send(1)
    with pytest.raises(
        RuntimeError, match=r"Chan.send\(\) would block outside a goroutine: run it in gopoll"
    ):
        next(chan.send(2).__await__())
    chan.try_recv()
    with pytest.raises(RuntimeError, match=r"recv_sync\(\) in a plain thread"):
        next(chan.recv().__await__())


@pytest.mark.parametrize("procs", [1, 2])
@pytest.mark.parametrize("mine", [asyncio.run, gopoll.run])
def test_two_loops_in_two_threads_share_channels(mine, procs):
    count = 300
    ping, pong = Chan(), Chan(2)

    async def there():
        async for value in ping:
            await pong.send(value + 1)
        pong.close()

    async def here():
        for i in range(count):
            await ping.send(i)
            assert await pong.recv() == i + 1
        ping.close()

    thread = threading.Thread(target=gopoll.run, args=(there(),), kwargs={"procs": procs})
    thread.start()
    mine(here())
    thread.join()


def test_a_thread_that_has_just_ended_is_no_deadlock():
    """A4: between the look at the queues and the look at the threads it may send and end."""
    done = run_python(
        """
        import threading, gopoll
        chan = gopoll.Chan()
        enumerate_threads = threading.enumerate

        def last_thread_ends():
            threading.enumerate = enumerate_threads
            assert chan.try_send("in time")
            return enumerate_threads()

        async def main():
            threading.enumerate = last_thread_ends
            return await chan.recv()

        print(gopoll.run(main))
        """
    )
    assert (done.stdout, done.stderr) == ("in time\n", "")


@pytest.mark.parametrize("op", ["recv()", "send(1)"])
def test_waiting_for_nobody_is_a_deadlock(op):
    done = run_python(
        f"""
        import gopoll
        async def main():
            await gopoll.Chan().{op}
        gopoll.run(main)
        """
    )
    assert "all goroutines are asleep - deadlock!" in done.stderr
    assert f"goroutine 1 (main) [waiting: {op[:4]}, " in done.stderr


# -- Go's own --------------------------------------------------------------------------------------


@pytest.mark.parametrize("procs", PROCS)
@pytest.mark.parametrize("capacity", [0, 1, 3, 10])
def test_go_chan(run, procs, capacity):
    """TestChan: many senders, many receivers, each value once."""
    parties, each = 4, 60

    async def main():
        chan, results = Chan(capacity), Chan()

        async def send():
            for i in range(each):
                await chan.send(i)

        async def receive():
            got = {}
            for _ in range(each):
                value = await chan.recv()
                got[value] = got.get(value, 0) + 1
            await results.send(got)

        gs = [gopoll.go(fn) for fn in (send, receive) for _ in range(parties)]
        total = {}
        for _ in range(parties):
            for value, n in (await results.recv()).items():
                total[value] = total.get(value, 0) + n
        assert total == dict.fromkeys(range(each), parties)
        for g in gs:
            await g

    run(main, procs=procs)


@pytest.mark.parametrize("procs", PROCS)
def test_go_nonblock_recv_race(run, procs):
    """TestNonblockRecvRace: after a buffered send, a receive that does not wait finds something,
    a close or a value."""

    async def main():
        for _ in range(200):
            chan = Chan(1)
            await chan.send(1)

            async def look(chan=chan):
                assert (await gopoll.select(chan.recv_case(), default=True))[0] == 0

            g = gopoll.go(look)
            chan.close()
            try:
                await chan.recv()
            except ChanClosed:
                await g
            else:
                with pytest.raises(ChanClosed):
                    await g

    run(main, procs=procs)


@pytest.mark.parametrize("procs", PROCS)
def test_go_multi_consumer(run, procs):
    """TestMultiConsumer."""
    workers, count = 8, 400

    async def main():
        queue, results = Chan(workers * 4), Chan(workers * 4)
        wg = gopoll.WaitGroup()

        async def work():
            async for value in queue:
                if value % 2:
                    await gopoll.gosched()
                await results.send(value)

        for _ in range(workers):
            wg.go(work)

        async def produce():
            for i in range(count):
                await queue.send(i * 7)
            queue.close()
            await wg.wait()
            results.close()

        producer = gopoll.go(produce)
        got = [value async for value in results]
        await producer
        assert sorted(got) == [i * 7 for i in range(count)]

    run(main, procs=procs)


@pytest.mark.parametrize("procs", PROCS)
def test_go_chan_send_barrier(run, procs):
    """TestChanSendBarrier: what was written before the send is seen after the receive."""

    async def main():
        async def one():
            chan, cell = Chan(), [0]

            async def write():
                for i in range(100):
                    cell[0] = i
                    await chan.send(None)
                    await chan.recv()

            writer = gopoll.go(write)
            for i in range(100):
                await chan.recv()
                assert cell[0] == i
                await chan.send(None)
            await writer

        for g in [gopoll.go(one) for _ in range(4)]:
            await g

    run(main, procs=procs)
