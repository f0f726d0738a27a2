"""Echo servers on asyncio, uvloop and rloop: Protocol, BufferedProtocol, streams, loop.sock_*.

Started by measure.py. A name that ends in -shipped has the library as it comes; the others have
what serves them best here. asyncio's transports read 256 KiB at a time, which makes a bytes object
of that size for each message: here they read 64 KiB. rloop does the same and cannot be told. The C
library is told to keep such blocks, but for -shipped (processes.py). uvloop reads 256 KiB into a
buffer that all its connections share, which costs nothing. Streams keep their limit of 64 KiB.
Transports set NODELAY themselves; the listening socket has it too, for sock_*.

Where reads have deadlines: a Protocol moves a timer of the loop, as is usual, by making a new one;
coroutines use asyncio.timeout(). -tls: the same over TLS, on the loop's own transports.
"""

import asyncio
import contextlib
import importlib

import beside
from listening import BACKLOG, READ_BYTES, announce, listen, start


class Echo(asyncio.Protocol):
    """Echo as transports would have it: a call for what has come."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class EchoInTime(Echo):
    """The same; a connection that says nothing for too long is cut off."""

    def connection_made(self, transport):
        super().connection_made(transport)
        self.loop = asyncio.get_running_loop()
        self.set_timer()

    def set_timer(self):
        self.timer = self.loop.call_later(beside.DEADLINE_SECONDS, self.transport.close)

    def data_received(self, data):
        self.transport.write(data)
        self.timer.cancel()
        self.set_timer()

    def connection_lost(self, exc):
        self.timer.cancel()


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


async def block():
    """Block, over and over."""
    while True:
        if beside.what() == "syscall":
            await asyncio.to_thread(beside.block)
        else:
            beside.block()
        await asyncio.sleep(beside.REST_SECONDS)


def blocker():
    """Start a task that blocks, if it was asked for; the caller has to keep it."""
    return asyncio.create_task(block()) if beside.what() in beside.BLOCKING else None


def context():
    """Return what a server needs to speak TLS, None for one that does not."""
    if beside.certificate() is None:
        return None
    import ssl

    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(beside.certificate())
    return made


async def forever(server, address):
    """Keep *server*, which serves already: rloop's serve_forever() would begin again and fail."""
    task = blocker()
    announce(address)
    await (task or asyncio.get_running_loop().create_future())
    server.close()


def protocol(make):
    """Return a server of one Protocol object for each connection."""

    async def main():
        loop, listener = asyncio.get_running_loop(), listen()
        address = listener.getsockname()
        server = await loop.create_server(make, sock=listener, backlog=BACKLOG, ssl=context())
        await forever(server, address)

    return main


async def streams():
    """Serve with a task for each connection, and drain() after each write, as the manual says."""

    async def echo(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(READ_BYTES):
                writer.write(data)
                del data  # not kept while it waits
                await writer.drain()
        writer.close()

    async def echo_in_time(reader, writer):
        with contextlib.suppress(OSError):
            while True:
                async with asyncio.timeout(beside.DEADLINE_SECONDS):
                    data = await reader.read(READ_BYTES)
                if not data:
                    break
                writer.write(data)
                del data
                await writer.drain()
        writer.close()

    listener = listen()
    address = listener.getsockname()
    handler = echo_in_time if beside.what() == "deadlines" else echo
    server = await asyncio.start_server(handler, sock=listener, backlog=BACKLOG, ssl=context())
    await forever(server, address)


async def socks():
    """Serve with a task for each connection and the loop's own socket calls."""
    loop, tasks = asyncio.get_running_loop(), set()

    async def echo(sock):
        with sock, contextlib.suppress(OSError):
            while data := await loop.sock_recv(sock, READ_BYTES):
                await loop.sock_sendall(sock, data)
                del data

    async def echo_in_time(sock):
        with sock, contextlib.suppress(OSError):
            while True:
                async with asyncio.timeout(beside.DEADLINE_SECONDS):
                    data = await loop.sock_recv(sock, READ_BYTES)
                if not data:
                    break
                await loop.sock_sendall(sock, data)
                del data

    listener = listen()
    tasks.add(blocker())
    handler = echo_in_time if beside.what() == "deadlines" else echo
    announce(listener.getsockname())
    while True:
        sock, _ = await loop.sock_accept(listener)
        task = loop.create_task(handler(sock))
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


PLAIN = EchoInTime if beside.what() == "deadlines" else Echo
STYLES = {"proto": protocol(PLAIN), "streams": streams, "sock": socks}

SERVERS = (
    {
        f"{loop}-{style}": on(loop, main)
        for loop in ("asyncio", "uvloop", "rloop")
        for style, main in STYLES.items()
    }
    | {f"gopoll-aio-{style}": on("gopoll.embed.aio", main) for style, main in STYLES.items()}
    | {
        f"{loop}-tls-{style}": on(loop, STYLES[style])
        for loop in ("asyncio", "uvloop")
        for style in ("proto", "streams")
    }
    | {
        f"gopoll-aio-tls-{style}": on("gopoll.embed.aio", STYLES[style])
        for style in ("proto", "streams")
    }
    | {
        "uvloop-bufproto": on("uvloop", protocol(BufferedEcho)),
        "gopoll-aio-bufproto": on("gopoll.embed.aio", protocol(BufferedEcho)),
        "asyncio-proto-shipped": on("asyncio", protocol(Echo), as_shipped=True),
        "asyncio-streams-shipped": on("asyncio", streams, as_shipped=True),
        "rloop-proto-shipped": on("rloop", protocol(Echo)),
        "rloop-streams-shipped": on("rloop", streams),
    }
)

if __name__ == "__main__":
    start(SERVERS)
