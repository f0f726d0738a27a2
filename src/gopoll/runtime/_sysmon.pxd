"""sysmon. See _sysmon.pyx."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t, uintptr_t

from gopoll.runtime._exec cimport ExecBase
from gopoll.runtime._p cimport MBase
from gopoll.runtime._sched cimport MAX_PROCS

cdef enum:
    MAX_STUCK = 64

cdef struct Seen:              # what sysmon knows of the slice of a P
    uint64_t status            # its status word at the first sighting
    int64_t when               # the time of that
    int64_t cpu                # what its thread had used of the CPU when it was found late
    bint late                  # to be retaken, once attached
    bint counted               # it has lasted too long
    int stall                  # it is a stall: 1 to be reported, 2 reported

cdef struct Stuck:             # a slice that has lost its P
    PyObject *m
    uint64_t word              # the runword of the slice: another one means that it is over
    int64_t since
    int stall

cdef class Sysmon:
    cdef ExecBase sched
    cdef Seen seen[MAX_PROCS]
    cdef Stuck stuck[MAX_STUCK]
    cdef int nstuck
    cdef readonly int64_t polls        # network polls that it made
    cdef readonly int64_t overruns     # slices that kept a P for 10 ms
    cdef readonly int64_t retakes      # Ps that it has taken from such
    cdef readonly int64_t starved      # Ps left alone because the GIL was not to be had
    cdef readonly int64_t stalls       # slices that lasted for the stall threshold
    cdef readonly int64_t sleeps       # deep sleeps
    cdef readonly int64_t trace_ns     # print a line every so often; 0 never
    cdef bint lowered                  # the switch interval is ours
    cdef int poll(self, int64_t now, uintptr_t *words) noexcept nogil
    cdef int look(self, int64_t now) noexcept nogil
    cdef bint needs_others(self, int i) noexcept nogil
    cdef int inject(self, uintptr_t *words, int n) except -1
    cdef int attend(self, int want, int64_t before, int64_t delayed) except -1
    cdef MBase m_of(self, uint64_t status)
    cdef int retake(self, int i, int64_t waited, int64_t now) except -1
    cdef int report(
        self, MBase m, uint64_t word, int64_t since, int64_t waited, int64_t cpu) except -1
