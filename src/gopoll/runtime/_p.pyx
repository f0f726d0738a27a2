"""The innermost part of the scheduler: run queues, the switch, and the words that sysmon reads.

Called by sched.py, which decides; this file only does. The switch loop (pop, enter the context,
send, commit) is one function here because it runs once per goroutine switch.
Go: runtime/proc.go, runtime2.go (go1.27).

A1: an M stores RUN(m, tick) before it resumes a goroutine and swaps RUN -> SCHED after it. sysmon
    may only swap RUN -> RETAKEN, for the tick it has seen. Who wins owns the P.
S1: who is about to block in the network sets lastpoll to 0, then looks at the global queue, then
    blocks. Who puts work into the global queue does so first and then, if lastpoll is 0, breaks
    the poller. One of the two sees the other.
G1: cancellation is a state. Who cancels sets it first and then aborts the park; the parker
    publishes its park, commits, and then looks at the state. An abort that wins only makes the
    goroutine runnable: what is thrown in is decided when it is resumed.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EINTR
from libc.stdint cimport int64_t, uint64_t, uintptr_t

from gopoll._atomic cimport (add_int, cas_u64, load_i64, load_int, load_u64, store_i64, store_int,
                             store_u64, swap_i64)
from gopoll._epoll cimport netpollBreak
from gopoll._netpoll cimport netpoll
from gopoll._park cimport ParkRequest, SliceEnd, ThreadWords, thread_words
from gopoll._poller cimport Poller
from gopoll._throw cimport throw
from gopoll._timers cimport nanotime
from gopoll.runtime._runq cimport OUT_CAP, RunQ

from gopoll.errors import Canceled, ForkedError


cdef extern from *:
    """
    #include <linux/futex.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    #include <limits.h>
    static void gopoll_futex_wake(int *word) {
      syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, (void *)0, (void *)0, 0);
    }
    static PyObject *gopoll_take_error(void) {
    #if PY_VERSION_HEX >= 0x030C0000
      return PyErr_GetRaisedException();
    #else
      PyObject *type, *value, *tb;
      PyErr_Fetch(&type, &value, &tb);
      PyErr_NormalizeException(&type, &value, &tb);
      if (tb) PyException_SetTraceback(value, tb);
      Py_XDECREF(type);
      Py_XDECREF(tb);
      return value;
    #endif
    }
    """
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PySendResult PyIter_Send(object iter, object arg, PyObject **result) noexcept
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    object PyContext_CopyCurrent()
    void gopoll_futex_wake(int *word) noexcept nogil
    object gopoll_take_error()

RUNNABLE, RUNNING, WAITING, DEAD = range(4)
cdef enum:
    G_RUNNABLE
    G_RUNNING
    G_WAITING
    G_DEAD


cdef void wake_note(SchedWords *words) noexcept nogil:
    """Wake sysmon, whatever it sleeps in."""
    add_int(&words.note, 1)
    gopoll_futex_wake(&words.note)


cdef class GoschedRequest(ParkRequest):
    """Yielded by gosched(): to the tail of the global queue."""


GOSCHED = GoschedRequest()


# -- P and M ---------------------------------------------------------------------------------------

cdef class PBase:
    """The right to run goroutines: a local queue and one status word (A1)."""

    def __init__(self, int number):
        self.id = number
        self.runq = RunQ()

    @property
    def status(self):
        """(state, m, tick) as sysmon sees them."""
        cdef uint64_t word = load_u64(&self.words.status)
        return word & 3, (word >> stateBits) & 0x3FFF, word >> tickShift

    @property
    def schedtick(self):
        """How many slices this P has begun."""
        return load_u64(&self.words.schedtick)


cdef class MBase:
    """A thread that runs goroutines."""

    def __init__(self, int number):
        self.id = number


cdef class ContextBase:
    """done_word: set once, when the context is done (G1)."""


# -- G ---------------------------------------------------------------------------------------------

cdef class GBase:
    """A goroutine: a coroutine, its contextvars, its ambient Context, and where it stands."""

    def __init__(self, sched, coro, context, int64_t number, name):
        self.sched = sched
        self.coro = coro
        self.vars = PyContext_CopyCurrent()
        self.context = context
        self.id = number
        self.name = name
        self.state = G_RUNNABLE
        self.joiners = []

    cdef bint cancelled_now(self) noexcept:
        """Whether a park of this goroutine must raise."""
        return (self.canceled and not self.shielded) or (<ContextBase>self.context).done_word

    def why_canceled(self):
        """What a park raises now: the cause of the goroutine's own cancel, else the context's."""
        if self.canceled and not self.shielded:
            return Canceled(self.cancel_cause)
        return Canceled(self.context.cause)

    @property
    def park_request(self):
        """What it waits in, or None."""
        with cython.critical_section(self):
            return self.park

    cdef int unpark(self) except -1:
        """Make it runnable if it is parked and nobody is waking it. After the state is set (G1)."""
        cdef ParkRequest park
        with cython.critical_section(self):
            park = self.park
        if park is not None and park.abort_word(<PyObject *>self) == 1:
            ready_g(self)
            Py_DECREF(self)                  # the park's reference
        return 0

    def interrupt(self):
        """unpark() for Python: after canceled, a context or pending has been set. Any thread."""
        self.unpark()

    def add_joiner(self, waiter):
        """Have *waiter* called or made ready at the end; False if that has been."""
        with cython.critical_section(self):
            if self.done:
                return False
            self.joiners.append(waiter)
            return True

    def finish(self, result, error):
        """End: store the outcome and wake who waits for it. Once."""
        with cython.critical_section(self):
            self.result = result
            self.error = error
            self.done = True
            self.state = G_DEAD
            joiners = self.joiners
            self.joiners = None
            self.coro = None
            self.park = None
        for waiter in joiners:
            if isinstance(waiter, GBase):
                ready_g(<GBase>waiter)
            else:
                waiter()
        return bool(joiners)

    def handle_made(self):
        """Count one more live handle."""
        with cython.critical_section(self):
            self.handles += 1

    def handle_dropped(self):
        """Count one handle less; True if it was the last."""
        with cython.critical_section(self):
            self.handles -= 1
            return self.handles == 0

    @property
    def live_handles(self):
        """How many handles are held."""
        return self.handles


cdef int ready_g(GBase g) except -1:
    """Make a goroutine runnable: here if this thread runs its scheduler, else through its poller.

    Go: goready.
    """
    cdef ThreadWords *tw = thread_words()
    cdef SchedBase sched = <SchedBase>g.sched
    cdef PBase p
    if tw.owner == <PyObject *>sched:
        p = <PBase>sched.current_p()
        if p is not None:
            p.runq.push(g)
            return 0
    Py_INCREF(g)
    try:
        sched.poller.post_word(<uintptr_t><PyObject *>g)
    except BaseException:
        Py_DECREF(g)
        raise
    return 0


def ready(GBase g not None):
    """Make *g* runnable. Any thread. Go: goready."""
    ready_g(g)


def current_g():
    """Return the goroutine that runs on this thread, or None."""
    cdef PyObject *g = thread_words().current
    return <object>g if g != NULL else None


def current_sched():
    """Return the scheduler that runs on this thread; RuntimeError if there is none."""
    cdef PyObject *owner = thread_words().owner
    if owner == NULL:
        raise RuntimeError("no scheduler runs on this thread: call gopoll.run(...)")
    return <object>owner


def current_poller():
    """Return the poller of the scheduler on this thread; RuntimeError if there is none."""
    return current_sched().poller


# -- the scheduler's inner loop --------------------------------------------------------------------

cdef class SchedBase:
    """The scheduler's words, its poller and its global queue. Policy is in sched.py."""

    def __init__(self):
        self.poller = Poller()
        self.ps = self.poller.ps
        self.globq = RunQ()
        store_i64(&self.words.lastpoll, nanotime())

    def current_p(self):
        """The P of the calling thread, which runs this scheduler."""
        raise NotImplementedError

    def goexit(self, g, result, error):
        """Called when the coroutine of *g* has ended."""
        raise NotImplementedError

    def run_callable(self, fn):
        """Called for a waiter that is no goroutine."""
        raise NotImplementedError

    @property
    def lastpoll(self):
        """Monotonic ns of the last network poll; 0 while a thread is blocked in it."""
        return load_i64(&self.words.lastpoll)

    @property
    def npidle(self):
        """How many Ps are idle."""
        return load_int(&self.words.npidle)

    @property
    def nmidlelocked(self):
        """Idle Ms that are locked to a goroutine; -1 while sysmon injects (incidlelocked)."""
        return load_int(&self.words.nmidlelocked)

    def incidlelocked(self, int v):
        """Adjust nmidlelocked. Go: incidlelocked."""
        add_int(&self.words.nmidlelocked, v)

    @property
    def is_forked(self):
        """Whether this is a copy in a forked child, to be left alone (A9)."""
        return self.ps != self.poller.ps

    # -- threads

    def enter_thread(self):
        """Make the calling thread one of this scheduler's; RuntimeError if it runs another."""
        cdef ThreadWords *tw = thread_words()
        if tw.owner != NULL:
            raise RuntimeError("gopoll.run() cannot be nested in one thread: a scheduler runs "
                               "here already; use gopoll.go()")
        tw.owner = <PyObject *>self
        tw.poller = <PyObject *>self.poller
        tw.current = NULL
        tw.spent = 0
        tw.spent_bytes = 0

    def leave_thread(self):
        """Undo enter_thread."""
        cdef ThreadWords *tw = thread_words()
        tw.owner = tw.poller = tw.current = NULL

    # -- the network

    cdef int take(self, RunQ to, int n, uintptr_t *words) except -1:
        """Queue what netpoll returned: goroutines to *to*, callables as short goroutines."""
        cdef int i, k = 0
        if n < 0:
            if n != -EINTR:
                throw(n)
            PyErr_CheckSignals()
            return 0
        for i in range(n):
            if isinstance(<object><PyObject *>words[i], GBase):
                words[k] = words[i]
                k += 1
            else:
                fn = <object><PyObject *>words[i]
                Py_DECREF(fn)
                self.run_callable(fn)
        if k:
            to.push_words(words, k)
        return n

    def poll(self, RunQ to not None):
        """Poll the network without blocking into *to*; how many became ready.

        The GIL is kept (B3). lastpoll is set here too (Go: only after blocking): while this
        thread polls often, sysmon need not take the GIL to do the same.
        """
        cdef uintptr_t words[OUT_CAP]
        cdef int n = netpoll(self.ps, 0, words, OUT_CAP)
        store_i64(&self.words.lastpoll, nanotime())
        return self.take(to, n, words)

    def block(self, RunQ to not None):
        """Wait in the network, as the last idle M does, and put what became ready into *to*."""
        cdef uintptr_t words[OUT_CAP]
        cdef int n = 0
        if swap_i64(&self.words.lastpoll, 0) == 0:
            raise RuntimeError("two threads of one scheduler block in the network")
        if self.globq.len == 0 and not self.stopping:        # S1: after lastpoll = 0
            add_int(&self.words.npidle, 1)
            with nogil:
                n = netpoll(self.ps, -1, words, OUT_CAP)
            add_int(&self.words.npidle, -1)
        store_i64(&self.words.lastpoll, nanotime())
        if load_int(&self.words.sysmonwait):
            self.wake_sysmon()
        return self.take(to, n, words)

    def wake_sysmon(self):
        """End sysmon's deep sleep."""
        if load_int(&self.words.sysmonwait):
            store_int(&self.words.sysmonwait, 0)
            wake_note(&self.words)

    def wake_net_poller(self):
        """Break the thread that blocks in the network, if one does (S1). Go: wakeNetPoller."""
        if load_i64(&self.words.lastpoll) == 0 and load_int(&self.ps.inited):
            netpollBreak(&self.ps.ep)

    # -- switching

    def execute(self, PBase p not None, MBase m not None, int budget):
        """Run up to *budget* slices from p's queue; how many were run. Go: execute, schedule.

        Ends early when the queue is empty or the scheduler is stopping.
        """
        cdef int n = 0
        cdef GBase g
        while n < budget and not self.stopping:
            g = <GBase>p.runq.pop()
            if g is None:
                if self.globq.len == 0:
                    break
                self.globq.move(p.runq, self.globq.len)      # Go: globrunqget
                continue
            n += 1
            self.resume(p, m, g)
        self.switches += n
        return n

    cdef int resume(self, PBase p, MBase m, GBase g) except -1:
        """Run one slice of *g* on *m* under *p*, then commit what it waits for."""
        cdef ThreadWords *tw = thread_words()
        cdef PyObject *out = NULL
        cdef PySendResult how
        cdef uint64_t tick, running
        if g.done:
            return 0
        with cython.critical_section(g):
            g.park = None
        exc = None
        if g.pending is not None:
            exc = g.pending
            g.pending = None
        elif g.parked and g.cancelled_now():
            exc = g.why_canceled()
        g.parked = False
        g.state = G_RUNNING
        tick = load_u64(&p.words.schedtick) + 1
        store_u64(&p.words.schedtick, tick)
        running = P_RUN | (<uint64_t>m.id << stateBits) | (tick << tickShift)
        m.curg = g
        tw.current = <PyObject *>g
        tw.spent = 0
        tw.spent_bytes = 0
        PyContext_Enter(g.vars)
        store_u64(&p.words.status, running)                  # A1
        error = None
        if exc is None:
            how = PyIter_Send(g.coro, None, &out)
            if how == PYGEN_ERROR:
                error = gopoll_take_error()
        else:
            how = PYGEN_NEXT
            try:
                value = g.coro.throw(exc)
                Py_INCREF(value)
                out = <PyObject *>value
            except StopIteration as stop:
                how = PYGEN_RETURN
                value = stop.value
                Py_INCREF(value)
                out = <PyObject *>value
            except BaseException as e:
                how = PYGEN_ERROR
                error = e
            exc = None
        # A1: with one P and no hand-off this swap cannot fail; it is here so that it may.
        cas_u64(&p.words.status, running, P_SCHED | (<uint64_t>m.id << stateBits))
        PyContext_Exit(g.vars)
        tw.current = NULL
        m.curg = None
        if self.ps != self.poller.ps:
            if out != NULL:
                Py_DECREF(<object>out)
            raise ForkedError("gopoll.run() was forked: goroutines stay with the parent; call "
                              "os._exit or start a new run() in the child")
        if how == PYGEN_NEXT:
            request = <object>out
            Py_DECREF(request)
            return self.settle(p, g, request)
        value = None
        if how == PYGEN_RETURN:
            value = <object>out
            Py_DECREF(value)
        self.goexit(g, value, error)
        return 0

    cdef int settle(self, PBase p, GBase g, object request) except -1:
        """Do what the goroutine has yielded for: park it, or queue it again."""
        cdef ParkRequest park
        cdef object context
        if not isinstance(request, ParkRequest):
            g.pending = TypeError(
                f"goroutine awaited {type(request).__name__}, which belongs to another event "
                "loop; run it there, or through gopoll.embed")
            p.runq.push(g)
            return 0
        g.parked = True
        if isinstance(request, GoschedRequest):
            g.state = G_RUNNABLE
            self.globq.push(g)
            return 0
        if isinstance(request, SliceEnd):
            g.parked = False                 # the operation has not begun: nothing to cancel yet
            g.state = G_RUNNABLE
            self.globq.push(g)               # behind those that gosched() has put there
            return 0
        park = <ParkRequest>request
        context = g.context
        g.state = G_WAITING
        g.since_ns = nanotime()
        with cython.critical_section(g):
            g.park = park
        Py_INCREF(g)
        if not park.commit_word(<PyObject *>g):
            Py_DECREF(g)
            g.state = G_RUNNABLE
            p.runq.push(g)
            return 0
        # K1: it may run elsewhere by now. G1: our park is published; look at the state.
        if ((g.canceled and not g.shielded) or (<ContextBase>context).done_word
                or g.pending is not None):
            if park.abort_word(<PyObject *>g) == 1:
                p.runq.push(g)
                Py_DECREF(g)
        return 0
