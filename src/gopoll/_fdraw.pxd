"""RawOp: the caller's own system call, tried after each readiness. See _fdraw.pyx."""

from gopoll._fdop cimport Op


cdef class RawOp(Op):
    cdef object fn
