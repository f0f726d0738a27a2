"""Connect under a context: deadlines, cancels early and late, and sockets that go away."""

import contextlib
import errno
import functools
import socket
import time

import pytest

from gopoll.errors import Canceled, DeadlineExceeded, OpError, op_error
from gopoll.net import sock
from gopoll.net.conn import TCPConn
from gopoll.net.dial import Dialer, dial
from gopoll.net.sock import Plan, internet_socket
from gopoll.runtime._sched import current_poller
from gopoll.runtime.context import background, current_context, with_cancel, with_deadline
from gopoll.runtime.goroutine import go
from gopoll.runtime.scope import timeout
from net.tools import closed_port, full_backlog, local_listener, parked, sockets


class Recording(TCPConn):
    """A connection that notes the write deadlines it is given."""

    __slots__ = ("deadlines",)

    def __init__(self, fd, net):
        super().__init__(fd, net)
        self.deadlines = []

    def set_write_deadline(self, when):
        self.deadlines.append(when)
        super().set_write_deadline(when)


def connect_to(ctx, addr, make=Recording):
    return internet_socket(ctx, "tcp", None, addr, socket.SOCK_STREAM, 0, "dial", Plan(make))


def test_the_context_s_deadline_is_the_connection_s_only_while_it_dials(run):
    async def main():
        async with local_listener() as ln:
            when = time.monotonic() + 3600
            ctx, cancel = with_deadline(background(), when)
            async with await connect_to(ctx, ln.addr) as conn, await ln.accept():
                assert conn.deadlines == [when, None]
                cancel()  # row 67: too late to matter
                assert await conn.write(b"x") == 1
                assert conn.deadlines == [when, None]

    run(main)


def test_the_ambient_context_needs_no_deadline_on_the_connection(run):
    async def main():
        async with local_listener() as ln, timeout(3600):
            async with await connect_to(current_context(), ln.addr) as conn, await ln.accept():
                assert conn.deadlines == []

    run(main)


def test_a_cancel_that_comes_too_late_for_the_wait_wins_over_the_success(run, monkeypatch):
    """Row 68, Go issue 16523: between SO_ERROR 0 and the return."""
    hooked = []

    async def main():
        ctx, cancel = with_cancel(background())

        async def wait_connect(fd):
            peer = await TCPConn.wait_connect(fd)
            cancel(LookupError("changed my mind"))
            return peer

        monkeypatch.setattr(sock, "wait_connect_func", wait_connect)
        monkeypatch.setattr(sock, "hook_canceled_dial", lambda: hooked.append(1))
        async with local_listener() as ln:
            with pytest.raises(OpError, match="operation was canceled") as caught:
                await Dialer().dial_context(ctx, "tcp", ln.addr)
            assert caught.value.errno == errno.ECANCELED
            assert isinstance(caught.value.__cause__, LookupError)
            async with await ln.accept() as peer:
                assert await peer.read() == b""
        assert hooked == [1]

    run(main)


def test_a_cancel_after_the_dial_does_not_hurt_the_connection(run):
    """Row 67, Go issue 15078."""

    async def main():
        async with local_listener() as ln:
            for _ in range(50):
                ctx, cancel = with_cancel(background())
                async with await Dialer().dial_context(ctx, "tcp", ln.addr) as conn:
                    cancel()
                    async with await ln.accept() as peer:
                        await conn.write(b"x")
                        assert await peer.read() == b"x"

    run(main)


def test_a_cancel_wakes_a_dial_and_leaves_no_socket(run):
    """Row 66."""

    async def main():
        with full_backlog() as addr:
            before = sockets()
            ctx, cancel = with_cancel(background())
            g = go(Dialer().dial_context, ctx, "tcp", addr)
            await parked(g, reason="connect")
            cancel()
            with pytest.raises(OpError, match=r"^dial tcp 127.0.0.1:\d+: operation was canceled$"):
                await g
            assert sockets() == before

    run(main)


def test_an_ambient_cancel_in_the_wait_leaves_no_socket(run):
    async def main():
        with full_backlog() as addr:
            before = sockets()
            g = go(dial, "tcp", addr)
            await parked(g, reason="connect")
            g.cancel("enough")
            with pytest.raises(Canceled, match="enough"):
                await g
            assert sockets() == before
            with pytest.raises(DeadlineExceeded) as caught:
                async with timeout(0.02):
                    await dial("tcp", addr)
            assert not isinstance(caught.value, OpError)  # the block's own, not the dial's
            assert sockets() == before

    run(main)


def test_the_kernel_s_own_timeout_is_not_the_context_s(run, monkeypatch):
    async def main():
        async def wait_connect(fd):
            raise op_error("dial", "tcp", None, None, errno.ETIMEDOUT)

        monkeypatch.setattr(sock, "wait_connect_func", wait_connect)
        with full_backlog() as addr, pytest.raises(OpError, match="connection timed out") as caught:
            await dial("tcp", addr, timeout=3600)
        assert isinstance(caught.value, TimeoutError)
        assert not isinstance(caught.value, DeadlineExceeded)

    run(main)


def test_a_cancel_of_a_connection_that_is_gone_is_nothing(run):
    async def main():
        s = socket.socket()
        conn = TCPConn(s.detach(), "tcp")
        conn.init(current_poller())
        conn.close()
        sock._cancel_connect(conn)

    run(main)


def test_dials_that_race_with_connections_going_away_return_connected_sockets(run):
    """Row 69, Go issues 14548 and 19289: what dial returns has a peer."""

    async def main():
        async with local_listener() as ln:

            async def serve():
                async for conn in ln:
                    conn.close()

            async def dialling(with_deadline):
                for i in range(100):
                    with contextlib.suppress(OpError):
                        limit = 1e-5 * i if with_deadline else None
                        conn = await dial("tcp", ln.addr, timeout=limit)
                        assert conn.remote_addr == ln.addr
                        await conn.close()

            server = go(serve)
            for g in [go(dialling, i % 2) for i in range(8)]:
                await g
            await ln.close()
            await server

    run(main)


def test_a_refused_dial_is_found_by_its_event(run):
    async def main():
        addr = closed_port()
        for call in (functools.partial(dial, timeout=3600), dial):
            with pytest.raises(ConnectionRefusedError):
                await call("tcp", addr)

    run(main)
