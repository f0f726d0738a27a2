"""attach() for asyncio: goroutines inside an asyncio loop, any loop, uvloop included.

Called by programs in a task of that loop. The pump is a reader of the loop's: level-triggered, so
each turn of the loop runs one bounded batch of goroutines, and the loop's own callbacks in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from gopoll.embed._attach import AttachedGuest, runs_trio
from gopoll.embed.guest import Guest, Host

__all__ = ["attach"]


class _LoopHost(Host):
    """An asyncio loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._create_future = loop.create_future

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        self._loop.add_reader(fd, callback)

    def unwatch(self, fd: int) -> None:
        if not self._loop.is_closed():
            self._loop.remove_reader(fd)

    def make_future(
        self,
    ) -> tuple[Awaitable[Any], Callable[[Any], object], Callable[[BaseException], object]]:
        future = self._loop.create_future()
        return future, future.set_result, future.set_exception  # the guest asks whether it is done


class attach:  # noqa: N801  (used as a function: async with attach():)
    """`async with attach():` goroutines run in this asyncio loop, and its tasks await gopoll's ops.

    Inside the block go() starts goroutines, and every task of the loop may await what gopoll has:
    dial, conn.read, channels, handles of goroutines, sleep. Cancelling such a task cancels what it
    waits in and leaves the connection usable. `async with` gives the Guest.

    When the block ends, the goroutines are cancelled and run to their end; what other tasks still
    wait in fails with RuntimeError. An error of a goroutine that nobody awaits cancels the task
    that has the block, which raises it. loop: the running one, and no other. RuntimeError if
    gopoll runs on this thread already.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop
        self._guest: AttachedGuest | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False

    async def __aenter__(self) -> Guest:
        try:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
        except RuntimeError:
            task = None
        if task is None:
            if runs_trio():
                raise RuntimeError("trio runs this task: use gopoll.embed.trio.attach()")
            raise RuntimeError("aio.attach() is for a task of asyncio, and none runs here")
        if self._loop is not None and self._loop is not loop:
            raise RuntimeError("attach(loop) is for the loop that runs here, and no other")
        if self._guest is not None:
            raise RuntimeError("attach() objects are used once")
        self._task = task
        self._guest = AttachedGuest(_LoopHost(loop), self._fail)
        return self._guest

    def _fail(self) -> None:
        """A goroutine has ended all with its error: have the block raise it."""
        if self._task is not None and not self._task.done():
            self._cancelled = True
            self._task.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        guest, task = self._guest, self._task
        assert guest is not None
        assert task is not None
        guest.shut_down()
        late: asyncio.CancelledError | None = None
        while True:
            try:
                await guest.wait_ended()
                break
            except asyncio.CancelledError as err:  # it is ending as fast as it can
                late = err
        if self._cancelled and task.uncancel() == 0:
            late = None
        try:
            guest.end(exc)
            if late is not None:
                raise late
        finally:
            late = None  # no cycle through the traceback
