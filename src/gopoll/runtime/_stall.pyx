"""What a thread is stuck in, told by CPU clocks; and the watch over a loop of one's own.

Sysmon asks of its Ms, StallWatch of a loop that says when it turns. Go: none; its goroutines can
be taken off a thread wherever they are.

S5: the loop stores its word and then looks at waits; the watcher stores waits and then looks at
    the word. One of them sees the other, so a loop that works is never left unwatched.
"""

import sys
import threading

from libc.stdint cimport int64_t, uint64_t

from gopoll._atomic cimport (add_int, bump, futex_wait, futex_wake, gil_lock, gil_unlock, load_i64,
                             load_int, load_u64, peek_i64, store_i64, store_int, store_u64)
from gopoll._timers cimport nanotime
from gopoll.runtime._frames cimport have_gil

from gopoll.runtime import stacks


cdef extern from *:
    """
    #include <fcntl.h>
    #include <pthread.h>
    #include <stdint.h>
    #include <stdio.h>
    #include <string.h>
    #include <time.h>
    #include <unistd.h>
    static int64_t gopoll_cpu_ns(int clock) {
      struct timespec ts;
      if (clock == -1 || clock_gettime((clockid_t)clock, &ts) != 0) return 0;
      return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
    }
    static int gopoll_own_clock(void) {
      clockid_t id;
      return pthread_getcpuclockid(pthread_self(), &id) == 0 ? (int)id : -1;
    }
    /* Whether the thread of that clock wants a CPU, with one or waiting for it, and does not sleep.
       Linux keeps a thread's number in its clock's, inverted, above three bits. */
    static int gopoll_runnable(int clock) {
      char path[48], line[128], *end;
      ssize_t n;
      int fd;
      if (clock == -1) return 0;
      snprintf(path, sizeof path, "/proc/self/task/%d/stat", ~(clock >> 3));
      fd = open(path, O_RDONLY | O_CLOEXEC);
      if (fd < 0) return 0;
      n = read(fd, line, sizeof line - 1);
      close(fd);
      line[n > 0 ? n : 0] = 0;
      end = strrchr(line, ')');             /* behind the name, in which anything may stand */
      return end && end[1] == ' ' && end[2] == 'R';
    }
    /* Without a GIL: whether a live thread may run Python. With one it would not tell. */
    static int gopoll_attached(void *thread) {
    #ifdef Py_GIL_DISABLED
      return __atomic_load_n(&((PyThreadState *)thread)->state, __ATOMIC_RELAXED) != 0;
    #else
      return 0;
    #endif
    }
    """
    int64_t gopoll_cpu_ns(int clock) noexcept nogil
    int gopoll_own_clock()
    int gopoll_runnable(int clock) noexcept nogil
    int gopoll_attached(void *thread) noexcept nogil
    int CLOCK_PROCESS_CPUTIME_ID

cdef extern from "pythread.h":
    unsigned long PyThread_get_thread_ident() noexcept nogil

cdef extern from "Python.h":
    void *PyThreadState_Get() nogil

cdef enum:
    GIL_LATE_NS = 10000000         # the GIL came so late that somebody has kept it
    SAMPLE_NS = 1000000            # between two looks at a stalled thread without the GIL
    HOLD_NS = 200000               # and with it
    SAMPLES = 8
    MORE_SAMPLES = 24              # of one that wants a CPU and has not had it
    LOOK_MIN_NS = 1000000          # a StallWatch looks no oftener
    LOOKS = 8                      # so often does it look in the time that is a stall

# The least duration that is a stall, and whether somebody wants to hear of them. Atomic.
cdef int64_t limit_ns = 50000000
cdef int wanted_ = 0


def set_stall(int64_t ns, bint wanted):
    """Set what is a stall, for every watcher, and whether they are reported. Any thread."""
    store_i64(&limit_ns, ns)
    store_int(&wanted_, wanted)


