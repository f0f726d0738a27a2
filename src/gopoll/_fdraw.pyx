"""RawOp: the caller's own system call on the descriptor, tried again after each readiness.

The functions are methods of the net package's connections, by assignment: their first argument is
the FD. Called in a goroutine, on the scheduler of the connection, which is also where fn runs.
Go: FD.RawRead, FD.RawWrite in internal/poll/fd_unix.go; net/rawconn.go (go1.27).
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.errno cimport EAGAIN

from gopoll._atomic cimport store_int
from gopoll._fdop cimport AGAIN, DONE, SLICE, Op
from gopoll._park cimport slice_spent, thread_words
from gopoll._pollcache cimport modeRead, modeWrite
from gopoll._sysfd cimport SysFD


cdef class RawOp(Op):
    @property
    def wait_reason(self):
        """As Goroutine.wait_reason."""
        return self.name()

    cdef str name(self):
        return "raw-read" if self.mode == modeRead else "raw-write"

    cdef str call(self):
        return None                                  # the caller's own

    cdef int attempt(self, PyObject **out) except -1:
        try:
            result = self.fn(self.fd.sysfd)
            done = bool(result)
        except BaseException:
            self.finish()
            raise
        self.check_phase()
        if done:
            Py_INCREF(result)
            out[0] = <PyObject *>result
            return DONE
        thread_words().spent += 1                    # A13: each call counts
        self.err = SLICE if slice_spent() else EAGAIN
        return AGAIN


cdef object raw(SysFD fd, object fn, int mode):
    cdef RawOp op
    if not callable(fn):
        raise TypeError(f"fn must be callable, not {type(fn).__name__}")
    op = RawOp.__new__(RawOp)
    op.fd = fd
    op.mode = mode
    op.fn = fn
    store_int(&fd.plain, 0)
    return op


def raw_read(SysFD fd not None, fn):
    """Call fn(descriptor), again after each readiness to read, until it returns something true.

    Returns that; what fn raises comes out as it is, a StopIteration as the cause of a RuntimeError.
    An op; other reads queue behind it. fn must not block, and returns false only after its call has
    said EAGAIN: readiness is told once (edge-triggered). Close and a read deadline are looked at
    before each call, the first included. Raises ClosedError, TimeoutError. Go: RawConn.Read.
    """
    return raw(fd, fn, modeRead)


def raw_write(SysFD fd not None, fn):
    """As raw_read, for writing. Go: RawConn.Write."""
    return raw(fd, fn, modeWrite)
