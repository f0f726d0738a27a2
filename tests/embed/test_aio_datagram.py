"""DatagramTransport where asyncio's is not the measure: addresses, fairness, room, what is ours."""

import asyncio
import contextlib
import errno
import gc
import os
import socket
import tempfile
import warnings

from embed.datagrams import HEADER, LOCAL, drain, endpoint, plain
from embed.same import turns, until
from gopoll.embed import aio


def test_ipv6_on_an_ipv4_address_s_socket_and_the_scope_are_told():
    async def main():
        got = []
        transport, protocol = await endpoint(lambda *what: got.append(what), local_addr=("::", 0))
        with plain() as peer:
            peer.sendto(b"x", (LOCAL, transport.get_extra_info("sockname")[1]))
            await until(lambda: protocol.n == 1)
            assert got[-1] == ("got", b"x", ("::ffff:127.0.0.1", 0, 0))
            transport.sendto(b"y", ("::ffff:127.0.0.1", peer.getsockname()[1]))
            assert await asyncio.get_running_loop().sock_recv(peer, 9) == b"y"
        transport.close()
        await protocol.lost

    aio.run(main())


def test_each_sender_is_told_by_its_own_address_and_answered_there():
    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.transport = transport

        def datagram_received(self, data, addr):
            self.transport.sendto(data + b" %d" % addr[1], addr)

    async def main():
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Echo, (LOCAL, 0))
        peers = [plain() for _ in range(20)]
        for text in (b"a", b"b", b"c"):
            for peer in peers:
                peer.sendto(text, transport.get_extra_info("sockname"))
        for peer in peers:
            port = peer.getsockname()[1]
            for text in (b"a", b"b", b"c"):
                assert await loop.sock_recv(peer, 99) == text + b" %d" % port
            peer.close()
        transport.close()
        await turns()

    aio.run(main())


def test_room_in_a_queue_that_others_have_filled_is_found():
    """Y7: the kernel tells of it nobody but a peer of that queue."""

    async def main():
        with tempfile.TemporaryDirectory() as folder:
            there = os.path.join(folder, "there")
            with (
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer,
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other,
            ):
                peer.bind(there)
                peer.setblocking(False)
                other.setblocking(False)
                sent = 0
                with contextlib.suppress(BlockingIOError):
                    while True:
                        other.sendto(b"other", there)
                        sent += 1
                transport, protocol = await endpoint(
                    lambda *_: None, sock=socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                )
                transport.sendto(b"ours", there)
                assert transport.get_write_buffer_size() == 4 + HEADER
                scheduled = asyncio.get_running_loop()._scheduled
                for _ in range(50):
                    await turns(1)
                    timers = [t for t in scheduled if t._callback == transport._retry]
                    assert len(timers) <= 1, "one for each try"
                assert (await drain(peer, sent + 1))[-1] == b"ours"
                await until(lambda: not transport.get_write_buffer_size())
                transport.close()
                await protocol.lost

    aio.run(asyncio.wait_for(main(), 30))


def test_it_is_a_datagram_transport_of_asyncio():
    async def main():
        transport, protocol = await endpoint(lambda *_: None)
        assert isinstance(transport, asyncio.DatagramTransport)
        assert isinstance(transport, asyncio.Transport), "as asyncio's own, which pauses reading"
        assert transport.get_write_buffer_limits() == (16384, 65536)
        transport.close()
        await protocol.lost
        transport.sendto(b"late", (LOCAL, 9))  # dropped
        transport.abort()
        transport.close()

    aio.run(main())


def test_what_is_sent_to_nobody_is_logged_from_the_fifth_on(caplog):
    async def main():
        with plain() as peer:
            transport, protocol = await endpoint(lambda *_: None, remote_addr=peer.getsockname())
            transport.close()
            await protocol.lost
            for n in range(1, 7):
                transport.sendto(b"late")
                assert len(caplog.records) == max(0, n - 4), n

    aio.run(main())


def test_who_forgets_a_transport_is_told():
    gc.collect()  # what others have left
    loop = aio.new_event_loop()
    loop.run_until_complete(endpoint(lambda *_: None))
    loop.close()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        gc.collect()
    assert {one.category for one in told} == {ResourceWarning}  # the socket may say so, too
    assert any("unclosed transport <DatagramTransport fd=" in str(one.message) for one in told)


def test_a_socket_of_a_class_of_its_own_is_asked_itself():
    class Sock(socket.socket):
        def recvfrom(self, n):
            data, address = super().recvfrom(n)
            return data.upper(), address

        def sendto(self, data, address):
            if address == "broken":
                raise OSError(errno.EHOSTUNREACH, "broken")
            return super().sendto(b"<" + bytes(data) + b">", address)

    async def main():
        told = []
        sock = Sock(type=socket.SOCK_DGRAM)
        sock.bind((LOCAL, 0))
        transport, protocol = await endpoint(lambda *what: told.append(what[:2]), sock=sock)
        with plain() as peer:
            peer.sendto(b"in", transport.get_extra_info("sockname"))
            await until(lambda: protocol.n == 1)
            transport.sendto(b"out", peer.getsockname())
            transport.sendto(b"out", "broken")
            assert await asyncio.get_running_loop().sock_recv(peer, 9) == b"<out>"
        transport.close()
        await protocol.lost
        assert told[1] == ("got", b"IN")
        assert told[2][0] == "error"
        assert told[2][1].errno == errno.EHOSTUNREACH

    aio.run(main())


def test_many_endpoints_and_bursts_in_debug_mode_too():
    for debug in (False, True):

        async def main():
            loop = asyncio.get_running_loop()
            server, counted = await endpoint(lambda *_: None)
            there = server.get_extra_info("sockname")
            clients = [await endpoint(lambda *_: None, remote_addr=there) for _ in range(50)]
            for round_ in range(4):
                for transport, _ in clients:
                    transport.sendto(b"%d" % round_)
                await until(lambda n=round_: counted.n == 50 * (n + 1))
            for transport, _ in [*clients, (server, None)]:
                transport.close()
            await turns()
            assert not loop._transports or all(t.is_closing() for t in loop._transports.values())

        aio.run(asyncio.wait_for(main(), 30), debug=debug)


def test_one_endpoint_in_flood_leaves_turns_to_others():
    """A turn gives a protocol a bounded batch."""

    class Flood(asyncio.DatagramProtocol):
        n = 0

        def connection_made(self, transport):
            self.transport = transport

        def datagram_received(self, data, addr):
            self.n += 1
            self.transport.sendto(data, self.transport.get_extra_info("sockname"))  # for ever

    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(Flood, (LOCAL, 0))
        transport.sendto(b"x", transport.get_extra_info("sockname"))
        await until(lambda: protocol.n)
        for _ in range(10):
            before = protocol.n
            await asyncio.sleep(0)
            assert protocol.n - before <= 2 * 64
        await asyncio.sleep(0.001)  # timers, too
        transport.close()
        await turns()

    aio.run(asyncio.wait_for(main(), 30))
