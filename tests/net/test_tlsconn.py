"""TLSConn as a stream: all data once and in order, two ends told apart, whatever is cut."""

import errno
import os
import ssl
import threading

import pytest

from gopoll.errors import Canceled, ClosedError, OpError, timeout_error
from gopoll.net import tlsconn
from gopoll.net.bufio import Writer
from gopoll.net.tlsconn import TLSConn
from gopoll.runtime.goroutine import go, gosched
from gopoll.runtime.scope import timeout
from net.certs import certs
from net.tlstools import DATA, read_all, read_exactly, tls_pair
from net.tools import BIG, parked
from plugins.guard import wait_until

OLD = ssl.OPENSSL_VERSION_INFO < (3, 2)  # whose records had no layer of their own
GARBAGE = "wrong version number" if OLD else "record layer failure"


async def fill(conn):
    """Write until nothing more goes; return (how much was taken, the error)."""
    conn.set_write_timeout(0.02)
    taken = 0
    while True:
        try:
            taken += await conn.write(DATA[:100_000])
        except TimeoutError as exc:
            return taken + exc.written, exc


# -- data


def test_both_directions_at_once(run):
    """W1: without a GIL OpenSSL would read and write at once."""

    async def main():
        async with tls_pair() as (a, b):
            writers = [go(a.write, DATA * 4), go(b.write, DATA[::-1] * 4)]
            readers = [go(read_exactly, b, len(DATA) * 4), go(read_exactly, a, len(DATA) * 4)]
            assert [await g for g in readers] == [DATA * 4, DATA[::-1] * 4]
            assert [await g for g in writers] == [len(DATA) * 4] * 2

    run(main)


@pytest.mark.parametrize("size", [0, 1, 16384, 16385, 65536, 65537, 200_000])
def test_writes_of_every_size(run, size):
    async def main():
        async with tls_pair() as (a, b):
            assert await a.write(memoryview(DATA)[:size]) == size
            assert await a.writev([DATA[:size], b"", bytearray(b"end")]) == size + 3
            got = await read_exactly(b, 2 * size + 3)
            assert got == DATA[:size] * 2 + b"end"

    run(main)


def test_there_is_no_end_of_the_reading_side_alone(run):
    async def main():
        async with tls_pair() as (a, b):
            text = (
                r"^close tcp .*->.*: operation not supported \(TLS cannot end its reading side "
                r"alone: close\(\) ends both, close_write\(\) the other\)$"
            )
            with pytest.raises(OpError, match=text) as caught:
                a.close_read()
            assert caught.value.errno == errno.EOPNOTSUPP
            await b.write(b"still read")
            assert await a.read() == b"still read"
            a.close()
            with pytest.raises(ClosedError):
                a.close_read()

    run(main)


def test_readinto_fills_what_it_is_given(run):
    async def main():
        async with tls_pair() as (a, b):
            writer = go(a.write, DATA[:100_000])
            got, buffer = b"", bytearray(40_000)
            while len(got) < 100_000:
                n = await b.readinto(buffer)
                got += buffer[:n]
            assert got == DATA[:100_000]
            await writer
            assert await b.readinto(bytearray()) == 0
            with pytest.raises(TypeError, match="needs a writable buffer, not bytes"):
                await b.readinto(b"abc")
            a.close_write()
            assert await b.readinto(memoryview(buffer).cast("I")) == 0

    run(main)


def test_records_that_have_come_are_read_in_one_piece(run):
    async def main():
        async with tls_pair() as (a, b):
            for _ in range(3):
                await a.write(b"x" * 10)
            await a.write(b"y" * 20_000)
            await b._receive()
            got = await b.read(25_000)
            assert len(got) > 30
            rest = 20_030 - len(got)
            assert got + await read_exactly(b, rest) == b"x" * 30 + b"y" * 20_000

    run(main)


