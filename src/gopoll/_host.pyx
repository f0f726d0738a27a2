"""Awaits in the tasks of a host: the operation is parked with a future of the host's kind.

Made by Awaitable.__await__ on the thread of a host that a guest is attached to, outside of the
guest's goroutines. No goroutine is made for an operation. Go: none; there is one scheduler.

Q1: a future of the host's is settled on the host's thread alone. A waiter that is called elsewhere
    posts itself to the guest's poller, and is called again by the guest when that is polled.
Q2: each park has a waiter of its own. Whoever throws into the await takes that back first, as the
    scheduler does with a goroutine's park; if it is being woken already it is marked as over, and
    settles nothing.
Q3: who is parked stands in the link's waits. A guest that is closed takes them back and fails them,
    and nobody parks after that.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uintptr_t

from gopoll._park cimport (SLICE_BYTES, SLICE_OPS, Awaitable, HostBase, ParkRequest, ThreadWords,
                           count_links, give, set_iternext, thread_words)
from gopoll._pollerbase cimport PollerBase
from gopoll._pollserver cimport pollserver_forked

from gopoll.errors import ClosedError, ForkedError


CLOSED = ("the guest has been closed, or the block of attach() left, while this operation waited: "
          "end the tasks that use gopoll before that")
FORKED = ("the guest was forked: its goroutines and connections stay with the parent; attach "
          "another in the child")


cdef class HostLink(HostBase):
    """What a guest knows of its host, and which operations wait in the host's tasks."""

    def __init__(self, PollerBase poller not None, make_future, comes_again, create_future=None):
        """make_future() -> (awaitable, set_result, set_error); comes_again(error) -> bool.

        create_future: instead of make_future, where it gives a future of asyncio's kind, which has
        these by their names.
        """
        self.poller = poller
        self.ps = poller.ps
        self.make_future = make_future
        self.create_future = create_future
        self.comes_again = comes_again
        self.waits = set()

    def enter_thread(self):
        """Have awaits on the calling thread park with futures of this host."""
        self.thread = thread_words()
        self.thread.host = <PyObject *>self
        count_links(1)

    def leave_thread(self):
        """Undo enter_thread, and fail who waits still (Q3). On the same thread."""
        cdef ThreadWords *tw = thread_words()
        cdef HostWaiter waiter
        self.is_closed = True
        if tw.host == <PyObject *>self:
            tw.host = NULL
            count_links(-1)
        waits, self.waits = list(self.waits), set()
        error = None
        for waiter in waits:
            if waiter.over:
                continue
            try:
                # Else it is being woken, and the poller is about to go.
                waiter.settle(RuntimeError(CLOSED) if waiter.take_back() else None)
            except BaseException as err:     # the others are told all the same
                error = err if error is None else error
        if error is not None:
            raise error

    @property
    def waiting(self):
        """How many operations wait in tasks of the host."""
        return len(self.waits)

    cdef object awaiting(self, Awaitable op):
        cdef HostAwait made = HostAwait.__new__(HostAwait)
        made.link = self
        made.op = op
        return made


@cython.freelist(64)
cdef class HostWaiter:
    """The waiter of one park: called when it is over, on any thread (Q1)."""

    def __call__(self):
        self.wake()

    cdef int wake(self) except -1:
        cdef HostLink link = self.link
        if link.thread != thread_words():
            try:
                link.poller.post(self)
            except ClosedError:
                pass                         # Q3: it has been failed
        elif not self.over:                  # Q2
            self.settle(None)
        return 0

    cdef object settle(self, object error):
        """Tell who awaits. On the host's thread, once."""
        self.over = True
        self.link.waits.discard(self)        # who awaited may be gone: anext(chan, default)
        if self.future is not None and self.future.done():
            return                           # cancelled: its task is thrown into soon
        if error is None:
            if self.set_result is None:
                self.future.set_result(None)
            else:
                self.set_result(None)
        elif self.set_error is None:
            self.future.set_exception(error)
        else:
            self.set_error(error)

    cdef bint take_back(self) noexcept:
        """Leave what it is parked in: False if it is being woken."""
        if pollserver_forked(self.link.ps):
            return True                      # what it is parked in is the parent's (A9)
        if self.request.abort_word(<PyObject *>self) == 0:
            return False
        Py_DECREF(self)                      # the park's
        return True


cdef class Turn(ParkRequest):
    """Wait for the host's next turn: others come first (A13)."""

    cdef bint commit_word(self, PyObject *waiter) noexcept:
        cdef HostWaiter w = <HostWaiter>waiter
        try:
            w.link.poller.post_word(<uintptr_t>waiter)
        except BaseException:                # closed, or out of memory: go on at once
            return False
        return True


cdef Turn TURN = Turn()


