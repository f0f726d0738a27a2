"""Reader: lines, tokens and counts, with nothing lost on the way.

No scheduler: a hand-driven coroutine is stepped at each park of the fake connection.
"""

from __future__ import annotations

import copy
import gc
import itertools
import pickle
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopoll.errors import Canceled, LimitError
from gopoll.net.bufio import Reader, Writer
from gopoll.runtime.goroutine import go, gosched
from net.steps import awaiting, drive, park


class FakeConn:
    """Hand out the given pieces, parking before each; an exception among them is raised."""

    def __init__(self, *pieces: bytes | BaseException) -> None:
        self.pieces = list(pieces)
        self.asked: list[int] = []

    async def read(self, n: int) -> bytes:
        self.asked.append(n)
        await park()
        if not self.pieces:
            return b""
        piece = self.pieces.pop(0)
        if isinstance(piece, BaseException):
            raise piece
        if len(piece) > n:
            self.pieces.insert(0, piece[n:])
        return piece[:n]


class NullSink:
    async def write(self, data: Any) -> int:
        return len(data)


def forget(make: Any) -> None:
    make()
    gc.collect()


async def collect(lines: AsyncIterator[bytes]) -> list[bytes]:
    return [line async for line in lines]


def test_read_line_keeps_the_terminator_as_readline_does() -> None:
    reader = Reader(FakeConn(b"one\r\ntwo\n", b"\nthr", b"ee"))
    got = [drive(reader.read_line()) for _ in range(6)]
    assert got == [b"one\r\n", b"two\n", b"\n", b"three", b"", b""]


def test_async_for_yields_lines_to_the_end_of_file() -> None:
    reader = Reader(FakeConn(b"a\nb", b"\n\n", b"c"))
    assert drive(collect(reader)) == [b"a\n", b"b\n", b"\n", b"c"]
    assert drive(collect(reader)) == []


def test_a_line_of_the_limit_passes_and_one_byte_more_does_not() -> None:
    assert drive(Reader(FakeConn(b"abcd\n"), limit=4).read_line()) == b"abcd\n"
    for pieces in ([b"abcde\n"], [b"a", b"b", b"c", b"d", b"e", b"\n"], [b"abcde"]):
        with pytest.raises(LimitError, match="line longer than the limit of 4 bytes"):
            drive(Reader(FakeConn(*pieces), limit=4).read_line())


def test_bytes_of_a_line_over_the_limit_stay_readable() -> None:
    conn = FakeConn(b"abcdefgh\nrest\n")
    reader = Reader(conn, limit=4)
    for _ in range(2):
        with pytest.raises(LimitError):
            drive(reader.read_line())
    assert drive(reader.peek(3)) == b"abc"
    assert drive(reader.read(5)) == b"abcde"
    assert drive(reader.read_line()) == b"fgh\n"
    assert drive(reader.read_line()) == b"rest\n"
    assert len(conn.asked) == 1


def test_a_line_over_the_limit_stops_asking_the_peer() -> None:
    conn = FakeConn(*[b"x" * 100] * 50)
    with pytest.raises(LimitError):
        drive(Reader(conn, limit=1000).read_line())
    assert len(conn.asked) == 11


def test_read_until_finds_a_separator_across_pieces() -> None:
    reader = Reader(FakeConn(b"head\r", b"\n\r\n", b"body\r\n\r", b"\n"))
    assert drive(reader.read_until(b"\r\n\r\n")) == b"head\r\n\r\n"
    assert drive(reader.read_until(bytearray(b"\r\n\r\n"))) == b"body\r\n\r\n"


def test_read_until_at_end_of_file_hands_over_the_rest() -> None:
    reader = Reader(FakeConn(b"rest"))
    with pytest.raises(EOFError, match="end of file after 4 bytes, before the sep") as caught:
        drive(reader.read_until(b";"))
    assert caught.value.partial == b"rest"  # type: ignore[attr-defined]
    with pytest.raises(EOFError) as caught:
        drive(reader.read_until(b";"))
    assert caught.value.partial == b""  # type: ignore[attr-defined]


def test_another_separator_is_searched_from_the_start() -> None:
    reader = Reader(FakeConn(b"a;b", LookupError("first"), b"c\n"))
    with pytest.raises(LookupError):
        drive(reader.read_line())
    assert drive(reader.read_until(b";")) == b"a;"
    assert drive(reader.read_line()) == b"bc\n"


