"""G: a goroutine. A coroutine with its contextvars, its ambient Context, its park and its joiners.

Called by _sched, which runs goroutines, by whoever cancels one, and by who waits for its end; any
thread. Go: runtime/runtime2.go, g (go1.27).

G1: cancellation is a state. Who cancels sets it first and then aborts the park; the parker
    publishes its park, commits, and then looks at the state. An abort that wins only makes the
    goroutine runnable: what is thrown in is decided when it is resumed. Publishing, aborting and
    taking the park back happen under plock, so that nobody aborts a park that is over.
G2: who reads the stack of a goroutine counts itself in `looked`, then looks at `mid`; who resumes
    one sets mid, then looks at looked, and waits. Nobody reads a coroutine that runs.
G3: who leaves a block out of order says so in its context (`left`), then looks whether the
    goroutine that entered it has ended (entered_by); who ends says that, then looks whether its
    blocks have been left. One of them ends the context, which would stay with that above for ever.
J1: who waits for the end lists itself under jlock, where it sees whether the end has come; the end
    is marked and the list taken under the same lock. Every joiner is woken, once.
J2: a goroutine that its run leaves behind is marked as ended too, with an error, once no M can
    resume it or see to its end; its coroutine is left alone, for a thread may be in it. One that
    has never begun, and that no M has (mid), is closed.
"""

from types import MemberDescriptorType

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from libc.stdint cimport int64_t, uintptr_t

from gopoll._atomic cimport (add_int, cas_int, cas_word, futex_wait, futex_wake, gil_lock,
                             gil_unlock, load_int, load_word, peek_i64, peek_int, poke_i64,
                             poke_int, store_int, swap_word, store_word)
from gopoll._park cimport Awaitable, ParkRequest, ThreadWords, give, thread_words
from gopoll._timers cimport nanotime
from gopoll.runtime._frames cimport have_gil

from gopoll.errors import Canceled


cdef extern from *:
    object PyContext_CopyCurrent()
    int PyException_SetTraceback(object error, object traceback) except -1

STATES = ("runnable", "running", "waiting", "dead", "left behind")


cdef object copied(object error):
    """A copy of an exception, but for what raising it has added. Its __init__ is not called."""
    kind = type(error)
    made = kind.__new__(kind, *error.args)
    for base in kind.__mro__:
        for name, field in vars(base).items():
            if isinstance(field, MemberDescriptorType):          # of C, or a slot
                try:
                    value = getattr(error, name)
                    if getattr(made, name, made) is not value:
                        setattr(made, name, value)
                except AttributeError:
                    pass                     # it is not set, or cannot be: __new__ has done it
    made.args = error.args
    made.__dict__.update(error.__dict__)
    return made


cdef class ContextBase:
    """What the scheduler reads of a Context."""

    @property
    def done_word(self):
        """Whether it is done; set once (G1)."""
        return bool(load_int(&self.ended))

    @done_word.setter
    def done_word(self, bint done):
        store_int(&self.ended, done)

    @property
    def left(self):
        """Whether its block has been left out of order: who is under it steps over it (G3)."""
        return bool(load_int(&self.left_))

    @left.setter
    def left(self, bint left):
        store_int(&self.left_, left)


cdef extern from *:
    """
    #include <time.h>
    #ifdef Py_GIL_DISABLED
    static int gopoll_own(uintptr_t *owner, uintptr_t me) { return cas_word(owner, 0, me); }
    #else
    static int gopoll_own(uintptr_t *owner, uintptr_t me) {
      if (load_word(owner)) return 0;
      __atomic_store_n(owner, me, __ATOMIC_RELAXED);
      return 1;
    }
    #endif
    static void gopoll_nap(void) {
      struct timespec ts = {0, 20000};
      nanosleep(&ts, NULL);
    }
    """
    bint gopoll_own(uintptr_t *owner, uintptr_t me) noexcept nogil
    void gopoll_nap() noexcept nogil


