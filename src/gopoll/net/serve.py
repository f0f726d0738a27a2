"""serve(): a goroutine for each connection, and an end that lets them finish.

Called in a goroutine; the handlers are goroutines of their own.
Go: net/http/server.go, Server.Serve and Shutdown (go1.27).

V1: a connection is closed and counted down by its own goroutine, whatever its handler does; serve()
    counts it up before it starts that goroutine, and does both itself where it cannot.
"""

from __future__ import annotations

import errno
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import Any, Generic, Protocol, TypeVar

from gopoll._polldesc import Note
from gopoll.errors import ClosedError, DeadlineExceeded, OpError
from gopoll.net.checks import check_has, check_int, check_seconds
from gopoll.net.conn import Conn
from gopoll.runtime._sched import current_g, current_poller
from gopoll.runtime.context import current_context, with_cancel, without_cancel
from gopoll.runtime.goroutine import go, sleep
from gopoll.runtime.scope import shield, timeout

__all__ = ["serve"]

_BACK_OFF_MIN = 0.005  # seconds after the first accept that failed, doubled up to
_BACK_OFF_MAX = 1.0

# What accept says when it may work later: limits, memory, and what Linux hands on of the network's
# errors that concern the one connection (accept(2)).
_PASSING = frozenset(
    {
        *(errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC, errno.EPERM),
        *(errno.ECONNABORTED, errno.ECONNRESET, errno.EPROTO, errno.ENOPROTOOPT, errno.ENETDOWN),
        *(errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENONET),
    }
)

_log = logging.getLogger("gopoll")

C = TypeVar("C", bound=Conn)
C_co = TypeVar("C_co", bound=Conn, covariant=True)


class Acceptor(Protocol[C_co]):
    """What serve() needs of a listener; accept raises ClosedError when it has been closed."""

    def accept(self) -> Awaitable[C_co]: ...

    def close(self) -> object: ...


async def serve(
    listener: Acceptor[C],
    handler: Callable[[C], Awaitable[object]],
    *,
    limit: int | None = None,
    grace: float | None = 5.0,
) -> None:
    """Accept until cancelled, and run handler(conn) in a goroutine for each connection. An op.

    limit: so many connections at once; while there are as many the others wait in the backlog.
    grace: seconds that the handlers get to finish in the end (None: as long as they like); then
    they are cancelled, and serve() waits until all have ended.

    The end is a cancellation (Ctrl-C in the main goroutine too), which is raised when all is over,
    or that of the listener, with which serve() returns; it closes the listener in any case. Until
    then the handlers do not see the cancellation of serve().

    A connection is closed when its handler has ended. What a handler raises goes to the logger
    "gopoll": an OpError, such as a peer that is gone, as a line, another Exception with its
    traceback. SystemExit, KeyboardInterrupt and the like end run(), as in any goroutine. Too many
    open files, and whatever else may pass, is logged and waited out, for 5 ms to 1 s.
    Raises what else accept raises: TimeoutError if the listener has a deadline, another OpError.
    """
    _check(listener, handler, limit, grace)
    if current_g() is None:
        raise RuntimeError("serve() is for a goroutine: await go(serve, listener, handler)")
    server = _Server(handler, limit)
    try:
        await server.accept_all(listener)
    finally:
        try:
            listener.close()
        finally:
            async with shield():
                await server.shut_down(grace)


