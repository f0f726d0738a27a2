"""Sides of the groups on buffers: what is in them already, and a line that has yet to come.

Called by bench/test_conn.py. To parse, a message is four lines and a body of 64 bytes, as a request
of HTTP or Redis is; 256 of them come in one piece, and the system calls are few beside the parsing.
"""

from __future__ import annotations

import asyncio

import gopoll
from bench.micro.contest import now_ns
from bench.micro.rivals import on_gopoll, on_loops
from bench.micro.trips import gopoll_unix_pair, unix_pair

LINE, BODY = b"a line of some text\r\n", bytes(64)
MESSAGE = LINE * 4 + BODY
PIECE = 256
LOOPS = ("asyncio", "uvloop", "rloop")


async def gopoll_parse(count):
    """Reader on a connection."""
    ours, theirs = await gopoll_unix_pair()
    async with ours, theirs:
        reader = gopoll.Reader(theirs)
        took = 0
        for _ in range(-(-count // PIECE)):
            sender = gopoll.go(ours.write, MESSAGE * PIECE)
            began = now_ns()
            for _ in range(PIECE):
                for _ in range(4):
                    await reader.read_line()
                body = await reader.read_exactly(len(BODY))
            took += now_ns() - began
            await sender
    assert body == BODY
    return took / (-(-count // PIECE) * PIECE)


async def stream_parse(count):
    """StreamReader on the same."""
    ends = [await asyncio.open_connection(sock=sock) for sock in unix_pair()]
    (_, writer), (reader, other) = ends
    took = 0
    for _ in range(-(-count // PIECE)):
        writer.write(MESSAGE * PIECE)
        began = now_ns()
        for _ in range(PIECE):
            for _ in range(4):
                await reader.readline()
            body = await reader.readexactly(len(BODY))
        took += now_ns() - began
    for end in (writer, other):
        end.close()
        await end.wait_closed()
    assert body == BODY
    return took / (-(-count // PIECE) * PIECE)


async def gopoll_lines(count):
    """A line to and fro: Reader and a plain write."""
    ours, theirs = await gopoll_unix_pair()
    async with ours, theirs:

        async def answer():
            reader = gopoll.Reader(theirs)
            for _ in range(count):
                await theirs.write(await reader.read_line())

        g = gopoll.go(answer)
        reader = gopoll.Reader(ours)
        began = now_ns()
        for _ in range(count):
            await ours.write(LINE)
            line = await reader.read_line()
        took = now_ns() - began
        await g
    assert line == LINE
    return took / count


async def stream_lines(count):
    """The same with StreamReader and StreamWriter."""
    ends = [await asyncio.open_connection(sock=sock) for sock in unix_pair()]
    (reader, writer), (their_reader, their_writer) = ends

    async def answer():
        for _ in range(count):
            their_writer.write(await their_reader.readline())
            await their_writer.drain()

    task = asyncio.get_running_loop().create_task(answer())
    began = now_ns()
    for _ in range(count):
        writer.write(LINE)
        await writer.drain()
        line = await reader.readline()
    took = now_ns() - began
    await task
    for end in (writer, their_writer):
        end.close()
        await end.wait_closed()
    assert line == LINE
    return took / count


PARSE = (on_gopoll(gopoll_parse), *on_loops(stream_parse, LOOPS, "-streams"))
LINES = (on_gopoll(gopoll_lines), *on_loops(stream_lines, LOOPS, "-streams"))
