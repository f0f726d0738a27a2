"""P and M, and the words they share with sysmon. See _p.pyx."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t, uintptr_t

from gopoll.runtime._runq cimport RunQ


cdef enum PState:              # the low bits of PWords.status (A1)
    P_IDLE                     # nobody's: on the idle list
    P_SCHED                    # an M decides what to run: never retaken
    P_RUN                      # an M runs a goroutine; tick says which slice
    P_RETAKEN                  # sysmon took it from RUN and hands it on
    P_DEAD = 0x10000           # gomaxprocs() has made it too many; no P has this tick

cdef enum:
    stateBits = 2
    stateMask = 3
    midMask = 0x3FFF
    tickShift = 16

cdef struct PWords:
    uint64_t status            # state | m << 2 | tick << 16; atomic (A1)
    uint64_t schedtick         # slices begun; written by the owner, atomic
    uintptr_t runnext          # a goroutine that runs before the queue, owned; atomic

cdef class PBase:
    cdef PWords words
    cdef readonly int id
    cdef readonly RunQ runq
    cdef PyObject *link        # the idle list; guarded by SchedBase.lock
    cdef int chain             # goroutines run in a row from runnext; the owner's, atomic
    cdef int ready(self, object g) except -1
    cdef object pop(self)
    cdef bint has_work(self) noexcept nogil
    cdef int flush(self, RunQ to) except -1

cdef struct MCounts:           # written by the M alone; atomic
    int64_t switches
    int64_t steals
    int64_t handoffs           # Ps given up in syscall()

cdef class MBase:
    cdef readonly int id
    cdef PyObject *p           # the P it holds, borrowed; its own thread's
    cdef uintptr_t nextp       # the P it is given while it sleeps, before note; atomic
    cdef uint64_t seed         # of the order in which it robs queues
    cdef PyObject *link        # the idle list; guarded by SchedBase.lock
    cdef object lockedg        # the goroutine it belongs to, until that has ended and it knows
    cdef uint64_t runword      # the status word of the slice under way; its own thread's, atomic
    cdef uint64_t tick
    cdef int64_t gid           # the goroutine of that slice; written before, atomic
    cdef uint64_t watched      # the slice that sysmon may tell of (S7); atomic
    cdef object late           # whose slice that was: (id, name); in its critical section
    cdef int settling          # its slice is over, its P lost, and its goroutine on no list; atomic
    cdef int note              # a futex word: its bed; 1 when it has been woken
    cdef bint listed           # it is on the idle list; guarded by SchedBase.lock
    cdef public bint leaving   # its thread ends with the goroutine that was locked to it
    cdef bint spare            # it begins on the idle list, where spare_m has put it
    cdef int vain              # polls in a row that nothing came of, before it waited
    cdef bint spinning         # it looks for work to steal; counted in nmspinning
    cdef int syscalls          # syscall() bodies it is inside of
    cdef uint64_t sysgen       # raised when some of them were not left
    cdef bint outside          # in such a body, and its P given up
    cdef int bound             # reasons for which it runs one goroutine only; its own thread's (U1)
    cdef readonly int boot     # even: the thread it is given has not begun; odd: it has; (U2)
    cdef void *tstate          # Python's state of its thread; guarded by SchedBase.lock
    cdef readonly int clock    # the CPU clock of its thread, -1 before it has begun; atomic
    cdef MCounts counts
    cdef readonly int64_t ident
    cdef public object thread
    cdef public dict gs        # the live goroutines that were started here

cdef uint64_t word_sched(MBase m) noexcept
cdef bint owns(PBase p, MBase m) noexcept