def test_read_exactly_is_not_bound_by_the_limit() -> None:
    reader = Reader(FakeConn(b"abc", b"defgh"), limit=1)
    assert drive(reader.read_exactly(0)) == b""
    assert drive(reader.read_exactly(7)) == b"abcdefg"
    assert drive(reader.read_exactly(1)) == b"h"


def test_read_exactly_at_a_premature_end_hands_over_the_partial_bytes() -> None:
    reader = Reader(FakeConn(b"abc"))
    with pytest.raises(EOFError, match="end of file after 3 bytes, before 5 bytes") as caught:
        drive(reader.read_exactly(5))
    error: Any = caught.value
    assert (error.partial, error.expected) == (b"abc", 5)
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (str(other), other.partial) == (str(error), b"abc")
    assert drive(reader.read(5)) == b""


def test_read_exactly_asks_for_a_bounded_piece() -> None:
    conn = FakeConn(b"x" * 300_000)
    assert drive(Reader(conn).read_exactly(300_000)) == b"x" * 300_000
    assert max(conn.asked) == 262_144


def test_peek_leaves_the_bytes_and_is_short_only_at_end_of_file() -> None:
    reader = Reader(FakeConn(b"a", b"bcd"))
    assert drive(reader.peek(0)) == b""
    assert drive(reader.peek(3)) == b"abc"
    assert drive(reader.peek(9)) == b"abcd"
    assert drive(reader.read(9)) == b"abcd"
    assert drive(reader.peek(1)) == b""


def test_peek_over_the_limit_is_refused_at_once() -> None:
    conn = FakeConn(b"abcdef")
    with pytest.raises(LimitError, match="peek longer than the limit of 4 bytes"):
        drive(Reader(conn, limit=4).peek(5))
    assert conn.asked == []


def test_buffered_is_what_needs_no_read_of_the_connection() -> None:
    """A server of pipelined requests flushes when it is 0."""
    conn = FakeConn(b"one\ntwo\nth", b"ree\n")
    reader = Reader(conn)
    seen = [reader.buffered]
    for _ in range(3):
        drive(reader.read_line())
        seen.append(reader.buffered)
    assert (seen, len(conn.asked)) == ([0, 6, 2, 0], 2)


def test_read_gives_what_is_buffered_before_it_asks() -> None:
    conn = FakeConn(b"a\nbcd", b"ef")
    reader = Reader(conn)
    assert drive(reader.read_line()) == b"a\n"
    assert drive(reader.read(0)) == b""
    assert drive(reader.read(2)) == b"bc"
    assert drive(reader.read()) == b"d"
    assert len(conn.asked) == 1
    assert drive(reader.read(1)) == b"e"
    assert conn.asked[1:] == [1]
    assert drive(reader.read()) == b"f"
    assert drive(reader.read()) == b""


def test_a_failure_in_the_middle_keeps_what_had_arrived() -> None:
    conn = FakeConn(b"ab", TimeoutError("i/o timeout"), b"c\n")
    reader = Reader(conn)
    with pytest.raises(TimeoutError):
        drive(reader.read_line())
    assert drive(reader.read_line()) == b"abc\n"


def test_a_cancelled_read_loses_nothing_and_frees_the_reader() -> None:
    for method in (Reader.read_line, lambda r: r.read_exactly(4), lambda r: r.peek(4)):
        reader = Reader(FakeConn(b"ab", b"c\n"))
        with pytest.raises(Canceled):
            drive(method(reader), cancel_at=1)
        assert drive(reader.read_line()) == b"abc\n"


def test_two_readers_at_once_are_refused() -> None:
    reader = Reader(FakeConn(b"a\n"))
    first = awaiting(reader.read_line())
    assert first.send(None) == "park"
    with pytest.raises(RuntimeError, match="waiting for another goroutine"):
        drive(reader.read_exactly(1))
    assert drive(first) == b"a\n"


def test_end_of_file_is_asked_for_again() -> None:
    reader = Reader(FakeConn(b"a", b"", b"b\n"))
    assert drive(reader.read_line()) == b"a"
    assert drive(reader.read_line()) == b"b\n"


@pytest.mark.parametrize("sep", [b"\n", b"\r\n.\r\n"])
def test_a_long_line_in_small_pieces_is_searched_once(sep: bytes) -> None:
    """What has been searched in vain is left out, but for the beginning of a separator."""
    size = 20_000
    reader = Reader(FakeConn(*[b"x"] * size, sep))
    line = awaiting(reader.read_until(sep))
    for fed in range(size):
        assert line.send(None) == "park"
        assert reader._scanned == max(0, fed - len(sep) + 1)
    assert drive(line) == b"x" * size + sep
    assert reader._scanned == 0


