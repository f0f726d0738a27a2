"""Sockets: families, options, the control hook, and connect with every way it can end."""

import contextvars
import errno
import os
import socket

import pytest

from gopoll.errors import (
    ClosedError,
    OpError,
)
from gopoll.net import sock
from gopoll.net.conn import TCPConn
from gopoll.net.dial import Dialer, dial
from gopoll.net.listen import listen, listen_packet
from gopoll.net.sock import Plan, ctrl_network, internet_socket
from gopoll.runtime.context import background, with_cancel, with_value
from net.tools import (
    local_listener,
    needs_ipv4_map,
    needs_ipv6,
    option,
    sockets,
)

V4, V6 = socket.AF_INET, socket.AF_INET6
SOL_TCP, SOL_SOCKET = socket.IPPROTO_TCP, socket.SOL_SOCKET


def test_the_network_of_a_control_callback_is_specific():
    assert [ctrl_network("tcp", V4), ctrl_network("tcp", V6)] == ["tcp4", "tcp6"]
    for same in ("tcp4", "tcp6", "unix", "unixpacket"):
        assert ctrl_network(same, V6) == same


# -- options


@pytest.mark.parametrize("address", ["127.0.0.1:0", pytest.param("[::1]:0", marks=needs_ipv6)])
def test_every_descriptor_is_non_blocking_and_not_inherited(run, address):
    async def main():
        async with local_listener(address) as ln:
            async with await dial("tcp", ln.addr) as a, await ln.accept() as b:
                for x in (ln, a, b):
                    assert not os.get_blocking(x.fileno())
                    assert not os.get_inheritable(x.fileno())

    run(main)


def test_only_listeners_reuse_an_address_and_none_shares_a_port(run):
    async def main():
        async with local_listener() as ln, await dial("tcp", ln.addr) as conn:
            assert option(ln, SOL_SOCKET, socket.SO_REUSEADDR) == 1
            assert option(conn, SOL_SOCKET, socket.SO_REUSEADDR) == 0
            assert option(ln, SOL_SOCKET, socket.SO_REUSEPORT) == 0
            await (await ln.accept()).close()

    run(main)


