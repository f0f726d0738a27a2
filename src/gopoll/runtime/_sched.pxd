"""SchedBase: the scheduler's words, its idle Ps and Ms, and the network. See _sched.pyx."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uintptr_t

from gopoll._pollcache cimport pollServer
from gopoll._poller cimport Poller
from gopoll.runtime._g cimport GBase
from gopoll.runtime._p cimport MBase, PBase
from gopoll.runtime._runq cimport RunQ

cdef enum:
    MAX_PROCS = 1024
    MAX_MS = 2048

cdef struct SchedWords:        # what sysmon and other Ms read without the GIL; all atomic
    int64_t lastpoll           # time of the last network poll; 0: somebody is blocked in it (S1)
    int64_t ids                # the number of the last goroutine
    int64_t live               # goroutines of the program
    int64_t system             # goroutines of the runtime
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
    int sysmonpolls            # sysmon has waiters that are on no list yet
    int ending                 # main has ended, or something fatal has happened
    int finished               # every goroutine has ended: the Ms leave

cdef class SchedBase:
    cdef SchedWords words
    cdef readonly Poller poller
    cdef pollServer *ps
    cdef readonly RunQ globq
    cdef readonly bint handoff         # Ps may change hands
    cdef readonly list allp
    cdef readonly list allm
    cdef PyObject *parray[MAX_PROCS]   # the same as borrowed words; written before nallp
    cdef int nallp                     # how many there have ever been; atomic
    cdef PyObject *marray[MAX_MS]      # of allm, likewise; its number - 1 is its place
    cdef int nallm                     # the highest number so far; some places may be empty
    cdef list spare_ids                # of Ms that have ended
    cdef int lock                      # guards both idle lists and every M's listed
    cdef PyObject *pidle
    cdef PyObject *midle
    cdef int pidleput(self, PBase p) except -1
    cdef PBase pidleget(self)
    cdef MBase midleget(self)
    cdef MBase new_m(self)
    cdef bint retire(self, PBase p) except -1
    cdef int give(self, MBase m, PBase p, bint spinning) except -1
    cdef int sleep_m(self, MBase m) except -1
    cdef bint _take_nextp(self, MBase m) noexcept
    cdef int after_idle(self) except -1
    cdef bint work_anywhere(self) noexcept
    cdef int kick(self) except -1
    cdef int orphan(self, PBase p) except -1
    cdef int wakep(self) except -1

cdef int ready_g(GBase g, bint soon=*) except -1
cdef int unpark_g(GBase g) except -1
cdef int wake_joins(PyObject *join) except -1
cdef void wake_sysmon(SchedWords *words) noexcept nogil
