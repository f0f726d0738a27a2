"""Op and the operations of FD. See _fdop.pyx."""

from cpython.object cimport PyObject
from libc.stdint cimport uintptr_t

from gopoll._fdmutex cimport FdWait
from gopoll._park cimport Awaitable, ThreadWords
from gopoll._sysfd cimport SysFD

cdef enum:
    HOPEFUL = 4096             # a write of so much finds room, as a rule
    AMPLE = 69632              # what a read asks for by itself: 64 KiB of one message end it short
    DIRECT = 8192              # a read goes straight into its result where the last gave so much
    SMALL = 65536              # up to here the GIL is kept (B3), but for read(): AMPLE

    NEW = 0                    # phases: not awaited yet
    QUEUED = 1                 # waits for the direction's lock
    LOCKED = 2                 # holds the lock (and with it a reference)
    PARKED = 3                 # holds the lock, has announced a wait
    SPENT = 4                  # holds the lock, has let the others run
    ENDED = 5

    AGAIN = 0                  # what attempt returns: Op.err says why it is not done
    DONE = 1
    SLICE = -1                 # in Op.err: not done, but the slice is; no errno


cdef class Op(Awaitable):
    cdef SysFD fd
    cdef int mode              # modeRead or modeWrite
    cdef int phase
    cdef int err               # the errno of an attempt that is not done
    cdef bint hopeful          # it will hardly wait: stored readiness is left alone
    cdef Py_ssize_t moved      # bytes of the last attempt, for the slice's budget (A13)
    cdef uintptr_t waiter      # the word that commit was given
    cdef FdWait lockwait
    cdef int attempt(self, PyObject **out) except -1
    cdef int shortcut(self, PyObject **out) except -1
    cdef str name(self)
    cdef str call(self)
    cdef object progress(self)
    cdef object peer(self)
    cdef int resume(self) except -1
    cdef int begin(self, ThreadWords *tw, PyObject **out) except -1
    cdef int queue(self) except -1
    cdef int refuse(self, int rc) except -1
    cdef bint is_parked(self) noexcept
    cdef int refuse_twice(self) except -1
    cdef int check_phase(self) except -1
    cdef int check_thread(self) except -1
    cdef int check_foreign(self) except -1
    cdef int park(self, PyObject **out) except -1
    cdef int fail(self, int code) except -1
    cdef int fail_errno(self, int code) except -1
    cdef int finish(self) except -1

cdef class ReadOp(Op):
    cdef Py_ssize_t size

cdef class ReadIntoOp(Op):
    cdef Py_buffer view
    cdef int result(self, Py_ssize_t n, PyObject **out) except -1

cdef class WriteOp(Op):
    cdef Py_buffer view
    cdef readonly Py_ssize_t written   # K4

cdef object thrown(object kind, object value)
cdef bint is_own_memory(Py_buffer *view) noexcept
