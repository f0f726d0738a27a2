"""SockWatcher and what the sock_* calls of a loop return. See _sockop.pyx."""

from cpython.object cimport PyObject

from gopoll._park cimport Awaitable
from gopoll._sockaddr cimport socklen_t
from gopoll.embed.aio._calls cimport Address
from gopoll.embed.aio._loop cimport LoopCore, Watcher

cdef class SockWatcher(Watcher):
    cdef object ref                    # weak, to the socket (Y4)
    cdef list readers, writers         # SockOps that wait
    cdef list sending                  # SendallOps that have waited, in order (Y8)
    cdef bint readable                 # as of a StreamCore (Y3)
    cdef bint more, tcp
    cdef int set_up(self, LoopCore loop, object sock, int fd) except -1
    cdef int _wake(self, list ops) except -1

cdef class SockOp(Awaitable):
    cdef LoopCore loop
    cdef object sock
    cdef object future                 # that is waited for, or None
    cdef SockWatcher watcher
    cdef bint writes
    cdef bint done
    cdef bint held                     # counted among the users of `sock` (Y5)
    cdef str name(self)
    cdef int attempt(self, int fd, PyObject **out) except -1
    cdef int _find(self, int fd) except -1
    cdef object _park(self, int fd)
    cdef int _unlist(self) except -1
    cdef int _let_go(self) except -1
    cdef bint _may_read(self) noexcept
    cdef int _has_read(self, Py_ssize_t n, Py_ssize_t most) except -1

cdef class RecvOp(SockOp):
    cdef Py_ssize_t n

cdef class RecvIntoOp(SockOp):
    cdef object buf

cdef class SendallOp(SockOp):
    cdef object data
    cdef Py_ssize_t at                 # bytes sent
    cdef SockWatcher line              # whose `sending` it is in, or None
    cdef int _leave(self) except -1

cdef class CallOp(SockOp):
    cdef str called
    cdef object function
    cdef tuple args

cdef class ConnectOp(SockOp):
    cdef object address                # as an error tells of it
    cdef object peer                   # as getpeername() of socket; None if nobody has asked
    cdef Address raw
    cdef socklen_t size                # of `raw`
    cdef int family
    cdef bint begun                    # connect(2) has been called
    cdef bint aim(self, object address) except -1
