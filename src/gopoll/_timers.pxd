"""A 4-ary heap of deadlines: what _pollcache and _poller may call. See _timers.pyx."""

from libc.stdint cimport int64_t, uintptr_t

from gopoll._atomic cimport gopoll_lock


cdef extern from * nogil:
    """
    #ifndef GOPOLL_NANOTIME
    #define GOPOLL_NANOTIME
    #include <time.h>
    static inline int64_t nanotime(void) {
      struct timespec ts;
      clock_gettime(CLOCK_MONOTONIC, &ts);
      return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
    }
    static inline int64_t coarsetime(void) {
      struct timespec ts;
      clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
      return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
    }
    #endif
    """
    # Monotonic nanoseconds, the clock of time.monotonic(). Go: nanotime.
    int64_t nanotime() noexcept
    # The same as of the last tick of the kernel's, up to 10 ms ago: where nobody waits for it.
    int64_t coarsetime() noexcept

cdef enum TimerKind:
    TIMER_READ         # arg is a pollDesc, its read deadline
    TIMER_WRITE        # arg is a pollDesc, its write deadline
    TIMER_WAITER       # arg is a waiter's word
    TIMER_ORPHAN       # as TIMER_WAITER, and the node is freed when it is popped

cdef struct TimerNode:
    int64_t when       # the time as last set; atomic, written by the node's owner (T1)
    int64_t key        # the time it is sorted by, <= when while armed; guarded by Timers.lock
    Py_ssize_t pos     # index in the heap, -1 when not armed; guarded by Timers.lock
    uintptr_t seq      # copied out with the node when it is popped; guarded by Timers.lock
    void *arg          # likewise
    int kind           # a TimerKind; likewise

cdef struct Due:
    void *arg
    uintptr_t seq
    int kind

cdef struct Timers:
    gopoll_lock lock
    TimerNode **heap   # guarded by lock, as is all below
    Py_ssize_t len
    Py_ssize_t cap
    int64_t first      # key of heap[0], 0 when empty; atomic, so that it is read without lock

cdef void timers_init(Timers *ts) noexcept nogil
cdef void timers_fini(Timers *ts) noexcept nogil
cdef void timer_init(TimerNode *node, int kind, void *arg) noexcept nogil
cdef int timer_arm(Timers *ts, TimerNode *node, int64_t when, uintptr_t seq) noexcept nogil
cdef void timer_later(TimerNode *node, int64_t when) noexcept nogil
cdef bint timer_move(Timers *ts, TimerNode *node, int64_t when) noexcept nogil
cdef bint timer_stop(Timers *ts, TimerNode *node) noexcept nogil
cdef bint timer_orphan(Timers *ts, TimerNode *node) noexcept nogil
cdef int64_t timers_next(Timers *ts) noexcept nogil
cdef int timers_due(Timers *ts, int64_t now, Due *out, int cap) noexcept nogil
cdef bint timers_pop_any(Timers *ts, Due *out) noexcept nogil
