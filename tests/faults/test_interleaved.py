"""Goroutines that read, write, move deadlines, cancel and close on both ends of one connection.

Hypothesis draws what each of them does, one thing after another. Whatever that is: every operation
ends, with a result or an error of ours; what one end has read is a prefix of what the other end has
written; nothing is left behind.
"""

import errno
import functools
import itertools
import random
import ssl
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gopoll
from gopoll import Canceled, ClosedError, DeadlineExceeded, OpError
from gopoll.runtime.scope import timeout
from net.tlstools import tls_pair
from net.tools import open_fds, pair, socket_pair, unix_pair
from plugins.guard import wait_until

NOISE = random.Random(17).randbytes(1 << 20)
ENDS = {"tcp": pair, "unix": unix_pair, "socketpair": socket_pair, "tls": tls_pair}
EXPECTED_ERRNOS = {errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN}
MOMENTS = st.sampled_from([-1.0, 0.0, 0.001, 0.003, None])  # seconds from now

action = st.one_of(
    st.tuples(st.just("read"), st.sampled_from([0, 1, 100, 5000, 1 << 20])),
    st.tuples(st.just("readinto"), st.sampled_from([1, 100, 70_000])),
    st.tuples(st.sampled_from(["write", "writev"]), st.sampled_from([0, 1, 100, 5000, 300_000])),
    st.tuples(st.just("read_within"), st.sampled_from([0.0, 0.001, 0.003])),
    st.tuples(st.just("write_within"), st.sampled_from([0.0, 0.001, 0.003])),
    st.tuples(st.sampled_from(["set_timeout", "set_read_timeout", "set_write_timeout"]), MOMENTS),
    st.tuples(st.just("pause"), st.integers(1, 4)),
    st.tuples(st.just("cancel"), st.integers(0, 7)),
    st.tuples(st.sampled_from(["close", "reset", "close_read", "close_write"]), st.none()),
)
scripts = st.lists(
    st.tuples(st.integers(0, 1), st.lists(action, min_size=1, max_size=8)), min_size=2, max_size=8
)


def below(conn):
    """Return the connection with the socket."""
    return getattr(conn, "net_conn", conn)


class End:
    """One end of the connection, and what has happened there."""

    def __init__(self, conn, payload):
        self.conn = conn
        self.payload = payload
        self.writes = 0
        self.wrote = []  # (payload, bytes of it that left), in the order of the ends of the writes
        self.got = []  # what was read, likewise

    async def write(self, size):
        await self.send(size, self.conn.write)

    async def writev(self, size):
        await self.send(size, lambda data: self.conn.writev([data[: size // 3], data[size // 3 :]]))

    async def send(self, size, call):
        data = self.payload(self.writes, size)
        self.writes += 1
        try:
            written = await call(data)
            assert written == len(data)
        except (OpError, DeadlineExceeded, Canceled) as exc:
            written = exc.written
            assert 0 <= written <= size
            raise
        finally:
            self.wrote.append((data, written))

    async def read(self, size):
        data = await self.conn.read(size)
        assert len(data) <= size
        self.got.append(data)

    async def readinto(self, size):
        buffer = bytearray(size)
        n = await self.conn.readinto(buffer)
        self.got.append(bytes(buffer[:n]))

    async def do(self, what, how, goroutines):
        """Do one thing."""
        match what:
            case "read" | "readinto" | "write" | "writev":
                await getattr(self, what)(how)
            case "read_within":
                async with timeout(how):
                    await self.read(4096)
            case "write_within":
                async with timeout(how):
                    await self.write(300_000)
            case "pause":
                for _ in range(how):
                    await gopoll.gosched()
            case "cancel":
                goroutines[how % len(goroutines)].cancel()
            case "reset":
                if self.conn.network == "tcp":
                    below(self.conn).set_linger(0)
                self.conn.close()
            case "close_read" if below(self.conn) is not self.conn:
                pass  # TLS has no sides that could be closed
            case "close" | "close_read" | "close_write":
                getattr(self.conn, what)()
            case _:
                getattr(self.conn, what)(how)

    async def follow(self, script, goroutines, begin):
        """Do one thing after another; only a cancellation ends that."""
        await begin.wait()
        for what, how in script:
            try:
                await self.do(what, how, goroutines)
            except (OpError, DeadlineExceeded) as exc:
                is_expected = isinstance(exc, (TimeoutError, ClosedError, ssl.SSLEOFError))
                if not is_expected and exc.errno not in EXPECTED_ERRNOS:
                    raise


async def play(kind, script, payload):
    """Let the goroutines do what they have to; close once they are stuck. Return both ends."""
    before = open_fds()
    async with ENDS[kind]() as conns:
        for conn in map(below, conns):
            conn.set_write_buffer(1)  # the least there is
            conn.set_read_buffer(1)
        ends = [End(conn, payload) for conn in conns]
        begin = gopoll.WaitGroup()
        begin.add(1)
        goroutines = []
        for i, todo in script:
            goroutines.append(gopoll.go(ends[i].follow, todo, goroutines, begin))
        begin.done()
        closes = []
        for conn in conns:
            await wait_until(lambda: all(g.state in ("waiting", "dead") for g in goroutines))
            closes.append(conn.close())  # over TLS it may wait for the other end's
        for closed in closes:
            await closed
        for g in goroutines:
            try:
                await g
            except Canceled:
                assert any(what == "cancel" for _, todo in script for what, _ in todo)
    assert open_fds() == before
    return ends


def noise(k, size):
    """Return *size* bytes that the *k*-th write of an end may be known by, also in parts."""
    return NOISE[k * 1009 : k * 1009 + size]


def number(k, size):
    return bytes([k]) * size


def relaxed(examples):
    return settings(
        max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )


@pytest.mark.parametrize("kind", ENDS)
def test_what_arrives_is_a_prefix_of_what_was_sent(run, kind):
    """On one P, where who ends an operation first is also the first to say so."""

    @relaxed(200)
    @given(scripts)
    def play_one(script):
        ends = run(functools.partial(play, kind, script, noise), procs=1, handoff=False)
        for here, there in (ends, ends[::-1]):
            sent = b"".join(data[:written] for data, written in here.wrote)
            assert sent.startswith(b"".join(there.got))

    play_one()


@pytest.mark.parametrize(("kind", "procs"), [("tcp", 2), ("tcp", 4), ("unix", 2), ("tls", 2)])
def test_what_arrives_was_sent_and_sent_once_on_many_ps(run, kind, procs):
    @relaxed(100)
    @given(scripts)
    def play_one(script):
        ends = run(functools.partial(play, kind, script, number), procs=procs)
        for here, there in (ends, ends[::-1]):
            sent, got = Counter(), Counter()
            for data, written in here.wrote:
                sent.update(data[:written])
            for data in there.got:
                got.update(data)
            assert got <= sent

    play_one()


# -- the order of writes ---------------------------------------------------------------------------

# What each of several goroutines writes: how much, and for how long (None: to the end).
writers = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 100, 5000, 200_000]), st.sampled_from([None, 0.0, 0.0005, 0.003])
        ),
        min_size=1,
        max_size=6,
    ),
    min_size=2,
    max_size=6,
)
LAST = 255  # what the last write is made of


