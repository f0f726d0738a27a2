"""sysmon: the thread that watches. It polls the network when nobody has for 10 ms, takes the P from
a goroutine that keeps it for 10 ms, and says who stalls.

One thread per scheduler, started first and without a P. It takes the GIL only when it has found
something to hand over or to say. Go: sysmon, retake, runtime/proc.go (go1.27).

A7: a thread that waits for the GIL looks stuck. sysmon sees an old slice without the GIL, attaches,
    and looks again; only if it is the same slice still does it swap RUN -> RETAKEN (A1).
S7: sysmon names the slice that it may tell of in the M's watched, then looks whether it goes on
    still. The M ends a slice, then looks at watched, then lets the goroutine end. One of them sees
    the other: the goroutine's name is there when it is told of.
S2: see _sched.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.stdint cimport int64_t, uint64_t, uintptr_t

from gopoll._atomic cimport (add_int, bump, cas_i64, cas_u64, futex_wait, load_i64, load_int,
                             load_u64, load_word, peek_i64, poke_i64, poke_int, store_int,
                             store_u64)
from gopoll._epoll cimport netpollBreak
from gopoll._netpoll cimport netpoll
from gopoll._pollserver cimport pollserver_forked
from gopoll._throw cimport throw
from gopoll._timers cimport nanotime
from gopoll.runtime._base cimport SchedWords, wake_sysmon
from gopoll.runtime._exec cimport ExecBase
from gopoll.runtime._g cimport G_RUNNABLE, GBase
from gopoll.runtime._p cimport (P_RETAKEN, P_RUN, MBase, PBase, midMask, stateBits,
                                stateMask)
from gopoll.runtime._runq cimport OUT_CAP
from gopoll.runtime._stall cimport (Thread, cpu_ns, cpus_ns, gil_was_held, look_at, stall_limit,
                                    stall_wanted)

cdef enum:
    POLL_AFTER_NS = 10000000       # nobody has polled for so long: sysmon does
    SLICE_NS = 10000000            # a slice that has lasted so long is too long
    SLEEP_MIN_NS = 20000
    SLEEP_BUSY_NS = 2500000        # the longest sleep while a P runs (B4)
    SLEEP_MAX_NS = 10000000
    IDLE_CYCLES = 50               # so many uneventful cycles, then the sleep doubles
    CALM_AFTER_NS = 1000000000     # nobody has been without a P for so long: the interval goes back
    DEEP_AFTER_NS = 50000000       # all Ps idle for so long: sleep until one is not
    LATE = 1                       # what look() has found
    STALL = 2
    CALM = 4
    CROWDED = 8

# While a goroutine runs without a P, or a thread of the program has kept one that came out of the
# network from the GIL (B4), and for a second after: who computes once mostly does it again, and
# sysmon would have to wait for the GIL for as long as the usual interval.
SWITCH_INTERVAL = 0.0005


cdef class Sysmon:
    """The watcher of one scheduler."""

    def __init__(self, ExecBase sched not None, int64_t trace_ns=0):
        self.sched = sched
        self.trace_ns = trace_ns

    def step(self, int64_t now):
        """Make one cycle as if it were *now* (monotonic ns); True if it polled the network."""
        cdef uintptr_t words[OUT_CAP]
        cdef int n, want
        cdef int64_t polls = self.counts.polls
        with nogil:
            n = self.poll(now, words)
            want = self.look(now)
        self.inject(words, n)
        if want:
            self.attend(want, now)
        return self.counts.polls != polls

    @property
    def polls(self):
        """How many network polls it has made."""
        return peek_i64(&self.counts.polls)

    @property
    def overruns(self):
        """How many slices have kept a P for 10 ms."""
        return peek_i64(&self.counts.overruns)

    @property
    def retakes(self):
        """How many Ps it has taken from such."""
        return peek_i64(&self.counts.retakes)

    @property
    def starved(self):
        """How many Ps it has left alone because the GIL was not to be had."""
        return peek_i64(&self.counts.starved)

    @property
    def stalls(self):
        """How many slices have lasted for the stall threshold."""
        return peek_i64(&self.counts.stalls)

    @property
    def sleeps(self):
        """How many deep sleeps it has had."""
        return peek_i64(&self.counts.sleeps)

    @property
    def lowered(self):
        """How often the interpreter's switch interval has been lowered for this run (B4)."""
        return peek_i64(&self.counts.lowered)

    @property
    def lowered_ns(self):
        """For how long it has been so, in ns, up to now. In one piece with a GIL; without one 0."""
        cdef int64_t since = peek_i64(&self.counts.low_since)
        return peek_i64(&self.counts.lowered_ns) + (nanotime() - since if since else 0)

    # -- without the GIL

    cdef int poll(self, int64_t now, uintptr_t *words) noexcept nogil:
        """Poll the network if nobody has: how many *words* it had for us, or a negative error."""
        cdef SchedWords *w = &self.sched.words
        cdef int64_t last = load_i64(&w.lastpoll)
        cdef int n = 0
        if last == 0 or last + POLL_AFTER_NS >= now:
            return 0
        add_int(&w.handing, 1)               # S8: until inject()
        if cas_i64(&w.lastpoll, last, now):
            bump(&self.counts.polls, 1)
            n = netpoll(self.sched.ps, 0, words, OUT_CAP)
        if n == 0:
            self.handed_over()
        return n

    cdef void handed_over(self) noexcept nogil:
        """There is nothing in hand any more: who took it for work looks for a deadlock again (S8).

        Who is about to block sets lastpoll to 0 and then looks at handing.
        """
        cdef SchedWords *w = &self.sched.words
        add_int(&w.handing, -1)
        if (load_i64(&w.lastpoll) == 0 and load_int(&w.npidle) == load_int(&w.nprocs)
                and load_int(&self.sched.ps.inited)):
            netpollBreak(&self.sched.ps.ep)

    cdef int look(self, int64_t now) noexcept nogil:
        """Look at every slice under way: what there is to do about them."""
        cdef int i, k, want = 0
        cdef uint64_t status
        cdef Seen *seen
        cdef Slice *s
        for i in range(load_int(&self.sched.nallp)):
            seen = &self.seen[i]
            s = &seen.slice
            status = load_u64(&(<PBase>self.sched.parray[i]).words.status)
            if status != seen.status or status & stateMask != P_RUN:
                seen.status = status         # it carries the tick: equal words are one slice
                seen.late = seen.counted = False
                s.since = now
                continue
            if now - s.since < SLICE_NS:
                continue
            if not seen.counted:
                k = <int>((status >> stateBits) & midMask) - 1       # the M's place
                s.m = <PyObject *>load_word(<uintptr_t *>&self.sched.marray[k])
                if s.m == NULL:
                    continue                 # it has just ended
                s.gid = load_i64(&(<MBase>s.m).gid)
                store_u64(&(<MBase>s.m).watched, status)                             # S7
                if load_u64(&(<PBase>self.sched.parray[i]).words.status) != status:
                    continue
                s.word = status
                s.due = s.stalls = s.report = 0
                seen.counted = True
                bump(&self.counts.overruns, 1)
            seen.late = self.sched.handoff and self.needs_others(i)
            if seen.late:
                want |= LATE
            if self.watch(s, now):
                want |= STALL
        k = 0
        for i in range(self.nstuck):
            s = &self.stuck[i]
            if load_u64(&(<MBase>s.m).runword) != s.word:
                continue                     # it has come back
            if self.watch(s, now):
                want |= STALL
            self.stuck[k] = s[0]
            k += 1
        self.nstuck = k
        if load_i64(&self.sched.words.crowded) > self.crowded:
            self.crowded = load_i64(&self.sched.words.crowded)
            if self.sched.handoff:                                               # B4
                self.stuck_ns = now
                if not self.low:
                    want |= CROWDED
        if k:
            self.stuck_ns = now
        elif self.low and now - self.stuck_ns >= CALM_AFTER_NS:
            want |= CALM
        return want

    cdef bint watch(self, Slice *s, int64_t now) noexcept nogil:
        """Look at a slice that has lasted too long: whether it is to be reported."""
        s.cpu = cpu_ns(load_int(&(<MBase>s.m).clock))
        s.cpus = cpus_ns()
        if s.due == 0:
            s.due = stall_limit()
        if now - s.since < s.due:
            return False
        if not s.stalls:
            s.stalls = True
            bump(&self.counts.stalls, 1)
        s.report = stall_wanted()
        return s.report

    cdef bint needs_others(self, int i) noexcept nogil:
        """Whether anybody could do something with the P: there is work, or nobody else looks."""
        return ((<PBase>self.sched.parray[i]).has_work() or load_u64(&self.sched.globq.len)
                or load_int(&self.sched.words.npidle)
                + load_int(&self.sched.words.nmspinning) == 0)

    # -- attached

    cdef int inject(self, uintptr_t *words, int n) except -1:
        """Hand what the network had to the scheduler.

        nmidlelocked is lowered around it: the Ms that it will start are counted as running before
        they do, so that nobody sees a deadlock in between (Go: sysmon, checkdead).
        """
        cdef int i
        if n == 0:
            return 0
        if n < 0:
            throw(n)
        found = []
        for i in range(n):
            g = <object><PyObject *>words[i]
            Py_DECREF(g)
            if isinstance(g, GBase):
                poke_int(&(<GBase>g).state, G_RUNNABLE)
                poke_i64(&(<GBase>g).since_ns, peek_i64(&self.sched.words.now))
            found.append(g)
        self.sched.incidlelocked(-1)
        try:
            self.sched.inject_glist(found)
        finally:
            self.sched.incidlelocked(1)
            self.handed_over()
        return n

    cdef int attend(self, int want, int64_t before) except -1:
        """Do what look() has found at *before*, when we were not attached."""
        cdef int i
        cdef int64_t now = nanotime(), waited
        cdef Seen *seen
        waited = now - before if now > before else 0
        for i in range(load_int(&self.sched.nallp)):
            seen = &self.seen[i]
            if seen.counted:
                self.judge(&seen.slice, waited)
            if seen.late:
                seen.late = False
                self.retake(i, waited, nanotime())
        for i in range(self.nstuck):
            self.judge(&self.stuck[i], waited)
        if want & CROWDED:
            self.lower()
        if want & CALM and self.nstuck == 0:
            self.restore()
        return 0

    cdef int retake(self, int i, int64_t waited, int64_t now) except -1:
        """Take a P from the slice that has had it for too long, if it has it still (A1, A7)."""
        cdef PBase p = <PBase>self.sched.parray[i]
        cdef Seen *seen = &self.seen[i]
        cdef int64_t cpu
        if load_u64(&p.words.status) != seen.status:
            return 0
        cpu = cpu_ns(load_int(&(<MBase>seen.slice.m).clock)) - seen.slice.cpu
        if waited > SLICE_NS and cpu < waited // 8 and 2 * waited > now - seen.slice.since:
            bump(&self.counts.starved, 1)                # it waits for the GIL, as we did
            return 0
        if not cas_u64(&p.words.status, seen.status, P_RETAKEN):
            return 0
        bump(&self.counts.retakes, 1)
        if self.nstuck < MAX_STUCK:
            self.stuck[self.nstuck] = seen.slice
            self.nstuck += 1
        self.stuck_ns = now
        self.lower()
        self.sched.handoffp(p)
        return 1

    cdef int lower(self) except -1:
        if not self.low:
            self.low = True
            if self.sched.lower_switch_interval(SWITCH_INTERVAL):
                bump(&self.counts.lowered, 1)
                poke_i64(&self.counts.low_since, nanotime())
        return 0

    cdef int restore(self) except -1:
        cdef int64_t since = peek_i64(&self.counts.low_since)
        self.low = False
        if since:
            bump(&self.counts.lowered_ns, nanotime() - since)
            poke_i64(&self.counts.low_since, 0)
        self.sched.restore_switch_interval()
        return 0

    cdef int judge(self, Slice *s, int64_t waited) except -1:
        """Tell sched.py what a slice stalls in, if it is due by now. Looks at its thread twice.

        waited: how long we had to wait for the GIL after look().
        """
        cdef MBase m = <MBase>s.m
        cdef Thread t = Thread(&m.runword, s.word, load_int(&m.clock), &m.tstate,
                               &self.sched.lock, s.cpu, s.cpus)
        if s.due == 0 or nanotime() - s.since < s.due:
            return 0
        if load_u64(&m.runword) != s.word and not gil_was_held(&t, waited):
            return 0                         # it has come back while we waited
        if not s.stalls:
            s.stalls = True
            bump(&self.counts.stalls, 1)
        s.report = False
        found = look_at(&t, waited, m.ident) if stall_wanted() else None
        if found is not None:
            name = self.sched.late_name(m, s.gid)
            s.due = self.sched.stalled(s.gid, name, nanotime() - s.since, s.due, *found)
        return 0

    # -- the thread

    def loop(self):
        """Run until stop(). In a thread of its own. Go: sysmon."""
        cdef uintptr_t words[OUT_CAP]
        cdef SchedWords *w = &self.sched.words
        cdef int64_t now, cap, delay = SLEEP_MIN_NS, idle_since = 0, traced = nanotime()
        cdef int n, want, note, idle = 0
        with nogil:
            while load_int(&w.stop) == 0:
                note = load_int(&w.note)
                futex_wait(&w.note, note, delay)
                now = nanotime()
                if load_int(&w.npidle) < load_int(&w.nprocs) or self.trace_ns or self.low:
                    idle_since = 0
                elif idle_since == 0:
                    idle_since = now
                elif now - idle_since >= DEEP_AFTER_NS:
                    note = load_int(&w.note)
                    store_int(&w.sysmonwait, 1)
                    if load_int(&w.npidle) == load_int(&w.nprocs) and load_int(&w.stop) == 0:
                        bump(&self.counts.sleeps, 1)                                 # S2
                        futex_wait(&w.note, note, -1)
                    store_int(&w.sysmonwait, 0)
                    idle_since = 0
                    now = nanotime()
                poke_i64(&w.now, now)
                n = self.poll(now, words)
                want = self.look(now)
                if n != 0 or want or (self.trace_ns and now - traced >= self.trace_ns):
                    with gil:
                        try:
                            self.inject(words, n)
                            if want:
                                self.attend(want, now)
                            if self.trace_ns and now - traced >= self.trace_ns:
                                traced = now
                                self.sched.trace(now)
                            self.sched.refuse_fork()             # a hook may have forked
                        except BaseException as err:
                            if pollserver_forked(self.sched.ps):
                                self.sched.end_child(err)
                            self.sched.die(err)
                idle = idle + 1 if n == 0 and want & LATE == 0 else 0
                if idle == 0:
                    delay = SLEEP_MIN_NS if want & LATE else delay
                elif idle > IDLE_CYCLES:
                    delay *= 2
                cap = SLEEP_MAX_NS if load_int(&w.npidle) == load_int(&w.nprocs) else SLEEP_BUSY_NS
                if delay > cap:
                    delay = cap

    def stop(self):
        """Have loop() return at once. Any thread."""
        store_int(&self.sched.words.stop, 1)
        wake_sysmon(&self.sched.words)
