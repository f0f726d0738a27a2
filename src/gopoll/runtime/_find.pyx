"""FindBase: how an M finds work, and what it does when there is none.

Called by sched.py, which decides in what order, on the thread of an M. Go: runtime/proc.go,
findRunnable, stealWork, stopm, checkdead (go1.27). S1, S3 and S4: see _sched; J3: see _base.

S8: who takes goroutines or calls off their list without a P counts itself in `handing` before, and
    until they are on another list or have been made; in the network, before lastpoll is given up:
    sysmon's swap of it and block()'s store of it come after. Who looks for a deadlock has set
    lastpoll to 0. It sees that every P is idle, then looks at the Ps and slices (A4), then at
    handing, then at the lists, and then that no P has left the idle list meanwhile (`taken`): what
    has no P and is on no list is in hand, and what is on a list stays there.
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.errno cimport EBADF, EINTR
from libc.stdint cimport int64_t, uint64_t, uintptr_t

from gopoll._atomic cimport (add_i64, add_int, bump, cas_i64, cas_int, futex_wait, gil_lock,
                             gil_unlock, load_i64, load_int, load_u64, load_word, peek_i64,
                             poke_i64, poke_int, release_i64, store_i64, store_int, swap_i64,
                             swap_int, swap_word)
from gopoll._host cimport HostWaiter
from gopoll._netpoll cimport netpoll
from gopoll._pollserver cimport netpollWaiters, pollserver_forked
from gopoll._throw cimport throw
from gopoll._timers cimport nanotime
from gopoll.runtime._g cimport G_RUNNABLE, GBase
from gopoll.runtime._p cimport P_IDLE, P_RUN, MBase, PBase, stateMask
from gopoll.runtime._runq cimport OUT_CAP
from gopoll.runtime._sched cimport MAX_MS, SchedBase

from gopoll.errors import ClosedError
from gopoll.runtime.report import tell

cdef enum:
    GLOBAL_BATCH = 128                 # Go: half a local queue
    VAIN_MOST = 2        # after so many polls that find nothing most of the next are left out
    VAIN_POLLS = 32
    CROWDED_NS = 2000000               # who waits so long for the GIL shares it with who computes


cdef class Posted:
    """A call that is counted as a goroutine until it has been made (J3)."""

    def __init__(self, fn):
        self.fn = fn


cdef class FindBase(SchedBase):
    """SchedBase and the search for work."""

    def run_callable(self, fn):
        """Called for a waiter that is no goroutine."""
        raise NotImplementedError

    def check_end(self):
        """Called when what run() waits for may have ended; again if it raises."""
        raise NotImplementedError

    def check_dead(self):
        """Called when every P is idle and no descriptor, deadline or timer is waited for."""
        raise NotImplementedError

    cdef int stop_spinning(self, MBase m) except -1:
        """*m* has found work: if there may be more, another looks on. Go: resetspinning."""
        m.spinning = False
        if add_int(&self.words.nmspinning, -1) == 0 and load_int(&self.words.npidle):
            self.wakep()
        return 0

    cdef int stopm(self, MBase m) except -1:
        """Sleep as an idle M until there is a P for it, or all is over. Go: stopm."""
        if m.spare:                          # a new one, and listed: it may be given a P already
            m.spare = False
        elif self._take_nextp(m):            # a new one: it was made for a P
            return 0
        else:
            self.list_m(m)
        try:
            if load_int(&self.words.npidle):
                self.after_idle()            # where startm had come to the limit
            self.maybe_dead(False)
            while m.p == NULL and not load_int(&self.words.finished):
                self.sleep_m(m)
        finally:
            if m.p == NULL and not pollserver_forked(self.ps):                       # A9
                self._unlist(m)
        return 0

    cdef int list_m(self, MBase m) noexcept:
        """Put *m* on the idle list."""
        gil_lock(&self.lock)
        m.link = self.midle
        self.midle = <PyObject *>m
        m.listed = True
        add_int(&self.words.nmidle, 1)
        gil_unlock(&self.lock)
        return 0

    cdef bint spare_m(self) except -1:
        """Start an M that is idle until it is given a P; False if there can be none (U1)."""
        cdef MBase m = self.new_m()
        cdef PBase p
        if m is None:
            return False
        m.spare = True
        self.list_m(m)                       # before it begins: startm need not make another
        if self.launch(m):
            return True
        self._unlist(m)
        p = <PBase>m.p if m.p != NULL else None
        if m.spinning:                       # startm has counted it: it will not look for work (S3)
            m.spinning = False
            add_int(&self.words.nmspinning, -1)
        self.drop_m(m)
        if p is not None:
            self.handoffp(p)
        return False

    def _unlist(self, MBase m):
        """Take *m* off the idle list, or wait for the P that it is about to be given."""
        cdef PyObject *at
        cdef PyObject *before = NULL
        gil_lock(&self.lock)
        if m.listed:
            at = self.midle
            while at != <PyObject *>m:
                before = at
                at = (<MBase>at).link
            if before == NULL:
                self.midle = m.link
            else:
                (<MBase>before).link = m.link
            m.listed = False
            add_int(&self.words.nmidle, -1)
            gil_unlock(&self.lock)
            return
        gil_unlock(&self.lock)
        with nogil:
            while load_word(&m.nextp) == 0:
                if swap_int(&m.note, 0) == 0:
                    futex_wait(&m.note, 0, -1)
        self._take_nextp(m)

    cdef int find_runnable(self, MBase m) except -1:
        """Put work into the queue of m's P, waiting for it if need be. Go: findRunnable.

        The order is Go's: now and then the global queue and the network before all else (a due
        timer must not wait for an empty queue), then what is local, then a batch of the global
        queue, then the network without waiting, then what others have; at last the P is given up,
        and the last idle M waits in the network.
        """
        if (<PBase>m.p).has_work():
            if not self.drop_excess(m):
                self.globq_get(m, 1)
                self.poll(m)
        elif self.globq_get(m, 0):
            self.poll(m)         # goroutines that only yield must not keep the network waiting
        elif not (self.poll_last(m) or self.steal(m)):
            self.idle(m)
        return 0

    cdef int globq_get(self, MBase m, int most) except -1:
        """Move goroutines of the global queue to m's P: *most*, or its fair share if 0.

        Their number. Go: globrunqget, globrunqgetbatch.
        """
        cdef size_t n = load_u64(&self.globq.len)
        if n == 0:
            return 0
        if most == 0:
            n = n // <size_t>load_int(&self.words.nprocs) + 1
            most = GLOBAL_BATCH if n > GLOBAL_BATCH else <int>n
        return self.globq.move((<PBase>m.p).runq, most)

    cdef bint steal(self, MBase m) except -1:
        """Move half of another P's queue to m's. Whether it found something. Go: stealWork."""
        cdef PBase mine = <PBase>m.p
        cdef PBase other
        cdef int i, start, turn, n = load_int(&self.nallp)
        cdef uintptr_t word
        if n < 2:
            return False
        if not m.spinning:
            if (2 * load_int(&self.words.nmspinning)
                    >= load_int(&self.words.nprocs) - load_int(&self.words.npidle)):
                return False
            m.spinning = True
            add_int(&self.words.nmspinning, 1)
        for turn in range(4):
            m.seed ^= m.seed << 13
            m.seed ^= m.seed >> 7
            m.seed ^= m.seed << 17
            start = <int>(m.seed % <uint64_t>n)
            for i in range(n):
                other = <PBase>self.parray[(start + i) % n]
                if other is mine:
                    continue
                if other.runq.steal(mine.runq):
                    bump(&m.counts.steals, 1)
                    return True
                if turn == 3:                # Go: what it is about to run, at last
                    word = swap_word(&other.words.runnext, 0)
                    if word:
                        mine.runq.push_words(&word, 1)
                        bump(&m.counts.steals, 1)
                        return True
        return False

    cdef int poll_last(self, MBase m) except -1:
        """poll() where nothing else is left to run, and as a rule not at all if that is in vain.

        What follows waits in the network anyway: a server whose clients take turns would make two
        system calls to wait for each. One in VAIN_POLLS is made to see whether that has changed.
        """
        cdef int n
        m.vain += 1
        if m.vain > VAIN_MOST:
            if m.vain % VAIN_POLLS:
                return 0
            m.vain = VAIN_POLLS                  # not on and on: it would overflow within hours
        n = self.poll(m)
        if n:
            m.vain = 0
        return n

    cdef int poll(self, MBase m) except -1:
        """Poll the network without blocking; how many became ready.

        The GIL is kept (B3). lastpoll is set here too (Go: only after blocking): while this
        thread polls often, sysmon need not take the GIL to do the same.
        """
        cdef uintptr_t words[OUT_CAP]
        cdef int n
        cdef int64_t now, last = load_i64(&self.words.lastpoll)
        if last == 0 or not cas_int(&self.words.pollingnet, 0, 1):
            return 0
        n = netpoll(self.ps, 0, words, OUT_CAP)
        now = nanotime()
        poke_i64(&self.words.now, now)
        cas_i64(&self.words.lastpoll, last, now)             # S4: another may block by now
        store_int(&self.words.pollingnet, 0)
        return self.take(m, n, words)

    cdef int take(self, MBase m, int n, uintptr_t *words) except -1:
        """Queue what netpoll returned: goroutines to m's P, or to all if it has none."""
        cdef int i, k = 0
        fns = None
        if n < 0:
            if n != -EINTR:
                throw(n)
            PyErr_CheckSignals()
            return self.refuse_fork()
        for i in range(n):
            if isinstance(<object><PyObject *>words[i], GBase):
                poke_int(&(<GBase><PyObject *>words[i]).state, G_RUNNABLE)
                poke_i64(&(<GBase><PyObject *>words[i]).since_ns, peek_i64(&self.words.now))
                words[k] = words[i]
                k += 1
            else:
                fn = <object><PyObject *>words[i]
                Py_DECREF(fn)
                if fns is None:
                    fns = []
                fns.append(fn)
        if k and m.p != NULL:
            (<PBase>m.p).runq.push_words(words, k)
            if k > 1 and load_int(&self.words.npidle):
                self.wakep()
        elif k:
            self.globq.push_words(words, k)
            self.kick()
        if fns is not None:
            for fn in fns:                   # all of them, whatever one of them raises
                try:
                    self.call(fn)
                except BaseException as err:
                    self.survive(err)
                if isinstance(fn, Posted):
                    self.count_out()
        return n

    cdef int call(self, fn) except -1:
        """Do what a waiter stands for that is no goroutine."""
        if not isinstance(fn, HostWaiter):
            self.run_callable((<Posted>fn).fn if isinstance(fn, Posted) else fn)
            return 0
        try:                                 # it wakes a task of a guest's host
            (<HostWaiter>fn).wake()
        except Exception as err:
            tell(err)
        return 0

    def empty_queues(self):
        """Drop what a run that was cut short has left in its queues, which refer to it (J3)."""
        for p in self.allp:
            (<PBase>p).flush(self.globq)
        while self.globq.pop() is not None:
            pass

    cdef int count_out(self) except -1:
        """A call that was posted has been made, or has failed (J3)."""
        add_i64(&self.words.live, -1)
        if load_int(&self.words.ending):
            try:
                self.check_end()
            except BaseException as err:
                self.survive(err)
        return 0

    def post(self, fn):
        """Have *fn* called between two goroutines; run() does not end before (J3). Any thread.

        ClosedError if it is over.
        """
        cdef Posted call = Posted(fn)
        add_i64(&self.words.live, 1)
        if load_i64(&self.words.live) < 0:
            add_i64(&self.words.live, -1)
            raise ClosedError("post", "", None, None, "use of a run() that has ended", errno=EBADF)
        try:
            self.poller.post(call)
        except BaseException:
            add_i64(&self.words.live, -1)
            raise

    cdef int idle(self, MBase m) except -1:
        """There is nothing to run: give the P up, wait in the network or sleep.

        Returns with or without a P. Go: the second half of findRunnable.
        """
        cdef PBase p = <PBase>m.p
        cdef bint spinning = m.spinning
        m.p = NULL
        if not self.retire(p):
            self.pidleput(p)
        if spinning:
            m.spinning = False
            add_int(&self.words.nmspinning, -1)
        if self.work_anywhere():             # S3
            with nogil:
                pass                         # whose work it is may wait until we let go
            self.acquirep(m)
            return 0
        if load_int(&self.words.finished):
            return 0
        if swap_i64(&self.words.lastpoll, 0) != 0:
            self.block(m)
        else:
            self.stopm(m)
        return 0

    cdef int block(self, MBase m) except -1:
        """Wait in the network, without a P, lastpoll being 0: one M at a time."""
        cdef uintptr_t words[OUT_CAP]
        cdef int n = 0
        cdef int64_t woke = 0, now
        try:
            try:
                self.maybe_dead(True)
                if (load_u64(&self.globq.len) == 0 and not load_int(&self.words.finished)    # S1
                        and not (load_int(&self.words.npidle) and self.work_anywhere())):  # S3
                    with nogil:
                        n = netpoll(self.ps, -1, words, OUT_CAP)
                        woke = nanotime()
            finally:
                add_int(&self.words.handing, 1)          # S8: before another may block, and look
                now = nanotime()
                poke_i64(&self.words.now, now)
                release_i64(&self.words.lastpoll, now)
                if woke != 0 and now - woke > CROWDED_NS:
                    store_i64(&self.words.crowded, now)  # sysmon has them hand the GIL on sooner
            if n > 1:
                m.vain = 0                   # they come in numbers: another may be there already
            self.acquirep(m)
            return self.take(m, n, words)
        finally:
            add_int(&self.words.handing, -1)

    def start_idle(self, int n):
        """Start an M for each of up to *n* idle Ps: so much has been queued for all."""
        cdef PBase p
        while n > 0 and self.handoff:
            p = self.pidleget()
            if p is None:
                break
            self.startm(p, False)
            n -= 1

    cdef bint hopeless(self) noexcept:
        return (netpollWaiters(self.ps) <= load_int(&self.words.syswaiters)
                and load_i64(&self.ps.timers.first) == 0
                and load_i64(&self.ps.ready.len) == 0
                and load_u64(&self.globq.len) == 0)

    cdef bint anyone_running(self) noexcept:
        """Whether an M has a P, is inside a slice without, or ends one without (A4)."""
        cdef int i
        cdef PyObject *m
        for i in range(load_int(&self.nallp)):           # one too many counts in no npidle
            if load_u64(&(<PBase>self.parray[i]).words.status) & stateMask != P_IDLE:
                return True
        for i in range(min(load_int(&self.nallm), MAX_MS)):
            m = <PyObject *>load_word(<uintptr_t *>&self.marray[i])
            if m != NULL and (load_u64(&(<MBase>m).runword) & stateMask == P_RUN
                              or load_int(&(<MBase>m).settling)):
                return True
        return False

    cdef bint quiet(self) noexcept:
        cdef uint64_t taken = load_u64(&self.words.taken)
        return (load_int(&self.words.npidle) == load_int(&self.words.nprocs)
                and self.hopeless()                      # else it is not worth a closer look
                and not self.anyone_running()
                and load_int(&self.words.handing) == 0
                and self.hopeless() and not self.work_anywhere()
                and load_int(&self.words.npidle) == load_int(&self.words.nprocs)
                and load_u64(&self.words.taken) == taken
                and not load_int(&self.words.finished))

    @property
    def is_quiet(self):
        """Whether nothing runs, nothing is queued, and nothing in the network or a timer can wake.

        True is to be relied on by who has set lastpoll to 0 (S8).
        """
        return self.quiet()

    @property
    def is_hopeless(self):
        """Whether no descriptor and no timer is waited for, and nothing is queued for all.

        Seen from a due callable, whose own timer is out of the heap.
        """
        return self.hopeless()

    cdef int maybe_dead(self, bint polls) except -1:
        """Look whether anything can ever run again. Go: checkdead.

        Only who is about to block in the network can tell: until it has queued what it got there,
        a goroutine may be on no list. Another M has it look again.
        """
        if self.quiet():
            if polls:
                self.check_dead()
            else:
                self.wake_net_poller()
        return 0
