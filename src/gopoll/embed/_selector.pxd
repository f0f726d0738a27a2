"""SelectorCore and MapCore, which selector.py makes a selector of. See _selector.pyx."""

from libc.stdint cimport int64_t

from gopoll._epoll cimport Epoll, epoll_event

cdef class SelectorCore:
    cdef Epoll ep
    cdef int closed                # atomic (Z2)
    cdef int active                # threads inside; far below zero: ep is gone; atomic (Z2)
    cdef dict keys                 # fd -> SelectorKey; critical section
    cdef object map                # the KeyMap, once asked for
    cdef object __weakref__
    cdef int _enter(self) except -1
    cdef void _leave(self) noexcept
    cdef object _lookup(self, fileobj)
    cdef object _find(self, fd)
    cdef int _forget(self, key) except -1
    cdef int _wait(self, epoll_event *events, int most, int64_t delay) except -1
    cdef list _ready(self, epoll_event *events, int n)

cdef class MapCore:
    cdef SelectorCore selector
