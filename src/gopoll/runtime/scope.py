"""Blocks that make a context ambient: timeout(), deadline(), shield(); Group has one too.

Called by user code in goroutines. Go: none; there a context is passed on by hand.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from gopoll._park import running_loop
from gopoll.errors import Canceled, DeadlineExceeded
from gopoll.runtime._g import GBase
from gopoll.runtime._sched import current_g, interrupt
from gopoll.runtime.context import Context, Shielded, ambient, check_when, step_over

__all__ = ["deadline", "shield", "step_in", "step_out", "timeout"]


def step_in(what: str, make: Callable[[Context], Context]) -> tuple[GBase, Context]:
    """Make make(ambient context) ambient; return it, and the goroutine that runs.

    RuntimeError outside a goroutine, and in a task of asyncio inside one: all tasks of that loop
    would be under it.
    """
    g: GBase | None = current_g()
    if g is None:
        raise RuntimeError(
            f"no goroutine runs here: use {what} inside gopoll.run(...) or gopoll.go(...), and the "
            "host's own in a task of a host (asyncio.timeout, trio.fail_after)"
        )
    loop = running_loop()
    if loop is not None and loop is not g.sched.outer_loop and not g.sched.is_guest:
        raise RuntimeError(
            f"{what} in a task of asyncio would be around every task of that loop: use asyncio's "
            "own there"
        )
    outer = ambient(g)
    ctx = make(outer)
    outer._leave(g)
    ctx._enter(g)
    ctx._entered_by = g
    return g, ctx


def step_out(ctx: Context, g: GBase) -> bool:
    """Undo step_in; False if something of *g* is below still, which then steps over *ctx* itself.

    So it is where the block is in an async generator: that is left when the generator is closed,
    which others may do, and in the midst of a block of theirs.
    """
    if g is not current_g() or g.context is not ctx:
        ctx.left = True
        if ctx._entered_by is None:  # G3: *g* has ended, nothing of it is below
            ctx._finish(None)
        return False
    step_over(ctx, g)
    ctx._entered_by = None
    ambient(g)
    return True


class _Deadline:
    """The async context manager of timeout() and deadline()."""

    __slots__ = ("_ctx", "_g", "_when")

    def __init__(self, when: float | None) -> None:
        self._when = when
        self._ctx: Context | None = None

    @property
    def context(self) -> Context | None:
        """The derived context, inside the block."""
        return self._ctx

    @property
    def when(self) -> float | None:
        """When it expires (time.monotonic() seconds), or None."""
        return self._when

    def reschedule(self, when: float | None) -> None:
        """Move the deadline to *when*; None removes it.

        RuntimeError once the block has expired, been cancelled or been left.
        """
        ctx = self._ctx
        if when is not None:
            check_when("when", when)
        if ctx is None:
            self._when = when
            return
        if not ctx._move_end(when):
            passed = isinstance(ctx._cause, DeadlineExceeded)
            why = "the deadline has passed" if passed else "the block has been left or cancelled"
            raise RuntimeError(f"{why}: it cannot be moved any more")
        self._when = when

    async def __aenter__(self) -> Self:
        if self._ctx is not None:
            raise RuntimeError("timeout() and deadline() objects are used once")
        self._g, self._ctx = step_in("timeout()", lambda outer: Context(outer, self._when))
        if self._when is not None:
            self._ctx._arm_or_end(self._when)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        ctx = self._ctx
        assert ctx is not None
        if step_out(ctx, self._g):
            cause = ctx._cause
            ctx._finish(None)
        else:
            ctx._move_end(None)  # what is below goes on, without this bound, if that is to come
            cause = ctx._cause
        outer = ctx._up
        assert outer is not None
        # Its own expiry, not that of a context above: they share the cause, which is one object.
        if not isinstance(cause, DeadlineExceeded) or cause is outer._cause:
            return
        if isinstance(exc, Canceled) and exc.cause is cause:
            cause.written = exc.written
            raise cause from exc


def timeout(seconds: float | None) -> _Deadline:
    """Bound the body of an `async with`: DeadlineExceeded (a TimeoutError) after *seconds*.

    Inside, parks raise Canceled; it becomes DeadlineExceeded on leaving. None means no bound; the
    object's reschedule(when) moves it.
    """
    if seconds is None:
        return _Deadline(None)
    check_when("timeout", seconds)
    return _Deadline(time.monotonic() + seconds)


def deadline(when: float | None) -> _Deadline:
    """As timeout(), at *when* (time.monotonic() seconds)."""
    if when is not None:
        check_when("when", when)
    return _Deadline(when)


class shield:  # noqa: N801  (used as a function: async with shield():)
    """`async with shield():` the body does not see cancellation from outside.

    For clean-up in `finally` blocks that must wait; bound it with timeout() inside.
    """

    __slots__ = ("_ctx", "_g")

    async def __aenter__(self) -> Self:
        self._g, self._ctx = step_in("shield()", Shielded)
        self._g.shield(1)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if step_out(self._ctx, self._g):
            self._ctx._over(self._g)
            return
        self._ctx._move_up()  # what is below goes on without it
        if self._g is current_g():
            self._ctx._over(self._g)
        else:
            interrupt(self._g)  # it may have been cancelled, and wait
