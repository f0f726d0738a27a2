"""FindBase: how an M finds work. See _find.pyx."""

from libc.stdint cimport uintptr_t

from gopoll.runtime._p cimport MBase
from gopoll.runtime._sched cimport SchedBase

cdef class Posted:
    cdef object fn

cdef class FindBase(SchedBase):
    cdef int list_m(self, MBase m) noexcept
    cdef bint spare_m(self) except -1
    cdef int stop_spinning(self, MBase m) except -1
    cdef int stopm(self, MBase m) except -1
    cdef int find_runnable(self, MBase m) except -1
    cdef int globq_get(self, MBase m, int most) except -1
    cdef bint steal(self, MBase m) except -1
    cdef int poll(self, MBase m) except -1
    cdef int poll_last(self, MBase m) except -1
    cdef int idle(self, MBase m) except -1
    cdef int take(self, MBase m, int n, uintptr_t *words) except -1
    cdef int call(self, fn) except -1
    cdef int count_out(self) except -1
    cdef int block(self, MBase m) except -1
    cdef bint hopeless(self) noexcept
    cdef bint anyone_running(self) noexcept
    cdef bint quiet(self) noexcept
    cdef int maybe_dead(self, bint polls) except -1
