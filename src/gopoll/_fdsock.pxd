"""The operations of _fdsock.pyx."""

from gopoll._fdop cimport Op
from gopoll._park cimport Awaitable
from gopoll._polldesc cimport Note
from gopoll._sockaddr cimport sockaddr_storage, socklen_t
from gopoll._sysfd cimport SysFD

cdef class AcceptOp(Op):
    cdef type cls              # of the connection
    cdef bint stream           # as its SysFD's
    cdef bint zero_is_eof
    cdef bint iterate          # that the listener is closed is the end of an iteration
    cdef bint told             # the kernel may have told us alone of a connection (L3)
    cdef int pass_on(self) except -1
    cdef object admit(self, int fd, sockaddr_storage *addr, socklen_t size)

cdef class ConnectOp(Op):
    pass

cdef class ClosingOp(Awaitable):
    cdef SysFD fd
    cdef Note note
