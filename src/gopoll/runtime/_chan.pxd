"""Chan and its operations. See _chan.pyx."""

from cpython.object cimport PyObject

from gopoll.runtime._waitq cimport Waiter, WaitOp, WaitQ


cdef enum ChanAnswer:
    CHAN_DONE
    CHAN_BLOCKED
    CHAN_CLOSED

cdef struct hchan:             # Go's name. The lock guards all that follows but the constants
    int lock                   # held over bounded C only (A5)
    bint closed
    WaitQ recvq
    WaitQ sendq
    Py_ssize_t capacity        # constant
    Py_ssize_t count
    Py_ssize_t head
    PyObject **slots           # a ring; constant

cdef int chansend(hchan *c, PyObject *value, Waiter **woken) noexcept nogil
cdef int chanrecv(hchan *c, PyObject **value, Waiter **woken) noexcept nogil

cdef class Chan:
    cdef hchan h
    cdef list ring             # whose items the slots are, for the garbage collector; constant
    cdef object __weakref__

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
