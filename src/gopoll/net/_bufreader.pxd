"""ReaderBase and its operations. See _bufreader.pyx."""

from gopoll.net._bufio cimport BufferedOp

cdef class ReaderBase:
    cdef readonly object _conn
    cdef int busy              # somebody is inside conn.read; atomic
    cdef bytes data            # unread bytes are data[start:end]
    cdef bytes sep             # what scanned is about
    cdef Py_ssize_t start
    cdef Py_ssize_t end
    cdef readonly Py_ssize_t _scanned  # so many unread bytes cannot begin sep
    cdef Py_ssize_t limit
    cdef bint own              # data was made here, to be written to, and nobody else has it
    cdef Py_ssize_t find(self, bytes sep) except -2
    cdef bytes copy(self, Py_ssize_t n)
    cdef bytes take(self, Py_ssize_t n)
    cdef int feed(self, bytes data) except -1
    cdef object op(self, int kind, Py_ssize_t n, bytes sep)
    cdef object over_limit(self, str what)

cdef class ReaderOp(BufferedOp):
    cdef ReaderBase reader
    cdef bytes until
    cdef Py_ssize_t n
    cdef bytes at_hand(self)
    cdef bytes at_end(self)
