"""What a thread is stuck in, and the watch over a loop of one's own. See _stall.pyx."""

from libc.stdint cimport int64_t, uint64_t

cdef struct Thread:            # one that has not come back for long
    uint64_t *runword          # of its own; it has come back when this is not word
    uint64_t word
    int clock                  # its CPU clock
    void **tstate              # Python's state of it, NULL once it ends
    int *lock                  # guards that
    int64_t cpu                # what it had used of the CPU when we asked for the GIL
    int64_t cpus               # and all threads of this process

cdef int64_t cpu_ns(int clock) noexcept nogil
cdef int64_t cpus_ns() noexcept nogil
cdef int64_t stall_limit() noexcept nogil
cdef bint stall_wanted() noexcept nogil
cdef bint gil_was_held(Thread *t, int64_t waited) except -1
cdef tuple look_at(Thread *t, int64_t waited, ident)

cdef class WatchBase:
    cdef uint64_t word         # odd while the loop works; every call changes it; atomic
    cdef int note              # a futex word: the watcher's bed
    cdef int waits             # the watcher sleeps without an end (S5); atomic
    cdef int stop              # atomic
    cdef Thread seen           # the loop's, and its word at the watcher's last look
    cdef unsigned long user    # who may tick: the loop's thread, 0 once it has called close()
    cdef readonly unsigned long ident
    cdef readonly str name
    cdef int64_t count         # of stalls; the watcher's, atomic
    cdef int lock_             # guards tstate
    cdef void *tstate
    cdef object owner          # the loop's thread
    cdef object thread
    cdef int step(self, bint works) except -1
    cdef int64_t tell(self, int64_t since, int64_t before, int64_t due) except -1
