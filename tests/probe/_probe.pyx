"""The C floors, function by function, for the tests: nothing here is installed.

Called by the tests of the core, tests/test_epoll.py to test_throw.py, on any thread.
tests/plugins/probe.py compiles it against the installed gopoll, so it is also the proof that a
third party can. A waiter here is a bare number; a C result comes back as it is.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF

from gopoll._atomic cimport (load_i64, load_int, load_u64, load_word, lock, store_int, store_u64,
                             store_word, unlock)
from gopoll._epoll cimport EPOLLERR, netpollarm, netpollBreak, netpolldrain, netpollfini
from gopoll._netpoll cimport NETPOLL_CAP, netpoll, netpollevent, netpolltimeout
from gopoll._park cimport SLICE_BYTES, SLICE_END, SLICE_OPS, Awaitable, set_iternext, thread_words
from gopoll._pollcache cimport (netpollabort, netpollblock, netpollblockcommit, netpollcheckerr,
                                netpollready, netpollresume, poll_runtime_pollClose,
                                poll_runtime_pollOpen, poll_runtime_pollReset,
                                poll_runtime_pollUnblock, poll_runtime_pollWait, pollDesc,
                                pollDiscard, pollRearm, pollServer, taggedPointer,
                                taggedPointerPack)
from gopoll._polldeadline cimport netpolldeadlineimpl, poll_runtime_pollSetDeadline
from gopoll._polldesc cimport PollDesc
from gopoll._poller cimport Poller
from gopoll._pollserver cimport (netpollAdjustWaiters, netpollAnyWaiters, netpollGenericInit,
                                 netpollWaiters, netpollwake,
                                 poll_runtime_isPollServerDescriptor, pollserver_fini,
                                 pollserver_init, ready_push, ready_take)
from gopoll._sockaddr cimport (sockaddr_from_python, sockaddr_storage, sockaddr_to_python,
                               socklen_t)
from gopoll._sysfd cimport SysFD
from gopoll._throw cimport throw
from gopoll.runtime._exec cimport ExecBase
from gopoll.runtime._p cimport MBase
from gopoll._timers cimport (Due, TIMER_WAITER, TimerNode, Timers, nanotime,
                             timer_arm, timer_init, timer_later, timer_move, timer_stop,
                             timers_due, timers_fini, timers_init, timers_next, timers_pop_any)

ERR_ALONE = EPOLLERR


def raise_throw(int code):
    """Raise what *code* stands for."""
    throw(code)


def now_ns():
    """Return the clock of the timers."""
    return nanotime()


def pack(uint64_t address, uint64_t tag):
    """Return the epoll word for *address* and *tag*."""
    return taggedPointerPack(<pollDesc *><uintptr_t>address, tag)


def unpack(uint64_t data):
    """Return the address in an epoll word."""
    return <uintptr_t>taggedPointer(data)


# -- the server ------------------------------------------------------------------------------------

cdef class Server:
    """A pollServer of its own, or the one of a Poller (see of)."""
    cdef pollServer *ps
    cdef Poller owner

    def __cinit__(self, bint borrow=False):
        if not borrow:
            self.ps = <pollServer *>calloc(1, sizeof(pollServer))
            pollserver_init(self.ps)

    def __dealloc__(self):
        if self.owner is None:
            pollserver_fini(self.ps)
            free(self.ps)

    @staticmethod
    def of(Poller poller not None):
        """Return a view of *poller*'s server."""
        cdef Server server = Server(True)
        server.ps = poller.ps
        server.owner = poller
        return server

    @property
    def epfd(self):
        return load_int(&self.ps.ep.epfd)

    @property
    def eventfd(self):
        return self.ps.ep.eventfd

    @property
    def wakesig(self):
        return load_int(&self.ps.ep.wakesig)

    @property
    def inited(self):
        return load_int(&self.ps.inited)

    @property
    def blocked(self):
        return load_int(&self.ps.blocked)

    @property
    def watched(self):
        return load_int(&self.ps.watched)

    @watched.setter
    def watched(self, int value):
        store_int(&self.ps.watched, value)

    @property
    def waiters(self):
        return netpollWaiters(self.ps)

    @property
    def any_waiters(self):
        return bool(netpollAnyWaiters(self.ps))

    @property
    def in_use(self):
        return self.ps.cache.in_use

    @property
    def blocks(self):
        return self.ps.cache.nblocks

    @property
    def timers(self):
        return self.ps.timers.len

    @property
    def stats(self):
        cdef pollServer *ps = self.ps
        return {"polls": load_u64(&ps.stats.polls), "events": load_u64(&ps.stats.events),
                "wakes": load_u64(&ps.stats.wakes), "spurious": load_u64(&ps.stats.spurious),
                "stale": load_u64(&ps.stats.stale), "breaks": load_u64(&ps.stats.breaks)}

    def init(self):
        return netpollGenericInit(self.ps)

    def close(self):
        """Close the epoll instance; the rest goes with the object."""
        netpollfini(&self.ps.ep)

    def is_descriptor(self, int fd):
        return bool(poll_runtime_isPollServerDescriptor(self.ps, fd))

    def arm(self, int fd, uint32_t events, uint64_t data):
        """EPOLL_CTL_MOD behind everybody's back."""
        return netpollarm(&self.ps.ep, fd, events, data)

    def brk(self):
        cdef int rc
        with nogil:
            rc = netpollBreak(&self.ps.ep)
        return rc

    def drain(self):
        netpolldrain(&self.ps.ep)

    def wake(self):
        return netpollwake(self.ps)

    def open(self, int fd, int reg=0):
        """pollOpen: (result, Desc or None)."""
        cdef Desc desc = Desc(self)
        cdef int rc = poll_runtime_pollOpen(self.ps, fd, reg, &desc.pd)
        return rc, (desc if desc.pd != NULL else None)

    def netpoll(self, int64_t delay=0, int cap=128):
        """Return the words that became ready; a negative result as it is."""
        cdef uintptr_t out[NETPOLL_CAP]
        cdef int n, i
        with nogil:
            n = netpoll(self.ps, delay, out, cap)
        return [out[i] for i in range(n)] if n >= 0 else n

    def timeout(self, int64_t until=-1):
        return netpolltimeout(self.ps, until)

    def event(self, uint32_t events, uint64_t data):
        """netpollevent: the woken words, or -1 for a stale event."""
        cdef uintptr_t out[2]
        cdef int i, n = netpollevent(self.ps, events, data, out)
        return [out[i] for i in range(n)] if n >= 0 else n

    def push(self, uintptr_t word):
        return ready_push(self.ps, word)

    def take(self, int cap=256):
        cdef uintptr_t out[256]
        cdef int i, n = ready_take(self.ps, out, cap)
        return [out[i] for i in range(n)]

    def due(self, int64_t now, int cap=64):
        """Pop the due timers: a list of (kind, seq, arg)."""
        cdef Due due[64]
        cdef int i, n = timers_due(&self.ps.timers, now, due, cap)
        return [(due[i].kind, due[i].seq, <uintptr_t>due[i].arg) for i in range(n)]

    def deadline_impl(self, entry, int64_t now):
        """netpolldeadlineimpl for what due() popped: the woken words or a Throw code."""
        cdef Due due
        cdef uintptr_t word = 0
        due.kind, due.seq = entry[0], entry[1]
        due.arg = <void *><uintptr_t>entry[2]
        cdef int rc = netpolldeadlineimpl(self.ps, <pollDesc *>due.arg, &due, now, &word)
        return rc if rc < 0 else [word] * rc

    def next_timer(self):
        return timers_next(&self.ps.timers)

    def lock_timers(self):
        """Take the heap's lock, as a thread would that fork leaves behind."""
        lock(&self.ps.timers.lock)

    def unlock_timers(self):
        unlock(&self.ps.timers.lock)


