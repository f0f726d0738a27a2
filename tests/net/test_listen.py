"""Listening: addresses that collide or not, acceptance and its failures, close."""

import errno
import os
import socket

import pytest

from gopoll.errors import ClosedError, OpError, UnknownNetworkError
from gopoll.net import listen as module
from gopoll.net import sock
from gopoll.net.dial import dial
from gopoll.net.listen import ListenConfig, TCPListener, listen
from gopoll.runtime.goroutine import go
from net.tools import (
    needs_ipv4_map,
    needs_ipv6,
    option,
    parked,
    sockets,
)

# -- addresses


@pytest.mark.parametrize(
    ("network", "address", "host"),
    [
        ("tcp", "127.0.0.1:0", "127.0.0.1"),
        ("tcp4", "", "0.0.0.0"),
        ("tcp4", ":0", "0.0.0.0"),
        ("tcp", "localhost:0", "127.0.0.1"),  # IPv4 first
        pytest.param("tcp", ":0", "::", marks=needs_ipv4_map),
        pytest.param("tcp", ("0.0.0.0", 0), "::", marks=needs_ipv4_map),
        pytest.param("tcp", "[::]:0", "::", marks=needs_ipv6),
        pytest.param("tcp6", ":0", "::", marks=needs_ipv6),
        pytest.param("tcp", "[::1]:0", "::1", marks=needs_ipv6),
    ],
)
def test_a_listener_knows_where_it_listens(run, network, address, host):
    """Row 77."""

    async def main():
        async with await listen(network, address) as ln:
            assert isinstance(ln, TCPListener)
            assert ln.network == network
            assert ln.addr[0] == host
            assert ln.addr[1] > 0
            shown = f"[{host}]" if ":" in host else host
            assert repr(ln) == f"<TCPListener {network} {shown}:{ln.addr[1]}>"
        assert repr(ln).endswith(" closed>")

    run(main)


@pytest.mark.parametrize(
    ("network", "address", "text"),
    [
        ("foo", ":0", "listen foo: unknown network foo"),
        ("udp", ":0", "listen udp: address :0: unexpected address type (use listen_packet)"),
        ("unixgram", "/x", "listen unixgram: address /x: unexpected address type (use listen_pac"),
        ("tcp", "127.0.0.1", "listen tcp: address 127.0.0.1: missing port in address"),
        ("tcp", "127.0.0.1:-1", "listen tcp: address -1: invalid port"),
        ("tcp6", "127.0.0.1:0", "listen tcp6: address 127.0.0.1: no suitable address found"),
        ("tcp", "192.0.2.77:0", "listen tcp 192.0.2.77:0: bind: cannot assign requested address"),
        ("tcp", "nowhere.invalid:0", "listen tcp: lookup nowhere.invalid: "),
    ],
)
def test_bad_input_says_what_is_wrong(run, network, address, text):
    """Row 74."""

    async def main():
        before = sockets()
        with pytest.raises(OpError) as caught:
            await listen(network, address)
        assert str(caught.value).startswith(text)
        assert (caught.value.op, caught.value.net) == ("listen", network)
        assert isinstance(caught.value, UnknownNetworkError) == (network == "foo")
        assert sockets() == before

    run(main)


TCP, TCP4, TCP6 = "tcp", "tcp4", "tcp6"


@needs_ipv4_map
@pytest.mark.parametrize(
    ("first", "second", "collide"),
    [
        ((TCP, "127.0.0.1"), (TCP, "127.0.0.1"), True),
        ((TCP, ""), (TCP, ""), True),
        ((TCP, ""), (TCP, "0.0.0.0"), True),
        ((TCP, "0.0.0.0"), (TCP, ""), True),
        ((TCP, ""), (TCP, "::"), True),
        ((TCP, "::"), (TCP, "0.0.0.0"), True),
        ((TCP4, ""), (TCP6, ""), False),
        ((TCP6, ""), (TCP4, ""), False),
        ((TCP4, ""), (TCP, ""), True),
        ((TCP6, ""), (TCP, ""), True),
        ((TCP4, "127.0.0.1"), (TCP6, "::1"), False),
        ((TCP, "127.0.0.1"), (TCP, "::1"), False),
        ((TCP, "127.0.0.1"), (TCP, "127.0.0.2"), False),
    ],
)
def test_a_second_listener_on_the_same_address(run, first, second, collide):
    """Row 76."""

    async def main():
        async with await listen(first[0], (first[1], 0)) as one:
            address = (second[1], one.addr[1])
            if collide:
                with pytest.raises(OpError, match=r": bind: address already in use$") as caught:
                    await listen(second[0], address)
                assert caught.value.errno == errno.EADDRINUSE
                assert caught.value.addr == address
            else:
                await (await listen(second[0], address)).close()

    run(main)


