"""PollerBase. See _pollerbase.pyx."""

from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from libc.stdint cimport int64_t, uintptr_t

from gopoll._pollcache cimport pollServer

cdef class PollerBase:
    cdef pollServer *ps        # replaced in a forked child; see PollDesc.ps
    cdef int closed            # atomic
    cdef int active            # threads inside; below zero: the epoll instance is gone; atomic
    cdef bint raw              # its waiters are words of C's; constant
    cdef list pipes            # spare ones of _fdpipe, None for none; critical section
    cdef object __weakref__
    cdef bint hold(self) noexcept
    cdef int enter(self) except -1
    cdef int enter_python(self) except -1
    cdef void leave(self) noexcept
    cdef void _break(self) noexcept
    cdef void _finish(self) noexcept
    cdef int post_word(self, uintptr_t waiter) except -1

cdef int64_t check_int64(object value, str name) except? -1
cdef int check_int(object value, str name) except? -1
cdef double number_of(str name, object value) except? -1.0

cdef inline double seconds_of(str name, object value) except? -1.0:
    """Return the number of seconds *value*. TypeError or ValueError, by *name*, for all else."""
    cdef double s
    s = PyFloat_AS_DOUBLE(value) if PyFloat_CheckExact(value) else number_of(name, value)
    if s != s:
        raise ValueError(f"{name} is not a number")
    return s
