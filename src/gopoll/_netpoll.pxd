"""netpoll, for the poller, the scheduler and C embedders. See _netpoll.pyx."""

from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t

from gopoll._pollcache cimport pollDesc, pollServer

cdef enum:
    NETPOLL_CAP = 256          # words that one netpoll of 128 events can make ready

cdef int netpoll(pollServer *ps, int64_t delay, uintptr_t *out, int cap) noexcept nogil
cdef void netpolltell(pollServer *ps) noexcept nogil
cdef void netpollrest(pollServer *ps, bint more) noexcept nogil
cdef int64_t netpolltimeout(pollServer *ps, int64_t until) noexcept nogil
cdef int netpollevent(
    pollServer *ps, uint32_t events, uint64_t data, uintptr_t *out) noexcept nogil
cdef void pollsettle(pollServer *ps, pollDesc *pd, int mode) noexcept nogil
