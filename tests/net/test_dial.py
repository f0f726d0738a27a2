"""Dialling: what goes wrong and how it is said, deadlines, and unlucky local ports."""

import errno
import socket
import time

import pytest

from gopoll.errors import (
    AddrError,
    Canceled,
    DeadlineExceeded,
    DNSError,
    OpError,
    UnknownNetworkError,
    op_error,
)
from gopoll.net import sock
from gopoll.net.conn import TCPConn
from gopoll.net.dial import Dialer, dial, partial_deadline, self_connect, spurious_enotavail
from gopoll.net.listen import listen
from gopoll.runtime.context import background, with_cancel, with_deadline, with_timeout, with_value
from gopoll.runtime.goroutine import go
from gopoll.runtime.scope import deadline, timeout
from net.tools import (
    closed_port,
    full_backlog,
    local_listener,
    needs_ipv4_map,
    needs_ipv6,
    pair,
    parked,
    sockets,
)

# -- what is returned


def test_a_dialled_connection_knows_its_ends(run):
    async def main():
        async with local_listener() as ln, await dial("tcp", ln.addr) as conn:
            async with await ln.accept() as peer:
                assert isinstance(conn, TCPConn)
                assert isinstance(peer, TCPConn)
                assert conn.network == peer.network == "tcp"
                assert conn.remote_addr == peer.local_addr == ln.addr
                assert conn.local_addr == peer.remote_addr
                assert await conn.write(b"ping") == 4
                assert await peer.read() == b"ping"

    run(main)


def test_addresses_may_be_text_or_tuple_or_name(run):
    async def main():
        async with local_listener() as ln:
            port = ln.addr[1]
            for address in (f"127.0.0.1:{port}", ("127.0.0.1", port), ("localhost", port)):
                async with await dial("tcp4", address) as conn, await ln.accept():
                    assert conn.remote_addr == ln.addr
                    assert conn.network == "tcp4"

    run(main)


@needs_ipv4_map
def test_a_tcp4_dial_of_the_ipv6_wildcard_reaches_the_local_host(run):
    """Row 71."""

    async def main():
        async with await listen("tcp", "[::]:0") as ln:
            async with await dial("tcp4", ("::", ln.addr[1])) as conn, await ln.accept() as peer:
                assert conn.remote_addr == peer.local_addr == ("127.0.0.1", ln.addr[1])

    run(main)


def test_an_address_without_a_host_is_this_host(run):
    async def main():
        async with local_listener() as ln:
            async with await dial("tcp", f":{ln.addr[1]}") as conn, await ln.accept():
                assert conn.remote_addr == ln.addr

    run(main)


@pytest.mark.parametrize(
    ("network", "address", "local"),
    [
        ("tcp", "127.0.0.1:0", "127.0.0.2:0"),
        ("tcp4", "127.0.0.1:0", ("127.0.0.1", 0)),
        ("tcp", "127.0.0.1:0", ":0"),
        pytest.param("tcp", "127.0.0.1:0", "[::]:0", marks=needs_ipv4_map),
        pytest.param("tcp6", "[::1]:0", "0.0.0.0:0", marks=needs_ipv6),
        pytest.param("tcp", "[::1]:0", "[::1]:0", marks=needs_ipv6),
    ],
)
def test_a_dial_starts_from_its_local_address(run, network, address, local):
    """Row 62."""

    async def main():
        async with await listen(network, address) as ln:
            conn = await Dialer(local_addr=local).dial(network, ln.addr)
            async with conn, await ln.accept() as peer:
                assert conn.local_addr == peer.remote_addr
                host = local[0] if isinstance(local, tuple) else local.rpartition(":")[0]
                if host.strip("[]") not in ("", "0.0.0.0", "::"):
                    assert conn.local_addr[0] == host.strip("[]")

    run(main)


# -- what goes wrong


