"""SysFD: a descriptor that is registered, counted, given deadlines and closed.

Called by _fdop and by the net package, on any thread. What can block is in _fdop and _fd.
Go: internal/poll/fd_unix.go, fd_poll_runtime.go (go1.27).
"""

cimport cython
from libc.errno cimport EPERM, errno
from libc.stdint cimport INT64_MAX, int64_t

from gopoll._atomic cimport load_int, store_int
from gopoll._fdmutex cimport (fdmutex_closed, fdmutex_decref, fdmutex_incref,
                              fdmutex_increfAndClose, fdmutex_init, fdmutex_references,
                              fdmutex_rwunlock, muClosed, muLocked, muOverflow, muWaiter,
                              wake_chain)
from gopoll._park cimport warn
from gopoll._pollcache cimport (modeBoth, modeRead, modeWrite, pollDesc, pollDiscard,
                                poll_runtime_pollClose, poll_runtime_pollOpen,
                                poll_runtime_pollUnblock, regEdge, regExclusive, regPlain)
from gopoll._polldeadline cimport poll_runtime_pollSetDeadline
from gopoll._polldesc cimport Note
from gopoll._poller cimport Poller
from gopoll._pollerbase cimport seconds_of
from gopoll._pollserver cimport pollserver_forked
from gopoll._sockaddr cimport (AF_UNSPEC, getpeername, getsockname, getsockopt, rawaddr_to_python,
                               sockaddr, sockaddr_storage, sockaddr_to_python, socklen_t)
from gopoll._throw cimport THROW_UNBLOCK_CLOSING, throw
from gopoll._timers cimport nanotime

from gopoll.errors import ForkedError, closed_error, not_pollable_error, op_error


cdef extern from "<sys/socket.h>" nogil:
    int shutdown(int fd, int how)
    enum:
        SHUT_RD
        SHUT_WR
        SOL_SOCKET
        SO_DOMAIN

cdef extern from "<unistd.h>" nogil:
    int close(int fd)

cdef extern from "<fcntl.h>" nogil:
    int fcntl(int fd, int op, int arg)
    enum:
        F_DUPFD_CLOEXEC


