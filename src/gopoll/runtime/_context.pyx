"""Context, compiled: a node of the tree, done or not, why, until when, and values.

Made by context.py, scopes and Group; called by user code, dial and the scheduler, on any thread.
Go: context/context.go (go1.27).

G4: what changes is changed, and read by others, under the lock; else by words alone.
"""

import functools
import weakref

cimport cython
from cpython.object cimport PyObject
from libc.math cimport INFINITY, NAN, isnan
from libc.stdint cimport int64_t, uintptr_t

from gopoll._atomic cimport load_int, load_word, store_int, store_word
from gopoll._park cimport ThreadWords, thread_words
from gopoll._timers cimport nanotime
from gopoll.runtime._g cimport ContextBase, GBase, drop, take

from gopoll._polldesc import Note
from gopoll._poller import Poller
from gopoll.errors import DeadlineExceeded
from gopoll.runtime._sched import current_poller, interrupt
from gopoll.runtime.clock import call_at
from gopoll.runtime.report import check_plain, tell


cdef double FOREVER = 9.2e9            # seconds; what 64 bits of ns hold


cdef Context parent_of(Context node):                                              # G4
    take(node)
    parent = node.parent
    drop(node)
    return parent


cdef Context up_of(Context node):
    take(node)
    up = node.up
    drop(node)
    return up


cdef double when_of(Context node) noexcept:
    cdef double when
    take(node)
    when = node.when
    drop(node)
    return when


