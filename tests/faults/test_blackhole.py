"""Addresses that swallow what they are sent, a family that is dead, a peer that vanishes."""

import errno
import queue
import time

import pytest

import gopoll
from gopoll import Canceled, DeadlineExceeded, Dialer, KeepAliveConfig, OpError
from gopoll.runtime.context import background, with_cancel, with_timeout
from gopoll.runtime.debug import stats
from gopoll.runtime.scope import timeout
from helpers.netns import host, ip, two_hosts
from net.certs import certs
from net.tools import BIG, closed_port, needs_ipv6, open_fds, parked, until

NOBODY4, NOBODY6 = "10.77.0.99", "fd77::99"


class Names:
    """A resolver that knows one name."""

    def __init__(self, *hosts):
        self.hosts = hosts

    async def lookup_addr(self, host, port, family=0):
        return [(host, port) for host in self.hosts]


async def undisturbed(dialling):
    """Await *dialling* and see that what it opened is closed and whom it started has ended."""
    alone, before = stats().goroutines, open_fds()
    try:
        return await dialling
    finally:
        await until(lambda: stats().goroutines <= alone)
        assert open_fds() == before


# -- no answer


@pytest.mark.parametrize("nobody", [NOBODY4, pytest.param(NOBODY6, marks=needs_ipv6)])
def test_a_dial_ends_with_its_timeout_and_not_before(run, nobody):
    """Row 34, where the SYN is really lost."""

    async def main():
        start = time.monotonic()
        with pytest.raises(OpError, match=r"^dial tcp .*99\]?:80: i/o timeout$") as caught:
            await undisturbed(gopoll.dial("tcp", (nobody, 80), timeout=0.2))
        assert time.monotonic() >= start + 0.2
        assert isinstance(caught.value, DeadlineExceeded)
        assert caught.value.is_timeout

    with host("10.77.0.1/24", "fd77::1/64") as here:
        here.run(run, main)


def test_a_dial_ends_when_it_is_cancelled_by_goroutine_context_or_block(run):
    """Row 66, where the SYN is really lost."""

    async def main():
        before = open_fds()
        g = gopoll.go(gopoll.dial, "tcp", (NOBODY4, 80))
        await parked(g, reason="connect")
        g.cancel("enough")
        with pytest.raises(Canceled, match="enough"):
            await g

        ctx, cancel = with_cancel(background())
        g = gopoll.go(Dialer().dial_context, ctx, "tcp", (NOBODY4, 80))
        await parked(g)
        cancel(LookupError("no more"))
        with pytest.raises(OpError, match="operation was canceled") as caught:
            await g
        assert caught.value.errno == errno.ECANCELED
        assert isinstance(caught.value.__cause__, LookupError)

        with pytest.raises(DeadlineExceeded) as caught:
            async with timeout(0.05):
                await gopoll.dial("tcp", (NOBODY4, 80))
        assert not isinstance(caught.value, OpError)
        assert open_fds() == before

    with host("10.77.0.1/24") as here:
        here.run(run, main)


def test_many_dials_are_cancelled_at_any_moment(run):
    """Each is cut somewhere between its beginning and the wait for the answer."""

    async def main():
        before, alone = open_fds(), stats().goroutines
        dialler = Dialer(resolver=Names(NOBODY4, NOBODY6), fallback_delay=1e-9)
        for turns in range(12):
            dials = [gopoll.go(dialler.dial, "tcp", ("name", 80)) for _ in range(10)]
            for _ in range(turns):
                await gopoll.gosched()
            for g in dials:
                g.cancel()
            for g in dials:
                with pytest.raises((Canceled, OpError)):
                    await g
        await until(lambda: stats().goroutines == alone)
        assert open_fds() == before

    with host("10.77.0.1/24", "fd77::1/64") as here:
        here.run(run, main)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("unreachable", errno.EHOSTUNREACH),
        ("prohibit", errno.EACCES),
        ("throw", errno.ENETUNREACH),
        ("blackhole", errno.EINVAL),
    ],
)
def test_what_the_routing_table_refuses_is_one_of_our_errors(run, kind, code):
    async def main():
        with pytest.raises(OpError, match=r"^dial tcp 10\.88\.0\.1:80: ") as caught:
            await undisturbed(gopoll.dial("tcp", "10.88.0.1:80"))
        assert caught.value.errno == code
        assert isinstance(caught.value, type(OSError(code, "")))

    with host("10.77.0.1/24") as here:
        here.run(ip, f"route add {kind} 10.88.0.0/24")
        here.run(run, main)


# -- one of several answers


@needs_ipv6
@pytest.mark.parametrize("dead", [NOBODY4, NOBODY6])
def test_the_family_that_works_takes_over_from_the_one_that_is_dead(run, dead):
    """Rows 58-60: after the delay, and with nothing left of the attempt that lost."""
    good = "fd77::1" if dead == NOBODY4 else "10.77.0.1"

    async def main():
        async with await gopoll.listen("tcp", (good, 0)) as listener:
            dialler = Dialer(resolver=Names(dead, good), fallback_delay=0.05)
            alone, before = stats().goroutines, open_fds()
            start = time.monotonic()
            conn = await dialler.dial("tcp", ("name", listener.addr[1]))
            assert time.monotonic() >= start + 0.05
            assert conn.remote_addr[0] == good
            (await listener.accept()).close()
            await conn.close()
            await until(lambda: stats().goroutines <= alone)
            assert open_fds() == before

    with host("10.77.0.1/24", "fd77::1/64") as here:
        here.run(run, main)


