"""Mutex, RWMutex, Cond and WaitGroup's counter: locks for goroutines, which park and do not block.

Awaited by goroutines; what does not wait may be called on any thread. Go: sync/mutex.go,
rwmutex.go, cond.go, waitgroup.go (go1.27).

H1, H3, H4: see _waitq.
H6: a lock that is given up is handed to who has waited longest: it is never free beside a waiter
    of its own. Go lets the woken one race for it. A goroutine that is cancelled after the
    hand-over gives it on.
H7: a reader of an RWMutex waits only while a writer holds it or waits. A writer that is taken back
    lets the readers behind it in when its goroutine is resumed, not where it is taken back: that
    happens under a lock of ours.
H8: whoever leaves Cond.wait() holds the mutex, with a result or an exception: the way back cannot
    be aborted. A signal is used up only by a wait that returns: one that raises gives it on.
"""

cimport cython
from cpython.number cimport PyNumber_Index
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.stdint cimport int64_t

from gopoll._atomic cimport gil_lock, gil_unlock
from gopoll._park cimport give
from gopoll.runtime._waitq cimport (DONE, ENDED, PARKED, W_DONE, Waiter, WaitOp, WaitQ,
                                    dequeue, drain, init_op, move, wake, wake_all)

from gopoll.errors import Canceled


# -- Mutex -----------------------------------------------------------------------------------------

cdef class Mutex:
    """A lock for goroutines: `async with mutex:`. First come, first served. Go: sync.Mutex."""

    def lock(self):
        """Lock it, waiting for it if it is held. An op."""
        cdef LockOp op = LockOp.__new__(LockOp)
        op.mutex = self
        init_op(op, &self.q, &self.lock_)
        return op

    def try_lock(self):
        """Lock it if it is free: whether it was. Any thread."""
        return self.try_now()

    cdef bint try_now(self) noexcept:
        cdef bint free
        gil_lock(&self.lock_)
        free = not self.held
        if free:
            self.held = True                 # who holds it looks without the lock
        gil_unlock(&self.lock_)
        return free

    cdef bint unlock_now(self) noexcept:
        """Hand it to who has waited longest, or set it free (H6); False if it was free."""
        cdef Waiter *w
        gil_lock(&self.lock_)
        if not self.held:
            gil_unlock(&self.lock_)
            return False
        w = dequeue(&self.q, W_DONE)
        self.held = w != NULL
        gil_unlock(&self.lock_)
        if w != NULL:
            wake(w)
        return True

    def unlock(self):
        """Unlock it. RuntimeError if it is not locked. Any goroutine, any thread."""
        if not self.unlock_now():
            raise RuntimeError("unlock of unlocked mutex")

    def __aenter__(self):
        return self.lock()

    def __aexit__(self, *exc):
        self.unlock()
        return DONE

    def __repr__(self):
        return f"<{type(self).__name__} {'locked' if self.held else 'unlocked'}>"


@cython.final
@cython.no_gc
cdef class LockOp(WaitOp):
    """What Mutex.lock() returns."""

    wait_reason = "lock"

    cdef str name(self):
        return "Mutex.lock()"

    cdef bint must_wait(self) noexcept:
        return self.mutex.held

    cdef int attempt(self, PyObject **out) except -1:
        if not self.mutex.try_now():
            return 0
        return give(None, out)

    cdef object interrupted(self, exc):
        if self.take_back():
            self.drop()
        raise exc

    cdef int drop(self) except -1:
        self.mutex.unlock_now()              # H6: handed over, and given on
        return 0

    def __dealloc__(self):
        self.warn_if_new()
        self.abandon()


# -- RWMutex ---------------------------------------------------------------------------------------

