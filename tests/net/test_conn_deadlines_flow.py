"""Deadlines while data flows: they end what never waits as well, and not much later than said."""

import time

import pytest

import gopoll
from gopoll.runtime.goroutine import go
from net.tools import pair

CHUNK = bytes(4096)


async def pour(conn):
    """Write until the other end has gone."""
    with pytest.raises(ConnectionError):
        await write_on(conn)


async def write_on(conn):
    while True:
        await conn.write(CHUNK)


async def read_on(conn):
    while True:
        await conn.read(4096)


@pytest.mark.parametrize("procs", [1, 4])
@pytest.mark.parametrize("seconds", [1e-9, 1e-6, 1e-4, 1e-3, 0.01, 0.1, 0.3])
def test_a_deadline_ends_reads_that_always_find_data(run, procs, seconds):
    """Row 43: from a nanosecond up, on one P and on four."""

    async def client(conn):
        start = time.monotonic()
        conn.set_deadline(start + seconds)
        with pytest.raises(TimeoutError, match=r"^read tcp .*: i/o timeout$"):
            await read_on(conn)
        assert time.monotonic() >= start + seconds
        conn.set_linger(0)  # what is unread makes a reset of it anyway
        await conn.close()

    async def main():
        async with pair() as (a, b), pair() as (c, d):
            for g in [go(pour, a), go(client, b), go(pour, c), go(client, d)]:
                await g

    run(main, procs=procs)


@pytest.mark.parametrize("op", ["read", "write"])
def test_a_deadline_is_not_early_and_late_by_a_tenth_at_most(run, op):
    """Row 42: with longer and longer ones until a busy machine has time for it."""

    async def once(conn, seconds):
        start = time.monotonic()
        conn.set_deadline(start + seconds)
        with pytest.raises(TimeoutError):
            await (read_on(conn) if op == "read" else write_on(conn))
        return time.monotonic() - start

    async def main():
        async with pair() as (a, _):
            seconds = 0.05
            while True:
                took = await once(a, seconds)
                assert took >= seconds
                if took <= seconds * 1.1:
                    break
                assert seconds < 5, f"{took - seconds} s late"
                seconds *= 2
                await gopoll.sleep(0)

    run(main)