@pytest.mark.parametrize(
    ("network", "address", "kind", "text"),
    [
        ("foo", "127.0.0.1:1", UnknownNetworkError, "dial foo: unknown network foo"),
        ("tcp", "", AddrError, "dial tcp: missing address"),
        ("tcp", "127.0.0.1", AddrError, "dial tcp: address 127.0.0.1: missing port in address"),
        ("tcp", "::1:80", AddrError, "dial tcp: address ::1:80: too many colons in address"),
        ("tcp", "127.0.0.1:x!", AddrError, "dial tcp: address x!: unknown port"),
        ("tcp6", "127.0.0.1:1", AddrError, "dial tcp6: address 127.0.0.1: no suitable address"),
        ("tcp", "nowhere.invalid:1", DNSError, "dial tcp: lookup nowhere.invalid: "),
        ("udp", "127.0.0.1", AddrError, "dial udp: address 127.0.0.1: missing port in address"),
        ("unix", "", AddrError, "dial unix: missing address"),
        ("unix", "/no/such", OpError, "dial unix /no/such: connect: no such file or directory"),
    ],
)
def test_bad_input_says_what_is_wrong(run, network, address, kind, text):
    """Row 74."""

    async def main():
        with pytest.raises(kind) as caught:
            await dial(network, address)
        error = caught.value
        assert str(error).startswith(text)
        assert isinstance(error, OpError)
        assert (error.op, error.net) == ("dial", network)
        assert error.source is None

    run(main)


@pytest.mark.parametrize(("address", "kind"), [(7, "int"), (b"x:1", "bytes"), (None, "NoneType")])
def test_an_address_of_the_wrong_type_is_a_type_error(run, address, kind):
    async def main():
        with pytest.raises(TypeError, match=f"address must be 'host:port' .*, not {kind}"):
            await dial("tcp", address)
        with pytest.raises(TypeError, match="network must be a str"):
            await dial(None, "x:1")
        with pytest.raises(TypeError, match="ctx must be a Context, not NoneType"):
            await Dialer().dial_context(None, "tcp", "x:1")

    run(main)


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def test_a_refusal_names_the_address(run, host):
    """Rows 54 and 74."""

    async def main():
        addr = closed_port(host)
        with pytest.raises(ConnectionRefusedError) as caught:
            await dial("tcp", addr)
        error = caught.value
        shown = f"[{host}]" if ":" in host else host
        assert str(error) == f"dial tcp {shown}:{addr[1]}: connect: connection refused"
        assert isinstance(error, OpError)
        assert (error.source, error.addr, error.errno) == (None, addr, errno.ECONNREFUSED)
        assert not error.is_timeout
        assert not error.is_temporary

        with pytest.raises(ConnectionRefusedError) as caught:
            await Dialer(local_addr=(host, 0)).dial("tcp", addr)
        assert str(caught.value).startswith(
            f"dial tcp {shown}:0->{shown}:{addr[1]}: connect: connection"
        )
        assert caught.value.source == (host, 0)

    run(main)


def test_a_local_port_that_is_taken_names_both_ends(run):
    async def main():
        async with local_listener() as ln:
            before = sockets()
            with pytest.raises(OpError, match=r"^dial tcp .*->.*: bind: address already in use$"):
                await Dialer(local_addr=ln.addr).dial("tcp", closed_port())
            assert sockets() == before

    run(main)


# -- deadlines


@pytest.mark.parametrize("seconds", [-5, 0, 1e-9, 1e-4, 0.05])
def test_a_dial_that_nobody_answers_times_out_and_never_early(run, seconds):
    """Row 34; the listener's backlog is full."""

    async def main():
        with full_backlog() as addr:
            before = sockets()
            now = time.monotonic()
            for dialler in (
                Dialer(timeout=seconds),
                Dialer(deadline=now + seconds),
                Dialer(timeout=seconds, deadline=now + 3600),
                Dialer(timeout=3600, deadline=now + seconds),
            ):
                start = time.monotonic()
                with pytest.raises(OpError) as caught:
                    await dialler.dial("tcp", addr)
                error = caught.value
                if dialler.timeout == seconds:
                    assert time.monotonic() >= start + seconds
                assert time.monotonic() >= now + seconds
                assert str(error) == f"dial tcp 127.0.0.1:{addr[1]}: i/o timeout"
                assert isinstance(error, DeadlineExceeded)
                assert isinstance(error, TimeoutError)
                assert error.is_timeout
                assert error.addr == addr
            assert sockets() == before

    run(main)


