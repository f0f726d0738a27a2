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
            assert repr(conn) == f"<UDPConn {network} {shown}:{conn.local_addr[1]}>"
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
                with pytest.raises(
                    OpError, match=r"^write udp .*: (write|sendto): message too long$"
                ) as caught:
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
        said = "listen udp 192.0.2.77:0: bind: cannot assign requested address"
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
            with pytest.raises(
                OpError, match=r"^listen udp 127.0.0.1:\d+: bind: address already in use"
            ):
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


# -- datagrams and addresses


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def test_datagrams_go_to_whom_they_are_for(run, host):
    """Row 82."""

    async def main():
        async with await listen_packet("udp", (host, 0)) as a:
            async with await listen_packet("udp", (host, 0)) as b:
                shown = f"[{host}]" if ":" in host else host
                port = b.local_addr[1]
                for addr in ((host, port), f"{shown}:{port}"):
                    assert await a.write_to(b"ping", addr) == 4
                    assert await b.read_from() == (b"ping", a.local_addr)
                    assert await b.write_to(b"pong", a.local_addr) == 4
                    buffer = bytearray(8)
                    assert await a.readinto_from(buffer) == (4, b.local_addr)
                    assert buffer[:5] == b"pong\0"

    run(main)


@needs_ipv4_map
def test_a_dual_stack_socket_talks_to_both_families_and_shows_ipv4(run):
    """Row 82: wildcards."""

    async def main():
        async with await listen_packet("udp", ":0") as server:
            for host in ("127.0.0.1", "::1"):
                async with await listen_packet("udp", (host, 0)) as client:
                    await client.write_to(b"x", (host, server.local_addr[1]))
                    data, addr = await server.read_from()
                    assert (data, addr) == (b"x", client.local_addr)
                    await server.write_to(b"y", addr)
                    assert await client.read() == b"y"

    run(main)


def test_an_empty_datagram_is_one(run):
    """Row 90."""

    async def main():
        async with await listen_packet("udp", "127.0.0.1:0") as a:
            for send in (
                lambda: a.write_to(b"", a.local_addr),
                lambda: a.sendmsg([], addr=a.local_addr),
            ):
                assert await send() == 0
                assert await a.read_from() == (b"", a.local_addr)
                await send()
                assert await a.recvmsg(10) == (b"", [], 0, a.local_addr)
            await a.write_to(b"there", a.local_addr)
            assert await a.read_from(0) == (b"", a.local_addr)  # it takes the datagram all the same
            await a.write_to(b"there", a.local_addr)
            assert await a.readinto_from(bytearray()) == (0, a.local_addr)

    run(main)


def test_a_short_buffer_cuts_a_datagram(run):
    """Row 90."""

    async def main():
        async with await listen_packet("udp", "127.0.0.1:0") as a:
            for _ in range(3):
                await a.write_to(b"0123456789", a.local_addr)
            assert await a.read_from(3) == (b"012", a.local_addr)
            assert await a.readinto_from(bytearray(4)) == (4, a.local_addr)
            data, anc, flags, addr = await a.recvmsg(5)
            assert (data, anc, addr) == (b"01234", [], a.local_addr)
            assert flags & socket.MSG_TRUNC

    run(main)


def test_messages_are_gathered_from_buffers(run):
    async def main():
        async with await listen_packet("udp", "127.0.0.1:0") as a:
            assert await a.sendmsg([b"one ", bytearray(b"two")], addr=a.local_addr) == 7
            assert await a.read_from() == (b"one two", a.local_addr)
            async with await dial("udp", a.local_addr) as b:
                assert await b.sendmsg([b"three ", b"four"]) == 10
                assert await b.writev([b"five ", b"six"]) == 8
                assert await a.read_from() == (b"three four", b.local_addr)
                assert await a.read_from() == (b"five six", b.local_addr)

    run(main)


