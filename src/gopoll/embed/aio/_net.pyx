"""NetCalls: what EventLoop does for each connection: to accept it, to connect, to make a transport.

Called by asyncio's servers, by tasks and by the loop, on the loop's thread. What is the same as
ever is done here; where a name is to be looked up, TLS or another option is asked for, or in debug
mode, asyncio's own code does it, with our sockets' calls and transports.
"""

import os
import socket
from asyncio import base_events

from cpython.contextvars cimport PyContext_CopyCurrent

from gopoll._sockaddr cimport AF_INET, AF_INET6, AF_UNIX, SOCK_NONBLOCK, socklen_t
from gopoll.embed.aio._calls cimport (IPPROTO_TCP, SOCK_STREAM, Address, Kind, accept, kind_of,
                                      read_address, socket_type, write_address)
from gopoll.embed.aio._loop cimport LoopCore
from gopoll.embed.aio._sockop cimport ConnectOp

from gopoll.embed.aio._transport import SocketTransport


cdef extern from *:
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1


cdef bint _is_usual(LoopCore loop, dict options) except -1:
    """Whether nothing but the address is asked for; not where somebody has replaced sockets."""
    return not options and not loop._debug and base_events.socket is socket


cdef object _literal(host, port):
    """Return (family, address) of *host* and *port* if neither is to be looked up, else None."""
    cdef Address raw
    address = (host, port)
    if write_address(address, AF_INET, &raw):
        return AF_INET, address
    if write_address(address, AF_INET6, &raw):
        return AF_INET6, (host, port, 0, 0)
    return None


async def create_connection(loop, protocol_factory, int family, int proto, address):
    """Connect to *address*, and give that to a protocol: (transport, protocol). OSError."""
    sock = socket.socket(family, SOCK_STREAM | SOCK_NONBLOCK, proto)
    try:
        op = loop.sock_connect(sock, address)
        await op
    except BaseException:
        sock.close()
        raise
    peer = (<ConnectOp>op).peer if type(op) is ConnectOp else None
    protocol = protocol_factory()
    waiter = loop.create_future()
    transport = loop._make_socket_transport(
        sock, protocol, waiter, extra=None if peer is None else {"peername": peer})
    try:
        await waiter
    except BaseException:
        transport.close()
        raise
    return transport, protocol


cdef int _accepted(LoopCore loop, protocol_factory, conn, address, server, context) except -1:
    """Make the transport of an accepted connection; what the factory raises ends it.

    *context*: the server's, since 3.15; else None.
    """
    context = PyContext_CopyCurrent() if context is None else context.copy()
    PyContext_Enter(context)
    try:
        SocketTransport(loop, conn, protocol_factory(), None, {"peername": address}, server,
                        context)
    except BaseException as exc:
        conn.close()
        if isinstance(exc, (SystemExit, KeyboardInterrupt)):
            raise
        if loop._debug:
            message = "Error on transport creation for incoming connection"
            loop.call_exception_handler({"message": message, "exception": exc})
    finally:
        PyContext_Exit(context)
    return 0


cdef bint _has_own_calls(sock) except -1:
    """Whether the class of *sock* has a way of its own to send or receive, as a proxy's may."""
    kind = type(sock)
    if kind is not socket_type:
        for name in ("recv", "recv_into", "send", "sendmsg"):
            if getattr(kind, name, None) is not getattr(socket_type, name):
                return True
    return False


class NetCalls:
    """The calls of a loop that make connections."""

    def _accept_connection(self, protocol_factory, sock, sslcontext=None, server=None, backlog=100,
                           *options):
        """Accept what is there, without a task for each connection, which TLS needs."""
        cdef Kind kind
        cdef Address address
        cdef socklen_t size
        cdef int fd, listener = -1
        backlog = max(backlog, 1)  # which says how many a turn, too: 0 would leave them there
        if sslcontext is None and type(sock) is socket_type:
            kind_of(sock, &kind)
            if kind.family in (AF_INET, AF_INET6, AF_UNIX):
                listener = sock.fileno()
            for _ in range(backlog):
                try:
                    fd = accept(listener, &address, &size)
                except OSError:
                    break  # it comes again, and is asyncio's to tell of
                if fd < 0:
                    return
                try:
                    peer = read_address(&address, size)
                    conn = socket_type(kind.family, kind.type | SOCK_NONBLOCK, kind.proto, fd)
                except BaseException:
                    os.close(fd)
                    raise
                if (<LoopCore>self)._debug:
                    told = "%r got a new connection from %r: %r"
                    base_events.logger.debug(told, server, peer, conn)
                _accepted(self, protocol_factory, conn, peer, server,
                          options[2] if len(options) > 2 else None)
            else:
                return
        super()._accept_connection(protocol_factory, sock, sslcontext, server, backlog, *options)

    def _ensure_fd_no_transport(self, fd):
        number = fd.fileno() if type(fd) is socket_type else fd
        if type(number) is not int or self._transports.get(number) is not None:
            super()._ensure_fd_no_transport(fd)

    def _make_socket_transport(self, sock, protocol, waiter=None, *, extra=None, server=None,
                               context=None):
        self._ensure_fd_no_transport(sock)
        if _has_own_calls(sock):
            options = {} if context is None else {"context": context}
            return super()._make_socket_transport(sock, protocol, waiter, extra=extra,
                                                  server=server, **options)
        return SocketTransport(self, sock, protocol, waiter, extra, server, context)

    def create_connection(self, protocol_factory, host=None, port=None, **options):
        """Connect to *host* and *port*: (transport, protocol)."""
        if _is_usual(self, options):
            found = _literal(host, port)
            if found is not None:
                family, address = found
                return create_connection(self, protocol_factory, family, IPPROTO_TCP, address)
        return super().create_connection(protocol_factory, host, port, **options)

    def create_unix_connection(self, protocol_factory, path=None, **options):
        """Connect to the Unix socket *path*: (transport, protocol)."""
        if type(path) is str and _is_usual(self, options):
            return create_connection(self, protocol_factory, AF_UNIX, 0, path)
        return super().create_unix_connection(protocol_factory, path, **options)
