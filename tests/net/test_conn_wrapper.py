"""Conn as a base for wrappers: a plain class that holds no descriptor."""

import contextlib
import errno
import os
import time

import pytest

import gopoll
from gopoll.errors import OpError, op_error
from gopoll.net.conn import FDConn
from net.tools import BIG, pair, parked
from plugins.guard import wait_parked, wait_until


class Loud(gopoll.Conn):
    """What a user writes: another connection with something done to its bytes."""

    def __init__(self, inner):
        self.inner = inner

    async def read(self, n=65536):
        return (await self.inner.read(n)).upper()

    async def write(self, data):
        return await self.inner.write(bytes(data).upper())

    def close(self):
        return self.inner.close()

    def set_read_deadline(self, when):
        self.inner.set_read_deadline(when)

    def set_write_deadline(self, when):
        self.inner.set_write_deadline(when)

    is_closed = property(lambda self: self.inner.is_closed)
    local_addr = property(lambda self: self.inner.local_addr)
    remote_addr = property(lambda self: self.inner.remote_addr)
    network = property(lambda self: self.inner.network)


def test_a_wrapper_gets_the_rest_from_conn(run):
    async def main():
        async with pair() as (a, b):
            async with Loud(b) as loud:
                assert isinstance(loud, gopoll.Conn)
                await a.write(b"hello, you")
                buffer = bytearray(5)
                assert await loud.readinto(buffer) == 5
                assert buffer == b"HELLO"
                assert await loud.readinto(bytearray()) == 0
                assert await gopoll.Reader(loud).read_exactly(5) == b", YOU"
                assert await loud.write(b"yes") == 3
                assert await a.read() == b"YES"
                assert repr(loud) == repr(b).replace("TCPConn", "Loud")
                for close in (loud.close_read, loud.close_write):
                    with pytest.raises(OpError, match=r"^close tcp .*: operation not supported$"):
                        close()
            assert b.is_closed
            assert repr(loud).endswith(" closed>")

    run(main)


def test_a_wrapper_copies_what_the_kernel_cannot(run, tmp_path):
    """Rows 97, 99 and 100 for what has no descriptor: buffers, files and other connections."""
    (tmp_path / "file").write_bytes(b"0123456789" * 100_000)

    async def main():
        async with pair() as (a, b), pair() as (c, d):
            loud, other = Loud(a), Loud(d)
            assert await loud.writev([b"one ", b"", bytearray(b"two")]) == 7
            assert await b.read() == b"ONE TWO"
            with open(tmp_path / "file", "rb") as file:
                for args, expected in (
                    ((2, 5), b"23456"),
                    ((999_995,), b"56789"),
                    ((0, 0), b""),
                    ((2_000_000,), b""),
                ):
                    assert await loud.sendfile(file, *args) == len(expected)
                    assert await gopoll.Reader(b).read_exactly(len(expected)) == expected
                file.seek(7)
                assert await loud.sendfile(file.fileno(), None, 6) == 6
                assert await b.read() == b"789012"
                assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 13
                g = gopoll.go(loud.sendfile, file)
                assert await gopoll.Reader(b).read_exactly(1_000_000) == b"0123456789" * 100_000
                assert await g == 1_000_000
            await c.write(b"through")
            assert await loud.splice_from(other, 4) == 4
            assert await a.splice_from(other, 3) == 3  # a descriptor here, none there
            assert await gopoll.Reader(b).read_exactly(7) == b"THROUGH"
            c.close()
            assert await loud.splice_from(d) == 0

    run(main)


def test_a_copy_that_fails_says_how_much_has_left(run, tmp_path):
    (tmp_path / "file").write_bytes(bytes(1 << 20))

    class Small(Loud):
        left = 300_000

        async def write(self, data):
            if self.left < len(data):
                raise op_error("write", "tcp", None, None, errno.EPIPE, written=self.left)
            self.left -= len(data)
            return len(data)

    async def main():
        async with pair() as (a, b), pair() as (c, d):
            with open(tmp_path / "file", "rb") as file:
                with pytest.raises(BrokenPipeError) as caught:
                    await Small(a).sendfile(file)
            assert caught.value.written == 300_000
            with pytest.raises(BrokenPipeError) as caught:
                await Small(a).writev([bytes(200_000), bytes(200_000)])
            assert caught.value.written == 300_000
            g = gopoll.go(c.write, bytes(1 << 20))
            with pytest.raises(BrokenPipeError) as caught:
                await Small(a).splice_from(d)
            assert caught.value.written == 300_000
            d.close()
            with contextlib.suppress(OSError):  # it may all have fitted into the buffers
                await g
            r, w = os.pipe()
            with pytest.raises(OpError, match=r"^sendfile tcp .*: illegal seek$"):
                await Loud(b).sendfile(r)
            os.close(r)
            os.close(w)
            for args in ((0, -1), (-1, 1)):
                with pytest.raises(ValueError, match="must not be negative, not -1"):
                    await Loud(b).sendfile(0, *args)
            with pytest.raises(TypeError, match="count must be an int, not str"):
                await Loud(b).splice_from(c, "1")

    run(main)


