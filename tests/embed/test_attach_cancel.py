"""A host's cancellation of what its tasks wait in: taken back whole, or done (Q2, H4)."""

import functools
import os
import random
import socket

import pytest

import gopoll
from embed.hosts import (
    attached,
    host,  # noqa: F401  (a fixture)
    in_thread,
    pair,
    receive,
    waiting,
)
from gopoll import Chan, Cond, Mutex, tls
from gopoll.embed import Guest, Host
from net.certs import certs

# ruff: noqa: F811

BIG = random.Random(6).randbytes(1 << 20) * 32  # more than buffers take while nobody reads


def test_a_cancelled_read_loses_no_byte(host):
    async def main(guest):
        a, b = await pair()
        async with a, b:
            for n in range(20):
                task = host.start(a.read)
                await waiting(host, guest, 1)
                if n % 2:  # the bytes are there, and the task does not know yet
                    await b.write(b"%3d" % n)
                task.cancel()
                assert await task.outcome() == "cancelled"
                if n % 2 == 0:
                    await b.write(b"%3d" % n)
                assert await a.read() == b"%3d" % n
            assert guest._sched.link.waiting == 0

    attached(host, main)


def test_a_cancelled_accept_leaves_the_connection_to_the_next(host):
    async def main(guest):
        async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
            for n in range(10):
                task = host.start(listener.accept)
                await waiting(host, guest, 1)
                with socket.create_connection(listener.addr, timeout=20) as peer:
                    if n % 2:
                        guest.run_nowait()  # it is woken, and is cancelled before it goes on
                    task.cancel()
                    conn = await task.outcome()  # trio: what is woken comes to its end
                    if conn == "cancelled":
                        async with host.time_limit(20):
                            conn = await listener.accept()
                    async with conn:
                        assert conn.remote_addr == peer.getsockname()

    attached(host, main)


def test_a_cancelled_dial_closes_what_it_has_opened(host):
    """The leak guard counts descriptors; the listener's queue is full, so the dial waits."""

    async def main(guest):
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            fillers = []
            for _ in range(3):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
                fillers.append(filler)
            task = host.start(gopoll.dial, "tcp", full.getsockname())
            await waiting(host, guest, 1)
            task.cancel()
            assert await task.outcome() == "cancelled"
            for filler in fillers:
                filler.close()
        assert gopoll.stats().descriptors == 0

    attached(host, main)


async def finish(op):
    return await op


async def read_all(conn):
    got = bytearray()
    while data := await conn.read(1 << 20):
        got += data
    return bytes(got)


WRITES = {
    "write": lambda conn: conn.write(BIG),
    "writev": lambda conn: conn.writev([BIG[:100], BIG[100:]]),
    "sendfile": lambda conn: conn.sendfile(big_file()),
}


@functools.cache
def big_file():
    """Return a descriptor of BIG in memory; it is there before the leak guard looks."""
    fd = os.memfd_create("big")
    os.write(fd, BIG)
    return fd


big_file()


def test_a_splice_that_is_cancelled_says_how_much_has_left(host):
    """What it had read and not written is lost, and not counted (X3)."""

    async def main(guest):
        a, b = await pair()
        c, d = await pair()
        async with a, b, c, d:
            source = host.start(a.write, BIG)
            await waiting(host, guest, 1)
            op = c.splice_from(b)
            task = host.start(finish, op)
            await waiting(host, guest, 2)
            for each in (task, source):
                each.cancel()
                assert await each.outcome() == "cancelled"
            reader = host.start(read_all, d)
            c.close_write()
            assert await reader.outcome() == BIG[: op.written]
            assert op.written > 0

    attached(host, main)


async def tcp(host):
    return await pair()


async def over_tls(host):
    a, b = await pair()
    context = certs().client_context()
    server = host.start(tls.server, b, certs().server_context())
    client = await tls.client(a, context, server_hostname="localhost")
    return client, await server.outcome()


