"""attach(): goroutines in asyncio, uvloop and trio, and gopoll's awaitables in their tasks.

docs/embedding.md. Cancellation: test_attach_cancel.py; what one host does its own way:
test_attach_aio.py, test_trio.py.
"""

import gc
import itertools
import socket
import threading
import time
import traceback
import weakref

import pytest

import gopoll
from embed.hosts import (
    Aio,
    Trio,
    attached,
    echo,
    echo_all,
    ended,
    host,  # noqa: F401  (a fixture)
    in_thread,
    pair,
    parked,
    receive,
    talk,
    waiting,
)
from gopoll import Chan, ChanClosed, Mutex

# ruff: noqa: F811


def test_servers_and_clients_in_tasks_and_in_goroutines(host):
    async def serve(listener):  # in a task
        for _ in range(5):
            host.start(echo, await listener.accept())

    async def main(guest):
        async with await gopoll.listen("tcp", "127.0.0.1:0") as one:
            async with await gopoll.listen("tcp", "127.0.0.1:0") as two:
                gopoll.go(echo_all, one)
                server = host.start(serve, two)
                tasks = [host.start(talk, one.addr, 50) for _ in range(5)]
                tasks += [host.start(talk, two.addr, 50) for _ in range(3)]
                goroutines = [gopoll.go(talk, addr.addr, 50) for addr in (one, two, two)]
                assert [await g for g in goroutines] == [50] * 3
                assert [await t.outcome() for t in tasks] == [50] * 8
                assert await server.outcome() is None

    attached(host, main)


def test_large_messages_park_writers_too(host):
    payload = bytes(range(256)) * 16384

    async def main(guest):
        a, b = await pair()
        async with a, b:
            writer = host.start(a.write, payload)
            got = bytearray()
            await waiting(host, guest, 1)
            while len(got) < len(payload):
                got += await b.read()
            assert got == payload
            assert await writer.outcome() == len(payload)

    attached(host, main)


def test_readers_and_writers_in_tasks(host):
    """They wait in the task that awaits, whatever of it needs the connection."""
    lines = [b"%d\n" % i * 5000 for i in range(40)]

    async def send(conn):
        async with gopoll.Writer(conn, size=1000) as writer:
            for line in lines:
                await writer.write(line)
            await writer.write(b"x" * 10 + b"end")
        conn.close_write()

    async def main(guest):
        a, b = await pair()
        async with a, b:
            reader = gopoll.Reader(b)
            begun = host.start(reader.peek, 2)
            await waiting(host, guest, 1)
            sender = host.start(send, a)
            assert await begun.outcome() == b"0\n"
            got = []
            async for line in reader:
                got.append(line)
                if len(got) == 40 * 5000:
                    break
            assert b"".join(got) == b"".join(lines)
            assert await reader.read_exactly(5) == b"xxxxx"
            assert await reader.read_until(b"n") == b"xxxxxen"
            assert await reader.read_line() == b"d"
            with pytest.raises(EOFError):
                await reader.read_exactly(1)
            assert await sender.outcome() is None

    attached(host, main)


def test_a_reader_that_a_host_cancels_has_lost_nothing(host):
    async def main(guest):
        a, b = await pair()
        async with a, b:
            reader = gopoll.Reader(b)
            await a.write(b"half ")
            task = host.start(reader.read_line)
            await waiting(host, guest, 1)
            task.cancel()
            assert await task.outcome() == "cancelled"
            await a.write(b"and half\n")
            assert await reader.read_line() == b"half and half\n"

    attached(host, main)


def test_tls_in_a_task(host):
    from net.certs import certs

    async def main(guest):
        async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:

            async def serve():
                conn = await gopoll.tls.server(await listener.accept(), certs().server_context())
                await echo(conn)

            g = gopoll.go(serve)
            ctx = certs().client_context()
            conn = await gopoll.dial_tls(
                "tcp", listener.addr, ssl_context=ctx, server_hostname="localhost"
            )
            async with conn:
                await conn.write(b"hello")
                assert await conn.read() == b"hello"
            await g

    attached(host, main)


