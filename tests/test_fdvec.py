"""Several buffers as one write: what is consumed, what is skipped, what is refused.

Through writev, which is nothing else; sendmsg's own matters are in test_fdmsg.py.
Go: internal/poll/writev_test.go, net/writev_test.go; rows 22, 97, 98.
"""

import array
import errno
import gc
import os
import socket
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gopoll
from gopoll import Canceled, ClosedError, OpError
from helpers.fds import (
    AnyFD,
    drain,
    half_pair,
    message,
    pair,
    parked,
    pipe,
    reset,
    tcp_pair,
)

SMALL = 4096  # bytes: what SO_SNDBUF is asked for, so that little fits


async def take(peer, size, at_once=1 << 20):
    """Read *size* bytes from a plain socket that does not block, letting the others run."""
    got = bytearray()
    while len(got) < size:
        try:
            part = peer.recv(min(at_once, size - len(got)))
        except BlockingIOError:
            await gopoll.gosched()
            continue
        assert part, f"the end after {len(got)} of {size} bytes"
        got += part
    return bytes(got)


@pytest.mark.parametrize("chunks", [0, 1, 2, 1023, 1024, 1025, 3000])
@pytest.mark.parametrize("size", [1, 100])
def test_any_number_of_buffers_leaves_whole_and_in_order(run, chunks, size):
    """Row 97. The kernel refuses more than 1024 at a time, so they went in parts."""

    async def main():
        with half_pair() as (fd, peer):
            buffers = [bytes([i % 251]) * size for i in range(chunks)]
            g = gopoll.go(fd.writev, buffers)
            assert await take(peer, chunks * size) == b"".join(buffers)
            assert await g == chunks * size
            assert len(buffers) == chunks, "the caller's list is his own"

    run(main)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(sizes=st.lists(st.integers(0, 9000), max_size=12), at_once=st.integers(1, 5000))
def test_what_leaves_in_pieces_goes_on_in_the_middle_of_a_buffer(sizes, at_once):
    """Row 22: through a small socket buffer, read in odd pieces, with empty ones in between."""

    async def main():
        with half_pair() as (fd, peer):
            with socket.socket(fileno=fd.dup()) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
            data = os.urandom(sum(sizes))
            buffers, at = [], 0
            for size in sizes:
                buffers.append(memoryview(data)[at : at + size])
                at += size
            g = gopoll.go(fd.writev, buffers)
            assert await take(peer, len(data), at_once) == data
            assert await g == len(data)

    gopoll.run(main)


def test_it_takes_any_buffers_and_keeps_them_until_the_end(run):
    async def main():
        with half_pair() as (fd, peer):
            grown = bytearray(b"ab")
            buffers = (b for b in [grown, memoryview(b"xcdx")[1:3], array.array("B", b"ef"), b""])
            assert await fd.writev(buffers) == 6
            grown.append(0)
            assert peer.recv(99) == b"abcdef"
            big = bytearray(8 << 20)
            writer = await parked(fd.writev, [b"x", big])
            with pytest.raises(BufferError):
                big.append(0)
            writer.cancel()
            with pytest.raises(Canceled):
                await writer
            big.append(0)
            for wrong in (b"abc", ["text"], [1], 5, None):
                with pytest.raises(TypeError):
                    fd.writev(wrong)
            with pytest.raises(BufferError):
                fd.writev([grown, memoryview(b"abcd")[::2]])
            grown.append(0)

    run(main)


@pytest.mark.parametrize("kind", ["socket", "pipe"])
@pytest.mark.parametrize("end", ["deadline", "close", "cancel", "peer"])
def test_an_unfinished_one_says_how_much_has_left(run, end, kind):
    async def main():
        with half_pair() as (fd, peer), pipe() as (r, w):
            if kind == "pipe":
                fd = w

            source = peer if kind == "socket" else r
            writer = await parked(fd.writev, [bytes(5000)] * 2000)
            first = b"" if end == "peer" else os.read(source.fileno(), 1 << 14)
            await gopoll.gosched()
            kind_of_error = {
                "deadline": TimeoutError,
                "close": ClosedError,
                "cancel": Canceled,
                "peer": BrokenPipeError,
            }[end]
            match end:
                case "deadline":
                    fd.set_write_timeout(0.001)
                case "close":
                    fd.close()
                case "cancel":
                    writer.cancel()
                case "peer":
                    r.close()
                    peer.close()
            with pytest.raises(kind_of_error) as caught:
                await writer
            if end == "peer":
                assert 0 < caught.value.written < 5000 * 2000
            else:
                assert caught.value.written == len(first) + len(drain(source))
            if end not in ("cancel", "peer"):
                assert str(caught.value).startswith("writev ")

    run(main)