@pytest.mark.parametrize("connect", [tcp, over_tls])
@pytest.mark.parametrize("kind", WRITES)
def test_a_write_that_is_cancelled_says_how_much_has_left(host, kind, connect):
    """K4. The host's exception says nothing; the operation does."""

    async def main(guest):
        a, b = await connect(host)
        async with a, b:
            op = WRITES[kind](a)
            task = host.start(finish, op)
            async with host.time_limit(20):
                while not op.written:  # over TLS sendfile reads the file first, in blocking()
                    await host.turn()
            await waiting(host, guest, 1)
            task.cancel()
            assert await task.outcome() == "cancelled"
            assert 0 < op.written < len(BIG)
            reader = host.start(read_all, b)
            async with host.time_limit(60):
                await a.write(b"the end")
                a.close_write()
                assert await reader.outcome() == BIG[: op.written] + b"the end"

    attached(host, main)


@pytest.mark.parametrize("connect", [tcp, over_tls])
def test_a_writer_that_is_cut_by_the_host_goes_on(host, connect):
    """K4: what has not left stays, what has is gone, and nothing is sent twice."""

    async def main(guest):
        a, b = await connect(host)
        async with a, b:
            writer = gopoll.Writer(a, size=1000)
            await writer.write(b"head")
            taken = 0
            for _ in range(3):  # all but the first find no room
                op = writer.write(BIG[taken:])
                task = host.start(finish, op)
                await waiting(host, guest, 1)
                task.cancel()
                assert await task.outcome() == "cancelled"
                taken += op.written
            assert 0 < taken < len(BIG)
            await writer.write(b"tail")
            flush = writer.flush()
            task = host.start(finish, flush)
            await host.turn()
            task.cancel()
            await task.outcome()  # what little there is may have found room
            assert flush.written + writer.buffered == 4
            reader = host.start(read_all, b)
            async with host.time_limit(60):
                await writer.flush()
                a.close_write()
                assert await reader.outcome() == b"head" + BIG[:taken] + b"tail"

    attached(host, main)


def test_who_queues_for_the_lock_of_a_connection_can_be_cancelled(host):
    async def main(guest):
        a, b = await pair()
        async with a, b:
            first, second, third = (host.start(a.read, 1) for _ in range(3))
            await waiting(host, guest, 3)
            second.cancel()
            assert await second.outcome() == "cancelled"
            first.cancel()
            assert await first.outcome() == "cancelled"
            await b.write(b"x")
            assert await third.outcome() == b"x"

    attached(host, main)


def test_a_value_that_was_handed_over_is_not_lost_to_a_cancellation(host):
    """H4: in the turn in which it is cancelled."""

    async def main(guest):
        chan, got = Chan(), []

        async def body():
            got.append(await chan.recv())
            await host.sleep(3600)

        task = host.start(body)
        await waiting(host, guest, 1)
        assert chan.try_send("handed over")
        task.cancel()
        assert await task.outcome() == "cancelled"
        assert got == ["handed over"]

    attached(host, main)


def test_a_cancelled_channel_operation_takes_and_gives_nothing(host):
    async def main(guest):
        chan = Chan()
        for start in (lambda: host.start(receive, chan), lambda: host.start(chan.send, 1)):
            task = start()
            await waiting(host, guest, 1)
            task.cancel()
            assert await task.outcome() == "cancelled"
            assert not chan.try_send(2)
            assert chan.try_recv() == (None, False)

    attached(host, main)


def test_a_task_that_is_cancelled_in_cond_wait_has_the_mutex(host):
    async def main(guest):
        mutex = Mutex()
        free = []
        cond = Cond(mutex)

        async def body():
            async with mutex:
                try:
                    await cond.wait()
                finally:
                    free.append(mutex.try_lock())

        task = host.start(body)
        await waiting(host, guest, 1)
        async with mutex:
            task.cancel()
            for _ in range(5):
                await host.turn()
            assert not task.done
        assert await task.outcome() == "cancelled"
        assert free == [False]
        assert mutex.try_lock()

    attached(host, main)


def test_a_cancelled_join_leaves_the_goroutine_running(host):
    async def main(guest):
        chan = Chan()
        g = gopoll.go(chan.recv)

        async def wait():
            return await g

        task = host.start(wait)
        await waiting(host, guest, 1)
        task.cancel()
        assert await task.outcome() == "cancelled"
        await chan.send("still there")
        assert await g == "still there"

    attached(host, main)