def test_what_several_write_is_not_mixed(run):
    """W2: the peer decrypts nothing that comes out of order."""

    async def main():
        async with tls_pair() as (a, b):
            size = 150_000

            async def send(i):
                await a.write(bytes([i]) * size)
                await a.writev([bytes([100 + i]) * 70_000, bytes([100 + i]) * (size - 70_000)])

            senders = [go(send, i) for i in range(6)]
            got = await read_exactly(b, 12 * size)
            for at in range(0, len(got), size):
                assert got[at : at + size] == got[at : at + 1] * size
            for g in senders:
                await g

    run(main)


def test_what_several_read_is_read_once(run):
    async def main():
        async with tls_pair() as (a, b):
            counts = [0] * 256

            async def reader():
                while data := await b.read(1000):
                    for byte in data:
                        counts[byte] += 1

            readers = [go(reader) for _ in range(5)]
            data = bytes(range(256)) * 200
            await a.write(data)
            a.close_write()
            for g in readers:
                await g
            assert counts == [200] * 256

    run(main, procs=1, handoff=False)  # the counters are its own


async def turns_while(coro):
    """Await *coro*; how often another goroutine had a turn meanwhile."""
    turns, done = 0, False

    async def other():
        nonlocal turns
        while not done:
            turns += 1
            await gosched()

    g = go(other)
    await coro
    done = True
    await g
    return turns


def test_reads_of_one_byte_let_the_others_run(run):
    """They never park: it is the lock that keeps the slice's account (A13)."""

    async def read_all(b):
        for _ in range(2999):
            assert await b.read(1) == b"x"

    async def main():
        async with tls_pair() as (a, b):
            await a.write(b"x" * 3000)
            await b.read(1)
            assert await turns_while(read_all(b)) > 20

    run(main, procs=1, handoff=False)


def test_writes_of_nothing_let_the_others_run(run):
    """The same: nothing is sent that could keep it (A13)."""

    async def write_nothing(a):
        for _ in range(3000):
            assert await a.write(b"") == 0

    async def main():
        async with tls_pair() as (a, _):
            assert await turns_while(write_nothing(a)) > 20

    run(main, procs=1, handoff=False)


def test_a_writer_sends_a_head_and_a_body_in_one_record(run):
    async def main():
        async with tls_pair() as (a, b):
            writer = Writer(a, size=100)
            await writer.write(b"head")
            await writer.write(b"body" * 50)
            assert await b.read() == b"head" + b"body" * 50

    run(main)


def test_sendfile_copies(run, tmp_path):
    async def main():
        path = tmp_path / "file"
        path.write_bytes(DATA[:300_000])
        async with tls_pair() as (a, b):
            with open(path, "rb") as file:
                reader = go(read_all, b)
                assert await a.sendfile(file) == 300_000
                assert await a.sendfile(file, 299_990) == 10
                assert await a.sendfile(file.fileno(), 5, 70_000) == 70_000
                file.seek(7)
                assert await a.sendfile(file, None, 3) == 3
                assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 10
            r, w = os.pipe()
            for offset in (0, None):
                with pytest.raises(OpError, match=r"^sendfile tcp .*illegal seek") as caught:
                    await a.sendfile(r, offset)
                assert caught.value.written == 0
            with pytest.raises(ValueError, match="count must not be negative, not -1"):
                await a.sendfile(r, 0, -1)
            os.close(r)
            os.close(w)
            a.close_write()
            data = DATA[:300_000]
            assert await reader == data + data[-10:] + data[5:70_005] + data[7:10]

    run(main)


# -- how it ends


