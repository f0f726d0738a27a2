"""Conn as a base for wrappers: a plain class that holds no descriptor."""

import time

import pytest

import gopoll
from gopoll.errors import OpError
from gopoll.net.conn import FDConn
from net.tools import pair


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
