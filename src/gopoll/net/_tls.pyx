"""TLSState and the operations of a TLSConn: the usual read and write, which wait in one below.

What is not usual is left to the coroutines of tlscore, whose page says what W1 to W7 are: the
handshake, a lock that is held, a renegotiation, a pile, what a cut write has left. Made by tlsconn.
Any thread that runs the goroutine, or the task. Go: crypto/tls/conn.go (go1.27).
"""

import copy
import ssl

cimport cython
from cpython.buffer cimport PyBuffer_IsContiguous
from cpython.bytearray cimport PyByteArray_CheckExact
from cpython.bytes cimport PyBytes_CheckExact
from cpython.memoryview cimport PyMemoryView_Check, PyMemoryView_GET_BUFFER
from cpython.object cimport PyObject
from libc.stdint cimport int64_t

from gopoll._atomic cimport load_int, store_int
from gopoll._fdmutex cimport fdmutex_closed
from gopoll._park cimport SLICE_END, give, slice_spent, thread_words
from gopoll._pollcache cimport modeRead, modeWrite
from gopoll._timers cimport nanotime
from gopoll.net._bufio cimport READ, WRITE

from gopoll.errors import Canceled, OpError


cdef extern from "Python.h":
    object PyObject_CallNoArgs(object fn)
    object PyObject_CallOneArg(object fn, object arg)

cdef enum:
    CHUNK = 65536              # bytes that are encrypted, or read from below, at a time
    RECORD = 16384             # the most plaintext that one record has

cdef object SSLError = ssl.SSLError
cdef object copied = copy.copy


cdef class TLSState:
    """The part of a TLSConn that its operations look at each time; TLSBase has the rest."""

    def _begin(self, conn):
        """Keep what is called each time. Once, when all is set."""
        self.fd = conn if isinstance(conn, FD) else None
        self.acquire, self.release = self._lock.acquire, self._lock.release
        self.fill, self.drain = self._in.write, self._out.read

    @property
    def _obj(self):
        """SSLObject."""
        return self.obj

    @_obj.setter
    def _obj(self, obj):
        # What it only hands over to, unless it has been put into a context by the program.
        inner = getattr(obj, "_sslobj", obj) if type(obj) is ssl.SSLObject else obj
        self.obj = obj
        self.ssl_read, self.ssl_write, self.ssl_pending = inner.read, inner.write, inner.pending

    @property
    def _ready(self):
        """Whether the handshake is complete."""
        return bool(load_int(&self.ready))

    @_ready.setter
    def _ready(self, bint ready):
        store_int(&self.ready, ready)

    @property
    def _closed(self):
        """Whether close() has been called."""
        return bool(load_int(&self.closed))

    @_closed.setter
    def _closed(self, bint closed):
        store_int(&self.closed, closed)

    cdef int take(self) except -1:
        """Take _lock (W1)."""
        PyObject_CallNoArgs(self.acquire)
        return 0

    cdef int drop(self) except -1:
        PyObject_CallNoArgs(self.release)
        return 0

    cdef int check(self, str op, int mode) except -1:
        """As _check(), which raises what there is to raise."""
        cdef int64_t when_ns
        if self.fd is not None and not load_int(&self.closed):
            if not fdmutex_closed(&self.fd.mu):
                when_ns = self.fd.deadline_ns(mode)
                if when_ns == 0 or (when_ns > 0 and nanotime() < when_ns):
                    return 0
        self._check(op, mode)
        return 0

    cdef bint has_to_send(self) except -1:
        """Whether there is something that nobody may be about to send. Under _lock."""
        if load_int(&self.closed) or not load_int(&self.ready):
            return False
        return bool((self._shut and not self._notified) or self._unsent or self._out.pending)

    cdef int kick(self) except -1:
        """Have what nobody is about to send be sent (W3). Any thread, without _wlock."""
        cdef bint has
        self.take()
        try:
            self._kicks += 1
            has = self.has_to_send()
        finally:
            self.drop()
        if has:
            self._send_kicked()
        return 0

    def _kick(self):
        """Have what nobody is about to send be sent (W3). Any thread, without _wlock."""
        self.kick()

    def _has_to_send(self):
        """Whether there is something that nobody may be about to send. Under _lock."""
        return self.has_to_send()

    cdef bint is_waited_for(self) except -1:
        return bool(self._waits._notes)

    cdef object decrypt(self, Py_ssize_t n, object view):
        """Return at most a record's bytes, or their number in *view*; b"" or 0 if there is none.

        How the stream ends goes to _read_end. Under _lock.
        """
        nothing = b"" if view is None else 0
        if self._read_end:
            return nothing
        if not self._in.pending and not PyObject_CallNoArgs(self.ssl_pending):
            if self._eof:
                self._look_for_end()
            return nothing
        n = min(n, <Py_ssize_t>RECORD)
        try:
            got = PyObject_CallOneArg(self.ssl_read, n) if view is None else self.ssl_read(n, view)
        except SSLError as exc:
            self._not_decrypted(exc)
            return nothing
        if not got and n:
            self._read_end = True
        return got

    def _decrypt(self, Py_ssize_t n, view=None):
        """Return at most a record's bytes, or their number in *view*. Under _lock."""
        return self.decrypt(n, view)

    cdef object take_bytes(self, Py_ssize_t n):
        """Return at most *n* bytes of plaintext, b"" if there is none. Under _lock."""
        if self._plain:
            return self._take_plain(n)
        got = self.decrypt(n, None) if n else b""
        if not self._in.pending:                     # the usual case: one record, all of it
            return got
        parts = [got]                                # in one piece it is cheaper
        while got and len(got) < n:
            n -= len(got)
            got = self.decrypt(n, None)
            parts.append(got)
        return b"".join(parts)

    def _take_bytes(self, Py_ssize_t n):
        """Return at most *n* bytes of plaintext, b"" if there is none. Under _lock."""
        return self.take_bytes(n)

    def read(self, Py_ssize_t n=CHUNK):
        """Read at most *n* bytes: b"" at the end that the peer has announced. An op.

        Raises ClosedError, TimeoutError (deadline), another OpError: one that is an
        ssl.SSLEOFError if the connection has ended without such an announcement. Go: Conn.Read.
        """
        cdef TLSReadOp op
        if n < 0:
            raise ValueError(f"cannot read {n} bytes: n must not be negative")
        op = TLSReadOp.__new__(TLSReadOp)
        op.conn = self
        op.n = n
        op.kind = READ
        return op

    def write(self, data):
        """Write all of *data* and return its length, or raise an error whose .written says how
        much has been encrypted: that is on its way, whatever became of the call. An op, whose own
        .written says it too; concurrent writes do not mix. Go: Conn.Write.
        """
        cdef TLSWriteOp op = TLSWriteOp.__new__(TLSWriteOp)
        op.conn = self
        op.data = data
        op.kind = WRITE
        return op


