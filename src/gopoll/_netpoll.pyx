"""netpoll: the one way in which waiters become ready, whatever made them so.

Called by Poller, by the scheduler and sysmon, and by C embedders; any thread, without the GIL.
Go: netpoll in runtime/netpoll_epoll.go (go1.27).

P5: who sleeps counts itself in `blocked`, then looks at the ready list and the first deadline,
    then waits. Who adds to either does so first and reads `blocked` afterwards (netpollwake).
P6: the break is taken back (wakesig cleared) before the lists are looked at, so a reason that was
    published while a break was under way is seen by the poll that takes it back.
P8: a host that polls in a turn of its own sets `watched` to 2: it need not be told. At the end it
    sets it to 1, then looks at the ready list and the first deadline (netpollrest). Who adds to
    either does so first and reads `watched` afterwards (netpollwake).
P9: a poll that does not block leaves the break to the one that does; where a host watches, every
    poll takes it back, or the descriptor would stay readable for ever.
"""

from libc.errno cimport EINTR
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t, uintptr_t

from gopoll._atomic cimport (add_int, add_u64, load_i64, load_int, load_u64, load_word, lock,
                             store_int, unlock)
from gopoll._epoll cimport (EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP,
                            EVENTS, epoll_event, netpollarm, netpollBreak, netpolldrain,
                            netpollwait)
from gopoll._pollcache cimport (infoEventErr, infoEventTried, modeRead, modeWrite, netpollready,
                                pollDesc, pollDisarm, pollmask, pollServer, pdReady,
                                regExclusive, regLevel, regOneshot, setEventErr, setEventMore,
                                tagBits, taggedPointer, taggedPointerPack, tagMask)
from gopoll._polldeadline cimport netpolldeadlineimpl
from gopoll._pollserver cimport (netpollAdjustWaiters, netpollGenericInit, ready_push,
                                 ready_take)
from gopoll._throw cimport THROW_EVENTFD_UNEXPECTED, THROW_NETPOLL
from gopoll._timers cimport Due, TIMER_WAITER, nanotime, timers_due, timers_next


cdef extern from * nogil:
    """
    #include <stdint.h>
    #include <sys/timerfd.h>
    static int gopoll_timerfd_set(int fd, int64_t when) {
      struct itimerspec its = {{0, 0}, {when / 1000000000, when % 1000000000}};
      return timerfd_settime(fd, TFD_TIMER_ABSTIME, &its, 0);
    }
    static inline void gopoll_prefetch(const void *p) { __builtin_prefetch(p, 1); }
    """
    int gopoll_timerfd_set(int fd, int64_t when)
    void gopoll_prefetch(const void *p)


