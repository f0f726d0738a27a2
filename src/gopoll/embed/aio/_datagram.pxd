"""DatagramCore, what a datagram transport is made of. See _datagram.pyx."""

from libc.stdint cimport uint32_t

from gopoll._sockaddr cimport socklen_t
from gopoll.embed.aio._calls cimport Address
from gopoll.embed.aio._core cimport TransportCore

cdef class DatagramCore(TransportCore):
    cdef object write_context          # what the backlog is sent in: of who has met EAGAIN
    cdef object address                # remote_addr of create_datagram_endpoint, or None
    cdef object source, target         # the last addresses received from and sent to, ...
    cdef Address source_raw, target_raw            # ... and as the kernel has them
    cdef socklen_t source_size, target_size
    cdef int family
    cdef bint native                   # addresses are IP's or Unix's, and the socket plain
    cdef bint connected                # has a peer; one without a name may be it
    cdef bint writing                  # an EAGAIN has come, and the backlog not been sent since
    cdef double delay                  # till the next try where no event tells of room, seconds
    cdef bint timed                    # the timer of _wait_for_room is set
    cdef int sendto(self, object data, object addr) except -1
    cdef int _in_context(self, object context, bint writes) except -1
    cdef int _register(self, uint32_t mask) except -1
    cdef int _read(self) except -1
    cdef int _receive(self) except -1
    cdef int _receive_slowly(self) except -1
    cdef int _failed(self, object exc) except -1
    cdef object _source_of(self, const Address *address, socklen_t size)
    cdef int _send(self, object data, object addr) except -1
    cdef int _send_slowly(self, object data, object addr) except -1
    cdef int _find_target(self, object addr) except -1
    cdef int _wait_for_room(self) except -1
    cdef int _flush(self) except -1
    cdef int _flushed(self) except -1