def test_the_address_is_free_once_close_is_awaited(run):
    """Row 78, Go issue 21856: also with a connection that lingers."""

    async def main():
        address = "127.0.0.1:0"
        for _ in range(10):
            async with await listen("tcp", address) as ln:
                address = ln.addr
                client = await dial("tcp", ln.addr)
                peer = await ln.accept()
                g = go(ln.accept)
                await parked(g)
                await peer.close()
                await client.close()
            with pytest.raises(ClosedError):
                await g

    run(main)


def test_the_backlog_is_the_caller_s_or_the_system_s(run, monkeypatch):
    seen = []

    def listen_func(s, backlog):
        seen.append(backlog)
        socket.socket.listen(s, backlog)

    async def main():
        monkeypatch.setattr(sock, "listen_func", listen_func)
        for backlog in (None, 0, 7):
            await (await listen("tcp", "127.0.0.1:0", backlog=backlog)).close()
        assert seen == [sock.max_listener_backlog(), 0, 7]
        with pytest.raises(ValueError, match="backlog must be 0 to 2147483647, not -1"):
            await listen("tcp", "127.0.0.1:0", backlog=-1)

    run(main)


def test_a_failing_listen_call_leaves_no_socket(run, monkeypatch):
    def listen_func(s, backlog):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    async def main():
        before = sockets()
        monkeypatch.setattr(sock, "listen_func", listen_func)
        with pytest.raises(
            OpError, match=r"^listen tcp 127.0.0.1:0: listen: address already in use$"
        ):
            await listen("tcp", "127.0.0.1:0")
        assert sockets() == before

    run(main)


class NotRegistered(TCPListener):
    def init(self, poller, **how):
        raise OpError("open", "tcp", err=errno.ENOSPC)


def test_a_listener_that_cannot_be_registered_is_closed(run, monkeypatch):
    async def main():
        before = sockets()
        monkeypatch.setattr(module, "TCPListener", NotRegistered)
        with pytest.raises(OpError, match=r"^listen tcp 127.0.0.1:0: no space left on device$"):
            await listen("tcp", "127.0.0.1:0")
        assert sockets() == before

    run(main)


# -- sharing a listener or its address


def test_two_listeners_may_share_a_port_if_both_want_it(run):
    async def main():
        async with await listen("tcp", "127.0.0.1:0", reuse_port=True) as one:
            async with await listen("tcp", one.addr, reuse_port=True) as two:
                assert one.addr == two.addr
                assert option(one, socket.SOL_SOCKET, socket.SO_REUSEPORT) == 1
                accepted = set()

                async def serve(name, ln):
                    async for conn in ln:
                        accepted.add(name)
                        conn.close()

                servers = [go(serve, 1, one), go(serve, 2, two)]
                while accepted != {1, 2}:  # the kernel deals by the client's port
                    async with await dial("tcp", one.addr) as conn:
                        assert await conn.read() == b""
                with pytest.raises(OpError, match="address already in use"):
                    await listen("tcp", one.addr)
        for g in servers:
            await g

    run(main)


@pytest.mark.parametrize("switch", ["reuse_port", "exclusive"])
def test_a_switch_is_a_bool(switch):
    with pytest.raises(TypeError, match=f"{switch} must be a bool, not int"):
        ListenConfig(**{switch: 1})


def test_a_config_serves_many_listeners(run):
    async def main():
        config = ListenConfig(keep_alive=-1, backlog=1)
        async with await config.listen("tcp", "127.0.0.1:0") as one:
            async with await config.listen("tcp", "127.0.0.1:0") as two:
                assert one.addr != two.addr

    run(main)