def test_a_reset_connection_refuses_it(run):
    """Row 98."""

    async def main():
        fd, peer = tcp_pair()
        reset(peer)
        with pytest.raises(ConnectionResetError):
            await fd.read(1)
        with pytest.raises(BrokenPipeError, match=r"^writev tcp: writev: broken pipe$") as caught:
            await fd.writev([b"a", b"b"])
        assert caught.value.written == 0
        fd.close()

    run(main)


def test_nothing_to_write_is_written_at_once_but_not_past_a_deadline(run):
    async def main():
        with half_pair() as (fd, peer):
            peer.close()
            assert await fd.writev([]) == 0
            assert await fd.writev([b"", bytearray()]) == 0
            fd.set_write_deadline(-1)
            with pytest.raises(TimeoutError):
                await fd.writev([])
            fd.close()
            with pytest.raises(ClosedError):
                await fd.writev([])

    run(main)


def test_it_is_not_mixed_with_other_writes(run):
    async def main():
        with pair() as (a, b):
            size = 1 << 18
            writers = [
                gopoll.go(a.writev, [bytes([i]) * 1000] * (size // 1000) + [bytes([i]) * 144])
                if i % 2
                else gopoll.go(a.write, bytes([i]) * size)
                for i in range(6)
            ]
            got = bytearray()
            while len(got) < 6 * size:
                got += await b.read(1 << 18)
            blocks = sorted(got[at : at + size] for at in range(0, len(got), size))
            assert blocks == [bytes([i]) * size for i in range(6)]
            assert [await g for g in writers] == [size] * 6

    run(main)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_on_what_carries_messages_it_is_one_message(run, kind):
    async def main():
        ours, peer = socket.socketpair(socket.AF_UNIX, kind)
        with peer:
            fd = message(ours, "unixgram")
            assert await fd.writev([b"ab", b"", b"cd"]) == 4
            assert peer.recv(99) == b"abcd"
            if kind == socket.SOCK_DGRAM:
                assert await fd.writev([]) == 0
                assert peer.recv(99) == b""
            with pytest.raises(
                OpError, match=r"^writev unixgram: writev: message too long$"
            ) as caught:
                await fd.writev([b"x"] * 1025)
            assert (caught.value.errno, caught.value.written) == (errno.EMSGSIZE, 0)
            fd.close()

    run(main)


def test_a_write_that_never_waits_lets_the_others_run(run):
    """A13, in the middle of one operation: to /dev/null everything goes at once."""

    async def main():
        fd = AnyFD(os.open("/dev/null", os.O_WRONLY), "file", file=True)
        buffers = [bytes(1 << 16)] * 100_000
        turns = 0
        stop = False

        async def other():
            nonlocal turns
            while not stop:
                turns += 1
                await gopoll.gosched()

        counter = gopoll.go(other)
        assert await fd.writev(buffers[:20480]) == 20480 << 16
        assert turns >= 10, "these are 20 system calls, each more than a slice's worth"
        stop = True
        await counter
        long = gopoll.go(fd.writev, buffers[:20480])
        await gopoll.gosched()
        assert await fd.write(b"x") == 1, "it has queued, although nobody polls the descriptor"
        assert await long == 20480 << 16
        fd.close()

    run(main)


def test_it_leaves_no_reference_behind(run):
    async def main():
        with half_pair() as (fd, peer):
            data = bytearray(b"x" * 10)
            counts = []
            for how in ["whole", "cancel", "never"] * 3:
                before = sys.getrefcount(data), sys.getrefcount(fd)
                if how == "whole":
                    await fd.writev([data] * 5)
                    drain(peer)
                elif how == "cancel":
                    g = await parked(fd.writev, [bytes(8 << 20), data])
                    g.cancel()
                    with pytest.raises(Canceled):
                        await g
                    del g
                    drain(peer)
                else:
                    with pytest.warns(RuntimeWarning, match="^writev unix was never awaited$"):
                        fd.writev([data])
                gc.collect()
                counts.append((sys.getrefcount(data) - before[0], sys.getrefcount(fd) - before[1]))
            assert set(counts[3:]) == {(0, 0)}

    run(main, handoff=False)  # without a GIL, what another thread drops is counted later
