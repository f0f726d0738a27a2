"""aio.attach(): what asyncio does its own way, on its own loop and on uvloop."""

import asyncio
import contextvars
import signal

import pytest

import gopoll
from embed.hosts import Aio, echo, ended, pair, parked, talk, waiting
from gopoll.embed import aio
from helpers.child import run_forking


@pytest.fixture(params=["asyncio", "uvloop", "gopoll.embed.aio"])
def host(request):
    return Aio(request.param)


def test_what_takes_an_awaitable_takes_ours(host):
    async def main():
        async with aio.attach():
            a, b = await pair()
            async with a, b:
                reads = asyncio.gather(a.read(1), a.read(1))
                await b.write(b"xy")
                assert await asyncio.wait_for(reads, 20) == [b"x", b"y"]
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(a.read(), 0.005)
                task = asyncio.ensure_future(a.read())
                await b.write(b"z")
                assert await task == b"z"

    host.run(main)


def test_what_awaits_anew_at_each_turn_leaves_nothing_with_the_guest(host):
    """anext() with a default does: whoever it had parked was kept until the guest was closed."""

    async def main():
        async with aio.attach() as guest:
            chan = gopoll.Chan()

            async def send():
                for n in range(3):
                    await chan.send(n)
                chan.close()

            gopoll.go(send)
            assert [await anext(chan, "over") for _ in range(4)] == [0, 1, 2, "over"]
            assert guest._sched.link.waiting == 0

    host.run(main)


def test_a_goroutine_may_call_the_loop_and_not_await_what_is_its(host):
    async def nap():
        await asyncio.sleep(0)
        return "slept"

    async def work():
        loop = asyncio.get_running_loop()
        chan = gopoll.Chan(1)
        loop.call_soon(chan.try_send, "called")
        assert await chan.recv() == "called"
        task = loop.create_task(nap())
        task.add_done_callback(lambda t: chan.try_send(t.result()))
        assert await chan.recv() == "slept"
        with pytest.raises(TypeError, match=r"goroutine awaited _?Future, which belongs to an"):
            await loop.create_future()
        with pytest.raises(TypeError, match=r"a bare yield, as asyncio\.sleep"):
            await asyncio.sleep(0)
        return "done"

    async def main():
        async with aio.attach():
            assert await gopoll.go(work) == "done"

    host.run(main)


def test_context_variables_follow_into_goroutines(host):
    var = contextvars.ContextVar("var", default="none")

    async def work():
        await gopoll.sleep(0)
        return var.get()

    async def main():
        async with aio.attach():
            var.set("the task's")
            assert await gopoll.go(work) == "the task's"

    host.run(main)


def test_a_cancelled_block_cleans_up_and_is_cancelled(host):
    said = []

    async def work():
        try:
            await gopoll.sleep(3600)
        finally:
            async with gopoll.shield():
                await gopoll.sleep(0.01)
            said.append("cleaned up")

    async def block(started):
        async with aio.attach():
            g = gopoll.go(work)
            await parked(host, g)
            started.set()
            await gopoll.sleep(3600)

    async def main():
        started = asyncio.Event()
        task = asyncio.create_task(block(started))
        await started.wait()
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()  # impatience does not cut the end short
        with pytest.raises(asyncio.CancelledError):
            await task
        assert said == ["cleaned up"]
        async with aio.attach():
            await gopoll.sleep(0)

    host.run(main)


def test_the_end_of_the_loop_ends_a_block_in_a_task_that_nobody_awaits(host):
    said = []

    async def work():
        try:
            await gopoll.sleep(3600)
        finally:
            said.append("cleaned up")

    async def block(started):
        async with aio.attach():
            g = gopoll.go(work)
            await parked(host, g)
            started.set()
            await asyncio.sleep(3600)

    tasks = []

    async def main():
        started = asyncio.Event()
        tasks.append(asyncio.create_task(block(started)))
        await started.wait()

    host.run(main)
    assert said == ["cleaned up"]
    assert gopoll.run(gopoll.sleep, 0) is None, "the thread is free"


def test_the_error_of_a_goroutine_has_a_note_of_the_bodys(host):
    async def bad():
        raise ValueError("the goroutine's")

    async def main():
        async with aio.attach():
            gopoll.go(bad)
            try:
                await asyncio.sleep(60)
            finally:
                raise error

    error = LookupError("the body's")
    with pytest.raises(ValueError, match="the goroutine's") as caught:
        host.run(main)
    assert caught.value.__notes__ == [
        'the body of attach() ended with LookupError("the body\'s") too'
    ]


