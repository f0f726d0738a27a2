"""Gosched and Sleep. See _waits.pyx."""

from libc.stdint cimport int64_t

from gopoll._park cimport Awaitable
from gopoll._timers cimport TimerNode
from gopoll.runtime._sched cimport SchedBase


cdef class Gosched(Awaitable):
    cdef int steps

cdef class Sleep(Awaitable):
    cdef SchedBase sched
    cdef int64_t when
    cdef bint over
    cdef TimerNode node
