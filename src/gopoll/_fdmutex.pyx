"""fdMutex: counts the users of a descriptor and serialises readers and writers.

Called by _fd, on any attached thread: with a GIL nothing here is locked but by that.
Go: internal/poll/fd_mutex.go (go1.27).

    bit 0        closed
    bit 1, 2     read lock held, write lock held
    bits 3-22    references: readers, writers and all other operations
    bits 23-42   readers that wait for the lock
    bits 43-62   writers that wait for the lock

incref pairs with decref, rwlock with rwunlock; who is told 1 by decref or rwunlock destroys.

M1: a waiter count changes only under the queue's lock, in the compare-and-swap that also checks
    the lock bit or the closed bit. So a count of 0 in rwunlock's swap means that nobody waits,
    and a count above 0 that somebody is in the queue.
M2: the lock is handed over, bit and reference with it, to who has waited longest (Go wakes one
    and lets it race): reads queue behind reads, and a waiter that is cancelled after the
    hand-over owns the lock and gives it on.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.stdint cimport uint64_t

from gopoll._atomic cimport gil_cas_u64, gil_lock, gil_unlock, load_u64, store_u64
from gopoll._throw cimport THROW_FDMUTEX

cdef uint64_t RWAIT = <uint64_t>1 << 23
cdef uint64_t WWAIT = <uint64_t>1 << 43


cdef void fdmutex_init(fdMutex *mu) noexcept:
    store_u64(&mu.state, 0)
    mu.lock = 0
    mu.head[0] = mu.head[1] = mu.tail[0] = mu.tail[1] = NULL


cdef bint fdmutex_closed(fdMutex *mu) noexcept:
    """Report whether increfAndClose has been called."""
    return load_u64(&mu.state) & CLOSED != 0


cdef int fdmutex_references(fdMutex *mu) noexcept:
    """How many users there are now. Once it is closed there are never more."""
    return (load_u64(&mu.state) & REFMASK) >> 3


cdef int fdmutex_incref(fdMutex *mu) noexcept:
    """Add a reference: muLocked, muClosed or muOverflow. Go: incref."""
    cdef uint64_t old, new
    while True:
        old = load_u64(&mu.state)
        if old & CLOSED:
            return muClosed
        new = old + REF
        if new & REFMASK == 0:
            return muOverflow
        if gil_cas_u64(&mu.state, old, new):
            return muLocked


cdef int fdmutex_increfAndClose(fdMutex *mu, muWaiter **woken) noexcept:
    """Close, add a reference, empty both queues into *woken*: muLocked, muClosed, muOverflow.

    The caller wakes the chain; those waiters see that they were not granted. Go: increfAndClose.
    """
    cdef uint64_t old, new
    cdef muWaiter *node
    cdef int i
    woken[0] = NULL
    gil_lock(&mu.lock)
    while True:
        old = load_u64(&mu.state)
        if old & CLOSED:
            gil_unlock(&mu.lock)
            return muClosed
        new = (old | CLOSED) + REF
        if new & REFMASK == 0:
            gil_unlock(&mu.lock)
            return muOverflow
        new &= ~(RMASK | WMASK)
        if gil_cas_u64(&mu.state, old, new):
            break
    for i in range(2):
        node = mu.head[i]
        while node != NULL:
            node.queued = False
            node = node.next
        if mu.tail[i] != NULL:
            mu.tail[i].next = woken[0]
            woken[0] = mu.head[i]
        mu.head[i] = mu.tail[i] = NULL
    gil_unlock(&mu.lock)
    return muLocked


cdef int fdmutex_decref(fdMutex *mu) noexcept:
    """Drop a reference: 1 if closed and it was the last, else 0; or a Throw code. Go: decref."""
    cdef uint64_t old, new
    while True:
        old = load_u64(&mu.state)
        if old & REFMASK == 0:
            return THROW_FDMUTEX
        new = old - REF
        if gil_cas_u64(&mu.state, old, new):
            return new & (CLOSED | REFMASK) == CLOSED


cdef int fdmutex_rwlock(fdMutex *mu, bint read, muWaiter *node) noexcept:
    """Add a reference and lock: muLocked, muClosed, muOverflow, or muQueued where *node* waits.

    node NULL: do not queue, muQueued says busy. Go: rwlock.
    """
    cdef uint64_t bit = RLOCK if read else WLOCK
    cdef uint64_t one = RWAIT if read else WWAIT
    cdef uint64_t mask = RMASK if read else WMASK
    cdef uint64_t old, new
    cdef int side = 0 if read else 1
    cdef bint queueing = False
    while True:
        old = load_u64(&mu.state)
        if old & CLOSED:
            if queueing:
                gil_unlock(&mu.lock)
            return muClosed
        if old & bit == 0:
            new = (old | bit) + REF
            if new & REFMASK == 0:
                if queueing:
                    gil_unlock(&mu.lock)
                return muOverflow
        elif node == NULL:
            return muQueued
        elif not queueing:
            gil_lock(&mu.lock)                   # M1: look again, under the lock
            queueing = True
            continue
        else:
            new = old + one
            if new & mask == 0:
                gil_unlock(&mu.lock)
                return muOverflow
        if gil_cas_u64(&mu.state, old, new):
            break
    if old & bit == 0:
        if queueing:
            gil_unlock(&mu.lock)
        return muLocked
    node.next = NULL
    node.prev = mu.tail[side]
    node.queued = True
    node.granted = False
    if node.prev == NULL:
        mu.head[side] = node
    else:
        node.prev.next = node
    mu.tail[side] = node
    gil_unlock(&mu.lock)
    return muQueued


cdef int fdmutex_rwunlock(fdMutex *mu, bint read, muWaiter **woken) noexcept:
    """Unlock: 1 if closed and it was the last reference, else 0; or a Throw code.

    *woken*: the waiter that owns the lock now (M2), for the caller to wake, or NULL. Go: rwunlock.
    """
    cdef uint64_t bit = RLOCK if read else WLOCK
    cdef uint64_t one = RWAIT if read else WWAIT
    cdef uint64_t mask = RMASK if read else WMASK
    cdef uint64_t old, new
    cdef int side = 0 if read else 1
    cdef muWaiter *node
    woken[0] = NULL
    while True:
        old = load_u64(&mu.state)
        if old & bit == 0 or old & REFMASK == 0:
            return THROW_FDMUTEX
        if old & mask == 0:                  # M1: nobody waits
            new = (old & ~bit) - REF
            if gil_cas_u64(&mu.state, old, new):
                return new & (CLOSED | REFMASK) == CLOSED
            continue
        gil_lock(&mu.lock)
        while True:
            old = load_u64(&mu.state)
            if old & mask == 0 or gil_cas_u64(&mu.state, old, old - one):
                break
        node = NULL
        if old & mask:                       # M2: bit and reference are the first waiter's now
            node = mu.head[side]
            mu.head[side] = node.next
            if node.next == NULL:
                mu.tail[side] = NULL
            else:
                node.next.prev = NULL
            node.next = NULL
            node.queued = False
            node.granted = True
        gil_unlock(&mu.lock)
        if node != NULL:
            woken[0] = node
            return 0


cdef bint fdmutex_cancel(fdMutex *mu, bint read, muWaiter *node) noexcept:
    """Take *node* out of the queue: False if it has been granted the lock or was closed out."""
    cdef uint64_t one = RWAIT if read else WWAIT
    cdef uint64_t old
    cdef int side = 0 if read else 1
    gil_lock(&mu.lock)
    if not node.queued:
        gil_unlock(&mu.lock)
        return False
    if node.prev == NULL:
        mu.head[side] = node.next
    else:
        node.prev.next = node.next
    if node.next == NULL:
        mu.tail[side] = node.prev
    else:
        node.next.prev = node.prev
    node.next = NULL
    node.queued = False
    while True:
        old = load_u64(&mu.state)
        if gil_cas_u64(&mu.state, old, old - one):
            break
    gil_unlock(&mu.lock)
    return True


cdef class FdWait(Note):
    """The wait of one operation in an fdMutex queue. The queue holds a reference while it is in."""


cdef int wake_chain(muWaiter *node) except -1:
    """Wake dequeued waiters and give back the queue's references."""
    cdef muWaiter *rest
    cdef FdWait wait
    while node != NULL:
        rest = node.next
        wait = <FdWait><PyObject *>node.note
        node.next = NULL
        wait.wake_word()
        Py_DECREF(wait)
        node = rest
    return 0
