"""Sockets: families, options, the control hook, and connect with every way it can end."""

import errno
import os
import socket

import pytest

from gopoll.errors import (
    AddrError,
    ClosedError,
    OpError,
)
from gopoll.net import sock
from gopoll.net.conn import TCPConn
from gopoll.net.dial import Dialer, dial
from gopoll.net.listen import listen
from gopoll.net.sock import (
    KeepAliveConfig,
    Plan,
    check_keep_alive,
    ctrl_network,
    favorite_addr_family,
    internet_socket,
    to_sockaddr,
)
from gopoll.runtime.context import background, with_cancel
from net.tools import (
    local_listener,
    needs_ipv4_map,
    needs_ipv6,
    option,
    sockets,
)

V4, V6 = socket.AF_INET, socket.AF_INET6
SOL_TCP, SOL_SOCKET = socket.IPPROTO_TCP, socket.SOL_SOCKET

# -- families and addresses


@pytest.mark.parametrize(
    ("network", "laddr", "raddr", "mode", "family", "ipv6only"),
    [
        ("tcp4", None, ("127.0.0.1", 1), "dial", V4, False),
        ("tcp4", ("::", 0), None, "listen", V4, False),
        ("tcp6", None, ("::1", 1), "dial", V6, True),
        ("tcp6", ("", 0), None, "listen", V6, True),
        ("tcp", None, ("127.0.0.1", 1), "dial", V4, False),
        ("tcp", None, ("", 1), "dial", V4, False),
        ("tcp", None, ("::1", 1), "dial", V6, False),
        ("tcp", ("", 0), ("127.0.0.1", 1), "dial", V4, False),
        ("tcp", ("::", 0), ("127.0.0.1", 1), "dial", V6, False),
        ("tcp", ("0.0.0.0", 0), ("::1", 1), "dial", V6, False),
        ("tcp", ("127.0.0.1", 0), None, "listen", V4, False),
        ("tcp", ("::1", 0), None, "listen", V6, False),
    ],
)
def test_the_family_follows_network_and_addresses(network, laddr, raddr, mode, family, ipv6only):
    assert favorite_addr_family(network, laddr, raddr, mode) == (family, ipv6only)


@pytest.mark.parametrize(
    ("ipv4", "mapped", "laddr", "family"),
    [
        (True, True, ("", 0), V6),
        (True, True, ("0.0.0.0", 0), V6),
        (True, True, None, V6),
        (False, False, ("", 0), V6),
        (True, False, ("", 0), V4),
        (True, False, ("::", 0), V6),
        (True, False, None, V4),
    ],
)
def test_a_wildcard_listener_serves_both_families_where_the_system_can(
    monkeypatch, ipv4, mapped, laddr, family
):
    monkeypatch.setattr(sock, "supports_ipv4", lambda: ipv4)
    monkeypatch.setattr(sock, "supports_ipv4_map", lambda: mapped)
    assert favorite_addr_family("tcp", laddr, None, "listen") == (family, False)


def test_an_address_is_put_into_the_form_of_the_family():
    assert to_sockaddr(("", 1), V4) == ("0.0.0.0", 1)
    assert to_sockaddr(("10.0.0.1", 1), V4) == ("10.0.0.1", 1)
    assert to_sockaddr(("", 1), V6)[:2] == ("::", 1)
    assert to_sockaddr(("0.0.0.0", 1), V6)[:2] == ("::", 1)
    assert to_sockaddr(("10.0.0.1", 1), V6)[:2] == ("::ffff:10.0.0.1", 1)
    assert to_sockaddr(("fe80::1", 1, 0, 3), V6) == ("fe80::1", 1, 0, 3)
    with pytest.raises(AddrError, match="address ::1: non-IPv4 address"):
        to_sockaddr(("::1", 1), V4)


def test_the_network_of_a_control_callback_is_specific():
    assert [ctrl_network("tcp", V4), ctrl_network("tcp", V6)] == ["tcp4", "tcp6"]
    for same in ("tcp4", "tcp6", "unix", "unixpacket"):
        assert ctrl_network(same, V6) == same


def test_the_probe_agrees_with_the_socket_module():
    assert sock.supports_ipv6() == socket.has_dualstack_ipv6() or not socket.has_ipv6
    sock._capabilities.cache_clear()
    assert sock.supports_ipv4()
    assert not sock._can_bind(V6, "2001:db8::77", True)


def test_a_sandbox_that_forbids_bind_says_nothing_about_addresses(monkeypatch):
    def forbidden(*args):
        raise PermissionError

    monkeypatch.setattr(socket.socket, "bind", forbidden)
    assert sock._can_bind(V6, "2001:db8::77", True) or not socket.has_ipv6


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


def keep_alive_of(conn):
    return tuple(
        option(conn, level, name)
        for level, name in (
            (SOL_SOCKET, socket.SO_KEEPALIVE),
            (SOL_TCP, socket.TCP_KEEPIDLE),
            (SOL_TCP, socket.TCP_KEEPINTVL),
            (SOL_TCP, socket.TCP_KEEPCNT),
        )
    )


