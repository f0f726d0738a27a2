"""trio's own waits: SocketStream and SocketListener, and the sockets below them. See base.py."""

import functools

import trio

from embed.hosts import Trio
from embed.waits.base import Lib
from embed.waits.on_gopoll import trio_limit


class TrioSocket(Lib):
    """trio.socket."""

    Cancelled = trio.Cancelled
    dial_closes = True

    def __init__(self):
        super().__init__()
        self.host = Trio("trio")

    def run(self, main, *args):
        return self.host.run(functools.partial(main, *args))

    def start(self, fn, *args):
        return self.host.start(fn, *args)

    def is_done(self, task):
        return task.done

    def cancel(self, task):
        task.cancel()

    async def turn(self):
        await self.host.turn()

    def limit(self, seconds):
        return trio_limit(trio, seconds)

    async def wrap(self, sock):
        return trio.socket.from_stdlib_socket(sock)

    async def read(self, sock):
        return await sock.recv(1 << 16)

    async def write(self, sock, data):
        """Send *data*: there is no sendall, so this is the loop that everybody writes."""
        with memoryview(data) as view:
            sent = 0
            while sent < len(view):
                sent += await sock.send(view[sent:])

    async def close(self, sock):
        sock.close()

    def set_deadline(self, sock, seconds):
        return any("timeout" in name or "deadline" in name for name in dir(sock))

    async def listen(self, sock):
        return trio.socket.from_stdlib_socket(sock)

    async def accept(self, listener):
        return (await listener.accept())[0]

    def fileno(self, it):
        return it.fileno()

    def dialler(self):
        return trio.socket.socket()

    async def dial(self, sock, addr, deadline):
        await sock.connect(addr, **deadline)
        return sock


class TrioStream(TrioSocket):
    """SocketStream, SocketListener, open_tcp_stream."""

    dial_closes = False

    async def wrap(self, sock):
        return trio.SocketStream(await super().wrap(sock))

    async def read(self, stream):
        return await stream.receive_some()

    async def write(self, stream, data):
        return await stream.send_all(data)

    async def close(self, closable):
        await closable.aclose()

    async def listen(self, sock):
        return trio.SocketListener(await super().listen(sock))

    async def accept(self, listener):
        return await listener.accept()

    def fileno(self, it):
        return it.socket.fileno()

    async def dial(self, handle, addr, deadline):
        return await trio.open_tcp_stream(*addr, **deadline)
