"""Servers, connections, datagrams, sock_*, TLS and processes, beside asyncio's own loop."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile

from embed.same import Told, pair, same, turns
from net.certs import certs

LOCAL = "127.0.0.1"


def address(server):
    """Return the address of the first socket of *server*."""
    return server.sockets[0].getsockname()


# -- connections


@same
async def test_connections_that_are_refused(loop, say):
    def made():
        return Told(say)

    with socket.socket() as free, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        free.bind((LOCAL, 0))
        port = free.getsockname()[1]
        for args in (
            {},
            {"host": LOCAL, "port": port},
            {"host": LOCAL, "port": port, "sock": free},
            {"sock": datagram},
            {"host": LOCAL, "port": port, "server_hostname": "x"},
            {"host": LOCAL, "port": port, "ssl_handshake_timeout": 5},
            {"sock": free, "ssl": True},
            {"host": LOCAL, "port": port, "local_addr": ("127.0.0.1", 1 << 20)},
            {"host": LOCAL, "port": port, "happy_eyeballs_delay": 0.01, "interleave": 1},
            {"host": LOCAL, "port": "no such service"},
            {"host": "127.0.0.1", "port": port, "family": socket.AF_INET6},
        ):
            try:
                await loop.create_connection(made, **args)
            except BaseException as exc:
                say(sorted(args), type(exc).__name__, str(exc).replace(str(port), "PORT"))
        for args in ({}, {"path": "/nowhere/at/all"}, {"path": "x", "sock": free}):
            await say.wait(loop.create_unix_connection(made, **args))
        await say.wait(loop.create_unix_connection(made, sock=datagram))
        await say.wait(loop.create_unix_connection(made, "x", ssl=True))


if sys.version_info >= (3, 12):

    @same
    async def test_all_errors_of_a_connection(loop, say):
        with socket.socket() as free:
            free.bind((LOCAL, 0))
            port = free.getsockname()[1]
            try:
                await loop.create_connection(asyncio.Protocol, LOCAL, port, all_errors=True)
            except ExceptionGroup as group:
                say([type(exc).__name__ for exc in group.exceptions])


@same
async def test_what_the_server_says_at_once_comes_after_create_connection(loop, say):
    """Y2: who begins to read does so after the next poll."""

    class Greeted(asyncio.Protocol):
        def data_received(self, data):
            say("data", data)

    async def connect(made, **options):
        transport, _ = await loop.create_connection(made, LOCAL, **options)
        say("connected")
        return transport

    peers = []
    for options in ({}, {"family": socket.AF_INET}):  # the usual way, and asyncio's own
        for later in (False, True):

            def made(later=later):
                if later:  # a poll tells of it before the transport has begun to read
                    peers[-1].send(b"hello")
                return Greeted()

            with socket.create_server((LOCAL, 0)) as listener:
                port = listener.getsockname()[1]
                connecting = loop.create_task(connect(made, port=port, **options))
                await asyncio.sleep(0)  # it waits for the connection, which is there
                peers.append(listener.accept()[0])
            with peers[-1] as peer:
                if not later:  # one event tells of both
                    peer.send(b"hello")
                transport = await connecting
                await asyncio.sleep(0.02)
                transport.close()
                await turns()


@same
async def test_a_factory_that_raises(loop, say):
    def factory():
        raise ValueError("factory")

    server = await loop.create_server(asyncio.Protocol, LOCAL, 0)
    async with server:
        await say.wait(loop.create_connection(factory, *address(server)))
    server = await loop.create_server(factory, LOCAL, 0)
    async with server:
        reader, writer = await asyncio.open_connection(*address(server))
        if not loop.get_debug():  # there asyncio keeps the connection, with the error
            await say.wait(reader.read())
        writer.close()
        await writer.wait_closed()


@same
async def test_an_accepted_socket(loop, say):
    for kind in ("tcp", "unix"):
        a, b = pair(kind)
        with b:
            transport, protocol = await loop.connect_accepted_socket(lambda: Told(say), a)
            transport.write(b"hello")
            say(b.recv(10))
            transport.close()
            await protocol.lost
    with socket.socket(type=socket.SOCK_DGRAM) as datagram:
        await say.wait(loop.connect_accepted_socket(asyncio.Protocol, datagram))
        await say.wait(
            loop.connect_accepted_socket(asyncio.Protocol, datagram, ssl_handshake_timeout=3)
        )


# -- servers


@same
async def test_states_of_a_server(loop, say):
    server = await loop.create_server(lambda: Told(say), LOCAL, 0, start_serving=False)
    say(server.is_serving(), len(server.sockets), server.get_loop() is loop)
    await server.start_serving()
    await server.start_serving()
    say(server.is_serving())
    task = asyncio.create_task(server.serve_forever())
    await turns()
    await say.wait(server.serve_forever())
    task.cancel()
    await say.wait(task)
    say(server.is_serving(), server.sockets)
    server.close()
    await server.wait_closed()
    await say.wait(server.start_serving())


@same
async def test_arguments_of_servers(loop, say):
    with socket.create_server((LOCAL, 0)) as used, tempfile.TemporaryDirectory() as folder:
        port = used.getsockname()[1]
        for args in (
            {},
            {"host": LOCAL, "port": port},
            {"host": LOCAL, "port": 0, "sock": used},
            {"host": LOCAL, "port": 0, "ssl": True},
            {"host": LOCAL, "port": 0, "ssl_handshake_timeout": 3},
            {"host": [LOCAL, "127.0.0.2"], "port": 0, "reuse_address": True, "reuse_port": True},
            {"host": LOCAL, "port": 0, "backlog": 1, "reuse_address": False},
            {"host": "no.such.host.invalid", "port": 0},
            {"host": "192.0.2.1", "port": 0},
        ):
            try:
                server = await loop.create_server(asyncio.Protocol, **args)
            except BaseException as exc:
                say(sorted(args), type(exc).__name__, str(exc).replace(str(port), "PORT"))
            else:
                say(sorted(args), len(server.sockets))
                server.close()
        path = os.path.join(folder, "socket")
        open(f"{path}-file", "w").close()
        for args in ({}, {"path": path}, {"path": f"{path}-file"}, {"path": path, "sock": used}):
            try:
                server = await loop.create_unix_server(asyncio.Protocol, **args)
            except BaseException as exc:
                say(sorted(args), exc)
            else:
                say(sorted(args), os.path.exists(path))
                await say.wait(loop.create_unix_server(asyncio.Protocol, path))
                server.close()
                await turns()
                say(os.path.exists(path))
        await say.wait(loop.create_unix_server(asyncio.Protocol, sock=used))
        for _ in range(2):
            server = await loop.create_unix_server(asyncio.Protocol, "\0gopoll-same")
            server.close()


@same
async def test_many_connections_at_once(loop, say):
    class Counts(asyncio.Protocol):
        made = 0

        def connection_made(self, transport):
            Counts.made += 1
            transport.write(b"hello")
            transport.close()

    server = await loop.create_server(Counts, LOCAL, 0)
    async with server:

        async def client():
            reader, writer = await asyncio.open_connection(*address(server))
            data = await reader.read()
            writer.close()
            await writer.wait_closed()
            return data

        say(set(await asyncio.gather(*(client() for _ in range(50)))))
    say(Counts.made)


@same
async def test_connections_outlive_the_listener(loop, say):
    server = await loop.create_server(lambda: Told(say), LOCAL, 0)
    with socket.create_connection(address(server)) as client:
        client.setblocking(False)
        await asyncio.sleep(0.01)
        server.close()
        say(server.is_serving())
        client.send(b"still")
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.01)
    await asyncio.wait_for(server.wait_closed(), 5)


if sys.version_info >= (3, 13):

    @same
    async def test_a_server_ends_its_connections(loop, say):
        for end in ("close_clients", "abort_clients"):
            server = await loop.create_server(lambda: Told(say), LOCAL, 0)
            with socket.create_connection(address(server)) as client:
                await asyncio.sleep(0.01)
                server.close()
                say(end)
                getattr(server, end)()
                await asyncio.wait_for(server.wait_closed(), 5)
                say(client.recv(10))

    @same
    async def test_a_unix_server_may_leave_its_path(loop, say):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "socket")
            for cleanup in (True, False):
                server = await loop.create_unix_server(
                    asyncio.Protocol, path, cleanup_socket=cleanup
                )
                server.close()
                say(os.path.exists(path))


# -- sock_*


@same
async def test_sock_calls(loop, say):
    with socket.create_server((LOCAL, 0)) as listener, socket.socket() as client:
        listener.setblocking(False)
        client.setblocking(False)
        accepting = asyncio.create_task(loop.sock_accept(listener))
        await turns()
        say(await loop.sock_connect(client, listener.getsockname()))
        conn, peer = await accepting
        with conn:
            say(conn.gettimeout(), peer == client.getsockname(), type(conn).__name__)
            buf = bytearray(3)
            say(await loop.sock_sendall(conn, bytearray(b"0123456789")))
            say(await loop.sock_recv_into(client, buf), buf)
            say(await loop.sock_recv_into(client, memoryview(buf)[1:]), buf)
            say(await loop.sock_recv(client, 100), await loop.sock_recv(client, 0))
            say(await loop.sock_sendall(conn, b""))
            await say.wait(loop.sock_recv_into(client, None))
            for call in (
                lambda: loop.sock_recv(client, -1),
                lambda: loop.sock_recv(client, "x"),
                lambda: loop.sock_recv_into(client, b"read only"),
                lambda: loop.sock_recv_into(client, 3),
                lambda: loop.sock_sendall(client, "text"),
                lambda: loop.sock_sendto(client, "text", ("x", 1)),
                lambda: loop.sock_recvfrom_into(client, b"x"),
                lambda: loop.sock_accept(client),
                lambda: loop.sock_connect(client, listener.getsockname()),
            ):
                try:
                    await call()
                except BaseException as exc:
                    say(type(exc).__name__)
    for call in (
        lambda: loop.sock_recv(client, 1),
        lambda: loop.sock_recv_into(client, bytearray(1)),
        lambda: loop.sock_sendall(client, b"x"),
        lambda: loop.sock_sendto(client, b"x", (LOCAL, 1)),
        lambda: loop.sock_recvfrom(client, 1),
        lambda: loop.sock_accept(listener),
        lambda: loop.sock_connect(client, (LOCAL, 1)),
    ):
        await say.wait(call())


@same
async def test_sock_calls_for_datagrams(loop, say):
    with socket.socket(type=socket.SOCK_DGRAM) as a, socket.socket(type=socket.SOCK_DGRAM) as b:
        for sock in (a, b):
            sock.bind((LOCAL, 0))
            sock.setblocking(False)
        names = {a.getsockname(): "a", b.getsockname(): "b"}
        reading = asyncio.create_task(loop.sock_recvfrom(a, 100))
        await turns()
        for data in (b"one", b"two", b"", bytearray(b"three"), b"0123456789"):
            say(await loop.sock_sendto(b, data, a.getsockname()))
        data, peer = await reading
        say(data, names[peer])
        buf = bytearray(10)
        for n in (0, 4, 2):
            size, peer = await loop.sock_recvfrom_into(a, buf, n)
            say(size, buf, names[peer])
        say((await loop.sock_recvfrom(a, 5))[0])
        await say.wait(asyncio.wait_for(loop.sock_recvfrom(a, 5), 0.01))
        await say.wait(loop.sock_sendto(b, bytes(100_000), a.getsockname()))
        await say.wait(loop.sock_recvfrom(a, -1))


@same
async def test_sock_connect_fails(loop, say):
    with socket.socket() as free, socket.socket() as client:
        free.bind((LOCAL, 0))
        client.setblocking(False)
        try:
            await loop.sock_connect(client, free.getsockname())
        except OSError as exc:
            say(type(exc).__name__)


# -- datagrams


class Datagrams(asyncio.DatagramProtocol):
    """Tell of datagrams, without the addresses."""

    def __init__(self, say):
        self.say = say
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.say("made")

    def datagram_received(self, data, addr):
        self.say(data, addr == self.transport.get_extra_info("peername"))

    def error_received(self, exc):
        self.say("error", exc)

    def connection_lost(self, exc):
        self.say("lost", exc)
        self.lost.set_result(None)


@same
async def test_datagrams(loop, say):
    server, _ = await loop.create_datagram_endpoint(lambda: Datagrams(say), (LOCAL, 0))
    there = server.get_extra_info("sockname")
    client, protocol = await loop.create_datagram_endpoint(
        lambda: Datagrams(say), remote_addr=there, local_addr=(LOCAL, 0)
    )
    for data in (b"one", bytearray(b"two"), memoryview(b"three")):
        client.sendto(data)
    for wrong in (("text",), (3,), (b"x", (LOCAL, 9))):
        say.call(client.sendto, *wrong)
    await asyncio.sleep(0.01)
    server.sendto(b"back", client.get_extra_info("sockname"))
    await asyncio.sleep(0.01)
    say(client.get_write_buffer_size(), isinstance(client, asyncio.Transport), repr(client))
    server.abort()
    await turns()
    client.sendto(b"nobody")
    await asyncio.sleep(0.01)
    client.sendto(b"there")
    client.close()
    client.close()
    say(client.is_closing())
    await protocol.lost


@same
async def test_arguments_of_datagram_endpoints(loop, say):
    with socket.socket() as stream:
        for args in (
            {},
            {"sock": stream},
            {"local_addr": (LOCAL, 0), "family": socket.AF_UNIX},
            {"local_addr": "text"},
            {"local_addr": (LOCAL, 0), "remote_addr": ("::1", 9)},
            {"family": socket.AF_INET},
            {"local_addr": (LOCAL, 0), "allow_broadcast": True, "reuse_port": True},
        ):
            try:
                endpoint, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, **args)
            except BaseException as exc:
                say(sorted(args), exc)
            else:
                say(sorted(args))
                endpoint.close()
                await turns()


# -- TLS


@same
async def test_tls_from_hand_to_hand(loop, say):
    contexts = {"ssl": certs().server_context()}
    server = await loop.create_server(lambda: Told(say), LOCAL, 0, **contexts)
    async with server:
        reader, writer = await asyncio.open_connection(
            *address(server), ssl=certs().client_context(), server_hostname="localhost"
        )
        say(sorted(k for k in ("cipher", "peercert", "sslcontext") if writer.get_extra_info(k)))
        writer.write(b"over TLS")
        await writer.drain()
        say(writer.can_write_eof(), isinstance(writer.transport, asyncio.Transport))
        await asyncio.sleep(0.02)
        writer.close()
        await writer.wait_closed()
        say(await reader.read())
        await asyncio.sleep(0.02)
        for args in ({"ssl": True}, {"ssl": certs().client_context(), "server_hostname": "other"}):
            try:
                await loop.create_connection(asyncio.Protocol, *address(server), **args)
            except OSError as exc:
                say(type(exc).__name__)
        await asyncio.sleep(0.02)


@same
async def test_start_tls(loop, say):
    a, b = socket.socketpair()
    done = loop.create_future()

    async def serve():
        transport, protocol = await loop.connect_accepted_socket(lambda: Told(say), b)
        transport = await loop.start_tls(
            transport, protocol, certs().server_context(), server_side=True
        )
        say("server", transport.get_extra_info("sslcontext") is not None)
        transport.write(b"hello")
        await done
        transport.close()
        await protocol.lost

    task = asyncio.create_task(serve())
    reader, writer = await asyncio.open_connection(sock=a)
    await writer.start_tls(certs().client_context(), server_hostname="localhost")
    say(await reader.readexactly(5))
    done.set_result(None)
    say(await reader.read())
    writer.close()
    await writer.wait_closed()
    await task
    for wrong in (None, "context"):
        await say.wait(loop.start_tls(None, asyncio.Protocol(), wrong))


# -- processes


@same
async def test_processes(loop, say):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = await asyncio.create_subprocess_exec("cat", **pipes)
    say(await process.communicate(b"through cat"))
    say(process.returncode, process.pid > 0)
    process = await asyncio.create_subprocess_shell("echo out; echo err >&2; exit 7", **pipes)
    say(await process.communicate(), process.returncode)
    process = await asyncio.create_subprocess_exec("sleep", "60")
    process.send_signal(signal.SIGTERM)
    say(await process.wait(), process.returncode)
    say.call(process.kill)
    for command in (["/no/such/program"], [sys.executable, 3], []):
        await say.wait(asyncio.create_subprocess_exec(*command))
    for args in ({"text": True}, {"universal_newlines": True}, {"shell": True}, {"bufsize": 1}):
        await say.wait(asyncio.create_subprocess_exec("true", **args))
    big = await asyncio.create_subprocess_exec("head", "-c", "3000000", "/dev/zero", stdout=-1)
    out, _ = await big.communicate()
    say(len(out), big.returncode)


@same
async def test_a_process_by_its_protocol(loop, say):
    ended, lost = loop.create_future(), []

    class Process(asyncio.SubprocessProtocol):
        def connection_made(self, transport):
            say("made", transport.get_pid() > 0)

        def pipe_data_received(self, fd, data):
            say(fd, data)

        def pipe_connection_lost(self, fd, exc):
            lost.append((fd, exc))

        def process_exited(self):
            say("exited")

        def connection_lost(self, exc):
            say("lost", exc, sorted(lost))
            ended.set_result(None)

    transport, _ = await loop.subprocess_exec(Process, "sh", "-c", "read line; echo got $line")
    say(transport.get_returncode(), transport.is_closing())
    transport.get_pipe_transport(0).write(b"a line\n")
    await ended
    say(transport.get_returncode())
    transport.close()
    await turns()


class Counted(socket.socket):
    """Counts what is called: a class with a way of its own to send and receive."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.sent = self.received = 0

    def send(self, *args):
        self.sent += 1
        return super().send(*args)

    def recv(self, *args):
        self.received += 1
        return super().recv(*args)


@same
async def test_a_socket_that_sends_and_receives_in_its_own_way_is_asked_to(loop, say):
    for secure in (False, True):
        options = {"ssl": certs().server_context()} if secure else {}
        server = await asyncio.start_server(echo, "127.0.0.1", 0, **options)
        sock = Counted()
        sock.connect(server.sockets[0].getsockname())
        options = {"ssl": certs().client_context(), "server_hostname": "localhost"}
        reader, writer = await asyncio.open_connection(sock=sock, **(options if secure else {}))
        writer.write(b"hello")
        say(secure, await reader.readexactly(5), sock.sent > 0, sock.received > 0)
        writer.close()
        await writer.wait_closed()
        server.close()


async def echo(reader, writer):
    """Answer the first bytes."""
    writer.write(await reader.read(100))
    writer.close()