def system_keep_alive():
    with socket.socket() as s:
        names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        return tuple(s.getsockopt(SOL_TCP, name) for name in names)


IDLE, INTERVAL, COUNT = system_keep_alive()


@pytest.mark.parametrize(
    ("keep_alive", "expected"),
    [
        (15.0, (1, 15, 15, 9)),
        (0, (1, 15, 15, 9)),
        (-1, (0, IDLE, INTERVAL, COUNT)),
        (7, (1, 7, 15, 9)),
        (0.2, (1, 1, 15, 9)),
        (1.001, (1, 2, 15, 9)),
        (KeepAliveConfig(), (1, 15, 15, 9)),
        (KeepAliveConfig(enable=False, idle=5), (0, IDLE, INTERVAL, COUNT)),
        (KeepAliveConfig(idle=5, interval=3, count=10), (1, 5, 3, 10)),
        (KeepAliveConfig(idle=-1, interval=-1, count=-1), (1, IDLE, INTERVAL, COUNT)),
        (KeepAliveConfig(idle=-1, interval=3, count=0), (1, IDLE, 3, 9)),
    ],
)
def test_keep_alive_and_no_delay_of_both_ends(run, keep_alive, expected):
    """Rows 64 and 65; accepted connections have the options of their listener."""

    async def main():
        async with local_listener(keep_alive=keep_alive) as ln:
            a = await Dialer(keep_alive=keep_alive).dial("tcp", ln.addr)
            async with a, await ln.accept() as b:
                for conn in (a, b):
                    assert keep_alive_of(conn) == expected
                    assert option(conn, SOL_TCP, socket.TCP_NODELAY)

    run(main)


def test_options_that_the_system_refuses_do_not_matter(run):
    async def main():
        config = KeepAliveConfig(idle=float("inf"), count=1 << 40)
        async with local_listener(keep_alive=config) as ln:
            async with await Dialer(keep_alive=config).dial("tcp", ln.addr) as conn:
                assert option(conn, SOL_TCP, socket.TCP_NODELAY)
            await (await ln.accept()).close()

    run(main)


class Refusing:
    """A socket that refuses every option, or notes them."""

    def __init__(self, refuse):
        self.refuse = refuse
        self.options = []

    def setsockopt(self, *option):
        if self.refuse:
            raise OSError(errno.ENOPROTOOPT, "refused")
        self.options.append(option)


def test_what_a_system_without_an_option_says_is_not_heard():
    sock.tune_tcp(Refusing(True), KeepAliveConfig())
    sock.set_default_sockopts(Refusing(True), V6, socket.SOCK_STREAM, True)
    with pytest.raises(OSError, match="refused"):  # without this one datagrams would fail later
        sock.set_default_sockopts(Refusing(True), V4, socket.SOCK_DGRAM, False)


def test_datagram_sockets_may_broadcast_and_unix_sockets_need_not():
    for family, kind, options in (
        (V4, socket.SOCK_DGRAM, [(SOL_SOCKET, socket.SO_BROADCAST, 1)]),
        (socket.AF_UNIX, socket.SOCK_DGRAM, []),
        (V4, socket.SOCK_STREAM, []),
    ):
        s = Refusing(False)
        sock.set_default_sockopts(s, family, kind, False)
        assert s.options == options


@pytest.mark.parametrize("value", [True, None, "15", float("nan")])
def test_a_keep_alive_that_makes_no_sense_is_refused_at_once(value):
    with pytest.raises(TypeError, match="keep_alive must be seconds or a KeepAliveConfig"):
        check_keep_alive(value)


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        (
            {"enable": 15},
            TypeError,
            "enable must be a bool, not int (seconds go to idle and interval)",
        ),
        ({"idle": "15"}, TypeError, "idle must be seconds, not str"),
        ({"interval": True}, TypeError, "interval must be seconds, not bool"),
        ({"interval": float("nan")}, ValueError, "interval must not be nan"),
        ({"count": 1.5}, TypeError, "count must be an int, not float"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused_when_it_is_made(fields, error, text):
    with pytest.raises(error) as caught:
        KeepAliveConfig(**fields)
    assert str(caught.value) == text


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
        text = r"tcp 127.0.0.1:1: too many open files \(limit \d+; raise RLIMIT_NOFILE\)$"
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
        with pytest.raises(OpError, match=r"^dial tcp 127.0.0.1:1: network is unreachable$"):
            await dial("tcp", "127.0.0.1:1")
        assert sockets() == before

    run(main)


class NoRegistration(TCPConn):
    def init(self, poller):
        raise OpError("open", "tcp", err=errno.ENOSPC)


class NotEvenAnFD(TCPConn):
    def __init__(self, fd, net):
        os.close(fd)
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
