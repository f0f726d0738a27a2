"""What every connection must do: the eleven promises of x/net's nettest, row 101.

Each test gets both ends through the `ends` fixture, which goes through ENDS.
"""

import contextlib
import random
import time

import pytest

from gopoll.errors import ClosedError
from gopoll.runtime.goroutine import go, gosched, sleep
from net.tlstools import tls_pair
from net.tools import pair, parked, socket_pair, unix_pair

PAST = -1e9


# Kinds of connection: each an async context manager that gives both ends.
ENDS = {"tcp": pair, "unix": unix_pair, "socketpair": socket_pair, "tls": tls_pair}


@pytest.fixture(params=ENDS)
def ends(request):
    """Return an async context manager that gives two connected ends."""
    return ENDS[request.param]


@pytest.fixture
def chunk():
    return random.Random(1).randbytes(1 << 20)


async def copy(source, target):
    """Send on what comes, until the end; then close the writing side."""
    while data := await source.read():
        await target.write(data)
    target.close_write()


async def drain(conn):
    """Read until something ends it."""
    with contextlib.suppress(OSError):
        while await conn.read(4096):
            pass


def test_basic_io(run, ends, chunk):
    """Row 101: eight MiB there and back arrive in order."""

    async def main():
        async with ends() as (a, b):
            data = chunk * 8

            async def send():
                await a.write(data)
                a.close_write()

            goroutines = [go(send), go(copy, b, b)]
            got = bytearray()
            while piece := await a.read(1 << 16):
                got += piece
            assert got == data
            for g in goroutines:
                await g

    run(main)


def test_ping_pong(run, ends):
    """Both ends count together, one message at a time."""

    async def main():
        async def count(conn):
            while True:
                data = await conn.read(8)
                if not data:
                    return
                n = int.from_bytes(data, "little") + 1
                await conn.write(n.to_bytes(8, "little"))
                if n >= 1000:
                    conn.close_write()
                    return

        async with ends() as (a, b):
            goroutines = [go(count, a), go(count, b)]
            await a.write(bytes(8))
            for g in goroutines:
                await g

    run(main)


def test_racy_read(run, ends, chunk):
    """Ten goroutines read one end while deadlines come and go."""

    async def main():
        async with ends() as (a, b):
            writer = go(b.write, chunk * 32)

            async def reader():
                a.set_read_timeout(0.001)
                for _ in range(10):
                    try:
                        await a.read(1024)
                    except TimeoutError:
                        a.set_read_timeout(0.001)

            for g in [go(reader) for _ in range(10)]:
                await g
            a.close()
            with contextlib.suppress(OSError):
                await writer

    run(main)


def test_racy_write(run, ends, chunk):
    """Ten goroutines write one end while deadlines come and go."""

    async def main():
        async with ends() as (a, b):
            reader = go(drain, b)

            async def writer():
                a.set_write_timeout(0.001)
                for _ in range(10):
                    try:
                        await a.write(chunk[:1024])
                    except TimeoutError:
                        a.set_write_timeout(0.001)

            for g in [go(writer) for _ in range(10)]:
                await g
            a.close()
            await reader

    run(main)


def test_read_timeout(run, ends):
    """A read deadline leaves writes alone."""

    async def main():
        async with ends() as (a, b):
            reader = go(drain, b)
            a.set_read_deadline(PAST)
            with pytest.raises(TimeoutError):
                await a.read(1024)
            assert await a.write(bytes(1024)) == 1024
            a.close()
            await reader

    run(main)


def test_write_timeout(run, ends, chunk):
    """A write deadline leaves reads alone."""

    async def main():
        async with ends() as (a, b):
            a.set_write_deadline(PAST)
            with pytest.raises(TimeoutError):
                await a.write(bytes(1024))
            await b.write(b"x" * 1024)
            assert await a.read(1024) == b"x" * 1024

    run(main)


def test_past_timeout(run, ends):
    """A deadline that has passed fails every operation until it is lifted."""

    async def main():
        async with ends() as (a, b):
            echo = go(copy, b, b)
            for when in (PAST, time.monotonic() - 1):
                a.set_deadline(when)
                for _ in range(2):
                    with pytest.raises(TimeoutError):
                        await a.write(bytes(1024))
                    with pytest.raises(TimeoutError):
                        await a.read(1024)
                await round_trip(a)
            a.close_write()
            await echo

    run(main)


def test_present_timeout(run, ends, chunk):
    """A deadline set to now ends a read and a write under way."""

    async def main():
        async with ends() as (a, _):
            reader, writer = go(a.read, 1024), go(write_on, a, chunk)
            await parked(reader, writer)
            a.set_deadline(time.monotonic())
            for g in (reader, writer):
                with pytest.raises(TimeoutError):
                    await g

    run(main)


def test_future_timeout(run, ends, chunk):
    """A deadline in the future ends both, not early; afterwards the connection works."""

    async def main():
        async with ends() as (a, b):
            start = time.monotonic()
            a.set_deadline(start + 0.05)
            reader, writer = go(a.read, 1024), go(write_on, a, chunk)
            for g in (reader, writer):
                with pytest.raises(TimeoutError):
                    await g
                assert time.monotonic() >= start + 0.05
            echo = go(copy, b, b)
            a.set_deadline(None)
            a.close_write()
            while await a.read(1 << 16):
                pass
            await echo

    run(main)


def test_close_timeout(run, ends, chunk):
    """A close ends both, whatever the deadlines say."""

    async def main():
        async with ends() as (a, _):
            a.set_timeout(3600)
            reader, writer = go(a.read, 1024), go(write_on, a, chunk)
            await parked(reader, writer)
            a.close()
            for g in (reader, writer):
                with pytest.raises(ClosedError):
                    await g

    run(main)


def test_concurrent_methods(run, ends):
    """Everything at once, from many goroutines: nothing breaks, nothing hangs."""

    async def main():
        async with ends() as (a, b):
            echo = go(copy, b, b)

            async def quietly(awaitable):
                with contextlib.suppress(TimeoutError):
                    await awaitable

            goroutines = []
            for i in range(100):
                a.set_timeout(0.01)
                goroutines += [go(quietly, a.read(1024)), go(quietly, a.write(bytes(1024)))]
                for setter in (a.set_deadline, a.set_read_deadline, a.set_write_deadline):
                    setter(time.monotonic() + 0.01)
                assert a.local_addr == b.remote_addr
                assert a.remote_addr == b.local_addr
                if i % 10 == 0:
                    await gosched()
            a.set_timeout(0.01)
            for g in goroutines:
                await g
            a.set_deadline(None)
            a.close_write()
            await drain(a)
            await echo

    run(main)


async def write_on(conn, chunk):
    while True:
        await conn.write(chunk)


async def round_trip(conn):
    """Show that *conn*, whose peer echoes, works: a byte out and the same byte back."""
    conn.set_deadline(None)
    await conn.write(b"!")
    assert await conn.read() == b"!"
    await sleep(0)
