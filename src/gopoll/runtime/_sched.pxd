"""SchedBase: the scheduler's words, its idle Ps and Ms, and the network. See _sched.pyx."""

from cpython.object cimport PyObject

from gopoll.runtime._base cimport SchedWords, WordsBase
from gopoll.runtime._g cimport GBase
from gopoll.runtime._p cimport MBase, PBase
from gopoll.runtime._runq cimport RunQ

cdef enum:
    MAX_PROCS = 1024
    MAX_MS = 2048

cdef class SchedBase(WordsBase):
    cdef readonly RunQ globq
    cdef readonly bint handoff         # Ps may change hands
    cdef readonly list allp
    cdef readonly list allm
    cdef PyObject *parray[MAX_PROCS]   # the same as borrowed words; written before nallp
    cdef int nallp                     # how many there have ever been; atomic
    cdef PyObject *marray[MAX_MS]      # of allm, likewise; its number - 1 is its place
    cdef public int max_ms             # so many there may be, at most MAX_MS; tests have fewer
    cdef int nallm                     # the highest number so far; some places may be empty
    cdef list spare_ms                 # that have ended
    cdef int lock                      # guards both idle lists and every M's listed
    cdef PyObject *pidle
    cdef PyObject *midle
    cdef int pidleput(self, PBase p) except -1
    cdef PBase pidleget(self)
    cdef MBase midleget(self)
    cdef MBase new_m(self)
    cdef bint launch(self, MBase m) except -1
    cdef bint bind(self, MBase m) noexcept
    cdef int unbind(self, MBase m) noexcept
    cdef int survive(self, object error) except -1
    cdef bint acquirep(self, MBase m) except -1
    cdef bint drop_excess(self, MBase m) except -1
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
