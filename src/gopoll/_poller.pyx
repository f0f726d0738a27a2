"""Poller: the poller as embedding loops and the scheduler see it. netpoll() is the one door out.

Called by the scheduler, by guests and by embedding loops, on any thread. A Poller has no thread
and no scheduler of its own: if nobody polls it, nothing wakes.
Go: runtime/netpoll.go (go1.27).
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.object cimport PyObject
from libc.errno cimport EINTR, errno
from libc.stdint cimport INT64_MAX, int64_t, uintptr_t

from gopoll._atomic cimport cas_int, load_u64, lock, unlock
from gopoll._epoll cimport EPOLLET, EPOLLIN, netpollBreak, netpollopen
from gopoll._netpoll cimport NETPOLL_CAP, netpoll, netpolltimeout
from gopoll._pollcache cimport (modeBoth, modeRead, modeWrite, pollServer, regEdge, regLevel,
                                regOneshot)
from gopoll._polldesc cimport PollDesc, Timer
from gopoll._pollerbase cimport PollerBase, check_int, check_int64
from gopoll._pollserver cimport (netpollGenericInit, netpollWaiters,
                                 poll_runtime_isPollServerDescriptor)
from gopoll._throw cimport throw
from gopoll._timers cimport nanotime

from gopoll.errors import op_error


cdef extern from *:
    const char *GOPOLL_BUILD             # from setup.py: release, trace, or the sanitizer's name

cdef extern from "<sys/timerfd.h>" nogil:
    int timerfd_create(int clock, int flags)
    enum:
        TFD_NONBLOCK
        TFD_CLOEXEC

cdef extern from "<time.h>" nogil:
    enum:
        CLOCK_MONOTONIC

cdef extern from "<unistd.h>" nogil:
    int close(int fd)


READ = modeRead
WRITE = modeWrite
BOTH = modeBoth
EDGE = regEdge
LEVEL = regLevel
ONESHOT = regOneshot
ABI = ABI_VERSION
BUILD = GOPOLL_BUILD.decode()


cdef class Poller(PollerBase):
    """One epoll instance with its descriptors and deadlines; a waiter is any Python object.

    Any thread may call any method. After close() all but close(), is_closed, stats() and
    is_poll_descriptor() raise ClosedError.

    raw: its waiters are words of C's, for embedders in Cython. gopoll counts no references of them:
    what takes or returns an object as a waiter is a RuntimeError, and close() drops them.
    """

    def __init__(self, bint raw=False):
        self.raw = raw

    def fileno(self):
        """Return the epoll descriptor: readable when netpoll(0) has something for the caller.

        Asking for it says that a host watches it from outside: from now on every netpoll takes
        the break back (P9), and every post, eviction and earlier deadline makes it readable. The
        first time it is readable at once; select.select([poller]) asks every time.
        """
        self.enter()
        try:
            rc = netpollGenericInit(self.ps)
            if rc != 0:
                throw(rc)
            if cas_int(&self.ps.watched, 0, 1):
                netpollBreak(&self.ps.ep)    # what is ready already was never announced
            return self.ps.ep.epfd
        finally:
            self.leave()

    def enable_timerfd(self):
        """Make fileno() readable at deadlines too, for hosts that have no timers. OpError."""
        cdef int fd, rc
        self.fileno()
        self.enter()
        try:
            with cython.critical_section(self):
                if self.ps.timerfd >= 0:
                    return
                fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
                if fd < 0:
                    raise op_error("timerfd_create", "", None, None, errno)
                # Edge-triggered and never read: setting it again re-arms it (P9).
                rc = netpollopen(&self.ps.ep, fd, EPOLLIN | EPOLLET, 1)
                if rc != 0:
                    close(fd)
                    raise op_error("open", "", None, "timerfd", rc)
                self.ps.timerfd = fd
            netpollBreak(&self.ps.ep)        # the next netpoll sets it to the first deadline
        finally:
            self.leave()

    def timeout_ns(self):
        """Return the ns until netpoll has something to do: 0 now, -1 unknown (no deadline)."""
        self.enter()
        try:
            return netpolltimeout(self.ps, -1)
        finally:
            self.leave()

    def netpoll(self, delay_ns=0, limit=128):
        """Return a list of the waiters that became ready: the only place they come out of.

        delay_ns: 0 polls, -1 blocks, else at most that long. The list is empty before that only if
        something broke the wait: netpoll_break(), close(), or a deadline that came first of all.
        limit: the longest list, 1 to 256; what is left comes with the next call. Runs signal
        handlers when a signal arrives, and raises what they raise. Go: netpoll.
        """
        cdef uintptr_t words[NETPOLL_CAP]
        cdef pollServer *ps = self.ps
        cdef int n, most = check_int(limit, "limit")
        cdef int64_t until = 0, delay = check_int64(delay_ns, "delay_ns")
        if most < 1 or most > NETPOLL_CAP:
            raise ValueError(f"limit {limit} is not in 1..{NETPOLL_CAP}")
        self.enter_python()
        try:
            if delay == 0:
                # The GIL stays: releasing it around a call that cannot block costs a hand-over
                # of up to 5 ms beside a CPU-bound thread (B3).
                n = netpoll(self.ps, 0, words, most)
            else:
                if delay > 0:
                    until = nanotime() + delay if delay < INT64_MAX // 2 else 0
                while True:
                    with nogil:
                        n = netpoll(self.ps, delay, words, most)
                    if n != -EINTR:
                        break
                    try:
                        PyErr_CheckSignals()
                    finally:
                        if self.ps != ps:    # the handler forked: we are inside the child's
                            ps = self.ps
                            self.hold()
                    if until:
                        delay = until - nanotime()
                        if delay <= 0:
                            n = 0
                            break
            if n < 0:
                throw(n)
            return _word_list(words, n)
        finally:
            self.leave()

    def netpoll_break(self):
        """Make a blocked or the next blocking netpoll return. Any thread, coalesced.

        Go: netpollBreak.
        """
        self.enter()
        try:
            rc = netpollGenericInit(self.ps)
            if rc == 0:
                rc = netpollBreak(&self.ps.ep)
            if rc != 0:
                throw(rc)
        finally:
            self.leave()

    def call_at_ns(self, when_ns, waiter):
        """Make *waiter* ready at monotonic *when_ns*; return the Timer."""
        return Timer(self, when_ns, waiter)

    def open(self, fd, mode=regEdge):
        """Register *fd* and return its PollDesc. Go: poll_runtime_pollOpen.

        mode: EDGE (never modified), LEVEL or ONESHOT. Raises NotPollableError for a regular
        file, an OSError with the errno for a bad descriptor or one that is registered already.
        """
        if check_int(mode, "mode") not in (regEdge, regLevel, regOneshot):
            raise ValueError(f"mode {mode} is none of EDGE, LEVEL, ONESHOT")
        return PollDesc(self, fd, mode)

    def is_poll_descriptor(self, fd):
        """Report whether *fd* is one of the poller's own. Go: isPollServerDescriptor."""
        return bool(poll_runtime_isPollServerDescriptor(self.ps, check_int(fd, "fd")))

    def stats(self):
        """Return the counters as a dict: polls, events, parks, wakes, spurious, stale, breaks,
        waiters (parked now), descriptors (open now), timers (armed now)."""
        cdef pollServer *ps = self.ps
        cdef int64_t descriptors, timers
        lock(&ps.cache.lock)
        descriptors = ps.cache.in_use
        unlock(&ps.cache.lock)
        lock(&ps.timers.lock)
        timers = ps.timers.len
        unlock(&ps.timers.lock)
        return {
            "polls": load_u64(&ps.stats.polls),
            "events": load_u64(&ps.stats.events),
            "parks": load_u64(&ps.stats.parks),
            "wakes": load_u64(&ps.stats.wakes),
            "spurious": load_u64(&ps.stats.spurious),
            "stale": load_u64(&ps.stats.stale),
            "breaks": load_u64(&ps.stats.breaks),
            "waiters": netpollWaiters(ps),
            "descriptors": descriptors,
            "timers": timers,
        }


cdef list _word_list(uintptr_t *words, int n):
    """Make a list that takes over the references of *words* (A5)."""
    cdef list out = PyList_New(n)
    cdef int i
    for i in range(n):
        PyList_SET_ITEM(out, i, <object><PyObject *>words[i])
    return out
