"""Channels, select and locks awaited in the tasks of asyncio, alone and across threads."""

import asyncio
import gc
import random
import sys
import threading
import weakref

import pytest

import gopoll
from gopoll import Chan, ChanClosed, Cond, Mutex, RWMutex, WaitGroup, select
from plugins.guard import wait_parked


def parked(*tasks):
    """Let the tasks run until each of them waits."""

    async def turns():
        for _ in range(10):
            await asyncio.sleep(0)
        assert not any(t.done() for t in tasks)

    return turns()


def test_two_tasks_talk():
    async def main():
        ping, pong = Chan(), Chan(1)

        async def there():
            async for value in ping:
                await pong.send(value + 1)
            pong.close()

        task = asyncio.create_task(there())
        for i in range(100):
            await ping.send(i)
            assert await pong.recv() == i + 1
        ping.close()
        await task
        with pytest.raises(ChanClosed):
            await pong.recv()

    asyncio.run(main())


def test_a_plain_thread_wakes_a_task():
    chan = Chan()

    async def main():
        task = asyncio.create_task(receive(chan))
        await parked(task)
        threading.Thread(target=chan.send_sync, args=("from afar", 30)).start()
        assert await task == "from afar"

    asyncio.run(main())


async def receive(chan):
    return await chan.recv()


def test_a_cancelled_wait_leaves_the_queue_and_takes_nothing():
    async def main():
        chan = Chan()
        first, second = (asyncio.create_task(receive(chan)) for _ in range(2))
        await parked(first, second)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await chan.send("for the second")
        assert await second == "for the second"

    asyncio.run(main())


def test_what_was_handed_over_is_not_lost_to_a_cancellation_that_comes_later():
    """H4: the value arrives, and the cancellation at the next await."""

    async def main():
        chan, got = Chan(), []

        async def body():
            got.append(await chan.recv())
            await asyncio.sleep(3600)

        task = asyncio.create_task(body())
        await parked(task)
        assert chan.try_send("handed over")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert got == ["handed over"]
        assert task.cancelled()

    asyncio.run(main())


def test_a_timeout_of_asyncio_that_came_too_late_cancels_nothing_else():
    async def main():
        chan = Chan()

        async def body():
            loop = asyncio.get_running_loop()
            async with asyncio.timeout_at(loop.time() + 3600) as cm:
                loop.call_soon(chan.try_send, "just in time")
                loop.call_soon(cm.reschedule, loop.time() - 1)
                value = await chan.recv()
            for _ in range(10):
                await asyncio.sleep(0)  # would be cancelled
            return value

        assert await asyncio.create_task(body()) == "just in time"

    asyncio.run(main())


def test_select_with_a_timeout_and_a_default():
    async def main():
        a, b = Chan(), Chan()
        assert await select(a.recv_case(), default=True) == (-1, None)
        assert await select(a.recv_case(), b.recv_case(), timeout=0.001) == (-1, None)
        asyncio.get_running_loop().call_soon(b.try_send, 7)
        assert await select(a.recv_case(), b.recv_case(), timeout=3600) == (1, 7)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await select(a.recv_case(), b.recv_case())
        assert not a.try_send(1)  # nobody is left in the queue
        b.close()
        with pytest.raises(ChanClosed) as caught:
            await select(a.recv_case(), b.recv_case())
        assert caught.value.index == 1

    asyncio.run(main())


def test_locks_exclude_and_are_given_on():
    async def main():
        mutex, rw, group = Mutex(), RWMutex(), WaitGroup()
        inside = most = 0

        async def work(write):
            nonlocal inside, most
            async with mutex if write is None else rw if write else rw.reading():
                inside += 1
                most = max(most, inside) if write is not False else most
                await asyncio.sleep(0)
                inside -= 1
            group.done()

        for write in (None, True):
            group.add(20)
            tasks = [asyncio.create_task(work(write)) for _ in range(20)]
            await group.wait()
            await asyncio.gather(*tasks)
            assert most == 1
        await mutex.lock()
        waits = asyncio.create_task(work(None))
        await parked(waits)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        mutex.unlock()
        assert mutex.try_lock()

    asyncio.run(main())


