"""Buffers: Reader for lines, tokens and exact counts, Writer that gathers small writes.

Called by goroutines and by tasks of a host loop, on whatever thread they run; one reader or writer
belongs to one of them at a time.
Go: bufio/bufio.go (go1.27), with Python's readline habits.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from gopoll.net._bufreader import ReaderBase
from gopoll.net._bufwriter import WriterBase

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["Reader", "Writer"]

_SIZE = 65536  # bytes: the longest line, and what a Writer gathers
_MAX_SIZE = sys.maxsize >> 2  # of a limit or a size: above it none can be told from none


class _Source(Protocol):
    """What a Reader reads from; b"" means end of file."""

    def read(self, n: int, /) -> Awaitable[bytes]: ...


class Reader(ReaderBase):
    """Read lines, tokens and exact counts from *conn*, an object whose read(n) is awaitable.

    limit: the longest line, token or peek in bytes, terminator not counted.

    A read that raises, whether by deadline, cancellation or limit, consumes nothing: what had
    arrived stays and the call may be made again. Only an EOFError takes its bytes along, in
    .partial.
    """

    def __init__(self, conn: _Source, limit: int = _SIZE) -> None:
        """Read from *conn*, which stays the caller's to close."""
        if not callable(getattr(conn, "read", None)):
            kind = type(conn).__name__
            raise TypeError(
                f"conn must have an awaitable read(n), as connections do; {kind} has none"
            )
        super().__init__(conn, _check_size("limit", limit))


class _Sink(Protocol):
    """What a Writer writes to: everything, or an error whose .written says how much has left.

    What write() returns may say it in a .written of its own, which counts for errors of others too,
    such as the cancellation of a host loop. One that has writev(buffers) too gets what is buffered
    and a large write in one call.
    """

    def write(self, data: ReadableBuffer, /) -> Awaitable[int]: ...


class Writer(WriterBase):
    """Gather small writes to *conn*, an object whose write(data) is awaitable.

    size: so many bytes are gathered; a write of as many goes straight through, behind the others.

    `async with Writer(conn) as writer:` flushes at the end of the block, unless an exception ends
    it. conn stays the caller's to close, and what is not flushed by then is lost.

    A call that a deadline or a cancellation cuts, that of a host loop too, loses nothing and sends
    nothing twice: what has not left stays buffered. The .written of the operation, and of an error
    of gopoll's, is how much of write()'s data was taken, buffered or sent: write the rest, or flush
    again, to go on. After another error of the connection, or where nobody knows how much had left,
    every later call raises it again.
    """

    def __init__(self, conn: _Sink, size: int = _SIZE) -> None:
        """Write to *conn*; nothing is sent yet."""
        if not callable(getattr(conn, "write", None)):
            kind = type(conn).__name__
            raise TypeError(
                f"conn must have an awaitable write(data), as connections do; {kind} has none"
            )
        super().__init__(conn, _check_size("size", size))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is None:
            await self.flush()


def _check_size(name: str, size: int) -> int:
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"{name} must be an int, not {type(size).__name__}")
    if size <= 0:
        raise ValueError(f"{name} must be above 0, not {size}")
    return min(size, _MAX_SIZE)