def test_who_has_a_peer_writes_to_no_other(run):
    """Row 91."""

    async def main():
        async with await listen_packet("udp", "127.0.0.1:0") as a:
            async with await dial("udp", a.local_addr) as b:
                for call in (
                    lambda: b.write_to(b"x", a.local_addr),
                    lambda: b.sendmsg([b"x"], addr=a.local_addr),
                ):
                    with pytest.raises(OpError) as caught:
                        await call()
                    source, addr = (f"127.0.0.1:{x.local_addr[1]}" for x in (b, a))
                    assert str(caught.value) == (
                        f"write udp {source}->{addr}: use of write_to with pre-connected "
                        "connection (leave the address out: write)"
                    )
                await b.write(b"to my peer")
                assert await a.read() == b"to my peer"
                with pytest.raises(OpError, match="destination address required"):
                    await a.sendmsg([b"x"])

    run(main)


@pytest.mark.parametrize(
    ("addr", "text"),
    [
        (("localhost", 80), "address localhost:80: host is not an IP address; look names up first"),
        ("localhost:80", "address localhost:80: host is not an IP address; look names up first"),
        ("127.0.0.1", "address 127.0.0.1: missing port in address"),
        (("127.0.0.1", 70000), "address 70000: invalid port"),
        (("::1", 80), "address [::1]:80: non-IPv4 address"),
        (None, "missing address"),
    ],
)
def test_a_destination_is_a_literal(run, addr, text):
    async def main():
        async with await listen_packet("udp4", "127.0.0.1:0") as a:
            with pytest.raises(AddrError) as caught:
                await a.write_to(b"x", addr)
            assert str(caught.value).startswith(f"write udp4: {text}")

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


def test_after_close_nothing_works(run):
    """Row 50."""

    async def main():
        async with await listen_packet("udp", "127.0.0.1:0") as conn:
            g = go(conn.read_from)
            await parked(g, reason="read")
            await conn.close()
            with pytest.raises(ClosedError, match=r"^read udp .*: use of closed network conn"):
                await g
            for op, call in (
                ("read", conn.read_from),
                ("read", lambda: conn.readinto_from(bytearray(1))),
                ("read", lambda: conn.recvmsg(1)),
                ("write", lambda: conn.write_to(b"x", ("127.0.0.1", 1))),
                ("write", lambda: conn.sendmsg([b"x"], addr=("127.0.0.1", 1))),
            ):
                with pytest.raises(ClosedError, match=rf"^{op} udp .*: use of closed network conn"):
                    await call()

    run(main)


def test_a_deadline_ends_reading_and_writing(run):
    """Rows 41 and 92: a past one although there is data and room; none is lost."""

    async def main():
        async with await listen_packet("udp", "127.0.0.1:0") as conn:
            await conn.write_to(b"there", conn.local_addr)
            conn.set_deadline(0)
            for _ in range(2):
                for op, call in (
                    ("read", conn.read_from),
                    ("read", lambda: conn.readinto_from(bytearray(9))),
                    ("read", lambda: conn.recvmsg(9)),
                    ("write", lambda: conn.write_to(b"x", conn.local_addr)),
                    ("write", lambda: conn.sendmsg([b"x"], addr=conn.local_addr)),
                ):
                    with pytest.raises(TimeoutError, match=rf"^{op} udp .*: i/o timeout$") as e:
                        await call()
                    assert isinstance(e.value, OpError)
                    assert e.value.is_timeout
                    assert e.value.written == (0 if op == "write" else None)
            conn.set_deadline(None)
            assert await conn.read_from() == (b"there", conn.local_addr)
            conn.set_read_timeout(0.01)
            with pytest.raises(TimeoutError):
                await conn.read_from()
            conn.set_read_deadline(None)
            g = go(conn.read_from)
            await parked(g, reason="read")
            conn.set_read_deadline(0)
            with pytest.raises(TimeoutError):
                await g

    run(main)


def test_a_cancelled_read_leaves_the_datagram(run):
    async def main():
        async with await listen_packet("udp", "127.0.0.1:0") as conn:
            g = go(conn.read_from)
            await parked(g, reason="read")
            g.cancel()
            with pytest.raises(gopoll.Canceled):
                await g
            await conn.write_to(b"for the next", conn.local_addr)
            assert await conn.read_from() == (b"for the next", conn.local_addr)

    run(main)
