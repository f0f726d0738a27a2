"""TransportCore, what stream and datagram transports have in common. See _core.pyx."""

from libc.stdint cimport uint32_t

from gopoll.embed.aio._loop cimport Watcher

cdef class TransportCore(Watcher):
    cdef object transport              # asyncio's face of it; None after connection_lost
    cdef object sock                   # owned; None after connection_lost
    cdef object protocol               # None after connection_lost
    cdef object context                # what the protocol is told of data in
    cdef object server                 # asyncio's Server, told of the end; or None
    cdef object backlog                # deque of what is not sent yet
    cdef Py_ssize_t queued             # bytes of it; 0: it is empty
    cdef int conn_lost                 # connection_lost is to come; then the writes after that
    cdef bint started                  # connection_made has been called
    cdef bint paused                   # by pause_reading
    cdef bint closing                  # close() or an error
    cdef bint readable                 # there may be something to read (Y3, Y6)
    cdef uint32_t began                # loop.polls when it began, or went on, to read (Y2)
    cdef int start(self) except -1
    cdef bint waits_for_poll(self) except -1
    cdef bint reads(self) noexcept
    cdef bint writes(self) noexcept
    cdef int pause_reading(self) except -1
    cdef int resume_reading(self) except -1
    cdef int close(self) except -1
    cdef int force_close(self, object exc) except -1
    cdef int fatal_error(self, object exc, str message) except -1
    cdef int lose(self, object exc) except -1
    cdef int _lose_soon(self, object exc) except -1

cdef dict fill_extra(object extra, object sock)
