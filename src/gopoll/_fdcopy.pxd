"""Operations that move bytes without a bytes object: writev, sendfile, splice. See _fdcopy.pyx."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t

from gopoll._fdop cimport Op
from gopoll._fdpipe cimport Pipe
from gopoll._fdvec cimport VecOp
from gopoll._park cimport Awaitable
from gopoll._sysfd cimport SysFD


cdef class WritevOp(VecOp):
    pass

cdef class SendFileOp(Op):
    cdef object file           # as it was given
    cdef int64_t offset        # of the next byte
    cdef int64_t left          # -1: all there is
    cdef readonly int64_t written      # K4
    cdef bint moves            # the file's own position goes along
    cdef bint copies           # the kernel does not do it
    cdef int number(self) except? -1
    cdef int result(self, PyObject **out) except -1

cdef class SpliceInOp(Op):
    cdef Py_ssize_t size
    cdef Py_ssize_t got        # bytes in the pipe; 0 at the end, -1 where the kernel does not do it
    cdef Pipe pipe

cdef class SpliceOutOp(Op):
    cdef Pipe pipe
    cdef Py_ssize_t left
    cdef Py_ssize_t written
    cdef char *copy            # NULL, or what has been read because the kernel does not do it
    cdef Py_ssize_t at
    cdef Py_ssize_t end
    cdef Py_ssize_t copy_out(self) noexcept nogil

cdef class SpliceOp(Awaitable):
    cdef SysFD dst
    cdef SysFD src
    cdef int64_t left          # -1: up to the end
    cdef readonly int64_t written      # K4
    cdef Op part               # what it waits in
    cdef bytes data            # what part writes, where the kernel does not splice
    cdef bint copies
    cdef bint begun
    cdef bint ended
    cdef Op read_more(self)
    cdef int turn(self, PyObject *value) except -1
    cdef int give_up(self, object exc) except -1