def test_pieces_of_any_size_are_put_together() -> None:
    """The buffer grows, is used again from the front, and takes a piece as it is where it can."""
    sizes = [1, 700, 3, 65536, 2, 2, 511, 1, 40_000, 9]
    stream = bytes(i * 7 % 251 for i in range(sum(sizes)))
    for take in (1, 2, 500, 600, 65535, 70_000):
        pieces, at = [], 0
        for size in sizes:
            pieces.append(stream[at : at + size])
            at += size
        reader = Reader(FakeConn(*pieces))
        got = b""
        while len(got) + take <= len(stream):
            assert drive(reader.peek(min(take, 60_000))) == stream[len(got) :][: min(take, 60_000)]
            got += drive(reader.read_exactly(take))
        with pytest.raises(EOFError) as caught:
            drive(reader.read_exactly(take))
        assert got + caught.value.partial == stream  # type: ignore[attr-defined]


def test_a_connection_may_give_any_bytes_like_piece() -> None:
    reader = Reader(FakeConn(bytearray(b"a\nb"), memoryview(b"c\n")))  # type: ignore[arg-type]
    assert [drive(reader.read_line()) for _ in range(3)] == [b"a\n", b"bc\n", b""]


def test_an_operation_is_awaited_once_and_not_forgotten() -> None:
    conn = FakeConn(b"a\n", b"b\n")
    reader, writer = Reader(conn), Writer(NullSink())
    for op in (reader.read_line(), reader.read_line(), writer.write(b"x"), writer.flush()):
        drive(op)
        with pytest.raises(RuntimeError, match="cannot await an operation twice"):
            drive(op)
    for make, name in ((reader.read_line, "read_line"), (writer.flush, "flush")):
        with pytest.warns(RuntimeWarning, match=f"^{name} was never awaited$"):
            forget(make)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_makes_no_sense_is_a_value_error(limit: int) -> None:
    with pytest.raises(ValueError, match="limit must be above 0"):
        Reader(FakeConn(), limit=limit)


def test_bad_arguments_are_named() -> None:
    reader: Any = Reader(FakeConn(b"abc"))
    text = r"^conn must have an awaitable read\(n\), as connections do; int has none$"
    with pytest.raises(TypeError, match=text):
        Reader(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="limit must be an int, not float"):
        Reader(FakeConn(), limit=1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="sep must be bytes, not str"):
        drive(reader.read_until("\n"))
    with pytest.raises(ValueError, match="sep must not be empty"):
        drive(reader.read_until(b""))
    for method in (reader.read, reader.peek, reader.read_exactly):
        with pytest.raises(ValueError, match="n must not be negative, not -1"):
            drive(method(-1))
        with pytest.raises(TypeError, match="n must be an int, not str"):
            drive(method("1"))
    assert drive(reader.read()) == b"abc"


def test_a_subclass_may_have_coroutines_in_place_of_operations() -> None:
    class Lines(Reader):
        async def read_line(self) -> bytes:
            return (await super().read_line()).rstrip()

        async def __anext__(self) -> bytes:
            return (await super().__anext__()).rstrip()

    lines = Lines(FakeConn(b"one\ntwo\n", b"three\n"))
    assert drive(lines.read_line()) == b"one"
    assert drive(collect(lines)) == [b"two", b"three"]


def test_a_subclass_that_forgets_to_initialise_us_is_told() -> None:
    class Forgetful(Reader):
        def __init__(self) -> None:
            pass

    class Forgotten(Writer):
        def __init__(self) -> None:
            pass

    reader, writer = Forgetful(), Forgotten()
    for call in (
        reader.read_line,
        lambda: reader.read(1),
        lambda: writer.write(b"x"),
        writer.flush,
    ):
        with pytest.raises(RuntimeError, match=r"^Forg\w+\.__init__\(\) has not called super\(\)"):
            drive(call())
    assert (reader.buffered, writer.buffered) == (0, 0)


@pytest.mark.parametrize("piece", [3, "text"])
def test_a_connection_that_gives_no_bytes_is_a_type_error(piece: Any) -> None:
    class Wrong:
        async def read(self, n: int) -> Any:
            return piece

    reader = Reader(Wrong())
    with pytest.raises(TypeError, match=r"bytes-like object is required, not '(int|str)'"):
        drive(reader.read_line())


