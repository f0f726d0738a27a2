"""Writer: small writes gathered, nothing lost and nothing sent twice when a call is cut.

No scheduler but in the last tests: a hand-driven coroutine is stepped at each park of the fake.
"""

from __future__ import annotations

import asyncio
import errno
import sys
import traceback
from collections.abc import Callable, Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopoll.errors import Canceled, OpError, op_error, timeout_error
from gopoll.net.bufio import Writer
from gopoll.runtime.goroutine import go
from gopoll.runtime.scope import timeout
from net.steps import awaiting, drive, park
from net.tools import BIG, pair, parked


class Sink:
    """Take *piece* bytes at a time, parking before each; `out` is what the peer has."""

    def __init__(self, piece: int = 1 << 20) -> None:
        self.piece = piece
        self.out = b""
        self.calls: list[list[bytes]] = []
        self.error: tuple[int, BaseException] | None = None  # at so many bytes of one call

    async def write(self, data: Any) -> int:
        return await self._send([bytes(data)])

    async def _send(self, buffers: list[bytes]) -> int:
        self.calls.append(buffers)
        data, sent = b"".join(buffers), 0
        while sent < len(data):
            try:
                await park()
                if self.error is not None and self.error[0] <= sent:
                    raise self.error[1]
            except BaseException as exc:
                if hasattr(exc, "written"):
                    exc.written = sent
                raise
            piece = data[sent : sent + self.piece]
            self.out += piece
            sent += len(piece)
        return sent


class VectorSink(Sink):
    """One that has writev."""

    async def writev(self, buffers: list[Any]) -> int:
        return await self._send([bytes(buffer) for buffer in buffers])


class TellingOp:
    """The operation of a TellingSink: it counts, where the exception does not."""

    def __init__(self, sink: Sink, buffers: list[bytes]) -> None:
        self.sink = sink
        self.buffers = buffers
        self.before = len(sink.out)

    @property
    def written(self) -> int:
        return len(self.sink.out) - self.before

    def __await__(self) -> Generator[Any, Any, int]:
        return self.sink._send(self.buffers).__await__()


class TellingSink(Sink):
    """One whose operations say how much has left, as those of connections do."""

    def write(self, data: Any) -> Any:
        return TellingOp(self, [bytes(data)])


class TellingVectorSink(TellingSink):
    """The same with writev."""

    def writev(self, buffers: list[Any]) -> Any:
        return TellingOp(self, [bytes(buffer) for buffer in buffers])


class HostError(Exception):
    """What a host throws in: it has no written."""


class HostCancelled(BaseException):
    """The same, as those of asyncio and trio are."""


FOREIGN = [HostError, HostCancelled, asyncio.CancelledError, KeyboardInterrupt, GeneratorExit]


@pytest.fixture(params=[Sink, VectorSink])
def kind(request: pytest.FixtureRequest) -> type[Sink]:
    found: type[Sink] = request.param
    return found


def test_small_writes_leave_together(kind: type[Sink]) -> None:
    sink = kind()
    writer = Writer(sink, size=10)
    assert [drive(writer.write(data)) for data in (b"ab", bytearray(b"cd"), memoryview(b"e"))] == [
        2,
        2,
        1,
    ]
    assert (writer.buffered, writer.available, sink.calls) == (5, 5, [])
    drive(writer.flush())
    drive(writer.flush())
    assert sink.calls == [[b"abcde"]]
    assert (writer.buffered, writer.available) == (0, 10)


def test_what_does_not_fit_sends_what_is_there(kind: type[Sink]) -> None:
    sink = kind()
    writer = Writer(sink, size=4)
    for data in (b"ab", b"cd", b"efg", b""):
        drive(writer.write(data))
    assert sink.calls == [[b"abcd"]]
    assert writer.buffered == 3


def test_a_large_write_goes_straight_through_behind_what_is_there(kind: type[Sink]) -> None:
    sink = kind()
    writer = Writer(sink, size=4)
    drive(writer.write(b"1234"))
    assert sink.calls == [[b"1234"]]
    drive(writer.write(b"ab"))
    assert drive(writer.write(b"56789")) == 5
    rest = [[b"ab", b"56789"]] if kind is VectorSink else [[b"ab"], [b"56789"]]
    assert sink.calls == [[b"1234"], *rest]
    assert writer.buffered == 0