def test_an_end_that_is_announced(run):
    async def main():
        async with tls_pair() as (a, b):
            await a.write(b"last")
            a.close_write()
            a.close_write()
            assert [await b.read(), await b.read(), await b.read()] == [b"last", b"", b""]
            with pytest.raises(BrokenPipeError, match=r"^write tcp .*: broken pipe$") as caught:
                await a.write(b"more")
            assert caught.value.written == 0
            await b.write(b"answer")  # half closed: the other direction goes on
            assert await a.read() == b"answer"
            await b.close()
            assert await a.read() == b""

    run(main)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_had_come_before_close_write_is_not_lost(run, version):
    """OpenSSL takes unread data for an error when it shuts down; here it is decrypted first."""

    async def main():
        client = certs().client_context(maximum_version=version)
        async with tls_pair(client=client) as (a, b):
            assert a.version == version.name.replace("_", ".")
            await b.write(DATA[:50_000])
            assert await a.read(1) == DATA[:1]  # there is more in its record, and more records
            a.close_write()
            b.close_write()
            assert DATA[:1] + await read_all(a, 999) == DATA[:50_000]
            assert await b.read() == b""

    run(main)


def test_close_write_goes_behind_a_write_under_way(run):
    async def main():
        async with tls_pair() as (a, b):
            writer = go(a.write, BIG[: 1 << 24])
            await parked(writer)
            a.close_write()
            assert len(await read_all(b)) == 1 << 24
            assert await writer == 1 << 24

    run(main)


def test_an_end_that_is_not_announced(run):
    async def main():
        for cut in (0, 7):
            async with tls_pair() as (a, b):
                if cut:
                    with a._lock:
                        a._obj.write(b"half a record")
                        record = a._out.read()
                    await a.net_conn.write(record[:-cut])
                a.net_conn.close_write()
                for _ in range(2):
                    with pytest.raises(
                        OpError, match=r"^read tcp .*: unexpected EOF \(no"
                    ) as caught:
                        await b.read()
                    assert isinstance(caught.value, ssl.SSLEOFError)
                    assert not caught.value.is_temporary
                await b.write(b"still")
                assert await a.read() == b"still"

    run(main)


def test_close_announces_the_end(run):
    async def main():
        async with tls_pair() as (a, b):
            await a.write(b"x")
            reader = go(a.read)
            await parked(reader)
            await a.close()
            await a.close()
            assert a.is_closed
            with pytest.raises(ClosedError, match=r"^read tcp .*use of closed network connection"):
                await reader
            for op in (a.read(), a.write(b"x"), a.read(0)):
                with pytest.raises(ClosedError):
                    await op
            with pytest.raises(ClosedError):
                a.close_write()
            with pytest.raises(ClosedError):
                a.set_deadline(None)
            assert await read_all(b) == b"x"

    run(main)


def test_close_right_after_close_write(run):
    async def main():
        async with tls_pair() as (a, b):
            await a.write(b"x")
            a.close_write()
            a.close()
            assert await read_all(b) == b"x"

    run(main)


@pytest.mark.parametrize("shut", [False, True])
def test_close_announces_the_end_behind_what_the_peer_has_not_taken(run, shut):
    async def main():
        async with tls_pair() as (b, a):
            writer = go(a.write, BIG)
            await parked(writer)
            writer.cancel()
            with pytest.raises(Canceled) as cut:
                await writer
            if shut:
                a.close_write()  # a goroutine sends it
            reader = go(a.read)
            await parked(reader)
            closing = a.close()
            assert a.close() is closing
            with pytest.raises(ClosedError, match=r"^read tcp .*use of closed network connection"):
                await reader
            assert a.is_closed
            assert not a.net_conn.is_closed
            got = await read_all(b)
            assert got == BIG[: len(got)]
            assert len(got) >= cut.value.written
            await closing
            assert a.net_conn.is_closed

    run(main)


def test_a_second_close_does_not_overtake_the_first(run):
    """W2: who is woken by the first closes as well, on another P before that has gone on."""

    async def main():
        async with tls_pair() as (b, a):
            writer = go(a.write, BIG)
            await parked(writer)
            writer.cancel()
            with pytest.raises(Canceled) as cut:
                await writer
            closer = threading.Thread(target=a.close)
            moved = a._watcher

            def close_as_well(mode):
                a._watcher = moved
                closer.start()
                closer.join(0.1)  # it is done by then, or waits for the first

            a._watch_deadlines(close_as_well)
            closing = a.close()
            got = await read_all(b)
            assert got == BIG[: len(got)]
            assert len(got) >= cut.value.written
            closer.join()
            await closing

    run(main)


