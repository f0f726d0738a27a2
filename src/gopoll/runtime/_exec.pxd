"""ExecBase: the switch loop. See _exec.pyx."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t

from gopoll._park cimport ParkRequest
from gopoll.runtime._g cimport GBase
from gopoll.runtime._p cimport MBase, PBase
from gopoll.runtime._find cimport FindBase

cdef enum:
    CHECK_TICKS = 61     # every so many slices the global queue and the network come first

cdef class ExecBase(FindBase):
    cdef public object main            # the main goroutine
    cdef int schedule(self, MBase m) except -1
    cdef int execute(self, MBase m, int most) except -1
    cdef bint register(self, GBase g, bint wake) except -1
    cpdef cancel(self, GBase g, cause)
    cdef int stop_locked(self, MBase m) except -1
    cdef int resume(self, MBase m, PBase p, GBase g) except -1
    cdef int end_syscalls(self, MBase m) except -1
    cdef int leave_slice(self, MBase m) except -1
    cdef int keep_name(self, MBase m, GBase g) except -1
    cdef object late_name(self, MBase m, int64_t gid)
    cdef int settle(self, MBase m, GBase g, object request) except -1
    cdef int queue(self, MBase m, GBase g) except -1
    cdef int start_locked(self, MBase m, GBase g) except -1

cdef class GoschedRequest(ParkRequest):
    pass

cdef GoschedRequest GOSCHED

cdef class Syscall:
    cdef ExecBase sched
    cdef MBase m
    cdef uint64_t gen
