"""TLS on an EventLoop, with openssl's s_server at the other end.

It can do what Python's ssl cannot ask for: renegotiate (TLS 1.2) and change its keys (TLS 1.3).
"""

import asyncio
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
        said = b""
        for i in range(12):
            if paused:
                transport.pause_reading()
            before = below.times
            server.type(AGAIN[version])  # and nothing else: what it reads with it is dropped
            await until(lambda before=before: below.times > before)
            answer = b"answer %d\n" % i
            server.type(answer)
            said += answer
            await asyncio.sleep(0.002 * (i % 3))
            for j in range(3):
                transport.write(b"line %d of %d\n" % (j, i))
            if paused:
                transport.resume_reading()
            await loop.run_in_executor(None, server.hear, b"line 2 of %d\n" % i)
            await until(lambda said=said: client.data == said)
        for i in range(12):
            server.hear(*(b"line %d of %d\n" % (j, i) for j in range(3)))
        transport.abort()
        await client.lost

    with s_server(version) as (server, address):
        aio.run(asyncio.wait_for(main(server, address), 60))