def test_channels_locks_and_select_between_tasks_and_goroutines(host):
    async def main(guest):
        there, back, mutex = Chan(), Chan(), Mutex()

        async def answer():
            async for value in there:
                async with mutex:
                    await back.send(value + 1)
            back.close()

        gopoll.go(answer)
        for n in range(50):
            await there.send(n)
            assert await back.recv() == n + 1
        assert await gopoll.select(back.recv_case(), timeout=0.002) == (-1, None)
        async with mutex:
            await there.send(1)
            assert await gopoll.select(back.recv_case(), default=True) == (-1, None)
        assert await gopoll.select(back.recv_case(), timeout=20) == (0, 2)
        there.close()
        with pytest.raises(ChanClosed):
            await back.recv()

    attached(host, main)


def test_a_plain_thread_wakes_tasks_and_goroutines(host):
    async def main(guest):
        chan, other = Chan(), Chan()
        g = gopoll.go(other.recv)
        task = host.start(receive, chan)
        await waiting(host, guest, 1)
        await parked(host, g)
        thread = in_thread(lambda: (chan.send_sync("task", 20), other.send_sync("goroutine", 20)))
        assert await task.outcome() == "task"
        assert await g == "goroutine"
        thread.join()

    attached(host, main)


def test_sleep_is_never_early_and_the_descriptor_alone_wakes_the_host(host):
    """Nothing else is due: the timerfd does it."""

    async def nap(seconds):
        begun = time.monotonic()
        await gopoll.sleep(seconds)
        return time.monotonic() - begun

    async def main(guest):
        assert await nap(0.01) >= 0.01
        assert await gopoll.go(nap, 0.01) >= 0.01
        conn, other = await pair()
        async with conn, other:
            conn.set_timeout(0.01)
            with pytest.raises(TimeoutError, match="i/o timeout"):
                await conn.read()

    attached(host, main)


def test_sleep_0_in_a_task_lets_goroutines_and_tasks_run(host):
    async def main(guest):
        ran = []

        async def work(name):
            ran.append(name)

        gopoll.go(work, "goroutine")
        task = host.start(work, "task")
        for _ in range(20):
            await gopoll.sleep(0)
        assert sorted(ran) == ["goroutine", "task"]
        await task.outcome()
        await gopoll.gosched()

    attached(host, main)


def test_blocking_and_lookups_do_not_hold_the_host_up(host):
    async def main(guest):
        gate = threading.Event()
        g = gopoll.go(gopoll.blocking(gate.wait, 20))
        task = host.start(gopoll.blocking, threading.get_ident)
        assert await task.outcome() != threading.get_ident()
        gate.set()
        assert await g is True
        assert "127.0.0.1" in await gopoll.Resolver().lookup_host("localhost")

    attached(host, main)


def test_a_join_gives_the_result_or_the_error_with_its_traceback(host):
    async def inner():
        await gopoll.sleep(0)
        raise KeyError("from a goroutine")

    async def fine():
        return 7

    async def main(guest):
        assert await gopoll.go(fine) == 7
        with pytest.raises(KeyError, match="from a goroutine") as caught:
            await gopoll.go(inner)
        names = [f.name for f in traceback.extract_tb(caught.tb)]
        assert [name for name in names if "gopoll" not in name][-2:] == ["main", "inner"]

    attached(host, main)


def test_an_error_of_an_operation_is_raised_at_the_await_in_the_task(host):
    async def main(guest):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            with pytest.raises(ConnectionRefusedError, match="dial tcp") as caught:
                await gopoll.dial("tcp", sock.getsockname())
        assert caught.traceback[0].name == "main"
        a, b = await pair()
        async with a, b:
            task = host.start(a.read)
            await waiting(host, guest, 1)
            await a.close()
            assert isinstance(await task.outcome(), gopoll.ClosedError)

    attached(host, main)


# -- fairness --------------------------------------------------------------------------------------


def test_busy_goroutines_do_not_starve_the_host(host):
    async def main(guest):
        over, turns = False, 0

        async def spin():
            nonlocal turns
            while not over:
                turns += 1
                await gopoll.gosched()

        spinners = [gopoll.go(spin) for _ in range(100)]
        seen = []
        async with host.time_limit(60):
            for _ in range(50):  # between two of ours they had one batch, or few
                seen.append(turns)
                await host.turn()
        over = True
        await ended(host, *spinners)
        assert turns > 1000, "they ran"
        assert max(b - a for a, b in itertools.pairwise(seen)) <= 4 * 64

    attached(host, main)


def test_a_busy_host_does_not_starve_the_goroutines(host):
    async def main(guest):
        over = False

        async def spin():
            while not over:
                await host.turn()

        spinners = [host.start(spin) for _ in range(20)]
        async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
            gopoll.go(echo_all, listener)
            async with host.time_limit(60):
                assert await gopoll.go(talk, listener.addr, 20) == 20
        over = True
        for task in spinners:
            await task.outcome()

    attached(host, main)


