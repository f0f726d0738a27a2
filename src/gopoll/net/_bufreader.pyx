"""Reader's buffer and its operations: they end in what is at hand, or ask the connection for more.

Made by bufio.py. Any thread that runs the goroutine. Go: bufio/bufio.go (go1.27).

A piece that the connection has given is the buffer while nothing else is unread: it is not copied.
What comes behind something unread is gathered in a bytes object of our own, whose size doubles.
Two goroutines in one Reader are the program's mistake; the critical sections make it cost no more
than the order of the bytes.
"""

cimport cython
from cpython.bytes cimport (PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize,
                            PyBytes_GET_SIZE)
from cpython.object cimport PyObject
from libc.string cimport memchr, memcpy, memmove

from gopoll._atomic cimport load_int, store_int
from gopoll._park cimport give
from gopoll.net._bufio cimport ANEXT, EXACTLY, LINE, PEEK, READ, UNTIL, check_count, check_made

from gopoll.errors import LimitError


cdef extern from *:
    """
    /* The C library's own declaration wants _GNU_SOURCE, which Python's header has set. */
    """
    void *memmem(const void *text, size_t n, const void *what, size_t m) noexcept

cdef bytes NEWLINE = b"\n"
cdef enum:
    LEAST = 512                # of a buffer of our own, in bytes
    CHUNK = 65536              # bytes asked of the connection at a time
    MAX_CHUNK = 4 * 65536      # the same when read_exactly knows that it needs more


class _IncompleteRead(EOFError):
    """The stream ended first: partial has the bytes that came; expected is their number or None."""

    def __init__(self, partial, expected):
        super().__init__(partial, expected)
        self.partial = partial
        self.expected = expected

    def __str__(self):
        wanted = "the separator" if self.expected is None else f"{self.expected} bytes"
        return f"end of file after {len(self.partial)} bytes, before {wanted}"


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
        return self.op(ANEXT, 0, None)

    # -- in a critical section

    cdef Py_ssize_t find(self, bytes sep) except -2:
        """Return the size up to the end of *sep* in what is unread, or -1; or LimitError."""
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
        """Return the first *n* unread bytes, which must be there."""
        if n == 0:
            return b""
        return PyBytes_FromStringAndSize(PyBytes_AS_STRING(self.data) + self.start, n)

    cdef bytes take(self, Py_ssize_t n):
        """The same, and consume them."""
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
        """Put what the connection has given behind what is unread."""
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


# -- operations ------------------------------------------------------------------------------------

cdef class ReaderOp(BufferedOp):
    """One operation of a Reader. It takes nothing before it has all that it returns."""

    cdef int step(self, PyObject **out) except -1:
        if self.begin():
            with cython.critical_section(self.reader):
                data = self.at_hand()
            if data is not None:
                return give(data, out)
        return self.go_on(out)

    cdef int ask(self) except -1:
        """Read from the connection, for one caller at a time."""
        cdef ReaderBase reader = self.reader
        cdef Py_ssize_t n = self.n
        with cython.critical_section(reader):
            if load_int(&reader.busy):
                # Two reads in flight may come back in either order and would mix up the stream.
                raise RuntimeError("reader is waiting for another goroutine (give it a Mutex)")
            store_int(&reader.busy, True)
            if self.kind == EXACTLY or self.kind == PEEK:
                n = min(max(n - (reader.end - reader.start), CHUNK), MAX_CHUNK)
            elif self.kind != READ:
                n = CHUNK
        self.call(reader._conn, "read", n)
        return 0

    cdef int fail(self, object exc) except -1:
        """The read of the connection is over, whatever has ended it."""
        self.rest = None
        store_int(&self.reader.busy, False)
        return 0

    cdef bint arrived(self, object data, PyObject **out) except -1:
        """Take what the connection has given: whether that is the end, with the result in *out*.

        Nothing awaits between its arrival and its place in the buffer, so a cancellation cannot
        come between them.
        """
        cdef ReaderBase reader = self.reader
        self.fail(None)
        if self.kind == READ:
            return give(data, out)
        with cython.critical_section(reader):
            if data:
                reader.feed(data if PyBytes_CheckExact(data) else bytes(memoryview(data)))
                result = self.at_hand()
                if result is None:
                    return False
            else:
                result = self.at_end()
        return give(result, out)

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

    cdef bytes at_end(self):
        """The same where the stream has ended, or what there is to raise then."""
        cdef ReaderBase reader = self.reader
        cdef Py_ssize_t unread = reader.end - reader.start
        if self.kind == PEEK:
            return reader.copy(unread)
        if self.kind == ANEXT and unread == 0:
            raise StopAsyncIteration
        data = reader.take(unread)
        if self.kind == UNTIL or self.kind == EXACTLY:
            raise _IncompleteRead(data, self.n if self.kind == EXACTLY else None)
        return data
