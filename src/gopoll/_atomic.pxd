"""Atomics and the lock that every compiled floor uses; all of it needs no GIL.

Called from any thread, also one that Python never saw. All operations but peek, poke, release and
gil_* are sequentially consistent: the arguments in docs/design.md (P1, P5, S1) lean on that and on
nothing else.
Go: internal/runtime/atomic, runtime/lock_futex.go (go1.27).
"""

from libc.stdint cimport int64_t, uint64_t, uintptr_t


cdef extern from * nogil:
    """
    #ifndef GOPOLL_ATOMIC
    #define GOPOLL_ATOMIC
    #include <pthread.h>
    #include <stdint.h>
    #define GOPOLL_ATOMIC_OPS(name, type)                                              \\
      static inline type load_##name(type *p) {                                        \\
        return __atomic_load_n(p, __ATOMIC_SEQ_CST); }                                 \\
      static inline void store_##name(type *p, type v) {                               \\
        __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }                                    \\
      static inline type swap_##name(type *p, type v) {                                \\
        return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); }                          \\
      static inline type add_##name(type *p, type v) {                                 \\
        return __atomic_add_fetch(p, v, __ATOMIC_SEQ_CST); }                           \\
      static inline int cas_##name(type *p, type was, type now) {                      \\
        return __atomic_compare_exchange_n(p, &was, now, 0, __ATOMIC_SEQ_CST,          \\
                                           __ATOMIC_SEQ_CST); }
    #define GOPOLL_RELAXED_OPS(name, type)                                             \\
      static inline type peek_##name(type *p) {                                        \\
        return __atomic_load_n(p, __ATOMIC_RELAXED); }                                 \\
      static inline void poke_##name(type *p, type v) {                                \\
        __atomic_store_n(p, v, __ATOMIC_RELAXED); }                                    \\
      static inline void release_##name(type *p, type v) {                             \\
        __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    GOPOLL_RELAXED_OPS(int, int)
    GOPOLL_RELAXED_OPS(i64, int64_t)
    GOPOLL_RELAXED_OPS(u64, uint64_t)
    GOPOLL_ATOMIC_OPS(word, uintptr_t)
    GOPOLL_ATOMIC_OPS(u64, uint64_t)
    GOPOLL_ATOMIC_OPS(i64, int64_t)
    GOPOLL_ATOMIC_OPS(int, int)
    typedef pthread_mutex_t gopoll_lock;
    static inline void lock_init(gopoll_lock *l) { pthread_mutex_init(l, 0); }
    static inline void lock_fini(gopoll_lock *l) { pthread_mutex_destroy(l); }
    static inline void lock(gopoll_lock *l) { pthread_mutex_lock(l); }
    static inline void unlock(gopoll_lock *l) { pthread_mutex_unlock(l); }

    /* Four bytes, on any int that begins as 0: 0 free, 1 held, 2 held and wanted. */
    #include <limits.h>
    #include <linux/futex.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>
    static inline void futex_wait(int *word, int seen, int64_t ns) {
      struct timespec ts = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
      syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, ns < 0 ? (void *)0 : &ts, (void *)0, 0);
    }
    static inline void futex_wake(int *word, int n) {
      syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, (void *)0, (void *)0, 0);
    }
    static inline void slock(int *l) {
      if (cas_int(l, 0, 1)) return;
      for (int i = 0; i < 64; i++)
        if (load_int(l) == 0 && cas_int(l, 0, 1)) return;
      while (swap_int(l, 2) != 0) futex_wait(l, 2, -1);
    }
    static inline void sunlock(int *l) {
      if (swap_int(l, 0) == 2) futex_wake(l, 1);
    }

    /* What only attached threads touch, in C that lets nobody else in: with a GIL that keeps the
       others out, and a locked instruction (20 cycles) would keep out nobody. */
    #ifdef Py_GIL_DISABLED
    #define gil_lock slock
    #define gil_unlock sunlock
    #define gil_store_int store_int
    #define gil_add_int add_int
    #define gil_store_u64 store_u64
    #define gil_swap_word swap_word
    #define gil_cas_u64 cas_u64
    #else
    static inline void gil_lock(int *l) { (void)l; }
    static inline void gil_unlock(int *l) { (void)l; }
    static inline void gil_store_int(int *p, int v) { poke_int(p, v); }
    static inline int gil_add_int(int *p, int v) {
      v += __atomic_load_n(p, __ATOMIC_RELAXED);
      __atomic_store_n(p, v, __ATOMIC_RELEASE);
      return v; }
    static inline void gil_store_u64(uint64_t *p, uint64_t v) {
      __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline uintptr_t gil_swap_word(uintptr_t *p, uintptr_t v) {
      uintptr_t was = __atomic_load_n(p, __ATOMIC_RELAXED);
      __atomic_store_n(p, v, __ATOMIC_RELAXED);
      return was; }
    static inline int gil_cas_u64(uint64_t *p, uint64_t was, uint64_t now) {
      if (__atomic_load_n(p, __ATOMIC_RELAXED) != was) return 0;
      __atomic_store_n(p, now, __ATOMIC_RELAXED);
      return 1; }
    #endif
    #endif
    """
    uintptr_t load_word(uintptr_t *p) noexcept
    void store_word(uintptr_t *p, uintptr_t v) noexcept
    uintptr_t swap_word(uintptr_t *p, uintptr_t v) noexcept
    bint cas_word(uintptr_t *p, uintptr_t was, uintptr_t now) noexcept

    uint64_t load_u64(uint64_t *p) noexcept
    void store_u64(uint64_t *p, uint64_t v) noexcept
    uint64_t add_u64(uint64_t *p, uint64_t v) noexcept
    bint cas_u64(uint64_t *p, uint64_t was, uint64_t now) noexcept

    int64_t load_i64(int64_t *p) noexcept
    void store_i64(int64_t *p, int64_t v) noexcept
    int64_t swap_i64(int64_t *p, int64_t v) noexcept
    int64_t add_i64(int64_t *p, int64_t v) noexcept
    bint cas_i64(int64_t *p, int64_t was, int64_t now) noexcept

    int load_int(int *p) noexcept
    void store_int(int *p, int v) noexcept
    int swap_int(int *p, int v) noexcept
    int add_int(int *p, int v) noexcept
    bint cas_int(int *p, int was, int now) noexcept

    # Not ordered: for counters and states that others only look at.
    int peek_int(int *p) noexcept
    void poke_int(int *p, int v) noexcept
    int64_t peek_i64(int64_t *p) noexcept
    void poke_i64(int64_t *p, int64_t v) noexcept

    # Seen by who sees what is stored after it.
    void release_i64(int64_t *p, int64_t v) noexcept
    void release_u64(uint64_t *p, uint64_t v) noexcept

    # A lock is held over bounded C only: no Python API, no system call that can block (A5).
    ctypedef struct gopoll_lock:
        pass
    void lock_init(gopoll_lock *l) noexcept
    void lock_fini(gopoll_lock *l) noexcept
    void lock(gopoll_lock *l) noexcept
    void unlock(gopoll_lock *l) noexcept

    # Sleep while *word is seen, at most ns (< 0: for ever), and wake up to n sleepers.
    void futex_wait(int *word, int seen, int64_t ns) noexcept
    void futex_wake(int *word, int n) noexcept


# Not without the GIL, where there is one. A gil_lock is held as a lock is (A5).
cdef extern from *:
    void gil_lock(int *l) noexcept
    void gil_unlock(int *l) noexcept
    void gil_store_int(int *p, int v) noexcept
    int gil_add_int(int *p, int v) noexcept
    void gil_store_u64(uint64_t *p, uint64_t v) noexcept
    uintptr_t gil_swap_word(uintptr_t *p, uintptr_t v) noexcept
    bint gil_cas_u64(uint64_t *p, uint64_t was, uint64_t now) noexcept


cdef inline void bump(int64_t *p, int64_t n) noexcept nogil:
    """Add *n* to a counter that nobody else writes."""
    poke_i64(p, peek_i64(p) + n)
