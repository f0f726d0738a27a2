"""fdMutex, function by function, for tests/test_fdmutex.py: nothing here is installed.

Called by the tests, on any thread. tests/plugins/probe.py compiles it against the installed gopoll.
A C result comes back as it is.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

from gopoll._atomic cimport load_u64, store_u64
from gopoll._fdmutex cimport (fdMutex, fdmutex_cancel, fdmutex_closed, fdmutex_decref,
                              fdmutex_incref, fdmutex_increfAndClose, fdmutex_init,
                              fdmutex_rwlock, fdmutex_rwunlock, muClosed, muLocked, muOverflow,
                              muQueued, muWaiter)
from gopoll._throw cimport THROW_FDMUTEX, throw

CLOSED = muClosed
LOCKED = muLocked
QUEUED = muQueued
OVERFLOW = muOverflow
INCONSISTENT = THROW_FDMUTEX


def raise_throw(int code):
    """Raise what *code* stands for."""
    throw(code)


cdef class Waiter:
    """One place in a queue; the queue holds a reference while it is in."""
    cdef muWaiter node
    cdef readonly object name

    def __init__(self, name=None):
        self.name = name
        self.node.note = <PyObject *>self

    @property
    def queued(self):
        return self.node.queued

    @property
    def granted(self):
        return self.node.granted


cdef list _take(muWaiter *node):
    """Make a list of a chain of dequeued waiters and give back the queue's references."""
    cdef muWaiter *rest
    cdef list out = []
    while node != NULL:
        rest = node.next
        waiter = <Waiter><PyObject *>node.note
        node.next = NULL
        out.append(waiter)
        Py_DECREF(waiter)
        node = rest
    return out


cdef class Mutex:
    cdef fdMutex mu

    def __cinit__(self):
        fdmutex_init(&self.mu)

    @property
    def state(self):
        """The word as it is."""
        return load_u64(&self.mu.state)

    @state.setter
    def state(self, value):
        store_u64(&self.mu.state, value)

    @property
    def references(self):
        return self.state >> 3 & 0xFFFFF

    @property
    def readers(self):
        """How many wait to read."""
        return self.state >> 23 & 0xFFFFF

    @property
    def writers(self):
        return self.state >> 43 & 0xFFFFF

    @property
    def closed(self):
        return bool(fdmutex_closed(&self.mu))

    def incref(self, int times=1):
        """Take references until it fails; the last result."""
        cdef int rc = muLocked
        for _ in range(times):
            rc = fdmutex_incref(&self.mu)
            if rc != muLocked:
                break
        return rc

    def decref(self):
        return fdmutex_decref(&self.mu)

    def close(self):
        """Return (result, the waiters that were turned out)."""
        cdef muWaiter *woken = NULL
        cdef int rc
        rc = fdmutex_increfAndClose(&self.mu, &woken)
        return rc, _take(woken)

    def lock(self, bint read, Waiter waiter=None):
        """Lock, or queue *waiter*; without one a busy lock is QUEUED all the same."""
        cdef muWaiter *node = NULL
        cdef int rc
        if waiter is not None:
            Py_INCREF(waiter)
            node = &waiter.node
        rc = fdmutex_rwlock(&self.mu, read, node)
        if node != NULL and rc != muQueued:
            Py_DECREF(waiter)
        return rc

    def unlock(self, bint read):
        """Return (result, who owns the lock now or None)."""
        cdef muWaiter *woken = NULL
        cdef int rc
        rc = fdmutex_rwunlock(&self.mu, read, &woken)
        heirs = _take(woken)
        assert len(heirs) < 2
        return rc, heirs[0] if heirs else None

    def cancel(self, bint read, Waiter waiter not None):
        cdef bint out = fdmutex_cancel(&self.mu, read, &waiter.node)
        if out:
            Py_DECREF(waiter)
        return out