# -- one descriptor --------------------------------------------------------------------------------

cdef class Desc:
    """A pollDesc: its functions, and its fields to read and to spoil."""
    cdef Server server
    cdef pollDesc *pd

    def __init__(self, Server server not None):
        self.server = server

    @staticmethod
    def of(PollDesc desc not None):
        """Return a view of what *desc* stands on."""
        cdef Desc view = Desc(Server.of(desc.poller))
        view.pd = desc.pd
        return view

    @property
    def address(self):
        return <uintptr_t>self.pd

    @property
    def data(self):
        """The word that epoll carries for this generation."""
        return taggedPointerPack(self.pd, load_u64(&self.pd.fdseq))

    @property
    def rg(self):
        return load_word(&self.pd.rg)

    @rg.setter
    def rg(self, uintptr_t value):
        store_word(&self.pd.rg, value)

    @property
    def wg(self):
        return load_word(&self.pd.wg)

    @wg.setter
    def wg(self, uintptr_t value):
        store_word(&self.pd.wg, value)

    @property
    def fdseq(self):
        return load_u64(&self.pd.fdseq)

    @fdseq.setter
    def fdseq(self, uint64_t value):
        store_u64(&self.pd.fdseq, value)

    @property
    def info(self):
        return load_u64(&self.pd.info)

    @property
    def closing(self):
        return bool(self.pd.closing)

    @closing.setter
    def closing(self, bint value):
        self.pd.closing = value

    @property
    def rrun(self):
        return bool(self.pd.rrun)

    @rrun.setter
    def rrun(self, bint value):
        self.pd.rrun = value

    @property
    def wrun(self):
        return bool(self.pd.wrun)

    @wrun.setter
    def wrun(self, bint value):
        self.pd.wrun = value

    @property
    def rd(self):
        return self.pd.rd

    @rd.setter
    def rd(self, int64_t value):
        self.pd.rd = value

    @property
    def wd(self):
        return self.pd.wd

    @wd.setter
    def wd(self, int64_t value):
        self.pd.wd = value

    @property
    def rseq(self):
        return self.pd.rseq

    @property
    def wseq(self):
        return self.pd.wseq

    @property
    def interest(self):
        return self.pd.interest

    @property
    def armed(self):
        """Which of the two timers stand in the heap."""
        return self.pd.rt.pos >= 0, self.pd.wt.pos >= 0

    def check_error(self, int mode):
        return netpollcheckerr(self.pd, mode)

    def close(self):
        return poll_runtime_pollClose(self.server.ps, self.pd)

    def unblock(self):
        return poll_runtime_pollUnblock(self.server.ps, self.pd)

    def discard(self):
        return pollDiscard(self.server.ps, self.pd)

    def reset(self, int mode):
        return poll_runtime_pollReset(self.pd, mode)

    def wait(self, int mode):
        return poll_runtime_pollWait(self.server.ps, self.pd, mode)

    def block(self, int mode):
        return netpollblock(self.pd, mode)

    def commit(self, int mode, uintptr_t word):
        return bool(netpollblockcommit(self.server.ps, self.pd, mode, word))

    def abort(self, int mode, uintptr_t word):
        return netpollabort(self.server.ps, self.pd, mode, word)

    def resume(self, int mode):
        return netpollresume(self.pd, mode)

    def ready(self, int mode):
        """netpollready: the woken words."""
        cdef uintptr_t out[2]
        cdef int i, n = netpollready(self.pd, mode, out)
        return [out[i] for i in range(n)]

    def set_deadline(self, int64_t when, int mode):
        return poll_runtime_pollSetDeadline(self.server.ps, self.pd, when, mode)

    def rearm(self, int mode):
        return pollRearm(self.server.ps, self.pd, mode)


