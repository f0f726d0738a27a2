"""Group: goroutines that belong together. They all end before the block does.

Called in goroutines. Go: golang.org/x/sync/errgroup, with Python's ExceptionGroup.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from gopoll.errors import Canceled
from gopoll.runtime._sched import current_g, current_sched
from gopoll.runtime.context import Context, shield, with_cancel
from gopoll.runtime.goroutine import Goroutine, coroutine_of
from gopoll.runtime.sched import Scheduler, name_of

__all__ = ["Group"]


class Group:
    """`async with Group() as group: group.go(fn, *args)`.

    The block ends when every goroutine of the group has. The first error of one of them, or of the
    body, cancels all the others (body included); at the end an ExceptionGroup has every error but
    the cancellations (a BaseExceptionGroup where one is no Exception). Used once.
    """

    __slots__ = ("_cancel", "_ctx", "_errors", "_live", "_outer", "_over")

    def __init__(self) -> None:
        """Nothing runs yet."""
        self._ctx: Context | None = None
        self._live: set[Goroutine[Any]] = set()
        self._errors: list[BaseException] = []
        self._over = False

    def go(self, fn: Any, *args: Any, name: str | None = None) -> Goroutine[Any]:
        """Start a goroutine in the group, as gopoll.go() does, from any goroutine of this run.

        RuntimeError outside the block. Awaiting the handle gives its result or raises its error.
        """
        ctx = self._ctx
        if ctx is None or self._over:
            raise RuntimeError("Group.go() outside of the group's async with block")
        coro = coroutine_of(fn, args, "Group.go()")
        label = name or name_of(fn)
        handle: list[Goroutine[Any]] = []

        async def child() -> Any:
            try:
                return await coro
            except Canceled:
                raise
            except BaseException as exc:
                current_g().claim()  # the group raises it
                self._fail(exc)
                raise
            finally:
                self._live.discard(handle[0])

        sched: Scheduler = current_sched()
        g = sched.make_g(child(), ctx, label)
        made: Goroutine[Any] = Goroutine(g)
        handle.append(made)
        self._live.add(made)  # before another thread may run it
        sched.start_g(g)
        return made

    def _fail(self, exc: BaseException) -> None:
        """Keep the first error's cause for the others, and cancel them. Any thread."""
        self._errors.append(exc)
        self._cancel(exc)

    async def __aenter__(self) -> Self:
        if self._ctx is not None:
            raise RuntimeError("Group objects are used once")
        g = current_g()
        if g is None:
            raise RuntimeError("no goroutine runs here: use Group inside gopoll.run(...)")
        self._outer: Context = g.context
        self._ctx, self._cancel = with_cancel(self._outer)
        self._outer._leave(g)
        self._ctx._enter(g)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        ctx, g = self._ctx, current_g()
        assert ctx is not None
        if exc is not None and not isinstance(exc, Canceled):
            self._fail(exc)
        elif exc is not None:
            self._cancel(exc.cause)
        interrupts = await self._wait()
        self._over = True
        ctx._leave(g)
        self._outer._enter(g)
        self._cancel(None)
        if interrupts:
            raise interrupts[0]
        if self._errors:
            errors, self._errors = self._errors, []
            raise BaseExceptionGroup("errors in a Group", errors) from None
        return False

    async def _wait(self) -> list[BaseException]:
        """Wait for every goroutine of the group; return what was thrown in at ourselves."""
        interrupts: list[BaseException] = []
        async with shield():
            while self._live:
                one = next(iter(self._live))
                try:
                    await one
                except BaseException as exc:
                    if not one.done:  # not its error but a Ctrl-C for us
                        interrupts.append(exc)
                        self._cancel(exc)
        return interrupts