cdef class RWMutex:
    """A lock that one writer or many readers hold. A writer that waits keeps new readers out.

    `async with mutex:` writes, `async with mutex.reading():` reads. Go: sync.RWMutex.
    """

    def lock(self):
        """Lock it for writing. An op."""
        return rwop(self, True)

    def rlock(self):
        """Lock it for reading. An op."""
        return rwop(self, False)

    def try_lock(self):
        """Lock it for writing if that need not wait: whether it did. Any thread."""
        cdef bint free
        gil_lock(&self.lock_)
        free = not self.writing and self.readers == 0 and self.writeq.first == NULL
        if free:
            self.writing = True
        gil_unlock(&self.lock_)
        return free

    def try_rlock(self):
        """Lock it for reading if that need not wait: whether it did. Any thread."""
        cdef bint free
        gil_lock(&self.lock_)
        free = not self.writing and self.writeq.first == NULL
        if free:
            self.readers += 1
        gil_unlock(&self.lock_)
        return free

    cdef void admit(self, WaitQ *woken, bint readers_first) noexcept:
        """Let in who may come in now; they go to *woken*. Under the lock.

        After a writer all readers that wait, then the next writer: neither side starves.
        """
        if self.writing:
            return
        if readers_first or self.writeq.first == NULL:
            while move(&self.readq, W_DONE, woken):
                self.readers += 1
        if self.readers == 0:
            self.writing = move(&self.writeq, W_DONE, woken)

    cdef int let_in(self) noexcept:
        """A writer that waited is gone (H7)."""
        cdef WaitQ woken = [NULL, NULL]
        gil_lock(&self.lock_)
        self.admit(&woken, False)
        gil_unlock(&self.lock_)
        wake_all(woken.first)
        return 0

    def unlock(self):
        """Give up writing. RuntimeError if nobody writes. Any goroutine, any thread."""
        cdef WaitQ woken = [NULL, NULL]
        gil_lock(&self.lock_)
        if not self.writing:
            gil_unlock(&self.lock_)
            raise RuntimeError("unlock of unlocked RWMutex")
        self.writing = False
        self.admit(&woken, True)
        gil_unlock(&self.lock_)
        wake_all(woken.first)

    def runlock(self):
        """Give up reading. RuntimeError if nobody reads. Any goroutine, any thread."""
        cdef WaitQ woken = [NULL, NULL]
        gil_lock(&self.lock_)
        if self.readers == 0:
            gil_unlock(&self.lock_)
            raise RuntimeError("runlock of unlocked RWMutex")
        self.readers -= 1
        self.admit(&woken, False)
        gil_unlock(&self.lock_)
        wake_all(woken.first)

    def reading(self):
        """Return what `async with` locks for reading. It may be used again."""
        return Reading(self)

    def __aenter__(self):
        return self.lock()

    def __aexit__(self, *exc):
        self.unlock()
        return DONE

    def __repr__(self):
        state = "locked" if self.writing else f"{self.readers} readers"
        return f"<{type(self).__name__} {state}>"


@cython.final
cdef class Reading:
    """What RWMutex.reading() returns."""

    def __cinit__(self, RWMutex mutex not None):
        self.mutex = mutex

    def __aenter__(self):
        return self.mutex.rlock()

    def __aexit__(self, *exc):
        self.mutex.runlock()
        return DONE


cdef RWOp rwop(RWMutex m, bint writes):
    cdef RWOp op = RWOp.__new__(RWOp)
    op.mutex = m
    op.writes = writes
    init_op(op, &m.writeq if writes else &m.readq, &m.lock_)
    return op


@cython.final
@cython.no_gc
cdef class RWOp(WaitOp):
    """What RWMutex.lock() and RWMutex.rlock() return."""

    @property
    def wait_reason(self):
        """As Goroutine.wait_reason."""
        return "lock" if self.writes else "rlock"

    cdef str name(self):
        return "RWMutex.lock()" if self.writes else "RWMutex.rlock()"

    cdef bint must_wait(self) noexcept:
        if self.mutex.writing or self.mutex.writeq.first != NULL:
            return True
        return self.writes and self.mutex.readers != 0

    cdef int attempt(self, PyObject **out) except -1:
        if not (self.mutex.try_lock() if self.writes else self.mutex.try_rlock()):
            return 0
        return give(None, out)

    cdef object interrupted(self, exc):
        self.abandon()
        raise exc

    cdef int drop(self) except -1:
        if self.writes:                      # H6
            self.mutex.unlock()
        else:
            self.mutex.runlock()
        return 0

    cdef int abandon(self) except -1:
        cdef bint waited = self.phase == PARKED and self.writes
        if self.take_back():
            self.drop()
        elif waited:
            self.mutex.let_in()              # H7
        return 0

    def __dealloc__(self):
        self.warn_if_new()
        self.abandon()


# -- Cond ------------------------------------------------------------------------------------------

cdef class Cond:
    """A condition under *mutex*: wait for it with the mutex locked, in a loop. Go: sync.Cond."""

    def __init__(self, Mutex mutex not None):
        if self.mutex is not None:
            raise RuntimeError("a Cond is made once")
        self.mutex = mutex

    def wait(self):
        """Unlock the mutex, wait for signal() or broadcast(), lock the mutex again. An op.

        RuntimeError if the mutex is not locked. It is locked after a cancellation too.
        """
        cdef CondOp op = CondOp.__new__(CondOp)
        if self.mutex is None:
            raise RuntimeError("Cond needs a Mutex")
        op.cond = self
        init_op(op, &self.q, &self.lock_)
        return op

    def signal(self):
        """Wake who has waited longest, if anybody waits. Any thread; locked or not."""
        cdef Waiter *w
        gil_lock(&self.lock_)
        w = dequeue(&self.q, W_DONE)
        gil_unlock(&self.lock_)
        if w != NULL:
            wake(w)

    def broadcast(self):
        """Wake all who wait. Any thread; locked or not."""
        cdef WaitQ woken = [NULL, NULL]
        gil_lock(&self.lock_)
        drain(&self.q, W_DONE, &woken)
        gil_unlock(&self.lock_)
        wake_all(woken.first)


