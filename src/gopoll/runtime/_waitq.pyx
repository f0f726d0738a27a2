"""Queues of waiters: what channels, select, Mutex and their kin stand on. Park and ready, no more.

Used by _chan, _select and _sync, on any thread: goroutines of any scheduler, tasks of asyncio, and
plain threads through run_sync(). A waiter is a C node inside the operation that waits, so waiting
allocates nothing. Go: sudog and waitq, runtime/runtime2.go, runtime/chan.go (go1.27).

H1: a waiter is queued and leaves its queue under the queue's lock, once: who completes it, closes,
    or takes it back. What it gets is moved under the same lock. Who takes it out to wake it owns
    its word, its `next` and the queue's reference to the operation, and wakes it outside the lock.
    The operation may have gone on before that (a task of asyncio is thrown into at any time): it
    never queues a waiter again that somebody has taken out to wake.
H3: who parks looks once more under the lock, and queues itself under the same lock. Who makes
    something possible does so under the lock and looks at the queue. No wake-up is lost.
H4: what has been handed over has happened. An operation that is resumed with an exception after
    that returns its result: cancellation is a state and comes again at the next park, any other
    exception is left pending until then. A task of asyncio owes its CancelledError: the next
    operation that would wait raises it, before any scope that the task has entered since can end;
    so does, a turn of the loop later, what else it waits in. A lock is given on instead; so is what
    a channel has handed over where the exception does not come again (H11, see _chan).
H10: run() takes what it leaves behind asleep out of its queues before it returns, and gives on or
    back what that has been handed and can be (H6, H11). Nothing is handed to a goroutine whose run
    is over.
Lock order: a goroutine's plock < the lock of a queue (of several: by address) < Timers.lock.
"""

import functools
import sys

from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t

from gopoll._atomic cimport (futex_wait, futex_wake, gil_lock, gil_unlock, load_int,
                             store_int)
from gopoll._host cimport HostLink
from gopoll._park cimport (SLICE_END, Awaitable, ThreadWords, give, hosts_asyncio, never_awaited,
                           running_loop, slice_spent, thread_words)
from gopoll._timers cimport nanotime
from gopoll.runtime._g cimport GBase
from gopoll.runtime._sched cimport ready_g

from gopoll.errors import Canceled
from gopoll.runtime.report import check_when


cdef int init_op(WaitOp op, WaitQ *q, int *lock) noexcept:
    """Say in which queue *op* would wait, and what guards it."""
    op.node.q = q
    op.node.op = <PyObject *>op
    op.at = &op.node
    op.lock = lock
    return 0


