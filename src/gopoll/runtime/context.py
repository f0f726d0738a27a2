"""Context: cancellation, deadlines and values that follow the calls. One mechanism for all three.

Called by user code, dial and the scheduler, on any thread. A context is a node of a tree; it is
ambient per goroutine and inherited by go(). When it is done, every park under it raises Canceled.
Go: context/context.go (go1.27).
"""

from __future__ import annotations

import functools
import math
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from typing import Any

from gopoll._polldesc import Note
from gopoll._poller import Poller
from gopoll.errors import DeadlineExceeded
from gopoll.runtime._g import ContextBase, GBase
from gopoll.runtime._sched import current_g, current_sched, interrupt
from gopoll.runtime._sched import current_poller as _current_poller
from gopoll.runtime.clock import Alarm, call_at
from gopoll.runtime.report import check_plain, tell

__all__ = [
    "Context",
    "Shielded",
    "ambient",
    "background",
    "check_when",
    "current_context",
    "step_over",
    "with_cancel",
    "with_deadline",
    "with_timeout",
    "with_value",
]


_NO_VIEWS: set[weakref.ref[Context]] = set()  # of a node that has none; never added to


class Context(ContextBase):
    """A node of the tree: done or not, why, until when, and values. Made by with_cancel etc.

    A context that only carries a value is a view of the node above it, its scope: goroutines,
    children and functions are registered there, and nothing keeps the view alive but its users.
    """

    __slots__ = (
        "__weakref__",
        "_cause",
        "_children",
        "_entered_by",
        "_funcs",
        "_goroutines",
        "_key",
        "_lock",
        "_parent",
        "_timers",
        "_up",
        "_value",
        "_view_of",
        "_views",
        "_when",
    )

    def __init__(self, parent: Context | None, when: float | None = None) -> None:
        """Make a child of *parent*; the with_... functions are the public way."""
        self._parent = None if parent is None else parent._scope
        self._up = parent  # where values are looked for next
        self._view_of: Context | None = None
        # Guards all that follows but the constants. It may be taken again by a signal handler or a
        # finaliser that runs on the thread that has it.
        self._lock = threading.RLock()
        self._children: set[Context] = set()
        self._views: set[weakref.ref[Context]] = _NO_VIEWS
        self._goroutines: set[GBase] = set()
        self._funcs: list[Callable[[], object]] = []
        self._cause: object = None
        # Who ends it at its deadline, and how to stop them: the poller of a run(), or the clock.
        self._timers: tuple[tuple[Poller | Alarm, Callable[[], object]], ...] = ()
        self._entered_by: GBase | None = None  # whose block it is; changed by that alone
        self._key: Hashable = None  # constant
        self._value: object = None  # constant
        self._when = when  # its own end; moved by reschedule() alone
        if self._parent is not None and self._parent._parent is not None:
            self._parent._adopt(self)

    @property
    def done(self) -> bool:
        """Whether the context has ended. Never goes back."""
        self._look()
        return bool(self.done_word)

    @property
    def cause(self) -> object:
        """Why it ended: a DeadlineExceeded, what cancel() was given, or None."""
        self._look()
        return self._cause

    @property
    def deadline(self) -> float | None:
        """When it ends by itself (time.monotonic() seconds), or None."""
        node: Context | None = self._scope
        found = None
        while node is not None:
            found = _earlier(found, node._when)
            node = node._parent
        return found

    def value(self, key: Hashable) -> Any:
        """Return the value that with_value gave *key* here or above, or None. Go: Value."""
        node: Context | None = self
        while node is not None:
            if node._key == key and node._key is not None:
                return node._value
            node = node._up
        return None

    def after_func(self, fn: Callable[[], object]) -> Callable[[], bool]:
        """Have fn() called once when the context is done, on the thread that ends it.

        fn is a plain function, and quick. Returns stop(): True if fn will not be called any more,
        False if it has been or is being called. The run() that this is called in keeps the
        deadline, and no run() does when it has ended. The deadline of a context that was made
        outside of run() is kept by a thread too, which may call fn, beside a run(handoff=False) as
        well. Go: AfterFunc, which starts a goroutine.
        """
        check_plain("after_func()", fn)
        scope = self._scope
        scope._keep_time()
        with scope._lock:
            if not scope.done_word:
                call = functools.partial(_call, fn)  # of this registration: fn may have several
                scope._funcs.append(call)
                return lambda: scope._forget(call)
        _call(fn)
        return lambda: False

    async def wait(self) -> None:
        """Wait until the context is done."""
        note = Note(_current_poller(), "context")
        stop = self.after_func(note.wake)
        try:
            await note
        finally:
            stop()

    # Inside the tree.

    @property
    def _scope(self) -> Context:
        """The node that this is, or is a view of. Not a field: it would be a cycle, for the
        garbage collector, of every context."""
        return self._view_of or self

    def _adopt(self, child: Context) -> None:
        with self._lock:
            if not self.done_word:
                self._children.add(child)
                return
        child._finish(self._cause)

    def _move_up(self) -> None:
        """End with what _up is from now on, not with the parent."""
        parent, outer = self._parent, self._up
        assert parent is not None
        assert outer is not None
        with parent._lock:
            parent._children.discard(self)
        self._parent = outer = outer._scope
        if outer._parent is not None:
            outer._adopt(self)
            if self.done_word:
                with outer._lock:
                    outer._children.discard(self)

    def _show(self, view: Context) -> None:
        """Make *view* end with this scope."""
        view._view_of = self
        with self._lock:
            if not self.done_word:
                if self._views is _NO_VIEWS:
                    self._views = set()
                self._views.add(weakref.ref(view, self._views.discard))
                return
        view._cause, view.done_word = self._cause, True

    def _forget(self, call: Callable[[], object]) -> bool:
        with self._lock:
            if call in self._funcs:
                self._funcs.remove(call)
                return True
        return False

    def _enter(self, g: GBase) -> None:
        """Make this the ambient context of *g*. On the thread that runs it."""
        scope = self._view_of or self
        if scope._parent is not None:
            with scope._lock:
                scope._goroutines.add(g)
        g.context = self

    def _leave(self, g: GBase) -> None:
        scope = self._view_of or self
        if scope._parent is not None:
            with scope._lock:
                scope._goroutines.discard(g)

    def _over(self, g: GBase) -> None:
        """The block has been left, and *g* is under it no more. On the thread that runs it."""
        self._finish(None)

    def _in_force(self, g: GBase) -> Context:
        """Step over the blocks above *g* that were left out of order; return what it is under then.

        self: its ambient context. On the thread that runs it, maybe between two slices.
        """
        ctx = self
        while ctx.left:
            mine = ctx._entered_by is g
            if not mine and ctx.done_word:  # others have only inherited it: it has ended for them
                break
            outer = step_over(ctx, g)
            if mine:
                ctx._entered_by = None
                ctx._over(g)
            ctx = outer
        return ctx

    def _forsake(self, g: GBase) -> None:
        """*g* has ended under this: what is left of its blocks from here on is nobody's (G3)."""
        node: Context | None = self
        while node is not None and node._entered_by is g:
            node._entered_by = None
            if node.left:
                node._finish(None)
            node = node._up

    def _finish(self, cause: object, when: float | None = None) -> None:
        """End this node and all below it, once. Any thread.

        when: only if that is its own end still, which may be moved until this has the lock.
        """
        if self.done_word:
            return
        ended: list[tuple[list[GBase], list[Callable[[], object]]]] = []
        rest = [self]  # not by recursion: a tree may be deeper than Python's stack
        while rest:
            node = rest.pop()
            with node._lock:
                if node.done_word:
                    continue
                if node is self and when is not None and when != node._when:
                    return
                # G1: the state first, then the parked goroutines.
                node._cause = cause
                node.done_word = True
                for ref in node._views.copy():  # which is one step: others die meanwhile
                    view = ref()
                    if view is not None:
                        view._cause, view.done_word = cause, True
                children, node._children = node._children, set()
                if node._goroutines or node._funcs:
                    ended.append((list(node._goroutines), node._funcs))
                    node._funcs = []
                timers, node._timers = node._timers, ()
            for _, stop in timers:
                stop()
            rest += children
        parent = self._parent
        if parent is not None:
            with parent._lock:
                parent._children.discard(self)
        for goroutines, funcs in reversed(ended):  # what is below comes first
            for g in goroutines:
                interrupt(g)
            for call in funcs:
                call()

    def _expire(self) -> None:
        """Its time has come, unless it has been moved since the timer was taken out of the heap."""
        when = self._when
        if when is not None and time.monotonic_ns() >= _to_ns(when):
            self._finish(DeadlineExceeded(), when)

    def _move_end(self, when: float | None) -> bool:
        """Have its own end at *when*, None for never; False if it has ended. Once this has
        returned True nothing ends it at the old one any more.
        """
        with self._lock:
            if self.done_word:
                return False
            self._when = when
            timers, self._timers = self._timers, ()
        for _, stop in timers:
            stop()
        if when is not None:
            self._arm(when)
        return True

    def _look(self) -> None:
        """End if a deadline here or above has passed: the run() that kept it may have ended."""
        node: Context | None = self._scope
        while node is not None and not node.done_word:
            if node._when is not None:
                node._expire()
            node = node._parent

    def _keep_time(self) -> None:
        """Have somebody here end this at its deadlines: a poller keeps time until its run() ends,
        and this may be another.
        """
        poller = _poller_here()
        node: Context | None = self._scope
        while node is not None and not node.done_word:
            when = node._when
            if when is not None and not any(_keeps_time(who, poller) for who, _ in node._timers):
                node._arm_or_end(when)
            node = node._parent

    def _arm_or_end(self, when: float) -> None:
        if when <= time.monotonic():
            self._finish(DeadlineExceeded(), when)
        else:
            self._arm(when)

    def _arm(self, when: float) -> None:
        """End by itself at *when*: by the poller here, or by the clock outside of run()."""
        if when == math.inf:
            return
        poller = _poller_here()
        timer: tuple[Poller | Alarm, Callable[[], object]]
        if poller is None:
            alarm = call_at(when, self._expire)
            timer = alarm, alarm.stop
        else:
            timer = poller, poller.call_at_ns(_to_ns(when), self._expire).stop
        with self._lock:
            done = self.done_word
            if not done:
                old = self._timers
                kept = tuple(t for t in old if _keeps_time(t[0], None)) if old else ()
                self._timers = (*kept, timer)
        if done:
            timer[1]()

    def __repr__(self) -> str:
        state = f"done: {self._cause!r}" if self.done_word else "not done"
        when = self.deadline
        until = "" if when is None else f", deadline {when:.3f}"
        return f"<Context {state}{until}>"


