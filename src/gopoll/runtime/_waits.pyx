"""The waits that belong to the scheduler: yield and sleep.

Awaited by goroutines, on the scheduler's thread. Go: Gosched, timeSleep.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t

from gopoll._park cimport Awaitable, ThreadWords, thread_words
from gopoll._pollserver cimport netpollwake, pollserver_forked
from gopoll._timers cimport (TIMER_WAITER, nanotime, timer_arm, timer_init,
                             timer_stop)
from gopoll.runtime._exec cimport GOSCHED
from gopoll.runtime._sched cimport SchedBase


cdef class Gosched(Awaitable):
    """Yield once. Go: Gosched."""

    cdef int step(self, PyObject **out) except -1:
        cdef ThreadWords *tw = thread_words()
        if tw.current == NULL and tw.host == NULL:
            raise RuntimeError("gosched() outside a goroutine: await it inside gopoll.run(...), "
                               "and asyncio.sleep(0) in a task of asyncio")
        if not self.seize() or self.steps > 1:                               # K2
            raise RuntimeError("cannot await the same gosched() twice")
        self.steps += 1
        if self.steps == 2:
            Py_INCREF(None)
            out[0] = <PyObject *>None
            return 1
        Py_INCREF(GOSCHED)
        out[0] = <PyObject *>GOSCHED
        return 0


cdef class Sleep(Awaitable):
    """Park until a moment. The node lives here: the awaiting coroutine keeps it."""

    def __init__(self, SchedBase sched not None, int64_t ns):
        self.sched = sched
        self.when = nanotime() + ns
        timer_init(&self.node, TIMER_WAITER, NULL)

    cdef bint commit_word(self, PyObject *waiter) noexcept:
        cdef int rc
        self.node.arg = waiter
        rc = timer_arm(&self.sched.ps.timers, &self.node, self.when, 0)
        if rc > 0:
            netpollwake(self.sched.ps)       # P5; only another thread can be asleep in it
        return rc >= 0

    cdef int abort_word(self, PyObject *waiter) noexcept:
        return timer_stop(&self.sched.ps.timers, &self.node)

    cdef int step(self, PyObject **out) except -1:
        cdef bint due = nanotime() >= self.when
        if thread_words().owner != <PyObject *>self.sched:
            raise RuntimeError("a sleep belongs to the scheduler it was made on: await it there")
        if self.over or not self.seize() or self.node.pos >= 0:              # K2
            raise RuntimeError("cannot await the same sleep() twice")
        self.over = due
        value = <object>None if due else self
        Py_INCREF(value)
        out[0] = <PyObject *>value
        return due

    def __dealloc__(self):
        if self.over or self.sched is None or pollserver_forked(self.sched.ps):              # A9
            return
        if timer_stop(&self.sched.ps.timers, &self.node):
            Py_DECREF(<object><PyObject *>self.node.arg)
