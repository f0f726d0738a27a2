"""Writer's buffer and its operations: they end in the buffer, or give the connection what is there.

Made by bufio.py. Any thread that runs the goroutine. Go: bufio/bufio.go (go1.27).

Two goroutines in one Writer are the program's mistake; the critical sections make it cost no more
than the order of the bytes.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.object cimport PyObject
from libc.string cimport memcpy

from gopoll._atomic cimport load_int, store_int
from gopoll._park cimport give
from gopoll.net._bufio cimport FLUSH, WRITE, check_made

from gopoll.errors import OpError
from gopoll.net._bufio import written_by


cdef class WriterBase:
    """The buffer of a Writer."""

    def __cinit__(self, *args, **kwargs):
        self.buffer = bytearray()

    def __init__(self, conn, size):
        """Write to *conn*; nothing is sent yet."""
        self._conn = conn
        self.has_writev = getattr(conn, "writev", None) is not None
        self.size = size

    @property
    def buffered(self):
        """How many bytes wait for a flush. Go: Writer.Buffered."""
        with cython.critical_section(self):
            return PyByteArray_GET_SIZE(self.buffer)

    @property
    def available(self):
        """How many bytes a write may have to be no more than a copy. Go: Writer.Available."""
        with cython.critical_section(self):
            return self.room()

    cdef Py_ssize_t room(self) noexcept:
        """The same. In a critical section."""
        return max(0, self.size - PyByteArray_GET_SIZE(self.buffer))

    def write(self, data):
        """Take all of *data* and return its length; send only what does not fit. An op.

        Raises what the connection raises; see the class for what is left then, and the .written
        of the op for how much has been taken.
        """
        return self.op(WRITE, data)

    def flush(self):
        """Send what is buffered. An op.

        Raises what the connection raises: the .written of the op is how much has left, the rest
        stays.
        """
        return self.op(FLUSH, None)

    cdef object op(self, int kind, object data):
        cdef WriterOp op
        check_made(self._conn, self)
        op = WriterOp.__new__(WriterOp)
        op.writer = self
        op.kind = kind
        op.data = data
        op.told = 0
        return op

    cdef int check(self) except -1:
        """Raise what stands against a call, if anything does. In a critical section, up to where
        the call has done what nobody else may come before.
        """
        if load_int(&self.busy):
            # Behind what is on its way, or in front of it? Nobody could say.
            raise RuntimeError("writer is sending for another goroutine (give it a Mutex)")
        error = self.error
        if error is not None:
            if getattr(error, "written", None):
                error.written = 0                    # of this call's data
            raise error.with_traceback(None)
        return 0

    cdef int cut(self, object exc, object gone) except -1:
        """Keep what has not left, *gone* bytes having; or nothing, and all is over."""
        broken = isinstance(exc, OSError) and not isinstance(exc, TimeoutError)
        error = None
        if gone is None and not isinstance(exc, Exception):
            what = f"an earlier write was cut ({exc!r}), and nobody knows how much had left"
            error = OpError("write", err=what)
        elif gone is None or broken:
            error = exc
        with cython.critical_section(self):
            if error is None:
                self.buffer = self.buffer[gone:]
            else:
                self.error = error
        return 0


cdef int append(bytearray buffer, Py_buffer *view) except -1:
    cdef Py_ssize_t had = PyByteArray_GET_SIZE(buffer)
    PyByteArray_Resize(buffer, had + view.len)
    memcpy(PyByteArray_AS_STRING(buffer) + had, view.buf, view.len)
    return 0


# -- operations ------------------------------------------------------------------------------------

cdef class WriterOp(BufferedOp):
    """One operation of a Writer: what is buffered, then the data, goes to the connection."""

    @property
    def written(self):
        """How much of write()'s data has been taken, buffered or sent, or of the buffer has been
        sent by flush(), whatever has ended it; None if nobody knows.
        """
        return self.told

    cdef int step(self, PyObject **out) except -1:
        if self.begin():
            if self.now(out):
                return 1
            self.start()
        return self.go_on(out)

    cdef bint now(self, PyObject **out) except -1:
        """End on the spot, with a result in *out*: whether that could be."""
        cdef WriterBase writer = self.writer
        cdef Py_buffer view
        cdef bint fits = True
        if self.kind == FLUSH:
            with cython.critical_section(writer):
                writer.check()
                fits = PyByteArray_GET_SIZE(writer.buffer) == 0
            return fits and give(None, out)
        PyObject_GetBuffer(self.data, &view, PyBUF_SIMPLE)       # first: it may run anything
        try:
            with cython.critical_section(writer):
                writer.check()
                fits = view.len < writer.size and view.len <= writer.room()
                if fits:
                    append(writer.buffer, &view)
                    self.told = view.len
        finally:
            PyBuffer_Release(&view)
        return fits and give(self.told, out)

    cdef int start(self) except -1:
        """Decide what the connection is given, one after the other; a list is for writev."""
        cdef WriterBase writer = self.writer
        tail = None
        if self.kind == WRITE:
            self.data = memoryview(self.data).cast("B")
            # What fits follows into an empty buffer.
            tail = self.data if len(self.data) >= writer.size else None
        with cython.critical_section(writer):
            writer.check()                           # another may have come since now()
            self.head = writer.buffer
            store_int(&writer.busy, True)
        if not self.head:
            self.pieces = [tail or b""]
        elif tail is None:
            self.pieces = [self.head]
        elif writer.has_writev:
            self.pieces = [[self.head, tail]]
        else:
            self.pieces = [self.head, tail]
        return 0

    cdef int ask(self) except -1:
        """Give the connection the next piece."""
        piece = self.pieces.pop(0)
        self.made = self.call(self.writer._conn, "writev" if isinstance(piece, list) else "write",
                              piece)
        return 0

    cdef bint arrived(self, object value, PyObject **out) except -1:
        """A piece has left: whether it was the last, with the result in *out*."""
        cdef WriterBase writer = self.writer
        cdef Py_buffer view
        self.made = self.rest = None
        self.gone = PyByteArray_GET_SIZE(self.head)
        if self.pieces:
            return False
        self.told = self.gone
        with cython.critical_section(writer):
            writer.buffer = bytearray()
            store_int(&writer.busy, False)
            if self.kind == WRITE and len(self.data) < writer.size:
                PyObject_GetBuffer(self.data, &view, PyBUF_SIMPLE)
                try:
                    append(writer.buffer, &view)
                finally:
                    PyBuffer_Release(&view)
        if self.kind == FLUSH:
            return give(None, out)
        self.told = len(self.data)
        return give(self.told, out)

    cdef int fail(self, object exc) except -1:
        """*exc* has cut it: tell in `written`, its own too, how much has left of the data, else of
        what was buffered."""
        cdef WriterBase writer = self.writer
        written = written_by(self.made, exc)
        total = None if written is None else self.gone + written
        self.told = total
        if total is not None and self.kind == WRITE:
            self.told = max(0, total - PyByteArray_GET_SIZE(self.head))
            if hasattr(exc, "written"):
                exc.written = self.told
        try:
            writer.cut(exc, total)
        finally:
            store_int(&writer.busy, False)
            self.made = self.rest = None
        return 0