def test_a_condition_is_waited_for_and_a_cancelled_wait_has_the_mutex_again():
    async def main():
        mutex = Mutex()
        cond, waits, ready = Cond(mutex), [], False

        async def wait():
            async with mutex:
                waits.append(1)
                while not ready:
                    await cond.wait()

        task, cancelled = (asyncio.create_task(wait()) for _ in range(2))
        await parked(task, cancelled)
        assert len(waits) == 2
        async with mutex:
            cancelled.cancel()
            await parked(cancelled)  # it waits for the mutex
            ready = True
            cond.broadcast()
        await task
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert mutex.try_lock()

    asyncio.run(main())


def test_a_loop_that_has_been_closed_is_not_woken():
    chan = Chan()
    loop = asyncio.new_event_loop()
    task = loop.create_task(receive(chan))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert chan.try_send("nobody takes it")
    task.get_coro().close()
    task._log_destroy_pending = False


def test_a_finished_wait_keeps_nothing_alive():
    class Value:
        pass

    async def main():
        chan, refs = Chan(), []
        for _ in range(3):
            task = asyncio.create_task(receive(chan))
            await parked(task)
            value = Value()
            refs.append(weakref.ref(value))
            await chan.send(value)
            del value
            await task
            del task
        gc.collect()
        assert [ref() for ref in refs[:2]] == [None, None]  # asyncio keeps the last for a while

    asyncio.run(main())


@pytest.mark.parametrize("senders", [1, 4])
def test_values_are_conserved_under_random_cancellation(senders):
    """Every value that was sent is received once, whoever is cancelled."""

    async def main():
        chan, got, sent = Chan(), [], []

        async def send(base):
            for i in range(200):
                await chan.send(base + i)
                sent.append(base + i)

        async def take():
            while True:
                got.append(await chan.recv())

        tasks = [asyncio.create_task(send(1000 * n)) for n in range(senders)]
        takers = {asyncio.create_task(take()) for _ in range(4)}
        turn = 0
        while not all(t.done() for t in tasks):
            await asyncio.sleep(0)
            turn += 1
            if turn % 3 == 0:
                taker = takers.pop()
                taker.cancel()
                takers.add(asyncio.create_task(take()))
        while len(got) < 200 * senders:
            await asyncio.sleep(0)
        for taker in takers:
            taker.cancel()
        await asyncio.gather(*takers, return_exceptions=True)
        assert sorted(got) == sorted(sent)
        assert len(got) == 200 * senders

    asyncio.run(main())


class Interrupted(KeyboardInterrupt if sys.version_info < (3, 14) else BaseException):
    """What a handler raises. Where nobody could catch KeyboardInterrupt, 3.14 ends by SIGINT."""


def test_a_signal_handler_that_raises_in_a_wake_up_loses_neither(monkeypatch):
    """E1: the task is woken, and the error is told where nobody can catch it."""
    told = []
    monkeypatch.setattr("sys.unraisablehook", lambda info: told.append(info.exc_value))

    async def main():
        chan = Chan()
        task = asyncio.create_task(receive(chan))
        await parked(task)
        loop = asyncio.get_running_loop()
        real = loop.call_soon_threadsafe

        def interrupted(*args):
            monkeypatch.setattr(loop, "call_soon_threadsafe", real)
            raise Interrupted

        monkeypatch.setattr(loop, "call_soon_threadsafe", interrupted)
        assert chan.try_send("woken")
        assert await task == "woken"

    asyncio.run(main())
    assert [type(error) for error in told] == [Interrupted]


def test_what_wraps_an_awaitable_takes_an_operation():
    """asyncio goes through `yield from op.__await__()`."""

    async def main():
        chan, mutex = Chan(1), Mutex()
        chan.try_send(1)
        assert await asyncio.wait_for(chan.recv(), 60) == 1
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(chan.recv(), 0.001)
        await asyncio.gather(chan.send(2), mutex.lock())
        mutex.unlock()
        assert await asyncio.ensure_future(chan.recv()) == 2

    asyncio.run(main())


# -- cancellation that comes after a wake-up -------------------------------------------------------


async def wait_for(mutex, cond, left):
    async with mutex:
        try:
            await cond.wait()
        finally:
            left.append(mutex.try_lock())  # H8: False


def test_a_signalled_wait_that_is_cancelled_raises_and_gives_the_signal_on():
    """H8: it has the mutex, and another has the signal. As asyncio.Condition."""

    async def main():
        mutex, left = Mutex(), []
        cond = Cond(mutex)
        first, second = (asyncio.create_task(wait_for(mutex, cond, left)) for _ in range(2))
        await parked(first, second)
        await mutex.lock()
        cond.signal()
        await parked(first, second)  # the first waits for the mutex
        first.cancel("enough")
        await parked(first, second)
        mutex.unlock()
        with pytest.raises(asyncio.CancelledError, match=r"^enough$"):
            await first
        await second
        assert left == [False, False]
        assert mutex.try_lock()

    asyncio.run(main())


