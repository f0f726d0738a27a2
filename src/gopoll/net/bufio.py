"""A buffered reader: lines, tokens and exact counts from anything that has read(n).

Called by goroutines and by tasks of a host loop, on whatever thread they run; one reader belongs
to one of them at a time.
Go: bufio/bufio.go (go1.27), with Python's readline habits.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from gopoll.errors import LimitError

__all__ = ["Reader"]

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


def _check_count(n: int) -> None:
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"n must be an int, not {type(n).__name__}")
    if n < 0:
        raise ValueError(f"n must not be negative, not {n}")
