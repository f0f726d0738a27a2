"""UDP: sockets with and without a peer, and who gets what."""

import errno
import os
import socket

import pytest

import gopoll
from gopoll.errors import AddrError, ClosedError, OpError
from gopoll.net.dial import Dialer, dial
from gopoll.net.listen import ListenConfig, listen_packet
from gopoll.net.udp import UDPConn
from gopoll.runtime.goroutine import go
from net.tools import needs_ipv4_map, needs_ipv6, option, parked, sockets

SOL_SOCKET = socket.SOL_SOCKET


@pytest.mark.parametrize(
    ("network", "address", "host"),
    [
        ("udp", "127.0.0.1:0", "127.0.0.1"),
        ("udp4", "", "0.0.0.0"),
        ("udp4", ("", 0), "0.0.0.0"),
        ("udp", "localhost:0", "127.0.0.1"),
        pytest.param("udp", ":0", "::", marks=needs_ipv4_map),
        pytest.param("udp", "0.0.0.0:0", "::", marks=needs_ipv4_map),
        pytest.param("udp6", ":0", "::", marks=needs_ipv6),
        pytest.param("udp", "[::1]:0", "::1", marks=needs_ipv6),
    ],
)
def test_a_packet_socket_knows_where_it_is(run, network, address, host):
    async def main():
        async with await listen_packet(network, address) as conn:
            assert isinstance(conn, UDPConn)
            assert isinstance(conn, gopoll.PacketConn)
            assert conn.network == network
            assert conn.local_addr[0] == host
            assert conn.local_addr[1] > 0
            assert conn.remote_addr is None
            shown = f"[{host}]" if ":" in host else host
            assert repr(conn) == f"<UDPConn {network} {shown}:{conn.local_addr[1]}->>"
            assert not os.get_blocking(conn.fileno())
            assert not os.get_inheritable(conn.fileno())

    run(main)


def test_a_dialled_socket_has_a_peer(run):
    async def main():
        async with await listen_packet("udp", "127.0.0.1:0") as server:
            async with await dial("udp", server.local_addr) as conn:
                assert isinstance(conn, UDPConn)
                assert conn.remote_addr == server.local_addr
                for data in (b"hello", b"", b"there"):
                    assert await conn.write(data) == len(data)
                    assert await server.read() == data  # "" is a datagram, not the end
                await conn.write(b"longer than wanted")
                assert await server.read(6) == b"longer"

    run(main)


@pytest.mark.parametrize(
    ("address", "local", "host"),
    [
        ("127.0.0.1", "127.0.0.2:0", "127.0.0.2"),
        ("127.0.0.1", ("", 0), "127.0.0.1"),
        pytest.param("127.0.0.1", "[::]:0", "127.0.0.1", marks=needs_ipv4_map),
        pytest.param("::1", "[::1]:0", "::1", marks=needs_ipv6),
    ],
)
def test_a_dial_starts_from_its_local_address(run, address, local, host):
    """Row 62."""

    async def main():
        async with await listen_packet("udp", (address, 0)) as server:
            async with await Dialer(local_addr=local).dial("udp", server.local_addr) as conn:
                assert conn.local_addr[0] == host
                await conn.write(b"x")
                assert await server.read() == b"x"

    run(main)


def test_a_dial_has_no_race_and_no_keep_alive(run):
    """Row 64: keep-alive is TCP's."""

    async def main():
        async with await listen_packet("udp", "127.0.0.1:0") as server:
            async with await dial("udp", ("localhost", server.local_addr[1])) as conn:
                for each in (server, conn):
                    assert option(each, SOL_SOCKET, socket.SO_KEEPALIVE) == 0

    run(main)


def test_what_nobody_takes_comes_back_as_an_error(run):
    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind(("127.0.0.1", 0))
            nobody = s.getsockname()
        async with await dial("udp", nobody) as conn:
            await conn.write(b"anybody?")
            with pytest.raises(ConnectionRefusedError, match=r"^read udp .*->.*: connection ref"):
                await conn.read()

    run(main)


def test_writing_needs_a_peer(run):
    async def main():
        async with await listen_packet("udp", "127.0.0.1:0") as conn:
            with pytest.raises(OpError, match=r"^write udp .*: destination address required$") as e:
                await conn.write(b"x")
            assert e.value.errno == errno.EDESTADDRREQ

    run(main)


def test_one_datagram_has_its_limit(run):
    async def main():
        async with await listen_packet("udp", "127.0.0.1:0") as server:
            async with await dial("udp", server.local_addr) as conn:
                with pytest.raises(OpError, match=r"^write udp .*: message too long$") as caught:
                    await conn.write(bytes(65536))
                assert caught.value.written == 0

    run(main)


