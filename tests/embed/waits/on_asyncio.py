"""asyncio's own waits, on any of its loops: sock_* and streams. See base.py."""

import asyncio
import socket

from embed.hosts import Aio
from embed.waits.base import Lib


class Asyncio(Lib):
    """What both have in common. name: the module that makes the loop."""

    Cancelled = asyncio.CancelledError

    def __init__(self, name):
        super().__init__()
        self.host = Aio(name)

    def run(self, main, *args):
        async def body():
            self.loop = asyncio.get_running_loop()
            return await main(*args)

        return self.host.run(body)

    def start(self, fn, *args):
        return self.host.start(fn, *args)

    def is_done(self, task):
        return task.done

    def cancel(self, task):
        task.cancel()

    async def turn(self):
        await self.host.turn()

    def limit(self, seconds):
        return asyncio.timeout(seconds)


class Sock(Asyncio):
    """sock_recv, sock_sendall, sock_accept, sock_connect."""

    dial_closes = True

    async def wrap(self, sock):
        return sock

    async def read(self, sock):
        return await self.loop.sock_recv(sock, 1 << 16)

    async def write(self, sock, data):
        return await self.loop.sock_sendall(sock, data)

    async def close(self, sock):
        sock.close()

    def set_deadline(self, sock, seconds):
        """Return False: a socket with a timeout is one that blocks, and a debug loop says so."""
        sock.settimeout(seconds)
        self.loop.set_debug(True)
        try:
            self.loop.sock_recv(sock, 1).send(None)
        except ValueError as exc:
            return "non-blocking" not in str(exc)
        finally:
            self.loop.set_debug(False)
            sock.setblocking(False)
        return True

    async def listen(self, sock):
        return sock

    async def accept(self, listener):
        return (await self.loop.sock_accept(listener))[0]

    def fileno(self, it):
        return it.fileno()

    def dialler(self):
        sock = socket.socket()
        sock.setblocking(False)
        return sock

    async def dial(self, sock, addr, deadline):
        await self.loop.sock_connect(sock, addr, **deadline)
        return sock


class Stream:
    """A connection: its reader and its writer."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer


class Streams(Asyncio):
    """StreamReader.read, StreamWriter.drain, open_connection. A server calls back: no accept."""

    waits = ("read", "write", "dial")

    async def wrap(self, sock):
        return Stream(*await asyncio.open_connection(sock=sock))

    async def read(self, stream):
        return await stream.reader.read(1 << 16)

    async def write(self, stream, data):
        stream.writer.write(data)
        return await stream.writer.drain()

    async def close(self, stream):
        stream.writer.close()

    def set_deadline(self, stream, seconds):
        parts = (stream.reader, stream.writer, stream.writer.transport)
        return any("timeout" in name or "deadline" in name for part in parts for name in dir(part))

    def fileno(self, stream):
        return stream.writer.get_extra_info("socket").fileno()

    async def dial(self, handle, addr, deadline):
        return Stream(*await asyncio.open_connection(*addr, **deadline))
