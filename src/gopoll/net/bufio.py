"""Buffers: Reader for lines, tokens and exact counts, Writer that gathers small writes.

Called by goroutines and by tasks of a host loop, on whatever thread they run; one reader or writer
belongs to one of them at a time.
Go: bufio/bufio.go (go1.27), with Python's readline habits.
"""

from __future__ import annotations

from collections.abc import Awaitable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from gopoll.errors import Canceled, LimitError, OpError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["Reader", "Writer"]

_CHUNK = 65536  # bytes asked of the connection at a time
_SMALL = 8192  # bytes below which a second copy costs less than a memoryview does
_MAX_CHUNK = 4 * _CHUNK  # the same when read_exactly knows that it needs more


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


class Reader:
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
        if isinstance(limit, bool) or not isinstance(limit, int):
            raise TypeError(f"limit must be an int, not {type(limit).__name__}")
        if limit <= 0:
            raise ValueError(f"limit must be above 0, not {limit}")
        self._conn = conn
        self._limit = limit
        self._buffer = bytearray()
        self._start = 0  # unread bytes are _buffer[_start:]
        self._scanned = 0  # so many unread bytes cannot begin _sep
        self._sep = b""
        self._busy = False  # somebody is inside conn.read

    @property
    def buffered(self) -> int:
        """How many bytes can be had without a read of the connection. Go: Reader.Buffered."""
        return self._unread()

    async def read_line(self) -> bytes:
        """Return the next line with its newline; the rest at end of file, then b"".

        Raises LimitError if the line is longer than the limit.
        """
        size = self._search(b"\n")  # most lines are here already: spare them a coroutine
        if size < 0:
            size = await self._find(b"\n")
        return self._take(size if size > 0 else self._unread())

    async def read_until(self, sep: bytes | bytearray = b"\n") -> bytes:
        """Return everything up to and including *sep*.

        Raises EOFError, with the rest in .partial, if the stream ends first, and LimitError if
        there are more than limit bytes before *sep*.
        """
        if not isinstance(sep, (bytes, bytearray)):
            raise TypeError(f"sep must be bytes, not {type(sep).__name__}")
        if not sep:
            raise ValueError("sep must not be empty")
        size = await self._find(bytes(sep))
        if size < 0:
            raise _IncompleteRead(self._take(self._unread()), None)
        return self._take(size)

    async def read_exactly(self, n: int) -> bytes:
        """Return *n* bytes, however many that is.

        Raises EOFError, with what there was in .partial, if the stream ends first.
        """
        _check_count(n)
        while self._unread() < n:
            if not await self._fill(n - self._unread()):
                raise _IncompleteRead(self._take(self._unread()), n)
        return self._take(n)

    async def peek(self, n: int) -> bytes:
        """Return the next *n* bytes, fewer only at end of file, and leave them unread.

        Raises LimitError if *n* is above the limit.
        """
        _check_count(n)
        if n > self._limit:
            raise self._over_limit("peek")
        while self._unread() < n:
            if not await self._fill(n - self._unread()):
                break
        return self._copy(min(n, self._unread()))

    async def read(self, n: int = _CHUNK) -> bytes:
        """Return at most *n* bytes, b"" at end of file; what is buffered comes first, at once."""
        _check_count(n)
        unread = self._unread()
        if unread or not n:
            return self._take(min(n, unread))
        return await self._receive(n)

    def __aiter__(self) -> Reader:
        return self

    async def __anext__(self) -> bytes:
        size = self._search(b"\n")
        line = self._take(size) if size > 0 else await self.read_line()
        if not line:
            raise StopAsyncIteration
        return line

    async def _find(self, sep: bytes) -> int:
        """Wait for *sep* and return the size up to its end, or -1 if the stream ends first."""
        while (size := self._search(sep)) < 0:
            if not await self._fill(0):
                return -1
        return size

    def _search(self, sep: bytes) -> int:
        """Return the size up to the end of *sep* in what is buffered, or -1; or LimitError."""
        start = self._start
        reach = self._limit + len(sep)  # sep ends here at the latest
        if sep != self._sep:
            self._sep = sep
            self._scanned = 0
        # Restart where the last search gave up: else a line in n pieces costs n * n.
        found = self._buffer.find(sep, start + self._scanned, start + reach)
        if found >= 0:
            return found - start + len(sep)
        unread = len(self._buffer) - start
        if unread >= reach:
            raise self._over_limit("line")
        self._scanned = max(0, unread - len(sep) + 1)
        return -1

    async def _fill(self, need: int) -> bool:
        """Append what one read of the connection brings; False at end of file.

        need: how many bytes the caller lacks, 0 if it cannot know.
        """
        data = await self._receive(min(max(need, _CHUNK), _MAX_CHUNK))
        # Nothing awaits between the arrival of data and its place in the buffer, so a
        # cancellation cannot come between them.
        if self._start:
            # Cheap for a bytearray: it moves its start, and copies only once half is free.
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += data
        return bool(data)

    async def _receive(self, n: int) -> bytes:
        """Read at most *n* bytes from the connection, for one caller at a time."""
        if self._busy:
            # Two reads in flight may come back in either order and would mix up the stream.
            raise RuntimeError("reader is waiting for another goroutine (give it a Mutex)")
        self._busy = True
        try:
            return await self._conn.read(n)
        finally:
            self._busy = False

    def _unread(self) -> int:
        return len(self._buffer) - self._start

    def _copy(self, n: int) -> bytes:
        """Return the first *n* unread bytes."""
        end = self._start + n
        if n <= _SMALL:
            return bytes(self._buffer[self._start : end])
        return bytes(memoryview(self._buffer)[self._start : end])

    def _take(self, n: int) -> bytes:
        """Return the first *n* unread bytes and consume them."""
        data = self._copy(n)
        self._start += n
        self._scanned = self._scanned - n if self._scanned > n else 0
        if self._start == len(self._buffer):
            self._buffer.clear()
            self._start = 0
        return data

    def _over_limit(self, what: str) -> LimitError:
        return LimitError(
            f"{what} longer than the limit of {self._limit} bytes "
            "(its bytes stay readable; give Reader a higher limit)"
        )