cdef class WaitOp(Awaitable):
    """An operation that is done on the spot or waits in one queue. Awaited once."""

    # -- what a kind of operation says of itself

    cdef bint must_wait(self) noexcept:
        """Whether attempt() would not be done now. Under the lock: bounded C."""
        return False

    cdef int attempt(self, PyObject **out) except -1:
        """1: done, with the result as a new reference. 0: it would block."""
        raise NotImplementedError

    cdef int complete(self, PyObject **out) except -1:
        """Return 1 and the result of what has been taken out of its queue, or raise."""
        return give(None, out)

    cdef str name(self):
        raise NotImplementedError

    cdef str remedy(self):
        """What to do where there is no goroutine."""
        return ("run it in gopoll.run(...) or start it with gopoll.go(...), or attach gopoll to "
                "the loop that runs here (gopoll.embed)")

    cdef int drop(self) except -1:
        """It has been completed and nobody will ever know: undo what can be undone (H6, H11)."""
        return 0

    # -- awaiting

    cdef int step(self, PyObject **out) except -1:
        cdef int state
        if not self.seize():                 # K2
            self.refuse_twice()
        if self.phase == PARKED:
            state = self.at.state
            if state >= W_DONE:
                self.phase = ENDED
                return self.complete(out)
            if state == W_QUEUED:
                self.refuse_twice()
        elif self.phase == ENDED:
            self.refuse_twice()
        elif slice_spent():
            give(SLICE_END, out)
            return 0
        self.phase = ENDED
        if self.attempt(out):
            thread_words().spent += 1
            return 1
        return self.park(out)

    cdef int park(self, PyObject **out) except -1:
        """Yield: it would block. Whoever drives the coroutine commits its waiter (K1)."""
        cdef ThreadWords *tw = thread_words()
        if tw.current == NULL:
            if tw.host == NULL:
                return self.park_task(out)
            if owed and running_loop() is not None:      # H4; the host has parked us else (Q2)
                pay()
        elif tw.hosts == tw.current and hosts_asyncio():
            return self.park_task(out)
        self.phase = PARKED
        give(self, out)
        return 0

    cdef int park_task(self, PyObject **out) except -1:
        """As park() in a task of asyncio, for a future; 1 if it is done after all."""
        loop = running_loop()
        if loop is None:
            raise RuntimeError(f"{self.name()} would block outside a goroutine: {self.remedy()}")
        if owed:                             # H4; never on the way back of a Cond: turns later
            pay()
        while True:
            future = loop.create_future()
            future._asyncio_future_blocking = True       # as Future.__await__ does
            waiter = functools.partial(resume, loop, future)
            Py_INCREF(waiter)
            self.phase = PARKED
            if self.commit_word(<PyObject *>waiter):
                give(future, out)
                return 0
            Py_DECREF(waiter)
            self.phase = ENDED
            if self.attempt(out):
                return 1

    cdef int refuse_twice(self) except -1:
        raise RuntimeError(f"cannot await the same {self.name()} twice")

    cdef bint commit_word(self, PyObject *waiter) noexcept:
        Py_INCREF(self)                      # the queue's reference
        gil_lock(self.lock)
        if self.at.state == W_QUEUED or not self.must_wait():                        # H1, H3
            gil_unlock(self.lock)
            Py_DECREF(self)
            return False
        self.at.word = waiter
        enqueue(self.at)
        gil_unlock(self.lock)
        return True

    cdef int abort_word(self, PyObject *waiter) noexcept:
        cdef bint ours
        gil_lock(self.lock)
        ours = self.at.state == W_QUEUED and self.at.word == waiter
        if ours:
            unlink(self.at, W_OFF)           # H1
        gil_unlock(self.lock)
        if ours:
            Py_DECREF(self)                  # the queue's; the caller holds its own
        return ours

    # -- an exception that is thrown in at the await

    cdef bint take_back(self) noexcept:
        """End it: whether it had been done (H4). Whoever was to be woken is not woken any more."""
        cdef int phase = self.phase
        self.phase = ENDED
        if phase != PARKED:
            return False
        if self.abort_word(self.at.word):
            Py_DECREF(<object>self.at.word)  # thrown in without abort(): its reference is ours
        return self.at.state == W_DONE

    cdef object interrupted(self, exc):
        """End because of *exc*: return what to yield, or raise StopIteration or an exception."""
        cdef PyObject *out = NULL
        if not self.take_back():
            raise exc
        try:
            put_off(exc)                     # H4
        except BaseException:
            self.drop()                      # H11
            raise
        self.complete(&out)
        value = <object>out
        Py_DECREF(value)
        raise StopIteration(value)

    def throw(self, kind, value=None, traceback=None):
        """Take an exception that is thrown in at the await; if it is done already, return."""
        exc = kind
        if isinstance(kind, type):
            exc = kind() if value is None else value
            if not isinstance(exc, kind):
                exc = kind(value)
        return self.interrupted(exc)

    def close(self):
        """Give it up, as a coroutine that is closed does with what it awaits."""
        self.abandon()

    cdef int abandon(self) except -1:
        if self.take_back():
            self.drop()
        return 0

    cdef int forsake(self) except -1:
        self.abandon()                       # H10
        return 0

    cdef object refuse_task(self):
        return None

    cdef int warn_if_new(self) except -1:
        """Warn of an operation that nobody has awaited. From __dealloc__."""
        if self.phase == NEW:
            never_awaited(self.name(), None)
        return 0


cdef int put_off(exc) except -1:
    """Leave *exc* for the next park; raise it if there is none whose park that could be."""
    cdef ThreadWords *tw = thread_words()
    if tw.current == NULL or (tw.hosts == tw.current and hosts_asyncio()):
        return put_off_task(exc)
    if not isinstance(exc, Canceled):        # which is a state (G1)
        (<GBase>tw.current).set_pending(exc)
    return 0


# -- waking ----------------------------------------------------------------------------------------

cdef void wake(Waiter *w) noexcept:
    """Wake who has been taken out of a queue. Outside every lock; any attached thread (H1)."""
    cdef PyObject *op = w.op
    waiter = <object>w.word
    Py_DECREF(waiter)
    Py_DECREF(<object>op)                    # the queue's
    if isinstance(waiter, GBase):
        ready_g(<GBase>waiter)
    elif isinstance(waiter, Sleeper):
        store_int(&(<Sleeper>waiter).word, 1)
        futex_wake(&(<Sleeper>waiter).word, 1)
    else:
        waiter()


cdef void drain(WaitQ *q, int state, WaitQ *chain) noexcept nogil:
    """Take out every waiter and append it to *chain*, for wake_all(). Under the lock."""
    while move(q, state, chain):
        pass


cdef void wake_all(Waiter *w) noexcept:
    """Wake a chain of waiters."""
    cdef Waiter *rest
    while w != NULL:
        rest = w.next                        # w may be gone once it is awake
        wake(w)
        w = rest


cdef class Done(Awaitable):
    """Done already: what a method that has nothing to wait for returns to `async with`."""

    cdef int step(self, PyObject **out) except -1:
        return give(None, out)