@cython.no_gc_clear                      # an operation that goes with it in a cycle unlocks it
cdef class SysFD:
    """A descriptor under the poller, owned from the start. FD adds what can block to it."""

    def __cinit__(self, *args, **kwargs):
        fdmutex_init(&self.mu)
        self.sysfd = -1
        self.destroyed = 1

    def __init__(self, int sysfd, str network, *, bint stream=True, bint zero_read_is_eof=True,
                 bint file=False):
        if sysfd < 0:
            raise ValueError(f"descriptor {sysfd} is negative")
        self.sysfd = sysfd
        self.network = network
        self.is_stream = stream
        self.zero_is_eof = zero_read_is_eof
        self.is_file = file
        self.destroyed = 0
        if not stream and not file:
            self.ask_family()

    cdef int ask_family(self) except -1:
        """Note the family of a socket that sends to addresses; what is none has none."""
        cdef socklen_t size = sizeof(int)
        if getsockopt(self.sysfd, SOL_SOCKET, SO_DOMAIN, &self.family, &size) != 0:
            self.family = AF_UNSPEC
        return 0

    def init(self, Poller poller not None, bint exclusive=False, bint plain=False):
        """Register with *poller*: before anything that may wait. Go: FD.Init, pollDesc.init.

        exclusive: for a listener that several processes share: of those that wait one is woken
        (EPOLLEXCLUSIVE). It is registered only while somebody waits for it (L2).
        plain: a TCP socket that only we have set options on, or a listener for such: what a short
        read says about it can be relied on (R1).
        On an errno the pollDesc is unblocked and closed, then the OpError raised; the descriptor
        is still the caller's to close.
        """
        if self.poller is not None:
            raise RuntimeError(f"descriptor {self.sysfd} is registered already")
        self.register(poller, regExclusive if exclusive else regPlain if plain else regEdge)
        store_int(&self.plain, plain)

    cdef int register(self, Poller poller, int reg) except -1:
        """init, once it is known how."""
        cdef pollDesc *pd = NULL
        cdef int rc
        poller.enter_python()
        try:
            self.incref("open")
            with nogil:
                rc = poll_runtime_pollOpen(poller.ps, self.sysfd, reg, &pd)
                if rc != 0 and pd != NULL:
                    pollDiscard(poller.ps, pd)
            self.decref()
        finally:
            poller.leave()
        if rc < 0:
            throw(rc)
        if rc == EPERM:
            raise not_pollable_error("open", self.network, self.local_addr, self.remote_addr)
        if rc != 0:
            raise op_error("open", self.network, self.local_addr, self.remote_addr, rc)
        self.poller = poller
        self.ps = poller.ps
        self.pd = pd
        return 0

    def set_addrs(self, local, remote):
        """Note both addresses, for properties and error texts. Before others have the FD."""
        self.local_ = local
        self.remote_ = remote

    @property
    def local_addr(self):
        """The address of this end: ("host", port), a path, or None. Any thread."""
        with cython.critical_section(self):
            if self.local_ is None and self.raw_local.size:
                self.local_ = rawaddr_to_python(&self.raw_local)
            return self.local_

    @property
    def remote_addr(self):
        """The address of the other end. Any thread."""
        with cython.critical_section(self):
            if self.remote_ is None and self.raw_remote.size:
                self.remote_ = rawaddr_to_python(&self.raw_remote)
            return self.remote_

    def fileno(self):
        """Return the descriptor, -1 once it is closed. It stays ours: do not close it."""
        store_int(&self.plain, 0)
        return self.sysfd

    @property
    def _is_plain(self):
        """Whether nobody else can have set an option on the socket."""
        return bool(load_int(&self.plain))

    @property
    def is_closed(self):
        """Whether close() has been called."""
        return fdmutex_closed(&self.mu)

    # -- references

    cdef int mutex_error(self, int rc, str op, object written=None) except -1:
        if rc == muClosed:
            raise closed_error(op, self.network, self.local_addr, self.remote_addr,
                               file=self.is_file, written=written)
        if rc == muOverflow:
            raise RuntimeError("too many concurrent operations on a single file or socket "
                               "(max 1048575)")
        throw(rc)
        return 0

    cdef int incref(self, str op) except -1:
        """Keep the descriptor open until decref; ClosedError."""
        cdef int rc = fdmutex_incref(&self.mu)
        if rc != muLocked:
            self.mutex_error(rc, op)
        return 0

    cdef int decref(self) except -1:
        cdef int rc = fdmutex_decref(&self.mu)
        if rc < 0:
            throw(rc)
        if rc:
            self.destroy()
        return 0

    cdef int unlock(self, int mode) except -1:
        cdef muWaiter *woken = NULL
        cdef int rc = fdmutex_rwunlock(&self.mu, mode == modeRead, &woken)
        if rc < 0:
            throw(rc)
        if woken != NULL:
            wake_chain(woken)
        if rc:
            self.destroy()
        return 0

    cdef int refuse_copy(self) except -1:
        raise ForkedError(f"{self.network} connection {self.local_addr} -> {self.remote_addr} was "
                          "opened in the parent process: close it here and open another one")

    # -- closing

    cdef int evict(self, str op="close", bint give_away=False) except -1:
        """Close for all, now: every waiter wakes. The descriptor itself goes with the last user.

        give_away: by detach, who has a reference: not that, if there is no other user.
        """
        cdef muWaiter *woken = NULL
        cdef int rc = fdmutex_increfAndClose(&self.mu, &woken)
        if rc != muLocked:
            self.mutex_error(rc, op)
        self.is_given_away = give_away and not self.is_used_by_others(2)             # D1
        try:
            if self.pd != NULL and not pollserver_forked(self.ps):                   # A9
                if self.poller.hold():               # not: the poller has evicted all and gone
                    with nogil:
                        rc = poll_runtime_pollUnblock(self.ps, self.pd)
                self.poller.leave()
                if rc < 0 and not (rc == THROW_UNBLOCK_CLOSING
                                   and load_int(&self.poller.closed)):
                    throw(rc)
            if woken != NULL:
                wake_chain(woken)
        finally:
            self.decref()
        return 0

    cdef int destroy(self) except -1:
        """Unregister, then close(2), once, not retried on EINTR. By the last reference.

        What detach has given away is not closed.
        """
        cdef int rc = 0, fd = self.sysfd
        cdef pollDesc *pd = self.pd
        self.pd = NULL
        if pd != NULL and not pollserver_forked(self.ps):                            # A9
            if self.poller.hold():                   # DEL and epoll's own close must not race
                with nogil:
                    rc = poll_runtime_pollClose(self.ps, pd)
            self.poller.leave()
        if not self.is_given_away:
            with nogil:
                close(fd)
        self.sysfd = -1
        store_int(&self.destroyed, 1)                # C1: marked, then the list is taken
        with cython.critical_section(self):
            closers = self.closers
            self.closers = None
        if closers is not None:
            for note in closers:
                (<Note>note).wake_word()
        if rc != 0:
            throw(rc)
        return 0

    cdef int copy(self, str op) except -1:
        """Return a copy of the descriptor, closed on exec. While referenced. OpError."""
        cdef int fd = fcntl(self.sysfd, F_DUPFD_CLOEXEC, 0)
        store_int(&self.plain, 0)
        if fd < 0:
            raise op_error(op, self.network, self.local_addr, self.remote_addr, errno,
                           syscall="fcntl")
        return fd

    def dup(self):
        """Return a copy of the descriptor: closed on exec, the caller's to close. Any thread.

        It shares the flags, O_NONBLOCK among them: who clears that, clears it here too.
        Raises ClosedError, ForkedError, OpError. Go: FD.Dup.
        """
        check_fork(self)
        self.incref("file")
        try:
            return self.copy("file")
        finally:
            self.decref()

    def detach(self):
        """Give the descriptor up: closed for all as by close(), but open, and the caller's.

        Returns the number itself, or a copy where an operation is still under way on another
        thread or has yet to see that it is over: the number is closed with the last of them, so
        that none ever meets what the caller does with it. It is unregistered from the poller.
        Waits for nobody. Raises ClosedError; OpError where a copy cannot be had. Any thread.
        """
        cdef int fd = -1, number = self.sysfd
        self.incref("detach")
        try:
            # D1: every user holds a reference. Open, there may be more of them in a moment;
            # closed, only fewer: who is alone then is alone for good, and the number is his.
            if self.is_used_by_others(1):
                fd = self.copy("detach")             # first: if it fails, nothing has happened
            self.evict("detach", fd < 0)
            if fd < 0 and not self.is_given_away:    # they came in between
                fd = self.copy("detach")
        except BaseException:
            self.is_given_away = False
            if fd >= 0:
                close(fd)
            raise
        finally:
            self.decref()
        if self.is_given_away:                       # here still in a child, whose copy counts
            self.sysfd = -1                          # the parent's users as well
            store_int(&self.destroyed, 1)
            return number
        return fd

    cdef bint is_used_by_others(self, int ours) noexcept:
        """Whether there are references but *ours*; a child does not see those of its parent."""
        if self.pd != NULL and pollserver_forked(self.ps):                           # A9
            return False
        return fdmutex_references(&self.mu) > ours

    def __del__(self):
        if self.sysfd >= 0 and not fdmutex_closed(&self.mu):
            try:
                text = f"unclosed {self!r}"
            except Exception:            # at the interpreter's end names may have gone, it is quiet
                text = f"unclosed {type(self).__name__}"
            self.evict()                             # first: the warning may be an error
            warn(text, ResourceWarning, self)

    def __dealloc__(self):
        if self.sysfd >= 0:
            close(self.sysfd)

    # -- socket calls that do not block

    cdef int shut(self, int how, str op) except -1:
        cdef int rc
        check_fork(self)
        self.incref(op)
        rc = errno if shutdown(self.sysfd, how) != 0 else 0
        self.decref()
        if rc != 0:
            raise op_error(op, self.network, self.local_addr, self.remote_addr, rc,
                           syscall="shutdown")
        return 0

    def close_read(self):
        """Shut down the reading side. Raises OpError. Go: FD.Shutdown(SHUT_RD)."""
        self.shut(SHUT_RD, "close")

    def close_write(self):
        """Shut down the writing side: the peer reads the end. Raises OpError. Go: FD.Shutdown."""
        self.shut(SHUT_WR, "close")

    def raw_control(self, fn):
        """Call fn(descriptor) while it cannot be closed; return its result. Go: RawControl."""
        if not callable(fn):
            raise TypeError(f"fn must be callable, not {type(fn).__name__}")
        store_int(&self.plain, 0)
        return self._with_descriptor(fn)

    def _with_descriptor(self, fn):
        """raw_control for ourselves: *fn* does nothing that a short read cannot live with (R1)."""
        check_fork(self)
        self.incref("raw-control")
        try:
            return fn(self.sysfd)
        finally:
            self.decref()

    def getsockname(self):
        """Return the local address from the kernel. Raises OpError."""
        return self.sock_address(getsockname, "getsockname")

    def getpeername(self):
        """Return the remote address from the kernel. Raises OpError."""
        return self.sock_address(getpeername, "getpeername")

    cdef object sock_address(self, int (*call)(int, sockaddr *, socklen_t *) noexcept nogil,
                             str name):
        cdef sockaddr_storage addr
        cdef socklen_t size = sizeof(addr)
        cdef int rc
        self.incref(name)
        rc = errno if call(self.sysfd, <sockaddr *>&addr, &size) != 0 else 0
        self.decref()
        if rc != 0:
            raise op_error(name, self.network, self.local_addr, self.remote_addr, rc)
        return sockaddr_to_python(&addr, size)

    # -- deadlines

    cdef int set_deadline_word(self, int64_t when_ns, int mode) except -1:
        """when_ns: monotonic, 0 none, < 0 passed."""
        cdef int rc
        check_fork(self)
        rc = fdmutex_incref(&self.mu)
        if rc == muClosed:
            raise closed_error("set", self.network, None, self.local_addr, file=self.is_file)
        if rc != muLocked:
            self.mutex_error(rc, "set")
        if self.pd == NULL:
            self.decref()
            raise op_error("set", self.network, None, self.local_addr,
                           "file type does not support deadline")
        self.poller.hold()                           # it may wake who sleeps there, or the host
        rc = poll_runtime_pollSetDeadline(self.ps, self.pd, when_ns, mode)
        self.poller.leave()
        self.decref()
        if rc != 0:
            throw(rc)
        if self.watcher is not None:
            self.watcher(mode)
        return 0

    def _watch_deadlines(self, watcher):
        """Call watcher(mode) after a deadline (READ, WRITE or BOTH) has been moved, on that thread.

        For TLS, which waits for more than the descriptor.
        """
        self.watcher = watcher

    def set_deadline(self, when):
        """Set both deadlines to *when* (time.monotonic() seconds); None clears, the past cancels
        now. Holds for pending and later operations until changed; may be moved after it fired.
        Any thread. Raises ClosedError. Go: FD.SetDeadline."""
        self.set_deadline_word(when_to_ns(when), modeBoth)

    def set_read_deadline(self, when):
        """Set the deadline of reads and accepts; see set_deadline. Go: FD.SetReadDeadline."""
        self.set_deadline_word(when_to_ns(when), modeRead)

    def set_write_deadline(self, when):
        """Set the deadline of writes; see set_deadline. Go: FD.SetWriteDeadline."""
        self.set_deadline_word(when_to_ns(when), modeWrite)

    def set_timeout(self, timeout):
        """set_deadline(now + timeout seconds), the clock read once, now; None clears."""
        self.set_deadline_word(timeout_to_ns(timeout), modeBoth)

    def set_read_timeout(self, timeout):
        """set_read_deadline(now + timeout seconds); None clears."""
        self.set_deadline_word(timeout_to_ns(timeout), modeRead)

    def set_write_timeout(self, timeout):
        """set_write_deadline(now + timeout seconds); None clears."""
        self.set_deadline_word(timeout_to_ns(timeout), modeWrite)


cdef int64_t when_to_ns(when) except? -2:
    """An absolute time in seconds as ns: None is 0, the past is -1, beyond the clock is its end."""
    cdef double s
    if when is None:
        return 0
    s = seconds_of("deadline", when)
    if s >= 9e9:
        return INT64_MAX
    if s <= 0 or <int64_t>(s * 1e9) <= nanotime():
        return -1
    return <int64_t>(s * 1e9)


cdef int64_t timeout_to_ns(timeout) except? -2:
    cdef double s
    if timeout is None:
        return 0
    s = seconds_of("timeout", timeout)
    if s <= 0:
        return -1
    if s >= 9e9:
        return INT64_MAX
    return nanotime() + <int64_t>(s * 1e9)
