"""pollDesc: one per open descriptor, reused, never freed; its free list and its state machine.

Called by _poller and _fd and by C embedders, on any thread, without the GIL. A waiter is an opaque
word above pdWait; nothing here touches a reference count (A5). A throw is a negative code.
Go: runtime/netpoll.go (go1.27).

The semaphore (rg for the reader, wg for the writer; at most one waiter each):

    pdNil     an event stores pdReady; a waiter announces itself with pdWait
    pdReady   the waiter consumes it -> pdNil; pollReset drops it -> pdNil
    pdWait    commit -> the waiter's word; an event -> pdReady; close or deadline -> pdNil
    a word    an event -> pdReady and wakes it; close, deadline or abort -> pdNil

P1: who expires or closes publishes info before it looks at rg/wg (publishInfo before
    netpollunblock); who waits stores pdWait before it reads info (netpollblock). One of the two
    sees the other.
P3: a parked word leaves rg/wg exactly once: by the compare-and-swap of an event, a deadline, a
    close or an abort. Whoever wins owns the word and hands it on.
P4: descriptors are type-stable. An event carries the generation it was registered under and is
    dropped if fdseq has moved on. A match just before a free may still store one pdReady: pollOpen
    resets it or it is a spurious wake-up, which every caller survives.
P7: an event that was an error alone keeps a reader from waiting (pollErrNotPollable), but only one
    that has made its system call after that event.
L2: epoll has an exclusive descriptor only while somebody waits for it: else the kernel would tell
    us of a connection, and nobody else, which nobody here takes. It goes in after pdWait is stored
    (pollWait), and out before an event makes it ready (netpollevent), at close, or by who gives up
    waiting (pollDisarm). That under pd.lock; who is told of an event tries, and comes back here.
R1: in _fdop. Who takes an event notes what else it says before it makes a direction ready
    (setEventMore before netpollready).
"""

from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport realloc
from libc.string cimport memset

from gopoll._atomic cimport (add_u64, cas_u64, cas_word, load_u64, load_word, lock, lock_init,
                             store_int, store_u64, store_word, swap_word, unlock)
from gopoll._epoll cimport (EPOLLET, EPOLLEXCLUSIVE, EPOLLIN, EPOLLONESHOT, EPOLLOUT, EPOLLPRI,
                            EPOLLRDHUP, netpollarm, netpollclose, netpollopen)
from gopoll._pollserver cimport netpollAdjustWaiters, netpollGenericInit, ready_push
from gopoll._throw cimport (THROW_BLOCKED_READ_CLOSING, THROW_BLOCKED_READ_FREE,
                            THROW_BLOCKED_WRITE_CLOSING, THROW_BLOCKED_WRITE_FREE,
                            THROW_CLOSE_WITHOUT_UNBLOCK, THROW_CORRUPTED, THROW_DOUBLE_WAIT,
                            THROW_OUT_OF_MEMORY, THROW_TAGGED_POINTER, THROW_UNBLOCK_CLOSING)
from gopoll._timers cimport TIMER_READ, TIMER_WRITE, timer_init, timer_stop


cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

cdef enum:                           # what events have left in info: no twin under the lock
    infoEvents = infoEventErr | infoEventTried | infoEventMore


if sizeof(pollDesc) > pollDescSize:
    raise ImportError(f"pollDesc has {sizeof(pollDesc)} bytes, its slot {pollDescSize}")


# -- the free list ---------------------------------------------------------------------------------

