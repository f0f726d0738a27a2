"""TLS for programs: client, server, dial_tls and a listener. What they return is in tlsconn.

Called in goroutines.
Go: crypto/tls/tls.go (go1.27).
"""

from __future__ import annotations

import errno
import os
import ssl
import threading
import time
from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING, Protocol

from gopoll.errors import (
    Addr,
    DeadlineExceeded,
    deadline_error,
    op_error,
)
from gopoll.net.addr import parse_network, split_host_port
from gopoll.net.checks import check_has, check_seconds, check_server_hostname
from gopoll.net.conn import Conn
from gopoll.net.dial import Dialer
from gopoll.net.listener import ListenerBase
from gopoll.net.tlsconn import TLSConn
from gopoll.runtime._sched import current_g
from gopoll.runtime.blocking import blocking
from gopoll.runtime.scope import deadline

__all__ = ["TLSConn", "TLSListener", "client", "dial_tls", "listener", "server"]


async def client(
    conn: Conn,
    ctx: ssl.SSLContext | None = None,
    *,
    server_hostname: str | None = None,
    alpn: Iterable[str] = (),
    session: ssl.SSLSession | None = None,
) -> TLSConn:
    """Shake hands with the server at the other end of *conn*; return the TLS connection. An op.

    ctx: None is ssl.create_default_context() without renegotiation, made once.
    server_hostname: asked for (SNI) and looked for in the certificate; needed unless
        ctx.check_hostname is off. May be an IP address.
    alpn: protocols to choose from, best first; they are set on *ctx*, for later connections too.
    session: that of an earlier TLSConn made with *ctx*, to be resumed.

    *conn* belongs to the TLS connection, and is closed if this raises: an OpError of the handshake
    (see TLSConn.handshake), a cancellation, or ValueError. Its deadlines hold, and those of the
    ambient context. Go: tls.Client and HandshakeContext.
    """
    _check_conn(conn)
    try:
        check_server_hostname(server_hostname)
        protocols = _alpn_list(alpn)
        if ctx is None:
            ctx = await _default_context(protocols)
        if not server_hostname and _check_context(ctx).check_hostname:
            raise ValueError(
                "server_hostname is missing: the certificate is checked for it "
                "(SSLContext.check_hostname)"
            )
        made = _wrap(conn, ctx, protocols, server_hostname=server_hostname or None, session=session)
        await made.handshake()
    except BaseException:
        conn.close()
        raise
    return made


async def server(conn: Conn, ctx: ssl.SSLContext, *, alpn: Iterable[str] = ()) -> TLSConn:
    """Shake hands with the client at the other end of *conn*; return the TLS connection. An op.

    ctx: has the certificate, and what clients must show. alpn: protocols to choose from, best
    first; they are set on *ctx*. *conn* belongs to the TLS connection, and is closed if this
    raises; see client(). Go: tls.Server and HandshakeContext.
    """
    _check_conn(conn)
    try:
        made = _wrap(conn, ctx, _alpn_list(alpn), server_side=True)
        await made.handshake()
    except BaseException:
        conn.close()
        raise
    return made


async def dial_tls(
    network: str,
    address: Addr | os.PathLike[str],
    *,
    ssl_context: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    alpn: Iterable[str] = (),
    timeout: float | None = None,
) -> TLSConn:
    """Dial, then shake hands, both within *timeout* seconds. An op. Go: tls.Dial.

    server_hostname: None is the host in *address*. The others are those of tls.client. Raises what
    dial() raises, and OpError "handshake", which is a DeadlineExceeded when the time is over.
    """
    check_server_hostname(server_hostname)
    if ssl_context is not None:
        _check_context(ssl_context, "ssl_context")
    if timeout is not None:
        check_seconds("timeout", timeout)
    when = None if timeout is None else time.monotonic() + timeout
    if server_hostname is None:
        server_hostname = _host_of(network, address)
    conn = await Dialer(deadline=when).dial(network, address)
    local, remote = conn.local_addr, conn.remote_addr
    shake = client(conn, ssl_context, server_hostname=server_hostname, alpn=alpn)
    try:
        if current_g() is None:
            return await _by_deadline(conn, when, shake)
        async with deadline(when):
            return await shake
    except DeadlineExceeded as exc:
        raise deadline_error("handshake", network, local, remote) from exc


async def _by_deadline(conn: Conn, when: float | None, shake: Awaitable[TLSConn]) -> TLSConn:
    """Await *shake* in a task of a guest's host, where there is no ambient context to end it."""
    conn.set_deadline(when)
    try:
        made = await shake
    except TimeoutError as exc:
        raise DeadlineExceeded from exc
    conn.set_deadline(None)
    return made


def _host_of(network: str, address: object) -> str | None:
    """Return the host that *address* names, as a certificate has it; None for a Unix socket.

    Go: tls.DialWithDialer, hostnameInSNI.
    """
    base = parse_network(network, op="dial").base
    if base == "unix":
        return None
    if base != "tcp":
        error = OSError(errno.EPROTONOSUPPORT, f"TLS needs a stream, and {network} is none")
        raise op_error("dial", network, None, None, error)
    host, _ = split_host_port(address, op="dial", net=network)
    return host.partition("%")[0].removesuffix(".")


