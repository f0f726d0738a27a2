"""What Reader and Writer have at hand: the buffer, and operations that end in it on the spot.

Made by bufio.py, whose coroutines go on where the connection has to be asked. Any thread that runs
the goroutine. Go: bufio/bufio.go (go1.27).

A piece that the connection has given is the buffer while nothing else is unread: it is not copied.
What comes behind something unread is gathered in a bytes object of our own, whose size doubles.
Two goroutines in one Reader or Writer are the program's mistake; the critical sections make it cost
no more than the order of the bytes.
"""

import sys
import warnings

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport (PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize,
                            PyBytes_GET_SIZE)
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.string cimport memchr, memcpy, memmove

from gopoll._fdop cimport thrown

from gopoll.errors import LimitError


cdef extern from *:
    """
    /* The C library's own declaration wants _GNU_SOURCE, which Python's header has set. */
    """
    void *memmem(const void *text, size_t n, const void *what, size_t m) noexcept
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PySendResult PyIter_Send(object coro, object arg, PyObject **out) except PYGEN_ERROR

cdef bytes NEWLINE = b"\n"
cdef tuple NAMES = ("read_line", "anext", "read_until", "read_exactly", "peek", "read", "write",
                    "flush")
cdef enum:
    LEAST = 512                # of a buffer of our own, in bytes


cdef class ReaderBase:
    """The buffer of a Reader."""

    def __init__(self, conn, limit):
        """Read from *conn*; what is at hand is nothing."""
        self._conn = conn
        self.limit = limit
        self.sep = NEWLINE

    @property
    def buffered(self):
        """How many bytes can be had without a read of the connection. Go: Reader.Buffered."""
        return self.end - self.start

    def read_line(self):
        """Return the next line with its newline; the rest at end of file, then b"". An op.

        Raises LimitError if the line is longer than the limit.
        """
        return self.op(LINE, 0, None)

    def read_until(self, sep=b"\n"):
        """Return everything up to and including *sep*. An op.

        Raises EOFError, with the rest in .partial, if the stream ends first, and LimitError if
        there are more than limit bytes before *sep*.
        """
        if not isinstance(sep, (bytes, bytearray)):
            raise TypeError(f"sep must be bytes, not {type(sep).__name__}")
        if not sep:
            raise ValueError("sep must not be empty")
        return self.op(UNTIL, 0, bytes(sep))

    def read_exactly(self, n):
        """Return *n* bytes, however many that is. An op.

        Raises EOFError, with what there was in .partial, if the stream ends first.
        """
        return self.op(EXACTLY, check_count(n), None)

    def peek(self, n):
        """Return the next *n* bytes, fewer only at end of file, and leave them unread. An op.

        Raises LimitError if *n* is above the limit.
        """
        return self.op(PEEK, check_count(n), None)

    def read(self, n=65536):
        """Return at most *n* bytes, b"" at end of file; what is buffered comes first, at once. An
        op.
        """
        return self.op(READ, check_count(n), None)

    def __aiter__(self):
        return self

    def __anext__(self):
        return self.op(NEXT, 0, None)

    # -- for the coroutines of bufio.py

    def _search(self, bytes sep):
        """Return the size up to the end of *sep* in what is buffered, or -1; or LimitError."""
        with cython.critical_section(self):
            return self.find(sep)

    def _take(self, Py_ssize_t n):
        """Return the first *n* unread bytes, which must be there, and consume them."""
        with cython.critical_section(self):
            return self.take(min(n, self.end - self.start))

    def _copy(self, Py_ssize_t n):
        """Return the first *n* unread bytes, or all that there are."""
        with cython.critical_section(self):
            return self.copy(min(n, self.end - self.start))

    def _feed(self, data):
        """Put what the connection has given behind what is unread."""
        cdef bytes piece = data if PyBytes_CheckExact(data) else bytes(memoryview(data))
        with cython.critical_section(self):
            self.feed(piece)

    # -- in a critical section

    cdef Py_ssize_t find(self, bytes sep) except -2:
        """As _search."""
        cdef const char *text
        cdef const char *found
        cdef Py_ssize_t unread = self.end - self.start
        cdef Py_ssize_t m = PyBytes_GET_SIZE(sep)
        cdef Py_ssize_t reach = self.limit + m       # sep ends here at the latest
        cdef Py_ssize_t left
        if sep is not self.sep:
            if sep != self.sep:
                self._scanned = 0
            self.sep = sep
        # Restart where the last search gave up: else a line in n pieces costs n * n.
        left = min(unread, reach) - self._scanned
        if left >= m:
            text = PyBytes_AS_STRING(self.data) + self.start
            if m == 1:
                found = <const char *>memchr(text + self._scanned, PyBytes_AS_STRING(sep)[0], left)
            else:
                found = <const char *>memmem(text + self._scanned, left, PyBytes_AS_STRING(sep), m)
            if found != NULL:
                return found - text + m
        if unread >= reach:
            raise self.over_limit("line")
        self._scanned = max(0, unread - m + 1)
        return -1

    cdef bytes copy(self, Py_ssize_t n):
        if n == 0:
            return b""
        return PyBytes_FromStringAndSize(PyBytes_AS_STRING(self.data) + self.start, n)

    cdef bytes take(self, Py_ssize_t n):
        cdef bytes data
        if self.start == 0 and n == self.end and not self.own:
            data = self.data if n else b""
        else:
            data = self.copy(n)
        self.start += n
        self._scanned = max(0, self._scanned - n)
        if self.start == self.end:
            self.data = None                         # an idle Reader keeps no memory
            self.start = self.end = 0
            self.own = False
        return data

    cdef int feed(self, bytes data) except -1:
        cdef Py_ssize_t unread = self.end - self.start
        cdef Py_ssize_t n = PyBytes_GET_SIZE(data)
        cdef Py_ssize_t room
        cdef bytes larger
        cdef char *to
        if n == 0:
            return 0
        if unread == 0:
            self.data = data
            self.own = False
            self.start = 0
            self.end = n
            return 0
        room = PyBytes_GET_SIZE(self.data)
        if not self.own or room - self.end < n:
            if self.own and room - unread >= n and self.start >= unread:
                to = PyBytes_AS_STRING(self.data)
                memmove(to, to + self.start, unread)
            else:
                larger = PyBytes_FromStringAndSize(NULL, max(LEAST, 2 * unread, unread + n))
                memcpy(PyBytes_AS_STRING(larger), PyBytes_AS_STRING(self.data) + self.start, unread)
                self.data = larger
                self.own = True
            self.start = 0
            self.end = unread
        memcpy(PyBytes_AS_STRING(self.data) + self.end, PyBytes_AS_STRING(data), n)
        self.end += n
        return 0

    # --

    cdef object op(self, int kind, Py_ssize_t n, bytes sep):
        cdef ReaderOp op
        check_made(self._conn, self)
        op = ReaderOp.__new__(ReaderOp)
        op.reader = self
        op.kind = kind
        op.n = n
        op.until = sep
        return op

    cdef object over_limit(self, str what):
        return LimitError(
            f"{what} longer than the limit of {self.limit} bytes "
            "(its bytes stay readable; give Reader a higher limit)")


