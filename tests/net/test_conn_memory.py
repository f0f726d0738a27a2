"""What reads and writes cost in memory, and a write larger than the kernel takes at once."""

import gc
import mmap
import sys
import tracemalloc

from gopoll.runtime.goroutine import go
from net.tools import pair

MIB = 1 << 20


async def echo(conn, buffer):
    """Send back what comes, until the end, by way of *buffer*."""
    view = memoryview(buffer)
    while n := await conn.readinto(buffer):
        await conn.write(view[:n])


async def round_trips(conn, message, buffer, n):
    """Send *message* and take it back *n* times; each read waits, at least at first."""
    view = memoryview(buffer)
    for _ in range(n):
        writing = await conn.write(message)
        got = 0
        while got < writing:
            got += await conn.readinto(view[got:])


def test_reading_and_writing_leaves_no_memory_behind(run):
    """Row 84: where Go allocates nothing, an awaitable is made here, and nothing of it is left."""
    counts = []

    async def main():
        async with pair() as (a, b):
            echoing = go(echo, b, bytearray(512))
            buffer, message = bytearray(512), bytes(512)
            for _ in range(4):
                await round_trips(a, message, buffer, 1000)
                gc.collect()
                counts.append(sys.getallocatedblocks())
            a.close_write()
            await echoing

    run(main, procs=1, handoff=False)
    assert counts[-1] - counts[1] < 200, counts  # 2,000 round trips are 8,000 operations


def test_a_read_into_a_buffer_and_a_write_of_one_copy_nothing(run):
    """Row 84: what passes through is megabytes, what Python allocates meanwhile is not."""
    peaks = []

    async def main():
        async with pair() as (a, b):
            echoing = go(echo, b, bytearray(MIB))
            message, buffer = bytes(MIB), bytearray(MIB)
            await round_trips(a, message, buffer, 2)
            tracemalloc.start()
            try:
                await round_trips(a, message, buffer, 20)
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
            a.close_write()
            await echoing

    run(main, procs=1, handoff=False)
    assert peaks[0] < MIB / 4


def test_a_write_of_more_than_the_kernel_takes_at_once_arrives_whole(run):
    """Row 83, scaled: Go sends 5 GB, here a little more than one write(2) is given."""
    size = (1 << 30) + MIB
    marks = {0: b"f", (1 << 30) - 1: b"e", 1 << 30: b"n", size - 1: b"l"}

    async def send(conn):
        # Private and never written to but for the marks: it has no memory of its own.
        with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as data:
            for at, mark in marks.items():
                data[at : at + 1] = mark
            assert await conn.write(data) == size
        conn.close_write()

    async def main():
        async with pair() as (a, b):
            sending = go(send, a)
            got, buffer = 0, bytearray(4 * MIB)
            seen = {}
            while n := await b.readinto(buffer):
                for at in marks:
                    if got <= at < got + n:
                        seen[at] = bytes(buffer[at - got : at - got + 1])
                got += n
            await sending
        assert (got, seen) == (size, marks)

    run(main)