def test_bytes_are_counted_whatever_the_buffer_holds() -> None:
    sink = Sink()
    writer = Writer(sink, size=8)
    numbers = memoryview(bytes(range(8))).cast("I")
    assert drive(writer.write(numbers)) == 8
    assert drive(writer.write(numbers[:1])) == 4
    assert (sink.out, writer.buffered) == (bytes(range(8)), 4)


def test_a_flush_that_is_cut_goes_on_where_it_was(kind: type[Sink]) -> None:
    sink = kind(piece=2)
    writer = Writer(sink)
    drive(writer.write(b"abcdef"))
    with pytest.raises(Canceled) as caught:
        drive(writer.flush(), cancel_at=2)
    assert (caught.value.written, sink.out, writer.buffered) == (4, b"abcd", 2)
    drive(writer.write(b"gh"))
    drive(writer.flush())
    assert sink.out == b"abcdefgh"


def test_a_small_write_that_is_cut_has_taken_nothing(kind: type[Sink]) -> None:
    sink = kind(piece=2)
    writer = Writer(sink, size=7)
    drive(writer.write(b"abcdef"))
    with pytest.raises(Canceled) as caught:
        drive(writer.write(b"gh"), cancel_at=1)
    assert (caught.value.written, writer.buffered) == (0, 4)
    drive(writer.write(b"gh"))
    drive(writer.flush())
    assert sink.out == b"abcdefgh"


@pytest.mark.parametrize("cut", range(6))
def test_a_large_write_that_is_cut_says_what_it_has_taken(kind: type[Sink], cut: int) -> None:
    sink = kind(piece=1)
    writer = Writer(sink, size=4)
    drive(writer.write(b"ab"))
    data = b"6789"
    with pytest.raises(Canceled) as caught:
        drive(writer.write(data), cancel_at=cut)
    written = caught.value.written
    assert written == max(0, cut - 2)
    assert writer.buffered == max(0, 2 - cut)
    drive(writer.write(data[written:]))
    drive(writer.flush())
    assert sink.out == b"ab6789"


def test_a_deadline_cuts_as_a_cancellation_does(kind: type[Sink]) -> None:
    sink = kind(piece=1)
    writer = Writer(sink)
    drive(writer.write(b"abcd"))
    sink.error = 3, timeout_error("write", "tcp", None, None)
    with pytest.raises(TimeoutError) as caught:
        drive(writer.flush())
    assert caught.value.written == 3  # type: ignore[attr-defined]
    sink.error = None
    drive(writer.flush())
    assert sink.out == b"abcd"