def test_operations_that_never_wait_let_others_run(host):
    """A13, in a task of the host."""

    async def main(guest):
        chan, ticks = Chan(10000), 0
        busy = True

        async def tick():
            nonlocal ticks
            while busy:
                ticks += 1
                await host.turn()

        task = host.start(tick)
        for n in range(5000):
            await chan.send(n)
        busy = False
        assert ticks >= 50
        await task.outcome()

    attached(host, main)


def test_an_idle_guest_wakes_nobody(host):
    async def main(guest):
        a, b = await pair()
        async with a, b:
            g = gopoll.go(a.read)
            sleeper = gopoll.go(gopoll.sleep, 3600)
            await parked(host, g, sleeper)
            for _ in range(10):
                await host.turn()
            before = gopoll.stats().polls
            await host.sleep(0.05)
            for _ in range(50):
                await host.turn()
            assert gopoll.stats().polls == before
            await b.write(b"x")
            assert await g == b"x"
            sleeper.cancel()

    attached(host, main)


# -- the end ---------------------------------------------------------------------------------------


def test_at_the_end_goroutines_are_cancelled_and_clean_up(host):
    said, kept = [], []

    async def main(guest):
        a, b = await pair()

        async def work(conn):
            async with conn:
                try:
                    await conn.read()
                except gopoll.Canceled as exc:
                    said.append(str(exc.cause))
                    raise
                finally:
                    async with gopoll.shield():
                        await gopoll.sleep(0.01)
                        await conn.write(b"bye")
                    said.append("cleaned up")

        async def generate():
            try:
                yield 1
            finally:
                said.append("generator closed")

        async def half():
            it = generate()
            await anext(it)
            kept.append(it)

        await gopoll.go(half)
        g = gopoll.go(work, a)
        await parked(host, g)
        b.close()

    attached(host, main)
    why = "the guest has been closed, or the block of attach() left"
    assert said == [why, "cleaned up", "generator closed"]


def test_a_function_that_blocks_on_does_not_hold_the_host_up_at_the_end(host):
    inside, gate, ended_ = threading.Event(), threading.Event(), []

    def block():
        inside.set()
        ended_.append(gate.wait(60))

    async def ticks():
        for _ in range(50):
            await host.turn()
        gate.set()

    async def main(guest):
        gopoll.go(gopoll.blocking(block))
        async with host.time_limit(20):
            while not inside.is_set():
                await host.turn()
        host.start(ticks)

    attached(host, main)
    assert ended_ == [True], "by the host's own turns"


def test_what_other_tasks_wait_in_fails_at_the_end(host):
    """Q3: in whatever they are parked."""

    async def body():
        async with host.attach() as guest:
            a, b = await pair()
            chan = Chan()
            tasks = [host.start(a.read), host.start(receive, chan), host.start(gopoll.sleep, 3600)]
            await waiting(host, guest, 3)
        for task in tasks:
            error = await task.outcome()
            assert isinstance(error, RuntimeError)
            assert "the guest has been closed, or the block of attach() left" in str(error)
        with pytest.raises(gopoll.ClosedError):
            await a.read()
        a.close()
        b.close()

    host.run(body)


