"""TLSConn with a peer that asks for answers and does not read them: what waits is bounded (W5)."""

import contextlib
import ctypes
import socket
import ssl
import sys

import pytest

from gopoll.errors import Canceled, ClosedError
from gopoll.net import tls, tlscore
from gopoll.net.file import from_socket
from gopoll.runtime.goroutine import go
from net.certs import certs
from net.tlstools import DATA, read_exactly
from net.tools import BIG, parked
from plugins.guard import wait_until

MOST = tlscore._PILE + 2 * tlscore.CHUNK  # what one read from below may add, and change


class Answering:
    """An SSLObject each of whose reads makes answers, as OpenSSL does to a KeyUpdate."""

    def __init__(self, conn, size=1000):
        self.real, self.out, self.size = conn._obj, conn._out, size

    def read(self, *args):
        got = self.real.read(*args)
        self.out.write(bytes(self.size))  # no record: the peer here does not look
        return got

    def __getattr__(self, name):
        return getattr(self.real, name)


def waiting(conn):
    """Return how many bytes wait to be sent."""
    return len(conn._unsent) + conn._out.pending


@contextlib.asynccontextmanager
async def short_pair():
    """Connect two ends of TLS, client and server, with little room between them."""
    a, b = socket.socketpair()
    accepting = go(tls.server, from_socket(b), certs().server_context())
    client = certs().client_context()
    async with await tls.client(from_socket(a), client, server_hostname="localhost") as one:
        async with await accepting as two:
            yield one, two


async def write_on(conn):
    """Write records, for ever."""
    while True:
        await conn.write(DATA[:1000])


async def read_on(conn):
    """Read to the end, and see how much waits."""
    while await conn.read():
        assert waiting(conn) <= MOST


async def drain(a, b):
    """Read at *a*, without a look at it, until nothing waits at *b*."""

    async def read():
        while await a.net_conn.read():
            pass

    reading = go(read)
    await wait_until(lambda: not waiting(b))
    reading.cancel()
    with pytest.raises(Canceled):
        await reading


class flood:  # noqa: N801  (used as a function)
    """`async with flood() as (a, b, flooding, reading)`: b answers and a does not read: both wait.

    Each record of a's costs b as many bytes as it has itself.
    """

    def __init__(self):
        self.pair = short_pair()

    async def __aenter__(self):
        self.a, self.b = a, b = await self.pair.__aenter__()
        b._obj = Answering(b)

        self.flooding = go(write_on, a)
        self.reading = go(read_on, b)
        await parked(self.flooding)
        await wait_until(lambda: b._waits)
        await parked(self.reading)
        return a, b, self.flooding, self.reading

    async def __aexit__(self, *exc):
        self.flooding.cancel()
        self.reading.cancel()
        for g in (self.flooding, self.reading):
            try:
                await g
            except (OSError, Canceled):
                pass
        await self.pair.__aexit__(*exc)


def test_who_reads_nothing_is_read_no_more(run):
    async def main():
        async with flood() as (a, b, flooding, _):
            assert tlscore._PILE < waiting(b) <= MOST
            before = b._in.pending
            await parked(flooding)
            assert b._in.pending == before
            # Once it reads, it is read again.
            flooding.cancel()
            with pytest.raises(Canceled):
                await flooding
            await drain(a, b)

    run(main)


def test_a_deadline_ends_the_wait(run):
    async def main():
        async with flood() as (_, b, _, reading):
            b.set_read_timeout(0.01)  # of one that waits already
            with pytest.raises(TimeoutError, match=r"^read unix: i/o timeout"):
                await reading
            b.set_read_timeout(0.01)  # and of one that comes
            with pytest.raises(TimeoutError, match=r"^read unix: i/o timeout"):
                await read_on(b)
            b.set_read_deadline(None)
            again = go(b.read, 1)
            await parked(again)
            again.cancel()
            with pytest.raises(Canceled):
                await again

    run(main)


def test_a_close_ends_the_wait(run):
    async def main():
        async with flood() as (_, b, _, reading):
            b.close()
            with pytest.raises(ClosedError, match=r"^read unix"):
                await reading

    run(main)


def test_a_write_deadline_that_moves_lets_it_go_on(run):
    """What has failed by a deadline is not tried over and over, but by who moves that."""

    async def main():
        async with flood() as (a, b, flooding, reading):
            b.set_write_deadline(0)
            await wait_until(lambda: b._wlock.try_lock())
            b._wlock.unlock()
            before = b._kicks
            await parked(flooding, reading)
            assert b._kicks == before
            flooding.cancel()
            b.set_write_deadline(None)
            await drain(a, b)
            await wait_until(lambda: not b._waits)

    run(main)


def test_an_answer_that_cannot_be_sent_ends_the_read(run):
    async def main():
        async with short_pair() as (a, b):
            b._obj = Answering(b)
            a.net_conn.close_read()  # and goes on asking
            sender = go(write_on, a)
            with pytest.raises(
                BrokenPipeError, match=r"^read unix: write unix: write: broken pipe"
            ):
                await read_on(b)
            assert waiting(b) <= MOST
            sender.cancel()
            with pytest.raises(Canceled):
                await sender

    run(main)


def test_a_connection_below_with_errors_of_its_own(run):
    async def main():
        async with short_pair() as (a, b):
            b._obj = Answering(b, tlscore._PILE + 1)

            class OwnError(OSError):
                def __init__(self, reason, code):
                    super().__init__(code, reason)
                    self.written = 0

            async def write(_):
                raise OwnError("of its own", 5)

            class Below:
                def __getattr__(self, name):
                    if name == "raw_control":
                        raise AttributeError(name)
                    return write if name == "write" else getattr(conn, name)

            conn, b._conn = b._conn, Below()
            await a.write(b"x")
            with pytest.raises(OSError, match="of its own") as caught:
                await read_on(b)
            assert caught.value.errno == 5
            b._conn = conn

    run(main)


def test_a_write_that_stalls_meanwhile_goes_on_with_the_peer(run):
    async def main():
        async with short_pair() as (a, b):
            writer = go(b.write, BIG)
            await parked(writer)
            b._obj = Answering(b, 0)
            reader = go(read_exactly, b, 10 * len(DATA))
            sender = go(a.write, DATA * 10)
            assert await reader == DATA * 10
            await sender
            assert await read_exactly(a, len(BIG)) == BIG
            await writer

    run(main)


def key_update(conn):
    """Have *conn* ask its peer for new keys; None where OpenSSL cannot be called."""
    at = id(conn._obj._sslobj) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)
    library.SSL_key_update.argtypes = (ctypes.c_void_p, ctypes.c_int)
    assert library.SSL_key_update(ctypes.c_void_p.from_address(at), 1) == 1


try:
    library = ctypes.CDLL(ssl._ssl.__file__)
    library.SSL_key_update  # noqa: B018
except (AttributeError, OSError):
    library = None


@pytest.mark.skipif(
    library is None or sys.implementation.name != "cpython", reason="OpenSSL cannot be called"
)
def test_a_flood_of_key_updates(run):
    """OpenSSL answers each on the spot, into memory."""

    async def main():
        async with short_pair() as (a, b):
            assert a.version == "TLSv1.3"

            async def send():
                while True:
                    with a._lock:
                        key_update(a)
                        a._obj.write(b"x")
                        data = a._out.read()
                    await a.net_conn.write(data)

            sender, reader = go(send), go(read_on, b)
            await wait_until(lambda: b._waits, seconds=60)
            await parked(sender, reader)
            sender.cancel()
            reader.cancel()
            for g in (sender, reader):
                with pytest.raises(Canceled):
                    await g

    run(main)
