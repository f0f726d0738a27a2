"""Context: cancellation, deadlines and values that follow the calls. One mechanism for all three.

Called by user code, dial and the scheduler, on any thread. A context is a node of a tree; it is
ambient per goroutine and inherited by go(). When it is done, every park under it raises Canceled.
Go: context/context.go (go1.27).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

from gopoll.runtime._context import (
    Context,
    Shielded,
    ambient,
    current_context,
    root,
    with_value_of,
)
from gopoll.runtime.report import check_when

__all__ = [
    "Context",
    "ambient",
    "background",
    "current_context",
    "with_cancel",
    "with_deadline",
    "with_timeout",
    "with_value",
]


def background() -> Context:
    """Return the root, which is never done. Go: context.Background."""
    return root


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
    ctx._arm_or_end()
    return _cancellable(ctx)


def with_timeout(parent: Context, timeout: float) -> tuple[Context, Callable[..., None]]:
    """As with_deadline, *timeout* seconds from now. Go: WithTimeout."""
    _check_parent(parent)
    check_when("timeout", timeout)
    return _with_deadline(parent, time.monotonic() + float(timeout))  # a Decimal takes no float


def with_value(parent: Context, key: Hashable, value: object) -> Context:
    """Return a child of *parent* that carries *value* under *key*. Go: WithValue."""
    _check_parent(parent)
    if key is None:
        raise ValueError("the key of a context value must not be None")
    return with_value_of(parent, key, value)


def _check_parent(parent: object) -> None:
    if not isinstance(parent, Context):
        raise TypeError(f"parent must be a Context, not {type(parent).__name__}")


def without_cancel(parent: Context) -> Context:
    """Return a context with the values of *parent* and without its end. Go: WithoutCancel."""
    return Shielded(parent)
