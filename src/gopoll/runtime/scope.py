"""Blocks that make a context ambient: timeout(), deadline(), shield(); Group has one too.

Called by user code in goroutines. Go: none; there a context is passed on by hand.
"""

from __future__ import annotations

import time
from typing import Self

from gopoll.runtime._context import Shielded
from gopoll.runtime._sched import current_g, interrupt
from gopoll.runtime._scope import Deadline, step_in, step_out
from gopoll.runtime.report import check_when

__all__ = ["deadline", "shield", "step_in", "step_out", "timeout"]


def timeout(seconds: float | None) -> Deadline:
    """Bound the body of an `async with`: DeadlineExceeded (a TimeoutError) after *seconds*.

    Inside, parks raise Canceled; it becomes DeadlineExceeded on leaving. None means no bound; the
    object's reschedule(when) moves it.
    """
    if seconds is None:
        return Deadline(None)
    check_when("timeout", seconds)
    return Deadline(time.monotonic() + float(seconds))


def deadline(when: float | None) -> Deadline:
    """As timeout(), at *when* (time.monotonic() seconds)."""
    if when is not None:
        check_when("when", when)
    return Deadline(when)


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
        g, ctx = self._g, self._ctx
        del self._g, self._ctx  # whose error may lead to us by its traceback
        if step_out(ctx, g):
            ctx._over(g)
            return
        ctx._move_up()  # what is below goes on without it
        if g is current_g():
            ctx._over(g)
        else:
            interrupt(g)  # it may have been cancelled, and wait