@cython.trashcan(True)                 # a chain may be deeper than C's stack
cdef class Context(ContextBase):
    """A node of the tree: done or not, why, until when, and values. Made by with_cancel etc.

    A context that only carries a value is a view of the node above it, its scope: goroutines,
    children and functions are registered there, and nothing keeps the view alive but its users.
    """

    def __cinit__(self, *args, **kwargs):
        self.when = NAN

    def __init__(self, Context parent, when=None):
        """Make a child of *parent*; the with_... functions are the public way."""
        self.up = parent
        if when is not None:
            self.when = when
        if parent is not None:
            self.parent = parent.scope()
            if parent_of(self.parent) is not None:
                self.parent.adopt(self)

    @property
    def done(self):
        """Whether the context has ended. Never goes back."""
        self.look()
        return bool(load_int(&self.ended))

    @property
    def cause(self):
        """Why it ended: a DeadlineExceeded, what cancel() was given, or None."""
        self.look()
        return self._cause

    @property
    def _cause(self):
        take(self)
        cause = self.cause_
        drop(self)
        return cause

    @property
    def _when(self):
        when = when_of(self)
        return None if isnan(when) else when

    @_when.setter
    def _when(self, when):
        take(self)
        self.when = NAN if when is None else when
        drop(self)

    @property
    def _below(self):
        """How many contexts and goroutines end with this one."""
        take(self)
        n = len(self.children or ()) + len(self.goroutines or ())
        drop(self)
        return n

    @property
    def deadline(self):
        """When it ends by itself (time.monotonic() seconds), or None."""
        cdef Context node = self.scope()
        cdef double when, found = NAN
        while node is not None:
            when = when_of(node)
            if isnan(found) or when < found:
                found = when
            node = parent_of(node)
        return None if isnan(found) else found

    def value(self, key):
        """Return the value that with_value gave *key* here or above, or None. Go: Value."""
        cdef Context node = self
        while node is not None:
            if node.key is not None and node.key == key:
                return node.carried
            node = up_of(node)
        return None

    def after_func(self, fn):
        """Have fn() called once when the context is done, on the thread that ends it.

        fn is a plain function, and quick. Returns stop(): True if fn will not be called any more,
        False if it has been or is being called. The run() that this is called in keeps the
        deadline, and no run() does when it has ended. The deadline of a context that was made
        outside of run() is kept by a thread too, which may call fn, beside a run(handoff=False) as
        well. Go: AfterFunc, which starts a goroutine.
        """
        cdef Context scope = self.scope()
        cdef bint kept = False
        check_plain("after_func()", fn)
        scope._keep_time()
        call = functools.partial(_call, fn)          # of this registration: fn may have several
        take(scope)
        try:
            if not load_int(&scope.ended):
                if scope.funcs is None:
                    scope.funcs = {}
                scope.funcs[call] = None
                kept = True
        finally:
            drop(scope)
        if kept:
            return functools.partial(_forget, scope, call)
        _call(fn)
        return bool                                  # bool() is False: too late to stop

    async def wait(self):
        """Wait until the context is done."""
        note = Note(current_poller(), "context")
        stop = self.after_func(note.wake)
        try:
            await note
        finally:
            stop()

    # -- inside the tree

    cdef Context scope(self):
        """The node that this is, or is a view of. Not a field: it would be a cycle, for the
        garbage collector, of every context."""
        return self if self.view_of is None else self.view_of

    cdef int adopt(self, Context child) except -1:
        cdef bint over
        take(self)
        try:
            over = load_int(&self.ended)
            cause = self.cause_
            if not over:
                if self.children is None:
                    self.children = set()
                self.children.add(child)
        finally:
            drop(self)
        if over:
            child.finish(cause, NAN)
        return 0

    def _look_up_in(self, Context up not None):
        """Have values looked for in *up*, not in the parent. Before anybody has it."""
        self.up = up

    def _move_up(self):
        """End from now on with `up`, where values are looked for, and not with the parent."""
        cdef Context parent, outer
        take(self)
        parent, outer = self.parent, self.up.scope()
        drop(self)
        disown(parent, self)
        take(self)
        self.parent = outer
        drop(self)
        if parent_of(outer) is not None:
            outer.adopt(self)
            if load_int(&self.ended):
                disown(outer, self)

    def _show(self, Context view):
        """Make *view* end with this scope."""
        cdef bint over
        view.view_of = self
        take(self)
        try:
            over = load_int(&self.ended)
            cause = self.cause_
            if not over:
                if self.views is None:
                    self.views = set()
                self.views.add(weakref.ref(view, self.views.discard))
        finally:
            drop(self)
        if over:
            end_view(view, cause)

    cdef int forget(self, object call) except -1:
        take(self)
        try:
            if self.funcs is not None and call in self.funcs:
                del self.funcs[call]
                return True
        finally:
            drop(self)
        return False

    cdef int enter(self, GBase g) except -1:
        """Make this the ambient context of *g*. On the thread that runs it."""
        cdef Context scope = self.scope()
        take(scope)
        try:
            if scope.parent is not None:
                if scope.goroutines is None:
                    scope.goroutines = set()
                scope.goroutines.add(g)
        finally:
            drop(scope)
        return g.set_context(self)

    cdef int leave(self, GBase g) except -1:
        cdef Context scope = self.scope()
        take(scope)
        if scope.goroutines is not None:
            scope.goroutines.discard(g)
        drop(scope)
        return 0

    # Whose block it is: that goroutine alone changes it, others compare.

    cdef bint is_entered_by(self, GBase g) noexcept:                               # G4
        return load_word(&self.entered_by) == <uintptr_t><PyObject *>g

    cdef int set_entered_by(self, GBase g) except -1:
        store_word(&self.entered_by, 0 if g is None else <uintptr_t><PyObject *>g)
        self.entered = g
        return 0

    cpdef _over(self, GBase g):
        """The block has been left, and *g* is under it no more. On the thread that runs it."""
        self.finish(None, NAN)

    def _in_force(self, GBase g not None):
        """Step over the blocks above *g* that were left out of order; return what it is under then.

        self: its ambient context. On the thread that runs it, maybe between two slices.
        """
        cdef Context ctx = self
        cdef Context outer
        cdef bint mine
        while load_int(&ctx.left_):
            mine = ctx.is_entered_by(g)
            if not mine and load_int(&ctx.ended):    # others have only inherited it: it has ended
                break                                # for them
            outer = step_over_block(ctx, g)
            if mine:
                ctx.set_entered_by(None)
                ctx._over(g)
            ctx = outer
        return ctx

    cdef int gone(self, GBase g) except -1:
        """*g* has ended under this: what is left of its blocks from here on is nobody's (G3)."""
        cdef Context node = self
        self.leave(g)
        while node is not None and node.is_entered_by(g):
            node.set_entered_by(None)
            if load_int(&node.left_):
                node.finish(None, NAN)
            node = up_of(node)
        return 0

    def _finish(self, cause, when=None):
        """End this node and all below it, once. Any thread.

        when: only if that is its own end still, which may be moved until this has the lock.
        """
        self.finish(cause, NAN if when is None else when)

    cdef int finish(self, object cause, double when) except -1:
        cdef Context node = self
        cdef Context parent
        cdef list rest = None                        # not by recursion: a tree may be deep
        cdef list ended = None
        cdef object timers, children
        if load_int(&self.ended):
            return 0
        while node is not None:
            timers = children = None
            take(node)
            try:
                if not load_int(&node.ended):
                    if node is self and not isnan(when) and when != node.when:
                        return 0
                    # G1: the state first, then the parked goroutines.
                    node.cause_ = cause
                    store_int(&node.ended, True)
                    if node.views is not None:
                        for ref in node.views.copy():    # one step: others die meanwhile
                            view = ref()
                            if view is not None:
                                end_view(view, cause)
                    children, node.children = node.children, None
                    if node.goroutines or node.funcs:
                        ended = [] if ended is None else ended
                        ended.append((list(node.goroutines or ()), node.funcs or ()))
                        node.funcs = None
                    timers, node.timers = node.timers, None
            finally:
                drop(node)
            if timers is not None:
                for _, timer in timers:
                    timer.stop()
            if children:
                rest = [] if rest is None else rest
                rest.extend(children)
            node = rest.pop() if rest else None
        parent = parent_of(self)
        if parent is not None:
            disown(parent, self)
        if ended is not None:
            for goroutines, funcs in reversed(ended):    # what is below comes first
                for g in goroutines:
                    interrupt(g)
                for call in funcs:
                    call()
        return 0

    def _expire(self):
        """Its time has come, unless it has been moved since the timer was taken out of the heap."""
        cdef double when = when_of(self)
        if not isnan(when) and nanotime() >= to_ns(when):
            self.finish(DeadlineExceeded(), when)

    cdef int move_end(self, double when) except -1:
        """Have its own end at *when*, nan for never; False if it has ended. Once this has returned
        True nothing ends it at the old one any more.
        """
        take(self)
        try:
            if load_int(&self.ended):
                return False
            self.when = when
            timers, self.timers = self.timers, None
        finally:
            drop(self)
        if timers is not None:
            for _, timer in timers:
                timer.stop()
        if not isnan(when):
            self.arm(when)
        return True

    cdef int look(self) except -1:
        """End if a deadline here or above has passed: the run() that kept it may have ended."""
        cdef Context node = self.scope()
        while node is not None and not load_int(&node.ended):
            if not isnan(when_of(node)):
                node._expire()
            node = parent_of(node)
        return 0

    def _keep_time(self):
        """Have somebody here end this at its deadlines: a poller keeps time until its run() ends,
        and this may be another.
        """
        cdef Context node = self.scope()
        cdef double when
        poller = poller_here()
        while node is not None and not load_int(&node.ended):
            take(node)
            when, timers = node.when, node.timers
            drop(node)
            if not isnan(when):
                for who, _ in timers or ():
                    if keeps_time(who, poller):
                        break
                else:
                    node.arm_or_end(when)
            node = parent_of(node)

    cdef int arm_or_end(self, double when) except -1:
        if to_ns(when) <= nanotime():
            return self.finish(DeadlineExceeded(), when)
        return self.arm(when)

    def _arm_or_end(self):
        """Have it end at its own deadline, which it has."""
        self.arm_or_end(when_of(self))

    cdef int arm(self, double when) except -1:
        """End by itself at *when*: by the poller here, or by the clock outside of run()."""
        cdef bint over
        cdef list kept = []
        if when == INFINITY:
            return 0
        who = poller_here()
        if who is None:
            who = timer = call_at(when, self._expire)
        else:
            timer = who.call_at_ns(to_ns(when), self._expire)
        take(self)
        try:
            over = load_int(&self.ended)
            if not over:
                if self.timers is not None:
                    kept = [t for t in self.timers if keeps_time(t[0], None)]
                self.timers = (*kept, (who, timer))
        finally:
            drop(self)
        if over:
            timer.stop()
        return 0

    def __repr__(self):
        state = f"done: {self._cause!r}" if load_int(&self.ended) else "not done"
        when = self.deadline
        return f"<Context {state}>" if when is None else f"<Context {state}, deadline {when:.3f}>"


