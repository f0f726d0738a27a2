"""Park requests and awaitables, and what a thread knows of itself. See _park.pyx."""

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uintptr_t

# All borrowed, NULL where no scheduler runs. current: the goroutine that runs. owner: the
# scheduler. m: the thread as the scheduler knows it. poller: the scheduler's. hosts: a goroutine
# that has run a loop of asyncio here. host: the HostBase of a guest in this thread's loop.
# awaiting: the await in a task of that which is in its operation. spent, spent_bytes: what the
# slice has used of its budget without parking (A13).
cdef struct ThreadWords:
    PyObject *current
    PyObject *owner
    PyObject *m
    PyObject *poller
    PyObject *hosts
    PyObject *host
    PyObject *awaiting
    int spent
    int64_t spent_bytes

cdef ThreadWords *thread_words() noexcept nogil
cdef void leave_words(ThreadWords *tw) noexcept

cdef enum:
    SLICE_OPS = 32
    SLICE_BYTES = 262144

cdef enum:
    SLICE_GOES_ON
    SLICE_IS_SPENT
    SLICE_FOREIGN

cdef bint slice_spent() noexcept
cdef int slice_look(ThreadWords *tw, PyObject *poller) noexcept

cdef class ParkRequest:
    cdef bint commit_word(self, PyObject *waiter) noexcept
    cdef int abort_word(self, PyObject *waiter) noexcept
    cdef int forsake(self) except -1
    cdef object refuse_task(self)

cdef class Awaitable(ParkRequest):
    cdef uintptr_t awaiter     # who awaits it, until that goes; atomic (K2)
    cdef bint seize(self) noexcept
    cdef bint seize_on(self, ThreadWords *tw) noexcept
    cdef void let_go_of(self, PyObject *me) noexcept
    cdef int step(self, PyObject **out) except -1
    cdef int take(self, PyObject *value) except -1

cdef inline int give(object value, PyObject **out) noexcept:
    """Put *value* into *out*, as a step does; 1."""
    Py_INCREF(value)
    out[0] = <PyObject *>value
    return 1

cdef int count_links(int by) noexcept
cdef int warn(str text, object category, object source) except -1
cdef int never_awaited(str name, object source) except -1

cdef class HostBase:
    cdef object awaiting(self, Awaitable op)

cdef class SliceEnd(ParkRequest):
    pass

cdef class SliceMore(SliceEnd):
    pass

cdef SliceEnd SLICE_END
cdef SliceMore SLICE_MORE
cdef int set_iternext(type cls) except -1
cpdef object running_loop()
cdef bint hosts_asyncio() except -1
