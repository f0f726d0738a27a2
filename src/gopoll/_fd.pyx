"""FD: a descriptor that goroutines read, write, accept on and close. Connections inherit it.

Called by the net package and by goroutines, on any thread.
Go: internal/poll/fd_unix.go, FD; net/fd_unix.go, netFD (go1.27).
"""

from cpython.buffer cimport (PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_FillInfo,
                             PyObject_GetBuffer)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from libc.stdint cimport int64_t

from gopoll._atomic cimport lock, unlock
from gopoll._fdmutex cimport fdmutex_incref, muLocked
from gopoll._fdop cimport AMPLE, HOPEFUL, ReadIntoOp, ReadOp, WriteOp
from gopoll._fdpool cimport new_read, new_readinto, new_write
from gopoll._fdsock cimport AcceptOp, ClosingOp, ConnectOp
from gopoll._pollcache cimport modeRead, modeWrite
from gopoll._sysfd cimport SysFD, check_fork


cdef class FD(SysFD):
    """A polled descriptor. Any number of goroutines: reads queue behind reads, writes behind
    writes. Any thread may close it or move its deadlines."""

    def close(self):
        """Close: every waiter wakes with ClosedError. Returns an awaitable; never blocks.

        The awaitable is done when the descriptor is really closed, that is when the last
        operation under way has left it; awaiting it is optional. Any thread.
        Raises ClosedError if it was closed before. Go: FD.Close.
        """
        self.evict()
        return self.closing()

    cdef object closing(self):
        cdef ClosingOp op = ClosingOp.__new__(ClosingOp)
        op.fd = self
        return op

    def wait_closed(self):
        """Return an awaitable that is done when the descriptor is really closed."""
        return self.closing()

    def _deadline(self, int mode):
        """Return the deadline of *mode*, READ or WRITE: time.monotonic() seconds, 0 once it has
        passed; None without one, and when closed. Any thread."""
        cdef int64_t when_ns = self.deadline_ns(mode)
        if when_ns == 0:
            return None
        return when_ns / 1e9 if when_ns > 0 else 0.0

    cdef int64_t deadline_ns(self, int mode) except? -1:
        """The same in ns: below 0 once it has passed, 0 without one."""
        cdef int64_t when_ns = 0
        check_fork(self)
        if fdmutex_incref(&self.mu) != muLocked:
            return 0
        if self.pd != NULL:
            lock(&self.pd.lock)
            when_ns = self.pd.rd if mode == modeRead else self.pd.wd
            unlock(&self.pd.lock)
        self.decref()
        return when_ns

    def read(self, Py_ssize_t n=AMPLE):
        """Read at most *n* bytes: b"" at the end (and for n == 0). An op.

        Raises ClosedError, TimeoutError (deadline), another OpError. Go: FD.Read.
        """
        cdef ReadOp op
        if n < 0:
            raise ValueError(f"cannot read {n} bytes: n must not be negative")
        op = new_read()
        op.fd = self
        op.mode = modeRead
        op.size = n
        return op

    def readinto(self, buffer):
        """Read into a writable *buffer*; return the count, 0 at the end. An op. Go: FD.Read."""
        cdef ReadIntoOp op = new_readinto()
        PyObject_GetBuffer(buffer, &op.view, PyBUF_WRITABLE)
        op.fd = self
        op.mode = modeRead
        return op

    def write(self, data):
        """Write all of *data* and return its length, or raise an error whose .written says how
        much has left. An op; concurrent writes do not mix. Go: FD.Write."""
        cdef WriteOp op = new_write()
        if PyBytes_CheckExact(data):         # the same, without asking its class
            PyBuffer_FillInfo(&op.view, data, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), True,
                              PyBUF_SIMPLE)
        else:
            PyObject_GetBuffer(data, &op.view, PyBUF_SIMPLE)
        op.fd = self
        op.mode = modeWrite
        op.hopeful = op.view.len <= HOPEFUL
        return op

    def accept_conn(self, type cls not None, *, bint stream=True, bint zero_read_is_eof=True,
                    bint iterate=False):
        """Accept one connection and make a *cls* of it, registered as this listener is. An op.

        The descriptor is non-blocking and close-on-exec. ECONNABORTED is not shown. cls: FD or a
        class derived from it, whose __init__ is not called; stream, zero_read_is_eof: as FD's.
        iterate: that this has been closed is a StopAsyncIteration. Go: FD.Accept, netFD.accept.
        """
        cdef AcceptOp op
        if not issubclass(cls, FD):
            raise TypeError(f"cls must be derived from FD, not {cls.__name__}")
        op = AcceptOp.__new__(AcceptOp)
        op.fd = self
        op.mode = modeRead
        op.cls = cls
        op.stream = stream
        op.zero_is_eof = zero_read_is_eof
        op.iterate = iterate
        return op

    def wait_connect(self):
        """Wait for the connect(2) under way; return the peer's address. An op.

        Go: netFD.connect.
        """
        cdef ConnectOp op = ConnectOp.__new__(ConnectOp)
        op.fd = self
        op.mode = modeWrite
        return op
