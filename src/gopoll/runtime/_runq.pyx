"""RunQ: a queue of runnable goroutines. Go: runq and globrunq, runtime/proc.go (go1.27).

Used by the scheduler: one per P and one for all. Any thread. The lock is held over the copying of
pointers only; references are counted outside of it.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint64_t, uintptr_t
from libc.stdlib cimport free, malloc

from gopoll._atomic cimport gil_lock, gil_store_u64, gil_unlock, load_u64, store_u64


cdef class RunQ:
    """A FIFO of goroutines. Any thread. Go: runq and globrunq."""

    def __dealloc__(self):
        cdef size_t i
        for i in range(self.len):
            Py_DECREF(<object>self.ring[(self.head + i) & (self.cap - 1)])
        free(self.ring)

    def __len__(self):
        return load_u64(&self.len)

    cdef int push_words(self, uintptr_t *words, int n) except -1:
        """Append *n* waiters, taking over their references."""
        cdef PyObject **grown
        cdef size_t cap, i
        gil_lock(&self.lock)
        if self.len + <size_t>n > self.cap:
            cap = self.cap if self.cap else 64
            while self.len + <size_t>n > cap:
                cap *= 2
            grown = <PyObject **>malloc(cap * sizeof(PyObject *))
            if grown == NULL:
                gil_unlock(&self.lock)
                raise MemoryError("run queue")
            for i in range(self.len):
                grown[i] = self.ring[(self.head + i) & (self.cap - 1)]
            free(self.ring)
            self.ring = grown
            self.head = 0
            self.cap = cap
        for i in range(<size_t>n):
            self.ring[(self.head + self.len + i) & (self.cap - 1)] = <PyObject *>words[i]
        store_u64(&self.len, self.len + <uint64_t>n)
        gil_unlock(&self.lock)
        return 0

    cdef int push(self, object g) except -1:
        cdef uintptr_t word = <uintptr_t><PyObject *>g
        Py_INCREF(g)
        return self.push_words(&word, 1)

    cdef object pop(self):
        """Take the first; None if there is none."""
        cdef PyObject *g
        if load_u64(&self.len) == 0:
            return None
        gil_lock(&self.lock)
        if self.len == 0:
            gil_unlock(&self.lock)
            return None
        g = self.ring[self.head]
        self.head = (self.head + 1) & (self.cap - 1)
        gil_store_u64(&self.len, self.len - 1)
        gil_unlock(&self.lock)
        got = <object>g
        Py_DECREF(got)
        return got

    cdef size_t move(self, RunQ to, size_t most) except? 0:
        """Move up to *most* of the first to the end of *to*; their number."""
        return self._take(to, most, False)

    cdef size_t steal(self, RunQ to) except? 0:
        """Move half, rounded up, of what waits here to the end of *to*. Go: runqgrab."""
        return self._take(to, 0, True)

    cdef size_t _take(self, RunQ to, size_t most, bint half) except? 0:
        cdef uintptr_t words[OUT_CAP]
        cdef size_t n = 0
        if load_u64(&self.len) == 0:
            return 0
        gil_lock(&self.lock)
        if half:
            most = self.len - self.len // 2
        if most > OUT_CAP:
            most = OUT_CAP
        if most > self.len:
            most = self.len
        while n < most:
            words[n] = <uintptr_t>self.ring[self.head]
            self.head = (self.head + 1) & (self.cap - 1)
            n += 1
        gil_store_u64(&self.len, self.len - n)
        gil_unlock(&self.lock)
        if n:
            to.push_words(words, <int>n)
        return n

    def put(self, g):
        """Append *g*."""
        self.push(g)

    def get(self):
        """Take the first, or None."""
        return self.pop()

    def move_to(self, RunQ to not None, size_t most):
        """Move up to *most* of the first to the end of *to*; their number."""
        return self.move(to, most)

    def steal_to(self, RunQ to not None):
        """Move half of what waits here, rounded up, to the end of *to*; their number."""
        return self.steal(to)
