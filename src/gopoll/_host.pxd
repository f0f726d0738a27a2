"""A guest's host: its futures, and awaits in its tasks. See _host.pyx."""

from cpython.object cimport PyObject

from gopoll._park cimport Awaitable, HostBase, ParkRequest, ThreadWords
from gopoll._pollcache cimport pollServer
from gopoll._pollerbase cimport PollerBase

cdef class HostLink(HostBase):
    cdef object make_future            # the host's
    cdef object create_future          # the host's, in its place, or None
    cdef object comes_again            # the host's
    cdef PollerBase poller             # the guest's
    cdef pollServer *ps                # of the process that made it
    cdef ThreadWords *thread           # the host's; an address, to tell it from others
    cdef object future_type            # of what the host makes, if it is asyncio's kind
    cdef set waits                     # HostWaiters that are parked; on the host's thread
    cdef readonly bint is_closed

cdef class HostWaiter:
    cdef HostLink link
    cdef ParkRequest request           # what it is parked in
    cdef object set_result             # None: future's own
    cdef object set_error
    cdef object future                 # if it is one of asyncio's kind: cancelled by its task
    cdef bint over                     # told, or taken back; on the host's thread
    cdef int wake(self) except -1
    cdef bint take_back(self) noexcept
    cdef object settle(self, object error)

cdef class Turn(ParkRequest):
    pass

cdef Turn TURN

cdef class HostAwait(Awaitable):
    cdef HostLink link
    cdef Awaitable op
    cdef HostWaiter waiter             # while it waits
    cdef object it                     # of what the host waits in, where that is no future
    cdef object value                  # that it was sent for that
    cdef int turn(self, PyObject **out) except -1
    cdef bint park(self, ParkRequest request, PyObject **out) except -1
    cdef int enter(self, object awaitable, HostWaiter waiter, PyObject **out) except -1
    cdef int unpark(self) except -1
    cdef int interrupt(self, object error, PyObject **out) except -1
