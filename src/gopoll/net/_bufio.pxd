"""BufferedOp, an operation of a buffer, and what its kinds share. See _bufio.pyx."""

from cpython.object cimport PyObject

from gopoll._park cimport Awaitable

cdef enum:
    LINE = 0                   # what a BufferedOp does, in the order of NAMES
    ANEXT = 1                  # LINE for `async for`
    UNTIL = 2
    EXACTLY = 3
    PEEK = 4
    READ = 5
    WRITE = 6
    FLUSH = 7

cdef class BufferedOp(Awaitable):
    cdef int kind
    cdef bint begun
    cdef bint running          # in a step
    cdef object rest           # what this waits in: an operation, or a coroutine
    cdef object value          # to be sent to it, by a host
    cdef int begin(self) except -1
    cdef int wait_in(self, object awaitable) except -1
    cdef int resume(self, PyObject **out) except -1
    cdef int go_on(self, PyObject **out) except -1
    cdef int go_on_now(self, PyObject **out) except -1
    cdef int refuse_running(self, str what) except -1
    cdef int ask(self) except -1
    cdef object call(self, object conn, str method, object arg)
    cdef bint arrived(self, object value, PyObject **out) except -1
    cdef int fail(self, object exc) except -1

cdef class CallOp(BufferedOp):
    cdef object count          # an object whose written says how far the coroutine is

cdef int check_made(object conn, object self) except -1
cdef Py_ssize_t check_count(object n) except -1