@pytest.mark.parametrize("seconds", [2**63 / 1e9, 1e300, float("inf"), 2**70])
def test_a_timeout_beyond_the_clock_is_a_long_one(run, seconds):
    """Row 35."""

    async def main():
        async with local_listener() as ln:
            async with await dial("tcp", ln.addr, timeout=seconds), await ln.accept():
                pass
        with pytest.raises(ConnectionRefusedError):
            await Dialer(deadline=seconds, fallback_delay=seconds).dial("tcp", closed_port())

    run(main)


@pytest.mark.parametrize("setting", ["timeout", "deadline", "fallback_delay"])
def test_a_setting_that_is_no_number_is_refused_at_once(setting):
    with pytest.raises(ValueError, match=f"{setting} must not be nan"):
        Dialer(**{setting: float("nan")})
    with pytest.raises(ValueError, match=f"^{setting} must be seconds: {setting} is too large$"):
        Dialer(**{setting: 10**400})


def test_the_earlier_of_context_and_dialer_counts(run):
    async def main():
        with full_backlog() as addr:
            for seconds, limit in ((0.02, 3600), (3600, 0.02)):
                ctx, cancel = with_timeout(background(), seconds)
                with pytest.raises(OpError, match="i/o timeout") as caught:
                    await Dialer(timeout=limit).dial_context(ctx, "tcp", addr)
                assert isinstance(caught.value, DeadlineExceeded)
                cancel()

    run(main)


def test_a_context_without_a_deadline_has_none(run):
    """Row 70, Go issue 35594."""

    async def main():
        async with local_listener() as ln:
            ctx = with_value(background(), "key", 1)
            async with await Dialer().dial_context(ctx, "tcp", ln.addr), await ln.accept():
                pass

    run(main)


def test_a_dial_under_a_done_context_opens_nothing(run, monkeypatch):
    monkeypatch.setattr(sock, "socket_func", None)

    async def main():
        ctx, cancel = with_cancel(background())
        cancel(LookupError("enough"))
        with pytest.raises(OpError, match=r"^dial tcp 127.0.0.1:1: operation was canceled$") as got:
            await Dialer().dial_context(ctx, "tcp", "127.0.0.1:1")
        assert got.value.errno == errno.ECANCELED
        assert isinstance(got.value.__cause__, LookupError)
        assert not isinstance(got.value, TimeoutError)
        ctx, cancel = with_deadline(background(), time.monotonic() - 1)
        with pytest.raises(DeadlineExceeded, match="i/o timeout"):
            await Dialer().dial_context(ctx, "tcp", "127.0.0.1:1")

    run(main)


def test_an_ambient_context_that_is_done_is_never_an_os_error(run, monkeypatch):
    """`except OSError: continue` around a dial must not spin when the block's time is over."""
    monkeypatch.setattr(sock, "socket_func", None)

    async def dial_again_and_again():
        while True:
            try:
                await dial("tcp", "127.0.0.1:1", timeout=7)
            except OSError:
                continue

    async def main():
        for limit in (timeout(0), deadline(time.monotonic() - 1)):
            with pytest.raises(DeadlineExceeded):
                async with limit:
                    await dial_again_and_again()

    run(main)


def test_a_cancelled_goroutine_takes_its_dial_along(run):
    """Row 66."""

    async def main():
        with full_backlog() as addr:
            before = sockets()
            for dialler in (Dialer(), Dialer(timeout=3600)):
                g = go(dialler.dial, "tcp", addr)
                await parked(g, reason="connect")
                g.cancel("enough")
                with pytest.raises(Canceled, match="enough"):
                    await g
                assert sockets() == before

    run(main)


@pytest.mark.parametrize(
    ("left", "addrs", "share"),
    [
        (12, 1, 12),
        (12, 2, 6),
        (12, 3, 4),
        (12, 10, 2),
        (6, 4, 2),
        (1.9, 1, 1.9),
        (1.9, 2, 1.9),
        (float("inf"), 3, float("inf")),
    ],
)
def test_an_address_gets_its_share_of_the_time(left, addrs, share):
    """Row 61."""
    assert partial_deadline(100.0, 100.0 + left, addrs) == pytest.approx(100.0 + share)


