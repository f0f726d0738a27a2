"""Vec and VecOp: several buffers that leave as one. See _fdvec.pyx."""

from cpython.object cimport PyObject

from gopoll._fdop cimport Op


cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void *iov_base
        size_t iov_len

cdef class Vec:
    cdef Py_buffer *views
    cdef Py_ssize_t nviews
    cdef iovec *iov            # the buffers that are not empty
    cdef int count             # of iov
    cdef int at                # the first of them that has not left whole
    cdef Py_ssize_t left       # bytes that have not left
    cdef int fill(self, object buffers) except -1
    cdef void advance(self, Py_ssize_t n) noexcept
    cdef void release(self) noexcept

cdef class VecOp(Op):
    cdef Vec vec
    cdef readonly Py_ssize_t written   # K4
    cdef Py_ssize_t put(self, iovec *iov, int n) noexcept nogil
    cdef int result(self, PyObject **out) except -1
