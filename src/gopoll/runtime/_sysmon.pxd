"""sysmon. See _sysmon.pyx."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t, uintptr_t

from gopoll.runtime._exec cimport ExecBase
from gopoll.runtime._p cimport MBase
from gopoll.runtime._sched cimport MAX_PROCS

cdef enum:
    MAX_STUCK = 64

cdef struct Slice:             # one that lasts too long
    PyObject *m                # its thread, borrowed from allm, which keeps it
    uint64_t word              # its status word: another runword on m means that it is over
    int64_t gid                # its goroutine
    int64_t since
    int64_t cpu                # what the thread had used of the CPU at our last look
    int64_t cpus               # and all threads of this process
    int64_t due                # it is to be reported when it has lasted so long; 0 unknown yet
    bint stalls                # it has been counted as a stall
    bint report                # it is due

cdef struct Seen:              # what sysmon knows of the slice of a P
    uint64_t status            # its status word at the first sighting
    bint late                  # to be retaken, once attached
    bint counted               # it has lasted too long
    Slice slice

cdef struct Counts:            # written by sysmon alone; atomic
    int64_t polls              # network polls that it made
    int64_t overruns           # slices that kept a P for 10 ms
    int64_t retakes            # Ps that it has taken from such
    int64_t starved            # Ps left alone because the GIL was not to be had
    int64_t stalls             # slices that lasted for the stall threshold
    int64_t sleeps             # deep sleeps
    int64_t lowered            # how often the switch interval was lowered for us (B4)
    int64_t lowered_ns         # for how long, all in all, when it is not
    int64_t low_since          # since when it is; 0 it is not

cdef class Sysmon:
    cdef ExecBase sched
    cdef Seen seen[MAX_PROCS]
    cdef Slice stuck[MAX_STUCK]        # slices that have lost their P
    cdef int nstuck
    cdef Counts counts
    cdef readonly int64_t trace_ns     # print a line every so often; 0 never
    cdef bint low                      # the switch interval is ours
    cdef int64_t crowded               # the words' that has been looked at
    cdef int64_t stuck_ns              # when somebody was last seen without a P
    cdef int poll(self, int64_t now, uintptr_t *words) noexcept nogil
    cdef void handed_over(self) noexcept nogil
    cdef int look(self, int64_t now) noexcept nogil
    cdef bint needs_others(self, int i) noexcept nogil
    cdef int inject(self, uintptr_t *words, int n) except -1
    cdef int attend(self, int want, int64_t before) except -1
    cdef bint watch(self, Slice *s, int64_t now) noexcept nogil
    cdef int retake(self, int i, int64_t waited, int64_t now) except -1
    cdef int lower(self) except -1
    cdef int restore(self) except -1
    cdef int judge(self, Slice *s, int64_t waited) except -1
