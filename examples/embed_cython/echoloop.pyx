"""A TCP echo loop that holds no GIL while it runs: gopoll is its poller.

    loop = EchoLoop(listener.fileno(), idle_s=60)   # a non-blocking listening socket
    threading.Thread(target=loop.run).start()
    loop.stop()                                     # any thread
    loop.close()                                    # after run()

A waiter is an opaque word above 2: here the address of a Conn. A descriptor is registered once,
edge-triggered. For each wait: reset, try, and at EAGAIN wait, commit.
"""

from libc.errno cimport EAGAIN, EINTR, EMFILE, ENFILE, errno
from libc.stdint cimport int64_t, uintptr_t
from libc.stdlib cimport calloc, free
from posix.unistd cimport close, read, write

from gopoll cimport (NETPOLL_CAP, Poller, blockPark, modeRead, modeWrite, nanotime, netpoll,
                     netpollBreak, netpollGenericInit, netpollblockcommit, netpollresume,
                     poll_runtime_pollClose, poll_runtime_pollOpen, poll_runtime_pollReset,
                     poll_runtime_pollSetDeadline, poll_runtime_pollUnblock,
                     poll_runtime_pollWait, pollDesc, pollDiscard, pollServer, regEdge)

cdef extern from "<sys/socket.h>" nogil:
    int accept4(int fd, void *addr, void *addrlen, int flags)
    int SOCK_NONBLOCK, SOCK_CLOEXEC

cdef extern from *:
    """
    static int load_flag(int *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static void set_flag(int *p) { __atomic_store_n(p, 1, __ATOMIC_RELEASE); }
    """
    int load_flag(int *p) noexcept nogil
    void set_flag(int *p) noexcept nogil

cdef struct Conn:
    Conn *prev             # the list of the open ones, the listener its head
    Conn *next
    pollDesc *pd
    int fd
    int mode               # what it is parked for
    Py_ssize_t start, end  # buf[start:end] is to be written
    char buf[16384]


cdef Conn *conn_open(pollServer *ps, int fd) noexcept nogil:
    """Register *fd*; NULL if that fails."""
    cdef Conn *c = <Conn *>calloc(1, sizeof(Conn))
    if c == NULL:
        return NULL
    c.fd, c.mode, c.prev, c.next = fd, modeRead, c, c
    if poll_runtime_pollOpen(ps, fd, regEdge, &c.pd) != 0:
        if c.pd != NULL:
            pollDiscard(ps, c.pd)
        free(c)
        return NULL
    return c


cdef void conn_close(pollServer *ps, Conn *c) noexcept nogil:
    """Unregister and free a connection that is not parked; its descriptor last."""
    c.prev.next, c.next.prev = c.next, c.prev
    poll_runtime_pollUnblock(ps, c.pd)
    poll_runtime_pollClose(ps, c.pd)
    close(c.fd)
    free(c)


cdef int park(pollServer *ps, Conn *c, int mode) noexcept nogil:
    """Wait for *mode*: 1 if parked, 0 if it is ready already (try again), -1 if it is no use."""
    cdef int rc = poll_runtime_pollWait(ps, c.pd, mode)
    c.mode = mode
    if rc == -blockPark:
        if netpollblockcommit(ps, c.pd, mode, <uintptr_t>c):
            return 1
        netpollresume(c.pd, mode)            # it became ready, or was evicted, meanwhile
        rc = 0
    return -1 if rc != 0 else 0


cdef bint converse(pollServer *ps, Conn *c, int64_t idle_ns) noexcept nogil:
    """Echo until the connection would block: True if it is parked, False at its end."""
    cdef Py_ssize_t n
    cdef int mode, parked
    while True:
        mode = modeWrite if c.start < c.end else modeRead
        if mode == modeRead and poll_runtime_pollSetDeadline(
                ps, c.pd, nanotime() + idle_ns, modeRead) != 0:
            return False
        if poll_runtime_pollReset(c.pd, mode) != 0:      # past its deadline
            return False
        if mode == modeWrite:
            n = write(c.fd, c.buf + c.start, c.end - c.start)
        else:
            n = read(c.fd, c.buf, sizeof(c.buf))
        if n < 0 and errno == EINTR:
            continue
        if n < 0 and errno == EAGAIN:
            parked = park(ps, c, mode)
            if parked != 0:
                return parked > 0
        elif n <= 0:
            return False
        elif mode == modeWrite:
            c.start += n
        else:
            c.start, c.end = 0, n


