"""Chan: a queue between goroutines, threads and runs. Send, receive, close.

Used by programs, on any thread; what would block needs a goroutine, a task of asyncio, or send_sync
and recv_sync on a plain thread. Go: runtime/chan.go (go1.27).

H1, H3, H4, H10: see _waitq.
H5: a receiver waits only while the buffer is empty and no sender waits; a sender only while the
    buffer is full and no receiver waits. So an unbuffered channel hands a value to the receiver
    itself, and who takes from a full buffer moves the first sender's value into it.
H11: a value that has been handed over, and whose receiver will never know, is given back: to the
    first receiver that waits, else in front of the buffer, in the order of the hand-overs and past
    the capacity if need be. While there is more than the capacity senders wait, and who takes moves
    nobody's value in. H5 holds: nobody waits for a value that has been given back.
"""

import types

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

from gopoll._atomic cimport gil_lock, gil_unlock
from gopoll._park cimport give
from gopoll.runtime._waitq cimport (ENDED, W_CLOSED, W_DONE, Waiter, WaitOp, WaitQ, dequeue,
                                    drain, init_op, run_sync, wake, wake_all)

from gopoll.errors import ChanClosed


cdef extern from *:
    """
    #define gopoll_items(list) (((PyListObject *)(list))->ob_item)
    #define gopoll_back_of(chan) ((PyObject **)&(chan)->back)
    """
    PyObject **gopoll_items(object list) noexcept
    PyObject **gopoll_back_of(Chan chan) noexcept            # to swap without counting (A5)

cdef PyObject *NONE = <PyObject *>None       # what a free slot holds


# -- under the lock --------------------------------------------------------------------------------

cdef int chansend(hchan *c, PyObject *value, Waiter **woken) noexcept nogil:
    """Send *value*, whose reference travels with it, if that can be done now. Go: chansend, send.

    A receiver to be woken goes to *woken*. Under the lock.
    """
    cdef Waiter *w
    if c.closed:
        return CHAN_CLOSED
    w = dequeue(&c.recvq, W_DONE)
    if w != NULL:                            # H5
        c.handed += 1
        w.nth = c.handed
        w.value = value
        woken[0] = w
        return CHAN_DONE
    if c.count >= c.capacity:
        return CHAN_BLOCKED
    put_last(c, value)
    return CHAN_DONE


cdef inline void put_last(hchan *c, PyObject *value) noexcept nogil:
    """Put *value* at the end of the ring, which has room."""
    cdef Py_ssize_t at = c.head + c.count - c.nback
    if at >= c.capacity:
        at -= c.capacity
    c.slots[at] = value                      # the None there: chanrecv puts it back
    c.count += 1


cdef int chanrecv(hchan *c, PyObject **value, Waiter **woken) noexcept nogil:
    """Receive into *value*, with its reference, if that can be done now. Go: chanrecv, recv.

    A sender to be woken goes to *woken*. Under the lock.
    """
    cdef Waiter *w
    if c.nback:
        value[0] = take_given_back(c, woken)
        return CHAN_DONE
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


cdef int chanunrecv(hchan *c, PyObject *value, int64_t nth, Waiter **woken) noexcept nogil:
    """Give back *value*, with its reference, the *nth* that was handed over (H11). Go: none.

    A receiver to be woken goes to *woken*. CHAN_BLOCKED: there is no room, for make_room(). Under
    the lock.
    """
    cdef Waiter *w = dequeue(&c.recvq, W_DONE)
    cdef Py_ssize_t at
    if w != NULL:                            # H5: there is nothing else
        w.nth = nth
        w.value = value
        woken[0] = w
        return CHAN_DONE
    at = c.back_head + c.nback
    if at == c.back_room:
        return CHAN_BLOCKED
    while at > c.back_head and c.back_nths[at - 1] > nth:
        c.back_slots[at] = c.back_slots[at - 1]
        c.back_nths[at] = c.back_nths[at - 1]
        at -= 1
    c.back_slots[at] = value
    c.back_nths[at] = nth
    c.nback += 1
    c.count += 1
    return CHAN_DONE