# -- listening


class _Listener(Protocol):
    """What listener() wraps."""

    def accept(self) -> Awaitable[Conn]: ...

    @property
    def addr(self) -> Addr: ...

    @property
    def network(self) -> str: ...

    @property
    def is_closed(self) -> bool: ...

    def set_deadline(self, when: float | None) -> None: ...

    def close(self) -> Awaitable[None]: ...

    def wait_closed(self) -> Awaitable[None]: ...


def listener(inner: _Listener, ctx: ssl.SSLContext, *, alpn: Iterable[str] = ()) -> TLSListener:
    """Return a listener whose connections speak TLS; *inner* belongs to it. Go: tls.NewListener.

    accept() does not shake hands, lest a slow client keep the others waiting: the first read or
    write on the connection does, or its handshake(). ctx and alpn: as for server().
    """
    check_has("inner", inner, ("accept", "close"), "an object with accept() and close()")
    return TLSListener(inner, ctx, alpn=alpn)


class TLSListener(ListenerBase):
    """A listener whose accept() returns TLS connections. Made by listener()."""

    if TYPE_CHECKING:

        async def __anext__(self) -> TLSConn: ...

    def __init__(self, inner: _Listener, ctx: ssl.SSLContext, *, alpn: Iterable[str] = ()) -> None:
        """Wrap *inner*."""
        self._inner = inner
        self._ctx = _check_context(ctx)
        self._alpn = _alpn_list(alpn)

    async def accept(self) -> TLSConn:
        """Wait for a connection and return it; the handshake is still to come. An op.

        Raises ClosedError, TimeoutError (deadline), or another OpError.
        """
        conn = await self._inner.accept()
        try:
            return _wrap(conn, self._ctx, self._alpn, server_side=True)
        except BaseException:
            conn.close()
            raise

    @property
    def addr(self) -> Addr:
        """The address it listens on."""
        return self._inner.addr

    @property
    def network(self) -> str:
        """The network of the listener below."""
        return self._inner.network

    @property
    def is_closed(self) -> bool:
        """Whether close() has been called."""
        return self._inner.is_closed

    def set_deadline(self, when: float | None) -> None:
        """Set the deadline of accept (time.monotonic() seconds); None clears. Any thread."""
        self._inner.set_deadline(when)

    def close(self) -> Awaitable[None]:
        """Stop listening; a second call does nothing. Any thread, never blocks."""
        return self._inner.close()

    def wait_closed(self) -> Awaitable[None]:
        """Return an awaitable that is done when the listener is really closed."""
        return self._inner.wait_closed()


# -- contexts


# Guards _defaults, and a context between the protocols that are set on it and the connection that
# copies them.
_lock = threading.Lock()
_defaults: dict[tuple[str, ...], ssl.SSLContext] = {}
_MAX_DEFAULTS = 16  # lists of protocols


async def _default_context(alpn: tuple[str, ...]) -> ssl.SSLContext:
    """Return the context of clients that bring none: one for each list of protocols."""
    ctx = _defaults.get(alpn)
    return ctx if ctx is not None else await blocking(_make_default, alpn)


def _make_default(alpn: tuple[str, ...]) -> ssl.SSLContext:
    """Make one, off the loop: to read the system's certificates takes its time."""
    made = ssl.create_default_context()
    made.options |= ssl.OP_NO_RENEGOTIATION  # as Go's clients
    with _lock:
        while len(_defaults) >= _MAX_DEFAULTS:
            del _defaults[next(iter(_defaults))]
        return _defaults.setdefault(alpn, made)


def _wrap(
    conn: Conn,
    ctx: ssl.SSLContext,
    alpn: tuple[str, ...],
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
    session: ssl.SSLSession | None = None,
) -> TLSConn:
    """Return *conn* with TLS, before the handshake."""
    _check_context(ctx)
    with _lock:
        if alpn:
            ctx.set_alpn_protocols(list(alpn))
        return TLSConn(
            conn, ctx, server_side=server_side, server_hostname=server_hostname, session=session
        )


def _check_conn(conn: object) -> None:
    if not isinstance(conn, Conn):
        raise TypeError(f"conn must be a Conn, not {type(conn).__name__}")


def _check_context(ctx: ssl.SSLContext, name: str = "ctx") -> ssl.SSLContext:
    if not isinstance(ctx, ssl.SSLContext):
        raise TypeError(f"{name} must be an ssl.SSLContext, not {type(ctx).__name__}")
    return ctx


def _alpn_list(alpn: Iterable[str]) -> tuple[str, ...]:
    if isinstance(alpn, (str, bytes)):
        raise TypeError(f"alpn must be a list of protocols, not {type(alpn).__name__}")
    protocols = tuple(alpn)
    for protocol in protocols:
        if not isinstance(protocol, str):
            raise TypeError(f"alpn must be a list of str, not of {type(protocol).__name__}")
        if not (protocol.isascii() and 0 < len(protocol) < 256):
            raise ValueError(f"alpn: {protocol!r} is no protocol (1 to 255 ASCII characters)")
    return protocols