cdef class WriterBase:
    """The buffer of a Writer."""

    def __cinit__(self, *args, **kwargs):
        self.buffer = bytearray()

    def __init__(self, conn, size):
        """Write to *conn*; nothing is sent yet."""
        self._conn = conn
        self._size = size

    @property
    def buffered(self):
        """How many bytes wait for a flush. Go: Writer.Buffered."""
        return PyByteArray_GET_SIZE(self.buffer)

    @property
    def available(self):
        """How many bytes a write may have to be no more than a copy. Go: Writer.Available."""
        return max(0, self._size - PyByteArray_GET_SIZE(self.buffer))

    def write(self, data):
        """Take all of *data* and return its length; send only what does not fit. An op.

        Raises what the connection raises; see the class for what is left then, and the .written
        of the op for how much has been taken.
        """
        cdef WriterOp op
        check_made(self._conn, self)
        op = WriterOp.__new__(WriterOp)
        op.writer = self
        op.kind = WRITE
        op.what = data
        return op

    def flush(self):
        """Send what is buffered. An op.

        Raises what the connection raises: the .written of the op is how much has left, the rest
        stays.
        """
        cdef WriterOp op
        check_made(self._conn, self)
        op = WriterOp.__new__(WriterOp)
        op.writer = self
        op.kind = FLUSH
        return op

    # -- for the coroutines of bufio.py

    @property
    def _buffer(self):
        return self.buffer

    @_buffer.setter
    def _buffer(self, bytearray buffer not None):
        with cython.critical_section(self):
            self.buffer = buffer

    def _gather(self, data):
        """Append *data* to the buffer."""
        with cython.critical_section(self):
            append(self.buffer, data, -1)


cdef Py_ssize_t append(bytearray buffer, object data, Py_ssize_t most) except -2:
    """Append *data* to *buffer* and return its length; or -1 if it has more than *most* bytes."""
    cdef Py_buffer view
    cdef Py_ssize_t had = PyByteArray_GET_SIZE(buffer)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if 0 <= most < view.len:
            return -1
        PyByteArray_Resize(buffer, had + view.len)
        memcpy(PyByteArray_AS_STRING(buffer) + had, view.buf, view.len)
        return view.len
    finally:
        PyBuffer_Release(&view)


# -- operations ------------------------------------------------------------------------------------

