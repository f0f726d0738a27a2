"""pollDesc, its free list and its state machine: what _poller, _fd and C embedders may call.

Everything is noexcept nogil. A result is 0 or a count, a positive errno or PollError, or a
negative Throw code. See _pollcache.pyx.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t

from gopoll._atomic cimport cas_word, load_word
from gopoll._polltypes cimport (PollError, pollNoError, pollErrClosing, pollErrTimeout,
                                pollErrNotPollable, pdNil, pdReady, pdWait, modeRead, modeWrite,
                                modeBoth, blockReady, blockPark, regEdge, regLevel, regOneshot,
                                regExclusive, regPlain, infoClosing, infoEventErr,
                                infoEventTried, infoEventMore, infoReadExpired, infoWriteExpired,
                                infoSeqShift, tagBits, tagMask, pollDescSize, pollBlockSize,
                                pollDesc, pollCache, readyList, pollStats, pollServer)

cdef int poll_runtime_pollOpen(
    pollServer *ps, int fd, int reg, pollDesc **out) noexcept nogil
cdef int poll_runtime_pollClose(pollServer *ps, pollDesc *pd) noexcept nogil
cdef int poll_runtime_pollReset(pollDesc *pd, int mode) noexcept nogil
cdef int poll_runtime_pollWait(pollServer *ps, pollDesc *pd, int mode) noexcept nogil
cdef int poll_runtime_pollUnblock(pollServer *ps, pollDesc *pd) noexcept nogil
cdef int pollRearm(pollServer *ps, pollDesc *pd, int mode) noexcept nogil
cdef void pollDisarm(pollServer *ps, pollDesc *pd, uint64_t seq) noexcept nogil
cdef int pollDiscard(pollServer *ps, pollDesc *pd) noexcept nogil
cdef int pollwake(pollServer *ps, uintptr_t reader, uintptr_t writer) noexcept nogil

cdef int netpollcheckerr(pollDesc *pd, int mode) noexcept nogil
cdef int netpollscanerr(pollDesc *pd) noexcept nogil
cdef int netpollblock(pollDesc *pd, int mode) noexcept nogil
cdef bint netpollblockcommit(
    pollServer *ps, pollDesc *pd, int mode, uintptr_t waiter) noexcept nogil
cdef int netpollabort(
    pollServer *ps, pollDesc *pd, int mode, uintptr_t waiter) noexcept nogil
cdef int netpollresume(pollDesc *pd, int mode) noexcept nogil
cdef void publishInfo(pollDesc *pd) noexcept nogil
cdef void setEventErr(pollDesc *pd, bint err, uint64_t seq) noexcept nogil
cdef void setEventMore(pollDesc *pd, uint64_t seq) noexcept nogil
cdef bint pollIsQuiet(pollDesc *pd) noexcept nogil
cdef int pollcache_alloc(pollCache *c, pollDesc **out) noexcept nogil
cdef void pollcache_free(pollCache *c, pollDesc *pd) noexcept nogil
cdef uint32_t pollmask(int reg, int interest) noexcept nogil

cdef inline uint64_t taggedPointerPack(pollDesc *pd, uint64_t tag) noexcept nogil:
    """Pack an address and a generation into one epoll word. Go: taggedPointerPack.

    48 address bits of which the low 8 are zero by alignment leave 24 for the tag.
    """
    return (<uint64_t><uintptr_t>pd << 16) | (tag & tagMask)

cdef inline pollDesc *taggedPointer(uint64_t data) noexcept nogil:
    """The address in a packed word; NULL is the poller's own."""
    return <pollDesc *><uintptr_t>((data >> tagBits) << (tagBits - 16))

cdef inline uintptr_t netpollunblock(pollDesc *pd, int mode, bint ioready) noexcept nogil:
    """Make one direction ready, or only take its waiter off (not ioready); the word or 0.

    Close and deadline store nothing for a waiter to come: it reads info. A load stands before
    the swap because most events find pdReady or pdNil. Go: netpollunblock.
    """
    cdef uintptr_t *g = &pd.rg if mode == modeRead else &pd.wg
    cdef uintptr_t into = pdReady if ioready else pdNil
    cdef uintptr_t old
    while True:
        old = load_word(g)
        if old == pdReady or (old == pdNil and not ioready):
            return 0
        if cas_word(g, old, into):
            return old if old > pdWait else 0

cdef inline int netpollready(pollDesc *pd, int mode, uintptr_t *out) noexcept nogil:
    """Make *mode* ready and put the woken words (at most 2) into *out*; their number.

    Never takes pd.lock. Go: netpollready.
    """
    cdef int n = 0
    if mode & modeRead:
        out[0] = netpollunblock(pd, modeRead, True)
        n += out[0] != 0
    if mode & modeWrite:
        out[n] = netpollunblock(pd, modeWrite, True)
        n += out[n] != 0
    return n
