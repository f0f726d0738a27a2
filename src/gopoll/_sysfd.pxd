"""SysFD: a descriptor that is registered, counted, given deadlines and closed. See _sysfd.pyx."""

from libc.stdint cimport int64_t

from gopoll._fdmutex cimport fdMutex
from gopoll._pollcache cimport pollDesc, pollServer
from gopoll._poller cimport Poller
from gopoll._sockaddr cimport rawAddr, sockaddr, socklen_t


cdef extern from * nogil:
    """
    #include <sys/socket.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    /* Not by way of the C library: where there are threads (sysmon's) its recv and send are
       cancellation points, four locked instructions a message. */
    #if defined(SYS_recvfrom) && defined(SYS_sendto) && !(defined(__x86_64__) && defined(__ILP32__))
    static inline Py_ssize_t gopoll_recv(int fd, void *buf, size_t n, int flags) {
      return syscall(SYS_recvfrom, fd, buf, n, flags, NULL, NULL);
    }
    static inline Py_ssize_t gopoll_send(int fd, const void *buf, size_t n, int flags) {
      return syscall(SYS_sendto, fd, buf, n, flags, NULL, 0);
    }
    #else
    #define gopoll_recv recv
    #define gopoll_send send
    #endif
    """
    Py_ssize_t recv "gopoll_recv"(int fd, void *buf, size_t n, int flags)
    Py_ssize_t send "gopoll_send"(int fd, const void *buf, size_t n, int flags)

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL

cdef extern from "<unistd.h>" nogil:
    Py_ssize_t read(int fd, void *buf, size_t n)
    Py_ssize_t write(int fd, const void *buf, size_t n)

cdef enum:
    MAX_RW = 1 << 30           # what one system call is asked for on a stream, as in Go

cdef class SysFD:
    cdef int sysfd             # -1 once it is really closed; constant while referenced
    cdef bint is_stream        # a byte stream: reads and writes are capped, short is normal
    cdef bint zero_is_eof      # reading nothing means the end (all but datagrams)
    cdef bint is_file          # read(2) and write(2); "file" in error texts
    cdef int family            # of a socket that is no stream: what its addresses are; else 0
    cdef bint is_given_away    # by detach: not closed with the rest; set before the last decref
    cdef int plain             # TCP, and nobody but us has set anything on it (R1); atomic
    cdef bint drained          # the last read was short (R1); under the read lock
    cdef int last_read         # how much it gave; under the read lock
    cdef int destroyed         # close(2) has been called; atomic
    cdef fdMutex mu
    cdef pollDesc *pd          # NULL until init
    cdef pollServer *ps        # the server pd belongs to: differs from poller.ps after a fork
    cdef readonly Poller poller
    cdef readonly str network
    cdef object local_         # addresses as Python has them, None before they are asked for;
    cdef object remote_        # critical section
    cdef rawAddr raw_local     # and as the kernel gave them, where that has been kept; constant
    cdef rawAddr raw_remote
    cdef object watcher        # called after a deadline has been moved, or None
    cdef set closers           # Notes of those who wait for the real close; critical section
    cdef object __weakref__
    cdef int mutex_error(self, int rc, str op, object written=*) except -1
    cdef int incref(self, str op) except -1
    cdef int decref(self) except -1
    cdef int unlock(self, int mode) except -1
    cdef int refuse_copy(self) except -1
    cdef int register(self, Poller poller, int reg) except -1
    cdef int ask_family(self) except -1
    cdef bint is_used_by_others(self, int ours) noexcept
    cdef int evict(self, str op=*, bint give_away=*) except -1
    cdef int destroy(self) except -1
    cdef int copy(self, str op) except -1
    cdef int shut(self, int how, str op) except -1
    cdef object sock_address(
        self, int (*call)(int, sockaddr *, socklen_t *) noexcept nogil, str name)
    cdef int set_deadline_word(self, int64_t when_ns, int mode) except -1


cdef inline int check_fork(SysFD fd) except -1:
    """ForkedError for a connection that the parent process opened."""
    if fd.poller is not None and fd.ps != fd.poller.ps:
        fd.refuse_copy()
    return 0


cdef inline Py_ssize_t read_some(SysFD fd, void *buf, Py_ssize_t n) noexcept nogil:
    if fd.is_stream and n > MAX_RW:
        n = MAX_RW
    # DONTWAIT: whoever has a copy of the socket may have made both blocking.
    return read(fd.sysfd, buf, n) if fd.is_file else recv(fd.sysfd, buf, n, MSG_DONTWAIT)


cdef inline Py_ssize_t write_some(SysFD fd, const void *buf, Py_ssize_t n) noexcept nogil:
    if fd.is_stream and n > MAX_RW:
        n = MAX_RW
    return (write(fd.sysfd, buf, n) if fd.is_file
            else send(fd.sysfd, buf, n, MSG_NOSIGNAL | MSG_DONTWAIT))