@pytest.mark.parametrize("wake", ["signal", "broadcast"])
def test_tasks_that_a_thread_wakes_and_others_cancel_come_out_of_a_condition(wake):
    """H1: a task is thrown into between its being taken out and its being woken."""
    mutex, ended = Mutex(), []
    cond = Cond(mutex)

    def keep_waking():
        while not ended:
            getattr(cond, wake)()

    async def wait():
        while not ended:
            async with mutex:
                await cond.wait()
                await asyncio.sleep(0)

    async def main():
        loop = asyncio.get_running_loop()
        tasks, end = [asyncio.create_task(wait()) for _ in range(20)], loop.time() + 1
        while loop.time() < end:
            await asyncio.sleep(0)
            tasks.pop(random.randrange(20)).cancel()
            tasks.append(asyncio.create_task(wait()))
        ended.append(True)
        async with asyncio.timeout(60):
            while any(not task.done() for task in tasks):
                cond.broadcast()
                await asyncio.sleep(0)
        assert [task.exception() for task in tasks] == [None] * 20
        assert mutex.try_lock()

    thread, interval = threading.Thread(target=keep_waking), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread.start()
    try:
        asyncio.run(main())
    finally:
        ended.append(True)
        sys.setswitchinterval(interval)
        thread.join()


async def poll_chan():
    await Chan().recv()


async def poll_loop():
    await asyncio.sleep(3600)


@pytest.mark.parametrize("poll", [poll_chan, poll_loop])
def test_a_cancellation_that_is_put_off_is_not_taken_by_a_timeout_entered_since(poll):
    """H4: of an operation that follows, and of what else the loop waits for."""

    async def main():
        chan, polls = Chan(), []

        async def body():
            await chan.recv()
            for _ in range(100):
                polls.append(1)
                try:
                    async with asyncio.timeout(0):
                        await poll()
                except TimeoutError:
                    await asyncio.sleep(0)

        task = asyncio.create_task(body())
        await parked(task)
        assert chan.try_send("handed over")
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match=r"^enough$"):
            await task
        assert len(polls) == 1

    asyncio.run(main())


@pytest.mark.parametrize("poll", [poll_chan, poll_loop])
@pytest.mark.parametrize("inside", [True, False])
def test_a_timeout_that_is_put_off_is_its_own_scopes(poll, inside):
    """H4: TimeoutError from the outer one if it is still inside, else nothing."""

    async def main():
        chan, left = Chan(), []

        async def body():
            loop = asyncio.get_running_loop()
            async with asyncio.timeout_at(loop.time() + 3600) as cm:
                loop.call_soon(chan.try_send, "just in time")
                loop.call_soon(cm.reschedule, loop.time() - 1)
                await chan.recv()
                if inside:
                    async with asyncio.timeout(3600):
                        await poll()
            left.append("nothing")
            async with asyncio.timeout(0.001):
                await poll()

        task = asyncio.create_task(body())
        with pytest.raises(TimeoutError):
            await task
        assert left == ["nothing"][inside:]
        assert task.cancelling() == 0

    asyncio.run(main())


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
@pytest.mark.parametrize("deep", [1, 3])
def test_a_timeout_of_the_same_turn_lets_the_cancellation_through_however_long_it_ends(turns, deep):
    """H4: what is awaited on the way out of it takes turns of the loop, and it took the
    CancelledError for its own alone. The cancellation was lost."""

    async def main():
        chan, left = Chan(), []

        async def nest(n):
            try:
                async with asyncio.timeout(0):
                    try:
                        await (nest(n - 1) if n > 1 else poll_loop())
                    finally:
                        for _ in range(turns):
                            await asyncio.sleep(0)
                        left.append("clean")  # once: the way out is not cancelled again
            except TimeoutError:
                left.append("taken")

        async def body():
            await chan.recv()
            await nest(deep)
            await poll_loop()

        task = asyncio.create_task(body())
        await parked(task)
        assert chan.try_send("handed over")
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match=r"^enough$"):
            await asyncio.wait_for(task, 10)
        assert left == ["clean"] * deep

    asyncio.run(main())