class _Sink(Protocol):
    """What a Writer writes to: everything, or an error whose .written says how much has left.

    One that has writev(buffers) too gets what is buffered and a large write in one call.
    """

    def write(self, data: ReadableBuffer, /) -> Awaitable[int]: ...


class Writer:
    """Gather small writes to *conn*, an object whose write(data) is awaitable.

    size: so many bytes are gathered; a write of as many goes straight through, behind the others.

    `async with Writer(conn) as writer:` flushes at the end of the block, unless an exception ends
    it. conn stays the caller's to close, and what is not flushed by then is lost.

    A call that a deadline or a cancellation cuts loses nothing and sends nothing twice: what has
    not left stays buffered. The .written of the error is how much of write()'s data was taken,
    buffered or sent: write the rest, or flush again, to go on. After another error nobody knows
    what the peer has got: every later call raises it again.
    """

    def __init__(self, conn: _Sink, size: int = _CHUNK) -> None:
        """Write to *conn*; nothing is sent yet."""
        if not callable(getattr(conn, "write", None)):
            kind = type(conn).__name__
            raise TypeError(
                f"conn must have an awaitable write(data), as connections do; {kind} has none"
            )
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"size must be an int, not {type(size).__name__}")
        if size <= 0:
            raise ValueError(f"size must be above 0, not {size}")
        self._conn = conn
        self._writev = getattr(conn, "writev", None)
        self._size = size
        # Never resized once it has been handed to conn, which may still look at it.
        self._buffer = bytearray()
        self._busy = False  # somebody is inside conn.write
        self._error: Exception | None = None  # what every later call raises

    @property
    def buffered(self) -> int:
        """How many bytes wait for a flush. Go: Writer.Buffered."""
        return len(self._buffer)

    @property
    def available(self) -> int:
        """How many bytes a write may have to be no more than a copy."""
        return max(0, self._size - len(self._buffer))

    async def write(self, data: ReadableBuffer) -> int:
        """Take all of *data* and return its length; send only what does not fit. An op.

        Raises what the connection raises; see the class for what is left then.
        """
        self._check()
        view = memoryview(data).cast("B")
        if len(view) >= self._size:
            await self._send(view)
        else:
            if len(view) > self.available:
                await self._send(view[:0])
            self._buffer += view
        return len(view)

    async def flush(self) -> None:
        """Send what is buffered. An op.

        Raises what the connection raises: its .written is how much has left, the rest stays.
        """
        self._check()
        if self._buffer:
            await self._send(None)

    async def _send(self, data: memoryview | None) -> None:
        """Send what is buffered, then *data*; the .written of an error is that of *data* if any."""
        head, before = self._buffer, 0
        try:
            if not head:
                await self._put(data or b"")
            elif data and self._writev is not None:
                await self._put([head, data])
            else:
                await self._put(head)
                before = len(head)
                if data:
                    await self._put(data)
        except BaseException as exc:
            written = getattr(exc, "written", None)
            gone = None if written is None else before + written
            if gone is not None and data is not None:
                exc.written = max(0, gone - len(head))  # type: ignore[attr-defined]
            self._cut(exc, gone)
            raise
        self._buffer = bytearray()

    async def _put(self, what: ReadableBuffer | list[ReadableBuffer]) -> None:
        """Hand *what* to the connection, for one caller at a time."""
        self._busy = True
        try:
            if isinstance(what, list):
                await self._writev(what)  # type: ignore[misc]
            else:
                await self._conn.write(what)
        finally:
            self._busy = False

    def _cut(self, exc: BaseException, gone: int | None) -> None:
        """Keep what has not left, *gone* bytes having; or nothing, and all is over."""
        if gone is not None and isinstance(exc, (TimeoutError, Canceled)):
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


def _check_count(n: int) -> None:
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"n must be an int, not {type(n).__name__}")
    if n < 0:
        raise ValueError(f"n must not be negative, not {n}")
