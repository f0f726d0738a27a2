"""attach() for trio: goroutines inside trio's loop.

Called by programs in a trio task. The pump is a system task that waits for the guest's descriptor;
each time it runs one bounded batch of goroutines, and trio its own tasks in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any

import outcome
import trio

from gopoll.embed._attach import AttachedGuest, runs_trio
from gopoll.embed.guest import Guest, Host

__all__ = ["attach"]

RUN: Any  # where trio keeps the task that runs
try:
    from trio._core._run import GLOBAL_RUN_CONTEXT as RUN
except ImportError:  # a trio that keeps it elsewhere
    RUN = types.SimpleNamespace(task=None)


class _Wait:
    """What a task waits in: set once, or given up by trio's cancellation."""

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._outcome: outcome.Outcome[Any] | None = None

    def set_result(self, value: Any) -> None:
        self._set(outcome.Value(value))

    def set_error(self, error: BaseException) -> None:
        self._set(outcome.Error(error))

    def _set(self, result: outcome.Outcome[Any]) -> None:
        if self._outcome is None:
            self._outcome = result
            if self._task is not None:
                trio.lowlevel.reschedule(self._task, result)

    def _abort(self, raise_cancel: Any) -> trio.lowlevel.Abort:
        if self._outcome is None:
            self._outcome = outcome.Value(None)  # whoever sets it now does nothing
        return trio.lowlevel.Abort.SUCCEEDED

    def __await__(self) -> Generator[Any, Any, Any]:
        if self._outcome is not None:
            return self._outcome.unwrap()
        self._task = trio.lowlevel.current_task()
        return (yield from trio.lowlevel.wait_task_rescheduled(self._abort).__await__())


class _TrioHost(Host):
    give_up: Callable[[], object]  # the guest's: its pump ends before it

    def __init__(self) -> None:
        self._scope = trio.CancelScope()

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        trio.lowlevel.spawn_system_task(self._pump, fd, callback, name="gopoll")

    async def _pump(self, fd: int, callback: Callable[[], object]) -> None:
        try:
            with self._scope:
                # One that is woken already is not cancelled: *fd* may be another's by then.
                while not self._scope.cancel_called:
                    await trio.lowlevel.wait_readable(fd)
                    if not self._scope.cancel_called:
                        self._turn(callback)
        except trio.Cancelled:  # trio.run() ends, and the block is a system task's or a generator's
            self._turn(self.give_up)
            raise

    def _turn(self, callback: Callable[[], object]) -> None:
        """Call *callback* in no task of trio's, so that a goroutine has none.

        A scope or a nursery that one opens would be the pump's, for all of them: trio refuses it.
        """
        task = RUN.task
        del RUN.task
        try:
            callback()
        finally:
            RUN.task = task

    def unwatch(self, fd: int) -> None:
        self._scope.cancel()
        trio.lowlevel.notify_closing(fd)

    def make_future(
        self,
    ) -> tuple[Awaitable[Any], Callable[[Any], object], Callable[[BaseException], object]]:
        wait = _Wait()
        return wait, wait.set_result, wait.set_error

    def comes_again(self, error: BaseException) -> bool:
        return isinstance(error, trio.Cancelled)  # of a scope, which is a state


@contextlib.asynccontextmanager
async def attach() -> AsyncIterator[Guest]:
    """`async with attach():` goroutines run in this trio loop, and its tasks await gopoll's ops.

    Inside the block go() starts goroutines, and every task may await what gopoll has: dial,
    conn.read, channels, handles of goroutines, sleep. A scope that is cancelled takes back what its
    tasks wait in and leaves the connection usable. `async with` gives the Guest. An operation
    that is done on the spot is no checkpoint.

    When the block ends, the goroutines are cancelled and run to their end; what other tasks still
    wait in fails with RuntimeError. An error of a goroutine that nobody awaits cancels the block,
    which raises it. RuntimeError if gopoll runs on this thread already.
    """
    if not runs_trio():
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError("trio.attach() is for a task of trio, and none runs here") from None
        raise RuntimeError("asyncio runs this task: use gopoll.embed.aio.attach()")
    scope = trio.CancelScope()
    host = _TrioHost()
    guest = AttachedGuest(host, scope.cancel)
    host.give_up = guest.give_up
    error: BaseException | None = None
    try:
        with scope:
            yield guest
    except BaseException as exc:
        error = exc
        raise
    finally:
        try:
            with trio.CancelScope(shield=True):
                guest.shut_down()
                await guest.wait_ended()
            guest.end(error)
        finally:
            error = None  # no cycle through the traceback
