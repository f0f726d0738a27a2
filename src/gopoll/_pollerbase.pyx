"""PollerBase: the life of a poller as a Python object: made, used, closed, forked.

Poller adds what loops call; PollDesc, Timer and Note are made on this. Any thread.
Go: runtime/netpoll.go (go1.27), whose poller is never closed.
"""

import os
import weakref

cimport cython
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EBADF, EMFILE, ENFILE, ENOMEM
from libc.stdint cimport int64_t, uintptr_t
from libc.stdlib cimport free, malloc

from gopoll._atomic cimport cas_int, gil_add_int, load_int
from gopoll._epoll cimport netpollBreak, netpollfini, netpollinit_errno
from gopoll._pollcache cimport (poll_runtime_pollUnblock, pollBlockSize, pollDesc, pollDescSize,
                                pollServer)
from gopoll._pollserver cimport (netpollGenericInit, pollserver_fini, pollserver_forked,
                                 pollserver_init, ready_push, ready_take)
from gopoll._throw cimport THROW_BREAK_WRITE, THROW_EPOLLCREATE, THROW_EVENTFD, throw
from gopoll._timers cimport TIMER_WAITER, Due, timers_pop_any

from gopoll.errors import ClosedError, op_error


cdef extern from "<unistd.h>" nogil:
    int close(int fd)


cdef enum:
    FINISHED = -(1 << 30)      # added to `active` when the epoll instance goes

cdef int64_t check_int64(object value, str name) except? -1:
    """Return the int *value*. TypeError, by *name*, for all else: C would cut a float short."""
    if not PyLong_CheckExact(value) and (isinstance(value, bool) or not isinstance(value, int)):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    return value


cdef int check_int(object value, str name) except? -1:
    """The same for an int of C's: a descriptor, a mode."""
    if not PyLong_CheckExact(value) and (isinstance(value, bool) or not isinstance(value, int)):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    return value


cdef double number_of(str name, object value) except? -1.0:
    """What is no float, as one."""
    try:
        return value
    except TypeError:
        raise TypeError(f"{name} must be seconds or None, not {type(value).__name__}") from None


# id -> poller, so that nothing is asked of a subclass's __eq__ and __hash__.
cdef object _pollers = weakref.WeakValueDictionary()