@needs_ipv4_map
def test_ipv6only_is_said_aloud(run):
    """The kernel's default, net.ipv6.bindv6only, must not matter."""

    async def main():
        for network, only in (("tcp", 0), ("tcp6", 1)):
            async with await listen(network, "[::]:0") as ln:
                assert option(ln, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == only

    run(main)


def test_the_backlog_is_the_system_s(monkeypatch, tmp_path):
    """Row 80."""
    file = tmp_path / "somaxconn"
    monkeypatch.setattr(sock, "_SOMAXCONN_FILE", str(file))
    for text, expected in (("196602\n", 196602), ("0\n", 128), ("many", 128), (None, 128)):
        sock.max_listener_backlog.cache_clear()
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_text(text)
        assert sock.max_listener_backlog() == expected
    file.write_text("7")
    assert sock.max_listener_backlog() == 128  # read once
    sock.max_listener_backlog.cache_clear()


# -- the control hook


@pytest.mark.parametrize(
    ("network", "address", "specific"),
    [
        ("tcp", "127.0.0.1:0", "tcp4"),
        ("tcp4", "127.0.0.1:0", "tcp4"),
        pytest.param("tcp", "[::1]:0", "tcp6", marks=needs_ipv6),
        pytest.param("tcp6", "[::1]:0", "tcp6", marks=needs_ipv6),
    ],
)
def test_control_sees_the_fresh_socket_of_either_side(run, network, address, specific):
    """Row 72: before bind and connect, with the specific network; options set there stay."""
    seen = []

    def control(net, addr, raw):
        def on(fd):
            with socket.socket(fileno=os.dup(fd)) as s:
                assert s.getsockname()[1] == 0
                s.setsockopt(SOL_TCP, socket.TCP_NODELAY, 0)
                s.setsockopt(SOL_SOCKET, socket.SO_RCVBUF, 8192)

        raw.control(on)
        seen.append((net, addr, raw))

    async def main():
        async with await listen(network, address, control=control) as ln:
            conn = await Dialer(control=control).dial(network, ln.addr)
            async with conn, await ln.accept():
                for x in (ln, conn):
                    assert option(x, SOL_SOCKET, socket.SO_RCVBUF) == 16384
                    assert not option(x, SOL_TCP, socket.TCP_NODELAY)
            host = ln.addr[0]
            assert [s[:2] for s in seen] == [(specific, (host, 0)), (specific, ln.addr)]
            for _, _, raw in seen:
                with pytest.raises(ClosedError):
                    raw.control(print)

    run(main)


def test_control_sees_the_context_variables_of_who_dials(run):
    """Row 72: Go's ControlContext is given the context; also in a racer of the fallback."""
    name = contextvars.ContextVar("name")
    seen = []

    async def main():
        name.set("mine")
        async with await listen("tcp", ":0", control=lambda *args: seen.append(name.get())) as ln:
            dialler = Dialer(control=lambda *args: seen.append((args[0], name.get())))
            ctx = with_value(background(), "key", "value")
            conn = await dialler.dial_context(ctx, "tcp", ("localhost", ln.addr[1]))
            async with conn:
                await (await ln.accept()).close()

    run(main)
    assert seen[0] == "mine"
    assert {value for _, value in seen[1:]} == {"mine"}


@pytest.mark.parametrize("error", [ValueError("no"), OSError("no"), KeyboardInterrupt()])
def test_a_control_that_raises_leaves_no_socket(run, error):
    def control(*args):
        raise error

    async def main():
        before = sockets()
        for call in (
            Dialer(control=control).dial("tcp", "127.0.0.1:1"),
            listen("tcp", "127.0.0.1:0", control=control),
        ):
            with pytest.raises(type(error), match=r"^$|no"):
                await call
            assert sockets() == before

    run(main)


# -- faults


def test_too_many_open_files_names_the_limit(run, monkeypatch):
    def socket_func(*args):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def main():
        monkeypatch.setattr(sock, "socket_func", socket_func)
        text = r"tcp 127.0.0.1:1: socket: too many open files \(limit \d+; raise RLIMIT_NOFILE\)$"
        with pytest.raises(OpError, match="^dial " + text) as caught:
            await dial("tcp", "127.0.0.1:1")
        assert (caught.value.errno, caught.value.is_temporary) == (errno.EMFILE, True)
        with pytest.raises(OpError, match="^listen " + text):
            await listen("tcp", "127.0.0.1:1")

    run(main)


@pytest.mark.parametrize("code", [errno.EINPROGRESS, errno.EALREADY, errno.EINTR])
def test_a_connect_that_goes_on_by_itself_is_waited_for(run, monkeypatch, code):
    def connect_func(s, addr):
        socket.socket.connect_ex(s, addr)
        return code

    async def main():
        monkeypatch.setattr(sock, "connect_func", connect_func)
        async with local_listener() as ln, await dial("tcp", ln.addr) as conn:
            assert conn.remote_addr == ln.addr
            await (await ln.accept()).close()

    run(main)


@pytest.mark.parametrize("code", [0, errno.EISCONN])
def test_a_connect_that_is_done_at_once_needs_no_wait(run, monkeypatch, code):
    def connect_func(s, addr):
        s.setblocking(True)
        s.connect(addr)
        s.setblocking(False)
        return code

    async def main():
        monkeypatch.setattr(sock, "connect_func", connect_func)
        monkeypatch.setattr(sock, "wait_connect_func", None)
        async with local_listener() as ln:
            async with await dial("tcp", ln.addr) as conn, await ln.accept() as peer:
                assert (conn.local_addr, conn.remote_addr) == (peer.remote_addr, ln.addr)
                await conn.write(b"x")
                assert await peer.read() == b"x"

            ctx, cancel = with_cancel(background())

            def cancelling(s, addr):
                cancel()
                return connect_func(s, addr)

            monkeypatch.setattr(sock, "connect_func", cancelling)
            with pytest.raises(OpError, match="operation was canceled"):
                await Dialer().dial_context(ctx, "tcp", ln.addr)

    run(main)


def test_a_refusal_on_the_spot_closes_the_socket(run, monkeypatch):
    monkeypatch.setattr(sock, "connect_func", lambda s, addr: errno.ENETUNREACH)

    async def main():
        before = sockets()
        with pytest.raises(
            OpError, match=r"^dial tcp 127.0.0.1:1: connect: network is unreachable$"
        ):
            await dial("tcp", "127.0.0.1:1")
        assert sockets() == before

    run(main)


class NoRegistration(TCPConn):
    def init(self, poller, **how):
        raise OpError("open", "tcp", err=errno.ENOSPC)


class NotEvenAnFD(TCPConn):
    def __init__(self, fd, net):
        raise MemoryError


@pytest.mark.parametrize(("make", "error"), [(NoRegistration, OSError), (NotEvenAnFD, MemoryError)])
@pytest.mark.parametrize("mode", ["dial", "listen"])
def test_a_descriptor_that_cannot_be_registered_is_closed(run, make, error, mode):
    async def main():
        async with local_listener() as ln:
            laddr, raddr = (("127.0.0.1", 0), None) if mode == "listen" else (None, ln.addr)
            before = sockets()
            with pytest.raises(error):
                await internet_socket(
                    background(), "tcp", laddr, raddr, socket.SOCK_STREAM, 0, mode, Plan(make)
                )
            assert sockets() == before

    run(main)


def test_nothing_is_opened_outside_of_a_goroutine():
    before = sockets()
    coro = dial("tcp", "127.0.0.1:1")
    with pytest.raises(RuntimeError):
        coro.send(None)
    assert sockets() == before


def test_an_address_that_the_kernel_will_not_tell_is_done_without(run, monkeypatch):
    def unknown(fd):
        raise OpError("getsockname", err=errno.ENOBUFS)

    async def main():
        monkeypatch.setattr(sock, "getsockname_func", unknown)
        async with local_listener() as ln:
            assert ln.addr is None
        assert "?" not in repr(ln)

    run(main)


@needs_ipv6
@pytest.mark.parametrize("network", ["tcp", "udp"])
def test_an_address_of_each_interface_needs_one_said(run, network):
    remedy = r"invalid argument \(it is one of each interface: say which, as in fe80::1%eth0\)$"

    async def main():
        with pytest.raises(OpError, match=rf"^dial {network} \[fe80::1\]:9: connect: {remedy}"):
            await dial(network, "[FE80::1]:9")
        opening = listen if network == "tcp" else listen_packet
        with pytest.raises(OpError, match=rf"^listen {network} \[fe80::1\]:0: bind: {remedy}"):
            await opening(network, ("fe80::1", 0))

    run(main)
