"""pollServer: what Go keeps in package-level variables. Its life, ready list and waiter count.

Called by _pollcache, _netpoll and _poller, on any thread, without the GIL.
Go: runtime/netpoll.go, netpollGenericInit, netpollWaiters (go1.27).

A9: in a forked child no lock of the parent's is taken: a thread that does not exist there may hold
    it. A poller's objects see that they are a copy when the fork handler has replaced its ps; what
    a destructor does looks at pid, for the interpreter of the child destroys what its lost threads
    held before that handler runs.
"""

from libc.stdint cimport int64_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from gopoll._atomic cimport (add_u64, load_i64, load_int, load_u64, lock, lock_fini, lock_init,
                             store_i64, store_int, unlock)
from gopoll._epoll cimport netpollBreak, netpollfini, netpollinit
from gopoll._polltypes cimport readyList
from gopoll._throw cimport THROW_OUT_OF_MEMORY
from gopoll._timers cimport timers_fini, timers_init

cdef extern from * nogil:
    """
    #include <sys/mman.h>
    #include <unistd.h>
    /* getpid() without a system call: a word that the kernel clears in a child, whichever way that
       was made. Where it cannot (before Linux 4.14), the system call. */
    static int *gopoll_pid;
    static void gopoll_pid_init(void) {
    #ifdef MADV_WIPEONFORK
      void *page = mmap(NULL, sizeof(int), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                        -1, 0);
      if (page == MAP_FAILED) return;
      if (madvise(page, sizeof(int), MADV_WIPEONFORK) != 0) { munmap(page, sizeof(int)); return; }
      gopoll_pid = page;
    #endif
    }
    static int gopoll_getpid(void) {
      int pid = gopoll_pid ? __atomic_load_n(gopoll_pid, __ATOMIC_RELAXED) : 0;
      if (pid == 0) {
        pid = getpid();
        if (gopoll_pid) __atomic_store_n(gopoll_pid, pid, __ATOMIC_RELAXED);
      }
      return pid;
    }
    """
    void gopoll_pid_init()
    int getpid "gopoll_getpid"()

gopoll_pid_init()


cdef int pollserver_init(pollServer *ps) noexcept nogil:
    """Make *ps* a poller without an epoll instance; that comes with the first use."""
    memset(ps, 0, sizeof(pollServer))
    ps.ep.epfd = -1
    ps.ep.eventfd = -1
    ps.timerfd = -1
    ps.pid = getpid()
    timers_init(&ps.timers)
    lock_init(&ps.cache.lock)
    lock_init(&ps.ready.lock)
    lock_init(&ps.initlock)
    return 0


cdef void pollserver_fini(pollServer *ps) noexcept nogil:
    """Close and free all of *ps*; nothing may be parked, registered or under way."""
    cdef Py_ssize_t i
    netpollfini(&ps.ep)
    timers_fini(&ps.timers)
    for i in range(ps.cache.nblocks):
        free(ps.cache.blocks[i])
    free(ps.cache.blocks)
    free(ps.ready.ring)
    lock_fini(&ps.cache.lock)
    lock_fini(&ps.ready.lock)
    lock_fini(&ps.initlock)


cdef bint pollserver_forked(pollServer *ps) noexcept nogil:
    """Whether *ps* is the parent's, seen from a forked child, however early (A9)."""
    return ps.pid != getpid()


cdef int netpollGenericInit(pollServer *ps) noexcept nogil:
    """Run netpollinit once, on first need; 0 or a Throw code. Published after success only.

    Go: netpollGenericInit.
    """
    cdef int rc = 0
    if load_int(&ps.inited) == 0:
        lock(&ps.initlock)
        if load_int(&ps.inited) == 0:
            rc = netpollinit(&ps.ep)
            if rc == 0:
                store_int(&ps.inited, 1)
        unlock(&ps.initlock)
    return rc


cdef int poll_runtime_pollServerInit(pollServer *ps) noexcept nogil:
    """Go: poll_runtime_pollServerInit."""
    return netpollGenericInit(ps)