def test_close_gives_up_on_a_peer_that_takes_nothing(run, monkeypatch):
    async def main():
        monkeypatch.setattr(tlsconn, "ANNOUNCE_SECONDS", 0.01)
        async with tls_pair() as (b, a):
            writer = go(a.write, BIG)
            await parked(writer)
            writer.cancel()
            with pytest.raises(Canceled):
                await writer
            await a.close()
            assert a.net_conn.is_closed
            with pytest.raises(ssl.SSLEOFError):
                await read_all(b)

    run(main)


def test_close_wakes_everybody_and_does_not_wait_for_a_write(run):
    async def main():
        # The server's end: what a client has not read yet (session tickets) makes close() a reset.
        async with tls_pair() as (b, a):
            waiting = [go(a.write, BIG)]
            await parked(*waiting)
            waiting += [go(a.write, b"x"), go(a.read), go(a.read)]
            await parked(*waiting)
            a.close()
            for g in waiting:
                with pytest.raises(ClosedError):
                    await g
            with pytest.raises(ssl.SSLEOFError):  # it could not be announced
                await read_all(b)

    run(main)


def test_a_plain_thread_may_close(run):
    async def main():
        for close_first in (False, True):
            async with tls_pair() as (a, b):
                if close_first:
                    thread = threading.Thread(target=a.close)
                else:
                    thread = threading.Thread(target=a.close_write)
                reader = go(read_all, b)
                await parked(reader)
                thread.start()
                assert await reader == b""
                thread.join()

    run(main)


def test_close_write_from_a_thread_while_there_is_no_room(run):
    """Nobody may wait there: a goroutine of the run() is made to do it."""

    async def main():
        async with tls_pair() as (a, b):
            taken, _ = await fill(a)
            a.set_write_deadline(None)
            thread = threading.Thread(target=a.close_write)
            thread.start()
            thread.join()
            assert len(await read_all(b)) == taken

    run(main)


def test_garbage_is_an_error_of_ssl(run):
    async def main():
        async with tls_pair() as (a, b):
            await a.net_conn.write(b"this is no TLS record at all" * 3)
            for _ in range(2):
                with pytest.raises(ssl.SSLError, match=f"^read tcp .*: {GARBAGE}$"):
                    await b.read()
            with pytest.raises(ssl.SSLError, match=f"^write tcp .*: {GARBAGE}$"):
                await b.write(b"x")
            with pytest.raises(ssl.SSLError, match=r"^read tcp .*alert"):  # what b has sent
                await a.read()

    run(main)


def test_a_reset_is_one(run):
    async def main():
        async with tls_pair() as (a, b):
            a.net_conn.set_linger(0)
            a.net_conn.close()
            with pytest.raises(ConnectionResetError, match=r"^read tcp"):
                await b.read()

    run(main)


def test_a_reset_in_the_middle_of_a_write(run):
    async def main():
        async with tls_pair() as (a, b):
            writer = go(a.write, BIG)
            await parked(writer)
            b.net_conn.set_linger(0)
            b.net_conn.close()
            with pytest.raises(ConnectionError, match=r"^write tcp") as caught:
                await writer
            assert 0 < caught.value.written < len(BIG)
            with pytest.raises(ConnectionError) as caught:
                await a.write(b"x")
            assert caught.value.written == 0

    run(main)


# -- cuts


def test_a_write_that_a_deadline_cuts_leaves_the_stream_whole(run):
    """W2: what has not been taken goes in front of what follows."""

    async def main():
        async with tls_pair() as (a, b):
            taken, late = await fill(a)
            assert str(late).endswith("i/o timeout")
            with pytest.raises(TimeoutError) as again:  # and is not made longer by trying
                await a.write(b"x")
            assert again.value.written == 0
            a.set_write_deadline(None)
            reader = go(read_all, b)
            assert await a.write(b"end") == 3
            a.close_write()
            got = await reader
            assert len(got) == taken + 3
            assert got.endswith(b"end")

    run(main)


