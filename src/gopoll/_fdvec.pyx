"""Vec and VecOp: several buffers that leave as one: what writev and sendmsg are made of.

Made by _fdcopy and _fdmsg, on the thread that awaits.
Go: internal/poll/writev.go, fd_writev_unix.go (go1.27).
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.errno cimport errno
from libc.limits cimport INT_MAX
from libc.stdint cimport INT64_MAX
from libc.stdlib cimport calloc, free

from gopoll._fdop cimport AGAIN, DONE, SLICE, SMALL, Op
from gopoll._park cimport slice_spent, thread_words

from gopoll.errors import op_error


cdef enum:
    IOV_MOST = 1024            # IOV_MAX: what one system call takes


cdef class Vec:
    """The buffers of one operation, kept until it ends; empty ones are skipped."""

    cdef int fill(self, object buffers) except -1:
        """Take *buffers*, an iterable of bytes-like objects. Raises TypeError, BufferError."""
        cdef list items = list(buffers)
        cdef Py_ssize_t n = len(items)
        cdef Py_buffer *view
        if n > INT_MAX:
            raise OverflowError(f"cannot write {n} buffers at once")
        if n == 0:
            return 0
        self.views = <Py_buffer *>calloc(n, sizeof(Py_buffer))
        self.iov = <iovec *>calloc(n, sizeof(iovec))
        if self.views == NULL or self.iov == NULL:
            raise MemoryError
        for item in items:
            view = &self.views[self.nviews]
            PyObject_GetBuffer(item, view, PyBUF_SIMPLE)
            self.nviews += 1
            if view.len == 0:
                continue
            if view.len > INT64_MAX - self.left:
                raise OverflowError("the buffers hold too many bytes")
            self.iov[self.count].iov_base = view.buf
            self.iov[self.count].iov_len = view.len
            self.count += 1
            self.left += view.len
        return 0

    cdef void advance(self, Py_ssize_t n) noexcept:
        """Take *n* bytes off the front. Go: consume."""
        cdef iovec *first
        self.left -= n
        while n > 0:
            first = &self.iov[self.at]
            if <size_t>n < first.iov_len:
                first.iov_base = <char *>first.iov_base + n
                first.iov_len -= n
                return
            n -= first.iov_len
            self.at += 1

    cdef void release(self) noexcept:
        """Give the buffers back. Once or more."""
        cdef Py_ssize_t i, n = self.nviews
        self.nviews = 0
        self.at = self.count = 0
        for i in range(n):
            PyBuffer_Release(&self.views[i])

    def __dealloc__(self):
        self.release()
        free(self.views)
        free(self.iov)


cdef class VecOp(Op):
    """A write of several buffers: all of them on a stream, one message on anything else."""

    cdef object progress(self):
        return self.written

    cdef Py_ssize_t put(self, iovec *iov, int n) noexcept nogil:
        """Make the system call: the bytes that have left, or -1 and errno."""
        return -1

    cdef int result(self, PyObject **out) except -1:
        cdef object count = self.written
        Py_INCREF(count)
        out[0] = <PyObject *>count
        self.vec.release()
        return DONE

    cdef int finish(self) except -1:
        # Here as well: without a GIL the object may live on for a little. From Op.__dealloc__,
        # which comes after our own attributes have gone, there is nothing left to release.
        if <PyObject *>self.vec != NULL:
            self.vec.release()
        return Op.finish(self)

    cdef int attempt(self, PyObject **out) except -1:
        cdef Vec vec = self.vec
        cdef bint stream = self.fd.is_stream
        cdef Py_ssize_t sent
        cdef int n
        if stream and vec.left == 0:
            return self.result(out)
        while True:
            n = vec.count - vec.at
            if stream and n > IOV_MOST:          # a message that long is the kernel's to refuse
                n = IOV_MOST
            if vec.left <= SMALL:
                sent = self.put(vec.iov + vec.at, n)
                self.err = errno
            else:
                with nogil:
                    sent = self.put(vec.iov + vec.at, n)
                    self.err = errno             # here: attaching again may change it
            if sent < 0:
                return AGAIN
            self.written += sent                     # K4
            thread_words().spent_bytes += sent
            vec.advance(sent)
            if vec.left == 0 or not stream:
                return self.result(out)
            if sent == 0:
                self.finish()
                raise op_error(self.name(), self.fd.network, self.fd.local_addr, self.peer(),
                               "unexpected EOF", written=self.written)
            if slice_spent():
                self.err = SLICE
                return AGAIN
