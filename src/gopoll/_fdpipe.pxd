"""Pipe: a place for bytes on their way between two descriptors. See _fdpipe.pyx."""

from gopoll._pollerbase cimport PollerBase


cdef enum:
    PIPE_BYTES = 262144        # what one is asked to hold: a slice's worth (A13)

cdef class Pipe:
    cdef int r
    cdef int w
    cdef int pid               # who made it: a forked child has only a copy
    cdef void close(self) noexcept

cdef Pipe take_pipe(PollerBase poller)
cdef int give_pipe(PollerBase poller, Pipe pipe) except -1
