"""What a thread is stuck in, told by two looks at it; and the watch over a loop of one's own.

Sysmon asks of its Ms, StallWatch of a loop that says when it turns. Go: none; its goroutines can
be taken off a thread wherever they are.

S4: the loop stores its word and then looks at waits; the watcher stores waits and then looks at
    the word. One of them sees the other, so a loop that works is never left unwatched.
"""

import sys
import threading

from libc.stdint cimport int64_t, uint64_t

from gopoll._atomic cimport (add_int, futex_wait, futex_wake, load_i64, load_int, load_u64,
                             store_i64, store_int, store_u64)
from gopoll._timers cimport nanotime


cdef extern from *:
    """
    #include <fcntl.h>
    #include <pthread.h>
    #include <stdint.h>
    #include <stdio.h>
    #include <stdlib.h>
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
    static int gopoll_task_file(int tid, const char *name, char *text, int size) {
      snprintf(text, size, "/proc/self/task/%d/%s", tid, name);
      int fd = open(text, O_RDONLY | O_CLOEXEC);
      int n = fd < 0 ? -1 : (int)read(fd, text, size - 1);
      if (fd >= 0) close(fd);
      text[n < 0 ? 0 : n] = 0;
      return n;
    }
    static int gopoll_is_runnable(int tid) {
      char text[512], *name_end;
      if (gopoll_task_file(tid, "stat", text, sizeof text) <= 0) return 0;
      name_end = strrchr(text, ')');
      return name_end && name_end[1] == ' ' && name_end[2] == 'R';
    }
    static int64_t gopoll_run_delay(void) {
      char text[128], *rest;
      if (gopoll_task_file((int)gettid(), "schedstat", text, sizeof text) <= 0) return 0;
      strtoll(text, &rest, 10);
      return strtoll(rest, 0, 10);
    }
    """
    int64_t gopoll_cpu_ns(int clock) noexcept nogil
    int gopoll_is_runnable(int tid) noexcept nogil
    int64_t gopoll_run_delay() noexcept nogil
    int gopoll_own_clock()

cdef extern from "pythread.h":
    unsigned long PyThread_get_thread_ident() noexcept nogil


cdef enum:
    GIL_LATE_NS = 10000000         # the GIL came so late that somebody has kept it
    SAMPLE_NS = 1000000            # between the two looks at a stalled thread
    USED_NS = 50000                # a thread that has used less has only been woken
    SAMPLES = 32                   # no more of them in a row
    LOOK_MIN_NS = 1000000          # the watcher looks no oftener
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


cdef int64_t run_delay() noexcept nogil:
    """For how long this thread has waited for a CPU in its life, ns; 0 if that is not known."""
    return gopoll_run_delay()


cdef int64_t gil_wait(int64_t before, int64_t delay) noexcept nogil:
    """How long we waited since *before* for something else than a CPU, by the run delay of then."""
    return max(<int64_t>0, nanotime() - before - (run_delay() - delay))


cdef int64_t cpu_beside(int clock, int tid) noexcept nogil:
    """What a thread uses of the CPU in a sample; if it wants a CPU, until it has had one.

    Without the GIL, it is not kept by us. With it: what it can do without.
    """
    cdef int64_t used = cpu_ns(clock), again = 0
    cdef int nothing = 0, _i
    for _i in range(SAMPLES):
        futex_wait(&nothing, 0, SAMPLE_NS)
        again = cpu_ns(clock) - used
        if again >= USED_NS or not gopoll_is_runnable(tid):
            break
    return again


cdef bint has_gil() except -1:
    enabled = getattr(sys, "_is_gil_enabled", None)
    return enabled is None or enabled()


cdef bint runs_python(frame, int lasti, int clock, int tid) except -1:
    """Whether a thread that uses the CPU does so in Python, though it was seen at one spot twice.

    A small loop is always stopped at one spot. With the GIL: it cannot go on while we keep that.
    Without: we can watch it pass.
    """
    cdef int64_t used, end
    if has_gil():
        return cpu_beside(clock, tid) < USED_NS
    used = cpu_ns(clock)
    end = nanotime() + SAMPLES * SAMPLE_NS
    while cpu_ns(clock) - used < SAMPLE_NS and nanotime() < end:
        if frame.f_lasti != lasti:
            return True
    return False


