"""ExecBase: the innermost part of the scheduler. Pop, enter the context, send, commit.

Called by sched.py with a budget, on the thread of an M. One function each because they run once
per goroutine switch; and syscall(), which gives a P up in the middle of a slice.
Go: runtime/proc.go, execute, gopark, entersyscall, startlockedm (go1.27).

A1 (see _p): RUN is stored before the coroutine runs and swapped away after it. If that swap fails,
sysmon has taken the P: what the goroutine has yielded for is done with another P or with none.
A4: an M that has lost its P says that it settles before it says that its slice is over, and until
    its goroutine is on a list. Who looks for a deadlock looks at the slice, at that, at the lists.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint64_t, uintptr_t

from gopoll._atomic cimport (add_i64, add_int, bump, cas_u64, gil_store_int, load_i64, load_int,
                             load_u64, load_word, peek_i64, peek_int, poke_i64, poke_int,
                             release_i64, release_u64, store_int, store_u64, store_word)
from gopoll._host cimport TURN
from gopoll._pollserver cimport pollserver_forked
from gopoll._park cimport SLICE_END, SLICE_MORE, ParkRequest, ThreadWords, thread_words
from gopoll._timers cimport coarsetime
from gopoll.runtime._base cimport count_of
from gopoll.runtime._context cimport Context
from gopoll.runtime._g cimport (G_LEFT, G_RUNNABLE, G_RUNNING, G_WAITING, ContextBase,
                                GBase)
from gopoll.runtime._p cimport (P_RUN, MBase, PBase, owns, stateBits, tickShift,
                                word_sched)
from gopoll.runtime._sched cimport unpark_g, wake_joins

from gopoll.errors import ForkedError


cdef extern from *:
    """
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
    object gopoll_take_error()


cdef enum:
    BREATHE_TURNS = 16   # so many turns that have run slices may pass without a breath


# What the interpreter does between two bytecodes: let another thread have the GIL that has asked
# for it, run signal handlers. C does nothing of the kind: an M that sees work which it cannot take
# would look again and again, and keep who has that work from the GIL. A slice has done the same, in
# its bytecodes, but for one of a compiled coroutine's.
_breathe = eval("lambda: None")


cdef class GoschedRequest(ParkRequest):
    """Yielded by gosched(): to the tail of the global queue."""

    cdef bint commit_word(self, PyObject *waiter) noexcept:
        return TURN.commit_word(waiter)      # in a task of a guest's host

    cdef object refuse_task(self):
        return RuntimeError("gosched() in a task of asyncio yields to the goroutines, which its "
                            "thread does not run: use asyncio.sleep(0) there")


GOSCHED = GoschedRequest()


cdef uint64_t begin_slice(MBase m) noexcept:
    """Return the status word of a new slice on *m*, which sysmon may retake once it is stored."""
    m.tick += 1
    return P_RUN | (<uint64_t>m.id << stateBits) | (m.tick << tickShift)


