"""StreamCore, what a stream transport is made of. See _stream.pyx."""

from libc.stdint cimport uint32_t

from gopoll.embed.aio._core cimport TransportCore
from gopoll.embed.aio._loop cimport LoopCore

cdef class StreamCore(TransportCore):
    cdef object empty_waiter           # a Future of sendfile, or None
    cdef Py_ssize_t head               # bytes of the backlog's first, sent already
    cdef Py_ssize_t high, low          # marks of `queued` for pause_writing, resume_writing
    cdef bint buffered                 # a BufferedProtocol
    cdef bint protocol_paused          # told to pause_writing
    cdef bint eof                      # write_eof()
    cdef bint ended                    # the peer's end of file has been told
    cdef bint lent                     # sendfile has the descriptor
    cdef bint more                     # an event said more than readable or writable (Y3)
    cdef bint tcp                      # a plain TCP socket (Y3)
    cdef Py_ssize_t last_read          # bytes that data_received got last
    cdef int set_up(self, LoopCore loop, object transport, object sock, object server,
                    object context) except -1
    cdef int set_protocol(self, object protocol) except -1
    cdef int write(self, object data) except -1
    cdef int writelines(self, object list_of_data) except -1
    cdef int write_eof(self) except -1
    cdef int lend(self) except -1
    cdef int take_back(self) except -1
    cdef int maybe_pause_protocol(self) except -1
    cdef int maybe_resume_protocol(self) except -1
    cdef int _register(self, uint32_t mask) except -1
    cdef int _want_out(self) except -1
    cdef int _read(self) except -1
    cdef bint _is_drained(self, bint whole) noexcept
    cdef Py_ssize_t _read_data(self) except -2
    cdef Py_ssize_t _read_into(self) except -2
    cdef int _received(self, Py_ssize_t n, int err) except -1
    cdef int _got_eof(self) except -1
    cdef int _send_now(self, object data, Py_ssize_t *sent) except -1
    cdef int _keep(self, object data, Py_ssize_t sent) except -1
    cdef int _flush(self) except -1
    cdef int _sent(self, Py_ssize_t n) except -1
    cdef int _flushed(self) except -1
    cdef int _broken(self, int err) except -1
    cdef int _tell_flow(self, str method) except -1