@needs_ipv6
def test_the_family_that_works_takes_over_at_once_from_one_without_a_route(run):
    async def main():
        async with await gopoll.listen("tcp", "10.77.0.1:0") as listener:
            dialler = Dialer(resolver=Names("fd88::1", "10.77.0.1"), fallback_delay=3600)
            alone = stats().goroutines
            conn = await dialler.dial("tcp", ("name", listener.addr[1]))
            await until(lambda: stats().goroutines == alone)
            assert conn.remote_addr == listener.addr
            (await listener.accept()).close()
            conn.close()

    with host("10.77.0.1/24", "fd77::1/64") as here:
        here.run(run, main)


def test_with_both_families_dead_the_first_ones_error_is_told(run):
    async def main():
        dialler = Dialer(resolver=Names(NOBODY4, NOBODY6), fallback_delay=0.02, timeout=0.1)
        with pytest.raises(DeadlineExceeded, match=rf"^dial tcp {NOBODY4}:80: i/o timeout$"):
            await undisturbed(dialler.dial("tcp", ("name", 80)))
        dialler = Dialer(resolver=Names("fd88::1", NOBODY4), fallback_delay=3600, timeout=0.1)
        with pytest.raises(OpError, match=r"^dial tcp \[fd88::1\]:80: ") as caught:
            await undisturbed(dialler.dial("tcp", ("name", 80)))
        assert not caught.value.is_timeout

    with host("10.77.0.1/24", "fd77::1/64") as here:
        here.run(run, main)


def test_each_dead_address_costs_no_more_than_its_share_of_the_time(run, monkeypatch):
    """Row 61: two dead ones of three get a third and half of the rest, then the last answers."""
    monkeypatch.setattr("gopoll.net.dial._SANE_MINIMUM", 0.0)  # 2 s each is too long for a test

    async def main():
        async with await gopoll.listen("tcp", "10.77.0.1:0") as listener:
            addrs = (NOBODY4, "10.77.0.98", "10.77.0.1")
            seconds = 0.3
            while True:  # longer until a busy machine has time for the last one
                ctx, cancel = with_timeout(background(), seconds)
                start = time.monotonic()
                try:
                    dialler = Dialer(resolver=Names(*addrs))
                    conn = await dialler.dial_context(ctx, "tcp", ("name", listener.addr[1]))
                    break
                except DeadlineExceeded:
                    seconds *= 2
                finally:
                    cancel()
            assert time.monotonic() - start >= seconds * 2 / 3
            assert conn.remote_addr == listener.addr
            (await listener.accept()).close()
            await conn.close()

    with host("10.77.0.1/24") as here:
        here.run(run, main)


# -- a peer that vanishes


def connected_and_cut(run, client, **server_side):
    """Run client(conn) on a connection whose packets all get lost from its beginning on."""
    bound, over = queue.Queue(), queue.Queue()

    async def server():
        async with await gopoll.listen("tcp", "10.77.0.2:0") as listener:
            bound.put(listener.addr)
            async with await listener.accept() as conn:
                await conn.write(b"hello")
                await gopoll.blocking(over.get)

    with two_hosts(loss=0.0, seed=1) as (here, there, wire):

        async def main():
            async with await gopoll.dial("tcp", bound.get(timeout=60)) as conn:
                assert await conn.read() == b"hello"
                wire.loss = 1.0
                await client(conn)

        serving = there.start(run, server)
        try:
            here.run(run, main)
        finally:
            over.put(None)
        serving.join()


def test_a_connection_into_the_void_keeps_its_deadlines_and_closes(run):
    async def client(conn):
        for _ in range(2):
            conn.set_timeout(0.05)
            reader, writer = gopoll.go(conn.read), gopoll.go(conn.write, BIG)
            for g, op in ((reader, "read"), (writer, "write")):
                with pytest.raises(TimeoutError, match=rf"^{op} tcp .*: i/o timeout$"):
                    await g
        conn.set_deadline(None)
        reader, writer = gopoll.go(conn.read), gopoll.go(conn.write, BIG)
        await parked(reader, writer)
        await conn.close()
        for g in (reader, writer):
            with pytest.raises(gopoll.ClosedError):
                await g

    connected_and_cut(run, client)


def test_a_handshake_into_the_void_ends_with_its_time(run):
    """TLS over a connection that stood and then lost its peer: closed with the attempt."""

    async def client(conn):
        conn.set_timeout(0.05)
        with pytest.raises(TimeoutError, match=r"^handshake tcp .*: i/o timeout$") as caught:
            await gopoll.tls.client(conn, certs().client_context(), server_hostname="localhost")
        assert isinstance(caught.value, OpError)
        assert conn.is_closed

    connected_and_cut(run, client)


def test_keep_alive_notices_a_peer_that_has_vanished(run):
    """The kernel's own ETIMEDOUT, after a second of silence and one probe without an answer."""

    async def client(conn):
        conn.set_keep_alive(KeepAliveConfig(idle=1, interval=1, count=1))
        with pytest.raises(
            TimeoutError, match=r"^read tcp .*: read: connection timed out$"
        ) as caught:
            await conn.read()
        assert isinstance(caught.value, OpError)
        assert caught.value.errno == errno.ETIMEDOUT
        assert caught.value.is_timeout

    connected_and_cut(run, client)


def test_a_port_that_nobody_listens_on_is_refused_although_the_rest_is_a_hole(run):
    async def main():
        with pytest.raises(ConnectionRefusedError):
            await undisturbed(gopoll.dial("tcp", closed_port("10.77.0.1")))

    with host("10.77.0.1/24") as here:
        here.run(run, main)
