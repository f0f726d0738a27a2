"""Chan: a queue between goroutines, threads and runs. Send, receive, close.

Used by programs, on any thread; what would block needs a goroutine, a task of asyncio, or send_sync
and recv_sync on a plain thread. Go: runtime/chan.go (go1.27).

H1, H3, H4: see _waitq.
H5: a receiver waits only while the buffer is empty and no sender waits; a sender only while the
    buffer is full and no receiver waits. So an unbuffered channel hands a value to the receiver
    itself, and who takes from a full buffer moves the first sender's value into it.
"""

import types

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF

from gopoll._atomic cimport gil_lock, gil_unlock
from gopoll.runtime._waitq cimport (ENDED, W_CLOSED, W_DONE, Waiter, WaitOp, WaitQ, dequeue,
                                    drain, init_op, run_sync, wake, wake_all)

from gopoll.errors import ChanClosed


cdef extern from *:
    """
    #define gopoll_items(list) (((PyListObject *)(list))->ob_item)
    """
    PyObject **gopoll_items(object list) noexcept

cdef PyObject *NONE = <PyObject *>None       # what a free slot holds


# -- under the lock --------------------------------------------------------------------------------

cdef int chansend(hchan *c, PyObject *value, Waiter **woken) noexcept nogil:
    """Send *value*, whose reference travels with it, if that can be done now. Go: chansend, send.

    A receiver to be woken goes to *woken*. Under the lock.
    """
    cdef Waiter *w
    cdef Py_ssize_t at
    if c.closed:
        return CHAN_CLOSED
    w = dequeue(&c.recvq, W_DONE)
    if w != NULL:                            # H5
        w.value = value
        woken[0] = w
        return CHAN_DONE
    if c.count == c.capacity:
        return CHAN_BLOCKED
    at = c.head + c.count
    if at >= c.capacity:
        at -= c.capacity
    c.slots[at] = value                      # the None there: chanrecv puts it back
    c.count += 1
    return CHAN_DONE


cdef int chanrecv(hchan *c, PyObject **value, Waiter **woken) noexcept nogil:
    """Receive into *value*, with its reference, if that can be done now. Go: chanrecv, recv.

    A sender to be woken goes to *woken*. Under the lock.
    """
    cdef Waiter *w
    if c.count:
        value[0] = c.slots[c.head]
        w = dequeue(&c.sendq, W_DONE)
        if w == NULL:
            c.slots[c.head] = NONE
            c.count -= 1
        else:                                # H5: its value comes last
            c.slots[c.head] = w.value
            w.value = NULL
            woken[0] = w
        c.head += 1
        if c.head == c.capacity:
            c.head = 0
        return CHAN_DONE
    w = dequeue(&c.sendq, W_DONE)
    if w != NULL:
        value[0] = w.value
        w.value = NULL
        woken[0] = w
        return CHAN_DONE
    return CHAN_CLOSED if c.closed else CHAN_BLOCKED


# -- the channel -----------------------------------------------------------------------------------

cdef class Chan:
    """A channel: values pass from who sends to who receives, in order, each to one receiver.

    capacity: how many values wait in it before a sender has to; with 0 a send waits for its
    receiver. A channel that is closed gives what is left in it, then ChanClosed. Any thread.
    Go: make(chan T, n).
    """

    def __init__(self, Py_ssize_t capacity=0):
        if capacity < 0:
            raise ValueError(f"Chan({capacity}): the capacity must not be below 0")
        if self.ring is not None:
            raise RuntimeError("a Chan is made once")
        self.ring = [None] * capacity
        self.h.slots = gopoll_items(self.ring)
        self.h.capacity = capacity

    def __class_getitem__(cls, item):
        return types.GenericAlias(cls, item)

    def send(self, value):
        """Send *value*, and wait until it is received or buffered. An op.

        ChanClosed if the channel is closed, before or meanwhile: the value has not been sent.
        """
        cdef SendOp op = SendOp.__new__(SendOp)
        op.chan = self
        init_op(op, &self.h.sendq, &self.h.lock)
        Py_INCREF(value)
        op.node.value = <PyObject *>value
        return op

    def recv(self):
        """Receive the next value, waiting for one. An op. ChanClosed once closed and empty."""
        cdef RecvOp op = RecvOp.__new__(RecvOp)
        op.chan = self
        init_op(op, &self.h.recvq, &self.h.lock)
        return op

    def try_send(self, value):
        """Send *value* if that need not wait: whether it did. ChanClosed if closed. Any thread."""
        cdef Waiter *woken = NULL
        cdef int rc
        Py_INCREF(value)
        gil_lock(&self.h.lock)
        rc = chansend(&self.h, <PyObject *>value, &woken)
        gil_unlock(&self.h.lock)
        if rc != CHAN_DONE:
            Py_DECREF(value)
        if rc == CHAN_CLOSED:
            raise ChanClosed("send on closed channel")
        if woken != NULL:
            wake(woken)
        return rc == CHAN_DONE

    def try_recv(self):
        """Receive without waiting: (value, True), or (None, False) if there is nothing now.

        ChanClosed if there never will be. Any thread.
        """
        cdef Waiter *woken = NULL
        cdef PyObject *value = NULL
        cdef int rc
        gil_lock(&self.h.lock)
        rc = chanrecv(&self.h, &value, &woken)
        gil_unlock(&self.h.lock)
        if rc == CHAN_CLOSED:
            raise ChanClosed("receive on closed channel")
        if woken != NULL:
            wake(woken)
        if rc == CHAN_BLOCKED:
            return None, False
        got = <object>value
        Py_DECREF(got)
        return got, True

    def send_sync(self, value, timeout=None):
        """As send(), from a plain thread, which sleeps at most *timeout* seconds.

        TimeoutError after that: the value has not been sent. RuntimeError in a goroutine.
        """
        run_sync(self.send(value), timeout)

    def recv_sync(self, timeout=None):
        """As recv(), from a plain thread, which sleeps at most *timeout* seconds.

        TimeoutError after that. RuntimeError in a goroutine.
        """
        return run_sync(self.recv(), timeout)

    def close(self):
        """Close for senders: what is buffered can still be received. Any thread. Go: closechan.

        Receivers that wait get ChanClosed, senders that wait too, and keep what they had to send.
        Closing twice raises ChanClosed.
        """
        cdef WaitQ woken = [NULL, NULL]
        gil_lock(&self.h.lock)
        if self.h.closed:
            gil_unlock(&self.h.lock)
            raise ChanClosed("close of closed channel")
        self.h.closed = True
        drain(&self.h.recvq, W_CLOSED, &woken)
        drain(&self.h.sendq, W_CLOSED, &woken)
        gil_unlock(&self.h.lock)
        wake_all(woken.first)

    def recv_case(self):
        """Return a case of select() that receives. It may be used again."""
        return Case(self, False, None)

    def send_case(self, value):
        """Return a case of select() that sends *value*. It may be used again."""
        return Case(self, True, value)

    def __aiter__(self):
        return self

    def __anext__(self):
        cdef RecvOp op = self.recv()
        op.iterates = True
        return op

    @property
    def capacity(self):
        """How many values it buffers."""
        return self.h.capacity

    def __len__(self):
        cdef Py_ssize_t count
        gil_lock(&self.h.lock)
        count = self.h.count
        gil_unlock(&self.h.lock)
        return count

    def __bool__(self):
        """True, empty or not: `if chan` asks whether there is one."""
        return True

    def __repr__(self):
        cdef bint closed
        gil_lock(&self.h.lock)
        closed = self.h.closed
        gil_unlock(&self.h.lock)
        return f"<Chan {len(self)}/{self.h.capacity}{', closed' if closed else ''}>"


