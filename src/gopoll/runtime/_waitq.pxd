"""Queues of waiters, and the operations that wait in them. See _waitq.pyx."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t

from gopoll._atomic cimport cas_int
from gopoll._park cimport Awaitable


cdef enum WaiterState:
    W_OFF                      # in no queue
    W_QUEUED
    W_DONE                     # taken out: what it waited for has happened
    W_CLOSED                   # taken out: the channel has been closed

cdef enum ClaimState:          # of a select, whose waiters share one (H2)
    C_IDLE                     # not committed
    C_WAITING
    C_TAKEN                    # one of its waiters has been taken out
    C_BACK                     # taken back
    C_TIMEOUT

cdef enum OpPhase:
    NEW                        # not awaited yet
    PARKED                     # has yielded itself
    ENDED

cdef struct WaitQ

cdef struct Waiter:            # Go: sudog
    Waiter *next               # guarded by the queue's lock; of the waker once taken out
    Waiter *prev
    WaitQ *q                   # the queue it stands in, or would stand in; constant
    PyObject *op               # the WaitOp it belongs to, borrowed; constant
    PyObject *word             # that commit was given; written before it is queued (H1)
    PyObject *value            # to be sent, or received; owned; guarded by the queue's lock
    int64_t nth                # of its channel's hand-overs, where value is one; guarded as that
    int *claim                 # a select's ClaimState, NULL without one; constant
    int state                  # guarded by the queue's lock

cdef struct WaitQ:             # Go: waitq. First come, first served
    Waiter *first
    Waiter *last

cdef inline void enqueue(Waiter *w) noexcept nogil:
    """Append *w* to its queue. Under the queue's lock."""
    cdef WaitQ *q = w.q
    w.state = W_QUEUED
    w.next = NULL
    w.prev = q.last
    if q.last == NULL:
        q.first = w
    else:
        q.last.next = w
    q.last = w

cdef inline void unlink(Waiter *w, int state) noexcept nogil:
    """Take *w* off its queue; *state* says why. Under the queue's lock (H1)."""
    cdef WaitQ *q = w.q
    if w.prev == NULL:
        q.first = w.next
    else:
        w.prev.next = w.next
    if w.next == NULL:
        q.last = w.prev
    else:
        w.next.prev = w.prev
    w.state = state

cdef inline Waiter *dequeue(WaitQ *q, int state) noexcept nogil:
    """Take out the first waiter that is still to be had, or NULL. Under the lock. Go: dequeue."""
    cdef Waiter *w
    while True:
        w = q.first
        if w == NULL:
            return NULL
        if w.claim == NULL or cas_int(w.claim, C_WAITING, C_TAKEN):       # H2
            unlink(w, state)
            return w
        unlink(w, W_OFF)

cdef inline bint move(WaitQ *q, int state, WaitQ *chain) noexcept nogil:
    """Take out the first waiter and append it to *chain*, for wake_all(). Under the lock."""
    cdef Waiter *w = dequeue(q, state)
    if w == NULL:
        return False
    w.next = NULL
    if chain.first == NULL:
        chain.first = w
    else:
        chain.last.next = w
    chain.last = w
    return True

cdef class WaitOp(Awaitable):
    cdef Waiter node
    cdef Waiter *at            # with which it waits; changed by the awaiting coroutine alone
    cdef int *lock             # guards at.q
    cdef int phase             # the awaiting coroutine's own
    cdef bint must_wait(self) noexcept
    cdef int attempt(self, PyObject **out) except -1
    cdef int complete(self, PyObject **out) except -1
    cdef str name(self)
    cdef str remedy(self)
    cdef int park(self, PyObject **out) except -1
    cdef int park_task(self, PyObject **out) except -1
    cdef int refuse_twice(self) except -1
    cdef bint take_back(self) noexcept
    cdef object interrupted(self, object exc)
    cdef int drop(self) except -1
    cdef int abandon(self) except -1
    cdef int warn_if_new(self) except -1

cdef class Done(Awaitable):
    pass

cdef Done DONE
cdef void drain(WaitQ *q, int state, WaitQ *chain) noexcept nogil
cdef int init_op(WaitOp op, WaitQ *q, int *lock) noexcept
cdef void wake(Waiter *w) noexcept
cdef void wake_all(Waiter *w) noexcept
cdef int put_off(object exc) except -1
cdef object run_sync(WaitOp op, object timeout)
