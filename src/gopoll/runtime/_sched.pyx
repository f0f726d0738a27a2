"""SchedBase: who runs, who is idle, who waits in the network, and how each is woken.

Called by _exec, which runs goroutines, by sched.py, which decides, by sysmon, and through ready_g
by whoever makes a goroutine runnable. Transitions are here, in one piece, so that an exception of a
signal handler never falls between two halves of one; what they call in Python is called again if
one raises there, or they go on without (survive). Go: runtime/proc.go (go1.27).

S1: who is about to block in the network sets lastpoll to 0, then looks at the global queue, then
    blocks. Who puts work into the global queue does so first and then, if lastpoll is 0, breaks
    the poller. One of the two sees the other. A poll that does not block never writes over that 0.
S2: sysmon sets sysmonwait, looks at npidle, then sleeps; who lowers npidle looks at sysmonwait.
S3: who queues work queues it, then looks at npidle, then at nmspinning. An M that goes idle raises
    npidle, lowers nmspinning, then looks at every queue. No work is left beside idle Ps. So does
    who has counted in nmspinning and has found no P, or no M: others have relied on it.
S4: one M at a time blocks in the network, and lastpoll is 0 while it does: who polls without
    blocking swaps lastpoll from what it has seen. While every P is idle one M does: who leaves a P
    idle and does not go on to block looks at lastpoll after that (after_idle).
U1: an M is left that is no single goroutine's: it takes the P that startm had no thread for (S3).
    Who binds its M raises nbound, then looks at nms, which is raised once a thread has been started
    and lowered before one ends. Of two that bind at once one sees both; who finds none left starts
    one, or does not bind.
U2: a thread that is started for an M begins with a swap of its `boot`; who was interrupted in
    starting it swaps that too, and starts another if it wins. One thread begins.
S6: a P is on the idle list, or one M has it, or it is on its way to one (nextp). Nobody drops it: a
    thread that ends gives it up first.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.stdint cimport uintptr_t

from gopoll._atomic cimport (add_int, cas_int, futex_wait, futex_wake, gil_add_int, gil_lock,
                             gil_store_u64, gil_unlock, load_i64, load_int, load_u64, load_word,
                             peek_i64, poke_i64, poke_int, store_int, store_u64, store_word,
                             swap_int)
from gopoll._epoll cimport netpollBreak
from gopoll._park cimport ThreadWords, leave_words, thread_words
from gopoll._poller cimport Poller
from gopoll._pollserver cimport netpollGenericInit, pollserver_forked
from gopoll._throw cimport throw
from gopoll._timers cimport coarsetime, nanotime
from gopoll.runtime._base cimport WordsBase, nested, wake_sysmon
from gopoll.runtime._g cimport G_RUNNABLE, GBase, Join
from gopoll.runtime._p cimport (P_DEAD, P_IDLE, MBase, PBase, owns, word_sched)
from gopoll.runtime._runq cimport RunQ

cdef enum:
    TURNS = 16                 # so often may a signal handler raise in one piece of Python

cdef extern from "Python.h":
    int Py_MakePendingCalls() except -1


# -- making a goroutine runnable -------------------------------------------------------------------

cdef int ready_g(GBase g, bint soon=True) except -1:
    """Make *g* runnable: on the P of the calling thread, else through the global queue. Soon is
    before what is queued there already. Any attached thread. Go: goready."""
    cdef ThreadWords *tw = thread_words()
    cdef SchedBase sched = <SchedBase>g.sched
    cdef MBase m
    cdef PBase p
    if pollserver_forked(sched.ps):              # the parent's: it is never run here (A9)
        return 0
    poke_int(&g.state, G_RUNNABLE)
    poke_i64(&g.since_ns, peek_i64(&sched.words.now))
    if tw.owner == <PyObject *>sched and tw.m != NULL:
        m = <MBase>tw.m
        if m.p != NULL and owns(<PBase>m.p, m):
            p = <PBase>m.p
            if soon:
                p.ready(g)
            else:
                p.runq.push(g)
            if not owns(p, m):
                sched.orphan(p)              # A2
            elif load_int(&sched.words.npidle):
                sched.wakep()
            return 0
    poke_i64(&g.since_ns, coarsetime())      # sysmon may have slept deeply
    sched.globq.push(g)
    return sched.kick()


cdef int unpark_g(GBase g) except -1:
    """Make it runnable if it is parked and nobody is waking it. After the state is set (G1)."""
    if g.abort():
        ready_g(g)
        Py_DECREF(g)                         # the park's reference
    return 0


cdef int wake_joins(PyObject *join) except -1:
    """Wake a list of Joins and give back the list's references (J1)."""
    cdef Join node
    cdef PyObject *rest
    cdef bint alone = join != NULL and (<Join>join).next == NULL     # else in their order
    error = None
    while join != NULL:
        node = <Join>join
        rest = node.next
        node.next = NULL
        waiter = <object>node.waiter
        Py_DECREF(waiter)
        Py_DECREF(node)
        if isinstance(waiter, GBase):
            ready_g(<GBase>waiter, alone)
        else:
            try:
                waiter()
            except BaseException as err:     # the others are woken all the same
                error = err
        join = rest
    if error is not None:
        raise error
    return 0


