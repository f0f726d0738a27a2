"""Deadlines of a pollDesc. Results as in _pollcache.pxd."""

from libc.stdint cimport int64_t, uintptr_t

from gopoll._pollcache cimport pollDesc, pollServer
from gopoll._timers cimport Due

cdef int poll_runtime_pollSetDeadline(
    pollServer *ps, pollDesc *pd, int64_t when, int mode) noexcept nogil
cdef int netpolldeadlineimpl(
    pollServer *ps, pollDesc *pd, Due *due, int64_t now, uintptr_t *out) noexcept nogil
