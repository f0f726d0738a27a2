"""PollDesc, Timer and Note: what _fd, runtime and embedders may call. See _polldesc.pyx."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uintptr_t

from gopoll._park cimport Awaitable, ParkRequest
from gopoll._pollcache cimport pollDesc, pollServer
from gopoll._pollerbase cimport PollerBase
from gopoll._timers cimport TimerNode

cdef class PollDesc:
    cdef readonly PollerBase poller
    cdef pollServer *ps        # the server it was opened on: differs from poller.ps after a fork
    cdef pollDesc *pd          # NULL when closed; atomic
    cdef readonly int fd
    cdef ParkRequest reader
    cdef ParkRequest writer
    cdef pollDesc *live(self) except NULL
    cdef ParkRequest request(self, int mode)

cdef class Note(Awaitable):
    cdef readonly PollerBase poller
    cdef readonly str wait_reason
    cdef uintptr_t state
    cdef int wake_word(self) except -1

cdef class Timer:
    cdef readonly PollerBase poller
    cdef pollServer *ps
    cdef TimerNode *node
    cdef object waiter
    cdef int _arm(self, int64_t when_ns) except -1

cdef int poll_error(int rc, str op) except -1