@pytest.mark.parametrize("left", [0, -1e-9, -5])
def test_no_time_left_is_a_timeout(left):
    """Row 61."""
    with pytest.raises(DeadlineExceeded):
        partial_deadline(100.0, 100.0 + left, 1)


# -- unlucky local ports


def connect_from(local, times):
    """Return a connect that binds to *local* first, *times* times; and the list of its calls."""
    calls = []

    def connect_func(s, addr):
        calls.append(addr)
        if len(calls) <= times:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            s.bind(local)
        return socket.socket.connect_ex(s, addr)

    return connect_func, calls


def test_a_connection_to_itself_is_tried_again_twice(run, monkeypatch):
    """The kernel picked the dialled port for us: three times in a row, then it is accepted."""

    async def main():
        for unlucky, tries, refused in ((3, 3, False), (1, 2, True)):
            addr = closed_port()
            connect_func, calls = connect_from(addr, unlucky)
            monkeypatch.setattr(sock, "connect_func", connect_func)
            if refused:
                with pytest.raises(ConnectionRefusedError):
                    await dial("tcp", addr)
            else:
                async with await dial("tcp", addr) as conn:
                    assert self_connect(conn)
            assert len(calls) == tries

    run(main)


def test_a_connection_to_itself_from_a_chosen_port_is_what_was_asked_for(run):
    async def main():
        addr = closed_port()
        async with await Dialer(local_addr=addr).dial("tcp", addr) as conn:
            assert conn.local_addr == conn.remote_addr == addr
            await conn.write(b"to myself")
            assert await conn.read() == b"to myself"
            conn.set_linger(0)

    run(main)


def test_a_missing_address_counts_as_a_connection_to_itself(run, monkeypatch):
    calls = []

    def getsockname(fd):
        calls.append(fd)
        raise op_error("getsockname", "tcp", None, None, errno.ENOBUFS)

    async def main():
        async with local_listener() as ln:
            monkeypatch.setattr(sock, "getsockname_func", getsockname)
            async with await dial("tcp", ln.addr) as conn:
                assert conn.local_addr is None
            assert len(calls) == 3
            for _ in range(3):
                await (await ln.accept()).close()

    run(main)


@pytest.mark.parametrize(
    ("failures", "local", "tries"), [(2, None, 3), (3, None, 3), (1, ("127.0.0.1", 1), 1)]
)
def test_a_moment_without_ports_is_tried_again_twice(run, monkeypatch, failures, local, tries):
    """Row 73."""
    calls = []

    def connect_func(s, addr):
        calls.append(addr)
        if len(calls) <= failures:
            return errno.EADDRNOTAVAIL
        return socket.socket.connect_ex(s, addr)

    async def main():
        monkeypatch.setattr(sock, "connect_func", connect_func)
        async with local_listener() as ln:
            dialler = Dialer(local_addr=None if local is None else closed_port())
            if failures < tries:
                async with await dialler.dial("tcp", ln.addr):
                    await (await ln.accept()).close()
            else:
                with pytest.raises(OpError, match="cannot assign requested address"):
                    await dialler.dial("tcp", ln.addr)
        assert len(calls) == tries

    run(main)


def test_a_lack_of_ports_is_recognised_bare_and_wrapped():
    """Row 73."""
    bare = OSError(errno.EADDRNOTAVAIL, "x")
    assert spurious_enotavail(bare)
    assert spurious_enotavail(op_error("dial", "tcp", None, None, bare))
    assert spurious_enotavail(op_error("dial", "tcp", None, None, errno.EADDRNOTAVAIL))
    assert not spurious_enotavail(OSError(errno.EADDRINUSE, "x"))


def test_a_dial_s_settings_serve_many_dials(run):
    async def main():
        async with pair(timeout=3600, local_addr="127.0.0.1:0") as (a, b):
            await a.write(b"x")
            assert await b.read() == b"x"
        async with local_listener() as ln:
            dialler = Dialer(timeout=3600)
            for g in [go(dialler.dial, "tcp", ln.addr) for _ in range(5)]:
                await (await ln.accept()).close()
                await (await g).close()

    run(main)
