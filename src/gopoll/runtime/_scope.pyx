"""What a block under a context does on entry and on exit, and the blocks of timeout().

Made by scope.py and Group. Called in goroutines. Go: none; there a context is passed on by hand.
"""

from cpython.object cimport PyObject
from libc.math cimport NAN

from gopoll._atomic cimport load_word, store_int
from gopoll._park cimport Awaitable, give, running_loop, thread_words
from gopoll.runtime._context cimport Context, ambient_of, step_over_block, up_of
from gopoll.runtime._g cimport GBase
from gopoll.runtime._waitq cimport DONE

from gopoll.errors import Canceled, DeadlineExceeded
from gopoll.runtime.report import check_when


cdef GBase who_enters(str what):
    """Return the goroutine that runs.

    RuntimeError outside a goroutine, and in a task of asyncio inside one: all tasks of that loop
    would be under it.
    """
    cdef PyObject *current = thread_words().current
    if current == NULL:
        raise RuntimeError(
            f"no goroutine runs here: use {what} inside gopoll.run(...) or gopoll.go(...), and the "
            "host's own in a task of a host (asyncio.timeout, trio.fail_after)")
    g = <GBase>current
    loop = running_loop()
    if loop is not None and loop is not g.sched.outer_loop and not g.sched.is_guest:
        raise RuntimeError(
            f"{what} in a task of asyncio would be around every task of that loop: use asyncio's "
            "own there")
    return g


cdef int enter_block(GBase g, Context outer, Context ctx) except -1:
    """Make *ctx*, which is below *outer*, ambient."""
    outer.leave(g)
    ctx.enter(g)
    return ctx.set_entered_by(g)


cdef bint leave_block(Context ctx, GBase g) except -1:
    """Undo enter_block; False if something of *g* is below still, which then steps over *ctx*.

    So it is where the block is in an async generator: that is left when the generator is closed,
    which others may do, and in the midst of a block of theirs.
    """
    if <PyObject *>g != thread_words().current or g.context_ is not ctx:
        store_int(&ctx.left_, True)
        if load_word(&ctx.entered_by) == 0:          # G3: *g* has ended, nothing of it is below
            ctx.finish(None, NAN)
        return False
    step_over_block(ctx, g)
    ctx.set_entered_by(None)
    ambient_of(g)
    return True


def step_in(str what, make):
    """Make make(ambient context) ambient; return it, and the goroutine that runs.

    RuntimeError where no block can be: see who_enters().
    """
    cdef GBase g = who_enters(what)
    cdef Context outer = ambient_of(g)
    cdef Context ctx = make(outer)
    enter_block(g, outer, ctx)
    return g, ctx


def step_out(Context ctx not None, GBase g not None):
    """Undo step_in; False if something of *g* is below still: see leave_block()."""
    return leave_block(ctx, g)


cdef class Entered(Awaitable):
    """What __aenter__ returns where nothing has to wait."""

    cdef int step(self, PyObject **out) except -1:
        return give(self.value, out)


cdef class Deadline:
    """The async context manager of timeout() and deadline()."""

    def __init__(self, when):
        self.when_ = when

    @property
    def context(self):
        """The derived context, inside the block."""
        return self.ctx

    @property
    def when(self):
        """When it expires (time.monotonic() seconds), or None."""
        return self.when_

    def reschedule(self, when):
        """Move the deadline to *when*; None removes it.

        RuntimeError once the block has expired, been cancelled or been left.
        """
        if when is not None:
            check_when("when", when)
        if self.ctx is not None and not self.ctx.move_end(NAN if when is None else when):
            passed = isinstance(self.ctx._cause, DeadlineExceeded)
            why = "the deadline has passed" if passed else "the block has been left or cancelled"
            raise RuntimeError(f"{why}: it cannot be moved any more")
        self.when_ = when

    def __aenter__(self):
        cdef Entered entered
        cdef Context outer
        if self.ctx is not None:
            raise RuntimeError("timeout() and deadline() objects are used once")
        self.g = who_enters("timeout()")
        outer = ambient_of(self.g)
        self.ctx = Context(outer, self.when_)
        if self.when_ is not None:
            self.ctx.arm_or_end(self.when_)  # first: where it raises nothing has been entered
        enter_block(self.g, outer, self.ctx)
        entered = Entered.__new__(Entered)
        entered.value = self
        return entered

    def __aexit__(self, kind, exc, traceback):
        cdef Context ctx = self.ctx
        cdef GBase g = self.g
        if g is None:
            how = "not been entered" if ctx is None else "been left"
            raise RuntimeError(f"the block of timeout() or deadline() has {how}")
        self.g = None                # whose error may lead to us by its traceback
        if leave_block(ctx, g):
            cause = ctx._cause
            ctx.finish(None, NAN)
        else:
            ctx.move_end(NAN)        # what is below goes on, without this bound, if that is to come
            cause = ctx._cause
        # Its own expiry, not that of a context above: they share the cause, which is one object.
        if (isinstance(exc, Canceled) and isinstance(cause, DeadlineExceeded)
                and exc.cause is cause and cause is not up_of(ctx)._cause):
            # Another object: *exc* has that one, and would be in a cycle with it, and so would all
            # that its traceback leads to.
            error = DeadlineExceeded(cause.strerror)
            error.written = exc.written
            raise error from exc
        return DONE
