"""Chan and its operations. See _chan.pyx."""

from cpython.object cimport PyObject

from gopoll.runtime._waitq cimport Waiter, WaitOp, WaitQ


cdef enum ChanAnswer:
    CHAN_DONE
    CHAN_BLOCKED
    CHAN_CLOSED

cdef class Chan:
    cdef int lock              # guards all that follows but the constants; bounded C only (A5)
    cdef int closed
    cdef WaitQ recvq
    cdef WaitQ sendq
    cdef readonly Py_ssize_t capacity      # constant
    cdef Py_ssize_t count
    cdef Py_ssize_t head
    cdef list ring             # keeps what is buffered, for the garbage collector; constant
    cdef PyObject **slots      # its items; constant
    cdef object __weakref__

cdef int chansend(Chan c, PyObject *value, Waiter **woken) noexcept
cdef int chanrecv(Chan c, PyObject **value, Waiter **woken) noexcept

cdef class Case:
    cdef Chan chan
    cdef bint sends
    cdef object value

cdef class ChanOp(WaitOp):
    cdef Chan chan

cdef class SendOp(ChanOp):
    pass

cdef class RecvOp(ChanOp):
    cdef bint iterates         # the end of the channel is the end of an `async for`
    cdef int fail(self) except -1