@cython.final
@cython.no_gc
cdef class CondOp(WaitOp):
    """What Cond.wait() returns. It waits for the cond, then for the mutex, with a waiter for each.

    Whoever has taken out the first may still have to wake it while the second is queued (H1).
    """

    wait_reason = "cond"

    cdef str name(self):
        return "Cond.wait()"

    cdef bint must_wait(self) noexcept:
        return self.cond.mutex.held if self.relocks else True

    cdef int attempt(self, PyObject **out) except -1:
        if self.begun and not self.relocks:
            self.relock()                    # woken for nothing: as if by a signal
        if not self.relocks:
            if not self.cond.mutex.held:
                raise RuntimeError("Cond.wait() with the mutex unlocked")
            return 0
        if not self.cond.mutex.try_lock():
            return 0
        return self.finish(out)

    cdef int finish(self, PyObject **out) except -1:
        """The mutex is ours: return or raise."""
        error = self.error
        if error is not None:
            self.error = None
            raise error
        return give(None, out)

    cdef bint commit_word(self, PyObject *waiter) noexcept:
        cdef Mutex mutex = self.cond.mutex   # once it is queued, self is not ours to touch (K1)
        cdef bint first = not self.begun
        self.begun = True
        if not WaitOp.commit_word(self, waiter):
            return False
        if first:
            mutex.unlock_now()
        return True

    cdef int abort_word(self, PyObject *waiter) noexcept:
        if self.relocks:
            return 0                         # H8
        return WaitOp.abort_word(self, waiter)

    cdef int relock(self) noexcept:
        """From now on it wants the mutex, with its other waiter (H1)."""
        self.relocks = True
        self.back.q = &self.cond.mutex.q
        self.back.op = <PyObject *>self
        self.at = &self.back
        self.lock = &self.cond.mutex.lock_
        return 0

    cdef int complete(self, PyObject **out) except -1:
        if self.relocks:
            return self.finish(out)
        self.signalled = True
        self.relock()
        if self.attempt(out):
            return 1
        return self.park(out)

    cdef bint leave(self) noexcept:
        """Leave the queue it stands in, if it does; whether it has been handed the mutex."""
        cdef bint taken
        if WaitOp.abort_word(self, self.at.word):
            Py_DECREF(<object>self.at.word)
        taken = self.at.state == W_DONE
        if self.relocks:
            return taken
        self.signalled = taken
        return False

    cdef int give_on(self) noexcept:
        """The wait will not return: if a signal has come, it is another's (H8)."""
        if self.signalled:
            self.signalled = False
            self.cond.signal()
        return 0

    cdef object interrupted(self, exc):
        """Raise *exc* once the mutex is ours; where it is not yet, yield to wait for it (H8)."""
        cdef PyObject *out = NULL
        cdef bint ours, again = isinstance(exc, Canceled)
        if self.phase != PARKED or not self.begun:
            self.phase = ENDED               # the mutex is still locked
            raise exc
        ours = self.leave()
        if not self.relocks:
            self.relock()
        if not again or (self.error is None and not self.signalled):         # H4: it comes again
            self.error = exc
            self.give_on()
        self.phase = ENDED
        if ours or self.cond.mutex.try_lock():
            self.finish(&out)
            raise StopIteration(None)
        if self.park(&out):                  # done after all
            raise StopIteration(None)
        parked = <object>out
        Py_DECREF(parked)
        return parked

    cdef int abandon(self) except -1:
        cdef int phase = self.phase
        self.phase = ENDED
        if phase == PARKED and self.begun:
            if self.leave():
                self.cond.mutex.unlock_now()                 # H6
            self.give_on()
        return 0

    def __dealloc__(self):
        self.warn_if_new()
        self.abandon()


# -- WaitGroup -------------------------------------------------------------------------------------

cdef class WaitCounter:
    """The counter of a WaitGroup."""

    def add(self, n=1):
        """Add *n*, which may be negative. RuntimeError if that makes it negative. Any thread."""
        cdef int64_t delta = PyNumber_Index(n)   # as an argument in C a float would be cut short
        cdef WaitQ woken = [NULL, NULL]
        cdef bint fits
        gil_lock(&self.lock_)
        fits = self.count + delta >= 0
        if fits:
            self.count += delta
            if self.count == 0:
                drain(&self.q, W_DONE, &woken)
        gil_unlock(&self.lock_)
        if not fits:
            raise RuntimeError("negative WaitGroup counter")
        wake_all(woken.first)

    def done(self):
        """Take one off. Any thread."""
        self.add(-1)

    def wait(self):
        """Wait until the counter is zero. An op."""
        cdef CounterOp op = CounterOp.__new__(CounterOp)
        op.group = self
        init_op(op, &self.q, &self.lock_)
        return op

    def __repr__(self):
        return f"<{type(self).__name__} {self.count}>"


@cython.final
@cython.no_gc
cdef class CounterOp(WaitOp):
    """What WaitGroup.wait() returns."""

    wait_reason = "waitgroup"

    cdef str name(self):
        return "WaitGroup.wait()"

    cdef bint must_wait(self) noexcept:
        return self.group.count != 0

    cdef int attempt(self, PyObject **out) except -1:
        cdef bint waits
        gil_lock(&self.group.lock_)
        waits = self.group.count != 0
        gil_unlock(&self.group.lock_)
        if waits:
            return 0
        return give(None, out)

    cdef object interrupted(self, exc):
        self.take_back()                     # nothing is handed over that could be lost
        raise exc

    def __dealloc__(self):
        self.warn_if_new()
        self.abandon()
