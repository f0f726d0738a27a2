"""What is asked of a socket object, without the Python of class socket, and of asyncio's Server.

Called by _stream, _sockop and EventLoop, on the loop's thread. The system calls are in the .pxd.
"""

import os
import sys

import _socket

from cpython.buffer cimport PyBUF_WRITABLE, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_FromString
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, errno

from gopoll._sockaddr cimport AF_INET, AF_INET6, SOCK_CLOEXEC, SOCK_NONBLOCK, accept4, socklen_t


cdef extern from "<string.h>" nogil:
    size_t strnlen(const char *text, size_t most)

cdef object _base = _socket.socket
cdef object _family = _socket.socket.family.__get__
cdef object _type = _socket.socket.type.__get__
cdef object _proto = _socket.socket.proto.__get__
cdef bint NAMED = sys.version_info >= (3, 13)    # asyncio.Server knows its transports


cdef bint is_tcp(sock) except -1:
    """Whether *sock* is a plain TCP socket."""
    cdef int family, proto
    if not issubclass(type(sock), _base):
        return False
    family, proto = _family(sock), _proto(sock)
    return ((family == AF_INET or family == AF_INET6) and <int>_type(sock) == SOCK_STREAM
            and (proto == 0 or proto == IPPROTO_TCP))


def accept(int fd):
    """Accept a connection of the listener *fd*, of TCP or Unix: (descriptor, address), or None.

    As accept() of socket, but the descriptor does not block, and nothing to accept is no exception.
    OSError.
    """
    cdef Address address
    cdef socklen_t size
    cdef int conn
    while True:
        size = sizeof(address)
        with nogil:                      # a listener that somebody has made to block would
            conn = accept4(fd, &address.any, &size, SOCK_CLOEXEC | SOCK_NONBLOCK)
        if conn >= 0:
            break
        if errno == EAGAIN or errno == ECONNABORTED:
            return None
        if errno != EINTR:
            raise os_error(errno)
    try:
        return conn, _read_address(&address, size)
    except BaseException:
        os.close(conn)
        raise


cdef object _read_address(Address *address, socklen_t size):
    """Return *address*, of *size* bytes, as socket has it."""
    cdef char text[64]
    cdef Py_ssize_t n
    if address.any.sa_family == AF_INET:
        inet_ntop(AF_INET, &address.v4.sin_addr, text, sizeof(text))
        return PyUnicode_FromString(text), ntohs(address.v4.sin_port)
    if address.any.sa_family == AF_INET6:
        inet_ntop(AF_INET6, &address.v6.sin6_addr, text, sizeof(text))
        return (PyUnicode_FromString(text), ntohs(address.v6.sin6_port),
                ntohl(address.v6.sin6_flowinfo), address.v6.sin6_scope_id)
    n = <Py_ssize_t>size - (<char *>address.un.sun_path - <char *>address)
    if n <= 0:
        return ""
    if address.un.sun_path[0] == 0:
        return PyBytes_FromStringAndSize(address.un.sun_path, n)      # abstract
    n = strnlen(address.un.sun_path, n)
    return os.fsdecode(PyBytes_FromStringAndSize(address.un.sun_path, n))


cdef object os_error(int err):
    """Return the OSError of *err*."""
    return OSError(err, os.strerror(err))


cdef int get_writable(buf, Py_buffer *view) except -1:
    """Get *view* of *buf* to read into. What cannot be is socket's own TypeError."""
    try:
        return PyObject_GetBuffer(buf, view, PyBUF_WRITABLE)
    except (BufferError, TypeError):
        raise TypeError("recv_into() argument 1 must be read-write bytes-like object, "
                        f"not {'None' if buf is None else type(buf).__name__}") from None


cdef int attach(server, transport) except -1:
    """Tell asyncio's *server* of a connection."""
    if NAMED:
        server._attach(transport)
    else:
        server._attach()
    return 0


cdef int detach(server, transport) except -1:
    """Tell asyncio's *server* that a connection has ended."""
    if NAMED:
        server._detach(transport)
    else:
        server._detach()
    return 0
