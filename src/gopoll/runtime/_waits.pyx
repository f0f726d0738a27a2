"""The waits that belong to the scheduler: yield, sleep, join.

Awaited by goroutines, on the scheduler's thread. Go: Gosched, timeSleep; join has no twin there.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t

from gopoll._park cimport Awaitable
from gopoll._pollserver cimport netpollwake
from gopoll._timers cimport (TIMER_WAITER, nanotime, timer_arm, timer_init,
                             timer_stop)
from gopoll.runtime._p cimport GOSCHED, GBase, SchedBase


cdef class Gosched(Awaitable):
    """Yield once. Go: Gosched."""

    cdef int step(self, PyObject **out) except -1:
        if self.yielded:
            Py_INCREF(None)
            out[0] = <PyObject *>None
            return 1
        self.yielded = True
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
        if self.node.pos >= 0:
            raise RuntimeError("cannot await a sleep twice")
        value = <object>None if due else self
        Py_INCREF(value)
        out[0] = <PyObject *>value
        return due

    def __dealloc__(self):
        if self.sched is not None and timer_stop(&self.sched.ps.timers, &self.node):
            Py_DECREF(<object><PyObject *>self.node.arg)


cdef class Join(Awaitable):
    """Park until a goroutine has ended; then its result or its error."""

    def __init__(self, GBase g not None):
        self.g = g
        g.awaited = True

    cdef bint commit_word(self, PyObject *waiter) noexcept:
        cdef GBase g = self.g
        if not g.add_joiner(<object>waiter):
            return False
        Py_DECREF(<object>waiter)            # the list holds its own
        return True

    cdef int abort_word(self, PyObject *waiter) noexcept:
        cdef GBase g = self.g
        with cython.critical_section(g):
            if g.done:
                return 0
            left = [j for j in g.joiners if j is not <object>waiter]
            if len(left) == len(g.joiners):
                return 0
            g.joiners = left
        Py_INCREF(<object>waiter)
        return 1

    cdef int step(self, PyObject **out) except -1:
        if not self.g.done:
            Py_INCREF(self)
            out[0] = <PyObject *>self
            return 0
        if self.g.error is not None:
            raise self.g.error
        value = self.g.result
        Py_INCREF(value)
        out[0] = <PyObject *>value
        return 1