class _Server(Generic[C]):
    """One serve(): its handlers, which it counts."""

    def __init__(self, handler: Callable[[C], Awaitable[object]], limit: int | None) -> None:
        self._handler = handler
        self._limit = limit
        self._name = getattr(handler, "__qualname__", None)
        self._ctx, self._cancel = with_cancel(without_cancel(current_context()))
        self._lock = threading.Lock()  # guards what follows
        self._handlers = 0
        self._closed = False  # the listener, as far as anybody has noticed
        self._complained = False  # of a handler that is not async
        self._note: Note | None = None  # who waits for a change: serve() itself

    async def accept_all(self, listener: Acceptor[C]) -> None:
        """Accept until the listener is closed."""
        delay = 0.0
        if self._limit is not None and hasattr(listener, "wait_closed"):
            go(self._watch, listener.wait_closed, context=self._ctx)
        while True:
            if self._limit is not None:
                await self._until(self._has_room)
            try:
                conn = await listener.accept()
            except ClosedError:
                return
            except OSError as exc:
                if isinstance(exc, TimeoutError) or not _may_pass(exc):
                    raise
                delay = min(max(2 * delay, _BACK_OFF_MIN), _BACK_OFF_MAX)
                _log.warning("%s; trying again in %g s", exc, delay)
                await sleep(delay)
            else:
                delay = 0.0
                self._start(conn)

    async def shut_down(self, grace: float | None) -> None:
        """Wait for the handlers; after *grace* seconds, or an exception, cancel them first."""
        interrupt = None
        try:
            async with timeout(grace):
                await self._until(self._is_idle)
        except DeadlineExceeded:
            pass
        except BaseException as exc:  # another Ctrl-C
            interrupt = exc
        self._cancel("serve() has ended")
        while True:
            try:
                await self._until(self._is_idle)
                break
            except BaseException as exc:
                interrupt = exc
        if interrupt is not None:
            try:
                raise interrupt
            finally:
                del interrupt  # no cycle through the traceback

    def _start(self, conn: C) -> None:
        with self._lock:
            self._handlers += 1  # V1
        try:
            go(self._handle, conn, name=self._name, context=self._ctx)
        except BaseException:
            self._end(conn)
            raise

    async def _handle(self, conn: C) -> None:
        """Run the handler of one connection."""
        try:
            made: object = self._handler(conn)
            if type(made) is CoroutineType or inspect.isawaitable(made):  # the look takes a while
                await made
            else:
                self._complain(made)
        except Exception as exc:
            if (errors := _op_errors(exc)) is None:
                _log.error("the handler of %r has failed", conn, exc_info=exc)
            else:
                for error in errors:
                    _log.warning("%s", error)
        finally:
            self._end(conn)  # V1

    def _end(self, conn: C) -> None:
        """Close *conn*, which may be anybody's, and count it down."""
        try:
            conn.close()
        except Exception as exc:
            _log.error("the close of %r has failed", conn, exc_info=exc)
        finally:
            self._change(-1)

    def _complain(self, made: object) -> None:
        """Say, once, that the handler is a plain function; nothing may be wrong with the others."""
        with self._lock:
            first, self._complained = not self._complained, True
        if first:
            _log.error(
                "serve() takes an async function; %s returned %s, and its connections are closed "
                "at once",
                _name(self._handler),
                type(made).__name__,
            )

    async def _watch(self, wait_closed: Callable[[], Awaitable[object]]) -> None:
        """Tell serve() of the end of the listener while it does not accept."""
        await wait_closed()
        self._closed = True
        self._change(0)

    def _change(self, handlers: int) -> None:
        with self._lock:
            self._handlers += handlers
            note, self._note = self._note, None
        if note is not None:
            note.wake()

    def _has_room(self) -> bool:
        return self._closed or self._handlers < self._limit  # type: ignore[operator]

    def _is_idle(self) -> bool:
        return self._handlers == 0

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for *condition*, which holds the lock's word."""
        while True:
            with self._lock:
                if condition():
                    return
                self._note = note = Note(current_poller(), "serve")
            await note


def _op_errors(exc: BaseException) -> list[OpError] | None:
    """Return *exc*, or what is in a group, if that is OpErrors and nothing else."""
    if isinstance(exc, OpError):
        return [exc]
    if not isinstance(exc, BaseExceptionGroup):
        return None
    errors: list[OpError] = []
    for one in exc.exceptions:
        if (more := _op_errors(one)) is None:
            return None
        errors += more
    return errors


def _may_pass(exc: OSError) -> bool:
    return exc.errno in _PASSING or bool(getattr(exc, "is_temporary", False))


def _check(listener: object, handler: Any, limit: int | None, grace: float | None) -> None:
    check_has("listener", listener, ("accept", "close"), "an object with accept() and close()")
    if not callable(handler):
        raise TypeError(f"handler must be an async function, not {type(handler).__name__}")
    if inspect.isasyncgenfunction(handler):
        raise TypeError(f"handler must be an async function, but {_name(handler)} yields")
    if limit is not None:
        check_int("limit", limit, 1)
    if grace is not None:
        check_seconds("grace", grace)
        if grace < 0:
            raise ValueError(f"grace must not be negative, not {grace}")


def _name(handler: object) -> str:
    return str(getattr(handler, "__qualname__", type(handler).__name__))
