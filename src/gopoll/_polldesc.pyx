"""PollDesc, Timer and Note: what one waits for, as Python objects. Made by a Poller.

Called by the scheduler, by guests and by embedding loops, on any thread.
Go: runtime/netpoll.go, runtime/time.go, and note in runtime/lock_futex.go (go1.27).
"""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EPERM
from libc.stdint cimport int64_t, uintptr_t
from libc.stdlib cimport free, malloc

from gopoll._atomic cimport cas_word, load_int, load_word, store_word, swap_word
from gopoll._park cimport Awaitable, ParkRequest
from gopoll._pollcache cimport (blockPark, modeBoth, modeRead, modeWrite, netpollabort,
                                netpollblockcommit, pdNil, pdReady, pdWait,
                                poll_runtime_pollClose, poll_runtime_pollOpen,
                                poll_runtime_pollReset, poll_runtime_pollUnblock,
                                poll_runtime_pollWait, pollDesc, pollDiscard, pollErrClosing,
                                pollErrNotPollable, pollErrTimeout, pollNoError, pollRearm,
                                regEdge)
from gopoll._polldeadline cimport poll_runtime_pollSetDeadline
from gopoll._pollerbase cimport PollerBase, check_int, check_int64
from gopoll._pollserver cimport netpollwake, pollserver_forked
from gopoll._throw cimport THROW_OUT_OF_MEMORY, THROW_UNBLOCK_CLOSING, throw
from gopoll._timers cimport (TIMER_WAITER, TimerNode, nanotime, timer_arm, timer_init, timer_move,
                             timer_orphan, timer_stop)

from gopoll.errors import (ForkedError, closed_error, not_pollable_error, op_error,
                           timeout_error)


# -- one descriptor --------------------------------------------------------------------------------

cdef int poll_error(int rc, str op) except -1:
    """Raise what a PollError, an errno or a throw stands for."""
    if rc < 0:
        throw(rc)
    if rc == pollErrClosing:
        raise closed_error(op, "", None, None)
    if rc == pollErrTimeout:
        raise timeout_error(op, "", None, None)
    if rc > pollErrNotPollable:
        raise op_error(op, "", None, None, rc)
    raise not_pollable_error(op, hint=None)


cdef class PdPark(ParkRequest):
    """The wait of one direction of a PollDesc. Made once, used for every wait."""
    cdef PollDesc owner
    cdef int mode
    wait_reason = "poll"

    cdef bint commit_word(self, PyObject *waiter) noexcept:
        cdef PollDesc owner = self.owner
        with cython.critical_section(owner):
            if owner.pd == NULL or owner.ps != owner.poller.ps:
                return False
            return netpollblockcommit(owner.ps, owner.pd, self.mode, <uintptr_t>waiter)

    cdef int abort_word(self, PyObject *waiter) noexcept:
        cdef PollDesc owner = self.owner
        with cython.critical_section(owner):
            if owner.pd == NULL or owner.ps != owner.poller.ps:
                return 0
            return netpollabort(owner.ps, owner.pd, self.mode, <uintptr_t>waiter)