cdef tuple look_twice(uint64_t *runword, uint64_t word, ident, int tid, int clock, int64_t since,
                      int64_t waited, int64_t cpu):
    """Say what a thread is stuck in since *since*: (ns, kind, frame), None if it is not any more.

    It is stuck for as long as *runword* is *word*. waited: how long we had to wait for the GIL
    alone, not for a CPU; cpu: what its CPU clock said before that, -1 unknown.
    """
    cdef int64_t now = nanotime(), used
    if cpu >= 0 and waited > GIL_LATE_NS and cpu_ns(clock) - cpu > waited // 2:
        # It ran while nobody got the GIL. If it still does, with the GIL ours, another kept that.
        if load_u64(runword) != word or cpu_beside(clock, tid) < USED_NS:
            return now - since, "gil_held", None
    if load_u64(runword) != word:
        return None                          # it has come back while we waited
    first = sys._current_frames().get(ident)
    lasti = -1 if first is None else first.f_lasti
    with nogil:
        used = cpu_beside(clock, tid)
    if load_u64(runword) != word:
        return None
    frame = sys._current_frames().get(ident)
    if frame is not first or (frame is not None and frame.f_lasti != lasti):
        kind = "python"
    elif used < USED_NS:
        kind = "gil_starved" if waited > GIL_LATE_NS else "c_nogil"
    else:
        kind = "python" if runs_python(frame, lasti, clock, tid) else "c_nogil"
    return nanotime() - since, kind, frame


cdef class WatchBase:
    """The watch over one loop; debug.StallWatch is the public one and has report()."""

    def __init__(self, str name not None="loop"):
        self.name = name
        self.ident = PyThread_get_thread_ident()
        self.tid = threading.get_native_id()
        self.clock = gopoll_own_clock()
        self.thread = threading.Thread(target=self.watch, name="gopoll-stallwatch", daemon=True)
        self.thread.start()

    def tick(self):
        """Say that a piece of work begins. RuntimeError on another thread than the loop's."""
        self.step(True)

    def idle(self):
        """Say that the loop waits from now on. RuntimeError on another thread than the loop's."""
        self.step(False)

    def close(self):
        """End the watch and its thread. Closing again does nothing. Any thread, also in a hook."""
        store_int(&self.stop, 1)
        add_int(&self.note, 1)
        futex_wake(&self.note, 1)
        if self.thread is not threading.current_thread():
            self.thread.join()

    cdef int step(self, bint works) except -1:
        if PyThread_get_thread_ident() != self.ident:
            raise RuntimeError(f"stall watch {self.name!r}: tick() and idle() are for the thread "
                               "that made it")
        store_u64(&self.word, ((self.word + 2) & ~<uint64_t>1) | works)
        if load_int(&self.waits):                                                    # S4
            add_int(&self.note, 1)
            futex_wake(&self.note, 1)
        return 0

    def watch(self):
        """Watch until close(). In a thread of its own."""
        cdef uint64_t word, seen = 0
        cdef int64_t now, since = 0, limit, cpu, delay
        cdef int note
        cdef bint told = True
        with nogil:
            while load_int(&self.stop) == 0:
                note = load_int(&self.note)
                word = load_u64(&self.word)
                if not word & 1:
                    store_int(&self.waits, 1)
                    if load_u64(&self.word) == word and load_int(&self.stop) == 0:   # S4
                        futex_wait(&self.note, note, -1)
                    store_int(&self.waits, 0)
                    continue
                now = nanotime()
                limit = stall_limit()
                if word != seen:
                    seen, since, told = word, now, False
                elif not told and now - since >= limit:
                    told = True
                    self.stalls += 1
                    if stall_wanted():
                        cpu = cpu_ns(self.clock)
                        delay = run_delay()
                        now = nanotime()
                        with gil:
                            self.look(word, since, gil_wait(now, delay), cpu)
                futex_wait(&self.note, note, max(limit // LOOKS, <int64_t>LOOK_MIN_NS))

    cdef int look(self, uint64_t word, int64_t since, int64_t waited, int64_t cpu) except -1:
        """Report what the loop is stuck in."""
        found = look_twice(&self.word, word, self.ident, self.tid, self.clock, since, waited, cpu)
        if found is not None:
            self.report(*found)
        return 0
