"""sysmon. See _sysmon.pyx."""

from libc.stdint cimport int64_t, uint64_t, uintptr_t

from gopoll.runtime._p cimport PBase, SchedBase


cdef struct Seen:
    uint64_t status            # the P's status word at the first sighting
    int64_t when               # the time of that sighting
    bint counted               # this slice has been counted as too long

cdef class Sysmon:
    cdef SchedBase sched
    cdef Seen seen[1]                  # one per P
    cdef PBase p0
    cdef readonly int64_t polls        # network polls that it made
    cdef readonly int64_t overruns     # slices that kept a P for 10 ms
    cdef readonly int64_t sleeps       # deep sleeps
    cdef int cycle(self, int64_t now, uintptr_t *words) noexcept nogil
    cdef int inject(self, uintptr_t *words, int n) except -1
