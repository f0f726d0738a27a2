"""What a thread is stuck in, and the watch over a loop of one's own. See _stall.pyx."""

from libc.stdint cimport int64_t, uint64_t

cdef int64_t cpu_ns(int clock) noexcept nogil
cdef int64_t run_delay() noexcept nogil
cdef int64_t gil_wait(int64_t before, int64_t delay) noexcept nogil
cdef int64_t stall_limit() noexcept nogil
cdef bint stall_wanted() noexcept nogil
cdef tuple look_twice(uint64_t *runword, uint64_t word, ident, int tid, int clock, int64_t since,
                      int64_t waited, int64_t cpu)

cdef class WatchBase:
    cdef uint64_t word         # odd while the loop works; every call changes it; atomic
    cdef int note              # a futex word: the watcher's bed
    cdef int waits             # the watcher sleeps without an end (S4); atomic
    cdef int stop              # atomic
    cdef int clock             # the CPU clock of the loop's thread
    cdef int tid
    cdef readonly unsigned long ident
    cdef readonly str name
    cdef readonly int64_t stalls       # pieces of work that lasted for the threshold
    cdef object thread
    cdef int step(self, bint works) except -1
    cdef int look(self, uint64_t word, int64_t since, int64_t waited, int64_t cpu) except -1