def test_the_timeouts_of_the_host_bound_our_operations(host):
    async def main(guest):
        a, b = await pair()
        async with a, b:
            with pytest.raises(TimeoutError):
                async with host.time_limit(0.005):
                    await a.read()
            with pytest.raises(TimeoutError):
                async with host.time_limit(0.005):
                    await gopoll.sleep(3600)
            await b.write(b"on time")
            assert await a.read() == b"on time"

    attached(host, main)


def test_an_operation_is_awaited_once(host):
    async def main(guest):
        a, b = await pair()
        async with a, b:
            op = a.read()

            async def body():
                return await op

            first = host.start(body)
            await waiting(host, guest, 1)
            with pytest.raises(RuntimeError, match="cannot await an operation twice"):
                await op
            await b.write(b"x")
            assert await first.outcome() == b"x"
            with pytest.raises(RuntimeError, match="cannot await an operation twice"):
                await op

    attached(host, main)


# -- many at once ----------------------------------------------------------------------------------


def test_a_stream_survives_any_number_of_cancelled_reads(host):
    """Readers come and are cancelled in any turn; what has been read is the stream, to the byte."""
    rnd = random.Random(7)
    sent = bytes(rnd.randrange(256) for _ in range(20000))

    cancelled = 0

    async def write(conn):
        at = 0
        while at < len(sent):
            before = cancelled if rnd.random() < 0.1 else -1
            while cancelled == before:  # a reader that finds nothing
                await gopoll.sleep(0.0002)
            n = rnd.randrange(1, 200)
            await conn.write(sent[at : at + n])
            at += n
            if rnd.random() < 0.5:
                await gopoll.sleep(0.0002)
        conn.close_write()

    async def main(guest):
        nonlocal cancelled
        a, b = await pair()
        got = bytearray()

        async def read():
            got.extend(await a.read(100))  # nothing between the two awaits

        async with a, b:
            writer = gopoll.go(write, b)
            while len(got) < len(sent):
                task = host.start(read)
                for _ in range(rnd.randrange(5)):
                    await host.turn()
                task.cancel()
                how = await task.outcome()
                cancelled += how == "cancelled"
                assert how in (None, "cancelled"), how
            await writer
        assert bytes(got) == sent
        assert cancelled > 0

    attached(host, main)


def test_values_survive_any_number_of_cancelled_receivers(host):
    """H4, with goroutines that send and threads too."""
    rnd = random.Random(11)

    async def main(guest):
        chan, got = Chan(), []

        async def send(first):
            for n in range(200):
                await chan.send(first + n)

        async def take():
            got.append(await chan.recv())

        senders = [gopoll.go(send, 1000 * k) for k in range(3)]
        thread = in_thread(lambda: [chan.send_sync(3000 + n, 60) for n in range(200)])
        while len(got) < 800:
            tasks = [host.start(take) for _ in range(3)]
            for _ in range(rnd.randrange(4)):
                await host.turn()
            for task in tasks:
                task.cancel()
            for task in tasks:
                how = await task.outcome()
                assert how in (None, "cancelled"), how
        for g in senders:
            await g
        thread.join()
        assert sorted(got) == sorted(1000 * k + n for k in range(4) for n in range(200))

    attached(host, main)


def test_a_future_that_fails_at_the_end_keeps_no_other_from_being_told():
    """Q3: by hand, since no future of a real host fails."""
    told = []

    class Broken(Host):
        def watch(self, fd, callback):
            pass

        def unwatch(self, fd):
            pass

        def make_future(self):
            return Pending(), print, fail

    class Pending:
        def __await__(self):
            yield self

    def fail(error):
        told.append(error)
        if len(told) == 1:
            raise ValueError("of the host")

    guest = Guest(Broken())
    waits = [Chan().recv().__await__() for _ in range(3)]
    for steps in waits:
        next(steps)
    with pytest.raises(ValueError, match="of the host"):
        guest.close()
    assert [type(error) for error in told] == [RuntimeError] * 3
    for steps in waits:
        steps.close()