# -- a thread that Python never saw ----------------------------------------------------------------

cdef extern from "<pthread.h>" nogil:
    ctypedef unsigned long pthread_t
    int pthread_create(pthread_t *t, void *attr, void *(*f)(void *) noexcept nogil, void *arg)
    int pthread_join(pthread_t t, void **result)

cdef struct Stranger:
    pollServer *ps
    pollDesc *pd
    int code
    void *caught       # a list of ours


cdef void *_stranger(void *arg) noexcept nogil:
    cdef Stranger *s = <Stranger *>arg
    s.code = poll_runtime_pollClose(s.ps, s.pd)
    with gil:
        try:
            throw(s.code)
        except BaseException as exc:
            (<list>s.caught).append(exc)
    return NULL


def close_on_a_strange_thread(Desc desc not None):
    """pollClose on a pthread without the GIL, the throw raised there once it is attached.

    Returns the code and the exceptions that were caught there.
    """
    cdef Stranger s
    cdef pthread_t thread
    caught = []
    s.ps, s.pd, s.code, s.caught = desc.server.ps, desc.pd, 0, <void *>caught
    with nogil:
        if pthread_create(&thread, NULL, _stranger, &s) == 0:
            pthread_join(thread, NULL)
    return s.code, caught


def leave_words(Poller poller not None, int fd):
    """Leave words of C's in a raw poller: parked, with a timer, on its ready list."""
    cdef pollDesc *pd = NULL
    cdef TimerNode node
    netpollGenericInit(poller.ps)
    assert poll_runtime_pollOpen(poller.ps, fd, 0, &pd) == 0
    assert poll_runtime_pollReset(pd, 1) == 0
    poll_runtime_pollWait(poller.ps, pd, 1)
    assert netpollblockcommit(poller.ps, pd, 1, 0x10)
    assert ready_push(poller.ps, 0x20) == 0
    timer_init(&node, TIMER_WAITER, <PyObject *>0x30)
    assert timer_arm(&poller.ps.timers, &node, 1 << 60, 0) >= 0
    poller.close()


# -- a heap alone ----------------------------------------------------------------------------------

def idle(ExecBase sched not None, MBase m not None):
    """Be *m*, with nothing to run: give its P up and wait."""
    sched.idle(m)


def poll(ExecBase sched not None, MBase m not None):
    """Have *m* poll the network without waiting."""
    return sched.poll(m)