def _call(fn: Callable[[], object]) -> None:
    try:
        fn()
    except BaseException as err:  # the end of a context has more to do than this
        tell(err)


def _poller_here() -> Poller | None:
    """Return the poller of the run() on this thread, or None."""
    try:
        poller: Poller = current_sched().poller
    except RuntimeError:
        return None
    return poller


def _keeps_time(who: Poller | Alarm, here: Poller | None) -> bool:
    """Report whether *who* ends a context for the run() of the poller *here*, or for no run()."""
    if isinstance(who, Poller):
        return not who.is_closed if here is None else who is here
    return who.is_pending


def _to_ns(when: float) -> int:
    return max(1, int(min(max(when, 0.0), 9.2e9) * 1e9))  # as float first: it may be inf


_background = Context(None)
_background.root = True


def background() -> Context:
    """Return the root, which is never done. Go: context.Background."""
    return _background


def current_context() -> Context:
    """Return the ambient context: that of the running goroutine, else background()."""
    g = current_g()
    return _background if g is None else ambient(g)


def ambient(g: GBase) -> Context:
    """Return the ambient context of *g*. On the thread that runs it."""
    ctx: Context = g.context
    return ctx._in_force(g) if ctx.left else ctx


def step_over(ctx: Context, g: GBase) -> Context:
    """Make what is above *ctx* the ambient context of *g*, and return it."""
    outer = ctx._up
    assert outer is not None
    ctx._leave(g)
    outer._enter(g)
    return outer


