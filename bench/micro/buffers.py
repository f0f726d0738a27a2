"""Sides of the group on parsing: lines and exact counts out of a buffer.

Called by bench/test_conn.py. A message is four lines and a body of 64 bytes, as a request of HTTP
or Redis is; 256 of them come in one piece, and the system calls are few beside the parsing.
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


PARSE = (on_gopoll(gopoll_parse), *on_loops(stream_parse, LOOPS, "-streams"))