def ready(GBase g not None):
    """Make *g* runnable. Any thread. Go: goready."""
    ready_g(g)


def interrupt(GBase g not None):
    """Take *g* out of its park, after canceled, a context or pending has been set. Any thread."""
    if (<SchedBase>g.sched).ps == (<SchedBase>g.sched).poller.ps:
        unpark_g(g)


def current_g():
    """Return the goroutine that runs on this thread, or None."""
    cdef PyObject *g = thread_words().current
    return <object>g if g != NULL else None


def current_sched():
    """Return the scheduler that runs on this thread; RuntimeError if there is none."""
    cdef PyObject *owner = thread_words().owner
    if owner == NULL:
        raise RuntimeError("no scheduler runs on this thread: call gopoll.run(...), or attach "
                           "gopoll to the loop here (gopoll.embed.aio.attach(), trio.attach())")
    return <object>owner


def is_scheduler_thread():
    """Whether the calling thread runs a scheduler: waiting here would stop its goroutines."""
    return thread_words().owner != NULL


def current_poller():
    """Return the poller of the scheduler on this thread; RuntimeError if there is none."""
    return current_sched().usable_poller()


# -- the scheduler ---------------------------------------------------------------------------------

cdef class SchedBase(WordsBase):
    """The scheduler's words, its queues and its idle lists. Policy is in sched.py."""

    def __init__(self, bint handoff):
        self.poller = Poller()
        self.ps = self.poller.ps
        self.globq = RunQ()
        self.handoff, self.max_ms = handoff, MAX_MS
        self.allp = []
        self.allm = []
        self.spare_ms = []
        self.words.now = self.words.lastpoll = nanotime()

    def start_thread(self, m):
        """Start the thread of a new M; False if there can be none."""
        raise NotImplementedError

    def die(self, error):
        """Called for an exception of the scheduler's own; again if it raises."""
        raise NotImplementedError

    cdef int survive(self, error) except -1:
        """die(), as often as a signal handler raises in it. Raises in a forked child only."""
        for _ in range(TURNS):
            if self.ps != self.poller.ps:
                raise error
            try:
                self.die(error)
                return 0
            except BaseException as err:
                error = err
        self.finish_all()
        return 0

    # -- threads

    def enter_thread(self, MBase m not None):
        """Make the calling thread *m*; RuntimeError if it runs a scheduler already."""
        cdef ThreadWords *tw = thread_words()
        if tw.owner != NULL:
            owner = <SchedBase>tw.owner
            if owner.ps == owner.poller.ps:      # not one that has stayed with the parent (A9)
                raise RuntimeError(nested(owner, self))
        tw.owner = <PyObject *>self
        tw.m = <PyObject *>m
        tw.poller = <PyObject *>self.poller
        tw.current = tw.hosts = NULL
        tw.spent = tw.spent_bytes = 0

    def leave_thread(self):
        """Undo enter_thread."""
        cdef ThreadWords *tw = thread_words()
        if tw.owner == <PyObject *>self:
            leave_words(tw)

    # -- Ps

    cdef int pidleput(self, PBase p) except -1:
        """Put *p*, which the caller owns, on the idle list. Go: pidleput."""
        gil_store_u64(&p.words.status, P_IDLE)
        gil_lock(&self.lock)
        p.link = self.pidle
        self.pidle = <PyObject *>p
        gil_add_int(&self.words.npidle, 1)
        gil_unlock(&self.lock)
        return 0

    cdef PBase pidleget(self):
        """Take an idle P, or None. Go: pidleget."""
        cdef PyObject *p
        if load_int(&self.words.npidle) == 0:
            return None
        gil_lock(&self.lock)
        p = self.pidle
        if p != NULL:
            self.pidle = (<PBase>p).link
            gil_add_int(&self.words.npidle, -1)
            store_u64(&self.words.taken, self.words.taken + 1)       # S8; S2's fence
        gil_unlock(&self.lock)
        if p == NULL:
            return None
        if load_int(&self.words.sysmonwait):             # S2
            store_int(&self.words.sysmonwait, 0)
            wake_sysmon(&self.words)
        return <PBase>p

    cdef bint acquirep(self, MBase m) except -1:
        """Give the calling M an idle P; False if there is none. Go: acquirep."""
        cdef PBase p = self.pidleget()
        if p is None:
            return False
        gil_store_u64(&p.words.status, word_sched(m))
        m.p = <PyObject *>p
        return True

    cdef bint retire(self, PBase p) except -1:
        """Empty *p*, which the caller owns, and forget it, if gomaxprocs has made it too many."""
        gil_lock(&self.lock)
        if p.id < load_int(&self.words.nprocs):
            gil_unlock(&self.lock)
            return False
        add_int(&self.words.handing, 1)      # S8
        store_u64(&p.words.status, P_DEAD)
        gil_unlock(&self.lock)
        p.flush(self.globq)
        add_int(&self.words.handing, -1)
        self.kick()
        return True

    cdef bint drop_excess(self, MBase m) except -1:
        """Retire m's P if it is one too many; whether it was."""
        cdef PBase p = <PBase>m.p
        if p.id < load_int(&self.words.nprocs):
            return False
        m.p = NULL
        self.retire(p)
        return True

    def set_nprocs(self, int n):
        """Have *n* Ps from now on; how many there were. Go: procresize, without stopping the world.

        A P too many ends when its M next decides what to run.
        """
        cdef int was, i
        cdef PBase p
        cdef PyObject **at
        with cython.critical_section(self):
            while len(self.allp) < n:
                p = PBase(<int>len(self.allp))
                store_u64(&p.words.status, P_DEAD)
                self.allp.append(p)
                self.parray[p.id] = <PyObject *>p
                store_int(&self.nallp, p.id + 1)
        gil_lock(&self.lock)
        was = load_int(&self.words.nprocs)
        store_int(&self.words.nprocs, n)
        for i in range(n):
            if load_u64(&(<PBase>self.parray[i]).words.status) == P_DEAD:
                store_u64(&(<PBase>self.parray[i]).words.status, P_IDLE)
                (<PBase>self.parray[i]).link = self.pidle
                self.pidle = self.parray[i]
                gil_add_int(&self.words.npidle, 1)
        at = &self.pidle
        while at[0] != NULL:
            if (<PBase>at[0]).id < n:
                at = &(<PBase>at[0]).link
                continue
            store_u64(&(<PBase>at[0]).words.status, P_DEAD)
            at[0] = (<PBase>at[0]).link
            gil_add_int(&self.words.npidle, -1)
        gil_unlock(&self.lock)
        for i in range(n, load_int(&self.nallp)):
            if load_u64(&(<PBase>self.parray[i]).words.status) == P_DEAD:
                (<PBase>self.parray[i]).flush(self.globq)                            # A2
        if self.work_anywhere():             # S3
            self.kick()
        return was

    # -- Ms

    cdef MBase new_m(self):
        """Return a new M without a thread, or None if there are too many. Any thread."""
        cdef MBase m
        cdef int number
        try:
            return self.spare_ms.pop()
        except IndexError:
            number = add_int(&self.nallm, 1)
            if number > self.max_ms:
                add_int(&self.nallm, -1)
                if cas_int(&self.words.exhausted, 0, 1):
                    try:
                        self.thread_exhaustion()
                    except BaseException as err:         # our caller has a P in its hands (S6)
                        self.survive(err)
                return None
        m = MBase(number)
        self.allm.append(m)
        store_word(<uintptr_t *>&self.marray[number - 1], <uintptr_t><PyObject *>m)
        return m

    def first_m(self):
        """Return the M of the calling thread, which begins the run."""
        add_int(&self.words.nms, 1)
        return self.new_m()

    def drop_m(self, MBase m not None):
        """Keep an M without a thread for the next that is needed.

        It stays in its place, with the goroutines that were started on it: sysmon may still look at
        it. Its tick goes on, so that no slice of the next thread is taken for one of the last (A1).
        """
        gil_lock(&self.lock)
        m.tstate = NULL
        gil_unlock(&self.lock)
        store_int(&m.clock, -1)
        store_word(&m.nextp, 0)
        store_int(&m.note, 0)
        store_int(&m.boot, (m.boot + 1) & ~1)
        m.p = NULL
        m.lockedg = None
        m.leaving = m.spinning = m.spare = m.outside = False
        m.syscalls = m.bound = 0
        self.spare_ms.append(m)

    cdef bint launch(self, MBase m) except -1:
        """Start the thread of *m*; False if none can be had. A signal handler ends the run (U2)."""
        cdef int boot
        for _ in range(TURNS):
            boot = m.boot
            try:
                if not self.start_thread(m):
                    return False
            except BaseException as err:
                self.survive(err)
                if cas_int(&m.boot, boot, boot + 2):
                    continue
            add_int(&self.words.nms, 1)
            return True
        return False

    cdef bint bind(self, MBase m) noexcept:
        """Keep *m* for one goroutine, once more; False, but counted, if no M is left (U1)."""
        m.bound += 1
        return m.bound > 1 or add_int(&self.words.nbound, 1) < load_int(&self.words.nms)

    cdef int unbind(self, MBase m) noexcept:
        """Undo one bind()."""
        m.bound -= 1
        if m.bound == 0:
            add_int(&self.words.nbound, -1)
        return 0

    cdef MBase midleget(self):
        """Take an idle M, or None. Go: mget."""
        cdef PyObject *m
        gil_lock(&self.lock)
        m = self.midle
        if m != NULL:
            self.midle = (<MBase>m).link
            (<MBase>m).listed = False
            add_int(&self.words.nmidle, -1)
        gil_unlock(&self.lock)
        return <MBase>m if m != NULL else None

    cdef int give(self, MBase m, PBase p, bint spinning) except -1:
        """Give *p* to *m*, which sleeps or has not begun, and wake it."""
        m.spinning = spinning
        store_u64(&p.words.status, word_sched(m))
        store_word(&m.nextp, <uintptr_t><PyObject *>p)
        store_int(&m.note, 1)
        futex_wake(&m.note, 1)
        return 0

    def startm(self, PBase p not None, bint spinning):
        """Have an M run *p*, which the caller owns: an idle one, else a new one. Go: startm."""
        cdef MBase m
        while True:
            m = self.midleget()
            if m is not None:
                self.give(m, p, spinning)
                return
            m = self.new_m()
            if m is not None:
                self.give(m, p, spinning)
                if self.launch(m):
                    return
                self.drop_m(m)
            if spinning:
                spinning = False
                add_int(&self.words.nmspinning, -1)
            self.pidleput(p)                 # at the limit: an M that comes back will find it,
            self.wake_net_poller()           # but not one that has come before (S3)
            if load_int(&self.words.nmidle) == 0:
                return
            p = self.pidleget()
            if p is None:
                return

    def handoffp(self, PBase p not None):
        """Let others go on with *p*, which the caller owns and gives up. Go: handoffp."""
        if self.retire(p):
            return
        if p.has_work() or load_u64(&self.globq.len):
            self.startm(p, False)
        elif (load_int(&self.words.nmspinning) + load_int(&self.words.npidle) == 0
                and cas_int(&self.words.nmspinning, 0, 1)):
            self.startm(p, True)             # nobody looks for work: somebody must
        elif (load_i64(&self.words.lastpoll) != 0
                and load_int(&self.words.npidle) == load_int(&self.words.nprocs) - 1):
            self.startm(p, False)            # the last one: somebody must poll the network
        else:
            self.pidleput(p)
            self.after_idle()

    cdef int after_idle(self) except -1:
        """A P is idle, and the caller looks neither for work (S3) nor at the network (S4)."""
        cdef PBase p
        if self.work_anywhere():
            self.kick()
        elif (load_i64(&self.words.lastpoll) != 0
                and load_int(&self.words.npidle) == load_int(&self.words.nprocs)):
            p = self.pidleget()
            if p is not None:
                self.startm(p, False)
        return 0

    cdef int sleep_m(self, MBase m) except -1:
        """Sleep until *m* is given a P, is poked, or all is over.

        On the main thread it runs signal handlers, and what _pending has for that thread.
        """
        with nogil:
            while swap_int(&m.note, 0) == 0:
                futex_wait(&m.note, 0, -1)
                if load_int(&m.note) == 0:
                    break                    # a signal, perhaps
        self._take_nextp(m)
        Py_MakePendingCalls()
        return self.refuse_fork()

    cdef bint _take_nextp(self, MBase m) noexcept:
        cdef uintptr_t p = load_word(&m.nextp)
        if p == 0:
            return False
        store_word(&m.nextp, 0)
        m.p = <PyObject *>p
        return True

    def poke(self, MBase m not None):
        """Have *m* run Python's signal handlers, if it sleeps. Any thread."""
        store_int(&m.note, 1)
        futex_wake(&m.note, 1)

    def finish_all(self):
        """Every goroutine has ended: have every M leave. Any thread."""
        self.seal(True)                      # J3
        store_int(&self.words.finished, 1)
        for m in list(self.allm):
            self.poke(m)
        self.wake_net_poller()

    # -- waking

    cdef bint work_anywhere(self) noexcept:
        """Whether a queue has something (S3)."""
        cdef int i
        if load_u64(&self.globq.len):
            return True
        for i in range(load_int(&self.nallp)):
            if (<PBase>self.parray[i]).has_work():
                return True
        return False

    cdef int kick(self) except -1:
        """Work has been put where no M looks by itself: see that one does (S1, S3)."""
        if load_int(&self.words.npidle) == 0:
            return 0
        if load_i64(&self.words.lastpoll) == 0:
            self.wake_net_poller()
            return 0
        return self.wakep()

    cdef int orphan(self, PBase p) except -1:
        """Something has been queued to *p* by a thread that has lost it (A2)."""
        if load_u64(&p.words.status) == P_DEAD:
            p.flush(self.globq)
        return self.kick()

    cdef int wakep(self) except -1:
        """Start one more M for an idle P, unless one looks for work already. Go: wakep."""
        cdef PBase p
        if not self.handoff:                 # one M: it looks by itself before it blocks (S1)
            return 0
        while load_int(&self.words.nmspinning) == 0 and cas_int(&self.words.nmspinning, 0, 1):
            p = self.pidleget()
            if p is not None:
                self.startm(p, True)
                return 0
            add_int(&self.words.nmspinning, -1)
            if load_int(&self.words.npidle) == 0 or not self.work_anywhere():        # S3
                return 0
        return 0

    def wake_net_poller(self):
        """Break the thread that blocks in the network, if one does (S1). Go: wakeNetPoller."""
        cdef int rc
        if load_i64(&self.words.lastpoll) == 0:
            rc = netpollGenericInit(self.ps)             # it may be about to do that
            if rc == 0:
                rc = netpollBreak(&self.ps.ep)
            if rc != 0:
                throw(rc)
