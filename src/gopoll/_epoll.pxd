"""One epoll instance: what _pollcache, _poller and C embedders may call. See _epoll.pyx."""

from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    # packed on x86-64; the C header knows, Cython only needs the names
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    enum:
        EPOLLIN
        EPOLLPRI
        EPOLLOUT
        EPOLLRDHUP
        EPOLLHUP
        EPOLLERR
        EPOLLET
        EPOLLONESHOT

cdef extern from * nogil:
    """
    #ifndef EPOLLEXCLUSIVE               /* Linux 4.5; the oldest C library has no name for it */
    #define EPOLLEXCLUSIVE (1u << 28)
    #endif
    """
    enum:
        EPOLLEXCLUSIVE

cdef struct Epoll:
    int epfd           # -1 until netpollinit has succeeded; constant afterwards
    int eventfd        # the break descriptor, registered level-triggered
    int wakesig        # 1 while a break is under way; atomic (P2)

cdef enum:
    EVENTS = 128       # the size of the caller's event array, as in Go

cdef int netpollinit(Epoll *ep) noexcept nogil
cdef int netpollinit_errno() noexcept nogil
cdef void netpollfini(Epoll *ep) noexcept nogil
cdef int netpollopen(Epoll *ep, int fd, uint32_t events, uint64_t data) noexcept nogil
cdef int netpollarm(Epoll *ep, int fd, uint32_t events, uint64_t data) noexcept nogil
cdef int netpollclose(Epoll *ep, int fd) noexcept nogil
cdef int netpollBreak(Epoll *ep) noexcept nogil
cdef void netpolldrain(Epoll *ep) noexcept nogil
cdef int netpollwait(Epoll *ep, epoll_event *events, int n, int64_t delay_ns) noexcept nogil
