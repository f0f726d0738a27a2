"""SSLFlow, what a TLS protocol does for each message. See _sslproto.pyx."""

from gopoll.embed.aio._stream cimport StreamCore

cdef class SSLFlow:
    # asyncio's SSLProtocol gives these their meaning.
    cdef public object _app_protocol, _app_protocol_get_buffer, _app_protocol_buffer_updated
    cdef public object _incoming, _outgoing, _loop, _state
    cdef public object _write_backlog
    cdef public object _incoming_high_water, _incoming_low_water
    cdef public object _outgoing_high_water, _outgoing_low_water
    cdef public Py_ssize_t max_size
    cdef public Py_ssize_t _write_buffer_size
    cdef public Py_ssize_t _conn_lost
    cdef public bint _app_protocol_is_buffer
    cdef public bint _app_reading_paused, _app_writing_paused
    cdef public bint _ssl_reading_paused, _ssl_writing_paused
    cdef object lower                  # the transport below, or None
    cdef StreamCore core               # its own, if it is one of ours
    cdef object obj                    # SSLObject
    cdef object ssl_read, ssl_write, ssl_pending, fill, drain
    cdef bint own                      # SSLObject is not quite ssl's
    cdef bint ask                      # call SSL_read though there may be nothing (Y11)
    cdef int go_on(self) except -1
    cdef Py_ssize_t more(self) except -1
    cdef int do_read(self) except -1
    cdef int read_data(self) except -1
    cdef bint read_into(self) except -1
    cdef int ended(self) except -1
    cdef int write(self, object data) except -1
    cdef int encrypt(self, object data) except -1
    cdef int keep(self, object data) except -1
    cdef int send_out(self) except -1
    cdef int control_reading(self) except -1
    cdef int control_writing(self) except -1
