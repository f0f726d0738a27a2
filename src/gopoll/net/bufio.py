"""Buffers: Reader for lines, tokens and exact counts, Writer that gathers small writes.

Called by goroutines and by tasks of a host loop, on whatever thread they run; one reader or writer
belongs to one of them at a time.
Go: bufio/bufio.go (go1.27), with Python's readline habits.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from gopoll.errors import OpError
from gopoll.net._bufio import ReaderBase, WriterBase, written_by

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["Reader", "Writer"]

_CHUNK = 65536  # bytes asked of the connection at a time
_MAX_CHUNK = 4 * _CHUNK  # the same when read_exactly knows that it needs more
_MAX_SIZE = sys.maxsize >> 2  # of a limit or a size: above it none can be told from none


class _Source(Protocol):
    """What a Reader reads from; b"" means end of file."""

    def read(self, n: int, /) -> Awaitable[bytes]: ...


class _IncompleteRead(EOFError):
    """The stream ended first: partial has the bytes that came; expected is their number or None."""

    def __init__(self, partial: bytes, expected: int | None) -> None:
        super().__init__(partial, expected)
        self.partial = partial
        self.expected = expected

    def __str__(self) -> str:
        wanted = "the separator" if self.expected is None else f"{self.expected} bytes"
        return f"end of file after {len(self.partial)} bytes, before {wanted}"


class Reader(ReaderBase):
    """Read lines, tokens and exact counts from *conn*, an object whose read(n) is awaitable.

    limit: the longest line, token or peek in bytes, terminator not counted.

    A read that raises, whether by deadline, cancellation or limit, consumes nothing: what had
    arrived stays and the call may be made again. Only an EOFError takes its bytes along, in
    .partial.
    """

    def __init__(self, conn: _Source, limit: int = _CHUNK) -> None:
        """Read from *conn*, which stays the caller's to close."""
        if not callable(getattr(conn, "read", None)):
            kind = type(conn).__name__
            raise TypeError(
                f"conn must have an awaitable read(n), as connections do; {kind} has none"
            )
        super().__init__(conn, _check_size("limit", limit))

    # Where the operations go on that cannot end in the buffer.

    async def _read_line(self) -> bytes:
        size = await self._find(b"\n")
        return self._take(size if size > 0 else self.buffered)

    async def _next_line(self) -> bytes:
        line = await self._read_line()
        if not line:
            raise StopAsyncIteration
        return line

    async def _read_until(self, sep: bytes) -> bytes:
        size = await self._find(sep)
        if size < 0:
            raise _IncompleteRead(self._take(self.buffered), None)
        return self._take(size)

    async def _read_exactly(self, n: int) -> bytes:
        while self.buffered < n:
            if not await self._fill(n - self.buffered):
                raise _IncompleteRead(self._take(self.buffered), n)
        return self._take(n)

    async def _peek(self, n: int) -> bytes:
        while self.buffered < n:
            if not await self._fill(n - self.buffered):
                break
        return self._copy(n)

    async def _find(self, sep: bytes) -> int:
        """Wait for *sep* and return the size up to its end, or -1 if the stream ends first."""
        while (size := self._search(sep)) < 0:
            if not await self._fill(0):
                return -1
        return size

    async def _fill(self, need: int) -> bool:
        """Append what one read of the connection brings; False at end of file.

        need: how many bytes the caller lacks, 0 if it cannot know.
        """
        data = await self._receive(min(max(need, _CHUNK), _MAX_CHUNK))
        # Nothing awaits between the arrival of data and its place in the buffer, so a
        # cancellation cannot come between them.
        self._feed(data)
        return bool(data)

    async def _receive(self, n: int) -> bytes:
        """Read at most *n* bytes from the connection, for one caller at a time."""
        if self._busy:
            # Two reads in flight may come back in either order and would mix up the stream.
            raise RuntimeError("reader is waiting for another goroutine (give it a Mutex)")
        self._busy = True
        try:
            data: bytes = await self._conn.read(n)
        finally:
            self._busy = False
        return data


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

    def __init__(self, conn: _Sink, size: int = _CHUNK) -> None:
        """Write to *conn*; nothing is sent yet."""
        if not callable(getattr(conn, "write", None)):
            kind = type(conn).__name__
            raise TypeError(
                f"conn must have an awaitable write(data), as connections do; {kind} has none"
            )
        super().__init__(conn, _check_size("size", size))
        self._writev: Any = getattr(conn, "writev", None)

    # Where the operations go on that cannot end in the buffer.

    async def _write(self, data: ReadableBuffer, told: list[int | None]) -> int:
        view = memoryview(data).cast("B")
        if len(view) >= self._size:
            await self._send(view, told)
        else:
            await self._send(view[:0], told)
            self._gather(view)
        told[0] = len(view)
        return len(view)

    async def _flush(self, told: list[int | None]) -> None:
        await self._send(None, told)

    async def _send(self, data: memoryview | None, told: list[int | None]) -> None:
        """Send what is buffered, then *data*; tell in *told* how much has left of that, else of
        what was buffered. So does the .written of an error that has one.
        """
        head, gone, op = self._buffer, 0, None  # what op has written is behind the *gone* bytes
        self._busy = True
        try:
            for what in self._pieces(head, data):
                write = self._writev if isinstance(what, list) else self._conn.write
                op = write(what)
                await op
                gone, op = len(head), None
            self._buffer = bytearray()
            told[0] = len(head)
        except BaseException as exc:
            written = written_by(op, exc)
            total = None if written is None else gone + written
            told[0] = total
            if total is not None and data is not None:
                told[0] = max(0, total - len(head))
                if hasattr(exc, "written"):
                    exc.written = told[0]
            self._cut(exc, total)
            raise
        finally:
            self._busy = False

    def _pieces(self, head: bytearray, data: memoryview | None) -> list[Any]:
        """Return what the connection is given, one after the other; a list is for writev."""
        if not head:
            return [data or b""]
        if data and self._writev is not None:
            return [[head, data]]
        return [head, data] if data else [head]

    def _cut(self, exc: BaseException, gone: int | None) -> None:
        """Keep what has not left, *gone* bytes having; or nothing, and all is over."""
        broken = isinstance(exc, OSError) and not isinstance(exc, TimeoutError)
        if gone is not None and not broken:
            self._buffer = self._buffer[gone:]
        elif isinstance(exc, Exception):
            self._error = exc
        else:
            what = f"an earlier write was cut ({exc!r}), and nobody knows how much had left"
            self._error = OpError("write", err=what)

    def _check(self) -> None:
        if self._busy:
            # Behind what is on its way, or in front of it? Nobody could say.
            raise RuntimeError("writer is sending for another goroutine (give it a Mutex)")
        error = self._error
        if error is not None:
            if getattr(error, "written", None):
                error.written = 0  # type: ignore[attr-defined]  # of this call's data
            raise error.with_traceback(None)

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
