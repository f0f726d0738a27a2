"""What TLSConn.read() and write() return: operations as those of every other connection.

What they read and write is in test_tlsconn.py, how they are cut in test_tlsconn_race.py.
"""

import array
import gc

import pytest

from gopoll.errors import Canceled
from gopoll.net import tlscore
from gopoll.runtime.goroutine import go
from net.tlstools import DATA, read_exactly, tls_pair
from net.tools import parked
from runtime.tools import ONE

MAKE = {"read": lambda conn: conn.read(), "write": lambda conn: conn.write(b"x")}


@pytest.fixture(params=MAKE)
def make(request):
    """Return what makes an operation of a connection."""
    return MAKE[request.param]


def test_an_operation_is_awaited_once(run, make):
    async def main():
        async with tls_pair() as (a, b):
            await b.write(b"some")
            op = make(a)
            await op
            with pytest.raises(RuntimeError, match=r"^cannot await an operation twice \("):
                await op

    run(main)


def test_an_operation_that_nobody_awaits_is_warned_of(run, make):
    async def main():
        async with tls_pair() as (a, _):
            with pytest.warns(RuntimeWarning, match=r"^(read|write) was never awaited$"):
                make(a)

    run(main)


def test_an_operation_that_is_dropped_while_it_waits_gives_its_lock_back(run):
    """Stepped by hand, so nobody closes it: whoever is next finds the connection as it was."""

    async def main():
        async with tls_pair() as (a, b):
            op = a.read()
            steps = op.__await__()
            assert next(steps) is not None
            assert not a._rlock.try_lock()
            del op, steps
            gc.collect()
            await b.write(b"for the next")
            assert await a.read() == b"for the next"

            taken = 0
            while True:
                op = a.write(DATA[: tlscore.CHUNK])
                steps = op.__await__()
                try:
                    while a._wlock.try_lock():  # else it waits; before, it may let others run
                        a._wlock.unlock()
                        next(steps)
                    break
                except StopIteration:
                    taken += op.written
            assert op.written == tlscore.CHUNK  # encrypted, so it goes out: by itself
            taken += op.written
            del op, steps
            gc.collect()
            assert await read_exactly(b, taken) == taken // tlscore.CHUNK * DATA[: tlscore.CHUNK]
            assert await a.write(b"on") == 2
            assert await b.read() == b"on"

    run(main, **ONE)


@pytest.mark.parametrize(
    "kind", [bytes, bytearray, memoryview, lambda data: array.array("H", data)]
)
@pytest.mark.parametrize("size", [2, tlscore.CHUNK, tlscore.CHUNK + 2])
def test_a_buffer_of_any_kind_is_written(run, kind, size):
    async def main():
        async with tls_pair() as (a, b):
            writing = go(a.write, kind(DATA[:size]))
            assert await read_exactly(b, size) == DATA[:size]
            assert await writing == size

    run(main)


def test_what_is_no_buffer_in_one_piece_is_refused(run):
    async def main():
        async with tls_pair() as (a, b):
            gone = memoryview(b"gone")
            gone.release()
            for data, error in (
                ("text", TypeError),
                (memoryview(DATA)[::2], TypeError),
                (gone, ValueError),
            ):
                with pytest.raises(error):
                    await a.write(data)
            await a.write(b"all is well")
            assert await b.read() == b"all is well"

    run(main)


def test_a_write_that_is_cut_on_its_way_tells_that_all_is_encrypted(run):
    """It is what was encrypted that goes out, whole, in front of what is written next."""

    async def main():
        async with tls_pair() as (a, b):
            ops = []

            async def write():
                while True:
                    ops.append(a.write(DATA[: tlscore.CHUNK]))
                    await ops[-1]

            first = go(write)
            await parked(first)
            first.cancel()
            with pytest.raises(Canceled):
                await first
            full = sum(op.written for op in ops)
            assert full == len(ops) * tlscore.CHUNK
            writing = go(a.write, b"next")
            got = await read_exactly(b, full + 4)
            assert got == full // tlscore.CHUNK * DATA[: tlscore.CHUNK] + b"next"
            assert await writing == 4

    run(main)


def test_a_read_that_is_cancelled_lets_the_next_read(run):
    async def main():
        async with tls_pair() as (a, b):
            first = go(a.read)
            await parked(first)
            second = go(a.read)
            await parked(second)
            first.cancel()
            with pytest.raises(Canceled):
                await first
            await b.write(b"for the second")
            assert await second == b"for the second"

    run(main)


async def wait_in(conn, is_over):
    """Wait as a reader does for whom there is a pile."""
    await conn._waits.wait("test", is_over, lambda: None)


def test_a_write_wakes_who_waits_when_it_has_taken_the_ciphertext(run):
    """W5: it is in _unsent then, no longer in _out."""

    async def main():
        async with tls_pair() as (a, b):
            waiting = go(wait_in, a, lambda: bool(looks.append(len(looks)) or len(looks) == 2))
            await parked(waiting)
            assert await a.write(b"x") == 1
            await waiting
            assert await b.read() == b"x"

    looks = []
    run(main)


def test_a_write_wakes_who_waits_when_the_ciphertext_has_left(run):
    """W5: who came while it was on its way."""

    async def main():
        async with tls_pair() as (a, b):
            ops, stop = [], []

            async def write():
                while not stop:
                    ops.append(a.write(DATA[: tlscore.CHUNK]))
                    await ops[-1]

            writing = go(write)
            await parked(writing)
            stop.append(True)
            waiting = go(wait_in, a, lambda: not a._unsent)
            await parked(waiting)
            await read_exactly(b, len(ops) * tlscore.CHUNK)
            await writing
            await waiting

    run(main)
