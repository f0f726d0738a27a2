"""What is asked of a socket object, without the Python of class socket.

Called by _stream and _sockop, on the loop's thread. The system calls are in the .pxd.
"""

import os

import _socket


cdef object _family = _socket.socket.family.__get__
cdef object _type = _socket.socket.type.__get__
cdef object _proto = _socket.socket.proto.__get__


cdef bint is_tcp(sock) except -1:
    """Whether *sock* is a plain TCP socket."""
    if not issubclass(type(sock), _socket.socket):
        return False
    return (_family(sock) in (_socket.AF_INET, _socket.AF_INET6)
            and _type(sock) == _socket.SOCK_STREAM and _proto(sock) in (0, _socket.IPPROTO_TCP))


cdef object os_error(int err):
    """Return the OSError of *err*."""
    return OSError(err, os.strerror(err))
