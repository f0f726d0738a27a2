"""SelectOp. See _select.pyx."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t

from gopoll._timers cimport TimerNode
from gopoll.runtime._chan cimport hchan
from gopoll.runtime._sched cimport SchedBase
from gopoll.runtime._waitq cimport Waiter, WaitOp


cdef struct Arm:               # Go: scase
    Waiter w
    hchan *chan                # NULL: never ready
    bint sends
    int nth                    # the index of the arm that is queued as this one's number

cdef class SelectOp(WaitOp):
    cdef tuple cases           # keeps the channels
    cdef Arm *arms
    cdef int **locks           # of the channels, each once, by address
    cdef int n
    cdef int nlocks
    cdef int own               # the lock of a select without a channel (H9)
    cdef int claim             # a ClaimState that its waiters share; atomic (H2)
    cdef bint default
    cdef bint queued           # its waiters may still stand in queues
    cdef bint timed
    cdef int64_t timeout_ns    # -1: none
    cdef int64_t end_ns
    cdef SchedBase sched       # whose timers hold the timeout; None in a task of asyncio
    cdef object handle         # which has a TimerHandle instead
    cdef TimerNode timer
    cdef int sort_locks(self) except -1
    cdef void lock_all(self) noexcept
    cdef void unlock_all(self) noexcept
    cdef void shuffle(self) noexcept nogil
    cdef bint is_ready(self, Arm *arm) noexcept nogil
    cdef int pick(self, PyObject **value, Waiter **woken, bint *closed) noexcept nogil
    cdef int answer(self, int index, object value, PyObject **out) except -1
    cdef int fail(self, int index) except -1
    cdef int clear(self) noexcept
