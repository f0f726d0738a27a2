"""SysFD: a descriptor that is registered, counted, given deadlines and closed. See _sysfd.pyx."""

from libc.stdint cimport int64_t

from gopoll._fdmutex cimport fdMutex
from gopoll._pollcache cimport pollDesc, pollServer
from gopoll._poller cimport Poller
from gopoll._sockaddr cimport rawAddr, sockaddr, socklen_t


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
    cdef int check_fork(self) except -1
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
