"""Mutex, RWMutex, Cond and the counter of WaitGroup. See _sync.pyx."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t

from gopoll.runtime._waitq cimport Waiter, WaitOp, WaitQ


cdef class Mutex:
    cdef int lock_             # guards the two below
    cdef bint held
    cdef WaitQ q
    cdef bint try_now(self) noexcept
    cdef bint unlock_now(self) noexcept

cdef class RWMutex:
    cdef int lock_             # guards all below
    cdef bint writing
    cdef int readers           # that hold it
    cdef WaitQ readq
    cdef WaitQ writeq
    cdef void admit(self, WaitQ *woken, bint readers_first) noexcept
    cdef int let_in(self) noexcept

cdef class Reading:
    cdef RWMutex mutex

cdef class Cond:
    cdef Mutex mutex
    cdef int lock_             # guards q
    cdef WaitQ q

cdef class WaitCounter:
    cdef int lock_             # guards the two below
    cdef int64_t count
    cdef WaitQ q

cdef class LockOp(WaitOp):
    cdef Mutex mutex

cdef class RWOp(WaitOp):
    cdef RWMutex mutex
    cdef bint writes

cdef class CondOp(WaitOp):
    cdef Cond cond
    cdef Waiter back           # stands in the queue of the mutex; node in that of cond (H1)
    cdef object error          # what is raised once the mutex is ours again
    cdef bint signalled        # a signal has come, and has not been given on
    cdef bint relocks          # it has left the queue of cond and wants the mutex
    cdef bint begun            # it has been queued, and the mutex unlocked
    cdef int relock(self) noexcept
    cdef int finish(self, PyObject **out) except -1
    cdef bint leave(self) noexcept
    cdef int give_on(self) noexcept

cdef class CounterOp(WaitOp):
    cdef WaitCounter group
