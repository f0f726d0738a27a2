"""The waits that belong to the scheduler: yield and sleep.

Awaited by goroutines, on the scheduler's thread. Go: Gosched, timeSleep.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uintptr_t

from gopoll._atomic cimport load_word, peek_int, poke_int, store_word
from gopoll._park cimport Awaitable, ThreadWords, give, never_awaited, thread_words
from gopoll._pollserver cimport netpollwake, pollserver_forked
from gopoll._timers cimport (TIMER_WAITER, nanotime, timer_arm, timer_init,
                             timer_stop)
from gopoll.runtime._exec cimport GOSCHED
from gopoll.runtime._sched cimport SchedBase


cdef class Gosched(Awaitable):
    """Yield once. Go: Gosched."""

    cdef int step(self, PyObject **out) except -1:
        cdef ThreadWords *tw = thread_words()
        poke_int(&self.tried, True)
        if tw.current == NULL and tw.host == NULL:
            raise RuntimeError("gosched() outside a goroutine: await it inside gopoll.run(...), "
                               "and asyncio.sleep(0) in a task of asyncio")
        if not self.seize() or self.steps > 1:                               # K2
            raise RuntimeError("cannot await the same gosched() twice")
        self.steps += 1
        if self.steps == 2:
            return give(None, out)
        give(GOSCHED, out)
        return 0

    def close(self):
        """Give it up, as a coroutine that is closed does with what it awaits."""
        poke_int(&self.tried, True)

    def __dealloc__(self):
        if not peek_int(&self.tried):
            never_awaited("gosched() or sleep(0)", None)


cdef class Sleep(Awaitable):
    """Park for so long, from the await on. The node lives here: the awaiting coroutine keeps it."""

    def __init__(self, SchedBase sched not None, int64_t ns):
        self.sched = sched
        self.ns = ns
        timer_init(&self.node, TIMER_WAITER, NULL)

    cdef bint commit_word(self, PyObject *waiter) noexcept:
        cdef int rc
        if self.when == 0 or self.node.pos >= 0:
            return False                     # not announced, or another's
        store_word(<uintptr_t *>&self.node.arg, <uintptr_t>waiter)
        rc = timer_arm(&self.sched.ps.timers, &self.node, self.when, 0)
        if rc > 0:
            netpollwake(self.sched.ps)       # P5; only another thread can be asleep in it
        return rc >= 0

    cdef int abort_word(self, PyObject *waiter) noexcept:
        if load_word(<uintptr_t *>&self.node.arg) != <uintptr_t>waiter:
            return 0
        return timer_stop(&self.sched.ps.timers, &self.node)

    cdef int step(self, PyObject **out) except -1:
        cdef bint due
        poke_int(&self.tried, True)
        if thread_words().owner != <PyObject *>self.sched:
            raise RuntimeError("a sleep belongs to the scheduler it was made on: await it there")
        if not self.seize() or self.over or self.node.pos >= 0:              # K2
            raise RuntimeError("cannot await the same sleep() twice")
        if self.when == 0:                   # it parks, however short: others have their turn
            self.when = nanotime() + self.ns
            due = False
        else:
            due = nanotime() >= self.when
        self.over = due
        value = <object>None if due else self
        Py_INCREF(value)
        out[0] = <PyObject *>value
        return due

    def close(self):
        """Give it up, as a coroutine that is closed does with what it awaits."""
        poke_int(&self.tried, True)

    def __dealloc__(self):
        if not peek_int(&self.tried) and self.sched is not None:
            never_awaited("sleep()", None)
        if self.over or self.sched is None or pollserver_forked(self.sched.ps):              # A9
            return
        if timer_stop(&self.sched.ps.timers, &self.node):
            Py_DECREF(<object><PyObject *>self.node.arg)
