"""TLSConn over connections without a descriptor: wrappers, and TLS itself."""

import ssl
import threading

import pytest

from gopoll.errors import Canceled, ClosedError, OpError
from gopoll.net import tlsconn
from gopoll.net.conn import Conn
from gopoll.runtime.goroutine import go
from net.tlstools import DATA, over, read_all, read_exactly, tls_pair
from net.tools import BIG, pair, parked


class Below(Conn):
    """A connection without a descriptor: what TLS runs over need not be a socket of ours."""

    def __init__(self, conn):
        self.conn = conn
        self.mute = False  # a write that is cut does not say how much had left

    def read(self, n=65536):
        return self.conn.read(min(n, 1000))

    async def write(self, data):
        try:
            return await self.conn.write(data)
        except Canceled as exc:
            if self.mute:
                exc.written = None
            raise

    def close(self):
        return self.conn.close()

    is_closed = property(lambda self: self.conn.is_closed)
    local_addr = property(lambda self: self.conn.local_addr)
    remote_addr = property(lambda self: self.conn.remote_addr)
    network = property(lambda self: "below")

    def set_read_deadline(self, when):
        self.conn.set_read_deadline(when)

    def set_write_deadline(self, when):
        self.conn.set_write_deadline(when)


def test_over_a_connection_of_any_kind(run):
    async def main():
        async with pair() as (a, b):
            one, two = await over(Below(a), Below(b))
            reader = go(read_all, two)
            await one.write(DATA[:200_000])
            one.close_write()
            assert await reader == DATA[:200_000]
            with pytest.raises(BrokenPipeError, match=r"^write below"):
                await one.write(b"x")
            await two.close()
            assert b.is_closed
            assert await one.read() == b""
            one.close()

    run(main)


def test_close_announces_the_end_where_there_is_no_descriptor(run):
    async def main():
        async with pair() as (a, b):
            one, two = await over(Below(a), Below(b))
            waiting = [go(one.read), go(one.read)]
            await parked(*waiting)
            await two.write(b"bye")
            closing = two.close()
            assert two.close() is closing
            assert two.is_closed
            for op in (two.read(), two.write(b"x")):
                with pytest.raises(ClosedError):
                    await op
            with pytest.raises(ClosedError, match=r"^set below"):
                two.set_deadline(None)
            await closing
            assert b.is_closed
            assert sorted([await g for g in waiting]) == [b"", b"bye"]
            await one.close()

    run(main)


def test_a_wrapper_that_hands_the_rest_on_is_not_gone_past(run):
    """Its raw_control is that of the connection below it, to which other bytes are sent."""

    class Turned(Below):
        def __getattr__(self, name):
            return getattr(self.conn, name)

        async def read(self, n=65536):
            return turned(await self.conn.read(n))

        async def write(self, data):
            return await self.conn.write(turned(bytes(data)))

    def turned(data):
        return bytes(byte ^ 0xFF for byte in data)

    async def main():
        async with pair() as (a, b):
            one, two = await over(Turned(a), Turned(b))
            reader = go(read_all, two)
            await one.write(b"x")
            one.close_write()
            assert await reader == b"x"
            await two.close()
            assert await one.read() == b""
            await one.close()

    run(main)


def test_close_wakes_who_reads_where_there_is_no_descriptor(run):
    async def main():
        async with pair() as (a, b):
            one, two = await over(Below(a), Below(b))
            readers = [go(two.read), go(two.read)]
            await parked(*readers)
            two.close()
            for g in readers:
                with pytest.raises(ClosedError, match=r"^read below"):
                    await g
            assert await one.read() == b""
            one.close()

    run(main)


def test_close_gives_up_on_a_peer_that_does_not_read(run, monkeypatch):
    async def main():
        monkeypatch.setattr(tlsconn, "ANNOUNCE_SECONDS", 0.01)
        async with pair() as (a, b):
            one, two = await over(Below(a), Below(b))
            writer = go(two.write, BIG)
            await parked(writer)
            writer.cancel()
            with pytest.raises(Canceled):
                await writer
            assert not b.is_closed
            await two.close()  # what the write has left behind cannot leave, nor the end behind it
            assert b.is_closed
            with pytest.raises(ssl.SSLEOFError):
                await read_all(one)
            one.close()

    run(main)


def test_close_from_a_thread_does_not_wait_where_there_is_no_descriptor(run):
    async def main():
        async with pair() as (a, b):
            one, two = await over(Below(a), Below(b))
            thread = threading.Thread(target=two.close)
            thread.start()
            thread.join()
            assert b.is_closed
            with pytest.raises(ssl.SSLEOFError):
                await one.read()
            one.close()

    run(main)


def test_what_close_has_started_ends_with_the_run(run):
    async def main():
        async with pair() as (a, b):
            one, two = await over(Below(a), Below(b))
            ends.extend((a, b))
            one.close()
            two.close()

    ends = []
    run(main)
    assert all(end.is_closed for end in ends)


def test_over_tls(run):
    async def main():
        async with tls_pair() as (a, b):
            one, two = await over(a, b)
            writer = go(one.write, DATA)
            assert await read_exactly(two, len(DATA)) == DATA
            await writer
            one.close_write()
            assert await two.read() == b""
            await two.close()
            assert await one.read() == b""
            with pytest.raises(ClosedError):
                await b.read()
            assert await a.read() == b""  # and that of the TLS below
            one.close()

    run(main)


def test_a_cut_that_says_nothing_breaks_the_stream(run):
    async def main():
        async with pair() as (a, b):
            one, two = await over(Below(a), Below(b))
            one.net_conn.mute = True
            writer = go(one.write, BIG)
            await parked(writer)
            writer.cancel()
            with pytest.raises(Canceled):
                await writer
            for _ in range(2):
                with pytest.raises(OpError, match=r"^write below .*: a write below was cut"):
                    await one.write(b"x")
            await two.write(b"fine")
            assert await one.read() == b"fine"
            one.close()
            two.close()

    run(main)
