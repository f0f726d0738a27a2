"""What is asked of a socket object, without the Python of class socket, and of asyncio's Server.

Called by _stream, _datagram, _sockop and EventLoop, on the loop's thread. The system calls are in
the .pxd.
"""

import os
import socket
import sys

import _socket

from cpython.buffer cimport PyBUF_WRITABLE, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.long cimport PyLong_AsLongAndOverflow
from cpython.tuple cimport PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_FromString
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, errno
from libc.string cimport memcpy, memset

from gopoll._sockaddr cimport (AF_INET, AF_INET6, AF_UNIX, SOCK_CLOEXEC, SOCK_NONBLOCK, accept4,
                               getsockname, socklen_t, v4_text)


cdef extern from "<string.h>" nogil:
    size_t strnlen(const char *text, size_t most)

cdef extern from *:
    """
    /* What *descr*, of a member in C, says of *o*. */
    static inline PyObject *gopoll_get(PyObject *descr, PyObject *o) {
      return Py_TYPE(descr)->tp_descr_get(descr, o, (PyObject *)Py_TYPE(o));
    }
    """
    object get "gopoll_get"(object descr, object o)
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef unsigned int[3] _MOST = [0xFFFF, 0xFFFFF, 0xFFFFFFFFu]     # of port, flow and scope

cdef object _base = _socket.socket
cdef object _family = _socket.socket.family
cdef object _type = _socket.socket.type
cdef object _proto = _socket.socket.proto
socket_type = socket.socket
cdef bint NAMED = sys.version_info >= (3, 13)    # asyncio.Server knows its transports


cdef int kind_of(sock, Kind *out) except -1:
    """Put into *out* how *sock*, a socket, was made, without the enums that it makes of that."""
    out.family, out.type, out.proto = get(_family, sock), get(_type, sock), get(_proto, sock)
    return 0


cdef bint is_tcp(sock) except -1:
    """Whether *sock* is a plain TCP socket."""
    cdef Kind kind
    if not issubclass(type(sock), _base):
        return False
    kind_of(sock, &kind)
    return ((kind.family == AF_INET or kind.family == AF_INET6) and kind.type == SOCK_STREAM
            and (kind.proto == 0 or kind.proto == IPPROTO_TCP))


cdef int accept(int fd, Address *address, socklen_t *size) except -2:
    """Accept a connection of the listener *fd*, of TCP or Unix: its descriptor, or -1.

    As accept() of socket, but the descriptor does not block, and nothing to accept is no exception.
    OSError.
    """
    cdef int conn
    while True:
        size[0] = sizeof(Address)
        with nogil:                      # a listener that somebody has made to block would
            conn = accept4(fd, &address.any, size, SOCK_CLOEXEC | SOCK_NONBLOCK)
        if conn >= 0:
            return conn
        if errno == EAGAIN or errno == ECONNABORTED:
            return -1
        if errno != EINTR:
            raise os_error(errno)


cdef object name_of(sock, int fd):
    """Return getsockname() of *sock*, whose descriptor is *fd*. OSError."""
    cdef Address address
    cdef socklen_t size = sizeof(address)
    if type(sock) is socket_type and getsockname(fd, &address.any, &size) == 0:
        if address.any.sa_family in (AF_INET, AF_INET6, AF_UNIX):
            return read_address(&address, size)
    return sock.getsockname()


cdef object read_address(const Address *address, socklen_t size):
    """Return *address*, of *size* bytes, as socket has it."""
    cdef char text[64]
    cdef Py_ssize_t n
    if address.any.sa_family == AF_INET:
        return v4_text(<const unsigned char *>&address.v4.sin_addr), ntohs(address.v4.sin_port)
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


cdef socklen_t write_address(addr, int family, Address *out) except? 0:
    """Put *addr* into *out* as socket does; return its size, 0 for what socket has to look at.

    That is: names, wildcards and zones, types that are not the plain ones, and what is no address.
    """
    cdef Py_ssize_t n
    cdef const char *text
    cdef unsigned int fields[3]
    cdef int i
    if family == AF_UNIX:
        return _write_path(addr, out)
    fields[1] = fields[2] = 0
    if type(addr) is not tuple:
        return 0
    n = PyTuple_GET_SIZE(addr)
    if n < 2 or n > (4 if family == AF_INET6 else 2):
        return 0
    for i in range(1, <int>n):
        if not _number(addr[i], _MOST[i - 1], &fields[i - 1]):
            return 0
    text = _ascii(addr[0], &n)
    if text == NULL:
        return 0
    memset(out, 0, sizeof(out.v6))
    if family == AF_INET:
        if inet_pton(AF_INET, text, &out.v4.sin_addr) != 1:
            return 0
        out.any.sa_family = AF_INET
        out.v4.sin_port = htons(<unsigned short>fields[0])
        return sizeof(out.v4)
    if inet_pton(AF_INET6, text, &out.v6.sin6_addr) != 1:
        return 0
    out.any.sa_family = AF_INET6
    out.v6.sin6_port = htons(<unsigned short>fields[0])
    out.v6.sin6_flowinfo = htonl(fields[1])
    out.v6.sin6_scope_id = fields[2]
    return sizeof(out.v6)


cdef socklen_t _write_path(addr, Address *out) except? 0:
    cdef Py_ssize_t n = 0
    cdef const char *text
    if type(addr) is bytes:
        n = len(addr)
        text = PyBytes_AS_STRING(addr)
        if n == 0 or (text[0] != 0 and <Py_ssize_t>strnlen(text, n) != n):
            return 0
    else:
        text = _ascii(addr, &n)
        if text == NULL or n == 0:
            return 0
    if n >= <Py_ssize_t>sizeof(out.un.sun_path):
        return 0
    out.any.sa_family = AF_UNIX
    memcpy(out.un.sun_path, text, n)
    out.un.sun_path[n] = 0
    # of a path the end mark counts
    return <socklen_t>(<char *>out.un.sun_path - <char *>out) + n + (text[0] != 0)


cdef const char *_ascii(text, Py_ssize_t *size) except? NULL:
    """Return the characters of a plain str, ended by the only NUL; NULL if it is something else."""
    cdef const char *chars
    if type(text) is not str or not text.isascii():
        return NULL
    chars = PyUnicode_AsUTF8AndSize(text, size)
    return chars if <Py_ssize_t>strnlen(chars, size[0]) == size[0] else NULL


cdef bint _number(value, unsigned int most, unsigned int *out) except -1:
    """Put an int of 0 to *most* into *out*: whether *value* is one."""
    cdef int overflow = 0
    cdef long n
    if type(value) is not int:
        return False
    n = PyLong_AsLongAndOverflow(value, &overflow)
    if overflow or n < 0 or n > most:
        return False
    out[0] = <unsigned int>n
    return True


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
