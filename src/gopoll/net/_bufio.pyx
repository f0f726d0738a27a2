"""Operations of buffers, which end on the spot or wait in what the connection does.

Made by _bufreader, _bufwriter and tlsconn. Any thread that runs the goroutine, or the task.
Go: none; there a call blocks.
"""

import sys
from types import CoroutineType

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF

from gopoll._fdop cimport thrown
from gopoll._park cimport give, never_awaited


cdef extern from *:
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PySendResult PyIter_Send(object coro, object arg, PyObject **out) except PYGEN_ERROR

cdef extern from "Python.h":
    object PyObject_CallMethodOneArg(object o, object name, object arg)

cdef tuple NAMES = ("read_line", "anext", "read_until", "read_exactly", "peek", "read", "write",
                    "flush")


cdef class BufferedOp(Awaitable):
    """An operation that ends at once in the buffer, or waits in one of the connection."""

    cdef int begin(self) except -1:
        """Look before a step whether there may be one: True for the first."""
        if not self.seize() or (self.begun and self.rest is None):                # K2
            raise RuntimeError(f"cannot await an operation twice ({NAMES[self.kind]})")
        if self.begun:
            return False
        self.begun = True
        return True

    cdef int wait_in(self, object awaitable) except -1:
        """Have *awaitable* stepped from now on."""
        if not isinstance(awaitable, Awaitable) and type(awaitable) is not CoroutineType:
            awaitable = _await(awaitable)
        self.rest = awaitable
        return 0

    cdef int resume(self, PyObject **out) except -1:
        """Step what this waits in: 0 and what it yields, or 1 and what it returns."""
        cdef int rc
        rest = self.rest                             # held: a method call does not hold it
        value, self.value = self.value, None
        if not isinstance(rest, Awaitable):
            return PyIter_Send(rest, value, out) != PYGEN_NEXT
        if value is not None:
            (<Awaitable>rest).take(<PyObject *>value)
        rc = (<Awaitable>rest).step(out)
        if rc == 2:
            rc = give(owned(out).value, out)
        return rc

    cdef int take(self, PyObject *value) except -1:
        self.value = <object>value
        return 0

    cdef int go_on(self, PyObject **out) except -1:
        """Wait until all is done: 0 and what that yields, or 1 and the operation's result."""
        self.running = True
        try:
            return self.go_on_now(out)
        finally:
            self.running = False

    cdef int refuse_running(self, str what) except -1:
        """Raise if it is in a step: who is called there cannot end it as well."""
        if self.running:
            raise RuntimeError(f"cannot {what} an operation that is running ({NAMES[self.kind]})")
        return 0

    cdef int go_on_now(self, PyObject **out) except -1:
        while True:
            if self.rest is None:
                self.ask()
            try:
                if self.resume(out) == 0:
                    return 0
            except BaseException as exc:
                self.fail(exc)
                raise
            if self.arrived(owned(out), out):
                return 1

    cdef int ask(self) except -1:
        """Have the connection do what is next: call() it. A kind has its own."""
        raise NotImplementedError

    cdef object call(self, object conn, str method, object arg):
        """Wait in what *method* of *conn* returns, and return that."""
        try:
            made = PyObject_CallMethodOneArg(conn, method, arg)
            self.wait_in(made)
            return made
        except BaseException as exc:
            self.fail(exc)
            raise

    cdef bint arrived(self, object value, PyObject **out) except -1:
        """What was waited for has ended with *value*: whether that is all, with the result in
        *out*. A kind has its own.
        """
        raise NotImplementedError

    cdef int fail(self, object exc) except -1:
        """*exc* has ended what was waited for; a kind has its own."""
        raise NotImplementedError

    def throw(self, kind, value=None, traceback=None):
        """Take an exception that is thrown in at the await: that of what this waits in, if any."""
        cdef PyObject *out = NULL
        self.refuse_running("throw into")
        exc = thrown(kind, value)
        self.begun = True
        if self.rest is None:
            raise exc
        self.running = True
        try:
            try:
                throw = getattr(self.rest, "throw", None)
                if throw is None:
                    raise exc
                return throw(exc)
            except StopIteration as stop:            # it has ended all the same
                found = stop.value
            except BaseException as err:
                self.fail(err)
                raise
            if not self.arrived(found, &out) and self.go_on_now(&out) == 0:
                return owned(&out)
        finally:
            self.running = False
        raise StopIteration(owned(&out))

    def close(self):
        """Give the operation up, as a coroutine that is closed does with what it awaits."""
        self.refuse_running("close")
        rest, self.rest = self.rest, None
        self.begun = True
        if rest is None:
            return
        try:
            if hasattr(rest, "close"):
                rest.close()
        finally:
            self.fail(GeneratorExit())

    @property
    def cr_await(self):
        """What this waits in: dump() follows it."""
        return self.rest

    def __dealloc__(self):
        if not self.begun:
            never_awaited(NAMES[self.kind], None)


async def _await(awaitable):
    return await awaitable


cdef object owned(PyObject **out):
    """Return what a step has put into *out*, which is empty again."""
    value = <object>out[0]
    Py_DECREF(value)
    out[0] = NULL
    return value


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

    cdef int step(self, PyObject **out) except -1:
        self.begin()
        return self.go_on(out)

    cdef bint arrived(self, object value, PyObject **out) except -1:
        self.rest = None
        return give(value, out)

    cdef int fail(self, object exc) except -1:
        self.rest = None
        return 0


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
