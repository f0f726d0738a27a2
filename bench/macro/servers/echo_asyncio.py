"""Echo servers on asyncio, uvloop and rloop: Protocol, BufferedProtocol, streams, loop.sock_*.

Started by measure.py. A name that ends in -shipped has the library as it comes; the others have
what serves them best here. asyncio's transports read 256 KiB at a time, which makes a bytes object
of that size for each message, mapped and unmapped by the C library: here they read 64 KiB. rloop
does the same and cannot be told: rivals.py has the C library keep such blocks. uvloop reads 256 KiB
into a buffer that all its connections share, which costs nothing. Streams keep their limit of
64 KiB. Transports set NODELAY themselves; the listening socket has it too, for sock_*.
"""

import asyncio
import contextlib
import importlib

from listening import BACKLOG, READ_BYTES, announce, listen, start


class Echo(asyncio.Protocol):
    """Echo as transports would have it: a call for what has come."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    """The same out of a buffer for each connection; a part that is kept back is copied."""

    def __init__(self):
        self.buffer = memoryview(bytearray(READ_BYTES))

    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, size_hint):
        return self.buffer

    def buffer_updated(self, count):
        self.transport.write(bytes(self.buffer[:count]))


async def forever(server, address):
    """Keep *server*, which serves already: rloop's serve_forever() would begin again and fail."""
    announce(address)
    await asyncio.get_running_loop().create_future()
    server.close()


def protocol(make):
    """Return a server of one Protocol object for each connection."""

    async def main():
        loop, listener = asyncio.get_running_loop(), listen()
        address = listener.getsockname()
        server = await loop.create_server(make, sock=listener, backlog=BACKLOG)
        await forever(server, address)

    return main


async def streams():
    """Serve with a task for each connection, and drain() after each write, as the manual says."""

    async def echo(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(READ_BYTES):
                writer.write(data)
                await writer.drain()
        writer.close()

    listener = listen()
    address = listener.getsockname()
    server = await asyncio.start_server(echo, sock=listener, backlog=BACKLOG)
    await forever(server, address)


async def socks():
    """Serve with a task for each connection and the loop's own socket calls."""
    loop, tasks = asyncio.get_running_loop(), set()

    async def echo(sock):
        with sock, contextlib.suppress(OSError):
            while data := await loop.sock_recv(sock, READ_BYTES):
                await loop.sock_sendall(sock, data)

    listener = listen()
    announce(listener.getsockname())
    while True:
        sock, _ = await loop.sock_accept(listener)
        task = loop.create_task(echo(sock))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


def on(loop, main, *, as_shipped=False):
    """Return a server that runs *main* on a loop: asyncio, uvloop or rloop."""

    def run():
        if loop == "asyncio" and not as_shipped:
            asyncio.selector_events._SelectorTransport.max_size = READ_BYTES
        make = importlib.import_module(loop).new_event_loop
        with asyncio.Runner(loop_factory=make) as runner:
            runner.run(main())

    return run


STYLES = {"proto": protocol(Echo), "streams": streams, "sock": socks}

SERVERS = {
    f"{loop}-{style}": on(loop, main)
    for loop in ("asyncio", "uvloop", "rloop")
    for style, main in STYLES.items()
} | {
    "uvloop-bufproto": on("uvloop", protocol(BufferedEcho)),
    "asyncio-proto-shipped": on("asyncio", protocol(Echo), as_shipped=True),
    "asyncio-streams-shipped": on("asyncio", streams, as_shipped=True),
    "rloop-proto-shipped": on("rloop", protocol(Echo)),
    "rloop-streams-shipped": on("rloop", streams),
}

if __name__ == "__main__":
    start(SERVERS)
