"""Gosched and Sleep. See _waits.pyx."""

from libc.stdint cimport int64_t

from gopoll._park cimport Awaitable
from gopoll._timers cimport TimerNode
from gopoll.runtime._sched cimport SchedBase


cdef class Gosched(Awaitable):
    cdef int steps
    cdef int tried             # whether somebody has awaited it, in vain or not; atomic

cdef class Sleep(Awaitable):
    cdef SchedBase sched
    cdef int64_t ns            # how long
    cdef int64_t when          # until when, 0 before the await
    cdef bint over
    cdef int tried             # as of Gosched
    cdef TimerNode node
