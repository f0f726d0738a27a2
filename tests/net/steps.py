"""Coroutines stepped by hand, without a scheduler: a fake connection parks where a real one would.

Called by tests, on any thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import coroutine
from typing import TypeVar

from gopoll.errors import Canceled

T = TypeVar("T")


@coroutine
def park() -> Generator[str, None, None]:
    """Leave the coroutine, once."""
    yield "park"


async def awaiting(op: Awaitable[T]) -> T:
    """Await *op*: a coroutine to step by hand."""
    return await op


def drive(
    op: Awaitable[T], cancel_at: int = -1, error: Callable[[], BaseException] = Canceled
) -> T:
    """Run *op*, or a coroutine, to its end; raise error() at its park number *cancel_at*."""
    coro = op if isinstance(op, Coroutine) else awaiting(op)
    parks = 0
    step: Callable[[], object] = lambda: coro.send(None)  # noqa: E731
    while True:
        try:
            assert step() == "park"
        except StopIteration as stop:
            result: T = stop.value
            return result
        step = lambda: coro.send(None)  # noqa: E731
        if parks == cancel_at:
            step = lambda: coro.throw(error())  # noqa: E731
        parks += 1