cdef class ExecBase(FindBase):
    """FindBase and the switch loop."""

    why_ending = "the main goroutine has ended"   # what goroutines are told at the end of the run

    def goexit(self, g, error):
        """Called when the coroutine of *g* has ended; its outcome is stored."""
        raise NotImplementedError

    def can_leave(self, m):
        """Whether the thread of *m* may end with the goroutine that was locked to it."""
        raise NotImplementedError

    def this_m(self):
        """Return the M of the calling thread."""
        return <object>thread_words().m

    def make_g(self, coro, Context context not None, name, bint system=False):
        """Make a goroutine that start_g() will queue. ForkedError in a forked child."""
        if pollserver_forked(self.ps):
            raise ForkedError("gopoll.run() was forked: its goroutines stay with the parent; start "
                              "a new run() in the child")
        return GBase(self, coro, context, 0 if system else add_i64(&self.words.ids, 1), name,
                     (<MBase>thread_words().m).gs)

    def start_g(self, GBase g not None, bint wake=True):
        """Queue a new goroutine. RuntimeError if the run is over (J3): its coroutine is closed."""
        cdef Context context = <Context>g.context_
        if not context.root:
            context.enter(g)
        if not self.register(g, wake):
            context.leave(g)
            g.coro.close()
            raise RuntimeError("gopoll.run() has ended: nothing can be started in it any more")
        if load_int(&self.words.ending) and g.id != 0:   # after it has been registered: one of us
            self.cancel(g, self.why_ending)                                      # sees it

    cdef bint register(self, GBase g, bint wake) except -1:
        """Count a new goroutine and queue it on the P of this thread, or for all. Go: newproc.

        False if it comes too late: the run is over (J3). wake: start an idle P if there is one;
        False keeps a run's first goroutines on its thread.
        """
        cdef MBase m = <MBase>thread_words().m
        g.home[g] = g                        # first: there may be no memory for it
        add_i64(count_of(&self.words, g), 1)
        if load_i64(&self.words.live) < 0:
            add_i64(count_of(&self.words, g), -1)
            (<dict>g.home).pop(g, None)
            return False
        poke_i64(&g.since_ns, peek_i64(&self.words.now))
        self.queue(m, g)
        if wake and load_int(&self.words.npidle) and m.p != NULL:
            self.wakep()
        return True

    cpdef cancel(self, GBase g, cause):
        """Cancel one goroutine. Any thread. In one piece: done once, it is not done again (E1)."""
        if (not load_int(&g.finished) and g.set_canceled(cause)          # G1: the state, the park
                and self.ps == self.poller.ps):
            unpark_g(g)

    def leave_behind(self, GBase g not None, error):
        """The run is over and *g* has not ended: whoever waits for its end gets *error* (J2)."""
        if load_int(&g.finished):
            return
        g.claim()                            # it has been told
        poke_int(&g.state, G_LEFT)
        wake_joins(g.finish(None, error))

    cdef int schedule(self, MBase m) except -1:
        """Run goroutines on the thread of *m* until all have ended. Go: schedule."""
        cdef int ran, turns = 0
        while not (load_int(&self.words.finished) or m.leaving):
            ran = 0
            if m.lockedg is not None:
                self.stop_locked(m)
            elif m.p != NULL:
                self.find_runnable(m)
                ran = self.execute(m, CHECK_TICKS)
            else:
                self.stopm(m)
            turns += 1
            if ran == 0 or turns % BREATHE_TURNS == 0:
                _breathe()
        return 0

    cdef int execute(self, MBase m, int most) except -1:
        """Run up to *most* slices of m's P, as long as it has it and they are there: how many.

        Go: execute.
        """
        cdef int n = 0
        cdef GBase g
        cdef PBase p
        while n < most and m.p != NULL and m.lockedg is None:
            p = <PBase>m.p
            g = <GBase>p.pop()
            if g is None:
                if load_u64(&self.globq.len) == 0:
                    break
                self.globq_get(m, 0)
                continue
            if m.spinning:
                self.stop_spinning(m)
            if g.lockedm != NULL and g.lockedm != <PyObject *>m:
                self.start_locked(m, g)
                break
            n += 1
            try:
                self.resume(m, p, g)
            finally:
                if m.settling:
                    store_int(&m.settling, 0)
        bump(&m.counts.switches, n)
        return n

    cdef int resume(self, MBase m, PBase p, GBase g) except -1:
        """Run one slice of *g* on *m* under *p*, then do what it has yielded for."""
        cdef ThreadWords *tw = thread_words()
        cdef PyObject *out = NULL
        cdef PyObject *joins
        cdef PySendResult how
        cdef uint64_t running
        if load_int(&g.finished) or load_int(&self.words.finished):          # J2
            return 0
        g.unpublish()
        exc = g.take_pending()
        if exc is None and g.parked and g.cancelled_now():
            try:
                exc = g.why_canceled()
            except BaseException as e:       # of a signal handler: it has been popped, so it is run
                exc = e
        g.parked = False
        poke_int(&g.state, G_RUNNING)
        poke_i64(&g.since_ns, peek_i64(&self.words.now))
        gil_store_int(&g.mid, m.id)
        tw.current = <PyObject *>g
        tw.spent = 0
        tw.spent_bytes = 0
        PyContext_Enter(g.vars)
        running = begin_slice(m)
        release_i64(&m.gid, g.id)
        release_u64(&p.words.schedtick, p.words.schedtick + 1)
        release_u64(&m.runword, running)
        store_u64(&p.words.status, running)                  # A1: and those before it
        if load_int(&g.looked):                              # G2
            g.let_look()
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
        self.leave_slice(m)
        if load_u64(&m.watched) == running:                  # S7
            self.keep_name(m, g)
        PyContext_Exit(g.vars)
        tw.current = NULL
        if how == PYGEN_NEXT:
            gil_store_int(&g.mid, 0)
        value = None
        if out != NULL:
            value = <object>out
            Py_DECREF(value)
        if self.ps != self.poller.ps:
            self.refuse_fork()
        if how == PYGEN_NEXT and not load_int(&self.words.finished):
            return self.settle(m, g, value)
        if load_int(&self.words.finished):
            return 0                         # too late: run() has left it behind
        if m.syscalls:
            self.end_syscalls(m)
            if error is None:
                error = RuntimeError("end inside gopoll.syscall(): leave its block first")
        joins = g.end(value, error)
        gil_store_int(&g.mid, 0)             # G2: its coroutine is gone
        (<dict>g.home).pop(g, None)          # counted out before anybody can know of its end
        add_i64(count_of(&self.words, g), -1)
        try:
            wake_joins(joins)
        finally:
            if not (<ContextBase>g.context_).root:
                (<Context>g.context_).gone(g)
            if error is not None or g is self.main or load_int(&self.words.ending):
                self.goexit(g, error)
        return 0

    cdef int end_syscalls(self, MBase m) except -1:
        """Forget the syscall() blocks that the goroutine on *m* has not left."""
        m.syscalls = 0
        m.sysgen += 1                        # their exits, if they come, are nobody's
        if m.outside:
            m.outside = False
            self.unbind(m)
        return 0

    cdef int leave_slice(self, MBase m) except -1:
        """End the slice on *m* (A1): it decides again, with its P, with another, or with none."""
        cdef PBase p = <PBase>m.p if m.p != NULL else None
        cdef uint64_t running = m.runword
        if p is not None and cas_u64(&p.words.status, running, word_sched(m)):
            release_u64(&m.runword, word_sched(m))       # the swap has ended it
            return 0
        store_int(&m.settling, 1)            # A4
        store_u64(&m.runword, word_sched(m))
        m.p = NULL
        if not load_int(&self.words.finished):
            self.acquirep(m)
        return 0

    cdef int keep_name(self, MBase m, GBase g) except -1:
        """Keep whose slice it was, for sysmon, which may tell of it after the end of *g* (S7)."""
        late = (g.id, g.name)
        with cython.critical_section(m):
            m.late = late
        return 0

    cdef object late_name(self, MBase m, int64_t gid):
        """Return what the goroutine *gid* of m's last watched slice was called, or None."""
        with cython.critical_section(m):
            late = m.late
        return late[1] if late is not None and late[0] == gid else None

    cdef int queue(self, MBase m, GBase g) except -1:
        """Queue *g*: here if *m* has a P, else for all. On the thread of *m*."""
        if m.p != NULL:
            (<PBase>m.p).runq.push(g)
            return 0 if owns(<PBase>m.p, m) else self.orphan(<PBase>m.p)             # A2
        self.globq.push(g)
        return self.kick()

    cdef int settle(self, MBase m, GBase g, object request) except -1:
        """Do what the goroutine has yielded for: park it, or queue it again."""
        cdef ParkRequest park
        cdef object context
        if m.syscalls:
            self.end_syscalls(m)
            g.add_pending(RuntimeError("await inside gopoll.syscall(): leave its block first"))
            poke_int(&g.state, G_RUNNABLE)
            return self.queue(m, g)
        if not isinstance(request, ParkRequest):
            what = ("a bare yield, as asyncio.sleep(0) is" if request is None
                    else (request if isinstance(request, type) else type(request)).__name__)
            g.add_pending(TypeError(f"goroutine awaited {what}, which belongs to another event "
                                    "loop: run it there, or use gopoll's own"))
            poke_int(&g.state, G_RUNNABLE)
            return self.queue(m, g)
        if request is GOSCHED or request is SLICE_END or request is SLICE_MORE:
            # A SliceEnd comes before an operation has begun: there is nothing to cancel yet.
            g.parked = request is not SLICE_END
            poke_i64(&g.since_ns, peek_i64(&self.words.now))
            poke_int(&g.state, G_RUNNABLE)
            self.globq.push(g)
            if m.p == NULL:
                self.kick()
            return 0
        park = <ParkRequest>request
        context = g.context_
        g.parked = True
        poke_int(&g.state, G_WAITING)
        poke_i64(&g.since_ns, coarsetime())  # the slice may have kept sysmon from the GIL
        g.publish(<PyObject *>park)
        Py_INCREF(g)
        if not park.commit_word(<PyObject *>g):
            Py_DECREF(g)
            poke_int(&g.state, G_RUNNABLE)
            return self.queue(m, g)
        # K1: it may run elsewhere by now. G1: our park is published; look at the state.
        if ((load_int(&g.canceled) == 2 and (not peek_int(&g.shielded)
                                             or load_int(&(<ContextBase>context).left_)))
                or load_int(&(<ContextBase>context).ended)
                or load_word(&g.pending)):
            unpark_g(g)
        return 0

    # -- goroutines that belong to a thread

    cdef int start_locked(self, MBase m, GBase g) except -1:
        """*g* belongs to another M: give it our P. Go: startlockedm."""
        cdef PBase p = <PBase>m.p
        m.p = NULL
        return self.give(<MBase>g.lockedm, p, False)

    cdef int stop_locked(self, MBase m) except -1:
        """Be an M that belongs to a goroutine: others go on with our P until that can run.

        Go: stoplockedm.
        """
        cdef GBase g = <GBase>m.lockedg
        cdef PBase p
        cdef bint leaves
        if load_int(&g.finished):
            leaves = self.can_leave(m)
            m.lockedg = None
            if leaves:
                add_int(&self.words.nms, -1)             # U1
            self.unbind(m)
            if leaves:
                m.leaving = True
                if m.p != NULL:                          # S6; Go: mexit
                    p = <PBase>m.p
                    m.p = NULL
                    self.handoffp(p)
            return 0
        if m.p != NULL:
            p = <PBase>m.p
            m.p = NULL
            self.handoffp(p)
        self.maybe_dead(False)
        while m.p == NULL and not load_int(&self.words.finished):
            try:
                self.sleep_m(m)
            except BaseException as err:                 # of a signal handler; the P is for g
                self.survive(err)
        if m.p != NULL:
            try:
                self.resume(m, <PBase>m.p, g)
            finally:
                store_int(&m.settling, 0)
        return 0

    def take_p(self, MBase m not None):
        """acquirep for the first M of a run."""
        return self.acquirep(m)

    def mloop(self, MBase m not None):
        """Be *m* until all is over. In C: what a signal handler raises in schedule() stays here."""
        while not (load_int(&self.words.finished) or m.leaving):
            try:
                self.schedule(m)
            except BaseException as err:
                self.survive(err)


