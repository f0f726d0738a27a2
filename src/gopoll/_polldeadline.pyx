"""Deadlines of a pollDesc: set, moved, cleared, expired.

Called by _polldesc, _sysfd, _netpoll and C embedders, on any thread, without the GIL. P1, P5:
_pollcache and _netpoll; T1, T2: _timers and docs/design.md. Go: runtime/netpoll.go (go1.27).
"""

from libc.stdint cimport int64_t, uintptr_t

from gopoll._atomic cimport lock, unlock
from gopoll._pollcache cimport (modeRead, modeWrite, netpollunblock, pollDesc, pollServer, pollwake,
                                publishInfo)
from gopoll._pollserver cimport netpollwake
from gopoll._throw cimport THROW_OUT_OF_MEMORY, THROW_READ_DEADLINE, THROW_WRITE_DEADLINE
from gopoll._timers cimport (TIMER_READ, Due, TimerNode, Timers, timer_arm, timer_later, timer_stop)


cdef int _set_one(Timers *ts, TimerNode *node, bint *run, uintptr_t *seq, int64_t *at,
                  int64_t when) noexcept nogil:
    """Set one deadline under pd.lock; 1 if the poller must look again, -1 without memory."""
    cdef int64_t was = at[0]
    at[0] = when
    if run[0] and when >= was:
        # Later: the heap finds out by itself (T1). If the timer has just been popped,
        # netpolldeadlineimpl finds rd in the future and arms it again.
        timer_later(node, when)
        return 0
    if when > 0:
        if run[0]:
            seq[0] += 1
        run[0] = True
        return timer_arm(ts, node, when, seq[0])
    if run[0]:
        seq[0] += 1
        run[0] = False
        timer_stop(ts, node)
    return 0


cdef int poll_runtime_pollSetDeadline(
        pollServer *ps, pollDesc *pd, int64_t when, int mode) noexcept nogil:
    """Set the deadline of *mode* and wake the waiters it has passed; 0 or a Throw code.

    when: monotonic ns (Go: a delay); 0 clears, < 0 has passed already. Nothing happens on a
    closing descriptor. Two deadlines are two heap entries even when equal (Go shares one): a
    shared one could not be moved later without touching the heap.
    Go: poll_runtime_pollSetDeadline.
    """
    cdef uintptr_t reader = 0, writer = 0
    cdef int64_t rd, wd
    cdef int first = 0, rc = 0
    if when < 0:
        when = -1
    lock(&pd.lock)
    if pd.closing:
        unlock(&pd.lock)
        return 0
    rd = pd.rd
    wd = pd.wd
    if mode & modeRead:
        rc = _set_one(&ps.timers, &pd.rt, &pd.rrun, &pd.rseq, &pd.rd, when)
        first |= rc
    if mode & modeWrite and rc >= 0:
        rc = _set_one(&ps.timers, &pd.wt, &pd.wrun, &pd.wseq, &pd.wd, when)
        first |= rc
    if (pd.rd < 0) != (rd < 0) or (pd.wd < 0) != (wd < 0):
        publishInfo(pd)                     # P1: publish, then unblock
    if when < 0:
        if mode & modeRead:
            reader = netpollunblock(pd, modeRead, False)
        if mode & modeWrite:
            writer = netpollunblock(pd, modeWrite, False)
    unlock(&pd.lock)
    if rc < 0:
        return THROW_OUT_OF_MEMORY
    if first:
        # P5: a sleeper has either seen this deadline or is told now.
        rc = netpollwake(ps)
        if rc != 0:
            return rc
    return pollwake(ps, reader, writer)


cdef int netpolldeadlineimpl(
        pollServer *ps, pollDesc *pd, Due *due, int64_t now, uintptr_t *out) noexcept nogil:
    """Let a popped deadline expire; the number of words in *out* (0 or 1) or a Throw code.

    T2: an old seq means that the deadline was moved, cleared or closed since: ignored.
    Go: netpolldeadlineimpl.
    """
    cdef bint read = due.kind == TIMER_READ
    cdef uintptr_t waiter
    cdef int first
    cdef int64_t *at = &pd.rd if read else &pd.wd
    lock(&pd.lock)
    if due.seq != (pd.rseq if read else pd.wseq):
        unlock(&pd.lock)
        return 0
    if at[0] <= 0 or not (pd.rrun if read else pd.wrun):
        unlock(&pd.lock)
        return THROW_READ_DEADLINE if read else THROW_WRITE_DEADLINE
    if at[0] > now:
        # Moved later while it was being popped: not yet.
        first = timer_arm(&ps.timers, &pd.rt if read else &pd.wt, at[0], due.seq)
        unlock(&pd.lock)
        if first < 0:
            return THROW_OUT_OF_MEMORY
        return netpollwake(ps) if first else 0       # P5: not only we may be asleep in it
    at[0] = -1
    if read:
        pd.rrun = False
    else:
        pd.wrun = False
    publishInfo(pd)                         # P1: publish, then unblock
    waiter = netpollunblock(pd, modeRead if read else modeWrite, False)
    unlock(&pd.lock)
    if waiter == 0:
        return 0
    out[0] = waiter
    return 1
