"""WaitGroup and Once: what of sync runs the program's functions, and so is Python.

Used by goroutines. Go: sync/waitgroup.go, sync/once.go (go1.27).
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple, overload

from gopoll.runtime._sched import current_sched
from gopoll.runtime._sync import Mutex, WaitCounter
from gopoll.runtime.goroutine import Goroutine, coroutine_of, go
from gopoll.runtime.sched import name_of

__all__ = ["Once", "WaitGroup"]


_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")


class WaitGroup(WaitCounter):
    """Waits for a number of goroutines: add(n), done(), `await wait()`. Go: sync.WaitGroup."""

    @overload
    def go(self, fn: Callable[[*_Args], Awaitable[_T]], *args: *_Args) -> Goroutine[_T]: ...

    @overload
    def go(self, fn: Awaitable[_T]) -> Goroutine[_T]: ...

    def go(self, fn: Any, *args: Any) -> Goroutine[Any]:  # type: ignore[misc]  # as go()
        """Start a goroutine, counted until it ends in whatever way. Its error is go()'s to tell."""
        current_sched()  # RuntimeError where there is none, before anything is made
        coro = coroutine_of(fn, args, "WaitGroup.go()")
        self.add(1)
        try:
            return go(self._counted, coro, name=name_of(fn))
        except BaseException:
            self.done()
            coro.close()
            raise

    async def _counted(self, coro: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await coro
        finally:
            self.done()


class Once:
    """Runs one function, once, whoever asks. Go: sync.Once."""

    __slots__ = ("_done", "_mutex")

    def __init__(self) -> None:
        self._done = False
        self._mutex = Mutex()

    async def do(self, fn: Any) -> None:
        """Call fn() if nobody has, and await it if it is async; return when it has ended.

        Others that call meanwhile wait. If it raises, that goes to the caller, and it counts as
        done, as in Go.
        """
        if not callable(fn):
            raise TypeError(f"Once.do() takes a function, not {type(fn).__name__}")
        if self._done:
            return
        async with self._mutex:
            if not self._done:
                try:
                    outcome: Any = fn()
                    if inspect.isawaitable(outcome):
                        await outcome
                finally:
                    self._done = True
