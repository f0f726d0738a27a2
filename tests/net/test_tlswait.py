"""TLSConn's waits: a write that may not read on (W6), and deadlines that move below (W7)."""

import contextlib
import ssl
import time

import pytest

from gopoll._poller import BOTH, READ, WRITE
from gopoll.errors import Canceled, ClosedError
from gopoll.net import tlscore
from gopoll.runtime.goroutine import go
from net.test_tlsconn_pile import flood, short_pair, write_on
from net.tlstools import DATA, over, read_exactly
from net.tools import BIG, pair, parked, socket_pair
from plugins.guard import wait_until

MOST = tlscore._AHEAD + tlscore.CHUNK  # what one read from below may add


class Renegotiating:
    """An SSLObject whose writes have to read first, until `over` is set."""

    def __init__(self, conn):
        self.real, self.over = conn._obj, False

    def write(self, data):
        if not self.over:
            raise ssl.SSLWantReadError
        return self.real.write(data)

    def __getattr__(self, name):
        return getattr(self.real, name)


@contextlib.asynccontextmanager
async def renegotiation():
    """Give two ends, the second of which has a write under way that has read all it may."""
    async with short_pair() as (a, b):
        b._obj = Renegotiating(b)
        flooding, writer = go(write_on, a), go(b.write, b"done")
        await parked(flooding)
        await wait_until(lambda: b._waits)
        await parked(writer, reason="write")
        try:
            yield a, b, writer
        finally:
            for g in (flooding, writer):
                g.cancel()
                with contextlib.suppress(Canceled, OSError):
                    await g


def test_a_write_that_reads_first_does_not_read_for_ever(run):
    async def main():
        async with renegotiation() as (_, b, writer):
            assert tlscore._AHEAD < len(b._plain) <= MOST
            assert not b._wants_read

            # Who reads lets it go on, and gets all in order.
            got = bytearray()
            while len(got) < 20 * MOST:
                got += await b.read(1000)
                assert len(b._plain) <= MOST
            assert got == (DATA[:1000] * (len(got) // 1000 + 1))[: len(got)]
            assert not writer.done

            b._obj.over = True
            while not writer.done:  # it looks again when somebody has read
                await b.read()
            assert await writer == 4

    run(main)


def test_the_reader_may_be_the_one_who_ends_the_renegotiation(run):
    """The write is told, although nobody has let it read again."""

    async def main():
        async with renegotiation() as (a, b, writer):
            b._obj.over = True
            await read_exactly(b, MOST)
            assert await writer == 4
            assert await read_exactly(a, 4) == b"done"

    run(main)


@pytest.mark.parametrize("below", [False, True])
def test_a_deadline_ends_the_wait_of_a_write(run, below):
    async def main():
        async with renegotiation() as (_, b, writer):
            (b.net_conn if below else b).set_write_deadline(time.monotonic() + 0.01)
            with pytest.raises(TimeoutError, match=r"^write unix: i/o timeout") as caught:
                await writer
            assert caught.value.written == 0
            assert len(await b.read()) > 0  # and not what is read

    run(main)


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_its_end_ends_the_wait_of_a_write(run, how):
    async def main():
        async with renegotiation() as (_, b, writer):
            if how == "close":
                b.close()
                with pytest.raises(ClosedError, match=r"^write unix"):
                    await writer
            else:
                writer.cancel()
                with pytest.raises(Canceled):
                    await writer
                b._obj.over = True
                assert await b.write(b"x") == 1
            assert not b._waits

    run(main)


# -- deadlines of the connection below -------------------------------------------------------------


@pytest.mark.parametrize("when", [0, 0.01])
def test_a_read_deadline_below_ends_the_wait_for_the_pile(run, when):
    """W7, W5."""

    async def main():
        async with flood() as (_, b, _, reading):
            b.net_conn.set_read_deadline(when and time.monotonic() + when)
            with pytest.raises(TimeoutError, match=r"^read unix: i/o timeout"):
                await reading

    run(main)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("both", [False, True])
def test_a_write_deadline_moved_below_sends_what_was_cut(run, both, layers):
    """W7, W3: by itself; nobody writes again. Through a TLS connection between them, too."""

    async def main():
        async with pair() as ends:
            connections = []
            for _ in range(layers):
                ends = await over(*ends)
                connections.append(ends)
            a, b = ends
            writer = go(b.write, BIG)
            await parked(writer)
            below = connections[0][1].net_conn
            below.set_write_deadline(0)
            with pytest.raises(TimeoutError) as caught:
                await writer
            written = caught.value.written
            assert 0 < written < len(BIG)
            reader = go(read_exactly, a, written)
            await parked(reader)
            assert not reader.done
            (below.set_deadline if both else below.set_write_deadline)(None)
            assert await reader == BIG[:written]
            for one, other in reversed(connections):
                one.close()
                other.close()

    run(main)


def test_who_watches_is_told_which_deadlines(run):
    async def main():
        told = []
        async with socket_pair() as (a, _):
            a._watch_deadlines(told.append)
            a.set_deadline(None)
            a.set_read_timeout(5)
            a.set_write_deadline(0)
            assert told == [BOTH, READ, WRITE]

    run(main)