DONE = Done()


# -- tasks of asyncio ------------------------------------------------------------------------------

cdef enum:
    TURNS = 16                 # so often may a signal handler raise in one wake-up


def resume(loop, future):
    """Complete *future* of *loop*, from any thread: the waiter of a task."""
    error = None
    for _ in range(TURNS):
        try:
            loop.call_soon_threadsafe(complete_future, future)
            break
        except RuntimeError:                 # closed: nobody waits there any more
            break
        except BaseException as err:         # of a signal handler: the wake-up must not be lost
            error = err
    if error is not None:
        raise error


def complete_future(future):
    if not future.done():
        future.set_result(None)


# Tasks and the CancelledErrors that they have yet to raise; each for a turn of its loop (H4).
owed = {}


cdef int put_off_task(exc) except -1:
    """As put_off() in a task of asyncio, or of another host."""
    cdef ThreadWords *tw = thread_words()
    if tw.current == NULL and tw.host != NULL and (<HostLink>tw.host).comes_again(exc):
        return 0                             # at the next await
    loop = running_loop()
    asyncio = sys.modules.get("asyncio")
    task = None if loop is None else asyncio.current_task(loop)
    if task is None or not isinstance(exc, asyncio.CancelledError):
        raise exc
    owed[task] = exc
    loop.call_soon(cancel_again, task)
    return 0


cdef int pay() except -1:
    """Raise what the running task owes, unless whoever cancelled it has taken that back (H4)."""
    task = sys.modules["asyncio"].current_task()
    exc = owed.pop(task, None)
    if exc is not None and task.cancelling():
        raise exc
    return 0


def cancel_again(task):
    """Cancel *task* where it waits now, if it still owes that (H4)."""
    exc = owed.pop(task, None)
    if exc is not None:
        cancel_where_it_waits(task, exc.args[:1])


def cancel_where_it_waits(task, message):
    """Cancel *task* unless whoever cancelled it has taken that back.

    It may wait in a timeout scope of its own that it has entered since, which counts that
    cancellation among those that were there before. If it expires in this very turn of the loop, it
    would take the CancelledError for its own alone.
    """
    count = task.cancelling()
    if task.done() or not count:
        return
    task.get_loop().call_soon(look_for_others, task, message, count)     # before the task wakes
    task.uncancel()
    task.cancel(*message)


def look_for_others(task, message, count):
    """If somebody else has cancelled *task* too, once more: that no scope has counted before.

    Whatever it awaits on its way out of such a scope, that then lets the CancelledError through.
    """
    if task.cancelling() > count:
        task.get_loop().call_soon(look_who_is_left, task, count)
        task.cancel(*message)


def look_who_is_left(task, count):
    """Take the one too many back if the others have taken back theirs and *task* goes on: for a
    scope further out, which has cancelled it in the first place."""
    if not task.done() and task.cancelling() == count + 1:
        task.uncancel()


# -- plain threads ---------------------------------------------------------------------------------

cdef class Sleeper:
    """The waiter of a plain thread: a futex word."""
    cdef int word


cdef object run_sync(WaitOp op, timeout):
    """Run *op* on a plain thread, which sleeps at most *timeout* seconds (None: for ever)."""
    cdef PyObject *out = NULL
    cdef Sleeper bed
    cdef int64_t end_ns = 0
    op.phase = ENDED
    if timeout is not None:
        check_when("timeout", timeout)
        end_ns = nanotime() + <int64_t>(min(max(float(timeout), 0.0), 4e9) * 1e9)
    if thread_words().owner != NULL:
        raise RuntimeError("recv_sync() and send_sync() would block the goroutines: await recv() "
                           "or send() instead")
    while not op.attempt(&out):
        bed = Sleeper()
        Py_INCREF(bed)
        if not op.commit_word(<PyObject *>bed):
            Py_DECREF(bed)
            continue
        if sleep_in(bed, op, end_ns):
            op.complete(&out)
            break
        # Taken back: nothing can be lost by what a signal handler raises.
        PyErr_CheckSignals()
        if end_ns and nanotime() >= end_ns:
            raise TimeoutError(f"{op.name()} is not done after {timeout} s")
    value = <object>out
    Py_DECREF(value)
    return value


cdef bint sleep_in(Sleeper bed, WaitOp op, int64_t end_ns) except -1:
    """Sleep until *op* is done, and not over a signal. If it is not done, it is taken back."""
    cdef int64_t left = -1
    with nogil:
        if end_ns:
            left = end_ns - nanotime()
            if left < 0:
                left = 0
        if load_int(&bed.word) == 0:
            futex_wait(&bed.word, 0, left)
    if load_int(&bed.word) or op.abort_word(<PyObject *>bed) == 0:
        return True
    Py_DECREF(bed)                           # the waiter's reference, given back
    return False