cdef bint accept_all(pollServer *ps, Conn *head, int64_t idle_ns) noexcept nogil:
    """Accept until it would block: True if the listener is parked, False if it is broken."""
    cdef Conn *c
    cdef int fd, parked
    while poll_runtime_pollReset(head.pd, modeRead) == 0:
        fd = accept4(head.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if fd < 0:
            if errno == EAGAIN:
                parked = park(ps, head, modeRead)
                if parked != 0:
                    return parked > 0
            elif errno == EMFILE or errno == ENFILE:
                return False
            continue                         # EINTR, ECONNABORTED: the next one
        c = conn_open(ps, fd)
        if c == NULL:
            close(fd)
            continue
        c.prev, c.next = head, head.next
        head.next.prev, head.next = c, c
        if not converse(ps, c, idle_ns):
            conn_close(ps, c)
    return False


cdef int serve(pollServer *ps, Conn *head, int64_t idle_ns, int *stopping) noexcept nogil:
    """Run until *stopping*; 0, or what netpoll or accept failed with."""
    cdef uintptr_t out[NETPOLL_CAP]
    cdef Conn *c
    cdef int i, n
    if not accept_all(ps, head, idle_ns):
        return -1
    while not load_flag(stopping):
        n = netpoll(ps, -1, out, NETPOLL_CAP)            # -1 blocks; netpollBreak ends it
        if n == -EINTR:
            continue
        if n < 0:
            return n
        for i in range(n):
            c = <Conn *>out[i]
            netpollresume(c.pd, c.mode)                  # take the wake-up: reset says why
            if c == head:
                if not accept_all(ps, head, idle_ns):
                    return -1
                continue
            if poll_runtime_pollReset(c.pd, c.mode) != 0:
                conn_close(ps, c)                        # idle for too long
            elif not converse(ps, c, idle_ns):
                conn_close(ps, c)
    return 0


cdef void close_all(pollServer *ps, Conn *head) noexcept nogil:
    """Evict who is parked, take the evicted out of netpoll, then close: in this order."""
    cdef uintptr_t out[NETPOLL_CAP]
    cdef Conn *c = head
    while True:
        poll_runtime_pollUnblock(ps, c.pd)
        c = c.next
        if c == head:
            break
    while netpoll(ps, 0, out, NETPOLL_CAP) > 0:
        pass
    while head.next != head:
        conn_close(ps, head.next)            # evicted already: that step does nothing
    poll_runtime_pollClose(ps, head.pd)
    free(head)                               # its descriptor is the caller's


cdef class EchoLoop:
    """An echo server on a listening socket that stays the caller's."""
    cdef Poller poller
    cdef int fd
    cdef int stopping
    cdef int64_t idle_ns

    def __init__(self, int fd, double idle_s=60):
        """fd: non-blocking and listening. idle_s: close who sends nothing for so long."""
        self.poller = Poller(raw=True)
        self.fd = fd
        self.idle_ns = <int64_t>(idle_s * 1e9)
        if netpollGenericInit(self.poller.ps) != 0:
            raise OSError("no epoll instance")

    def run(self):
        """Serve on this thread until stop(); the GIL is not held."""
        cdef pollServer *ps = self.poller.ps
        cdef Conn *head = conn_open(ps, self.fd)
        cdef int rc
        if head == NULL:
            raise OSError(f"fd {self.fd} cannot be polled")
        with nogil:
            rc = serve(ps, head, self.idle_ns, &self.stopping)
            close_all(ps, head)
        if rc != 0:
            raise RuntimeError(f"the loop failed: {rc}")

    def stop(self):
        """Make run() return. Any thread, before close()."""
        with nogil:
            set_flag(&self.stopping)
            netpollBreak(&self.poller.ps.ep)

    def close(self):
        """Close the epoll instance, after run()."""
        self.poller.close()