def test_goroutines_that_share_a_reader_by_mistake_lose_no_byte(run: Any) -> None:
    """On many Ps too: every byte goes to one of them, in some order."""

    class Endless:
        """Counts; gives way now and then, as a connection does."""

        left, given, lock = 3000, 0, threading.Lock()

        async def read(self, n: int) -> bytes:
            with self.lock:  # two may be here at once
                self.left -= 1
                data = b"ab\n" * (self.left % 50) + b"c" if self.left > 0 else b""
                self.given += len(data)
            if len(data) % 7 == 0:
                await gosched()
            return data

    async def take(reader: Reader, calls: list[Any]) -> int:
        got = 0
        for call in itertools.cycle(calls):
            try:
                data = await call()
            except RuntimeError:
                await gosched()
                continue
            except EOFError as exc:
                data = exc.partial  # type: ignore[attr-defined]
            got += len(data)
            if not data and conn.left <= 0:
                return got
        raise AssertionError

    async def main() -> int:
        reader = Reader(conn, limit=1 << 20)
        calls = [
            reader.read_line,
            lambda: reader.read_exactly(5),
            reader.read,
            lambda: reader.read(1),
        ]
        gs = [go(take, reader, calls[i:] + calls[:i]) for i in range(4)]
        return sum([await g for g in gs])

    conn = Endless()
    assert run(main, procs=4) == conn.given


class Model:
    """The same calls on the whole stream at once: an outcome and what it consumes."""

    def __init__(self, stream: bytes, limit: int) -> None:
        self.rest = stream
        self.limit = limit

    def take(self, n: int) -> bytes:
        data, self.rest = self.rest[:n], self.rest[n:]
        return data

    def until(self, sep: bytes) -> bytes | str:
        found = self.rest.find(sep)
        if 0 <= found <= self.limit:
            return self.take(found + len(sep))
        if len(self.rest) >= self.limit + len(sep):
            return "limit"
        return "eof"

    def call(self, name: str, arg: Any) -> bytes | str | tuple[str, bytes]:
        if name == "read_exactly":
            enough = len(self.rest) >= arg
            return self.take(arg) if enough else ("eof", self.take(arg))
        if name == "peek":
            return "limit" if arg > self.limit else self.rest[:arg]
        got = self.until(b"\n" if name == "read_line" else arg)
        if got == "eof":
            rest = self.take(len(self.rest))
            return rest if name == "read_line" else ("eof", rest)
        return got


def outcome(reader: Reader, name: str, args: tuple[Any, ...], cancel_at: int) -> Any:
    """Call the reader; if it is cancelled, call it again: the answer must not depend on that."""
    while True:
        try:
            return drive(getattr(reader, name)(*args), cancel_at)
        except Canceled:
            cancel_at = -1
        except LimitError:
            return "limit"
        except EOFError as exc:
            return "eof", exc.partial  # type: ignore[attr-defined]


CALLS = st.one_of(
    st.tuples(st.just("read_line"), st.none()),
    st.tuples(st.just("read_until"), st.sampled_from([b";", b";;", b"\n;", b"ab;"])),
    st.tuples(st.just("read_exactly"), st.integers(0, 12)),
    st.tuples(st.just("peek"), st.integers(0, 12)),
    st.tuples(st.just("read"), st.integers(0, 12)),
)


@given(
    st.lists(st.text(alphabet="ab;\n", min_size=1, max_size=9).map(str.encode), max_size=12),
    st.integers(1, 10),
    st.lists(st.tuples(CALLS, st.integers(-1, 3)), max_size=30),
)
def test_any_mix_of_calls_agrees_with_the_whole_stream(
    pieces: list[bytes], limit: int, calls: list[tuple[tuple[str, Any], int]]
) -> None:
    reader = Reader(FakeConn(*pieces), limit=limit)
    model = Model(b"".join(pieces), limit)
    for (name, arg), cancel_at in calls:
        got = outcome(reader, name, () if arg is None else (arg,), cancel_at)
        if name == "read":
            # How much comes depends on the pieces; that something comes, and what, does not.
            assert bool(got) == bool(arg and model.rest)
            assert len(got) <= arg
            assert got == model.take(len(got))
        else:
            assert got == model.call(name, arg), (name, arg)
    assert drive(reader.read_exactly(len(model.rest))) == model.rest
    assert drive(reader.read(1)) == b""
