"""A 4-ary heap of deadlines with lazy moves. It knows times and opaque words, no descriptor.

Called by _pollcache (under pd.lock, which is above Timers.lock) and _poller, on any thread,
without the GIL. Times are monotonic nanoseconds. Go: runtime/time.go (go1.27), but one heap per
poller.

T1: key <= when for every armed node. A node that only moves later stores `when` and touches no
    heap: its key is then too early, which costs one look when it comes to the top. A node that
    moves earlier goes through timer_arm, under the lock. So nothing ever fires late.
T2: a popped node is copied out under the lock (arg, seq, kind). Its owner may re-arm it at once;
    the copy then carries an old seq and is ignored by the owner.
"""

from libc.stdint cimport int64_t, uintptr_t
from libc.stdlib cimport free, realloc

from gopoll._atomic cimport (load_i64, lock, lock_fini, lock_init, store_i64, unlock)


cdef void timers_init(Timers *ts) noexcept nogil:
    """Make *ts* an empty heap."""
    lock_init(&ts.lock)
    ts.heap = NULL
    ts.len = 0
    ts.cap = 0
    store_i64(&ts.first, 0)


cdef void timers_fini(Timers *ts) noexcept nogil:
    """Free the heap's own memory; its nodes belong to others."""
    free(ts.heap)
    ts.heap = NULL
    lock_fini(&ts.lock)


cdef void timer_init(TimerNode *node, int kind, void *arg) noexcept nogil:
    """Make *node* an unarmed timer. Once for the life of its memory."""
    node.when = 0
    node.key = 0
    node.pos = -1
    node.seq = 0
    node.arg = arg
    node.kind = kind


cdef inline void _put(Timers *ts, Py_ssize_t i, TimerNode *node) noexcept nogil:
    ts.heap[i] = node
    node.pos = i
    if i == 0:
        store_i64(&ts.first, node.key)


cdef void _sift_up(Timers *ts, Py_ssize_t i) noexcept nogil:
    cdef TimerNode *node = ts.heap[i]
    cdef Py_ssize_t parent
    while i > 0:
        parent = (i - 1) >> 2
        if ts.heap[parent].key <= node.key:
            break
        _put(ts, i, ts.heap[parent])
        i = parent
    _put(ts, i, node)


cdef void _sift_down(Timers *ts, Py_ssize_t i) noexcept nogil:
    cdef TimerNode *node = ts.heap[i]
    cdef Py_ssize_t child, best, end
    while True:
        child = (i << 2) + 1
        if child >= ts.len:
            break
        best = child
        end = child + 4 if child + 4 < ts.len else ts.len
        for child in range(best + 1, end):
            if ts.heap[child].key < ts.heap[best].key:
                best = child
        if ts.heap[best].key >= node.key:
            break
        _put(ts, i, ts.heap[best])
        i = best
    _put(ts, i, node)


cdef void _remove(Timers *ts, TimerNode *node) noexcept nogil:
    cdef Py_ssize_t i = node.pos
    cdef TimerNode *last
    node.pos = -1
    ts.len -= 1
    if i < ts.len:
        last = ts.heap[ts.len]
        _put(ts, i, last)
        _sift_down(ts, i)
        _sift_up(ts, last.pos)
    elif ts.len == 0:
        store_i64(&ts.first, 0)


cdef bint _settle_top(Timers *ts) noexcept nogil:
    """Give the top its true key until it has one; False if the heap is empty (T1)."""
    cdef TimerNode *top
    cdef int64_t when
    while ts.len > 0:
        top = ts.heap[0]
        when = load_i64(&top.when)
        if when <= top.key:
            return True
        # A racing earlier move has stored its `when` before it takes the lock: either we have
        # just read it, or timer_arm will see a key that is too late and sift it up.
        top.key = when
        store_i64(&ts.first, when)
        _sift_down(ts, 0)
    return False


cdef int timer_arm(Timers *ts, TimerNode *node, int64_t when, uintptr_t seq) noexcept nogil:
    """Arm or move *node*; 1 if it is now the earliest, 0 if not, -1 without memory.

    when > 0. The owner's own lock orders calls for one node.
    """
    cdef TimerNode **grown
    cdef Py_ssize_t cap
    cdef int first
    store_i64(&node.when, when)
    lock(&ts.lock)
    if node.pos < 0:
        if ts.len == ts.cap:
            cap = ts.cap * 2 if ts.cap else 64
            grown = <TimerNode **>realloc(ts.heap, cap * sizeof(TimerNode *))
            if grown == NULL:
                unlock(&ts.lock)
                return -1
            ts.heap = grown
            ts.cap = cap
        node.pos = ts.len
        ts.heap[ts.len] = node
        ts.len += 1
        node.key = when
        node.seq = seq
        _sift_up(ts, node.pos)
    else:
        node.seq = seq
        if when < node.key:
            node.key = when
            _sift_up(ts, node.pos)
    first = node.pos == 0
    unlock(&ts.lock)
    return first


cdef void timer_later(TimerNode *node, int64_t when) noexcept nogil:
    """Move an armed *node* to a later time: no lock, no heap (T1)."""
    store_i64(&node.when, when)


cdef bint timer_move(Timers *ts, TimerNode *node, int64_t when) noexcept nogil:
    """Move *node* if it is armed; False if it is idle or has been popped."""
    cdef bint armed
    lock(&ts.lock)
    armed = node.pos >= 0
    if armed:
        store_i64(&node.when, when)
        if when < node.key:
            node.key = when
            _sift_up(ts, node.pos)
    unlock(&ts.lock)
    return armed


cdef bint timer_stop(Timers *ts, TimerNode *node) noexcept nogil:
    """Disarm *node*; True if it was armed, False if it is idle or has been popped."""
    cdef bint armed
    lock(&ts.lock)
    armed = node.pos >= 0
    if armed:
        _remove(ts, node)
    unlock(&ts.lock)
    return armed


cdef bint timer_orphan(Timers *ts, TimerNode *node) noexcept nogil:
    """Leave an armed *node* to the heap, which frees it when it fires; False if not armed."""
    cdef bint armed
    lock(&ts.lock)
    armed = node.pos >= 0
    if armed:
        node.kind = TIMER_ORPHAN
    unlock(&ts.lock)
    return armed


cdef int64_t timers_next(Timers *ts) noexcept nogil:
    """Return the earliest time, 0 if there is none."""
    cdef int64_t when = 0
    if load_i64(&ts.first) == 0:
        return 0
    lock(&ts.lock)
    if _settle_top(ts):
        when = ts.heap[0].key
    unlock(&ts.lock)
    return when


cdef void _pop(Timers *ts, Due *out) noexcept nogil:
    cdef TimerNode *node = ts.heap[0]
    out.arg = node.arg
    out.seq = node.seq
    out.kind = node.kind
    _remove(ts, node)
    if node.kind == TIMER_ORPHAN:
        free(node)


cdef int timers_due(Timers *ts, int64_t now, Due *out, int cap) noexcept nogil:
    """Pop up to *cap* timers that are due at *now*, earliest first; their number."""
    cdef int n = 0
    lock(&ts.lock)
    while n < cap and _settle_top(ts) and ts.heap[0].key <= now:
        _pop(ts, &out[n])
        n += 1
    unlock(&ts.lock)
    return n


cdef bint timers_pop_any(Timers *ts, Due *out) noexcept nogil:
    """Pop one timer, due or not; False if there is none. For a poller that is being closed."""
    cdef bint got
    lock(&ts.lock)
    got = ts.len > 0
    if got:
        _pop(ts, out)
    unlock(&ts.lock)
    return got
