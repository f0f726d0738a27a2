"""One epoll instance: create, add, modify, delete, wait, break. The only file with these calls.

Called by _pollcache and _poller, on any thread, never with the GIL needed. An errno comes back as
a value (0 is success), never as -1 with the cause lost; a throw comes back as a Throw code.
Go: runtime/netpoll_epoll.go (go1.27).
"""

from libc.errno cimport ENOSYS, EPERM, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t

from gopoll._atomic cimport cas_int, load_int, store_int
from gopoll._throw cimport (THROW_BREAK_WRITE, THROW_EPOLLCREATE, THROW_EPOLLCTL,
                            THROW_EVENTFD)


cdef extern from * nogil:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <stdint.h>
    #include <stdio.h>
    #include <sys/epoll.h>
    #include <sys/eventfd.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>

    /* The system call itself: some C libraries build epoll_create out of epoll_create1. */
    static int gopoll_epoll_create(int size) {
    #ifdef SYS_epoll_create
      return (int)syscall(SYS_epoll_create, size);
    #else
      (void)size; errno = ENOSYS; return -1;
    #endif
    }

    /* epoll_pwait2 (Linux 5.11) by number: the oldest C library we build with has no name for it,
       and its argument is the kernel's 64-bit timespec on every machine. */
    #ifndef SYS_epoll_pwait2
    #define SYS_epoll_pwait2 441
    #endif
    static int gopoll_epoll_pwait2(int epfd, struct epoll_event *ev, int n, int64_t ns) {
      struct { int64_t sec, nsec; } ts = { ns / 1000000000, ns % 1000000000 };
      return (int)syscall(SYS_epoll_pwait2, epfd, ev, n, &ts, (void *)0, (size_t)0);
    }

    /* Not by way of the C library: where there are threads (sysmon's) its epoll_wait is a
       cancellation point, two locked instructions a call. */
    #if defined(SYS_epoll_wait) && !(defined(__x86_64__) && defined(__ILP32__))
    static int gopoll_epoll_wait(int epfd, struct epoll_event *ev, int n, int ms) {
      return (int)syscall(SYS_epoll_wait, epfd, ev, n, ms);
    }
    #else
    #define gopoll_epoll_wait epoll_wait
    #endif

    /* Add one to an eventfd and leave errno as it was: this runs in signal handlers. */
    static int gopoll_signal(int fd) {
      int saved = errno, rc = 0;
      uint64_t one = 1;
      while (write(fd, &one, sizeof one) != sizeof one) {
        if (errno == EINTR) continue;
        rc = errno == EAGAIN ? 0 : -1;
        break;
      }
      errno = saved;
      return rc;
    }

    static __thread int gopoll_init_errno;    /* why netpollinit failed last on this thread */

    static void gopoll_print_epollcreate(int err) {
      dprintf(2, "runtime: epollcreate failed with %d\\n", err);
    }
    """
    enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_MOD
        EPOLL_CTL_DEL
        EFD_CLOEXEC
        EFD_NONBLOCK
        F_SETFD
        FD_CLOEXEC
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event *ev)
    int epoll_wait "gopoll_epoll_wait"(int epfd, epoll_event *ev, int n, int ms)
    int eventfd(unsigned int count, int flags)
    int fcntl(int fd, int op, int arg)
    int close(int fd)
    Py_ssize_t read(int fd, void *buf, size_t n)
    int gopoll_signal(int fd)
    int gopoll_epoll_create(int size)
    int gopoll_epoll_pwait2(int epfd, epoll_event *ev, int n, int64_t ns)
    void gopoll_print_epollcreate(int err)
    int gopoll_init_errno


# 0 not tried, 1 there, -1 missing or forbidden. Atomic; every writer writes the same.
cdef int have_pwait2 = 0


cdef int _create() noexcept nogil:
    """Create an epoll descriptor that is closed on exec; a negative errno if nothing works."""
    cdef int epfd = epoll_create1(EPOLL_CLOEXEC)
    if epfd >= 0:
        return epfd
    epfd = gopoll_epoll_create(1024)
    if epfd < 0:
        return -errno
    fcntl(epfd, F_SETFD, FD_CLOEXEC)
    return epfd


cdef int netpollinit(Epoll *ep) noexcept nogil:
    """Create the epoll instance and its break eventfd; 0 or a Throw code.

    epfd is published last, after everything has succeeded. On failure nothing is left open and the
    call may be tried again. Go: netpollinit.
    """
    cdef epoll_event ev
    cdef int rc = 0
    global gopoll_init_errno
    cdef int epfd = _create()
    if epfd < 0:
        gopoll_init_errno = -epfd
        gopoll_print_epollcreate(-epfd)
        return THROW_EPOLLCREATE
    cdef int efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    if efd < 0:
        rc = THROW_EVENTFD
    else:
        ev.events = EPOLLIN
        ev.data.u64 = 0        # no descriptor has the null address: this is the break
        if epoll_ctl(epfd, EPOLL_CTL_ADD, efd, &ev) != 0:
            rc = THROW_EPOLLCTL
    if rc != 0:
        gopoll_init_errno = errno
        close(epfd)
        if efd >= 0:
            close(efd)
        return rc
    ep.eventfd = efd
    store_int(&ep.wakesig, 0)
    store_int(&ep.epfd, epfd)
    return 0


cdef int netpollinit_errno() noexcept nogil:
    """The errno behind the last throw of netpollinit on this thread."""
    return gopoll_init_errno


cdef void netpollfini(Epoll *ep) noexcept nogil:
    """Close both descriptors. Nobody may wait in them any more."""
    cdef int epfd = ep.epfd
    if epfd >= 0:
        store_int(&ep.epfd, -1)
        close(epfd)
        close(ep.eventfd)
        ep.eventfd = -1


cdef int _ctl(Epoll *ep, int op, int fd, uint32_t events, uint64_t data) noexcept nogil:
    cdef epoll_event ev
    ev.events = events
    ev.data.u64 = data
    if epoll_ctl(ep.epfd, op, fd, &ev) == 0:
        return 0
    return errno


cdef int netpollopen(Epoll *ep, int fd, uint32_t events, uint64_t data) noexcept nogil:
    """Register *fd*; 0 or an errno. Go: netpollopen."""
    return _ctl(ep, EPOLL_CTL_ADD, fd, events, data)


cdef int netpollarm(Epoll *ep, int fd, uint32_t events, uint64_t data) noexcept nogil:
    """Change what a level-triggered or one-shot *fd* waits for; 0 or an errno.

    Edge-triggered registrations are never modified. Go: netpollarm, unused on Linux there.
    """
    return _ctl(ep, EPOLL_CTL_MOD, fd, events, data)


cdef int netpollclose(Epoll *ep, int fd) noexcept nogil:
    """Unregister *fd*; 0 or an errno. Go: netpollclose."""
    return _ctl(ep, EPOLL_CTL_DEL, fd, 0, 0)


cdef int netpollBreak(Epoll *ep) noexcept nogil:
    """Make a blocked or the next wait return; 0 or a Throw code. Safe in a signal handler.

    P2: at most one break is under way. Whoever loses the race has published its reason before
    it came here, and netpolldrain's caller looks at every list after it has cleared wakesig.
    Go: netpollBreak.
    """
    if not cas_int(&ep.wakesig, 0, 1):
        return 0
    if gopoll_signal(ep.eventfd) != 0:
        store_int(&ep.wakesig, 0)        # else the next one took it for done, and nobody were told
        return THROW_BREAK_WRITE
    return 0


cdef void netpolldrain(Epoll *ep) noexcept nogil:
    """Take the break back (P2): read the eventfd, clear wakesig; then look at the lists."""
    cdef uint64_t count
    read(ep.eventfd, &count, sizeof(count))
    store_int(&ep.wakesig, 0)


cdef int netpollwait(Epoll *ep, epoll_event *events, int n, int64_t delay_ns) noexcept nogil:
    """Wait for up to *n* events; their number, or a negative errno.

    delay_ns: < 0 for ever, 0 not at all. Never returns before the delay has passed unless
    something happened (Go truncates to milliseconds; we do not): nanoseconds where the kernel has
    epoll_pwait2, milliseconds rounded up where it does not.
    """
    cdef int got, have = load_int(&have_pwait2)
    cdef int64_t ms
    if delay_ns <= 0:
        got = epoll_wait(ep.epfd, events, n, -1 if delay_ns < 0 else 0)
        return got if got >= 0 else -errno
    if have >= 0:
        got = gopoll_epoll_pwait2(ep.epfd, events, n, delay_ns)
        if got >= 0:
            if have == 0:
                store_int(&have_pwait2, 1)
            return got
        # An old kernel says ENOSYS, a seccomp filter EPERM; all else is the wait's own error.
        if have > 0 or (errno != ENOSYS and errno != EPERM):
            return -errno
        store_int(&have_pwait2, -1)
    ms = delay_ns // 1000000 + (delay_ns % 1000000 != 0)
    if ms > 1000000000:
        ms = 1000000000
    got = epoll_wait(ep.epfd, events, n, <int>ms)
    return got if got >= 0 else -errno
