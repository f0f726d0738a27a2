"""Listeners: acceptance and its failures, deadlines, close."""

import errno
import os
import pydoc
import resource
import socket

import pytest

from gopoll.errors import ClosedError, OpError
from gopoll.net.conn import INTERNAL
from gopoll.net.dial import dial
from gopoll.net.ipsock import supports_ipv6
from gopoll.net.listen import listen
from gopoll.runtime.goroutine import go
from gopoll.runtime.scope import timeout
from net.tools import (
    local_listener,
    needs_ipv4_map,
    needs_ipv6,
    parked,
    reset,
)

# -- accept


def test_an_accepted_connection_of_a_dual_stack_listener_shows_ipv4(run):
    """Row 82: wildcard listeners and either family."""

    async def main():
        async with await listen("tcp", ":0") as ln:
            port = ln.addr[1]
            for host in ("127.0.0.1", "::1") if supports_ipv6() else ("127.0.0.1",):
                async with await dial("tcp", (host, port)) as conn, await ln.accept() as peer:
                    assert peer.local_addr == (host, port)
                    assert peer.remote_addr == conn.local_addr
                    assert peer.network == "tcp"

    run(main)


@pytest.mark.parametrize(
    ("network", "address"),
    [
        ("tcp", "127.0.0.1:0"),
        ("tcp4", ":0"),
        pytest.param("tcp", ":0", marks=needs_ipv4_map),
        pytest.param("tcp6", ":0", marks=needs_ipv6),
        pytest.param("tcp", "[::1]:0", marks=needs_ipv6),
    ],
)
def test_three_servers_share_a_listener(run, network, address):
    """Rows 81 and 82."""

    async def main():
        served = []

        async def serve(name):
            async for conn in ln:
                async with conn:
                    served.append(name)
                    await conn.write(await conn.read())

        async def ask(text):
            host, port = ln.addr
            async with await dial(network, (host, port)) as conn:
                await conn.write(text)
                assert await conn.read() == text
                assert await conn.read() == b""

        async with await listen(network, address) as ln:
            servers = [go(serve, i) for i in range(3)]
            for g in [go(ask, b"%d" % i) for i in range(30)]:
                await g
        for g in servers:
            await g
        assert len(served) == 30

    run(main)


def test_ten_goroutines_may_accept_at_once(run):
    """Row 81."""

    async def main():
        async with local_listener() as ln:
            acceptors = [go(ln.accept) for _ in range(10)]
            await parked(*acceptors)
            clients = [await dial("tcp", ln.addr) for _ in acceptors]
            peers = [await g for g in acceptors]
            assert {p.remote_addr for p in peers} == {c.local_addr for c in clients}
            for conn in clients + peers:
                conn.close()

    run(main)


def test_a_connection_that_was_reset_in_the_queue_is_accepted_and_fails_to_read(run):
    """Row 55: Linux hands it out; ECONNABORTED is retried inside accept."""

    async def main():
        async with local_listener() as ln:
            reset(socket.create_connection(ln.addr))
            async with await ln.accept() as conn:
                with pytest.raises(ConnectionResetError):
                    await conn.read()

    run(main)