cdef class PollDesc:
    """A registered descriptor: one waiter a direction, deadlines, eviction. Made by Poller.open.

    Any thread. The owner of the descriptor calls close() before close(2).

    Every method is one critical section: a closed pollDesc is the next descriptor's (P4), so
    nobody may still hold its address when close() gives it up.
    """

    def __init__(self, PollerBase poller not None, fd, mode):
        cdef int rc, number = check_int(fd, "fd"), reg = check_int(mode, "mode")
        cdef pollDesc *pd = NULL
        poller.enter_python()
        try:
            rc = poll_runtime_pollOpen(poller.ps, number, reg, &pd)
            if rc != 0:
                if pd != NULL:
                    pollDiscard(poller.ps, pd)
                if rc < 0:
                    throw(rc)
                if rc == EPERM:
                    raise not_pollable_error("open", "", None, f"fd {fd}")
                raise op_error("open", "", None, f"fd {fd}", rc)
        finally:
            poller.leave()
        self.poller = poller
        self.ps = poller.ps
        self.pd = pd
        self.fd = number

    cdef pollDesc *live(self) except NULL:
        """The open descriptor; ClosedError or ForkedError."""
        cdef pollDesc *pd = <pollDesc *>load_word(<uintptr_t *>&self.pd)
        if pd == NULL:
            raise closed_error("poll", "", None, None)
        if self.ps != self.poller.ps:
            raise ForkedError(f"descriptor {self.fd} was opened in the parent process: open it "
                              "again in the child")
        return pd                            # whatever close() does meanwhile: P4

    def reset(self, mode):
        """Prepare READ or WRITE for I/O: raise if it is closing or past its deadline, or
        InternalError while a waiter is parked.

        Call it before every attempt; a readiness that is stored is dropped, since the attempt
        finds it again. Go: poll_runtime_pollReset.
        """
        cdef int rc, direction = _direction(mode)
        with cython.critical_section(self):
            rc = poll_runtime_pollReset(self.live(), direction)
        if rc < 0:
            throw(rc)
        if rc != pollNoError:
            poll_error(rc, "poll")

    def wait(self, mode):
        """Announce a wait for READ or WRITE and return its ParkRequest, to be committed next.

        Raises ClosedError, TimeoutError (deadline), InternalError for a second waiter of one
        direction, and NotPollableError to a reader that has tried again after an event that was an
        error alone: no other would come. After the wake-up call reset(), which says why, and try
        again.
        Go: poll_runtime_pollWait.
        """
        cdef int rc, direction = _direction(mode)
        with cython.critical_section(self):
            rc = poll_runtime_pollWait(self.ps, self.live(), direction)
            if rc == pollNoError or rc == -blockPark:
                return self.request(direction)
        poll_error(rc, "poll")

    cdef ParkRequest request(self, int mode):
        cdef PdPark park = <PdPark>(self.reader if mode == modeRead else self.writer)
        if park is None:
            park = PdPark.__new__(PdPark)
            park.owner = self
            park.mode = mode
            if mode == modeRead:
                self.reader = park
            else:
                self.writer = park
        return park

    def set_deadline_ns(self, when_ns, mode=modeBoth):
        """Set the deadline of READ, WRITE or BOTH; wakes the waiters that it has passed.

        when_ns: monotonic ns; 0 clears; in the past (or < 0): waits fail at once, until it is
        moved. Go: poll_runtime_pollSetDeadline.
        """
        cdef int rc, directions = _directions(mode)
        cdef int64_t when = check_int64(when_ns, "when_ns")
        if when > 0 and when <= nanotime():
            when = -1
        self.live()
        self.poller.enter()
        try:
            with cython.critical_section(self):
                rc = poll_runtime_pollSetDeadline(self.ps, self.live(), when, directions)
        finally:
            self.poller.leave()
        if rc != 0:
            throw(rc)

    def rearm(self, mode=modeBoth):
        """Arm a LEVEL or ONESHOT registration for *mode*. wait() does it by itself."""
        cdef pollDesc *pd
        cdef int rc, directions = _directions(mode)
        self.live()
        self.poller.enter()
        try:
            with cython.critical_section(self):
                pd = self.live()
                if load_int(&pd.reg) == regEdge:
                    raise ValueError("an edge-triggered descriptor is never armed again")
                rc = pollRearm(self.ps, pd, directions)
        finally:
            self.poller.leave()
        if rc != 0:
            raise op_error("rearm", "", None, f"fd {self.fd}", rc)

    def evict(self):
        """Wake both waiters; from now on every wait raises ClosedError. Once.

        Raises InternalError for a second call. Go: poll_runtime_pollUnblock.
        """
        cdef int rc = 0
        self.live()
        try:
            if self.poller.hold():           # not: the poller has evicted all and gone
                with cython.critical_section(self):
                    rc = poll_runtime_pollUnblock(self.ps, self.live())
        finally:
            self.poller.leave()
        if rc == THROW_UNBLOCK_CLOSING and load_int(&self.poller.closed):
            rc = 0
        if rc != 0:
            throw(rc)

    def close(self):
        """Unregister and free; call evict() first, and this before close(2).

        A second call does nothing. Raises InternalError while somebody is parked or without
        evict(). Go: poll_runtime_pollClose.
        """
        cdef int rc = 0
        if load_word(<uintptr_t *>&self.pd) == 0:
            return
        try:
            with cython.critical_section(self):
                if self.poller.hold() and self.pd != NULL and self.ps == self.poller.ps:
                    rc = poll_runtime_pollClose(self.ps, self.pd)
                if rc == 0:
                    store_word(<uintptr_t *>&self.pd, 0)
                    self.reader = self.writer = None     # they hold us: no work for the collector
        finally:
            self.poller.leave()
        if rc != 0:
            throw(rc)


cdef object READ = modeRead              # small ints, which the interpreter has once
cdef object WRITE = modeWrite


cdef int _direction(object mode) except -1:
    cdef int number
    if mode is READ:                     # as a rule, and twice for each wait
        return modeRead
    if mode is WRITE:
        return modeWrite
    number = check_int(mode, "mode")
    if number != modeRead and number != modeWrite:
        raise ValueError(f"mode {mode} is neither READ nor WRITE")
    return number