cdef int64_t stall_limit() noexcept nogil:
    return load_i64(&limit_ns)


cdef bint stall_wanted() noexcept nogil:
    return load_int(&wanted_) != 0


cdef int64_t cpu_ns(int clock) noexcept nogil:
    """What a thread has used of the CPU, by its clock; 0 if that is not known."""
    return gopoll_cpu_ns(clock)


cdef int64_t cpus_ns() noexcept nogil:
    """And all threads of this process."""
    return gopoll_cpu_ns(CLOCK_PROCESS_CPUTIME_ID)


cdef int64_t gil_late_ns() except -1:
    """Who waits longer for the GIL than this waits for more than Python code."""
    return GIL_LATE_NS + <int64_t>(2e9 * sys.getswitchinterval())


cdef bint gil_was_held(Thread *t, int64_t waited) except -1:
    """Whether the thread has kept the GIL for most of *waited*, in which we asked for it.

    It has computed since then for longer than Python code would have kept it, and most of what this
    process has. It may be over: a call that keeps the GIL can only be seen after it. By CPU clocks,
    which a busy machine does not change.
    """
    cdef int64_t late = gil_late_ns(), mine = cpu_ns(t.clock) - t.cpu
    return waited > late and mine > late and 2 * mine > cpus_ns() - t.cpus


cdef str stuck_in(Thread *t):
    """What the thread is in; None if it has come back.

    While we hold the GIL, a thread that runs on is in C without it. When we let go, one that
    needs it goes on, unless others of this process have it; one that sleeps uses nothing. Nor does
    one to which a busy machine gives no CPU: that is looked at for longer.
    """
    cdef int zero = 0, looks = 0, attached = 0
    cdef bint waits = False              # for a CPU, when last seen
    cdef int64_t before, all, held = 0, free = 0, wall = 0, cpus = 0, began
    cdef int64_t late = gil_late_ns()
    while looks < (MORE_SAMPLES if waits else SAMPLES):
        if load_u64(t.runword) != t.word:
            return None
        looks += 1
        gil_lock(t.lock)
        if t.tstate[0] != NULL:
            attached += gopoll_attached(t.tstate[0])
        gil_unlock(t.lock)
        before = cpu_ns(t.clock)
        futex_wait(&zero, 0, HOLD_NS)
        held += cpu_ns(t.clock) - before
        if held > HOLD_NS // 2 and have_gil():
            return "c_nogil"
        before, all, began = cpu_ns(t.clock), cpus_ns(), nanotime()
        with nogil:
            futex_wait(&zero, 0, SAMPLE_NS)
        before, all = cpu_ns(t.clock) - before, cpus_ns() - all
        if before > late and 2 * before > all and have_gil():
            return "gil_held"
        free += before
        waits = free <= SAMPLE_NS // 2 and gopoll_runnable(t.clock)
        cpus += all
        wall += nanotime() - began
        if wall > 2 * late or (free > 2 * SAMPLE_NS and wall < late):
            break
    if not have_gil():
        return "python" if 2 * attached > looks else "c_nogil"
    if wall > late and free and 2 * free < cpus:
        return "gil_starved"             # it looks up every few ms, so it has used something
    return "python" if waits or free > SAMPLE_NS // 2 else "c_nogil"


cdef tuple look_at(Thread *t, int64_t waited, ident):
    """Return (kind, stack) of a stuck thread, None if it has come back."""
    cdef int64_t before = cpu_ns(t.clock)
    cdef int zero = 0
    if gil_was_held(t, waited):
        futex_wait(&zero, 0, SAMPLE_NS)      # if it runs on beside us, another has kept the GIL
        if load_u64(t.runword) != t.word or cpu_ns(t.clock) - before < HOLD_NS // 2:
            return "gil_held", None
    kind = stuck_in(t)
    if kind is None or kind == "gil_held":
        return None if kind is None else (kind, None)
    stack = stacks.of_threads().get(ident)
    if load_u64(t.runword) != t.word:        # after the look: it is this slice's
        if have_gil():
            return None
        stack = None                         # C that stays attached lets nobody look before its end
    return kind, stack