async def write_all(conn, todo, wrote, begin):
    """Write one after the other: the k-th write of all is of bytes that are k."""
    await begin.wait()
    for k, (size, within) in todo:
        try:
            async with timeout(within):
                wrote[k] = await conn.write(bytes([k]) * size)
        except DeadlineExceeded as exc:
            # 0.0: it is over before the write begins, so that there is none to tell.
            wrote[k] = exc.written or 0


async def read_last(conn):
    """Read up to the last write; return (what it is made of, how much) of each, as they came."""
    got = bytearray()
    while not got.endswith(bytes([LAST])):
        data = await conn.read(70_000)
        assert data
        got += data
    return [(k, len(list(run))) for k, run in itertools.groupby(got)]


async def write_and_read(kind, script):
    """Let the goroutines write and one read; return what was written, and what came."""
    numbers = itertools.count()
    scripts = [[(next(numbers), what) for what in todo] for todo in script]
    wrote = {}
    async with ENDS[kind]() as (a, b):
        below(a).set_write_buffer(30_000)  # not the least: TCP waits for acknowledgements then
        begin = gopoll.WaitGroup()
        begin.add(1)
        goroutines = [gopoll.go(write_all, a, todo, wrote, begin) for todo in scripts]
        reader = gopoll.go(read_last, b)
        begin.done()
        for g in goroutines:
            await g
        await a.write(bytes([LAST]))  # and with it, over TLS, what the others have left
        return scripts, wrote, await reader


@pytest.mark.parametrize("kind", ["tcp", "unix", "tls"])
@pytest.mark.parametrize("procs", [1, 4])
def test_writes_do_not_mix_and_those_of_one_goroutine_keep_their_order(run, kind, procs):
    """Whole, or cut where .written says; those of several goroutines in any order."""

    @relaxed(60)
    @given(writers)
    def play_one(script):
        scripts, wrote, came = run(write_and_read, kind, script, procs=procs)
        assert came.pop() == (LAST, 1)
        assert dict(came) == {k: n for k, n in wrote.items() if n}
        assert len(dict(came)) == len(came)  # each in one piece
        order = {k: i for i, (k, _) in enumerate(came)}
        for todo in scripts:
            places = [order[k] for k, _ in todo if k in order]
            assert places == sorted(places)

    play_one()