cdef class Shielded(Context):
    """A context with its parent's values and without its end."""

    def __init__(self, Context values not None):
        Context.__init__(self, BACKGROUND)
        self.up = values

    cpdef _over(self, GBase g):
        if not self.off:
            self.off = True
            g.shield(-1)


cdef Context BACKGROUND = Context(None)
BACKGROUND.root = True
root = BACKGROUND


def with_value_of(Context parent not None, key, value):
    """Return a view of *parent* that carries *value* under *key*."""
    cdef Context ctx = Context(None)
    cdef Context scope = parent.scope()
    ctx.parent, ctx.up = parent_of(scope), parent
    ctx.key, ctx.carried = key, value
    scope._show(ctx)
    return ctx


cdef int disown(Context parent, Context child) except -1:
    take(parent)
    if parent.children is not None:
        parent.children.discard(child)
    drop(parent)
    return 0


cdef int end_view(Context view, object cause) except -1:
    take(view)
    view.cause_ = cause
    drop(view)
    store_int(&view.ended, True)
    return 0


def _call(fn):
    try:
        fn()
    except BaseException as err:       # the end of a context has more to do than this
        tell(err)


def _forget(Context scope, call):
    return bool(scope.forget(call))


cdef object poller_here():
    """The poller of the run() on this thread, or None."""
    cdef ThreadWords *tw = thread_words()
    return None if tw.poller == NULL else <object>tw.poller


cdef bint keeps_time(object who, object here) except -1:
    """Whether *who* ends a context for the run() of the poller *here*, or for no run()."""
    if isinstance(who, Poller):
        return not who.is_closed if here is None else who is here
    return who.is_pending


cdef int64_t to_ns(double when) noexcept:
    return 1 if when <= 0 else max(<int64_t>1, <int64_t>(min(when, FOREVER) * 1e9))


# -- blocks: the ambient context of a goroutine ----------------------------------------------------

cdef Context ambient_of(GBase g):
    cdef Context ctx = g.context_
    return ctx._in_force(g) if load_int(&ctx.left_) else ctx


cdef Context step_over_block(Context ctx, GBase g):
    cdef Context outer = up_of(ctx)
    ctx.leave(g)
    outer.enter(g)
    return outer


def ambient(GBase g not None):
    """Return the ambient context of *g*. On the thread that runs it."""
    return ambient_of(g)


def current_context():
    """Return the ambient context: that of the running goroutine, else background()."""
    cdef ThreadWords *tw = thread_words()
    return BACKGROUND if tw.current == NULL else ambient_of(<GBase>tw.current)