class Slow(Loud):
    """A wrapper whose writes stop where the test says."""

    def __init__(self, inner, room):
        super().__init__(inner)
        self.room = room

    async def write(self, data):
        if len(data) <= self.room:
            self.room -= len(data)
            return len(data)
        self.room, left = 0, self.room
        try:
            await self.inner.read()  # for ever, or to the deadline
        except (OpError, gopoll.Canceled) as exc:
            exc.written = left
            raise


@pytest.mark.parametrize("cut", ["deadline", "cancel"])
@pytest.mark.parametrize("room", [0, 1000, 262_144 + 1000])
def test_a_file_that_is_sent_in_part_stands_behind_what_was_sent(run, tmp_path, cut, room):
    """Who goes on from there sends no byte twice."""
    (tmp_path / "file").write_bytes(bytes(1 << 20))

    async def main():
        async with pair() as (a, _):
            slow = Slow(a, room)
            with open(tmp_path / "file", "rb") as file:
                file.seek(7)
                g = gopoll.go(slow.sendfile, file, None)
                await wait_parked(g)
                await wait_until(lambda: not slow.room and g.wait_reason == "read")
                if cut == "cancel":
                    g.cancel()
                else:
                    slow.set_read_deadline(0)
                with pytest.raises((TimeoutError, gopoll.Canceled)) as caught:
                    await g
                assert caught.value.written == room
                assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 7 + room

    run(main)


def test_a_file_that_is_closed_meanwhile_hides_no_cancellation(run, tmp_path):
    (tmp_path / "file").write_bytes(bytes(1 << 20))

    async def main():
        async with pair() as (a, _):
            slow = Slow(a, 1000)
            fd = os.open(tmp_path / "file", os.O_RDONLY)
            g = gopoll.go(slow.sendfile, fd, None)
            await wait_until(lambda: not slow.room and g.wait_reason == "read")
            os.close(fd)
            g.cancel()
            with pytest.raises(gopoll.Canceled):
                await g

    run(main)


@pytest.mark.parametrize("cut", ["deadline", "cancel"])
@pytest.mark.parametrize("side", ["wrapper", "descriptor"])
def test_a_copy_that_is_cut_says_what_is_lost(run, cut, side):
    """Of what has no descriptor as of what has one."""

    async def main():
        async with pair() as (a, b), pair() as (c, _):
            dst = Loud(c) if side == "wrapper" else c
            sender = gopoll.go(b.write, BIG)
            g = gopoll.go(dst.splice_from, Loud(a))
            await parked(g, sender, reason="write")
            if cut == "cancel":
                g.cancel()
            else:
                c.set_write_deadline(0)
            with pytest.raises((TimeoutError, gopoll.Canceled)) as caught:
                await g
            (note,) = caught.value.__notes__
            lost, _, text = note.partition(" ")
            assert text == "bytes had been read and were not written"
            sender.cancel()
            with pytest.raises(gopoll.Canceled) as stopped:
                await sender
            b.close_write()
            rest = 0
            while data := await a.read():
                rest += len(data)
            assert caught.value.written + int(lost) + rest == stopped.value.written

    run(main)


def test_a_copy_whose_source_fails_says_how_much_has_left(run):
    async def main():
        async with pair() as (a, b), pair() as (c, d):
            await b.write(b"12345")
            g = gopoll.go(Loud(c).splice_from, Loud(a))
            assert await gopoll.Reader(d).read_exactly(5) == b"12345"
            a.set_read_deadline(0)
            with pytest.raises(TimeoutError) as caught:
                await g
            assert caught.value.written == 5
            assert not hasattr(caught.value, "__notes__")

    run(main)


def test_a_wrapper_s_deadlines_are_those_it_gives(run):
    async def main():
        async with pair() as (a, b):
            loud = Loud(b)
            await a.write(b"there")
            for pass_it in (
                lambda: loud.set_deadline(time.monotonic() - 1),
                lambda: loud.set_timeout(0),
            ):
                pass_it()
                for call in (loud.read, lambda: loud.write(b"x")):
                    with pytest.raises(TimeoutError):
                        await call()
                loud.set_timeout(None)
            loud.set_read_timeout(-1)
            with pytest.raises(TimeoutError):
                await loud.read()
            loud.set_write_timeout(-1)
            with pytest.raises(TimeoutError):
                await loud.write(b"x")
            loud.set_deadline(None)
            assert await loud.read() == b"THERE"

    run(main)


def test_a_bare_conn_says_what_it_lacks():
    conn = gopoll.Conn()
    for name in ("is_closed", "local_addr", "remote_addr", "network"):
        with pytest.raises(NotImplementedError):
            getattr(conn, name)
    for call in (conn.read, conn.close, lambda: conn.write(b""), lambda: conn.set_timeout(1)):
        with pytest.raises(NotImplementedError):
            call()


def test_the_operations_of_a_connection_are_those_of_its_descriptor():
    """No frame of Python between a caller and read or write."""
    for name in ("read", "readinto", "write", "set_deadline", "set_timeout", "local_addr"):
        assert getattr(gopoll.TCPConn, name) is getattr(FDConn.__mro__[1], name)
    assert gopoll.Conn.__slots__ == ()