@pytest.mark.parametrize(
    ("network", "address", "kind", "text"),
    [
        ("udp", "127.0.0.1", AddrError, "address 127.0.0.1: missing port in address"),
        ("udp6", "127.0.0.1:0", AddrError, "address 127.0.0.1: no suitable address found"),
        ("udp", "127.0.0.1:no such", AddrError, "address no such: unknown port"),
    ],
)
def test_bad_input_says_what_is_wrong(run, network, address, kind, text):
    """Row 74."""

    async def main():
        before = sockets()
        for op, call in (("listen", listen_packet), ("dial", dial)):
            with pytest.raises(kind) as caught:
                await call(network, address)
            assert str(caught.value) == f"{op} {network}: {text}"
        with pytest.raises(OpError) as caught:
            await listen_packet("udp", "192.0.2.77:0")
        said = "listen udp 192.0.2.77:0: cannot assign requested address"
        assert str(caught.value) == said
        assert sockets() == before

    run(main)


# -- sharing an address


def test_two_sockets_cannot_have_one_address(run):
    """Without SO_REUSEADDR, which for UDP would let a second one take the datagrams."""

    async def main():
        async with await listen_packet("udp", "127.0.0.1:0") as conn:
            assert option(conn, SOL_SOCKET, socket.SO_REUSEADDR) == 0
            assert option(conn, SOL_SOCKET, socket.SO_REUSEPORT) == 0
            assert option(conn, SOL_SOCKET, socket.SO_BROADCAST) == 1
            with pytest.raises(OpError, match=r"^listen udp 127.0.0.1:\d+: address already in use"):
                await listen_packet("udp", conn.local_addr)

    run(main)


def test_two_sockets_may_share_a_port_if_both_want_it(run):
    async def main():
        config = ListenConfig(reuse_port=True)
        async with await config.listen_packet("udp", "127.0.0.1:0") as one:
            async with await config.listen_packet("udp", one.local_addr) as two:
                assert one.local_addr == two.local_addr
                got = set()

                async def receive(name, conn):
                    while True:
                        await conn.read()
                        got.add(name)

                goroutines = [go(receive, 1, one), go(receive, 2, two)]
                while got != {1, 2}:  # the kernel deals by the sender's port
                    async with await dial("udp", one.local_addr) as conn:
                        await conn.write(b"x")
                    await gopoll.sleep(0.001)
                await parked(*goroutines)
        for g in goroutines:
            with pytest.raises(ClosedError):
                await g

    run(main)


def test_the_address_of_a_group_is_its_port_on_every_address(run):
    async def main():
        async with await listen_packet("udp4", "224.0.0.251:0") as one:
            assert one.local_addr[0] == "0.0.0.0"
            assert option(one, SOL_SOCKET, socket.SO_REUSEADDR) == 1
            async with await listen_packet("udp4", ("224.0.0.251", one.local_addr[1])) as two:
                assert two.local_addr == one.local_addr

    run(main)


@needs_ipv6
def test_the_address_of_an_ipv6_group_is_its_port_on_every_address(run):
    seen = []

    async def main():
        config = ListenConfig(control=lambda *args: seen.append(args[:2]))
        async with await config.listen_packet("udp", "[ff02::fb]:0") as conn:
            assert conn.local_addr[0] == "::"
            assert option(conn, SOL_SOCKET, socket.SO_REUSEADDR) == 1

    run(main)
    assert seen == [("udp6", ("::", 0))]


@pytest.mark.parametrize(
    ("network", "address", "specific"),
    [
        ("udp", "127.0.0.1:0", "udp4"),
        ("udp4", "127.0.0.1:0", "udp4"),
        pytest.param("udp", "[::1]:0", "udp6", marks=needs_ipv6),
    ],
)
def test_control_is_told_the_specific_network(run, network, address, specific):
    """Row 72."""
    seen = []

    def control(net, addr, raw):
        raw.control(lambda fd: seen.append((net, addr)))

    async def main():
        async with await listen_packet(network, address, control=control) as server:
            async with await Dialer(control=control).dial(network, server.local_addr) as conn:
                host = server.local_addr[0]
                assert seen == [(specific, (host, 0)), (specific, conn.remote_addr)]

    run(main)


def test_exclusive_is_for_listeners(run):
    async def main():
        with pytest.raises(ValueError, match="exclusive is for listen"):
            await ListenConfig(exclusive=True).listen_packet("udp", ":0")

    run(main)


# -- closing and deadlines


def test_close_wakes_a_blocked_read(run):
    """Rows 50 and 51."""

    async def main():
        async with await listen_packet("udp", "127.0.0.1:0") as conn:
            g = go(conn.read)
            await parked(g, reason="read")
            await conn.close()
            text = r"^read udp 127.0.0.1:\d+: use of closed network connection$"
            with pytest.raises(ClosedError, match=text):
                await g
            with pytest.raises(ClosedError):
                await conn.read()

    run(main)
