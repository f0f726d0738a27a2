"""The structs and constants of the poller: pollDesc, pollCache, pollServer and what they hold.

No code. Field layout is ABI: see ABI_VERSION in _poller.pxd. Go: runtime/netpoll.go (go1.27).
"""

from libc.stdint cimport int64_t, uint64_t, uintptr_t

from gopoll._atomic cimport gopoll_lock
from gopoll._epoll cimport Epoll
from gopoll._timers cimport TimerNode, Timers


cdef enum PollError:                # Go: pollNoError and the rest, in step with _fd
    pollNoError = 0
    pollErrClosing = 1
    pollErrTimeout = 2
    pollErrNotPollable = 3

cdef enum:                          # the states of rg and wg; above pdWait: a waiter's word
    pdNil = 0                       # nothing pending, nobody waits
    pdReady = 1                     # one readiness is stored
    pdWait = 2                      # somebody is about to park

cdef enum:                          # directions; also what netpollblock returns
    modeRead = 1
    modeWrite = 2
    modeBoth = 3
    blockReady = 0                  # readiness was consumed: go on
    blockPark = 1                   # pdWait is announced: leave, then commit

cdef enum:                          # registration, constant while a descriptor is open
    regEdge = 0
    regLevel = 1
    regOneshot = 2
    regExclusive = 3                # edge-triggered; of several pollers that wait one is woken
    regPlain = 4                    # edge-triggered, and told of urgent data (R1)

cdef enum:                          # info: 64 bits, so that the whole tag fits
    infoClosing = 1
    infoEventErr = 2                # the last event was EPOLLERR alone
    infoReadExpired = 4
    infoWriteExpired = 8
    infoEventTried = 16             # a reader has been told to try again after that (P7)
    infoEventMore = 32              # an event has said more than readable or writable (R1)
    infoSeqShift = 8
    tagBits = 24
    tagMask = 0xFFFFFF
    pollDescSize = 256              # stride: four cache lines, so that no two share one
    pollBlockSize = 4096

cdef struct pollDesc:
    pollDesc *link     # free list; guarded by pollCache.lock
    uint64_t fdseq     # generation, bumped when freed; atomic (P4)
    uint64_t info      # closing, expiry, eventErr and a copy of fdseq; atomic (P1)
    uintptr_t rg       # pdNil, pdReady, pdWait or the reader's word; atomic (P3)
    uintptr_t wg       # likewise for the writer
    int fd             # constant while open
    int reg            # regEdge and so on; constant while open

    gopoll_lock lock   # guards all that follows; above Timers.lock
    bint closing       # set by pollUnblock, cleared by pollOpen
    bint rrun          # rt is armed, or popped and not yet looked at
    bint wrun
    int interest       # what a level, one-shot or exclusive registration is armed for (L2)
    uintptr_t rseq     # bumped when rt changes other than to later; guards stale timers (T2)
    uintptr_t wseq
    int64_t rd         # read deadline: > 0 monotonic ns, 0 none, -1 has passed
    int64_t wd
    TimerNode rt
    TimerNode wt

cdef struct pollCache:
    gopoll_lock lock
    pollDesc *first    # LIFO; guarded by lock, as is all below
    void **blocks      # 4 KiB each, never returned while the poller lives (P4)
    Py_ssize_t nblocks
    Py_ssize_t in_use

cdef struct readyList:
    gopoll_lock lock
    uintptr_t *ring    # waiters that netpoll hands out; guarded by lock
    size_t head
    size_t cap
    int64_t len        # atomic, so that emptiness is seen without the lock (P5)

cdef struct pollStats:
    uint64_t polls     # netpoll calls
    uint64_t events    # epoll events seen, breaks left out
    uint64_t parks     # waiters parked in rg and wg so far
    uint64_t wakes     # those of them handed out by events, deadlines, close
    uint64_t spurious  # events that found nobody parked
    uint64_t stale     # events of an older generation, dropped
    uint64_t breaks    # breaks drained
    uint64_t aborts    # those taken back

cdef struct pollServer:             # Go's package-level poller, one per Poller
    Epoll ep
    Timers timers
    pollCache cache
    readyList ready
    gopoll_lock initlock
    int inited         # set last, once; atomic
    int blocked        # threads in, or about to enter, a blocking wait; atomic (P5)
    int watched        # a host watches the epoll descriptor; 2 in its own turn (P8); atomic
    int timerfd        # -1, or the descriptor that makes epfd readable at deadlines
    pollStats stats    # all atomic
    int pid            # whose it is: a forked child leaves it alone (A9)
    int64_t timerset   # when the timerfd fires, ns, 0 never; guarded by initlock
