"""WriterBase and its operations. See _bufwriter.pyx."""

from cpython.object cimport PyObject

from gopoll.net._bufio cimport BufferedOp

cdef class WriterBase:
    cdef readonly object _conn
    cdef bint has_writev       # of conn
    cdef Py_ssize_t size
    cdef int busy              # somebody is inside conn.write; atomic
    cdef object error          # what every later call raises; in a critical section
    cdef bytearray buffer      # never resized once it has been handed to conn
    cdef Py_ssize_t room(self) noexcept
    cdef object op(self, int kind, object data)
    cdef int check(self) except -1
    cdef int cut(self, object exc, object gone) except -1

cdef class WriterOp(BufferedOp):
    cdef WriterBase writer
    cdef object data           # to be written
    cdef object told           # how much of it, or of the buffer, has been taken; None: unknown
    cdef bytearray head        # what was buffered when the connection was asked
    cdef list pieces           # what it is still to be given
    cdef object made           # the operation of the piece under way
    cdef Py_ssize_t gone       # of head, by the pieces before that
    cdef bint now(self, PyObject **out) except -1
    cdef int start(self) except -1
