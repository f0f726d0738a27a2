"""ReaderBase, WriterBase and their operations. See _bufio.pyx."""

from cpython.object cimport PyObject

from gopoll._park cimport Awaitable

cdef enum:
    LINE = 0                   # what a BufferedOp does, in the order of NAMES
    NEXT = 1                   # LINE for `async for`
    UNTIL = 2
    EXACTLY = 3
    PEEK = 4
    READ = 5
    WRITE = 6
    FLUSH = 7

cdef class ReaderBase:
    cdef readonly object _conn
    cdef public bint _busy     # somebody is inside conn.read
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

cdef class WriterBase:
    cdef readonly object _conn
    cdef readonly Py_ssize_t _size
    cdef public bint _busy     # somebody is inside conn.write
    cdef public object _error  # what every later call raises
    cdef bytearray buffer      # never resized once it has been handed to conn

cdef class BufferedOp(Awaitable):
    cdef int kind
    cdef bint begun
    cdef object rest           # the coroutine that goes on where this cannot
    cdef object value          # to be sent to it, by a host
    cdef bint now(self, PyObject **out) except -1
    cdef object later(self)

cdef class ReaderOp(BufferedOp):
    cdef ReaderBase reader
    cdef bytes until
    cdef Py_ssize_t n
    cdef bytes at_hand(self)

cdef class WriterOp(BufferedOp):
    cdef WriterBase writer
    cdef object what           # to be written
    cdef Py_ssize_t taken      # of it, on the spot
    cdef list told             # its only item: how much the coroutine has taken; or None

cdef class CallOp(BufferedOp):
    cdef object count          # an object whose written says how far the coroutine is