cdef void take(ContextBase c) noexcept:
    """Take the lock of *c*: again, too, for a signal handler or a finaliser on the same thread.

    With a GIL that is a plain store: who is inside C keeps the others out, and waits for nobody but
    a thread that a finaliser has made give the GIL up.
    """
    cdef uintptr_t me = <uintptr_t>thread_words()
    if load_word(&c.owner) == me:
        c.depth += 1
        return
    while not gopoll_own(&c.owner, me):
        with nogil:
            gopoll_nap()
    c.depth = 1


cdef void drop(ContextBase c) noexcept:
    c.depth -= 1
    if c.depth == 0:
        store_word(&c.owner, 0)


cdef class GBase:
    """A goroutine. Fields without a lock or an atomic are its own M's, or constant."""

    def __init__(self, sched, coro, context, int64_t number, name, dict home):
        self.sched = sched
        self.coro = coro
        self.vars = PyContext_CopyCurrent()
        self.context_ = context
        self.id = number
        self.name = name
        self.home = home
        poke_int(&self.state, G_RUNNABLE)

    def __dealloc__(self):
        Py_XDECREF(self.park)
        Py_XDECREF(<PyObject *>self.pending)

    @property
    def context(self):
        """Its ambient Context. Any thread: by the time that others have it, it may have another."""
        gil_lock(&self.plock)
        context = self.context_
        gil_unlock(&self.plock)
        return context

    cdef int set_context(self, object context) except -1:
        """Make *context* ambient. By itself."""
        cdef object _was = self.context_     # so that none ends under the lock (A5)
        gil_lock(&self.plock)
        self.context_ = context
        gil_unlock(&self.plock)
        return 0

    # -- cancellation (G1)

    cdef bint cancelled_now(self) noexcept:
        """Whether a park of this goroutine must raise, unless why_canceled() knows better."""
        return ((load_int(&self.canceled) == 2
                 and (not self.shielded or load_int(&(<ContextBase>self.context_).left_)))
                or load_int(&(<ContextBase>self.context_).ended))

    cdef object why_canceled(self):
        """What a park raises now: the cause of the goroutine's own cancel, else the context's.

        None if it has only been under blocks that were left out of order: it is not any more, and
        parks again. By its M, between two slices.
        """
        if load_int(&(<ContextBase>self.context_).left_):
            self.context_._in_force(self)
            if not self.cancelled_now():
                return None
        if load_int(&self.canceled) == 2 and not self.shielded:
            return Canceled(self.cancel_cause)
        return Canceled(self.context_.cause)

    def set_canceled(self, cause):
        """Mark it cancelled; False if it is already. The caller aborts the park after."""
        if not cas_int(&self.canceled, 0, 1):
            return False
        self.cancel_cause = cause
        store_int(&self.canceled, 2)
        return True

    def set_pending(self, exc):
        """Have *exc* thrown in at its pending or next park. The caller aborts the park after."""
        Py_INCREF(exc)
        Py_XDECREF(<PyObject *>swap_word(&self.pending, <uintptr_t><PyObject *>exc))

    @property
    def has_pending(self):
        """Whether set_pending() has left something that nothing has thrown yet. Any thread."""
        return load_word(&self.pending) != 0

    cdef int add_pending(self, exc) except -1:
        """set_pending() unless something is pending already, such as a Ctrl-C."""
        Py_INCREF(exc)
        if not cas_word(&self.pending, 0, <uintptr_t><PyObject *>exc):
            Py_DECREF(exc)
        return 0

    cdef object take_pending(self):
        cdef uintptr_t word = load_word(&self.pending)
        if word == 0:
            return None
        word = swap_word(&self.pending, 0)
        if word == 0:
            return None
        exc = <object><PyObject *>word
        Py_DECREF(exc)
        return exc

    def take_unthrown(self):
        """Return what set_pending() has left and nothing has thrown, or None. After the end."""
        return self.take_pending()

    cdef int publish(self, PyObject *park) noexcept:
        """Say what it is about to wait in. By its own M, before the commit."""
        Py_INCREF(<object>park)
        gil_lock(&self.plock)
        self.park = park
        gil_unlock(&self.plock)
        return 0

    cdef int unpublish(self) noexcept:
        """It waits no more: from here on nobody touches that park. By its own M."""
        cdef PyObject *park
        if self.park == NULL:                # only we set it, and not now
            return 0
        gil_lock(&self.plock)
        park = self.park
        self.park = NULL
        gil_unlock(&self.plock)
        Py_XDECREF(park)
        return 0

    cdef int abort(self) noexcept:
        """Take it out of its park: 1 if it is the caller's now, with the park's reference."""
        cdef int rc = 0
        gil_lock(&self.plock)
        if self.park != NULL:
            rc = (<ParkRequest>self.park).abort_word(<PyObject *>self)
        gil_unlock(&self.plock)
        return rc == 1

    def forsake(self):
        """Leave what it waits in, with what it has been handed there: its run is over (H10, J2).

        Once no M can resume it any more.
        """
        park = self.park_request
        if park is not None:
            (<ParkRequest>park).forsake()
            self.unpublish()

    # -- the end (J1)

    cdef PyObject *end(self, object result, object error) except? NULL:
        """Store the outcome; the list of Joins to wake, owned by the caller. Once."""
        cdef PyObject *first
        if error is not None:
            self.told = (error.__traceback__, error.__cause__, error.__context__,
                         error.__suppress_context__)
        first = self.finish(result, error)
        poke_int(&self.state, G_DEAD)
        poke_i64(&self.since_ns, nanotime())
        self.coro = None
        return first

    cdef PyObject *finish(self, object result, object error) noexcept:
        """Store the outcome alone, and take the list."""
        cdef PyObject *first
        self.result = result
        self.error = error
        gil_lock(&self.jlock)
        store_int(&self.finished, 1)
        first = self.first
        self.first = self.last = NULL
        self.joined = first != NULL
        gil_unlock(&self.jlock)
        return first

    cdef object to_raise(self):
        """The error, for one who raises it; without a GIL a copy for all but the first goroutine.

        Its traceback is that with which it came: who raises it adds frames, which it would keep
        alive, more with every await. Who raises an exception writes its traceback, frame by frame,
        and no lock guards that: two threads at once would spoil it. What cannot be copied is raised
        as it is.
        """
        cdef ThreadWords *tw = thread_words()
        cdef uintptr_t me = <uintptr_t>(tw.current if tw.current != NULL else <PyObject *>tw)
        if self.told is None:                # left behind
            return self.error
        if have_gil() or cas_word(&self.raiser, 0, me) or load_word(&self.raiser) == me:
            PyException_SetTraceback(self.error, self.told[0])
            return self.error
        try:
            made = copied(self.error)
        except Exception:
            return self.error
        (made.__traceback__, made.__cause__, made.__context__,
         made.__suppress_context__) = self.told
        made.__dict__["_gopoll_origin"] = self.error         # for who looks whether it is the same
        return made

    def raise_error(self):
        """Raise the error, if it has ended with one (to_raise)."""
        if self.error is not None:
            raise self.to_raise()

    @property
    def done(self):
        """Whether it has ended."""
        return bool(load_int(&self.finished))

    def claim(self):
        """Take the duty to see its outcome: False if somebody has it."""
        return bool(cas_int(&self.awaited, 0, 1))

    @property
    def is_claimed(self):
        """Whether somebody sees its outcome."""
        return bool(load_int(&self.awaited))

    @property
    def was_awaited(self):
        """Whether somebody waited for the end when it came."""
        return self.joined

    @property
    def live_handles(self):
        """How many handles are held."""
        return load_int(&self.handles)

    # -- seen from outside

    @property
    def system(self):
        """Whether it is the runtime's own."""
        return self.id == 0

    @property
    def m_id(self):
        """The number of the M that runs it, 0 if none does."""
        return load_int(&self.mid)

    @property
    def is_locked(self):
        """Whether it belongs to a thread."""
        return load_word(<uintptr_t *>&self.lockedm) != 0

    @property
    def state_name(self):
        """One of runnable, running, waiting, dead, left behind."""
        return STATES[peek_int(&self.state)]

    @property
    def since(self):
        """Monotonic ns at which it got into its state.

        Up to 10 ms early where it was not a wait or the end: that is how often sysmon, and who
        polls the network, say what time it is.
        """
        return peek_i64(&self.since_ns)

    @property
    def park_request(self):
        """What it waits in, or None."""
        cdef PyObject *park
        gil_lock(&self.plock)
        park = self.park
        if park != NULL:
            Py_INCREF(<object>park)
        gil_unlock(&self.plock)
        if park == NULL:
            return None
        found = <object>park
        Py_DECREF(found)
        return found

    def hold(self):
        """Keep it from being resumed until release(); False if it runs (G2). Any thread.

        Not over an await, nor over anything that another goroutine has to do.
        """
        add_int(&self.looked, 1)
        if load_int(&self.mid) == 0:
            return True
        self.release()
        return False

    def release(self):
        """Undo hold()."""
        if add_int(&self.looked, -1) == 0:
            futex_wake(&self.looked, 1)

    cdef int let_look(self) except -1:
        """Wait until nobody reads its stack any more. By its M, before the coroutine runs."""
        cdef int n
        with nogil:
            while True:
                n = load_int(&self.looked)
                if n == 0:
                    break
                futex_wait(&self.looked, n, -1)
        return 0

    @property
    def shield_count(self):
        """How many shields it is in."""
        return self.shielded

    def shield(self, int delta):
        """Enter (1) or leave (-1) a shield. By itself."""
        poke_int(&self.shielded, self.shielded + delta)


