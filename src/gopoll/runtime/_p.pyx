"""P, the right to run goroutines, and M, a thread that does. Their words, and who owns what.

Called by _sched and by sysmon. Go: runtime/runtime2.go, p and m (go1.27).

A1: a P has one status word. An M stores RUN(m, tick) before it resumes a goroutine and swaps
    RUN -> SCHED after it. sysmon may only swap RUN -> RETAKEN, for the tick it has seen, and the M
    itself RUN -> SCHED when it gives its P up inside a slice. Who wins the swap owns the P.
A2: only the M that owns a P in SCHED runs or idles it. A goroutine whose P may be gone pushes to
    the queue of its P and then looks at the status word: if the P is not its own any more, whoever
    took it may have looked at the queue before, so the push is followed by a kick (ready_g). A dead
    P's queue is emptied into the global one by who kills it and by who sees it dead: an M that is
    never out of work robs nobody.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint64_t, uintptr_t

from gopoll._atomic cimport (cas_int, gil_swap_word, load_u64, load_word, peek_i64, peek_int,
                             poke_int, store_int, swap_word)
from gopoll.runtime._runq cimport OUT_CAP, RunQ


cdef extern from *:
    """
    #include <pthread.h>
    #include <time.h>
    static int gopoll_cpu_clock(void) {
      clockid_t id;
      return pthread_getcpuclockid(pthread_self(), &id) == 0 ? (int)id : -1;
    }
    """
    int gopoll_cpu_clock()

cdef extern from "Python.h":
    void *PyThreadState_Get() nogil

cdef enum:
    CHAIN = 8                  # so many goroutines in a row may come from runnext


cdef class PBase:
    """The right to run goroutines: a local queue, the one to run next, and one status word."""

    def __init__(self, int number):
        self.id = number
        self.runq = RunQ()

    def __dealloc__(self):
        if self.words.runnext:
            Py_DECREF(<object><PyObject *>self.words.runnext)

    cdef int ready(self, object g) except -1:
        """Queue *g* to run next; the one that was to run next goes to the tail. Go: runqput."""
        cdef uintptr_t old
        if peek_int(&self.chain) >= CHAIN:   # a pair that wakes each other must not starve others
            return self.runq.push(g)
        Py_INCREF(g)
        old = swap_word(&self.words.runnext, <uintptr_t><PyObject *>g)
        if old:
            return self.runq.push_words(&old, 1)
        return 0

    cdef object pop(self):
        """Take what is to be run now, or None. Go: runqget."""
        cdef uintptr_t next
        if load_word(&self.words.runnext):
            next = gil_swap_word(&self.words.runnext, 0)
            if next:
                poke_int(&self.chain, self.chain + 1)
                g = <object><PyObject *>next
                Py_DECREF(g)
                return g
        poke_int(&self.chain, 0)
        return self.runq.pop()

    cdef bint has_work(self) noexcept nogil:
        """Whether its queue has something. Any thread."""
        return load_u64(&self.runq.len) != 0 or load_word(&self.words.runnext) != 0

    cdef int flush(self, RunQ to) except -1:
        """Move everything to *to*. Any thread."""
        cdef uintptr_t next = swap_word(&self.words.runnext, 0)
        if next:
            to.push_words(&next, 1)
        while self.runq.move(to, OUT_CAP):
            pass
        return 0

    @property
    def status(self):
        """(state, m, tick) as sysmon sees them."""
        cdef uint64_t word = load_u64(&self.words.status)
        return word & stateMask, (word >> stateBits) & midMask, word >> tickShift

    @property
    def schedtick(self):
        """How many slices this P has begun."""
        return load_u64(&self.words.schedtick)

    @property
    def queued(self):
        """How many goroutines wait here."""
        return load_u64(&self.runq.len) + (load_word(&self.words.runnext) != 0)


cdef class MBase:
    """A thread that runs goroutines."""

    def __init__(self, int number):
        self.id = number
        self.gs = {}
        self.clock = -1
        self.runword = word_sched(self)
        self.seed = 88172645463325252 + <uint64_t>number

    def begin(self, ident):
        """Note the thread it is. On that thread."""
        self.ident = ident
        self.tstate = PyThreadState_Get()
        store_int(&self.clock, gopoll_cpu_clock())

    def begins(self, int boot):
        """Begin what was started as *boot*, once; False if that has been given up (U2)."""
        return bool(cas_int(&self.boot, boot, boot + 1))

    @property
    def switches(self):
        """How many slices it has run."""
        return peek_i64(&self.counts.switches)

    @property
    def steals(self):
        """How often it has taken from another P."""
        return peek_i64(&self.counts.steals)

    @property
    def handoffs(self):
        """How many Ps it has given up in syscall()."""
        return peek_i64(&self.counts.handoffs)

    @property
    def has_p(self):
        """Whether it holds a P. Its own thread's to rely on."""
        return self.p != NULL

    @property
    def is_locked(self):
        """Whether it belongs to a goroutine. On its own thread."""
        return self.lockedg is not None

    @property
    def queued(self):
        """Whether its P has something to run. On its own thread."""
        return self.p != NULL and (<PBase>self.p).has_work()

    @property
    def slice_word(self):
        """A number that another slice has not. Any thread."""
        return load_u64(&self.runword)

    @property
    def in_slice(self):
        """Whether it runs a goroutine, with a P or without."""
        return load_u64(&self.runword) & stateMask == P_RUN


cdef uint64_t word_sched(MBase m) noexcept:
    """The status word of a P that *m* decides about."""
    return P_SCHED | (<uint64_t>m.id << stateBits)


cdef bint owns(PBase p, MBase m) noexcept:
    """Whether *p* is still the P of *m*: in SCHED, or in the slice under way (A2)."""
    cdef uint64_t word = load_u64(&p.words.status)
    return word == m.runword or word == word_sched(m)