@pytest.mark.parametrize("cut", ["deadline", "cancel"])
def test_what_a_cut_write_has_taken_is_sent_by_itself(run, cut):
    async def main():
        async with tls_pair() as (a, b):
            if cut == "deadline":
                taken, _ = await fill(a)
                await wait_until(lambda: is_free(a._wlock))  # it has been tried, and is too late
                a.set_write_deadline(None)
            else:
                writer = go(a.write, BIG)
                await parked(writer)
                writer.cancel()
                with pytest.raises(Canceled) as caught:
                    await writer
                taken = caught.value.written
                assert 0 < taken < len(BIG)
            # Nobody writes any more, and all that was taken arrives.
            await read_exactly(b, taken)
            g = go(b.read)
            await parked(g)
            await b.write(b"x")
            assert await a.read() == b"x"
            assert not g.done
            a.close_write()
            assert await g == b""

    run(main)


def is_free(mutex):
    """Report whether nobody holds *mutex*."""
    free = mutex.try_lock()
    if free:
        mutex.unlock()
    return free


def test_a_deadline_that_moves_while_it_is_tried_is_not_missed(run, monkeypatch):
    """W3: who moves it finds the lock held, and whoever holds it looks again."""
    real, tries = TLSConn._flush, []

    async def flush(conn):
        tries.append(conn)
        if len(tries) == 1:
            conn.set_write_deadline(None)
            raise timeout_error("write", "tcp", None, None)
        await real(conn)

    async def main():
        async with tls_pair() as (a, b):
            with a._lock:
                a._obj.write(b"left behind")
            await a._wlock.lock()
            monkeypatch.setattr(TLSConn, "_flush", flush)
            a._start_sending()
            assert await b.read() == b"left behind"
            assert len(tries) == 2

    run(main)


def test_a_lock_that_is_given_on_unused_is_looked_after(run):
    """W3: handed to a writer that has been cancelled by then, while close_write waited for it."""

    async def main():
        async with tls_pair() as (a, b):
            await a._wlock.lock()
            writer = go(a.write, b"never")
            await parked(writer)
            a.close_write()
            a._wlock.unlock()  # to the writer
            writer.cancel()
            with pytest.raises((Canceled, BrokenPipeError)):
                await writer
            assert await b.read() == b""

    run(main, procs=1, handoff=False)


def test_a_waiting_write_that_is_cancelled_has_taken_nothing(run):
    async def main():
        async with tls_pair() as (a, b):
            first = go(a.write, BIG[: 1 << 24])
            await parked(first)
            second, third = go(a.write, b"no"), go(a.write, b"yes")
            await parked(second, third)
            second.cancel()
            with pytest.raises(Canceled) as caught:
                await second
            assert caught.value.written == 0
            got = await read_exactly(b, (1 << 24) + 3)
            assert got.endswith(b"\0yes")
            assert [await first, await third] == [1 << 24, 3]

    run(main)


def test_a_read_that_is_cut_loses_nothing(run):
    async def main():
        async with tls_pair() as (a, b):
            with pytest.raises(TimeoutError):
                async with timeout(0.01):
                    await b.read()
            with a._lock:
                a._obj.write(b"one record")
                record = a._out.read()
            await a.net_conn.write(record[:9])
            b.set_read_timeout(0.01)
            with pytest.raises(TimeoutError):
                await b.read()
            await a.net_conn.write(record[9:])
            b.set_read_deadline(None)
            assert await b.read() == b"one record"

    run(main)


def test_a_stalled_write_does_not_stop_reads(run):
    async def main():
        async with tls_pair() as (a, b):
            writers = [go(a.write, BIG), go(b.write, BIG)]
            await parked(*writers)  # neither end reads: both have stalled
            readers = [go(read_exactly, a, len(BIG)), go(read_exactly, b, len(BIG))]
            for g in readers:
                assert len(await g) == len(BIG)
            for g in writers:
                assert await g == len(BIG)

    run(main)