cdef PyObject *take_given_back(hchan *c, Waiter **woken) noexcept nogil:
    """Take the first value that was given back; a sender to be woken goes to *woken* (H11)."""
    cdef PyObject *value = c.back_slots[c.back_head]
    cdef Waiter *w
    c.back_slots[c.back_head] = NONE
    c.back_head += 1
    c.nback -= 1
    c.count -= 1
    if c.nback == 0:
        c.back_head = 0
    if c.count < c.capacity:                 # H5
        w = dequeue(&c.sendq, W_DONE)
        if w != NULL:
            put_last(c, w.value)
            w.value = NULL
            woken[0] = w
    return value


# -- the channel -----------------------------------------------------------------------------------

cdef class Chan:
    """A channel: values pass from who sends to who receives, in order, each to one receiver.

    capacity: how many values wait in it before a sender has to; with 0 a send waits for its
    receiver. A channel that is closed gives what is left in it, then ChanClosed. What was handed to
    a receiver that ends without it goes to the next; until that comes the channel holds it, past
    its capacity if need be. Any thread. Go: make(chan T, n).
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

    cdef void unrecv(self, Waiter *w) noexcept:
        """Give back what *w* was handed, whose receiver will never know (H11). Any thread.

        For want of memory it is lost: sys.unraisablehook is told, so that the exception that has
        ended the receive is raised as it is.
        """
        cdef Waiter *woken = NULL
        cdef PyObject *value = w.value
        cdef int rc
        w.value = NULL
        if value == NULL:
            return
        while True:
            gil_lock(&self.h.lock)
            rc = chanunrecv(&self.h, value, w.nth, &woken)
            gil_unlock(&self.h.lock)
            if rc == CHAN_DONE:
                break
            try:
                self.make_room()
            except BaseException:
                Py_DECREF(<object>value)
                raise
        if woken != NULL:
            wake(woken)

    cdef int make_room(self) except -1:
        """Make room for more values that are given back."""
        cdef hchan *c = &self.h
        cdef Py_ssize_t i, room
        cdef PyObject *back
        cdef PyObject *old
        cdef PyObject **slots
        cdef int64_t *nths
        cdef int64_t *old_nths
        gil_lock(&c.lock)
        room = 2 * c.nback + 4
        gil_unlock(&c.lock)
        made = [None] * room
        nths = <int64_t *>malloc(room * sizeof(int64_t))
        if nths == NULL:
            raise MemoryError
        slots = gopoll_items(made)
        back = <PyObject *>made
        Py_INCREF(made)                      # back's, which is swapped
        gil_lock(&c.lock)
        if c.back_head + c.nback == c.back_room and c.nback < room:      # else somebody else has
            for i in range(c.nback):
                slots[i] = c.back_slots[c.back_head + i]
                nths[i] = c.back_nths[c.back_head + i]
                c.back_slots[c.back_head + i] = NONE
            c.back_slots = slots
            old_nths = c.back_nths
            c.back_nths = nths
            nths = old_nths
            c.back_head = 0
            c.back_room = room
            old = gopoll_back_of(self)[0]
            gopoll_back_of(self)[0] = back
            back = old
        gil_unlock(&c.lock)
        free(nths)
        Py_DECREF(<object>back)
        return 0

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
        """How many values it buffers for senders."""
        return self.h.capacity

    def __len__(self):
        """How many values can be received now; above the capacity where some were given back."""
        cdef Py_ssize_t count
        gil_lock(&self.h.lock)
        count = self.h.count
        gil_unlock(&self.h.lock)
        return count

    def __dealloc__(self):
        free(self.h.back_nths)

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
        return not c.closed and c.count >= c.capacity and c.recvq.first == NULL

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
        return give(None, out)

    cdef int complete(self, PyObject **out) except -1:
        if self.node.state == W_CLOSED:
            raise ChanClosed("send on closed channel")
        return give(None, out)

    def __dealloc__(self):
        if self.phase != ENDED:
            self.warn_if_new()
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

    cdef int drop(self) except -1:
        self.chan.unrecv(&self.node)         # H11
        return 0

    cdef int fail(self) except -1:
        if self.iterates:
            raise StopAsyncIteration
        raise ChanClosed("receive on closed channel")

    def __dealloc__(self):
        if self.phase != ENDED:
            self.warn_if_new()
            self.abandon()
        Py_XDECREF(self.node.value)
