"""WordsBase and the scheduler's words. See _base.pyx."""

from libc.stdint cimport int64_t, uint64_t

from gopoll._poller cimport Poller
from gopoll._pollserver cimport pollServer
from gopoll.runtime._g cimport GBase

cdef struct SchedWords:        # what sysmon and other Ms read without the GIL; all atomic
    int64_t lastpoll           # time of the last network poll; 0: somebody is blocked in it (S1)
    int64_t now                # the time of late: for ages, not for deadlines (see GBase.since)
    int64_t ids                # the number of the last goroutine
    int64_t live               # goroutines of the program, and calls; below 0: it is over (J3)
    int64_t system             # goroutines of the runtime
    int64_t closing            # those of them that close an async generator
    int64_t crowded            # when an M last had to wait long for the GIL, with events in hand
    uint64_t taken             # how often a P has left the idle list (S8)
    int nprocs
    int npidle
    int nmidle
    int nmspinning
    int nmidlelocked
    int pollingnet             # somebody polls without blocking
    int syswaiters             # parked in the network for the runtime itself
    int sysmonwait             # sysmon is in its deep sleep
    int stop                   # sysmon is to end
    int note                   # a futex word: sysmon's bed
    int handing                # threads that have goroutines in hand, on no list and no P (S8)
    int nms                    # Ms whose thread runs (U1)
    int nbound                 # those of them that only one goroutine can use (U1)
    int exhausted              # it has been told that there are max_ms threads
    int ending                 # main has ended, or something fatal has happened
    int finished               # every goroutine has ended: the Ms leave

cdef class WordsBase:
    cdef SchedWords words
    cdef readonly Poller poller
    cdef pollServer *ps
    cdef bint seal(self, bint cut_short) noexcept
    cdef int refuse_fork(self) except -1

cdef void wake_sysmon(SchedWords *words) noexcept nogil
cdef int64_t *count_of(SchedWords *words, GBase g) noexcept

cdef str nested(owner, other)
