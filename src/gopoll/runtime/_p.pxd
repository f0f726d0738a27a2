"""G, P and the words they share with sysmon. See _p.pyx."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t, uintptr_t

from gopoll._park cimport Awaitable, ParkRequest
from gopoll._pollcache cimport pollServer
from gopoll._poller cimport Poller
from gopoll.runtime._runq cimport RunQ


cdef enum PState:              # the low bits of PWords.status (A1)
    P_IDLE                     # nobody's
    P_SCHED                    # an M decides what to run: never retaken
    P_RUN                      # an M runs a goroutine; tick says which slice
    P_RETAKEN                  # sysmon took it from RUN

cdef enum:
    stateBits = 2
    midBits = 14
    tickShift = 16

cdef struct PWords:
    uint64_t status            # state | m << 2 | tick << 16; atomic (A1)
    uint64_t schedtick         # slices begun; written by the owner, atomic

cdef struct SchedWords:        # what sysmon reads without the GIL; all atomic
    int64_t lastpoll           # time of the last network poll; 0: somebody is blocked in it (S1)
    int npidle
    int nmidlelocked
    int sysmonwait             # sysmon is in its deep sleep
    int stop                   # sysmon is to end
    int note                   # a futex word: sysmon's bed

cdef void wake_note(SchedWords *words) noexcept nogil

cdef class PBase:
    cdef PWords words
    cdef readonly int id
    cdef readonly RunQ runq

cdef class MBase:
    cdef readonly int id
    cdef public object p
    cdef public object curg

cdef class ContextBase:
    cdef public bint done_word

cdef class GBase:
    cdef readonly object sched
    cdef readonly object coro
    cdef readonly object vars          # its contextvars.Context
    cdef public object context         # its ambient gopoll Context
    cdef public int64_t id
    cdef public object name
    cdef public int state
    cdef public int64_t since_ns       # when it got into that state, for the dump
    cdef public object cancel_cause    # what cancel() was given
    cdef public bint canceled
    cdef public int shielded
    cdef public object pending         # an exception to throw in at the next resume
    cdef ParkRequest park              # what it waits in; critical section
    cdef bint parked                   # it comes back from a park: look at cancellation
    cdef public bint done
    cdef public object result
    cdef public object error
    cdef public list joiners           # critical section
    cdef public bint system
    cdef public bint awaited
    cdef int handles
    cdef object __weakref__
    cdef bint cancelled_now(self) noexcept
    cdef int unpark(self) except -1

cdef class SchedBase:
    cdef SchedWords words
    cdef readonly Poller poller
    cdef pollServer *ps
    cdef readonly RunQ globq
    cdef public bint stopping          # leave the loop: main is done, or something fatal
    cdef public int64_t switches
    cdef int take(self, RunQ to, int n, uintptr_t *words) except -1
    cdef int resume(self, PBase p, MBase m, GBase g) except -1
    cdef int settle(self, PBase p, GBase g, object request) except -1

cdef class GoschedRequest(ParkRequest):
    pass

cdef GoschedRequest GOSCHED