cdef bint poll_runtime_isPollServerDescriptor(pollServer *ps, int fd) noexcept nogil:
    """Report whether *fd* is one of the poller's own. Go: poll_runtime_isPollServerDescriptor."""
    return fd >= 0 and (fd == ps.ep.epfd or fd == ps.ep.eventfd or fd == ps.timerfd)


# -- the ready list: waiters made ready by something else than epoll -------------------------------

cdef int netpollwake(pollServer *ps) noexcept nogil:
    """Break the poller if somebody sleeps in it; 0 or a Throw code.

    P5: a sleeper counts itself in `blocked`, then looks at the lists and the first deadline, then
    sleeps (netpoll). We have changed a list before we came here, and now read `blocked`. One of
    the two sees the other. A host that watches from outside is told, but in its own turn (P8).
    """
    if load_int(&ps.blocked) > 0 or load_int(&ps.watched) == 1:
        if load_int(&ps.inited):
            return netpollBreak(&ps.ep)
    return 0


cdef int ready_push(pollServer *ps, uintptr_t waiter) noexcept nogil:
    """Append *waiter*, which the next netpoll returns, and wake a sleeper; 0 or a Throw code.

    THROW_BREAK_WRITE says that it is listed and that the sleeper was not told.
    """
    cdef readyList *r = &ps.ready
    cdef uintptr_t *grown
    cdef size_t cap, n, i
    lock(&r.lock)
    n = <size_t>load_i64(&r.len)
    if n == r.cap:
        cap = r.cap * 2 if r.cap else 64
        grown = <uintptr_t *>malloc(cap * sizeof(uintptr_t))
        if grown == NULL:
            unlock(&r.lock)
            return THROW_OUT_OF_MEMORY
        for i in range(n):
            grown[i] = r.ring[(r.head + i) & (r.cap - 1)]
        free(r.ring)
        r.ring = grown
        r.head = 0
        r.cap = cap
    r.ring[(r.head + n) & (r.cap - 1)] = waiter
    store_i64(&r.len, <int64_t>n + 1)
    unlock(&r.lock)
    return netpollwake(ps)


cdef int ready_take(pollServer *ps, uintptr_t *out, int cap) noexcept nogil:
    """Move up to *cap* waiters to *out*, oldest first; their number."""
    cdef readyList *r = &ps.ready
    cdef int n = 0
    cdef int64_t left
    if load_i64(&r.len) == 0:
        return 0
    lock(&r.lock)
    left = load_i64(&r.len)
    while n < cap and left > 0:
        out[n] = r.ring[r.head]
        r.head = (r.head + 1) & (r.cap - 1)
        n += 1
        left -= 1
    store_i64(&r.len, left)
    unlock(&r.lock)
    return n


# -- the count of parked waiters -------------------------------------------------------------------

cdef void netpollAdjustWaiters(pollServer *ps, int64_t delta) noexcept nogil:
    """Count one who parks, before that can be seen, or those that a wake-up has taken off, after
    they are runnable. Go: netpollAdjustWaiters.
    """
    if delta > 0:
        add_u64(&ps.stats.parks, <uint64_t>delta)
    elif delta < 0:
        add_u64(&ps.stats.wakes, <uint64_t>-delta)


cdef int64_t netpollWaiters(pollServer *ps) noexcept nogil:
    """How many are parked: never below the truth, for who leaves is looked at first.

    Go: the variable netpollWaiters; here a wake-up is counted once, not there and in the stats.
    """
    cdef uint64_t gone = load_u64(&ps.stats.wakes) + load_u64(&ps.stats.aborts)
    return <int64_t>(load_u64(&ps.stats.parks) - gone)


cdef bint netpollAnyWaiters(pollServer *ps) noexcept nogil:
    """Report whether anybody is parked. Go: netpollAnyWaiters."""
    return netpollWaiters(ps) > 0