def test_too_many_open_files_does_not_end_the_listener(run):
    """Row 56: an OpError with the remedy; the connection stays in the queue."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main():
        async with local_listener() as ln, await dial("tcp", ln.addr) as client:
            lowest = os.dup(0)
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
            try:
                with pytest.raises(OpError) as caught:
                    await ln.accept()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert str(caught.value) == (
                f"accept tcp 127.0.0.1:{ln.addr[1]}: accept4: too many open files "
                f"(limit {lowest}; raise RLIMIT_NOFILE)"
            )
            assert caught.value.errno == errno.EMFILE
            assert caught.value.is_temporary
            async with await ln.accept() as peer:
                assert peer.remote_addr == client.local_addr

    run(main)


# -- deadlines


def test_a_past_deadline_fails_an_accept_although_a_connection_waits(run):
    """Row 36."""

    async def main():
        async with local_listener() as ln, await dial("tcp", ln.addr):
            ln.set_deadline(0)
            for _ in range(2):
                with pytest.raises(TimeoutError, match=r"^accept tcp 127\..*: i/o timeout$"):
                    await ln.accept()
            ln.set_deadline(None)
            await (await ln.accept()).close()
            ln.set_timeout(0.01)
            with pytest.raises(TimeoutError) as caught:
                await ln.accept()
            assert isinstance(caught.value, OpError)
            assert caught.value.is_timeout

    run(main)


def test_a_deadline_moves_a_waiting_accept(run):
    """Row 37: none, then one that fires; a past one lifted again waits until close."""

    async def main():
        async with local_listener() as ln:
            g = go(ln.accept)
            await parked(g)
            ln.set_timeout(0.01)
            with pytest.raises(TimeoutError):
                await g
            ln.set_deadline(0)
            ln.set_deadline(None)
            g = go(ln.accept)
            await parked(g)
            ln.close()
            with pytest.raises(ClosedError) as caught:
                await g
            assert not caught.value.is_timeout

    run(main)


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("end", ["deadline", "close"])
def test_an_accept_that_fails_has_the_listener_for_its_address(run, end, waits):
    """Go: OpError.Source is nil, Addr the listener's."""

    async def main():
        async with local_listener() as ln:
            accepting = ln.accept()
            if waits:
                accepting = go(accepting)
                await parked(accepting)
            if end == "close":
                ln.close()
            else:
                ln.set_deadline(0)
            with pytest.raises(OpError) as caught:
                await accepting
            assert (caught.value.source, caught.value.addr) == (None, ln.addr)
            assert isinstance(caught.value, ClosedError if end == "close" else TimeoutError)

    run(main)


def test_an_accept_under_a_timeout_leaves_the_listener_as_it_was(run):
    async def main():
        async with local_listener() as ln:
            with pytest.raises(TimeoutError):
                async with timeout(0.01):
                    await ln.accept()
            async with await dial("tcp", ln.addr), await ln.accept():
                pass

    run(main)


# -- close


def test_close_wakes_every_acceptor_and_ends_the_iteration(run):
    """Rows 50 and 79."""

    async def main():
        async def count():
            return [conn async for conn in ln]

        async with local_listener() as ln:
            waiting = [go(ln.accept) for _ in range(4)]
            loop = go(count)
            await parked(loop, *waiting)
        for g in waiting:
            with pytest.raises(
                ClosedError, match=r"^accept tcp 127\..*: use of closed network connection$"
            ):
                await g
        assert await loop == []
        assert ln.is_closed

    run(main)


def test_after_close_nothing_is_accepted_although_connections_wait(run):
    """Row 79."""

    async def main():
        async with local_listener() as ln:
            clients = [socket.create_connection(ln.addr) for _ in range(3)]
        with pytest.raises(ClosedError):
            await ln.accept()
        with pytest.raises(ClosedError):
            ln.set_deadline(None)
        for client in clients:
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            client.close()

    run(main)


def test_closing_twice_is_closing_once(run):
    """Row 52."""

    async def main():
        async with local_listener() as ln:
            g = go(ln.accept)
            await parked(g)
            first, second = ln.close(), ln.close()
            with pytest.raises(ClosedError):
                await g
            await second
            await first
            assert ln.fileno() == -1
            await ln.close()

    run(main)


# -- what it has not


@pytest.mark.parametrize("name", ["read", "readinto", "write", "close_read", "close_write"])
def test_a_listener_has_nothing_of_a_connection(run, name):
    """close_read() would end the accepting without closing anything."""

    async def main():
        async with local_listener() as listener:
            text = f"^TCPListener has no '{name}': a listener accepts connections$"
            with pytest.raises(AttributeError, match=text):
                getattr(listener, name)
            assert not hasattr(type(listener), name)
            async with await dial("tcp", listener.addr), await listener.accept():
                pass

    run(main)


def test_dir_shows_what_a_program_may_use(run):
    async def main():
        async with local_listener() as listener, await dial("tcp", listener.addr) as conn:
            shown = {"accept", "addr", "close", "detach", "file", "network", "set_deadline"}
            assert shown <= set(dir(listener))
            assert {"read", "readinto", "write", "close_write", "writev"} <= set(dir(conn))
            assert INTERNAL.isdisjoint({*dir(listener), *dir(conn)})
            assert all(hasattr(conn, name) for name in INTERNAL)
            assert [name for name in dir(listener) if not hasattr(listener, name)] == []
            (await listener.accept()).close()
        assert "accept" in pydoc.render_doc(type(listener))  # nor does help() stumble

    run(main)
