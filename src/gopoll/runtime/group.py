"""Group: goroutines that belong together. They all end before the block does.

Called in goroutines. Go: golang.org/x/sync/errgroup, with Python's ExceptionGroup.

E1: see _group.pyx. A step here in which a signal handler has raised may be done again.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeVar, TypeVarTuple, overload

from gopoll.errors import Canceled
from gopoll.runtime._g import GBase
from gopoll.runtime._group import GroupBase
from gopoll.runtime._sched import current_g, current_sched
from gopoll.runtime._scope import step_in, step_out
from gopoll.runtime.context import Context, with_cancel
from gopoll.runtime.goroutine import Goroutine, coroutine_of
from gopoll.runtime.sched import EXITS, Scheduler, name_of
from gopoll.runtime.scope import shield

__all__ = ["Group"]

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")


class Group(GroupBase):
    """`async with Group() as group: group.go(fn, *args)`.

    The block ends when every goroutine of the group has. The first error of one of them, or of the
    body, cancels all the others (body included); at the end an ExceptionGroup has every error but
    the cancellations. KeyboardInterrupt and SystemExit are raised as themselves. A cancellation of
    the goroutine that has the block, while it waits there too, cancels the group and is raised
    when all have ended. Used once.
    """

    __slots__ = ("_body", "_cancel", "_ctx", "_errors", "_g", "_is_new", "_lock", "_sched")

    def __init__(self) -> None:
        """Nothing runs yet."""
        self._is_new = True
        self._ctx: Context | None = None
        # Guards what follows. A signal handler or a finaliser may take it again.
        self._lock = threading.RLock()
        self._errors: dict[int, BaseException] = {}  # in their order, by id()

    @overload
    def go(
        self, fn: Callable[[*_Args], Awaitable[_T]], *args: *_Args, name: str | None = None
    ) -> Goroutine[_T]: ...

    @overload
    def go(self, fn: Awaitable[_T], *, name: str | None = None) -> Goroutine[_T]: ...

    def go(  # type: ignore[misc]  # as go()
        self, fn: Any, *args: Any, name: str | None = None
    ) -> Goroutine[Any]:
        """Start a goroutine in the group, as gopoll.go() does, from any goroutine of this run.

        RuntimeError outside the block. Awaiting the handle gives its result or raises its error.
        """
        sched: Scheduler = current_sched()
        ctx = self._ctx
        if ctx is None or self._is_over:
            raise RuntimeError("Group.go() outside of the group's async with block")
        if sched is not self._sched:
            raise RuntimeError("Group.go() in another run() than the group's")
        g = sched.make_g(coroutine_of(fn, args, "Group.go()"), ctx, name or name_of(fn))
        made: Goroutine[Any] = Goroutine(g)
        try:
            if not self._join(g):  # it has just ended, on another thread
                raise RuntimeError("Group.go() outside of the group's async with block")
            sched.start_g(g)
        except BaseException:
            if not (g.done or g in sched.goroutines()):  # it has not been started
                g.coro.close()
                self._refuse(g)
            raise
        return made

    def _see_to(self, g: GBase) -> None:
        """See to the outcome of a goroutine that has just ended. On its thread, between slices."""
        error = g.error
        if error is not None and not isinstance(error, Canceled):
            g.claim()  # the group raises it
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Keep *error*, once however many have met it, and cancel the others. Any thread."""
        error = getattr(error, "_gopoll_origin", error)  # GBase.to_raise
        with self._lock:
            self._errors.setdefault(id(error), error)
        self._cancel(error)

    async def __aenter__(self) -> Self:
        if not self._is_new:
            raise RuntimeError("Group objects are used once")
        self._g, self._body = step_in("Group", self._begin)
        return self

    def _begin(self, outer: Context) -> Context:
        """Return the context of the body, which is one of its own: see __aexit__."""
        self._open()
        self._sched: Scheduler = current_sched()
        ctx, self._cancel = with_cancel(outer)
        self._is_new = False
        self._ctx = ctx  # last: go() on another thread begins as soon as it sees that
        body = Context(ctx)
        body._look_up_in(outer)
        return body

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if self._ctx is None:
            raise RuntimeError("the block of the Group has not been entered, or has been left")
        # Now only what comes from outside of the group ends a wait, not its own cancellation.
        if not step_out(self._body, self._g):  # nor the waits of what goes on under it
            self._body._move_up()
        if isinstance(exc, Canceled):
            self._cancel(exc.cause)
        elif isinstance(exc, GeneratorExit):  # an async generator with this block is closed
            self._cancel(exc)
        elif exc is not None:
            self._fail(exc)
        canceled = await self._wait()
        self._cancel(None)
        errors, self._errors = self._errors.values(), {}
        exits = [error for error in errors if isinstance(error, EXITS)]
        others = [error for error in errors if not isinstance(error, EXITS)]
        try:
            if exits and others:
                raise exits[0] from BaseExceptionGroup("errors in a Group", others)
            if exits:
                raise exits[0]
            if others:
                raise BaseExceptionGroup("errors in a Group", others) from None
            if canceled is not None and exc is None:
                raise canceled
        finally:
            # No cycle through the traceback, which leads to who has us in a variable.
            del errors, exits, others, canceled, exc
            del self._cancel, self._g, self._body
            self._ctx = None
        return False

    async def _wait(self) -> Canceled | None:
        """Wait for every goroutine of the group; return our own cancellation, if it came."""
        awaits, g = self._sched.leftovers.awaits, current_g()
        assert g is not None
        awaits[g] = self._children
        try:
            return await self._wait_for_children()
        finally:
            awaits.pop(g, None)
            del g  # no cycle through the traceback

    async def _wait_for_children(self) -> Canceled | None:
        try:
            self._leave(None)
            await self._ended()
            return None
        except Canceled as err:
            canceled = err
            self._cancel(err.cause)
        except BaseException as err:  # a Ctrl-C
            canceled = None
            self._fail(err)
        try:
            async with shield():
                while True:
                    try:
                        self._leave(None)
                        await self._ended()
                        return canceled
                    except BaseException as err:
                        self._fail(err)
        finally:
            del canceled  # its traceback leads here
