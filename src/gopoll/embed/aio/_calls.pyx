"""What is asked of a socket object, without the Python of class socket, and of asyncio's Server.

Called by _stream and _sockop, on the loop's thread. The system calls are in the .pxd.
"""

import os
import sys

import _socket

from cpython.buffer cimport PyBUF_WRITABLE, PyObject_GetBuffer


cdef object _family = _socket.socket.family.__get__
cdef object _type = _socket.socket.type.__get__
cdef object _proto = _socket.socket.proto.__get__
cdef bint NAMED = sys.version_info >= (3, 13)    # asyncio.Server knows its transports


cdef bint is_tcp(sock) except -1:
    """Whether *sock* is a plain TCP socket."""
    if not issubclass(type(sock), _socket.socket):
        return False
    return (_family(sock) in (_socket.AF_INET, _socket.AF_INET6)
            and _type(sock) == _socket.SOCK_STREAM and _proto(sock) in (0, _socket.IPPROTO_TCP))


cdef object os_error(int err):
    """Return the OSError of *err*."""
    return OSError(err, os.strerror(err))


cdef int get_writable(buf, Py_buffer *view) except -1:
    """Get *view* of *buf* to read into. What cannot be is socket's own TypeError."""
    try:
        return PyObject_GetBuffer(buf, view, PyBUF_WRITABLE)
    except (BufferError, TypeError):
        raise TypeError("recv_into() argument 1 must be read-write bytes-like object, "
                        f"not {type(buf).__name__}") from None


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
