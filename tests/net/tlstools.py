"""What the tests of TLS share: connected ends, and ways to read what comes.

Called by tests, in a goroutine.
"""

from __future__ import annotations

import contextlib
import random
import ssl
from collections.abc import AsyncIterator
from typing import Any

from gopoll.net import tls
from gopoll.net.conn import Conn
from gopoll.net.tlsconn import TLSConn
from gopoll.runtime.goroutine import go
from net.certs import certs
from net.tools import pair

DATA = random.Random(5).randbytes(1 << 20)


@contextlib.asynccontextmanager
async def tls_pair(
    server: ssl.SSLContext | None = None, client: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[tuple[TLSConn, TLSConn]]:
    """Connect two ends over TCP, hands shaken: the client and the server.

    The contexts are certs()'s unless given; *options* are tls.client's.
    """
    server = server or certs().server_context()
    client = client or certs().client_context()
    options.setdefault("server_hostname", "localhost")
    async with pair() as (a, b):
        accepting = go(tls.server, b, server)
        async with await tls.client(a, client, **options) as one:
            async with await accepting as two:
                yield one, two


async def over(a: Conn, b: Conn) -> tuple[TLSConn, TLSConn]:
    """Return both ends of TLS over *a* and *b*."""
    accepting = go(tls.server, b, certs().server_context())
    one = await tls.client(a, certs().client_context(), server_hostname="localhost")
    return one, await accepting


async def read_all(conn: Conn, n: int = 65536) -> bytes:
    """Read to the end."""
    got = bytearray()
    while data := await conn.read(n):
        got += data
    return bytes(got)


async def read_exactly(conn: Conn, n: int) -> bytes:
    """Read *n* bytes."""
    got = bytearray()
    while len(got) < n:
        data = await conn.read(n - len(got))
        assert data, f"the end after {len(got)} of {n} bytes"
        got += data
    return bytes(got)