cdef class PollerBase:
    """One pollServer and who is inside it. Nobody enters after close(); the last one to leave
    closes the epoll instance, so nobody ever uses a number that is another's by then."""

    def __cinit__(self):
        self.ps = <pollServer *>malloc(sizeof(pollServer))
        if self.ps == NULL:
            raise MemoryError
        pollserver_init(self.ps)
        _pollers[id(self)] = self            # here: a subclass may forget our __init__

    def __dealloc__(self):
        if self.ps != NULL and not pollserver_forked(self.ps):                       # A9
            if cas_int(&self.active, 0, FINISHED):
                self._finish()
            pollserver_fini(self.ps)
            free(self.ps)

    cdef bint hold(self) noexcept:
        """Keep the epoll instance open until leave(); False if it is gone: leave() all the same."""
        return gil_add_int(&self.active, 1) > 0

    cdef int enter(self) except -1:
        """Keep the epoll instance open until leave(); ClosedError after close()."""
        self.hold()
        if load_int(&self.closed):
            self.leave()
            raise ClosedError("poll", "", None, None, "use of closed poller", errno=EBADF)
        return 0

    cdef int enter_python(self) except -1:
        """enter() for who waits with objects; RuntimeError where waiters are words of C's."""
        if self.raw:
            raise RuntimeError("the waiters of a Poller(raw=True) are words of C's: make another "
                               "Poller for Python's")
        return self.enter()

    cdef void leave(self) noexcept:
        """Undo hold() or enter(). After close() the last to leave closes the epoll instance."""
        if load_int(&self.closed) and load_int(&self.active) > 1:
            # A break wakes one sleeper: each hands it on to the next on its way out.
            self._break()
        if gil_add_int(&self.active, -1) == 0 and load_int(&self.closed):
            if cas_int(&self.active, 0, FINISHED):
                self._finish()

    cdef void _break(self) noexcept:
        """Wake one who sleeps, or is about to create the instance to sleep in. Held only."""
        if netpollGenericInit(self.ps) == 0:
            netpollBreak(&self.ps.ep)

    cdef void _finish(self) noexcept:
        """Evict every waiter, give back what the poller owns, close. Once, with nobody inside."""
        cdef uintptr_t words[64]
        cdef Due due
        cdef pollDesc *pd
        cdef Py_ssize_t b
        cdef int i, n
        for b in range(self.ps.cache.nblocks):
            for i in range(pollBlockSize // pollDescSize):
                pd = <pollDesc *>(<char *>self.ps.cache.blocks[b] + i * pollDescSize)
                poll_runtime_pollUnblock(self.ps, pd)        # a throw says: closing already
        while timers_pop_any(&self.ps.timers, &due):
            if due.kind >= TIMER_WAITER:
                ready_push(self.ps, <uintptr_t>due.arg)
        while True:
            n = ready_take(self.ps, words, 64)
            if n == 0:
                break
            if not self.raw:             # else nobody's but the embedder's, as all of C's (A5)
                for i in range(n):
                    Py_DECREF(<object><PyObject *>words[i])
        netpollfini(&self.ps.ep)
        if self.ps.timerfd >= 0:
            close(self.ps.timerfd)
            self.ps.timerfd = -1
        with cython.critical_section(self):
            self.pipes = None

    def close(self):
        """Evict every waiter and close the epoll instance; a second call does nothing.

        A netpoll under way on another thread returns (empty) before the descriptor is closed.
        Waiters that nobody has taken out of netpoll are dropped.
        """
        if cas_int(&self.closed, 0, 1):
            self.hold()
            self.leave()

    @property
    def is_closed(self):
        """Whether close() has been called."""
        return bool(load_int(&self.closed))

    cdef int post_word(self, uintptr_t waiter) except -1:
        """Post an object whose reference the caller gives away; where this raises he keeps one."""
        cdef int rc
        self.enter_python()
        Py_INCREF(<object><PyObject *>waiter)    # listed, it may be taken out and dropped by now
        rc = ready_push(self.ps, waiter)
        self.leave()
        if rc != THROW_BREAK_WRITE:              # where that fails the list has the caller's
            Py_DECREF(<object><PyObject *>waiter)
        if rc != 0:
            throw(rc)
        return 0

    def post(self, waiter):
        """Put *waiter* on the ready list: the next netpoll returns it. Any thread."""
        Py_INCREF(waiter)
        try:
            self.post_word(<uintptr_t><PyObject *>waiter)
        except BaseException:
            Py_DECREF(waiter)
            raise


def init_poller(PollerBase poller not None):
    """Create the epoll instance of *poller*, which else comes with its first use.

    OSError if the kernel has no descriptor or memory for it: of those a program may think, where
    any other failure is a throw. Any thread.
    """
    cdef int err, rc
    poller.enter()
    try:
        rc = netpollGenericInit(poller.ps)
        err = netpollinit_errno()
    finally:
        poller.leave()
    if rc == THROW_EPOLLCREATE and err in (EMFILE, ENFILE, ENOMEM):
        raise op_error("epoll_create", "", None, None, err)
    if rc == THROW_EVENTFD and err in (EMFILE, ENFILE, ENOMEM):
        raise op_error("eventfd", "", None, None, err)
    if rc != 0:
        throw(rc)


def _after_fork_in_child():
    """Give every poller a fresh server and leave the parent's alone (A9).

    The old one is abandoned, not freed: its locks may be held by threads that do not exist here,
    and its waiters belong to the parent. Closing our copies of its descriptors takes nothing from
    the parent; a DEL would.
    """
    cdef PollerBase poller
    cdef pollServer *fresh
    for poller in list(_pollers.values()):
        fresh = <pollServer *>malloc(sizeof(pollServer))
        if fresh == NULL:
            continue
        pollserver_init(fresh)
        netpollfini(&poller.ps.ep)
        if poller.ps.timerfd >= 0:
            close(poller.ps.timerfd)
        poller.ps = fresh
        poller.active = 0                # the other threads' too; see Poller.netpoll for our own


os.register_at_fork(after_in_child=_after_fork_in_child)