class Watcher(threading.Thread):
    """The thread of a watch. It wakes no goroutine."""


cdef class WatchBase:
    """The watch over one loop; debug.StallWatch is the public one and has report()."""

    def __init__(self, str name not None="loop"):
        self.name = name
        self.ident = self.user = PyThread_get_thread_ident()
        self.seen.runword = &self.word
        self.seen.clock = gopoll_own_clock()
        self.seen.tstate = &self.tstate
        self.seen.lock = &self.lock_
        self.tstate = PyThreadState_Get()
        self.owner = threading.current_thread()
        self.thread = Watcher(target=self.watch, name="gopoll-stallwatch", daemon=True)
        self.thread.start()

    @property
    def stalls(self):
        """How many pieces of work have lasted for the threshold."""
        return peek_i64(&self.count)

    def tick(self):
        """Say that a piece of work begins. RuntimeError on another thread than the loop's."""
        self.step(True)

    def idle(self):
        """Say that the loop waits from now on. RuntimeError on another thread than the loop's."""
        self.step(False)

    def close(self):
        """End the watch and its thread. Closing again does nothing. Any thread, also in a hook.

        After that tick() and idle() raise RuntimeError, but do nothing if it was another thread
        that closed: the loop need not know.
        """
        store_int(&self.stop, 1)
        add_int(&self.note, 1)
        futex_wake(&self.note, 1)
        if PyThread_get_thread_ident() == self.ident:
            self.user = 0
        if self.thread is not threading.current_thread():
            self.thread.join()

    cdef int step(self, bint works) except -1:
        if PyThread_get_thread_ident() != self.user:
            if PyThread_get_thread_ident() == self.ident:
                raise RuntimeError(f"stall watch {self.name!r} is closed: make another")
            raise RuntimeError(f"stall watch {self.name!r}: tick() and idle() are for the thread "
                               "that made it")
        store_u64(&self.word, ((self.word + 2) & ~<uint64_t>1) | works)
        if load_int(&self.waits):                                                    # S5
            add_int(&self.note, 1)
            futex_wake(&self.note, 1)
        return 0

    def watch(self):
        """Watch until close(). In a thread of its own."""
        cdef uint64_t word
        cdef int64_t now, since = 0, due = 0
        cdef int note
        cdef bint counted = True
        with nogil:
            while load_int(&self.stop) == 0:
                note = load_int(&self.note)
                word = load_u64(&self.word)
                if not word & 1:
                    store_int(&self.waits, 1)
                    if load_u64(&self.word) == word and load_int(&self.stop) == 0:   # S5
                        futex_wait(&self.note, note, -1)
                    store_int(&self.waits, 0)
                    continue
                now = nanotime()
                if word != self.seen.word:
                    self.seen.word = word
                    since, due, counted = now, stall_limit(), False
                elif now - since >= due:
                    if not counted:
                        counted = True
                        bump(&self.count, 1)
                    if stall_wanted():
                        self.seen.cpu = cpu_ns(self.seen.clock)
                        self.seen.cpus = cpus_ns()
                        with gil:
                            due = self.tell(since, now, due)
                futex_wait(&self.note, note, max(stall_limit() // LOOKS, <int64_t>LOOK_MIN_NS))

    cdef int64_t tell(self, int64_t since, int64_t before, int64_t due) except -1:
        """Report what the loop is stuck in; the ns at which it is due again."""
        if not self.owner.is_alive():        # it ended in the midst of its work
            gil_lock(&self.lock_)
            self.tstate = NULL
            gil_unlock(&self.lock_)
        found = look_at(&self.seen, nanotime() - before, self.ident)
        if found is None:
            return due
        return self.report(nanotime() - since, due, *found)
