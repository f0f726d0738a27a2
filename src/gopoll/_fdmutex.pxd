"""fdMutex: references and the read and write lock of a descriptor. See _fdmutex.pyx."""

from libc.stdint cimport uint64_t

from gopoll._atomic cimport gil_cas_u64, load_u64
from gopoll._polldesc cimport Note


cdef enum:
    muClosed = 0
    muLocked = 1
    muQueued = 2
    muOverflow = -1

    CLOSED = 1
    RLOCK = 2
    WLOCK = 4
    REF = 8
    REFMASK = 0xFFFFF << 3

cdef extern from *:
    """
    #define gopoll_RMASK ((uint64_t)0xFFFFF << 23)
    #define gopoll_WMASK ((uint64_t)0xFFFFF << 43)
    """
    const uint64_t RMASK "gopoll_RMASK"
    const uint64_t WMASK "gopoll_WMASK"

cdef struct muWaiter:
    muWaiter *next
    muWaiter *prev     # in the queue; guarded by fdMutex.lock
    void *note         # the FdWait, a reference held by the queue
    bint queued        # guarded by fdMutex.lock
    bint granted       # it holds the lock; guarded by fdMutex.lock until it is dequeued

cdef struct fdMutex:
    uint64_t state     # the layout is in _fdmutex.pyx; atomic
    int lock           # guards the queues and every change of the waiter counts (M1)
    muWaiter *head[2]  # readers, writers
    muWaiter *tail[2]

cdef class FdWait(Note):
    cdef muWaiter node

cdef void fdmutex_init(fdMutex *mu) noexcept
cdef bint fdmutex_closed(fdMutex *mu) noexcept
cdef int fdmutex_references(fdMutex *mu) noexcept
cdef int fdmutex_incref(fdMutex *mu) noexcept
cdef int fdmutex_increfAndClose(fdMutex *mu, muWaiter **woken) noexcept
cdef int fdmutex_decref(fdMutex *mu) noexcept
cdef int fdmutex_rwlock(fdMutex *mu, bint read, muWaiter *node) noexcept
cdef int fdmutex_rwunlock(fdMutex *mu, bint read, muWaiter **woken) noexcept
cdef bint fdmutex_cancel(fdMutex *mu, bint read, muWaiter *node) noexcept
cdef int wake_chain(muWaiter *node) except -1


cdef inline bint fdmutex_rwlock_free(fdMutex *mu, bint read) noexcept:
    """rwlock where nobody is in the way; False if somebody may be."""
    cdef uint64_t old = load_u64(&mu.state), bit = RLOCK if read else WLOCK
    if old & (CLOSED | bit) or (old + REF) & REFMASK == 0:
        return False
    return gil_cas_u64(&mu.state, old, (old | bit) + REF)


cdef inline bint fdmutex_rwunlock_free(fdMutex *mu, bint read) noexcept:
    """rwunlock where nobody waits (M1) and it is not closed; False if somebody may, or it is."""
    cdef uint64_t old = load_u64(&mu.state), bit = RLOCK if read else WLOCK
    if old & bit == 0 or old & (CLOSED | (RMASK if read else WMASK)) or old & REFMASK == 0:
        return False
    return gil_cas_u64(&mu.state, old, (old & ~bit) - REF)
