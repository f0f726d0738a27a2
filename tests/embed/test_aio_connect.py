"""Connections of EventLoop: create_connection, create_unix_connection, sock_connect, servers."""

import asyncio
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from embed.loops import loop, spin  # noqa: F401  (fixture)
from embed.same import Told, same
from embed.test_aio_loop import has_ipv6
from gopoll.embed import aio

# ruff: noqa: F811

LOCAL = "127.0.0.1"


@pytest.fixture
def listener():
    with socket.create_server((LOCAL, 0)) as listener:
        yield listener


@pytest.fixture
def full():
    """A listener that answers nobody any more."""
    with socket.socket() as listener:
        listener.bind((LOCAL, 0))
        listener.listen(0)
        others = []
        while True:
            others.append(socket.socket())
            others[-1].setblocking(False)
            others[-1].connect_ex(listener.getsockname())
            try:
                others[-1].getpeername()
            except OSError:
                break
        yield listener
        for other in others:
            other.close()


def descriptors():
    return len(os.listdir("/proc/self/fd"))


class Log(asyncio.Protocol):
    """Tell of each call with a number of its own."""

    def __init__(self, say, number):
        self.say, self.number = say, number
        say("made", number)

    def connection_made(self, transport):
        self.say("connection_made", self.number, transport.is_reading())
        transport.write(b"x")

    def data_received(self, data):
        self.say("data", self.number, data)

    def connection_lost(self, exc):
        self.say("lost", self.number, exc)


# -- as asyncio's


@same
async def test_the_order_of_calls(loop, say):
    server = await loop.create_server(lambda: Told(print), LOCAL, 0)
    async with server:
        where = server.sockets[0].getsockname()
        loop.call_soon(say, "before")
        transport, protocol = await loop.create_connection(lambda: Log(say, 1), *where)
        say("connected", protocol.number)
        loop.call_soon(say, "after")
        transport.close()
        for _ in range(3):
            await asyncio.sleep(0)


@same
async def test_extra_info_outlives_the_connection(loop, say):
    server = await loop.create_server(asyncio.Protocol, LOCAL, 0)
    async with server:
        where = server.sockets[0].getsockname()
        transport, _ = await loop.create_connection(asyncio.Protocol, *where)
        names = ("socket", "sockname", "peername", "nothing")
        sock = transport.get_extra_info("socket")
        say(sock.family, sock.type, sock.proto, sock.gettimeout(), type(sock).__name__)
        say(transport.get_extra_info("sockname") == sock.getsockname())
        say(transport.get_extra_info("peername") == where)
        transport.abort()
        for _ in range(3):
            await asyncio.sleep(0)
        say([type(transport.get_extra_info(name)).__name__ for name in names], repr(sock))


@same
async def test_what_a_refused_connection_says(loop, say):
    hosts = [LOCAL, b"127.0.0.1", *(["::1"] if has_ipv6() else [])]
    for host in hosts:
        family = socket.AF_INET6 if host == "::1" else socket.AF_INET
        with socket.socket(family) as free, socket.socket(family) as client:
            free.bind((os.fsdecode(host), 0))
            port = free.getsockname()[1]
            client.setblocking(False)
            for call in (
                loop.create_connection(asyncio.Protocol, host, port),
                loop.create_connection(asyncio.Protocol, host, str(port)),
                loop.sock_connect(client, (host, port)),
            ):
                try:
                    await call
                except OSError as exc:
                    say(exc.errno, str(exc).replace(str(port), "PORT"), exc.__context__)


@same
async def test_addresses_that_are_none(loop, say):
    for host, port in ((LOCAL, -1), (LOCAL, 1 << 16), ("1.2.3", "x"), (3, 80), ("a\0b", 80)):
        await say.wait(loop.create_connection(asyncio.Protocol, host, port))
    with socket.socket() as client, socket.socket(socket.AF_UNIX) as unix:
        client.setblocking(False)
        unix.setblocking(False)
        for sock in (client, unix):
            for there in ("/nowhere", b"/nowhere", (LOCAL,), (LOCAL, "x"), None, "x" * 200, ""):
                await say.wait(loop.sock_connect(sock, there))


@same
async def test_paths_of_each_kind(loop, say):
    name = f"\0gopoll-connect-{os.getpid()}"
    server = await loop.create_unix_server(asyncio.Protocol, name)
    async with server:
        for path in (name, name.encode()):
            transport, _ = await loop.create_unix_connection(asyncio.Protocol, path)
            say(transport.get_extra_info("peername") == name.encode())
            transport.close()
            for _ in range(5):
                await asyncio.sleep(0)
    for path in ("/nowhere/at/all", b"/nowhere/at/all", pathlib.Path("/nowhere/at/all"), 3):
        await say.wait(loop.create_unix_connection(asyncio.Protocol, path))


@same
async def test_wrong_arguments(loop, say):
    for args, options in (((), {}), ((LOCAL, 80), {"colour": "red"}), ((LOCAL,), {"sock": 3})):
        try:
            await loop.create_connection(asyncio.Protocol, *args, **options)
        except Exception as exc:
            say(type(exc).__name__)