def test_an_error_that_nobody_awaits_ends_the_block_with_it(host):
    said = []

    async def bad():
        await gopoll.sleep(0)
        raise ValueError("nobody awaits this")

    async def other():
        try:
            await gopoll.sleep(3600)
        finally:
            said.append("cancelled")

    async def main(guest):
        gopoll.go(other)
        gopoll.go(bad)
        await host.sleep(60)
        said.append("never")

    with pytest.raises(ValueError, match="nobody awaits this") as caught:
        attached(host, main)
    assert traceback.extract_tb(caught.tb)[-1].name == "bad"
    assert said == ["cancelled"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_ends_the_block_though_a_handle_is_held(host, kind):
    handles = []

    async def leave():
        await gopoll.sleep(0)
        raise kind(3)

    async def main(guest):
        handles.append(gopoll.go(leave))
        await host.sleep(60)

    with pytest.raises(kind):
        attached(host, main)
    with pytest.raises(kind):
        handles[0].result()


def test_an_error_of_the_body_comes_out_as_it_is(host):
    async def main(guest):
        gopoll.go(gopoll.sleep, 3600)
        raise LookupError("the body's")

    with pytest.raises(LookupError, match="the body's"):
        attached(host, main)


def test_the_wrong_attach_names_the_right_one(host):
    other = Trio("trio") if host.name != "trio" else Aio("asyncio")
    text = "asyncio runs this task: use gopoll.embed.aio.attach()"
    if host.name == "trio":
        text = "trio runs this task: use gopoll.embed.trio.attach()"

    async def body():
        with pytest.raises(RuntimeError) as caught:
            async with other.attach():
                pass
        assert str(caught.value) == text
        async with host.attach():
            pass

    host.run(body)


@pytest.mark.parametrize("kind", [Aio, Trio])
def test_attach_outside_of_a_task_says_so(kind):
    block = kind(kind.__name__.lower().replace("aio", "asyncio")).attach()
    with pytest.raises(RuntimeError, match=r"attach\(\) is for a task of .*, and none runs here"):
        block.__aenter__().send(None)


def test_attached_twice_is_refused_and_again_is_not(host):
    async def body():
        for _ in range(2):
            async with host.attach():
                with pytest.raises(
                    RuntimeError, match="a guest is attached to this thread already"
                ):
                    async with host.attach():
                        pass
                with pytest.raises(
                    RuntimeError, match="a guest is attached to this thread already"
                ):
                    gopoll.run(gopoll.sleep, 0)
                await gopoll.sleep(0.001)

    host.run(body)


def test_without_attach_the_error_names_it(host):
    async def body():
        with pytest.raises(RuntimeError, match=r"gopoll\.embed\.aio\.attach\(\)"):
            await gopoll.dial("tcp", "127.0.0.1:1")
        with pytest.raises(RuntimeError, match=r"gopoll\.embed\.aio\.attach\(\)"):
            gopoll.sleep(1)
        with pytest.raises(RuntimeError, match=r"gopoll\.embed\.aio\.attach\(\)"):
            gopoll.go(echo, None)

    host.run(body)


def test_a_goroutine_that_awaits_what_is_the_hosts_gets_an_error(host):
    async def main(guest):
        with pytest.raises(TypeError, match=r"goroutine awaited .* another event loop"):
            await gopoll.go(host.turn)
        with pytest.raises((TypeError, RuntimeError), match=host.foreign):
            await gopoll.go(host.sleep, 1)

    attached(host, main)


def test_blocks_of_ours_are_for_goroutines_and_work_there(host):
    async def bounded():
        async with gopoll.Group() as group:
            group.go(gopoll.sleep, 0.001)
            with pytest.raises(TimeoutError):
                async with gopoll.timeout(0.005):
                    await gopoll.sleep(3600)
        return "done"

    async def main(guest):
        assert await gopoll.go(bounded) == "done"
        with pytest.raises(RuntimeError, match=r"no goroutine runs here: use timeout\(\)"):
            async with gopoll.timeout(1):
                pass

    attached(host, main)


# -- two at once, and afterwards -------------------------------------------------------------------


def test_two_hosts_in_two_threads_join_and_talk(host):
    """A goroutine of the one is awaited in a task of the other; connections stay at home."""
    chan, answers, seen = Chan(), Chan(1), []

    async def serve(guest):
        conn, peer = await pair()

        async def work():
            return await answers.recv()

        async with conn, peer:
            await chan.send((gopoll.go(work), conn))
            await gopoll.blocking(over.wait, 20)

    over = threading.Event()
    thread = in_thread(attached, type(host)(host.name), serve)

    async def main(guest):
        g, conn = await chan.recv()
        task = host.start(join, g)
        await waiting(host, guest, 1)
        with pytest.raises(RuntimeError, match="the connection belongs to another scheduler"):
            await conn.read()
        await answers.send("from afar")
        seen.append(await task.outcome())

    async def join(g):
        return await g

    try:
        attached(host, main)
    finally:
        over.set()
        thread.join()
    assert seen == ["from afar"]


def test_nothing_is_kept_of_what_has_been_awaited(host):
    async def main(guest):
        chan = Chan()
        refs = []

        class Value:
            pass

        async def send():
            for _ in range(50):
                value = Value()
                refs.append(weakref.ref(value))
                await chan.send(value)

        g = gopoll.go(send)
        for _ in range(50):
            await chan.recv()
        await g
        gc.collect()
        assert [ref for ref in refs if ref() is not None] == []
        assert guest._sched.link.waiting == 0

    attached(host, main)