def lock_thread():
    """Bind the running goroutine and its thread to each other, once more. Go: LockOSThread."""
    cdef ThreadWords *tw = thread_words()
    cdef ExecBase sched
    cdef GBase g
    cdef MBase m
    if tw.current == NULL:
        raise RuntimeError("lock_os_thread() outside a goroutine")
    g = <GBase>tw.current
    sched = <ExecBase>g.sched
    if g.lockcount == 0 and sched.handoff:   # without, there is one thread anyway
        m = <MBase>tw.m
        if not sched.bind(m) and not sched.spare_m():
            sched.unbind(m)
            raise RuntimeError("lock_os_thread(): the other goroutines need another thread, and "
                               "none can be started")
        store_word(<uintptr_t *>&g.lockedm, <uintptr_t>tw.m)
        m.lockedg = g
    g.lockcount += 1


def unlock_thread():
    """Undo one lock_thread(); without one do nothing. Go: UnlockOSThread."""
    cdef ThreadWords *tw = thread_words()
    cdef GBase g
    if tw.current == NULL:
        raise RuntimeError("unlock_os_thread() outside a goroutine")
    g = <GBase>tw.current
    if g.lockcount:
        g.lockcount -= 1
        if g.lockcount == 0 and g.lockedm != NULL:
            (<MBase>g.lockedm).lockedg = None
            (<ExecBase>g.sched).unbind(<MBase>g.lockedm)
            store_word(<uintptr_t *>&g.lockedm, 0)