@cython.final
cdef class Case:
    """A case of select(): what Chan.recv_case() and Chan.send_case() return."""

    def __cinit__(self, Chan chan not None, bint sends, value):
        self.chan = chan
        self.sends = sends
        self.value = value


# -- the operations --------------------------------------------------------------------------------

@cython.no_gc
cdef class ChanOp(WaitOp):
    """Send or receive."""

    cdef str remedy(self):
        return ("run it in gopoll.run(...), or use send_sync() and recv_sync() in a plain thread, "
                "try_send() and try_recv() anywhere; in a loop that is not asyncio's attach gopoll "
                "to that (gopoll.embed)")


@cython.final
@cython.no_gc
cdef class SendOp(ChanOp):
    """What Chan.send() returns."""

    wait_reason = "send"

    cdef str name(self):
        return "Chan.send()"

    cdef bint must_wait(self) noexcept:
        cdef hchan *c = &self.chan.h
        return not c.closed and c.count == c.capacity and c.recvq.first == NULL

    cdef int attempt(self, PyObject **out) except -1:
        cdef hchan *c = &self.chan.h
        cdef Waiter *woken = NULL
        cdef int rc
        gil_lock(&c.lock)
        rc = chansend(c, self.node.value, &woken)
        if rc == CHAN_DONE:
            self.node.value = NULL
        gil_unlock(&c.lock)
        if rc == CHAN_BLOCKED:
            return 0
        if rc == CHAN_CLOSED:
            raise ChanClosed("send on closed channel")
        if woken != NULL:
            wake(woken)
        Py_INCREF(None)
        out[0] = <PyObject *>None
        return 1

    cdef int complete(self, PyObject **out) except -1:
        if self.node.state == W_CLOSED:
            raise ChanClosed("send on closed channel")
        Py_INCREF(None)
        out[0] = <PyObject *>None
        return 1

    def __dealloc__(self):
        if self.phase != ENDED:
            self.never_awaited()
            self.abandon()
        Py_XDECREF(self.node.value)


@cython.final
@cython.no_gc
cdef class RecvOp(ChanOp):
    """What Chan.recv() returns."""

    wait_reason = "recv"

    cdef str name(self):
        return "Chan.recv()"

    cdef bint must_wait(self) noexcept:
        cdef hchan *c = &self.chan.h
        return not c.closed and c.count == 0 and c.sendq.first == NULL

    cdef int attempt(self, PyObject **out) except -1:
        cdef hchan *c = &self.chan.h
        cdef Waiter *woken = NULL
        cdef int rc
        gil_lock(&c.lock)
        rc = chanrecv(c, out, &woken)
        gil_unlock(&c.lock)
        if rc == CHAN_BLOCKED:
            return 0
        if rc == CHAN_CLOSED:
            self.fail()
        if woken != NULL:
            wake(woken)
        return 1

    cdef int complete(self, PyObject **out) except -1:
        if self.node.state == W_CLOSED:
            self.fail()
        out[0] = self.node.value
        self.node.value = NULL
        return 1

    cdef int fail(self) except -1:
        if self.iterates:
            raise StopAsyncIteration
        raise ChanClosed("receive on closed channel")

    def __dealloc__(self):
        if self.phase != ENDED:
            self.never_awaited()
            self.abandon()
        Py_XDECREF(self.node.value)
