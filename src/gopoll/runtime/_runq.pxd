"""RunQ. See _runq.pyx."""

from cpython.object cimport PyObject
from libc.stdint cimport uint64_t, uintptr_t

cdef enum:
    OUT_CAP = 256              # how many goroutines are moved at a time; what one netpoll can give


cdef class RunQ:
    cdef int lock
    cdef PyObject **ring       # guarded by lock, as is all below
    cdef size_t head
    cdef uint64_t len          # atomic, so that emptiness is seen without the lock
    cdef size_t cap
    cdef int push(self, object g) except -1
    cdef object pop(self)
    cdef int push_words(self, uintptr_t *words, int n) except -1
    cdef size_t move(self, RunQ to, size_t most) except? 0
    cdef size_t steal(self, RunQ to) except? 0
    cdef size_t _take(self, RunQ to, size_t most, bint half) except? 0
