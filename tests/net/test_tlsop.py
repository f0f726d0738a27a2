"""What TLSConn.read() and write() return: operations as those of every other connection.

What they read and write is in test_tlsconn.py, how they are cut in test_tlsconn_race.py.
"""

import array
import gc
import ssl

import pytest

from gopoll.errors import Canceled
from gopoll.net import tlscore
from gopoll.net.bufio import Reader
from gopoll.net.tlsconn import TLSConn
from gopoll.net.tlswait import Waits
from gopoll.runtime.goroutine import go
from helpers.child import run_python
from net.certs import certs
from net.test_tlsconn_over import Below
from net.tlstools import DATA, over, read_exactly, tls_pair
from net.tools import pair, parked
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


class ReadsFirst(ssl.SSLObject):
    """A client whose writes have to read first, as in a renegotiation, so often as `wants` says."""

    wants = 0

    def write(self, data):
        if self.wants:
            self.wants -= 1
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "as in a renegotiation")
        return super().write(data)


def reads_first_pair():
    return tls_pair(client=certs().client_context(sslobject_class=ReadsFirst))


@pytest.mark.parametrize(
    "data",
    [
        bytes(200),
        memoryview(array.array("H", range(100))),
        memoryview(bytes(200)).cast("B", shape=[20, 10]),
        memoryview(b"ab").cast("H", shape=[]),
    ],
    ids=["bytes", "of numbers", "of two dimensions", "of none"],
)
def test_a_write_that_must_read_first_takes_all(run, data):
    async def main():
        async with reads_first_pair() as (a, b):
            a._obj.wants = 1
            op = a.write(data)

            async def write():
                return await op

            writing = go(write)
            await b.write(b"answer")
            size = memoryview(data).nbytes
            assert await writing == op.written == size
            assert await read_exactly(b, size) == bytes(data)
            assert await a.read() == b"answer"

    run(main)


@pytest.mark.parametrize("name", ["_writing", "_write_on", "_encrypt", "_encrypt_reading"])
def test_a_write_that_breaks_off_before_it_reads_lets_the_others_go_on(run, monkeypatch, name):
    """W4: a signal handler may raise anywhere; no reader gives way then for ever."""

    def breaks_off(*args):
        monkeypatch.undo()
        raise LookupError("of a signal handler")

    async def main():
        async with reads_first_pair() as (a, b):
            a._obj.wants = 2
            monkeypatch.setattr(TLSConn, name, breaks_off)
            with pytest.raises(LookupError):
                await a.write(b"never")
            assert not a._wants_read
            reading = go(a.read)
            assert await a.write(b"ping") == 4
            assert await b.read() == b"ping"
            await b.write(b"pong")
            assert await reading == b"pong"

    run(main)


def test_a_write_that_breaks_off_behind_its_encryption_is_sent(run, monkeypatch):
    """W2: what is in _unsent stays there; nothing has been handed down yet."""

    def breaks_off(waits):
        monkeypatch.undo()
        raise LookupError("of a signal handler")

    async def main():
        async with tls_pair() as (a, b):
            waiting = go(wait_in, a, lambda: False)
            await parked(waiting)
            monkeypatch.setattr(Waits, "wake", breaks_off)
            op = a.write(b"one ")
            with pytest.raises(LookupError):
                await op
            assert op.written == 4
            assert await a.write(b"two") == 3
            assert await read_exactly(b, 7) == b"one two"
            await waiting

    run(main)


class Hooked(Below):
    """It calls `hook` in its next read, or write."""

    hook = None

    def called(self):
        hook, self.hook = self.hook, None
        if hook is not None:
            hook()

    def read(self, n=65536):
        self.called()
        return super().read(n)

    async def write(self, data):
        self.called()
        return await super().write(data)


@pytest.mark.parametrize("kind", ["read", "write", "read_line"])
def test_who_is_called_in_an_operation_cannot_end_it(run, kind):
    """As with a coroutine that is already executing. What it is in must not go meanwhile."""
    refused = []

    async def main():
        async with pair() as (x, y):
            below = Hooked(x)
            a, b = await over(below, y)
            make = {
                "read": a.read,
                "write": lambda: a.write(b"x"),
                "read_line": Reader(a).read_line,
            }
            op = make[kind]()

            def hook():
                for end in (op.close, lambda: op.throw(LookupError("of another"))):
                    with pytest.raises(RuntimeError, match="operation that is running") as caught:
                        end()
                    refused.append(str(caught.value))
                gc.collect()

            async def use():
                return await op

            below.hook = hook
            using = go(use)
            await b.write(b"line\n")
            assert await using == (1 if kind == "write" else b"line\n")
            assert refused == [
                f"cannot {what} an operation that is running ({kind})"
                for what in ("close", "throw into")
            ]

    run(main)


def test_who_is_called_by_what_is_thrown_in_cannot_end_it(run):
    """A wrapper below that swallows it and goes on: the operation is still in there."""
    refused = []

    class Wrapping(Below):
        async def read(self, n=65536):
            try:
                return await super().read(n)
            except LookupError:
                with pytest.raises(RuntimeError, match="operation that is running") as caught:
                    op.close()
                refused.append(str(caught.value))
                return await super().read(n)

    async def main():
        nonlocal op
        async with pair() as (x, y):
            a, b = await over(Wrapping(x), y)
            op = a.read()
            steps = op.__await__()
            assert next(steps) is not None
            await b.write(b"bytes")
            with pytest.raises(StopIteration, match="bytes"):
                steps.throw(LookupError("cut"))  # it reads again, and it is there

    op = None
    run(main)
    assert refused == ["cannot close an operation that is running (read)"]


def test_an_operation_that_is_thrown_into_before_it_begins_has_written_nothing(run):
    """At the end of a slice, which it begins with. Its error says so as well."""

    async def main():
        async with tls_pair() as (a, b):
            for n in range(100):
                op = a.write(b"x")
                steps = op.__await__()
                try:
                    next(steps)
                except StopIteration:
                    continue
                with pytest.raises(Canceled) as caught:
                    op.throw(Canceled())
                assert (caught.value.written, op.written) == (0, 0)
                assert await read_exactly(b, n) == n * b"x"
                return
            raise AssertionError("a slice ends after 32 operations")

    run(main, **ONE)


GOES_IN_A_CYCLE = """
    import gc, sys
    import gopoll
    from gopoll.net.bufio import Reader
    from net.tlstools import over

    async def main():
        async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
            a, b = await gopoll.dial("tcp", listener.addr), await listener.accept()
        if sys.argv[1] == "tls":
            a, b = await over(a, b)
        op = Reader(a).read_line() if sys.argv[1] == "line" else a.read()
        steps = op.__await__()
        next(steps)
        cycle = [op]
        cycle.append(cycle)
        a.close()
        b.close()

    gc.disable()
    gopoll.run(main, procs=1)
    if sys.argv[2] == "collected":
        gc.collect()
    print("ok", flush=True)
"""


@pytest.mark.parametrize("when", ["collected", "at the end"])
@pytest.mark.parametrize("kind", ["tls", "tcp", "line"])
def test_an_operation_that_waits_may_go_in_a_cycle(kind, when):
    """The collector clears the connection first: it was a SIGSEGV."""
    done = run_python(GOES_IN_A_CYCLE, kind, when)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
