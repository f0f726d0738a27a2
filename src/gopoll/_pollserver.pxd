"""The poller as a whole: its life, its ready list, its count of waiters. See _pollserver.pyx."""

from libc.stdint cimport int64_t, uintptr_t

from gopoll._polltypes cimport pollServer

cdef int pollserver_init(pollServer *ps) noexcept nogil
cdef void pollserver_fini(pollServer *ps) noexcept nogil
cdef bint pollserver_forked(pollServer *ps) noexcept nogil
cdef int netpollGenericInit(pollServer *ps) noexcept nogil
cdef int poll_runtime_pollServerInit(pollServer *ps) noexcept nogil
cdef bint poll_runtime_isPollServerDescriptor(pollServer *ps, int fd) noexcept nogil

cdef int netpollwake(pollServer *ps) noexcept nogil
cdef int ready_push(pollServer *ps, uintptr_t waiter) noexcept nogil
cdef int ready_take(pollServer *ps, uintptr_t *out, int cap) noexcept nogil
cdef void netpollAdjustWaiters(pollServer *ps, int64_t delta) noexcept nogil
cdef int64_t netpollWaiters(pollServer *ps) noexcept nogil
cdef bint netpollAnyWaiters(pollServer *ps) noexcept nogil