def test_a_task_whose_block_has_failed_is_not_cancelled_any_more(host):
    async def bad():
        raise ValueError("unseen")

    async def block():
        async with aio.attach():
            gopoll.go(bad)
            await asyncio.sleep(60)

    async def main():
        with pytest.raises(ValueError, match="unseen"):
            await block()
        assert asyncio.current_task().cancelling() == 0
        await asyncio.sleep(0)

    host.run(main)


def test_a_cancellation_that_was_put_off_comes_at_the_next_operation(host):
    """H4: as without attach()."""

    async def main():
        async with aio.attach() as guest:
            chan, got = gopoll.Chan(), []
            a, b = await pair()

            async def body():
                got.append(await chan.recv())
                got.append(await chan.recv())

            async with a, b:
                task = asyncio.create_task(body())
                await waiting(host, guest, 1)
                assert chan.try_send("handed over")
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert got == ["handed over"]

    host.run(main)


def test_attach_is_for_the_loop_that_runs_and_used_once(host):
    async def main():
        other = asyncio.new_event_loop()
        with pytest.raises(RuntimeError, match="for the loop that runs here, and no other"):
            async with aio.attach(other):
                pass
        other.close()
        block = aio.attach(asyncio.get_running_loop())
        async with block:
            pass
        with pytest.raises(RuntimeError, match="used once"):
            async with block:
                pass

    host.run(main)


def test_channels_work_before_during_and_after_the_block(host):
    """Without a guest the loop's own futures do, for what needs no poller."""

    async def main():
        chan = gopoll.Chan()

        async def receive(n):
            return [await chan.recv() for _ in range(n)]

        before = asyncio.create_task(receive(2))
        await asyncio.sleep(0)
        async with aio.attach():
            await chan.send(1)
            g = gopoll.go(chan.send, 2)
            assert await before == [1, 2]
            await ended(host, g)
        after = asyncio.create_task(receive(1))
        await chan.send(3)
        assert await after == [3]

    host.run(main)


def test_in_a_forked_child_all_is_refused_and_the_parent_goes_on():
    run_forking(
        """
import asyncio, socket
from gopoll.embed import aio

async def receive(chan):
    return await chan.recv()

async def main():
    async with aio.attach():
        async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
            conn = await gopoll.dial("tcp", listener.addr)
            peer = await listener.accept()
        unix = socket.socket(socket.AF_UNIX)
        unix.bind(chr(0) + "gopoll-test-fork-guest")
        unix.listen()
        parked = gopoll.go(conn.read)
        await gopoll.sleep(0)
        pid = os.fork()
        if pid == 0:
            for begin in (
                lambda: conn.read(),
                lambda: conn.write(b"x"),
                lambda: gopoll.sleep(1),
                lambda: gopoll.dial("unix", "@gopoll-test-fork-guest"),  # there is room: at once
                lambda: gopoll.listen("tcp", "127.0.0.1:0"),
                lambda: gopoll.from_fd(socket.socket().detach()),
            ):
                try:
                    await begin()
                except ForkedError:
                    continue
                os._exit(1)
            try:
                gopoll.go(gopoll.sleep, 1)
            except ForkedError:
                os._exit(0)
            os._exit(2)
        assert os.waitpid(pid, 0)[1] == 0
        await peer.write(b"still here")
        assert await parked == b"still here"
        await conn.close()
        await peer.close()
        unix.close()

asyncio.run(main())
"""
    )


def test_serve_is_refused_in_a_task_and_runs_in_a_goroutine(host):
    async def main():
        async with aio.attach():
            listener = await gopoll.listen("tcp", "127.0.0.1:0")
            with pytest.raises(RuntimeError, match=r"serve\(\) is for a goroutine: await go\("):
                await gopoll.serve(listener, echo)
            g = gopoll.go(gopoll.serve, listener, echo)
            assert await talk(listener.addr, 10) == 10
            listener.close()
            await g

    host.run(main)


def test_the_timeout_of_dial_tls_bounds_the_handshake_in_a_task(host):
    async def main():
        async with aio.attach():
            async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
                with pytest.raises(gopoll.DeadlineExceeded, match="handshake tcp"):
                    await gopoll.dial_tls(
                        "tcp", listener.addr, server_hostname="localhost", timeout=0.05
                    )
                async with await listener.accept() as conn:
                    while await conn.read():
                        pass  # a hello, if there was the time for one, and the end

    host.run(main)


def test_signals_come_to_goroutines_and_tasks(host):
    async def main():
        async with aio.attach():
            chan = gopoll.signal_notify(signal.SIGUSR1)
            g = gopoll.go(chan.recv)
            await parked(host, g)
            signal.raise_signal(signal.SIGUSR1)
            assert await g == signal.SIGUSR1
            asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGUSR1)
            assert await chan.recv() == signal.SIGUSR1
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL

    host.run(main)