cdef class Syscall:
    """`with syscall():` gives the P up on entry and takes one back on exit.

    Go: entersyscallblock, exitsyscall. Where Ps stay where they are it only marks the block.
    """

    def __enter__(self):
        cdef ThreadWords *tw = thread_words()
        cdef MBase m
        cdef PBase p
        if tw.current == NULL:
            raise RuntimeError("syscall() outside a goroutine")
        if self.m is not None:
            raise RuntimeError("syscall() objects are used once at a time")
        m = <MBase>tw.m
        self.sched = <ExecBase>tw.owner
        self.m = m
        self.gen = m.sysgen
        m.syscalls += 1
        if m.syscalls > 1 or not self.sched.handoff:
            return
        p = <PBase>m.p if m.p != NULL else None
        if not self.sched.bind(m) and not self.sched.spare_m():
            self.sched.unbind(m)             # nobody could go on: it keeps its P
            return
        m.outside = True
        m.p = NULL
        # A1: whoever swaps owns it; sysmon may have been first.
        if p is not None and cas_u64(&p.words.status, m.runword, word_sched(m)):
            bump(&m.counts.handoffs, 1)
            self.sched.handoffp(p)
        store_u64(&m.runword, begin_slice(m))            # what sysmon has seen is over: no stall

    def __exit__(self, *exc):
        cdef MBase m = self.m
        cdef ExecBase sched = self.sched
        if m is None or thread_words().m != <PyObject *>m or self.gen != m.sysgen:
            self.m = None                    # an await has ended it, or the goroutine's end
            return
        self.m = None
        m.syscalls -= 1
        if m.syscalls or not m.outside:
            return
        m.outside = False
        try:
            sched.refuse_fork()              # the Ps are the parent's
            if not sched.acquirep(m):
                wait_for_p(sched, m, <GBase>thread_words().current)
        finally:
            sched.unbind(m)
            if m.p != NULL:
                store_u64(&m.runword, begin_slice(m))
                store_u64(&(<PBase>m.p).words.status, m.runword)             # A1


cdef int wait_for_p(ExecBase sched, MBase m, GBase g) except -1:
    """Queue as a goroutine that belongs to this thread, until an M gives us its P."""
    cdef PyObject *bound = g.lockedm
    error = None
    store_word(<uintptr_t *>&g.lockedm, <uintptr_t><PyObject *>m)
    sched.globq.push(g)
    sched.kick()
    while m.p == NULL:
        if load_int(&sched.words.finished):
            raise RuntimeError("gopoll.run() has ended")
        try:
            sched.sleep_m(m)
        except BaseException as e:           # of a signal handler: when we have a P
            error = e
    store_word(<uintptr_t *>&g.lockedm, <uintptr_t>bound)
    if error is not None:
        raise error
    return 0
