"""Deadlines of connections: absolute, movable, per direction, and never early."""

import threading
import time

import pytest

from gopoll.errors import ClosedError, DeadlineExceeded, OpError
from gopoll.net.dial import dial
from gopoll.runtime.goroutine import go, gosched
from gopoll.runtime.scope import timeout
from net.tools import BIG, local_listener, pair, parked

A_LONG_TIME_AGO = -1e9


def expired(op, **attributes):
    """Expect the timeout of *op*."""
    return pytest.raises(TimeoutError, match=rf"^{op} tcp 127\..*->127\..*: i/o timeout$")


def test_a_timeout_is_the_connection_s_and_not_a_context_s(run):
    async def main():
        async with pair() as (a, _):
            a.set_deadline(A_LONG_TIME_AGO)
            with expired("read") as caught:
                await a.read()
            error = caught.value
            assert isinstance(error, OpError)
            assert not isinstance(error, DeadlineExceeded)
            assert error.is_timeout
            assert error.is_temporary
            assert error.written is None
            with expired("write") as caught:
                await a.write(b"x")
            assert caught.value.written == 0

    run(main)


# -- reading


@pytest.mark.parametrize("when", [A_LONG_TIME_AGO, 0, 1e-9])
def test_a_past_deadline_fails_a_read_although_data_waits(run, when):
    """Row 38."""

    async def main():
        async with pair() as (a, b):
            await b.write(b"ready")
            a.set_read_deadline(when)
            for _ in range(2):
                with expired("read"):
                    await a.read()
            assert await a.read(0) == b""
            a.set_read_deadline(None)
            assert await a.read() == b"ready"

    run(main)


def test_a_read_gets_its_data_and_then_the_timeout(run):
    """Row 38."""

    async def main():
        async with pair() as (a, b):
            await b.write(b"data")
            a.set_read_timeout(0.25)
            assert await a.read() == b"data"
            for _ in range(2):
                with expired("read"):
                    await a.read()

    run(main)


def test_an_expired_write_deadline_does_not_touch_reads(run):
    """Row 39."""

    async def main():
        async with pair() as (a, _):
            a.set_write_deadline(A_LONG_TIME_AGO)
            g = go(a.read)
            await parked(g, reason="read")
            a.close()
            with pytest.raises(ClosedError) as caught:
                await g
            assert not caught.value.is_timeout

    run(main)


def test_a_past_deadline_wakes_a_waiting_read(run):
    """Row 47; and from another thread."""

    async def main():
        for other in (False, True):
            async with pair() as (a, _):
                g = go(a.read)
                await parked(g, reason="read")
                thread = threading.Thread(target=a.set_read_deadline, args=(A_LONG_TIME_AGO,))
                (thread.start if other else thread.run)()
                with expired("read"):
                    await g
                if other:
                    thread.join()

    run(main)


# -- writing


def test_a_past_deadline_fails_a_write_although_there_is_room(run):
    """Row 40."""

    async def main():
        async with pair() as (a, b):
            a.set_write_deadline(A_LONG_TIME_AGO)
            for _ in range(2):
                with expired("write") as caught:
                    await a.write(b"x")
                assert caught.value.written == 0
            a.set_write_deadline(None)
            await a.write(b"y")
            assert await b.read() == b"y"

    run(main)


def test_a_write_that_times_out_says_how_much_has_left(run):
    """Row 40."""

    async def main():
        async with pair() as (a, b):
            a.set_write_timeout(0.02)
            with expired("write") as caught:
                await a.write(BIG)
            left = caught.value.written
            assert 0 < left < len(BIG)
            a.close_write()
            got = 0
            while data := await b.read(1 << 20):
                got += len(data)
            assert got == left

    run(main)


def test_an_expired_read_deadline_does_not_touch_writes(run):
    """Row 40."""

    async def main():
        async with pair() as (a, _):
            a.set_read_deadline(A_LONG_TIME_AGO)
            g = go(a.write, BIG)
            await parked(g, reason="write")
            a.close()
            with pytest.raises(ClosedError) as caught:
                await g
            assert not caught.value.is_timeout
            assert caught.value.written > 0

    run(main)


