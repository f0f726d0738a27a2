"""Chan and its operations. See _chan.pyx."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t

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
    Py_ssize_t count           # of all that can be received: in the ring and given back
    Py_ssize_t head
    PyObject **slots           # a ring of capacity; constant
    int64_t handed             # how many values have been handed to receivers that waited
    Py_ssize_t nback           # how many have been given back (H11)
    Py_ssize_t back_head       # where they begin
    Py_ssize_t back_room       # how many slots there are for them
    PyObject **back_slots      # by nth
    int64_t *back_nths         # the nth of each

cdef int chansend(hchan *c, PyObject *value, Waiter **woken) noexcept nogil
cdef int chanrecv(hchan *c, PyObject **value, Waiter **woken) noexcept nogil

cdef int chanunrecv(hchan *c, PyObject *value, int64_t nth, Waiter **woken) noexcept nogil

cdef class Chan:
    cdef hchan h
    cdef list ring             # whose items the slots are, for the garbage collector; constant
    cdef list back             # whose items the back_slots are; None without; guarded by the lock
    cdef object __weakref__
    cdef void unrecv(self, Waiter *w) noexcept
    cdef int make_room(self) except -1

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