# -- operations ------------------------------------------------------------------------------------

@cython.final
cdef class TLSReadOp(BufferedOp):
    """What TLSConn.read() returns."""

    cdef int step(self, PyObject **out) except -1:
        cdef TLSState conn = self.conn
        if not self.begun and self.seize() and slice_spent():                  # A13, K2
            give(SLICE_END, out)
            return 0
        if self.begin():
            self.held = load_int(&conn.ready) and conn._rlock.try_now()
            if not self.held:
                self.rest = conn._read(self.n, None)
            else:
                thread_words().spent += 1            # it may never park
                if self.look(None, out):
                    return 1
        return self.go_on(out)

    cdef bint look(self, object data, PyObject **out) except -1:
        """Take in *data*: whether the read ends, with its result in *out*. With _rlock, which is
        given up if the read ends, or raises, or is left to a coroutine.
        """
        cdef TLSState conn = self.conn
        cdef bint gives_way, answers
        try:
            conn.take()
            try:
                if data is not None:
                    PyObject_CallOneArg(conn.fill, data)
                    conn._eof = not data
                conn.check("read", modeRead)
                got = conn.take_bytes(self.n)
                end = conn._read_end
                gives_way = conn._wants_read
                answers = bool(conn._out.pending)    # a KeyUpdate, an alert
            finally:
                conn.drop()
            if answers:
                conn._kick()                         # W3
            if got:
                if conn.is_waited_for():
                    conn._waits.wake()               # W6
            elif self.n != 0 and not end:
                if gives_way or ((answers or conn._unsent) and conn._is_piled()):    # W4, W5
                    self.leave()
                    self.rest = conn._read(self.n, None)
                return False
        except BaseException:
            self.leave()
            raise
        self.leave()
        if not got and self.n != 0 and end is not True:
            raise copied(end)
        return give(got, out)

    cdef int leave(self) except -1:
        """Give _rlock up, if we have it."""
        if self.held:
            self.held = False
            self.conn._rlock.unlock_now()
        return 0

    cdef int ask(self) except -1:
        self.call(self.conn._conn, "read", CHUNK)
        return 0

    cdef bint arrived(self, object value, PyObject **out) except -1:
        self.rest = None
        if self.held:
            return self.look(value, out)
        return give(value, out)

    cdef int fail(self, object exc) except -1:
        cdef bint held = self.held
        self.rest = None
        self.leave()
        if held and isinstance(exc, OSError):
            self.conn._check("read", 0)  # what close() does to the deadline below is no timeout
        return 0

    def __del__(self):
        if self.held:
            self.close()


