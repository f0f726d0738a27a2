"""Blocks that make a context ambient. See _scope.pyx."""

from gopoll._park cimport Awaitable
from gopoll.runtime._context cimport Context
from gopoll.runtime._g cimport GBase


cdef class Entered(Awaitable):
    cdef object value

cdef class Deadline:
    cdef object when_          # seconds, or None
    cdef Context ctx
    cdef GBase g

cdef GBase who_enters(str what)
cdef int enter_block(GBase g, Context outer, Context ctx) except -1
cdef bint leave_block(Context ctx, GBase g) except -1