@same
async def test_a_descriptor_with_a_transport(loop, say):
    server = await loop.create_server(asyncio.Protocol, LOCAL, 0)
    async with server:
        where = server.sockets[0].getsockname()
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, where)
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=client)
            await say.wait(loop.sock_recv_into(client, bytearray(1)))
            say.call(loop.add_reader, client.fileno(), print)
            transport.close()
            say.call(loop.add_reader, client.fileno(), print)
            say.call(loop.remove_reader, client.fileno())
            await asyncio.sleep(0)


# -- a connection that does not come about


@pytest.mark.parametrize("turns", range(5))
def test_a_cancelled_connection_leaves_nothing(loop, listener, turns):
    before = descriptors()

    async def main():
        task = asyncio.create_task(
            loop.create_connection(asyncio.Protocol, *listener.getsockname())
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        made = (await asyncio.gather(task, return_exceptions=True))[0]
        if isinstance(made, tuple):
            made[0].abort()
        for _ in range(3):
            await asyncio.sleep(0)

    loop.run_until_complete(asyncio.wait_for(main(), 30))
    assert descriptors() == before


def test_a_cancelled_wait_for_an_answer_leaves_nothing(loop, full):
    before = descriptors()

    async def main():
        task = asyncio.create_task(loop.create_connection(asyncio.Protocol, *full.getsockname()))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    loop.run_until_complete(asyncio.wait_for(main(), 30))
    assert descriptors() == before


def test_who_is_woken_for_something_else_is_not_connected(loop, full):
    """Y10."""
    with socket.socket() as client:
        client.setblocking(False)
        task = loop.create_task(loop.sock_connect(client, full.getsockname()))
        spin(loop)
        loop.add_reader(client, print)  # takes the registration, and wakes who waits for it
        spin(loop)
        loop.remove_reader(client)
        spin(loop)
        assert not task.done()
        task.cancel()
        spin(loop)


# -- from sock_connect to a transport: one registration


@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("turns", [0, 3])
def test_what_has_come_before_the_transport_is_read(loop, listener, end, turns):
    """Y9: its edge has come to the registration that the transport goes on with."""

    async def main():
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, listener.getsockname())
            peer, _ = listener.accept()
            with peer:
                peer.send(b"early")
                if end:
                    peer.shutdown(socket.SHUT_WR)
                for _ in range(turns):  # the edge comes to the registration of sock_connect
                    await asyncio.sleep(0)
                reader, writer = await asyncio.open_connection(sock=client)
                assert await reader.read(5) == b"early"
                if end:
                    assert await reader.read() == b""
                else:
                    peer.send(b"late")
                    assert await reader.read(4) == b"late"
                writer.close()
                await writer.wait_closed()

    loop.run_until_complete(asyncio.wait_for(main(), 30))


def test_a_transport_after_sock_connect_waits_for_room(loop, listener):
    """EPOLLOUT is registered already: the edge for room comes all the same."""
    size = 8 << 20

    async def main():
        _, writer = await asyncio.open_connection(*listener.getsockname())
        peer, _ = listener.accept()
        with peer:
            peer.setblocking(False)
            writer.write(bytes(size))
            got = 0
            while got < size:
                got += len(await loop.sock_recv(peer, 1 << 18))
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    loop.run_until_complete(asyncio.wait_for(main(), 30))


# -- who looks on


def test_a_patched_connect_is_called(loop, listener, monkeypatch):
    called, connect = [], socket.socket.connect

    def spy(sock, address):
        called.append(address)
        connect(sock, address)

    monkeypatch.setattr(socket.socket, "connect", spy, raising=False)

    async def main():
        transport, _ = await loop.create_connection(asyncio.Protocol, *listener.getsockname())
        transport.abort()
        await asyncio.sleep(0)

    loop.run_until_complete(asyncio.wait_for(main(), 30))
    assert called == [listener.getsockname()]


AUDIT = """
import asyncio, sys
from gopoll.embed import aio

def refuse(event, args):
    if event == "socket.connect":
        raise PermissionError(args[1])

async def main():
    try:
        await asyncio.open_connection("127.0.0.1", 9)
    except PermissionError as exc:
        print(exc)

sys.addaudithook(refuse)
aio.run(main())
"""


def test_an_audit_hook_is_asked():
    run = subprocess.run([sys.executable, "-c", AUDIT], capture_output=True, text=True, timeout=60)
    assert run.stdout == "('127.0.0.1', 9)\n", run.stderr


def test_a_call_is_a_coroutine():
    loop = aio.new_event_loop()
    for coro in (
        loop.create_connection(asyncio.Protocol, LOCAL, 80),
        loop.create_connection(asyncio.Protocol, "localhost", 80),
        loop.create_unix_connection(asyncio.Protocol, "x"),
    ):
        assert asyncio.iscoroutine(coro)
        assert coro.__name__.startswith("create_")
        coro.close()
    loop.close()