cdef int _directions(object mode) except -1:
    cdef int number = check_int(mode, "mode")
    if number < modeRead or number > modeBoth:
        raise ValueError(f"mode {mode} is none of READ, WRITE, BOTH")
    return number


# -- waits without a descriptor --------------------------------------------------------------------

cdef class Note(Awaitable):
    """A one-time event that one coroutine may await. Go: note, runtime/lock_futex.go.

    state is rg's own machine without the announcement: pdNil, pdReady or the waiter's word (P3).
    """

    def __init__(self, PollerBase poller not None, str wait_reason="note"):
        """wait_reason: as Goroutine.wait_reason shows it."""
        self.poller = poller
        self.wait_reason = wait_reason
        self.state = pdNil

    cdef bint commit_word(self, PyObject *waiter) noexcept:
        return cas_word(&self.state, pdNil, <uintptr_t>waiter)

    cdef int abort_word(self, PyObject *waiter) noexcept:
        return cas_word(&self.state, <uintptr_t>waiter, pdNil)

    cdef int wake_word(self) except -1:
        """Set the event; the waiter, if any, goes to the poller's ready list."""
        cdef uintptr_t old = swap_word(&self.state, pdReady)
        if old > pdWait:
            try:
                self.poller.post_word(old)
            except BaseException:                    # the poller is closed: nobody will hand it out
                Py_DECREF(<object><PyObject *>old)
                raise
        return 0

    def wake(self):
        """Set the event, now and for ever. Any thread."""
        self.wake_word()

    @property
    def is_set(self):
        """Whether wake() has been called."""
        return load_word(&self.state) == pdReady

    cdef int step(self, PyObject **out) except -1:
        cdef PyObject *value
        cdef bint done = load_word(&self.state) == pdReady
        self.seize()                                 # asyncio asks who awaits it
        value = <PyObject *>None if done else <PyObject *>self
        Py_INCREF(<object>value)
        out[0] = value
        return done


@cython.no_gc_clear
cdef class Timer:
    """A moment at which a waiter becomes ready. Made by Poller.call_at_ns; any thread.

    An armed timer fires whether or not this object is kept. no_gc_clear: __dealloc__ finds the
    heap through the poller, so the collector must not take that away before.
    """

    def __cinit__(self):
        self.node = NULL

    def __init__(self, PollerBase poller not None, when_ns, waiter):
        cdef int64_t when = check_int64(when_ns, "when_ns")
        self.poller = poller
        self.ps = poller.ps
        self.waiter = waiter
        self.node = <TimerNode *>malloc(sizeof(TimerNode))
        if self.node == NULL:
            raise MemoryError
        timer_init(self.node, TIMER_WAITER, <PyObject *>waiter)
        poller.enter_python()
        try:
            self._arm(when)
        finally:
            poller.leave()

    def __dealloc__(self):
        # Of the parent's timers the node is left where it is (A9).
        if self.node != NULL and not pollserver_forked(self.ps):
            if not timer_orphan(&self.ps.timers, self.node):
                free(self.node)

    cdef int _arm(self, int64_t when_ns) except -1:
        """Arm the idle node: the heap holds one reference to the waiter until it fires."""
        cdef int rc
        Py_INCREF(self.waiter)
        rc = timer_arm(&self.ps.timers, self.node, when_ns if when_ns > 0 else 1, 0)
        if rc < 0:
            Py_DECREF(self.waiter)
            throw(THROW_OUT_OF_MEMORY)
        if rc:
            rc = netpollwake(self.ps)            # P5
            if rc != 0:
                throw(rc)
        return 0

    def move(self, when_ns):
        """Move it to monotonic *when_ns*, arming it again if it has fired or was stopped.

        Returns True if it was still pending: then it fires once, at the new time. False: the
        earlier firing happens too. Go: Timer.Reset.
        """
        cdef bint pending
        cdef int64_t when = check_int64(when_ns, "when_ns")
        if self.node == NULL:
            raise RuntimeError("the timer was never made: its __init__ has not run")
        self.poller.enter()
        try:
            if self.ps != self.poller.ps:
                raise ForkedError("a timer of the parent process was moved in a forked child")
            with cython.critical_section(self):
                pending = timer_move(&self.ps.timers, self.node, when if when > 0 else 1)
                if pending:
                    netpollwake(self.ps)
                else:
                    self._arm(when)
            return pending
        finally:
            self.poller.leave()

    def stop(self):
        """Disarm it: False if it has fired already (or was stopped). Go: Timer.Stop."""
        cdef bint pending = False
        if self.node != NULL and self.ps == self.poller.ps:
            pending = timer_stop(&self.ps.timers, self.node)
        if pending:
            Py_DECREF(self.waiter)
        return pending
