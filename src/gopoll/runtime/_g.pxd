"""G: a goroutine, its park and its joiners. See _g.pyx."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uintptr_t

from gopoll._park cimport Awaitable


cdef enum GState:
    G_RUNNABLE
    G_RUNNING
    G_WAITING
    G_DEAD
    G_LEFT                             # its run has ended without it

cdef class ContextBase:
    cdef int ended                     # set once, when the context is done; atomic (G1)
    cdef int left_                     # its block was left while something was below; atomic
    cdef public bint root              # background(), which nobody has to leave
    cdef uintptr_t owner               # the thread that has its lock, 0 for none; atomic
    cdef int depth                     # how often; the owner's own

cdef void take(ContextBase c) noexcept
cdef void drop(ContextBase c) noexcept

cdef class GBase:
    cdef readonly object sched
    cdef readonly object coro          # None once it has ended
    cdef readonly object vars          # its contextvars.Context
    cdef object context_               # its ambient Context; changed by itself alone, under plock
    cdef readonly object name
    cdef readonly int64_t id           # 0: the runtime's own
    cdef int64_t since_ns              # when it got into its state, by words.now; atomic
    cdef readonly object home          # the dict of live goroutines that it stands in
    cdef readonly object result        # written before done
    cdef readonly object error         # likewise
    cdef tuple told                    # how the error was when it came; likewise
    cdef object cancel_cause           # written before canceled
    cdef uintptr_t pending             # an exception to throw in at the next resume; atomic
    cdef PyObject *park                # what it waits in, owned; guarded by plock (G1)
    cdef PyObject *first               # a list of Joins, owned; guarded by jlock
    cdef PyObject *last
    cdef PyObject *lockedm             # the M it belongs to, borrowed; changed by its own M; atomic
    cdef int plock
    cdef int jlock
    cdef int state                     # atomic
    cdef int mid                       # the M that runs it, 0 none; atomic (G2)
    cdef int looked                    # so many read its stack; atomic (G2)
    cdef int canceled                  # 0, 1 about to be, 2 cancelled; atomic (G1)
    cdef int finished                  # atomic; after result and error
    cdef bint joined                   # whether somebody waited for the end; written with finished
    cdef int awaited                   # somebody has seen, or will see, its outcome; atomic
    cdef uintptr_t raiser              # who raises the error itself, as of seize(); atomic
    cdef int shielded                  # changed by itself alone; atomic
    cdef int handles                   # atomic
    cdef int lockcount                 # lock_os_thread calls; changed by itself alone
    cdef public bint closes            # the runtime's own, and closes an async generator
    cdef bint parked                   # it comes back from a park: look at cancellation
    cdef object __weakref__
    cdef int set_context(self, object context) except -1
    cdef bint cancelled_now(self) noexcept
    cdef object why_canceled(self)
    cdef int add_pending(self, exc) except -1
    cdef object take_pending(self)
    cdef int publish(self, PyObject *park) noexcept
    cdef int unpublish(self) noexcept
    cdef int abort(self) noexcept
    cdef int let_look(self) except -1
    cdef PyObject *end(self, object result, object error) except? NULL
    cdef object to_raise(self)
    cdef PyObject *finish(self, object result, object error) noexcept

cdef class Handle:
    cdef readonly GBase _g

cdef class Join(Awaitable):
    cdef GBase g
    cdef PyObject *next                # guarded by g.jlock
    cdef PyObject *prev                # likewise, while listed
    cdef bint listed                   # until it is taken back or g.finished; likewise
    cdef PyObject *waiter              # owned while listed; guarded by g.jlock