# -- when


@pytest.mark.parametrize("op", ["read", "write"])
@pytest.mark.parametrize("seconds", [1e-9, 1e-6, 2e-4, 1e-3, 0.02, 0.1])
def test_a_deadline_fires_and_never_early(run, op, seconds):
    """Rows 42 and 43."""

    async def main():
        async with pair() as (a, _):
            for relative in (True, False):
                start = time.monotonic()
                if relative:
                    a.set_timeout(seconds)
                else:
                    a.set_deadline(start + seconds)
                with expired(op):
                    await (a.read() if op == "read" else a.write(BIG))
                assert time.monotonic() >= start + seconds

    run(main)


@pytest.mark.parametrize("seconds", [9e9, 1e300, float("inf")])
def test_a_deadline_beyond_the_clock_is_a_far_one(run, seconds):
    async def main():
        async with pair() as (a, b):
            for setter in (a.set_deadline, a.set_timeout):
                setter(seconds)
                g = go(a.read)
                await parked(g, reason="read")
                await b.write(b"x")
                assert await g == b"x"
            with pytest.raises(ValueError, match="not a number"):
                a.set_deadline(float("nan"))

    run(main)


def test_a_deadline_may_be_moved_after_it_has_fired(run):
    async def main():
        async with pair() as (a, b):
            for _ in range(3):
                a.set_read_timeout(0.005)
                with expired("read"):
                    await a.read()
                a.set_read_timeout(3600)
                g = go(a.read)
                await parked(g, reason="read")
                await b.write(b"x")
                assert await g == b"x"

    run(main)


def test_a_deadline_that_moves_on_does_not_fire(run):
    """Row 44: extended over and over while others read and write."""

    async def main():
        async with pair() as (a, b):
            done = []

            async def extend(conn):
                while not done:
                    conn.set_timeout(60)
                    await gosched()

            async def echo():
                while data := await b.read():
                    await b.write(data)

            a.set_timeout(60)
            goroutines = [go(extend, a), go(extend, b), go(echo)]
            for i in range(500):
                await a.write(b"%06d" % i)
                assert await a.read() == b"%06d" % i
            done.append(True)
            a.close_write()
            for g in goroutines:
                await g

    run(main)


def test_tiny_deadlines_may_race_with_reads_and_writes(run):
    """Row 45."""

    async def main():
        async with pair() as (a, b):

            async def use(conn, op):
                for _ in range(500):
                    conn.set_deadline(time.monotonic() + 2e-6)
                    try:
                        await op()
                    except TimeoutError:
                        pass
                    await gosched()

            users = [(c, op) for c in (a, b) for op in (c.read, lambda c=c: c.write(b"x"))]
            for g in [go(use, *user) for user in users]:
                await g

    run(main)


def test_many_may_move_many_deadlines_earlier(run):
    """Row 46, Go issue 35367: eight threads, ten connections, each deadline before the last."""

    async def main():
        async with local_listener() as ln:
            conns = [await dial("tcp", ln.addr) for _ in range(10)]
            peers = [await ln.accept() for _ in conns]
            now = time.monotonic()

            def earlier():
                for i in range(100):
                    for conn in conns:
                        conn.set_read_deadline(now + 3600 - i)

            threads = [threading.Thread(target=earlier) for _ in range(8)]
            for t in threads:
                t.start()
            readers = [go(conn.read) for conn in conns]
            for t in threads:
                t.join()
            await parked(*readers)
            for conn in conns:
                conn.set_read_deadline(now)
            for g in readers:
                with expired("read"):
                    await g
            for conn in conns + peers:
                conn.close()

    run(main)


def test_a_timed_out_connection_is_as_good_as_before(run):
    async def main():
        async with pair() as (a, b):
            a.set_deadline(A_LONG_TIME_AGO)
            with expired("read"):
                await a.read()
            a.set_deadline(None)
            with pytest.raises(TimeoutError):
                async with timeout(0.005):
                    await a.read()
            await a.write(b"ping")
            assert await b.read() == b"ping"
            await b.write(b"pong")
            assert await a.read() == b"pong"

    run(main)
