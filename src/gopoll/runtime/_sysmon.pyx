"""sysmon: the thread that watches. It polls the network when nobody has for 10 ms.

One thread per scheduler, started first and without a P. It takes the GIL only when it has found
something to hand over. Go: sysmon, runtime/proc.go (go1.27).

S2: sysmon sets sysmonwait, then looks at npidle, then sleeps without end. Who leaves idleness
    lowers npidle first and then looks at sysmonwait. One of the two sees the other.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.stdint cimport int64_t, uint64_t, uintptr_t

from gopoll._atomic cimport (cas_i64, load_i64, load_int, load_u64, store_int)
from gopoll._netpoll cimport netpoll
from gopoll._throw cimport throw
from gopoll._timers cimport nanotime
from gopoll.runtime._p cimport (P_RUN, PBase, SchedBase, SchedWords, stateBits,
                                wake_note)
from gopoll.runtime._runq cimport OUT_CAP


cdef extern from *:
    """
    #include <linux/futex.h>
    #include <stdint.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>
    static void gopoll_futex_wait(int *word, int seen, int64_t ns) {
      struct timespec ts = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
      syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, ns < 0 ? (void *)0 : &ts, (void *)0, 0);
    }
    """
    void gopoll_futex_wait(int *word, int seen, int64_t ns) noexcept nogil

cdef enum:
    POLL_AFTER_NS = 10000000       # nobody has polled for so long: sysmon does
    SLICE_NS = 10000000            # a slice that has lasted so long is too long
    SLEEP_MIN_NS = 20000
    SLEEP_BUSY_NS = 2500000        # the longest sleep while a P runs (B4)
    SLEEP_MAX_NS = 10000000
    IDLE_CYCLES = 50               # so many uneventful cycles, then the sleep doubles
    DEEP_AFTER_NS = 50000000       # all Ps idle for so long: sleep until one is not


cdef class Sysmon:
    """The watcher of one scheduler."""

    def __init__(self, SchedBase sched not None, PBase p not None):
        self.sched = sched
        self.p0 = p

    def step(self, int64_t now):
        """Make one cycle as if it were *now* (monotonic ns); True if it polled the network."""
        cdef uintptr_t words[OUT_CAP]
        cdef int n
        cdef int64_t polls = self.polls
        with nogil:
            n = self.cycle(now, words)
        self.inject(words, n)
        return self.polls != polls

    cdef int cycle(self, int64_t now, uintptr_t *words) noexcept nogil:
        """Look once: how many *words* the network had for us, or a negative error."""
        cdef SchedWords *w = &self.sched.words
        cdef int64_t last = load_i64(&w.lastpoll)
        cdef uint64_t status = load_u64(&self.p0.words.status)
        cdef Seen *seen = &self.seen[0]
        # A1: the status word carries the tick, so equal words are one slice.
        if status != seen.status:
            seen.status = status
            seen.when = now
            seen.counted = False
        elif status & ((1 << stateBits) - 1) == P_RUN and not seen.counted:
            if now - seen.when >= SLICE_NS:
                seen.counted = True
                self.overruns += 1
        if last == 0 or last + POLL_AFTER_NS >= now:
            return 0
        if not cas_i64(&w.lastpoll, last, now):
            return 0
        self.polls += 1
        return netpoll(self.sched.ps, 0, words, OUT_CAP)

    cdef int inject(self, uintptr_t *words, int n) except -1:
        """Hand what the network had to the scheduler. Attached.

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
            found.append(g)
        self.sched.incidlelocked(-1)
        try:
            self.sched.inject_glist(found)
        finally:
            self.sched.incidlelocked(1)
        return n

    def loop(self):
        """Run until stop(). In a thread of its own. Go: sysmon."""
        cdef uintptr_t words[OUT_CAP]
        cdef SchedWords *w = &self.sched.words
        cdef int64_t now, cap, delay = SLEEP_MIN_NS, idle_since = 0
        cdef int n, note, idle = 0
        with nogil:
            while load_int(&w.stop) == 0:
                note = load_int(&w.note)
                gopoll_futex_wait(&w.note, note, delay)
                now = nanotime()
                if load_int(&w.npidle) == 0:
                    idle_since = 0
                elif idle_since == 0:
                    idle_since = now
                elif now - idle_since >= DEEP_AFTER_NS:
                    note = load_int(&w.note)
                    store_int(&w.sysmonwait, 1)
                    if load_int(&w.npidle) != 0 and load_int(&w.stop) == 0:      # S2
                        self.sleeps += 1
                        gopoll_futex_wait(&w.note, note, -1)
                    store_int(&w.sysmonwait, 0)
                    idle_since = 0
                    now = nanotime()
                n = self.cycle(now, words)
                if n != 0:
                    with gil:
                        self.inject(words, n)
                idle = idle + 1 if n == 0 else 0
                if idle > IDLE_CYCLES:
                    delay *= 2
                cap = SLEEP_MAX_NS if load_int(&w.npidle) != 0 else SLEEP_BUSY_NS
                if delay > cap:
                    delay = cap

    def stop(self):
        """Have loop() return at once. Any thread."""
        store_int(&self.sched.words.stop, 1)
        wake_note(&self.sched.words)