def test_a_scope_further_out_has_its_timeout_though_another_ends_in_the_same_turn():
    """H4: what was counted once more for that is taken back while the task is on its way out."""

    async def main():
        chan, left = Chan(), []

        async def body():
            loop = asyncio.get_running_loop()
            async with asyncio.timeout_at(loop.time() + 3600) as cm:
                loop.call_soon(chan.try_send, "just in time")
                loop.call_soon(cm.reschedule, loop.time() - 1)
                await chan.recv()
                try:
                    async with asyncio.timeout(0):
                        await poll_loop()
                finally:
                    for _ in range(3):
                        await asyncio.sleep(0)
                    left.append("clean")

        task = asyncio.create_task(body())
        with pytest.raises(TimeoutError):
            await task
        assert left == ["clean"]
        assert task.cancelling() == 0

    asyncio.run(main())


# -- a loop that runs in a goroutine ---------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"handoff": False}])
def test_a_loop_in_a_goroutine_is_whom_its_tasks_wait_for(run, options):
    """All that a goroutine can await of channels, select and the locks, and more than a slice."""

    async def tasks():
        ping, pong, mutex = Chan(), Chan(), Mutex()
        cond, left = Cond(mutex), []

        async def there():
            async for value in ping:
                await pong.send(value)

        task = asyncio.create_task(there())
        for i in range(100):
            await ping.send(i)
            assert await pong.recv() == i
        ping.close()
        await task
        assert await select(Chan().recv_case(), timeout=0.001) == (-1, None)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pong.recv(), 0.001)
        task = asyncio.create_task(wait_for(mutex, cond, left))
        await parked(task)
        async with mutex:
            cond.broadcast()
            await parked(task)
        await task
        task = asyncio.create_task(receive(pong))
        await parked(task)
        assert pong.try_send("handed over")
        task.cancel()
        assert await task == "handed over"
        task = asyncio.create_task(receive(pong))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not pong.try_send("nobody is there")
        return left

    async def main():
        chan = Chan()
        assert asyncio.run(tasks()) == [False]
        g = gopoll.go(chan.recv)  # afterwards it is a goroutine like others
        await chan.send(1)
        assert await g == 1
        assert asyncio.run(tasks()) == [False]

    run(main, **options)


def test_the_first_wait_in_a_goroutines_loop_may_be_cancelled_at_once(run):
    async def tasks(make, mutex):
        task = asyncio.ensure_future(make())
        asyncio.get_running_loop().call_soon(task.cancel)  # when it has yielded the operation
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not mutex.try_lock()

    async def main():
        mutex, rw = Mutex(), RWMutex()
        assert mutex.try_lock()
        assert rw.try_lock()
        for make in (mutex.lock, rw.rlock, Cond(mutex).wait, Chan().recv):
            await gopoll.go(loop_of, tasks(make, mutex))
        rw.unlock()
        assert rw.try_lock()

    run(main)


async def loop_of(coro):
    return asyncio.run(coro)


def test_what_only_a_goroutine_can_wait_for_is_refused_with_a_remedy(run):
    async def tasks(handle, release, conn):
        with pytest.raises(RuntimeError, match=r"^Sleep would wait in a task of asyncio, whose "):
            await gopoll.sleep(3600)
        with pytest.raises(RuntimeError, match=r"^gosched\(\) .* use asyncio.sleep\(0\) there$"):
            await gopoll.gosched()
        with pytest.raises(RuntimeError, match=r"await it in a goroutine, outside asyncio.run\(\)"):
            await asyncio.wait_for(conn.read(1), 3600)
        with pytest.raises(RuntimeError, match=r"await asyncio.to_thread\(handle.result\) there"):
            await handle
        assert release.try_send("ended")
        return await asyncio.to_thread(handle.result)

    async def main():
        release = Chan(1)
        handle = gopoll.go(release.recv)
        await wait_parked(handle)
        async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
            async with await gopoll.dial("tcp", listener.addr) as conn:
                assert asyncio.run(tasks(handle, release, conn)) == "ended"
                async with await listener.accept() as peer:
                    await peer.write(b"x")
                    assert await conn.read(1) == b"x"  # the refusal has left it as it was

    run(main)


def test_a_handle_awaited_in_a_loop_of_its_own_is_refused():
    async def main():
        release = Chan()
        handle = gopoll.go(release.recv)

        async def task():
            with pytest.raises(RuntimeError, match=r"a goroutine cannot be awaited in a task"):
                await handle

        await gopoll.blocking(lambda: asyncio.run(task()))
        await release.send(1)
        await handle

    gopoll.run(main)
