"""fdMutex: references and the read and write lock of a descriptor. See _fdmutex.pyx."""

from libc.stdint cimport uint64_t

from gopoll._polldesc cimport Note


cdef enum:
    muClosed = 0
    muLocked = 1
    muQueued = 2
    muOverflow = -1

cdef struct muWaiter:
    muWaiter *next
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