def with_cancel(parent: Context) -> tuple[Context, Callable[..., None]]:
    """Return a child of *parent* and cancel(cause=None), which ends it from any thread.

    Call cancel in the end in any case: it releases the child from its parent. Go: WithCancelCause.
    """
    _check_parent(parent)
    return _cancellable(Context(parent))


def _cancellable(ctx: Context) -> tuple[Context, Callable[..., None]]:
    def cancel(cause: object = None) -> None:
        ctx._finish(cause)

    return ctx, cancel


def with_deadline(parent: Context, when: float) -> tuple[Context, Callable[..., None]]:
    """As with_cancel; the child ends at *when* too (time.monotonic() seconds). Go: WithDeadline."""
    _check_parent(parent)
    check_when("when", when)
    return _with_deadline(parent, when)


def _with_deadline(parent: Context, when: float) -> tuple[Context, Callable[..., None]]:
    ctx = Context(parent, when)
    ctx._arm_or_end(when)
    return _cancellable(ctx)


def with_timeout(parent: Context, timeout: float) -> tuple[Context, Callable[..., None]]:
    """As with_deadline, *timeout* seconds from now. Go: WithTimeout."""
    _check_parent(parent)
    check_when("timeout", timeout)
    return _with_deadline(parent, time.monotonic() + timeout)


def with_value(parent: Context, key: Hashable, value: object) -> Context:
    """Return a child of *parent* that carries *value* under *key*. Go: WithValue."""
    _check_parent(parent)
    if key is None:
        raise ValueError("the key of a context value must not be None")
    ctx = Context(None)
    ctx._parent, ctx._up = parent._scope._parent, parent
    ctx._key = key
    ctx._value = value
    parent._scope._show(ctx)
    return ctx


def _check_parent(parent: object) -> None:
    if not isinstance(parent, Context):
        raise TypeError(f"parent must be a Context, not {type(parent).__name__}")


def check_when(name: str, when: Any) -> None:
    try:
        nan = math.isnan(when)
    except TypeError:
        kind = type(when).__name__
        hint = " (with_cancel() has no deadline)" if when is None else ""
        raise TypeError(f"{name} must be seconds, not {kind}{hint}") from None
    except OverflowError:
        raise ValueError(f"{name} must be seconds: {name} is too large") from None
    if nan:
        raise ValueError(f"{name} must not be nan")


def _earlier(a: float | None, b: float | None) -> float | None:
    if a is None or b is None:
        return b if a is None else a
    return min(a, b)


def without_cancel(parent: Context) -> Context:
    """Return a context with the values of *parent* and without its end. Go: WithoutCancel."""
    return Shielded(parent)


class Shielded(Context):
    """A context with its parent's values and without its end."""

    __slots__ = ("_off",)

    def __init__(self, values: Context) -> None:
        super().__init__(_background)
        self._up = values
        self._off = False  # the block of shield() has been left

    def _over(self, g: GBase) -> None:
        if not self._off:
            self._off = True
            g.shield(-1)