cdef enum:
    NOWHERE                    # it has _wlock no more, or not yet
    SENDING                    # it has _wlock, and `sent` is on its way
    READING                    # it has _wlock, and a coroutine that must read first writes
    FLUSHING                   # it has _wlock, and a coroutine sends the rest


@cython.final
cdef class TLSWriteOp(BufferedOp):
    """What TLSConn.write() returns."""

    @property
    def written(self):
        """How much has been encrypted, whatever has ended it."""
        return self.told if self.writing is None else self.writing.written

    cdef int step(self, PyObject **out) except -1:
        if not self.begun and self.seize() and slice_spent():                  # A13, K2
            give(SLICE_END, out)
            return 0
        if self.begin() and not self.put():
            self.write_slowly(None)
        return self.go_on(out)

    cdef int write_slowly(self, object coro) except -1:
        """Leave all of it to a coroutine, *coro* if _wlock is ours."""
        writing = self.conn._writing()
        self.rest = (self.conn._write_one if coro is None else coro)(writing, self.data)
        self.writing, self.data = writing, None
        return 0

    cdef bint put(self) except -1:
        """Encrypt the data, if nothing has to be waited for: False if a coroutine has to try."""
        cdef TLSState conn = self.conn
        cdef Py_ssize_t size
        if PyMemoryView_Check(self.data):
            if not PyBuffer_IsContiguous(PyMemoryView_GET_BUFFER(self.data), b"C"):
                return False
            size = PyMemoryView_GET_BUFFER(self.data).len
        elif PyBytes_CheckExact(self.data) or PyByteArray_CheckExact(self.data):
            size = len(self.data)
        else:
            return False
        if not (0 < size <= CHUNK and load_int(&conn.ready) and conn._wlock.try_now()):
            return False
        self.at = SENDING
        try:
            return self.encrypt()
        except BaseException as exc:
            self.sent = None                         # it is in _unsent: nothing has gone down yet
            self.fail(exc)
            raise

    cdef int encrypt(self) except -1:
        """Turn the data into what is to be sent; False if it has to wait. With _wlock."""
        cdef TLSState conn = self.conn
        cdef bint done = False
        thread_words().spent += 1
        conn.take()
        try:
            conn.check("write", modeWrite)
            if conn._write_end is not None or conn._shut:
                conn._check_open()
            if conn._unsent or conn._out.pending:    # of a write that was cut: it goes first (W2)
                self.sent = None
            else:
                try:
                    self.told = PyObject_CallOneArg(conn.ssl_write, self.data)   # all of it
                    done = True
                except SSLError as exc:
                    conn._not_encrypted(exc)         # W4
                    self.sent = b""
                if done:
                    self.sent = PyObject_CallNoArgs(conn.drain)
                    conn._unsent = self.sent
        finally:
            conn.drop()
        if done:
            self.data = None
            if conn.is_waited_for():
                conn._waits.wake()                   # W5
        elif self.sent is None:
            self.leave()
        else:
            self.write_slowly(conn._write_on)
            self.at = READING
            return True
        return done

    cdef int leave(self) except -1:
        """Give _wlock up, and look whether there is something to send (W3)."""
        self.at = NOWHERE
        if self.conn._wants_read:
            self.conn._read_no_more()
        self.conn._wlock.unlock_now()
        self.conn.kick()
        return 0

    cdef int ask(self) except -1:
        self.made = self.call(self.conn._conn, "write", self.sent)
        return 0

    cdef bint arrived(self, object value, PyObject **out) except -1:
        cdef TLSState conn = self.conn
        self.made = self.rest = None
        if self.at == NOWHERE:
            return give(value, out)
        if self.at == SENDING:
            conn._unsent = self.sent = b""
            conn._send_error = None
            if conn.is_waited_for():                 # W5
                self.at = FLUSHING
                self.rest = conn._flush(True)
                return False
        self.leave()
        return give(self.written, out)

    cdef int fail(self, object exc) except -1:
        made, self.made = self.made, None
        self.rest = None
        if self.at == NOWHERE:
            return 0
        try:
            if self.at == SENDING and self.sent:
                self.conn._send_failed(made, exc, self.sent)
        finally:
            self.leave()
        if isinstance(exc, (OpError, Canceled)):
            exc.written = self.written
        return 0

    def throw(self, kind, value=None, traceback=None):
        """Take an exception that is thrown in at the await."""
        try:
            return BufferedOp.throw(self, kind, value, traceback)
        except (OpError, Canceled) as exc:
            if exc.written is None:                  # it had not begun
                exc.written = self.written
            raise

    def __del__(self):
        if self.at != NOWHERE:
            self.close()