cdef int _grow(pollCache *c) noexcept nogil:
    """Add a block of descriptors to the free list; 0 or a Throw code. Under c.lock."""
    cdef void **blocks = <void **>realloc(c.blocks, (c.nblocks + 1) * sizeof(void *))
    cdef pollDesc *pd
    cdef int i
    if blocks == NULL:
        return THROW_OUT_OF_MEMORY
    c.blocks = blocks
    cdef char *block = <char *>aligned_alloc(pollBlockSize, pollBlockSize)
    if block == NULL:
        return THROW_OUT_OF_MEMORY
    memset(block, 0, pollBlockSize)
    blocks[c.nblocks] = block
    c.nblocks += 1
    for i in range(pollBlockSize // pollDescSize - 1, -1, -1):
        pd = <pollDesc *>(block + i * pollDescSize)
        if taggedPointer(taggedPointerPack(pd, tagMask)) != pd:
            return THROW_TAGGED_POINTER
        lock_init(&pd.lock)
        timer_init(&pd.rt, TIMER_READ, pd)
        timer_init(&pd.wt, TIMER_WRITE, pd)
        pd.link = c.first
        c.first = pd
    return 0


cdef int pollcache_alloc(pollCache *c, pollDesc **out) noexcept nogil:
    """Take a descriptor off the free list; 0 or a Throw code. Go: pollCache.alloc."""
    cdef int rc = 0
    lock(&c.lock)
    if c.first == NULL:
        rc = _grow(c)
    if rc == 0:
        out[0] = c.first
        c.first = c.first.link
        c.in_use += 1
    unlock(&c.lock)
    return rc


cdef void pollcache_free(pollCache *c, pollDesc *pd) noexcept nogil:
    """Put *pd* back under a new generation. Go: pollCache.free.

    P4: the bump comes first, so events already fetched by a running netpoll are stale.
    """
    lock(&pd.lock)
    store_u64(&pd.fdseq, (load_u64(&pd.fdseq) + 1) & tagMask)
    publishInfo(pd)
    unlock(&pd.lock)
    lock(&c.lock)
    pd.link = c.first
    c.first = pd
    c.in_use -= 1
    unlock(&c.lock)


# -- info: the lock-free view of what the lock guards ----------------------------------------------

cdef void publishInfo(pollDesc *pd) noexcept nogil:
    """Copy closing, expiry and fdseq into info. Under pd.lock, before any unblock (P1).

    What events have left there has no twin under the lock: it is kept. Go: pollDesc.publishInfo.
    """
    cdef uint64_t info = load_u64(&pd.fdseq) << infoSeqShift
    cdef uint64_t was = load_u64(&pd.info)
    if pd.closing:
        info |= infoClosing
    if pd.rd < 0:
        info |= infoReadExpired
    if pd.wd < 0:
        info |= infoWriteExpired
    while not cas_u64(&pd.info, was, (was & infoEvents) | info):
        was = load_u64(&pd.info)


cdef void setEventErr(pollDesc *pd, bint err, uint64_t seq) noexcept nogil:
    """Note whether the last event was an error alone, unless *seq* is stale. Go: setEventErr.

    P7: a new one that nobody has tried a system call after.
    """
    cdef uint64_t was = load_u64(&pd.info)
    cdef uint64_t info
    while (was >> infoSeqShift) == seq:
        info = was & ~<uint64_t>(infoEventErr | infoEventTried) | (infoEventErr if err else 0)
        if info == was or cas_u64(&pd.info, was, info):
            return
        was = load_u64(&pd.info)


cdef void setEventMore(pollDesc *pd, uint64_t seq) noexcept nogil:
    """Note for good that an event has said more, unless *seq* is stale (R1)."""
    cdef uint64_t was = load_u64(&pd.info)
    while not was & infoEventMore and (was >> infoSeqShift) == seq:
        if cas_u64(&pd.info, was, was | infoEventMore):
            return
        was = load_u64(&pd.info)


cdef bint pollIsQuiet(pollDesc *pd) noexcept nogil:
    """Whether every event so far was readable or writable and no more (R1)."""
    return not load_u64(&pd.info) & infoEventMore


cdef int netpollcheckerr(pollDesc *pd, int mode) noexcept nogil:
    """Say why *mode* cannot go on: a PollError. Closing, then expiry.

    Lock-free. Go: netpollcheckerr, which also looks at the event scan: netpollscanerr.
    """
    cdef uint64_t info = load_u64(&pd.info)
    if info & infoClosing:
        return pollErrClosing
    if info & (infoReadExpired if mode == modeRead else infoWriteExpired):
        return pollErrTimeout
    return pollNoError


cdef int netpollscanerr(pollDesc *pd) noexcept nogil:
    """Say that a reader must not wait: the last event was an error alone, and it has tried since.

    P7: who is told to try again (pollNoError) has marked the event before. A socket can have such
    an event as well: tcp_poll looks while a reset is half done. There the system call tells more.
    Go: netpollcheckerr, without the second try.
    """
    cdef uint64_t was = load_u64(&pd.info)
    while was & infoEventErr and not was & infoEventTried:
        if cas_u64(&pd.info, was, was | infoEventTried):
            return pollNoError
        was = load_u64(&pd.info)
    return pollErrNotPollable if was & infoEventErr else pollNoError


# -- open, close, evict ----------------------------------------------------------------------------

cdef uint32_t pollmask(int reg, int interest) noexcept nogil:
    cdef uint32_t events = 0
    if reg == regEdge:
        return EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET
    if reg == regPlain:
        return EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET
    if reg == regExclusive:
        # With RDHUP it is EINVAL. OUT: how others pass a connection on (L3, _fdsock).
        return EPOLLIN | EPOLLOUT | EPOLLET | EPOLLEXCLUSIVE
    if interest & modeRead:
        events |= EPOLLIN | EPOLLRDHUP
    if interest & modeWrite:
        events |= EPOLLOUT
    if reg == regOneshot:
        return events | EPOLLONESHOT
    # A hang-up is always reported; with nobody interested it must not be reported for ever.
    return events if events else <uint32_t>EPOLLET


cdef int poll_runtime_pollOpen(
        pollServer *ps, int fd, int reg, pollDesc **out) noexcept nogil:
    """Register *fd* under a fresh generation; 0, an errno or a Throw code.

    With an errno *out* holds the open descriptor all the same, and the caller unblocks and closes
    it (pollDiscard): there is one way a descriptor dies, past all of pollClose's throws.
    Go: poll_runtime_pollOpen.
    """
    cdef pollDesc *pd = NULL
    cdef uintptr_t state
    out[0] = NULL
    cdef int rc = netpollGenericInit(ps)
    if rc == 0:
        rc = pollcache_alloc(&ps.cache, &pd)
    if rc != 0:
        return rc
    lock(&pd.lock)
    state = load_word(&pd.wg)
    if state != pdNil and state != pdReady:
        unlock(&pd.lock)
        return THROW_BLOCKED_WRITE_FREE
    state = load_word(&pd.rg)
    if state != pdNil and state != pdReady:
        unlock(&pd.lock)
        return THROW_BLOCKED_READ_FREE
    pd.fd = fd
    store_int(&pd.reg, reg)              # read by netpollevent before it can know better (P4)
    pd.interest = 0
    if load_u64(&pd.fdseq) == 0:
        store_u64(&pd.fdseq, 1)          # 0 would be the null tag
    pd.closing = False
    pd.rrun = False
    pd.wrun = False
    pd.rseq += 1
    pd.wseq += 1
    pd.rd = 0
    pd.wd = 0
    store_word(&pd.rg, pdNil)
    store_word(&pd.wg, pdNil)
    store_u64(&pd.info, 0)               # forget eventErr whatever its generation
    publishInfo(pd)
    unlock(&pd.lock)
    out[0] = pd
    if reg == regExclusive:
        return 0                         # L2
    rc = netpollopen(&ps.ep, fd, pollmask(reg, 0), taggedPointerPack(pd, load_u64(&pd.fdseq)))
    if rc != 0:
        pd.fd = -1           # EEXIST: pollClose must not take the other registration away
    return rc


cdef int poll_runtime_pollClose(pollServer *ps, pollDesc *pd) noexcept nogil:
    """Unregister and free *pd*, before close(2); 0 or a Throw code. Go: poll_runtime_pollClose."""
    cdef uintptr_t state
    if not pd.closing:
        return THROW_CLOSE_WITHOUT_UNBLOCK
    state = load_word(&pd.wg)
    if state != pdNil and state != pdReady:
        return THROW_BLOCKED_WRITE_CLOSING
    state = load_word(&pd.rg)
    if state != pdNil and state != pdReady:
        return THROW_BLOCKED_READ_CLOSING
    if pd.reg != regExclusive:           # that one has been taken out by pollUnblock (L2)
        netpollclose(&ps.ep, pd.fd)      # its result tells nothing we could act on
    pollcache_free(&ps.cache, pd)
    return 0


cdef int poll_runtime_pollUnblock(pollServer *ps, pollDesc *pd) noexcept nogil:
    """Evict: mark *pd* closing and make both waiters ready; 0 or a Throw code.

    Go: poll_runtime_pollUnblock.
    """
    cdef uintptr_t reader, writer
    lock(&pd.lock)
    if pd.closing:
        unlock(&pd.lock)
        return THROW_UNBLOCK_CLOSING
    pd.closing = True
    pd.rseq += 1
    pd.wseq += 1
    publishInfo(pd)                         # P1: publish, then unblock
    reader = netpollunblock(pd, modeRead, False)
    writer = netpollunblock(pd, modeWrite, False)
    if pd.rrun:
        pd.rrun = False
        timer_stop(&ps.timers, &pd.rt)
    if pd.wrun:
        pd.wrun = False
        timer_stop(&ps.timers, &pd.wt)
    if pd.reg == regLevel and pd.interest:   # L1: pollsettle leaves a closing one alone
        pd.interest = 0
        netpollarm(&ps.ep, pd.fd, pollmask(pd.reg, 0),
                   taggedPointerPack(pd, load_u64(&pd.fdseq)))
    elif pd.reg == regExclusive and pd.interest:
        pd.interest = 0                      # L2
        netpollclose(&ps.ep, pd.fd)
    unlock(&pd.lock)
    return pollwake(ps, reader, writer)


cdef int pollDiscard(pollServer *ps, pollDesc *pd) noexcept nogil:
    """Unblock, then close: the end of a descriptor nobody else uses; 0 or a Throw code.

    Go: the clean-up of pollDesc.init.
    """
    cdef int rc = poll_runtime_pollUnblock(ps, pd)
    return rc if rc != 0 else poll_runtime_pollClose(ps, pd)


cdef int pollwake(pollServer *ps, uintptr_t reader, uintptr_t writer) noexcept nogil:
    """Put unblocked waiters on the ready list, then count them; 0 or a Throw code. No lock held."""
    cdef int rc = 0, other = 0
    if reader:
        rc = ready_push(ps, reader)
    if writer:
        other = ready_push(ps, writer)
    netpollAdjustWaiters(ps, -((reader != 0) + (writer != 0)))
    return rc if rc != 0 else other


# -- wait, commit, abort, resume -------------------------------------------------------------------

cdef int poll_runtime_pollReset(pollDesc *pd, int mode) noexcept nogil:
    """Prepare *mode* for I/O: drop stored readiness; 0, a PollError, or a Throw code where a waiter
    is parked (Go: it vanishes).

    Sound because the caller tries the system call before it waits: the state is read again from
    the kernel. Go: poll_runtime_pollReset.
    """
    cdef uintptr_t *g = &pd.rg if mode == modeRead else &pd.wg
    cdef uintptr_t old
    cdef int rc = netpollcheckerr(pd, mode)
    if rc == pollNoError:
        old = load_word(g)
        if old > pdWait:
            return THROW_DOUBLE_WAIT
        if old != pdNil:
            store_word(g, pdNil)
    return rc


cdef int netpollblock(pollDesc *pd, int mode) noexcept nogil:
    """Announce a waiter: blockReady, blockPark or a Throw code.

    The first half of Go's netpollblock; commit and resume are the others.
    """
    cdef uintptr_t *g = &pd.rg if mode == modeRead else &pd.wg
    cdef uintptr_t old
    while True:
        old = load_word(g)
        if old == pdReady:
            if cas_word(g, pdReady, pdNil):
                return blockReady
        elif old == pdNil:
            if cas_word(g, pdNil, pdWait):
                break
        else:
            return THROW_DOUBLE_WAIT
    # P1: pdWait is stored; read info again. A closer publishes first and looks at g after.
    if netpollcheckerr(pd, mode) != pollNoError:
        # Ready or not, the caller checks the error next.
        swap_word(g, pdNil)
        return blockReady
    return blockPark


cdef int poll_runtime_pollWait(pollServer *ps, pollDesc *pd, int mode) noexcept nogil:
    """Begin to wait: a PollError, else -blockPark (announced: commit next) or 0 (ready: go on).

    Go's call blocks the goroutine inside; here the caller leaves and comes back with
    netpollresume. Arms level-triggered and one-shot registrations, and registers exclusive ones:
    for those the errno of a failure, above the PollErrors. Go: poll_runtime_pollWait.
    """
    cdef int rc = netpollcheckerr(pd, mode)
    if rc != pollNoError:
        return rc
    if mode == modeRead and load_u64(&pd.info) & infoEventErr:
        return netpollscanerr(pd)
    rc = netpollblock(pd, mode)
    if rc == blockReady:
        return netpollcheckerr(pd, mode)
    if rc < 0:
        return rc
    if pd.reg == regLevel or pd.reg == regOneshot or pd.reg == regExclusive:
        rc = pollRearm(ps, pd, mode)
        if rc != 0:
            swap_word(&pd.rg if mode == modeRead else &pd.wg, pdNil)
            if pd.reg == regExclusive and rc > pollErrNotPollable:
                return rc
            return rc if rc < 0 else pollErrClosing
    return -blockPark


cdef bint netpollblockcommit(
        pollServer *ps, pollDesc *pd, int mode, uintptr_t waiter) noexcept nogil:
    """Park *waiter* after it has left its thread: False if it is ready or unblocked already.

    After True the waiter belongs to whoever wakes it; do not touch it. Go: netpollblockcommit.
    """
    # Counted before it can be seen, so that the count is never below the truth by more than
    # the wakes under way.
    netpollAdjustWaiters(ps, 1)
    if cas_word(&pd.rg if mode == modeRead else &pd.wg, pdWait, waiter):
        return True
    add_u64(&ps.stats.parks, <uint64_t>-1)
    return False


cdef int netpollabort(
        pollServer *ps, pollDesc *pd, int mode, uintptr_t waiter) noexcept nogil:
    """Take *waiter* back: 1 if it is the caller's again, 0 if a wake-up has it (P3).

    2 if it was announced but never committed. Go has no twin: it never cancels a parked goroutine.
    """
    cdef uintptr_t *g = &pd.rg if mode == modeRead else &pd.wg
    if waiter > pdWait and cas_word(g, waiter, pdNil):
        add_u64(&ps.stats.aborts, 1)
        return 1
    return 2 if cas_word(g, pdWait, pdNil) else 0


cdef int netpollresume(pollDesc *pd, int mode) noexcept nogil:
    """End a wait: 1 if it was readiness, 0 if something else woke us, or a Throw code.

    The last part of Go's netpollblock. After it, check the error; if there is none, try again.
    """
    cdef uintptr_t old = swap_word(&pd.rg if mode == modeRead else &pd.wg, pdNil)
    if old > pdWait:
        return THROW_CORRUPTED
    return old == pdReady


# -- registrations that come and go: level-triggered, one-shot and exclusive -----------------------

cdef int pollRearm(pollServer *ps, pollDesc *pd, int mode) noexcept nogil:
    """Arm a level-triggered or one-shot registration for *mode* too, or register an exclusive
    one (L2); 0 or an errno."""
    cdef int rc = 0
    lock(&pd.lock)
    if pd.reg == regExclusive:
        if not pd.closing and not pd.interest:
            rc = netpollopen(&ps.ep, pd.fd, pollmask(pd.reg, mode),
                             taggedPointerPack(pd, load_u64(&pd.fdseq)))
            pd.interest = mode if rc == 0 else 0
    elif not pd.closing and (pd.reg == regOneshot or pd.interest | mode != pd.interest):
        pd.interest |= mode
        rc = netpollarm(&ps.ep, pd.fd, pollmask(pd.reg, pd.interest),
                        taggedPointerPack(pd, load_u64(&pd.fdseq)))
    unlock(&pd.lock)
    return rc


cdef void pollDisarm(pollServer *ps, pollDesc *pd, uint64_t seq) noexcept nogil:
    """Take an exclusive descriptor of generation *seq* out of epoll, if it is there (L2)."""
    lock(&pd.lock)
    if load_u64(&pd.fdseq) == seq and pd.reg == regExclusive and pd.interest:
        pd.interest = 0
        netpollclose(&ps.ep, pd.fd)
    unlock(&pd.lock)
