"""select: wait for the first of several channels. One waiter in every queue, one of them wins.

Used by goroutines; what need not wait works on any thread. Go: runtime/select.go (go1.27).

H1, H3, H4: see _waitq. All channels are locked, in the order of their addresses, from the look at
    them to the last enqueue, so nobody can meet a select that is half-way in.
H2: the waiters of one select share a claim. Only who swaps it from WAITING completes one of them,
    takes the select back, or ends it at its timeout. A waiter whose claim is taken is dead: who
    meets it unlinks it, and the select unlinks what is left before it returns, so nobody sees its
    memory after that.
H9: the timer is armed, the waiters are queued and the claim is opened under the locks, and the
    timeout takes them too: one that comes at once is not missed. Without a channel the select has
    a lock of its own.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from libc.stdint cimport int64_t, uint32_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc, qsort

from gopoll._atomic cimport cas_int, gil_lock, gil_unlock, load_int, store_int
from gopoll._park cimport SLICE_END, give, running_loop, slice_spent, thread_words
from gopoll._pollerbase cimport seconds_of
from gopoll._pollserver cimport netpollwake
from gopoll._timers cimport TIMER_WAITER, nanotime, timer_arm, timer_init, timer_stop
from gopoll.runtime._chan cimport (CHAN_BLOCKED, CHAN_CLOSED, Case, chanrecv, chansend)
from gopoll.runtime._sched cimport SchedBase
from gopoll.runtime._waitq cimport (C_BACK, C_IDLE, C_TAKEN, C_TIMEOUT, C_WAITING, ENDED, NEW,
                                    PARKED, W_CLOSED, W_DONE, W_OFF, W_QUEUED, Waiter, WaitOp,
                                    WaitQ, enqueue, unlink, wake)

from gopoll.errors import ChanClosed


cdef extern from *:
    """
    #include <stdint.h>
    static __thread uint64_t gopoll_seed;
    static uint32_t gopoll_cheaprand(int64_t salt) {      /* splitmix64 */
      uint64_t z = gopoll_seed ? gopoll_seed : (uint64_t)(uintptr_t)&gopoll_seed ^ (uint64_t)salt;
      gopoll_seed = z += 0x9E3779B97F4A7C15u;
      z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
      z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
      return (uint32_t)((z ^ (z >> 31)) >> 32);
    }
    """
    uint32_t gopoll_cheaprand(int64_t salt) noexcept nogil


cdef int by_address(const void *a, const void *b) noexcept nogil:
    cdef uintptr_t x = (<uintptr_t *>a)[0]
    cdef uintptr_t y = (<uintptr_t *>b)[0]
    return (x > y) - (x < y)


cdef WaitQ *live(WaitQ *q) noexcept nogil:
    """Unlink the dead waiters at the head of *q*; NULL if nobody is left. Under the lock (H2)."""
    cdef Waiter *w = q.first
    while w != NULL and w.claim != NULL and load_int(w.claim) != C_WAITING:
        unlink(w, W_OFF)
        w = q.first
    return NULL if w == NULL else q


@cython.final
@cython.no_gc
cdef class SelectOp(WaitOp):
    """What select() returns."""

    wait_reason = "select"

    def __cinit__(self, tuple cases, bint default, int64_t timeout_ns):
        cdef Py_ssize_t i
        cdef Arm *arm
        cdef Case case
        self.cases = cases
        self.default = default
        self.timeout_ns = timeout_ns
        self.node.op = <PyObject *>self
        self.arms = <Arm *>calloc(len(cases) + 1, sizeof(Arm))
        if self.arms == NULL:
            raise MemoryError
        self.n = <int>len(cases)
        for i in range(len(cases)):
            if cases[i] is None:
                continue
            if not isinstance(cases[i], Case):
                raise TypeError(f"case {i} of select() is a {type(cases[i]).__name__}; cases are "
                                "chan.recv_case(), chan.send_case(value) or None")
            case = <Case>cases[i]
            arm = &self.arms[i]
            arm.chan = &case.chan.h
            arm.sends = case.sends
            arm.w.q = &case.chan.h.sendq if case.sends else &case.chan.h.recvq
            arm.w.op = <PyObject *>self
            arm.w.claim = &self.claim
            if case.sends:
                Py_INCREF(case.value)
                arm.w.value = <PyObject *>case.value
        self.sort_locks()

    cdef int sort_locks(self) except -1:
        cdef int i, k = 0
        self.locks = <int **>malloc((self.n + 1) * sizeof(int *))
        if self.locks == NULL:
            raise MemoryError
        for i in range(self.n):
            if self.arms[i].chan != NULL:
                self.locks[k] = &self.arms[i].chan.lock
                k += 1
        qsort(self.locks, k, sizeof(int *), by_address)
        for i in range(k):
            if i == 0 or self.locks[i] != self.locks[self.nlocks - 1]:
                self.locks[self.nlocks] = self.locks[i]
                self.nlocks += 1
        if k == 0:
            self.locks[0] = &self.own
            self.nlocks = 1
        return 0

    cdef str name(self):
        return "select()"

    cdef void lock_all(self) noexcept:
        cdef int i
        for i in range(self.nlocks):
            gil_lock(self.locks[i])

    cdef void unlock_all(self) noexcept:
        """Unlock, the first at last: who locks all waits for that one, and we touch no more."""
        cdef int i
        for i in range(self.nlocks):
            gil_unlock(self.locks[self.nlocks - 1 - i])

    cdef bint is_ready(self, Arm *arm) noexcept nogil:
        if arm.chan == NULL:
            return False
        if arm.chan.closed:
            return True
        if arm.sends:
            return (arm.chan.count < arm.chan.capacity
                    or live(&arm.chan.recvq) != NULL)
        return arm.chan.count != 0 or live(&arm.chan.sendq) != NULL

    cdef bint must_wait(self) noexcept:
        cdef int i
        for i in range(self.n):
            if self.is_ready(&self.arms[i]):
                return False
        return True

    cdef int pick(self, PyObject **value, Waiter **woken, bint *closed) noexcept nogil:
        """Do one of the cases that are ready, each as likely as the others; its index, or -1.

        Under all locks.
        """
        cdef int i, rc, found, chosen
        cdef Arm *arm
        while True:
            found = 0
            chosen = -1
            for i in range(self.n):
                if self.is_ready(&self.arms[i]):
                    found += 1
                    if gopoll_cheaprand(self.end_ns) % <uint32_t>found == 0:
                        chosen = i
            if chosen < 0:
                return -1
            arm = &self.arms[chosen]
            if arm.sends:
                rc = chansend(arm.chan, arm.w.value, woken)
                if rc != CHAN_BLOCKED and rc != CHAN_CLOSED:
                    arm.w.value = NULL
            else:
                rc = chanrecv(arm.chan, value, woken)
            if rc != CHAN_BLOCKED:           # else its partner has just been taken back: again
                closed[0] = rc == CHAN_CLOSED
                return chosen

    cdef int attempt(self, PyObject **out) except -1:
        cdef PyObject *value = NULL
        cdef Waiter *woken = NULL
        cdef bint closed = False
        cdef int index
        self.lock_all()
        index = self.pick(&value, &woken, &closed)
        self.unlock_all()
        if woken != NULL:
            wake(woken)
        if closed:
            self.fail(index)
        if index < 0:
            if not self.default and (self.timeout_ns < 0 or nanotime() < self.end_ns):
                return 0
            return self.answer(-1, None, out)
        if value == NULL:
            return self.answer(index, None, out)
        got = <object>value
        Py_DECREF(got)
        return self.answer(index, got, out)

    cdef int answer(self, int index, value, PyObject **out) except -1:
        result = (index, value)
        return give(result, out)

    cdef int fail(self, int index) except -1:
        error = ChanClosed("send on closed channel" if self.arms[index].sends
                           else "receive on closed channel")
        error.index = index
        raise error

    cdef int step(self, PyObject **out) except -1:
        cdef int claim
        if not self.seize():                 # K2
            self.refuse_twice()
        claim = load_int(&self.claim)
        if self.phase == PARKED:
            if claim == C_WAITING:
                self.refuse_twice()
            if claim == C_TAKEN or claim == C_TIMEOUT:
                self.phase = ENDED
                return self.complete(out)
            self.clear()                     # taken back for nothing: begin again
            store_int(&self.claim, C_IDLE)
        elif self.phase == ENDED:
            self.refuse_twice()
        elif slice_spent():
            give(SLICE_END, out)
            return 0
        elif self.timeout_ns >= 0:
            self.end_ns = nanotime() + self.timeout_ns
        self.phase = ENDED
        if self.attempt(out):
            thread_words().spent += 1
            return 1
        self.sched = None if thread_words().owner == NULL else <SchedBase>thread_words().owner
        return self.park(out)

    cdef void shuffle(self) noexcept nogil:
        """Draw an order for the queues: of two cases on one channel the first in line is served.

        Go: pollorder.
        """
        cdef int i, j
        for i in range(self.n):
            j = <int>(gopoll_cheaprand(self.end_ns) % <uint32_t>(i + 1))
            self.arms[i].nth = self.arms[j].nth
            self.arms[j].nth = i

    cdef bint commit_word(self, PyObject *waiter) noexcept:
        cdef SchedBase sched = self.sched
        cdef bint timed = self.timeout_ns >= 0 and sched is not None
        cdef int i, rc = 0
        cdef Arm *arm
        if self.phase != PARKED:
            return False                     # not announced
        Py_INCREF(self)                      # the queues'; once for all
        if timed:
            Py_INCREF(self)                  # the timer's
            timer_init(&self.timer, TIMER_WAITER, <PyObject *>self)
        self.lock_all()
        if self.must_wait():                 # H3
            if timed:
                rc = timer_arm(&sched.ps.timers, &self.timer, self.end_ns, 0)
            if rc >= 0:
                self.timed = timed
                self.queued = True
                self.node.word = waiter      # the timeout's
                self.shuffle()
                for i in range(self.n):
                    arm = &self.arms[self.arms[i].nth]
                    if arm.chan != NULL:
                        arm.w.word = waiter
                        enqueue(&arm.w)
                store_int(&self.claim, C_WAITING)
                self.unlock_all()            # K1: from here on it may be awake
                if rc > 0:
                    netpollwake(sched.ps)
                return True
        self.unlock_all()
        Py_DECREF(self)
        if timed:
            Py_DECREF(self)
        return False

    cdef int park_task(self, PyObject **out) except -1:
        self.sched = None                    # the loop has timers of its own
        if WaitOp.park_task(self, out):
            return 1
        if self.timeout_ns >= 0:
            self.handle = running_loop().call_later((self.end_ns - nanotime()) / 1e9, self)
        return 0

    cdef int abort_word(self, PyObject *waiter) noexcept:
        if load_int(&self.claim) != C_WAITING or self.node.word != waiter:
            return 0                         # woken, or not its waiter
        if not cas_int(&self.claim, C_WAITING, C_BACK):      # H2
            return 0
        Py_DECREF(self)                      # the queues'; the caller holds its own
        return 1

    def __call__(self):
        """Its timeout has come. Called by the scheduler alone, or by asyncio's loop."""
        cdef bint ours
        self.lock_all()                      # H9: commit_word may not have got to the claim yet
        ours = cas_int(&self.claim, C_WAITING, C_TIMEOUT)    # H2
        self.unlock_all()
        if ours:
            wake(&self.node)

    cdef int complete(self, PyObject **out) except -1:
        cdef int i
        cdef Waiter *w
        self.clear()
        for i in range(self.n):
            w = &self.arms[i].w
            if w.state == W_CLOSED:
                self.fail(i)
            if w.state == W_DONE:
                value = None
                if not self.arms[i].sends:
                    value = <object>w.value
                    w.value = NULL
                    Py_DECREF(value)
                return self.answer(i, value, out)
        return self.answer(-1, None, out)

    cdef bint take_back(self) noexcept:
        cdef int phase = self.phase
        cdef int i
        self.phase = ENDED
        if phase != PARKED:
            return False
        if self.abort_word(self.node.word):
            Py_DECREF(<object>self.node.word)
        self.clear()
        if load_int(&self.claim) == C_TAKEN:
            for i in range(self.n):
                if self.arms[i].w.state == W_DONE:
                    return True
        return False

    cdef int drop(self) except -1:
        cdef int i
        for i in range(self.n):
            if self.arms[i].w.state == W_DONE and not self.arms[i].sends:
                (<Case>self.cases[i]).chan.unrecv(&self.arms[i].w)       # H11
        return 0

    cdef int clear(self) noexcept:
        """Leave every queue, and the timer. Once it is decided (H2)."""
        cdef int i
        if self.queued:
            self.queued = False
            self.lock_all()
            for i in range(self.n):
                if self.arms[i].w.state == W_QUEUED:
                    unlink(&self.arms[i].w, W_OFF)
            self.unlock_all()
        if self.handle is not None:
            self.handle.cancel()
            self.handle = None
        if self.timed:
            self.timed = False
            if timer_stop(&self.sched.ps.timers, &self.timer):
                Py_DECREF(self)
        return 0

    def __dealloc__(self):
        cdef int i
        if self.phase == NEW and self.locks != NULL:
            self.warn_if_new()
        self.abandon()
        if self.arms != NULL:
            for i in range(self.n):
                Py_XDECREF(self.arms[i].w.value)
        free(self.arms)
        free(self.locks)


def select(*cases, bint default=False, timeout=None):
    """Wait for the first case that can go on, do it, and return (its index, value). An op.

    Cases are chan.recv_case(), chan.send_case(value) (whose value in the answer is None), or None,
    which is never ready. Of several that are ready one is taken at random. default: do not wait.
    timeout: seconds to wait at most. Either way (-1, None) says that no case was ready. A closed
    channel is ready: ChanClosed, whose index is the case. Go: the select statement.
    """
    cdef int64_t ns = -1
    if timeout is not None:
        ns = <int64_t>(min(max(seconds_of("timeout", timeout), 0.0), 4e9) * 1e9)
    return SelectOp(cases, default, ns)
