"""Connections that end in the middle: by a reset, or one way and then the other."""

import errno
import functools
import os
import random
import socket

import pytest

import gopoll
from gopoll import OpError
from net.tools import BIG, local_listener, pair, parked, reset

MIB = 1 << 20


def close_with_a_reset(conn):
    conn.set_linger(0)
    conn.close()


async def read_exactly(conn, n):
    return await gopoll.Reader(conn).read_exactly(n)


# -- reset


@pytest.mark.parametrize("got", [0, MIB])
def test_a_reset_in_the_middle_of_a_write_ends_it_with_what_had_left(run, got):
    async def main():
        async with pair() as (a, b):
            writer = gopoll.go(a.write, BIG)
            await parked(writer, reason="write")
            assert await read_exactly(b, got) == BIG[:got]
            await parked(writer, reason="write")
            close_with_a_reset(b)
            with pytest.raises(
                ConnectionResetError, match=r"^write tcp .*: connection reset by"
            ) as e:
                await writer
            assert isinstance(e.value, OpError)
            assert got <= e.value.written < len(BIG)
            assert not e.value.is_temporary

    run(main)


def test_a_reset_wakes_all_who_wait_on_the_connection(run):
    """Row 54. The kernel tells the first of them that there was a reset, the others what is left:
    the end of the stream, and a broken pipe.
    """

    async def main():
        async with pair() as (a, b):
            readers = [gopoll.go(a.read) for _ in range(4)]
            writers = [gopoll.go(a.write, BIG) for _ in range(4)]
            await parked(*readers, *writers)
            close_with_a_reset(b)
            seen = []
            for g in (*readers, *writers):
                try:
                    seen.append(await g)
                except OpError as exc:
                    seen.append(exc.errno)
            assert seen.count(errno.ECONNRESET) == 1
            assert set(seen[:4]) <= {b"", errno.ECONNRESET}
            assert set(seen[4:]) <= {errno.EPIPE, errno.ECONNRESET}

    run(main)


def test_a_plain_socket_that_resets_while_both_sides_write(run):
    async def main():
        async with local_listener() as ln:
            plain = socket.create_connection(ln.addr)
            async with await ln.accept() as conn:
                writer = gopoll.go(conn.write, BIG)
                await parked(writer, reason="write")
                await gopoll.blocking(plain.sendall, bytes(100_000))
                assert await conn.read(10) == bytes(10)
                reset(plain)  # with the rest unread on both sides
                with pytest.raises(ConnectionResetError):
                    await writer
                with pytest.raises(
                    BrokenPipeError, match=r"^write tcp .*: write: broken pipe$"
                ) as caught:
                    await conn.write(b"x")
                assert caught.value.written == 0

    run(main)


def test_resets_at_any_moment_of_many_echoes_are_errors_of_ours_and_leave_nothing(run):
    """The guard of the fixture sees whether a goroutine, a descriptor or a timer is left."""
    draw = random.Random(11)

    async def echo(conn):
        async with conn:
            try:
                while data := await conn.read():
                    await conn.write(data)
            except OpError:
                pass

    async def client(address, turns):
        conn = await gopoll.dial("tcp", address)
        writer = gopoll.go(conn.write, BIG)
        for _ in range(turns):
            await conn.read()
        close_with_a_reset(conn)
        with pytest.raises(gopoll.ClosedError):
            await writer

    async def main():
        async with local_listener() as ln:
            clients = [gopoll.go(client, ln.addr, draw.randrange(20)) for _ in range(30)]
            echoes = [gopoll.go(echo, await ln.accept()) for _ in clients]
            for g in (*clients, *echoes):
                await g

    run(main)


# -- one way, then the other


@pytest.mark.parametrize("first", [0, 1])
def test_each_way_ends_by_itself_and_the_other_carries_megabytes_on(run, first):
    """Rows 48 and 49."""

    async def main():
        async with pair() as ends:
            early, late = ends[first], ends[1 - first]
            await early.write(b"all I have")
            early.close_write()
            assert await read_exactly(late, 10) == b"all I have"
            assert await late.read() == b""
            data = os.urandom(4 * MIB)
            writer = gopoll.go(late.write, data)
            assert await read_exactly(early, len(data)) == data
            assert await writer == len(data)
            late.close_write()
            for conn in ends:
                assert await conn.read() == b""
                with pytest.raises(BrokenPipeError):
                    await conn.write(b"x")

    run(main)


def test_both_ends_close_their_writing_side_while_both_have_much_in_flight(run):
    async def send(conn, data):
        await conn.write(data)
        conn.close_write()

    async def receive(conn):
        pieces = []
        while piece := await conn.read():
            pieces.append(piece)
        return b"".join(pieces)

    async def main():
        async with pair() as ends:
            data = [os.urandom(4 * MIB), os.urandom(3 * MIB)]
            sending = [gopoll.go(send, *each) for each in zip(ends, data, strict=True)]
            getting = [gopoll.go(receive, conn) for conn in ends]
            assert [await g for g in getting] == data[::-1]
            for g in sending:
                await g

    run(main)


def test_a_closed_writing_side_ends_the_writers_that_wait(run):
    """What they had given to the kernel arrives, and then the end."""

    async def main():
        async with pair() as (a, b):
            writer = gopoll.go(a.write, BIG)
            await parked(writer, reason="write")
            a.close_write()
            with pytest.raises(
                BrokenPipeError, match=r"^write tcp .*: write: broken pipe$"
            ) as caught:
                await writer
            size = 0
            while piece := await b.read(MIB):
                size += len(piece)
            assert size == caught.value.written > 0
            await b.write(b"still here")
            assert await a.read() == b"still here"

    run(main)


def test_a_closed_reading_side_does_not_disturb_the_writing_side(run):
    async def main():
        async with pair() as (a, b):
            reader, writer = gopoll.go(a.read), gopoll.go(a.write, BIG)
            await parked(reader, writer)
            a.close_read()
            assert await reader == b""
            assert await read_exactly(b, len(BIG)) == BIG
            assert await writer == len(BIG)

    run(main)


def test_a_relay_hands_on_each_end_in_its_time(run):
    """Client, relay and server: two half-closes pass through, and nothing of the data is lost."""

    async def pump(source, target):
        while data := await source.read():
            await target.write(data)
        target.close_write()

    async def relay(conn, upstream):
        async with conn, await gopoll.dial("tcp", upstream) as up:
            back = gopoll.go(pump, up, conn)
            await pump(conn, up)
            await back

    async def reverse(conn):
        """Answer only when all has come: nothing else tells that it is all."""
        async with conn:
            got = bytearray()
            while data := await conn.read():
                got += data
            await conn.write(bytes(reversed(got)))

    async def accept_one(listener, handle):
        await handle(await listener.accept())

    async def main():
        async with local_listener() as front, local_listener() as back:
            handle = functools.partial(relay, upstream=back.addr)
            serving = [gopoll.go(accept_one, *pair) for pair in ((front, handle), (back, reverse))]
            async with await gopoll.dial("tcp", front.addr) as conn:
                data = os.urandom(2 * MIB)
                await conn.write(data)
                conn.close_write()
                assert await read_exactly(conn, len(data)) == bytes(reversed(data))
                assert await conn.read() == b""
            for g in serving:
                await g

    run(main)