def test_another_error_is_raised_again_by_every_later_call(kind: type[Sink]) -> None:
    sink = kind(piece=1)
    writer = Writer(sink, size=4)
    drive(writer.write(b"ab"))
    sink.error = 4, op_error("write", "tcp", None, None, errno.EPIPE)
    with pytest.raises(BrokenPipeError) as caught:
        drive(writer.write(b"cdefgh"))
    # The vector's two buffers are one call; else it is the second that fails, after so many.
    assert caught.value.written == (2 if kind is VectorSink else 4)  # type: ignore[attr-defined]
    sink.error = None
    depths = set()
    for _ in range(3):
        for again in (writer.write(b"x"), writer.flush()):
            with pytest.raises(BrokenPipeError, match="broken pipe") as caught:
                drive(again)
            assert caught.value.written == 0  # type: ignore[attr-defined]
            depths.add(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len(depths) == 1
    assert len(sink.calls) == (1 if kind is VectorSink else 2)


@pytest.mark.parametrize("exc", [KeyboardInterrupt(), Canceled("x"), TimeoutError("whose?")])
def test_a_cut_that_says_nothing_ends_it(exc: BaseException) -> None:
    class Mute:
        async def write(self, data: Any) -> int:
            raise exc

    writer = Writer(Mute())
    drive(writer.write(b"abc"))
    with pytest.raises(type(exc)):
        drive(writer.flush())
    text = "whose" if isinstance(exc, TimeoutError) else r"was cut \((KeyboardI|Canceled\('x'\))"
    with pytest.raises(OSError, match=text):
        drive(writer.flush())


@pytest.mark.parametrize("kind", [TellingSink, TellingVectorSink])
@pytest.mark.parametrize("error", FOREIGN)
@pytest.mark.parametrize("cut", range(6))
def test_a_cut_by_somebody_else_loses_nothing(
    kind: type[Sink], error: type[BaseException], cut: int
) -> None:
    """K4: the operation counts, whatever is thrown in."""
    sink = kind(piece=1)
    writer = Writer(sink, size=4)
    drive(writer.write(b"ab"))
    data = b"6789"
    op = writer.write(data)
    with pytest.raises(error) as caught:
        drive(op, cut, error)
    assert not hasattr(caught.value, "written")
    assert (op.written, writer.buffered) == (max(0, cut - 2), max(0, 2 - cut))
    drive(writer.write(data[op.written :]))
    flush = writer.flush()
    drive(flush)
    assert sink.out == b"ab6789"


def test_a_flush_says_how_much_has_left() -> None:
    sink = TellingSink(piece=2)
    writer = Writer(sink)
    done = writer.write(b"abcdef")
    assert done.written == 0
    drive(done)
    cut, rest, none = writer.flush(), writer.flush(), writer.flush()
    with pytest.raises(HostCancelled):
        drive(cut, 2, HostCancelled)
    drive(rest)
    drive(none)
    assert [op.written for op in (done, cut, rest, none)] == [6, 4, 2, 0]
    assert sink.out == b"abcdef"


@pytest.mark.parametrize("kind", [TellingSink, TellingVectorSink])
def test_a_write_that_is_closed_loses_nothing(kind: type[Sink]) -> None:
    """As a coroutine that is dropped closes what it awaits."""
    sink = kind(piece=1)
    writer = Writer(sink, size=4)
    drive(writer.write(b"ab"))
    op = writer.write(b"6789")
    coro = awaiting(op)
    for _ in range(4):
        coro.send(None)
    coro.close()
    assert (sink.out, op.written, writer.buffered) == (b"ab6", 1, 0)
    drive(writer.write(b"789"))
    drive(writer.flush())
    assert sink.out == b"ab6789"


def test_an_error_of_the_connection_sticks_though_the_operation_counts() -> None:
    sink = TellingSink(piece=1)
    writer = Writer(sink)
    drive(writer.write(b"abcd"))
    sink.error = 2, op_error("write", "tcp", None, None, errno.EPIPE)
    for _ in range(2):
        with pytest.raises(BrokenPipeError):
            drive(writer.flush())
    assert sink.calls == [[b"abcd"]]


def test_two_writers_at_once_are_refused() -> None:
    sink = Sink()
    writer = Writer(sink)
    drive(writer.write(b"abc"))
    first = awaiting(writer.flush())
    assert first.send(None) == "park"
    for other in (writer.write(b"d"), writer.flush()):
        with pytest.raises(RuntimeError, match="sending for another goroutine"):
            drive(other)
    drive(first)
    assert sink.out == b"abc"


def test_async_with_flushes_unless_an_exception_ends_it() -> None:
    async def block(error: BaseException | None) -> None:
        async with Writer(sink) as writer:
            await writer.write(b"abc")
            if error is not None:
                raise error

    sink = Sink()
    drive(block(None))
    assert sink.out == b"abc"
    for error in (LookupError("x"), Canceled()):
        with pytest.raises(type(error)):
            drive(block(error))
    assert sink.out == b"abc"


if sys.version_info >= (3, 12):  # before that only C has buffers

    class Memory:
        """Bytes, and something that happens where they are asked for."""

        def __init__(self, data: bytes, happens: Callable[[], object]) -> None:
            self.data = data
            self.happens = [happens]

        def __buffer__(self, flags: int) -> memoryview:
            if self.happens:
                self.happens.pop()()
            return memoryview(self.data)

    @pytest.mark.parametrize("late", [b"c", b"cd", b"cde"])
    def test_a_call_that_another_overtakes_is_refused(kind: type[Sink], late: bytes) -> None:
        """Who comes between the look and the act, as threads do without a GIL. A large write sent
        once more what the other one was sending; a small one was dropped with what that had sent.
        """
        sink = kind()
        writer = Writer(sink, size=4)
        drive(writer.write(b"ab"))
        flush = awaiting(writer.flush())
        with pytest.raises(RuntimeError, match=r"^writer is sending for another"):
            drive(writer.write(Memory(late, lambda: flush.send(None))))
        drive(flush)
        assert (sink.out, writer.buffered) == (b"ab", 0)
        drive(writer.write(late))
        drive(writer.flush())
        assert sink.out == b"ab" + late


def test_bad_arguments_are_named() -> None:
    text = r"^conn must have an awaitable write\(data\), as connections do; int has none$"
    with pytest.raises(TypeError, match=text):
        Writer(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="size must be an int, not float"):
        Writer(Sink(), size=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="size must be above 0, not 0"):
        Writer(Sink(), size=0)
    with pytest.raises(TypeError, match="bytes-like"):
        drive(Writer(Sink()).write("text"))  # type: ignore[arg-type]


CALLS = st.tuples(
    st.one_of(st.just(None), st.binary(max_size=12)),  # a flush or a write
    st.integers(-1, 4),  # the park at which it is cut
    st.booleans(),  # by a deadline
)
KINDS = st.sampled_from([Sink, VectorSink, TellingSink, TellingVectorSink])


@given(KINDS, st.integers(1, 8), st.integers(1, 4), st.lists(CALLS, max_size=20))
def test_whatever_is_cut_the_stream_is_whole(
    kind: type[Sink], size: int, piece: int, calls: list[tuple[bytes | None, int, bool]]
) -> None:
    sink = kind(piece)
    thrown = HostCancelled if issubclass(kind, TellingSink) else Canceled
    told: list[tuple[int, int]] = []
    writer = Writer(sink, size=size)
    expected = b""
    for data, cut, late in calls:
        expected += data or b""
        while True:
            if late and cut >= 0:
                sink.error = cut * piece, timeout_error("write", "tcp", None, None)
            op: Any = writer.flush() if data is None else writer.write(data)
            try:
                drive(op, -1 if late else cut, thrown)
            except (Canceled, HostCancelled, TimeoutError) as exc:
                told.append((getattr(exc, "written", op.written), op.written))
                if data is not None:
                    data = data[op.written :]
                cut, sink.error = -1, None
            else:
                sink.error = None
                break
            assert expected.startswith(sink.out)
        assert len(sink.out) + writer.buffered == len(expected)
        assert writer.buffered <= size or cut >= 0
    drive(writer.flush())
    assert sink.out == expected
    assert [by_op for _, by_op in told] == [by_error for by_error, _ in told]


def test_over_tcp_nothing_is_lost_by_deadline_or_cancellation(run: Any) -> None:
    async def main() -> None:
        async with pair() as (a, b):
            writer = Writer(a, size=1 << 16)

            async def read_all() -> bytes:
                got = bytearray()
                while data := await b.read():
                    got += data
                return bytes(got)

            await writer.write(b"head")
            a.set_write_timeout(0.01)
            with pytest.raises(TimeoutError) as late:
                await writer.write(BIG)
            taken = late.value.written  # type: ignore[attr-defined]
            assert 0 < taken < len(BIG)
            a.set_write_deadline(None)
            await writer.write(b"<")
            with pytest.raises(TimeoutError) as late:
                async with timeout(0.01):
                    await writer.flush()
            assert (late.value.written, writer.buffered) == (0, 1)  # type: ignore[attr-defined]
            stuck = go(writer.write, BIG)
            await parked(stuck)
            stuck.cancel()
            with pytest.raises(Canceled) as cut:
                await stuck
            assert cut.value.written == 0
            reader = go(read_all)
            await writer.write(b">")
            await writer.flush()
            a.close_write()
            assert await reader == b"head" + BIG[:taken] + b"<>"

    run(main)


def test_a_closed_connection_is_told_again(run: Any) -> None:
    async def main() -> None:
        async with pair() as (a, _):
            writer = Writer(a)
            await writer.write(b"x")
            a.close()
            for _ in range(2):
                with pytest.raises(OpError, match="use of closed network connection"):
                    await writer.flush()

    run(main)