cdef class HostAwait(Awaitable):
    """One await of an operation in a task of the host, which steps it.

    The operation is its own (K2) until it goes: anext() with a default awaits anew at each turn.
    """

    def __dealloc__(self):
        if self.op is not None:
            self.op.let_go_of(<PyObject *>self)

    cdef int step(self, PyObject **out) except -1:
        cdef object value, found = None
        cdef bint over = False
        if self.it is None:
            self.unpark()
            if self.value is not None:       # for what the operation itself awaits
                value, self.value = self.value, None
                self.op.take(<PyObject *>value)
            return self.turn(out)
        value, self.value = self.value, None
        try:
            found = next(self.it) if value is None else self.it.send(value)
        except StopIteration:
            over = True                      # not in here: it is no context of what is raised
        except BaseException as error:       # so a host cancels that sends its errors
            self.it = None
            return self.interrupt(error, out)
        if over:
            self.it = None
            self.unpark()
            return self.turn(out)
        give(found, out)
        return 0

    cdef int take(self, PyObject *value) except -1:
        self.value = <object>value
        return 0

    cdef int turn(self, PyObject **out) except -1:
        """Step the operation until it is done or parked, as its only awaiter (K2)."""
        cdef ThreadWords *tw = thread_words()
        cdef PyObject *outer = tw.awaiting
        cdef object request
        cdef int rc
        if ((tw.spent >= SLICE_OPS or tw.spent_bytes >= SLICE_BYTES)
                and not self.link.is_closed):
            if self.park(TURN, out):
                return 0
        while True:
            tw.awaiting = <PyObject *>self
            try:                             # here: a function has a line in each traceback
                rc = self.op.step(out)
            finally:
                tw.awaiting = outer
            if rc != 0 or not isinstance(<object>out[0], ParkRequest):
                return rc                    # what it awaits waits by the host's own protocol
            request = <object>out[0]
            Py_DECREF(request)
            out[0] = NULL
            try:
                if self.park(<ParkRequest?>request, out):
                    return 0
            except BaseException as error:
                return self.interrupt(error, out)

    cdef bint park(self, ParkRequest request, PyObject **out) except -1:
        """Park with a future of the host's, and yield what it yields; False: go on at once."""
        cdef HostLink link = self.link
        cdef ThreadWords *tw = thread_words()
        cdef HostWaiter waiter
        if link.is_closed:
            raise RuntimeError(CLOSED)
        if pollserver_forked(link.ps):
            raise ForkedError(FORKED)
        waiter = HostWaiter.__new__(HostWaiter)
        waiter.link = link
        waiter.request = request
        if link.create_future is None:
            awaitable, waiter.set_result, waiter.set_error = link.make_future()
        else:
            waiter.future = awaitable = link.create_future()
        Py_INCREF(waiter)
        if not request.commit_word(<PyObject *>waiter):
            Py_DECREF(waiter)
            return False
        self.waiter = waiter
        link.waits.add(waiter)
        tw.spent = 0
        tw.spent_bytes = 0
        return self.enter(awaitable, waiter, out)

    cdef int enter(self, object awaitable, HostWaiter waiter, PyObject **out) except -1:
        """Yield what *awaitable* yields first; 0 if that is nothing: it is settled already."""
        cdef HostLink link = self.link
        if link.future_type is not type(awaitable) and hasattr(awaitable,
                                                               "_asyncio_future_blocking"):
            link.future_type = type(awaitable)
        if link.future_type is type(awaitable):
            waiter.future = awaitable
            awaitable._asyncio_future_blocking = True        # as Future.__await__ does
            return give(awaitable, out)
        self.it = awaitable.__await__()
        try:
            found = next(self.it)
        except StopIteration:
            self.it = None
            self.unpark()
            return 0
        except BaseException:
            self.it = None
            raise
        return give(found, out)

    cdef int unpark(self) except -1:
        """The wait is over, whatever has ended it (Q2)."""
        cdef HostWaiter waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if not waiter.over:
                waiter.over = True
                self.link.waits.discard(waiter)
                waiter.take_back()
        return 0

    cdef int interrupt(self, object error, PyObject **out) except -1:
        """*error* is thrown in: go on as the operation does with that (K2: as its awaiter)."""
        cdef ThreadWords *tw = thread_words()
        cdef PyObject *outer = tw.awaiting
        self.unpark()
        throw = getattr(self.op, "throw", None)
        if throw is None:
            raise error
        tw.awaiting = <PyObject *>self
        try:
            request = throw(error)
        except StopIteration as stop:        # it had been done (H4)
            value = stop.value
            return give(value, out)
        finally:
            tw.awaiting = outer
        if not isinstance(request, ParkRequest):             # as in turn
            give(request, out)
            return 0
        if self.park(<ParkRequest>request, out):             # a Cond wants its mutex first
            return 0
        return self.turn(out)

    def send(self, value):
        """Go on with what the host sends, where it does not wait in a future."""
        cdef PyObject *out = NULL
        cdef int rc
        self.value = value
        rc = self.step(&out)
        found = <object>out
        Py_DECREF(found)
        if rc == 0:
            return found
        if rc == 2:
            raise found
        raise StopIteration(found)

    def throw(self, kind, value=None, traceback=None):
        """Have an exception thrown in, which first goes to what the host waits in."""
        cdef PyObject *out = NULL
        cdef int rc
        error = kind
        if isinstance(kind, type):
            error = kind() if value is None else value
            if not isinstance(error, kind):
                error = kind(value)
        if self.it is not None:
            try:
                return self.it.throw(error)
            except StopIteration:
                error = None                 # as in step
            except BaseException as err:
                error = err
            self.it = None
            if error is None:
                return self.send(None)
        rc = self.interrupt(error, &out)
        found = <object>out
        Py_DECREF(found)
        if rc == 0:
            return found
        raise StopIteration(found)

    def close(self):
        """Give the operation up (K2: as its awaiter)."""
        cdef ThreadWords *tw = thread_words()
        cdef PyObject *outer = tw.awaiting
        it, self.it = self.it, None
        self.unpark()
        if it is not None and hasattr(it, "close"):
            it.close()
        if hasattr(self.op, "close"):
            tw.awaiting = <PyObject *>self
            try:
                self.op.close()
            finally:
                tw.awaiting = outer

    def __await__(self):
        return self

    def __iter__(self):
        return self


set_iternext(HostAwait)