def error_alone(SysFD fd not None):
    """Give a connection an event that is an error and nothing else, as netpoll would."""
    cdef uintptr_t out[2]
    cdef int i, n = netpollevent(fd.ps, EPOLLERR, taggedPointerPack(fd.pd, fd.pd.fdseq), out)
    for i in range(n):
        ready_push(fd.ps, out[i])
    netpollAdjustWaiters(fd.ps, -n)
    netpollwake(fd.ps)


cdef class Heap:
    """A Timers with a fixed number of nodes; node i pops as (seq, i)."""
    cdef Timers ts
    cdef TimerNode *nodes
    cdef Py_ssize_t count

    def __cinit__(self, Py_ssize_t count):
        cdef Py_ssize_t i
        timers_init(&self.ts)
        self.nodes = <TimerNode *>calloc(count, sizeof(TimerNode))
        self.count = count
        for i in range(count):
            timer_init(&self.nodes[i], TIMER_WAITER, <void *>i)

    def __dealloc__(self):
        timers_fini(&self.ts)
        free(self.nodes)

    def __len__(self):
        return self.ts.len

    @property
    def first(self):
        """What is read without the lock: 0 when empty, never later than the earliest."""
        return load_i64(&self.ts.first)

    def arm(self, Py_ssize_t i, int64_t when, uintptr_t seq=0):
        return timer_arm(&self.ts, &self.nodes[i], when, seq)

    def later(self, Py_ssize_t i, int64_t when):
        timer_later(&self.nodes[i], when)

    def move(self, Py_ssize_t i, int64_t when):
        return bool(timer_move(&self.ts, &self.nodes[i], when))

    def stop(self, Py_ssize_t i):
        return bool(timer_stop(&self.ts, &self.nodes[i]))

    def next(self):
        return timers_next(&self.ts)

    def due(self, int64_t now, int cap=64):
        cdef Due due[64]
        cdef int i, n = timers_due(&self.ts, now, due, cap)
        return [(due[i].seq, <uintptr_t>due[i].arg) for i in range(n)]

    def pop_any(self):
        cdef Due due
        return (due.seq, <uintptr_t>due.arg) if timers_pop_any(&self.ts, &due) else None

    def check(self):
        """Raise AssertionError unless it is a heap that knows where its nodes are (T1)."""
        cdef Py_ssize_t i
        for i in range(self.ts.len):
            assert self.ts.heap[i].pos == i, "a node does not know its place"
            assert self.ts.heap[i].key <= self.ts.heap[i].when, "a key is later than its time"
            if i:
                assert self.ts.heap[(i - 1) // 4].key <= self.ts.heap[i].key, "not a heap"
        armed = sum(1 for i in range(self.count) if self.nodes[i].pos >= 0)
        assert armed == self.ts.len, "a node that is not in the heap thinks it is"
        assert self.first == (self.ts.heap[0].key if self.ts.len else 0), "first is wrong"


# -- awaitables ------------------------------------------------------------------------------------

cdef class Scripted(Awaitable):
    """An awaitable that does what its list says: yield (0, x), end with (1, x), raise an error."""
    cdef list script

    def __init__(self, *script):
        self.script = list(script)

    cdef int step(self, PyObject **out) except -1:
        what = self.script.pop(0)
        if isinstance(what, BaseException):
            raise what
        value = what[1]
        Py_INCREF(value)
        out[0] = <PyObject *>value
        return what[0]


cdef class Early(Scripted):
    """A subclass that was there before set_iternext was called for its base."""


set_iternext(Scripted)
set_iternext(Early)


def slice_words():
    """Return this thread's words: (their address, current, owner, poller, spent, spent_bytes)."""
    tw = thread_words()
    return (<uintptr_t>tw, <uintptr_t>tw.current, <uintptr_t>tw.owner, <uintptr_t>tw.poller,
            tw.spent, tw.spent_bytes)


def spend(int ops, int64_t size):
    """Use up some of this thread's slice."""
    thread_words().spent += ops
    thread_words().spent_bytes += size


def slice_end():
    """The request that ends a slice, and the two budgets."""
    return SLICE_END, SLICE_OPS, SLICE_BYTES


# -- addresses -------------------------------------------------------------------------------------

def address(bytes raw not None, size=None):
    """Return what a sockaddr of these bytes is to Python; *size*: what the kernel says it has."""
    cdef sockaddr_storage addr
    assert len(raw) <= sizeof(addr)
    memcpy(&addr, <char *>raw, len(raw))
    return sockaddr_to_python(&addr, len(raw) if size is None else size)


def sockaddr(addr, int family=0):
    """Return the bytes of the sockaddr that *addr* is for a socket of *family*."""
    cdef sockaddr_storage to
    cdef socklen_t size = 0
    sockaddr_from_python(addr, family, &to, &size, "write", "net")
    return (<char *>&to)[:size]
