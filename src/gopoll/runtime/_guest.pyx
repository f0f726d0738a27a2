"""A turn of a guest: the scheduler without threads, driven by somebody else's loop.

Called by guest.py, on the host's thread. Between two turns a guest is what a run is whose last M
blocks in the network: its P is idle, lastpoll is 0, and whoever puts work into the global queue
breaks the poller (S1). For the host that sleeps on the poller's descriptor that is the wake-up.
Go: schedule and findRunnable, runtime/proc.go (go1.27).

Q4: a turn ends as a sleep begins: the P is put on the idle list, lastpoll set to 0, and then every
    queue is looked at (S1, S3); `watched` is set, and then the poller's lists are looked at (P8).
    What is left makes the descriptor readable.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF

from gopoll._atomic cimport load_int, store_i64, store_int
from gopoll._netpoll cimport netpollrest
from gopoll._park cimport thread_words
from gopoll._timers cimport nanotime
from gopoll.runtime._exec cimport CHECK_TICKS, ExecBase
from gopoll.runtime._p cimport MBase, PBase


cdef extern from *:
    # Not by way of sys.set_asyncgen_hooks(): that would be three calls a turn.
    ctypedef struct PyThreadState:
        PyObject *async_gen_firstiter
        PyObject *async_gen_finalizer
    PyThreadState *PyThreadState_Get() noexcept


cdef int check(ExecBase sched, MBase m, str call) except -1:
    """RuntimeError on another thread than the guest's, and inside a turn. *call*: who asks."""
    if thread_words().owner != <PyObject *>sched:
        raise RuntimeError(f"a Guest belongs to the thread that made it: call {call} there")
    if m.p != NULL:
        raise RuntimeError("the guest is in a turn already: run_nowait() and close() are for the "
                           "host's loop, not for goroutines or callbacks of a turn")
    return 0


cdef int begin(ExecBase sched, MBase m) except -1:
    """Take the P, as an M does that comes back from the network. RuntimeError as check()."""
    check(sched, m, "run_nowait()")
    sched.refuse_fork()
    store_int(&sched.ps.watched, 2)          # P8
    store_i64(&sched.words.lastpoll, nanotime())
    sched.acquirep(m)
    return 0


cdef int end(ExecBase sched, MBase m) except -1:
    """Give the P up and see that the host is told of what is left (Q4)."""
    cdef PBase p = <PBase>m.p if m.p != NULL else None
    if sched.ps != sched.poller.ps:
        return 0                             # forked in this turn: all of it is the parent's (A9)
    m.p = NULL
    if p is not None:
        sched.pidleput(p)
    store_i64(&sched.words.lastpoll, 0)
    netpollrest(sched.ps, sched.work_anywhere())
    return 0


cdef int run(ExecBase sched, MBase m, int budget) except -1:
    """Poll the network and run up to *budget* slices: how many there were."""
    cdef int k, most, n = 0
    begin(sched, m)
    try:
        try:
            sched.poll(m)
            while n < budget and not load_int(&sched.words.finished):
                if n and n % CHECK_TICKS == 0:
                    sched.poll(m)
                if (<PBase>m.p).has_work():
                    sched.globq_get(m, 1)    # what yields must not starve what has waited
                most = CHECK_TICKS if budget - n > CHECK_TICKS else budget - n
                k = sched.execute(m, most)
                n += k
                if k < most:
                    break
        except BaseException as error:       # of a signal handler, or of our own
            sched.survive(error)
    finally:
        end(sched, m)
    return n


cdef int hooked(ExecBase sched, MBase m, int budget, object begins, object drops) except -1:
    """As run(), with hooks of the guest's own for async generators in place of the host's (A12)."""
    cdef PyThreadState *thread = PyThreadState_Get()
    cdef PyObject *first = thread.async_gen_firstiter
    cdef PyObject *last = thread.async_gen_finalizer
    Py_INCREF(begins)
    Py_INCREF(drops)
    thread.async_gen_firstiter = <PyObject *>begins
    thread.async_gen_finalizer = <PyObject *>drops
    try:
        return run(sched, m, budget)
    finally:
        first = swap(&thread.async_gen_firstiter, first)
        last = swap(&thread.async_gen_finalizer, last)
        Py_XDECREF(first)
        Py_XDECREF(last)


cdef PyObject *swap(PyObject **at, PyObject *value) noexcept:
    cdef PyObject *was = at[0]
    at[0] = value
    return was


def check_turn(ExecBase sched not None, MBase m not None, str call):
    """RuntimeError on another thread than the guest's, and inside a turn. *call*: who asks."""
    check(sched, m, call)


def begin_turn(ExecBase sched not None, MBase m not None):
    """Take the P for the first turn or the last. RuntimeError as check_turn."""
    begin(sched, m)


def end_turn(ExecBase sched not None, MBase m not None):
    """Give the P up and see that the host is told of what is left (Q4)."""
    end(sched, m)


def run_turn(ExecBase sched not None, MBase m not None, int budget, begins, drops):
    """Poll the network and run up to *budget* slices: how many there were.

    begins, drops: the hooks for async generators (A12).
    """
    return hooked(sched, m, budget, begins, drops)


cdef class Pump:
    """What a host calls when the guest's descriptor is readable: a turn, and no frame of Python's.

    On the host's thread. *looks* is called after it once the guest is ending.
    """

    cdef ExecBase sched
    cdef MBase m
    cdef int budget
    cdef object begins
    cdef object drops
    cdef object looks

    def __init__(self, ExecBase sched not None, MBase m not None, int budget, begins, drops, looks):
        self.sched = sched
        self.m = m
        self.budget = budget
        self.begins = begins
        self.drops = drops
        self.looks = looks

    def __call__(self):
        cdef ExecBase sched = self.sched
        if sched.is_closed:                  # it comes after unwatch()
            return
        hooked(sched, self.m, self.budget, self.begins, self.drops)
        if load_int(&sched.words.ending) or load_int(&sched.words.finished):
            self.looks()


def has_work(ExecBase sched not None):
    """Whether a goroutine can run now."""
    return sched.work_anywhere()