cdef int netpollevent(
        pollServer *ps, uint32_t events, uint64_t data, uintptr_t *out) noexcept nogil:
    """Apply one epoll event; the number of words put into *out* (at most 2), -1 if stale.

    Go: the body of netpoll's loop.
    """
    cdef pollDesc *pd = taggedPointer(data)
    cdef uint64_t seq = data & tagMask
    cdef int mode = 0, n, reg
    if load_u64(&pd.fdseq) != seq:       # P4
        return -1
    if events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
        mode |= modeRead
    if events & (EPOLLOUT | EPOLLHUP | EPOLLERR):
        mode |= modeWrite
    if events & (EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
        setEventMore(pd, seq)            # R1: before it is ready
    if mode == 0:
        return 0
    if events == EPOLLERR or load_u64(&pd.info) & (infoEventErr | infoEventTried):
        setEventErr(pd, events == EPOLLERR, seq)
    reg = load_int(&pd.reg)
    if reg == regExclusive and mode & modeRead:
        pollDisarm(ps, pd, seq)          # L2: before it is ready
    if reg != regLevel and reg != regOneshot:
        return netpollready(pd, mode, out)
    n = netpollready(pd, mode & modeRead, out)
    if n:
        mode &= ~modeRead
    if netpollready(pd, mode & modeWrite, out + n):
        n += 1
        mode &= ~modeWrite
    pollsettle(ps, pd, mode)
    return n


cdef void pollsettle(pollServer *ps, pollDesc *pd, int mode) noexcept nogil:
    """After an event: silence what nobody waits for. *mode*: where the event woke nobody.

    L1: a waiter stores pdWait, then takes pd.lock and looks at interest (pollRearm). We hold
    pd.lock and look at rg and wg. So a waiter is never left unarmed, and a level-triggered
    descriptor that nobody reads never makes the poller spin. A one-shot event disarms both
    directions in the kernel; the one still waited for is armed again here.
    """
    cdef int waited = 0
    lock(&pd.lock)
    if load_word(&pd.rg) > pdReady:
        waited |= modeRead
    if load_word(&pd.wg) > pdReady:
        waited |= modeWrite
    if not pd.closing:
        if pd.reg == regOneshot:
            pd.interest = waited
            if waited:
                netpollarm(&ps.ep, pd.fd, pollmask(pd.reg, waited),
                           taggedPointerPack(pd, load_u64(&pd.fdseq)))
        elif pd.interest & mode & ~waited:
            pd.interest &= ~mode | waited
            netpollarm(&ps.ep, pd.fd, pollmask(pd.reg, pd.interest),
                       taggedPointerPack(pd, load_u64(&pd.fdseq)))
    unlock(&pd.lock)


cdef enum:
    MOST_LOOKS = 64                  # epoll_waits of a call that does not sleep, at most

cdef struct Tally:                   # what one netpoll call has seen
    int64_t delta                    # change of the waiter count, <= 0
    uint64_t seen
    uint64_t stale
    uint64_t spurious
    bint broken                      # the break was among the events
    int thrown                       # a throw; the rest of the batch is acted on all the same


cdef int _emit(pollServer *ps, uintptr_t *out, int n, int cap, uintptr_t *got, int k,
               Tally *tally) noexcept nogil:
    """Append *k* words, the ones that do not fit to the ready list; the new length."""
    cdef int i, rc
    for i in range(k):
        if n < cap:
            out[n] = got[i]
            n += 1
        else:
            rc = ready_push(ps, got[i])
            if rc != 0:
                tally.thrown = rc
    return n


cdef int _due(pollServer *ps, uintptr_t *out, int n, int cap, Tally *tally) noexcept nogil:
    """Append what the due timers wake; the new length."""
    cdef Due due[64]
    cdef uintptr_t word
    cdef int i, k, most, rc
    cdef int64_t now, first = load_i64(&ps.timers.first)
    if first == 0:
        return n
    now = nanotime()
    if first > now:
        return n
    while n < cap:
        most = 64 if cap - n > 64 else cap - n
        k = timers_due(&ps.timers, now, due, most)
        for i in range(k):
            if due[i].kind >= TIMER_WAITER:
                out[n] = <uintptr_t>due[i].arg
                n += 1
                continue
            rc = netpolldeadlineimpl(ps, <pollDesc *>due[i].arg, &due[i], now, &word)
            if rc < 0:
                tally.thrown = rc
            elif rc:
                tally.delta -= 1
                out[n] = word
                n += 1
        if k < most:
            break
    return n


cdef int64_t netpolltimeout(pollServer *ps, int64_t until) noexcept nogil:
    """How long a sleeper may wait, in ns: 0 if there is work, -1 for ever. After `blocked` (P5).

    until: monotonic ns, or -1.
    """
    cdef int64_t when
    if load_i64(&ps.ready.len) != 0:
        return 0
    when = timers_next(&ps.timers)
    if when == 0 or (until >= 0 and until < when):
        when = until
    if when < 0:
        return -1
    when -= nanotime()
    return when if when > 0 else 0


cdef int _wait(pollServer *ps, epoll_event *events, int most, bint sleep,
               int64_t until) noexcept nogil:
    """Ask epoll, sleeping if *sleep*: the number of events, -EINTR if a sleep was interrupted."""
    cdef int64_t wait = 0
    cdef int k
    if sleep:
        add_int(&ps.blocked, 1)                              # P5: count, then look, then wait
        wait = netpolltimeout(ps, until)
    k = netpollwait(&ps.ep, events, most, wait)
    if sleep:
        add_int(&ps.blocked, -1)
    if k == -EINTR and wait == 0:
        return 0
    return THROW_NETPOLL if k < 0 and k != -EINTR else k


cdef void _taken_back(pollServer *ps, Tally *tally) noexcept nogil:
    """Take the break back and note that there was one."""
    netpolldrain(&ps.ep)
    add_u64(&ps.stats.breaks, 1)
    tally.broken = True


cdef int _apply(pollServer *ps, epoll_event *events, int k, uintptr_t *out, int n, int cap,
                bint blocking, Tally *tally) noexcept nogil:
    """Apply *k* events; the new length of *out*."""
    cdef uintptr_t got[2]
    cdef uintptr_t *to
    cdef int i, woken
    for i in range(k):                       # 1,000 ready: 3 % less for an event
        gopoll_prefetch(taggedPointer(events[i].data.u64))
    for i in range(k):
        if events[i].data.u64 >> tagBits == 0:
            if events[i].data.u64 != 0:
                continue                                     # the timerfd has done its work
            if events[i].events != EPOLLIN:
                tally.thrown = THROW_EVENTFD_UNEXPECTED
            # A poll that does not block leaves the break for the one that does, unless a host
            # watches: then every poll takes it back (P9, P6).
            if blocking or load_int(&ps.watched):
                _taken_back(ps, tally)
            tally.broken = True
            continue
        tally.seen += 1
        to = out + n if cap - n >= 2 else got
        woken = netpollevent(ps, events[i].events, events[i].data.u64, to)
        if woken < 0:
            tally.stale += 1
            continue
        tally.spurious += woken == 0
        tally.delta -= woken
        n = n + woken if to != got else _emit(ps, out, n, cap, got, woken, tally)
    return n


cdef void _count(pollServer *ps, Tally *tally) noexcept nogil:
    """Add a call's tally to the poller's counters.

    The words are the caller's to run now; Go counts them out after the goroutines are runnable.
    Ours are on no list in between, so netpoll's caller must not look for deadlocks before it has
    queued them.
    """
    if tally.seen:
        add_u64(&ps.stats.events, tally.seen)
    if tally.spurious:
        add_u64(&ps.stats.spurious, tally.spurious)
    if tally.stale:
        add_u64(&ps.stats.stale, tally.stale)
    netpollAdjustWaiters(ps, tally.delta)


cdef int netpoll(pollServer *ps, int64_t delay, uintptr_t *out, int cap) noexcept nogil:
    """Put waiters that became ready into *out*: their number, -EINTR, or a Throw code.

    delay: ns; 0 polls, < 0 blocks until something happens. Returns before the delay has passed
    only with a waiter, a break or a signal. cap >= 1; what does not fit stays for the next call.
    Fewer than cap: nothing was left, so a host that watches edge-triggered may sleep. At most one
    epoll_wait per sleep and 128 events. The ready list comes first, but in every eighth call
    last: who posts as many as fit each time does not starve the network. Go: netpoll.
    """
    cdef epoll_event events[EVENTS]
    cdef Tally tally = [0, 0, 0, 0, False, 0]
    cdef uint64_t seen
    cdef bint full
    cdef int n = 0, i, most, looks = 0, rc
    cdef int64_t until = -1
    cdef bint list_first = add_u64(&ps.stats.polls, 1) % 8 != 0
    if delay > 0:
        until = nanotime()
        until = until + delay if delay < INT64_MAX // 2 else -1
    rc = 0 if delay == 0 else netpollGenericInit(ps)
    if load_int(&ps.watched) and load_int(&ps.ep.wakesig):
        # Not by way of its event: that may not fit, and the host must be told of what is left.
        _taken_back(ps, &tally)                              # P6
    while rc == 0:
        full = False
        if list_first and load_i64(&ps.ready.len) != 0:
            n += ready_take(ps, out + n, cap - n)
        if n < cap and load_int(&ps.inited):
            most = EVENTS if cap - n > EVENTS else cap - n
            rc = _wait(ps, events, most, n == 0 and delay != 0 and not tally.broken, until)
            if rc < 0:
                break
            seen = tally.seen - tally.stale
            n = _apply(ps, events, rc, out, n, cap, delay != 0, &tally)
            # There may be more. What nobody can silence is no reason to look again: the break
            # that a poll leaves, a level-triggered number that was closed behind our back.
            looks += 1
            full = rc == most and tally.seen - tally.stale != seen and looks < MOST_LOOKS
        n = _due(ps, out, n, cap, &tally)
        if load_i64(&ps.ready.len) != 0:
            n += ready_take(ps, out + n, cap - n)
        rc = tally.thrown
        if full and n < cap:
            continue
        if n > 0 or delay == 0 or tally.broken or (until >= 0 and nanotime() >= until):
            break
    _count(ps, &tally)
    if rc < 0:
        for i in range(n):               # nothing is lost: the next call finds it again
            ready_push(ps, out[i])
        return rc
    if load_int(&ps.watched) == 1:
        netpolltell(ps)
    return n


cdef void netpolltell(pollServer *ps) noexcept nogil:
    """Make the epoll descriptor readable for a host: now if work is left, else at a deadline."""
    cdef int64_t when
    if load_i64(&ps.ready.len) != 0:
        netpollBreak(&ps.ep)             # the host must come again
    if ps.timerfd < 0:
        return
    lock(&ps.initlock)
    when = timers_next(&ps.timers)
    # One that has passed and is still there is set again: its edge may have been seen already.
    if when != ps.timerset or (when != 0 and when <= nanotime()):
        ps.timerset = when
        gopoll_timerfd_set(ps.timerfd, when)
    unlock(&ps.initlock)


cdef void netpollrest(pollServer *ps, bint more) noexcept nogil:
    """The turn of a host is over: let it be told again of what comes (P8). *more*: at once."""
    store_int(&ps.watched, 1)
    if more:
        netpollBreak(&ps.ep)
    netpolltell(ps)