cdef class Handle:
    """Keeps the outcome of a goroutine within somebody's reach. Goroutine is the public one."""

    def __cinit__(self, GBase g not None):
        self._g = g
        add_int(&g.handles, 1)

    def __await__(self):
        """Wait for the end; return the result or raise the error."""
        cdef Join join = Join(self._g)
        return join if thread_words().current != NULL else Awaitable.__await__(join)

    def __del__(self):
        cdef GBase g = self._g
        if g is not None and add_int(&g.handles, -1) == 0 and load_int(&g.finished):
            if g.error is not None:
                g.sched.unwaited(g)


cdef class Join(Awaitable):
    """Park until a goroutine has ended; then its result or its error."""

    cdef object refuse_task(self):
        return RuntimeError("a goroutine cannot be awaited in a task of asyncio: await "
                            "asyncio.to_thread(handle.result) there")

    def __init__(self, GBase g not None):
        self.g = g
        add_int(&g.handles, 1)               # who awaits can see the outcome, as a handle can

    def __del__(self):
        cdef GBase g = self.g
        if g is not None and add_int(&g.handles, -1) == 0 and load_int(&g.finished):
            if g.error is not None:
                g.sched.unwaited(g)

    cdef bint commit_word(self, PyObject *waiter) noexcept:
        cdef GBase g = self.g
        Py_INCREF(self)                      # the list's reference
        gil_lock(&g.jlock)
        if load_int(&g.finished):
            gil_unlock(&g.jlock)
            Py_DECREF(self)
            return False
        self.waiter = waiter
        self.next = NULL
        self.prev = g.last
        if g.last == NULL:
            g.first = <PyObject *>self
        else:
            (<Join>g.last).next = <PyObject *>self
        g.last = <PyObject *>self
        self.listed = True
        gil_unlock(&g.jlock)
        return True

    cdef int abort_word(self, PyObject *waiter) noexcept:
        cdef GBase g = self.g
        cdef bint listed
        gil_lock(&g.jlock)
        listed = self.listed and self.waiter == waiter and not load_int(&g.finished)
        if listed:
            self.listed = False
            if self.prev == NULL:
                g.first = self.next
            else:
                (<Join>self.prev).next = self.next
            if self.next == NULL:
                g.last = self.prev
            else:
                (<Join>self.next).prev = self.prev
            self.next = NULL
        gil_unlock(&g.jlock)
        if not listed:
            return 0
        Py_DECREF(self)                      # the list's; the caller holds its own
        return 1

    cdef int forsake(self) except -1:
        cdef PyObject *waiter = self.waiter
        if self.abort_word(waiter) == 1:
            Py_DECREF(<object>waiter)
        return 0

    cdef int step(self, PyObject **out) except -1:
        if not self.seize():                 # K2
            raise RuntimeError("cannot await the same Join twice: await the handle")
        if not load_int(&self.g.finished):
            give(self, out)
            return 0
        if self.g.error is not None:
            store_int(&self.g.awaited, 1)
            raise self.g.to_raise()
        value = self.g.result
        return give(value, out)