cdef class BufferedOp(Awaitable):
    """An operation that ends at once in the buffer, or goes on as a coroutine."""

    cdef bint now(self, PyObject **out) except -1:
        """End on the spot, with a result in *out*: whether that could be."""
        raise NotImplementedError

    cdef object later(self):
        """The coroutine that does it with the connection."""
        raise NotImplementedError

    cdef int step(self, PyObject **out) except -1:
        if not self.seize() or (self.begun and self.rest is None):                # K2
            raise RuntimeError(f"cannot await an operation twice ({NAMES[self.kind]})")
        if not self.begun:
            self.begun = True
            if self.now(out):
                return 1
            self.rest = self.later()
        value, self.value = self.value, None
        try:
            if PyIter_Send(self.rest, value, out) == PYGEN_NEXT:
                return 0
        except BaseException:
            self.rest = None
            raise
        self.rest = None
        return 1

    cdef int take(self, PyObject *value) except -1:
        self.value = <object>value
        return 0

    @property
    def cr_await(self):
        """What this waits in: dump() follows it."""
        return self.rest

    def throw(self, kind, value=None, traceback=None):
        """Take an exception that is thrown in at the await: the coroutine's, if there is one."""
        exc = thrown(kind, value)
        self.begun = True
        if self.rest is None:
            raise exc
        return self.rest.throw(exc)

    def close(self):
        """Give the operation up, as a coroutine that is closed does with what it awaits."""
        self.begun = True
        if self.rest is not None:
            self.rest.close()

    def __dealloc__(self):
        if not self.begun:
            never_awaited(NAMES[self.kind])


cdef int never_awaited(str name) except -1:
    warnings.warn(f"{name} was never awaited", RuntimeWarning)
    return 0


cdef class ReaderOp(BufferedOp):
    cdef bint now(self, PyObject **out) except -1:
        with cython.critical_section(self.reader):
            data = self.at_hand()
        if data is None:
            return False
        Py_INCREF(data)
        out[0] = <PyObject *>data
        return True

    cdef bytes at_hand(self):
        """What the operation returns, if it is there; else None. In a critical section."""
        cdef ReaderBase reader = self.reader
        cdef Py_ssize_t unread = reader.end - reader.start
        cdef Py_ssize_t size
        if self.kind == EXACTLY:
            return reader.take(self.n) if unread >= self.n else None
        if self.kind == READ:
            return reader.take(min(self.n, unread)) if unread or not self.n else None
        if self.kind == PEEK:
            if self.n > reader.limit:
                raise reader.over_limit("peek")
            return reader.copy(self.n) if unread >= self.n else None
        if unread == 0:
            return None
        size = reader.find(NEWLINE if self.until is None else self.until)
        return reader.take(size) if size > 0 else None

    cdef object later(self):
        reader = self.reader
        if self.kind == LINE:
            return reader._read_line()
        if self.kind == NEXT:
            return reader._next_line()
        if self.kind == UNTIL:
            return reader._read_until(self.until)
        if self.kind == EXACTLY:
            return reader._read_exactly(self.n)
        if self.kind == PEEK:
            return reader._peek(self.n)
        return reader._receive(self.n)


cdef class WriterOp(BufferedOp):
    @property
    def written(self):
        """How much of write()'s data has been taken, buffered or sent, or of the buffer has been
        sent by flush(), whatever has ended it; None if nobody knows.
        """
        return self.taken if self.told is None else self.told[0]

    cdef bint now(self, PyObject **out) except -1:
        cdef WriterBase writer = self.writer
        cdef Py_ssize_t n, most
        if writer._busy or writer._error is not None:
            writer._check()
        with cython.critical_section(writer):
            n = PyByteArray_GET_SIZE(writer.buffer)
            if self.kind == WRITE:
                most = min(writer._size - 1, max(0, writer._size - n))
                n = append(writer.buffer, self.what, most)
            elif n:
                n = -1
        if n < 0:
            return False
        result = None
        if self.kind == WRITE:
            self.taken = n
            result = n
        Py_INCREF(result)
        out[0] = <PyObject *>result
        return True

    cdef object later(self):
        self.told = [0]                  # not ourselves: no cycle
        if self.kind == FLUSH:
            return self.writer._flush(self.told)
        return self.writer._write(self.what, self.told)


cdef class CallOp(BufferedOp):
    """A coroutine that writes, as an operation. *count*.written says how far it is."""

    def __init__(self, coro, count):
        self.rest = coro
        self.count = count
        self.kind = WRITE
        self.begun = True                # the coroutine warns itself if it is never awaited

    @property
    def written(self):
        """How much has been written, whatever has ended it."""
        return self.count.written


def written_by(op, exc):
    """Return how much *op*, which *exc* has ended, has written; None if nobody knows (K4).

    The operation tells, of a host's exceptions too; one that cannot has told its own exceptions.
    """
    written = getattr(op, "written", None)
    return getattr(exc, "written", None) if written is None else written


cdef int check_made(object conn, object self) except -1:
    """Raise RuntimeError if a subclass has forgotten to initialise us."""
    if conn is None:
        raise RuntimeError(f"{type(self).__name__}.__init__() has not called super().__init__()")
    return 0


cdef Py_ssize_t check_count(object n) except -1:
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"n must be an int, not {type(n).__name__}")
    if n < 0:
        raise ValueError(f"n must not be negative, not {n}")
    if n > sys.maxsize:
        raise ValueError(f"n is too large: {n}")
    return n
