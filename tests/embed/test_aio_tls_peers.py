"""TLS on an EventLoop, with openssl's s_server or a blocking socket at the other end.

s_server can do what Python's ssl cannot ask for: renegotiate (TLS 1.2) and change its keys (1.3).
"""

import asyncio
import contextlib
import logging
import random
import socket
import ssl

import pytest

from embed.same import until
from gopoll.embed import aio
from net.certs import certs
from net.test_tls_peers import s_server

AGAIN = {"1.2": b"r\n", "1.3": b"K\n"}


class Gathered(asyncio.Protocol):
    """Keep what comes."""

    def __init__(self):
        self.data = b""
        self.lost = asyncio.get_running_loop().create_future()

    def data_received(self, data):
        self.data += data

    def connection_lost(self, exc):
        self.lost.set_result(exc)


class Counted:
    """What is told of what comes from below, and passes it on to *tls*."""

    def __init__(self, tls):
        self.tls, self.times = tls, 0

    def data_received(self, data):
        self.times += 1
        self.tls.data_received(data)

    def __getattr__(self, name):
        return getattr(self.tls, name)


def context_for(version):
    """Return a client's context for *version* alone, which lets the server renegotiate."""
    ctx = certs().client_context()
    ctx.minimum_version = ctx.maximum_version = getattr(
        ssl.TLSVersion, f"TLSv{version.replace('.', '_')}"
    )
    ctx.options &= ~ssl.OP_NO_RENEGOTIATION
    return ctx


@pytest.mark.parametrize("paused", [False, True], ids=["reading", "paused"])
@pytest.mark.parametrize("version", AGAIN)
def test_a_server_that_begins_again_beside_what_is_written(version, paused):
    """Y11: a write may have to read first, and then OpenSSL has read what SSL_read gives."""

    async def main(server, address):
        loop = asyncio.get_running_loop()
        transport, client = await loop.create_connection(
            Gathered, *address, ssl=context_for(version), server_hostname="localhost"
        )
        below = Counted(transport._ssl_protocol)
        below._transport.set_protocol(below)
        transport.write(b"begin\n")
        await loop.run_in_executor(None, server.hear, b"begin\n")
        for i in range(12):
            if paused:
                transport.pause_reading()
            before = below.times
            server.type(AGAIN[version])
            await until(lambda before=before: below.times > before)
            await asyncio.sleep(0.002 * (i % 3))
            for j in range(3):
                transport.write(b"line %d of %d\n" % (j, i))
            if paused:
                transport.resume_reading()
            await loop.run_in_executor(None, server.hear, b"line 2 of %d\n" % i)
        for i in range(12):
            server.hear(*(b"line %d of %d\n" % (j, i) for j in range(3)))
        while not client.data:  # s_server drops what is typed while it shakes hands
            server.type(b"answer\n")
            await asyncio.sleep(0.1)
        assert client.data.startswith(b"answer\n")
        transport.abort()
        await client.lost

    with s_server(version) as (server, address):
        aio.run(asyncio.wait_for(main(server, address), 60))


def test_streams_over_tls_against_a_blocking_socket(caplog):
    """A peer that is neither loop's: whole records and parts of them."""
    caplog.set_level(logging.WARNING)
    a, b = socket.socketpair()
    serving, ctx = certs().server_context(), certs().client_context()

    def peer():
        raw = serving.wrap_socket(b, server_side=True)
        with raw:
            while data := raw.recv(1 << 16):
                raw.sendall(data)
            with contextlib.suppress(OSError):
                raw.unwrap()

    async def program():
        loop = asyncio.get_running_loop()
        done = loop.run_in_executor(None, peer)
        reader, writer = await asyncio.open_connection(sock=a, ssl=ctx, server_hostname="localhost")
        rnd = random.Random(3)
        for _ in range(200):
            data = rnd.randbytes(rnd.choice((1, 700, 20_000, 100_000)))
            writer.write(data)
            await writer.drain()
            assert await reader.readexactly(len(data)) == data
        writer.close()
        await writer.wait_closed()
        await done

    aio.run(asyncio.wait_for(program(), 60))
    assert caplog.records == []


def in_a_hurry(port):
    """Ask for TLS, shake hands without waiting for leave, and return what the echo says."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = certs().client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")

    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sent = b"STARTTLS\n"

        def until_done(step, *args):
            nonlocal sent
            while True:
                try:
                    result = step(*args)
                except ssl.SSLWantReadError:
                    result = None
                sock.sendall(sent + outgoing.read())
                sent = b""
                if result is not None or (step == tls.do_handshake and tls.version()):
                    return result
                incoming.write(sock.recv(65536))

        until_done(tls.do_handshake)
        until_done(tls.write, b"hello\n")
        return until_done(tls.read, 100)


def test_a_hello_that_comes_with_the_starttls_is_the_handshakes():
    async def serve(reader, writer):
        assert await reader.readline() == b"STARTTLS\n"
        await writer.start_tls(certs().server_context())
        writer.write(await reader.readline())
        writer.close()

    async def main():
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with asyncio.timeout(30):
                assert await asyncio.to_thread(in_a_hurry, port) == b"hello\n"

    aio.run(main())
