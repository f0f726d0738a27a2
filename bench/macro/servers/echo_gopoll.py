"""gopoll's echo servers: read and write, readinto and write, and serve(). Started by measure.py.

As shipped: run() with its hand-off and its sysmon. GOMAXPROCS=1 comes from the runner, as for Go.
"""

import contextlib

from listening import READ_BYTES, announce, port, start

import gopoll


async def listen():
    """Listen as the others do; the backlog is the system's own maximum."""
    listener = await gopoll.listen("tcp", f"127.0.0.1:{port()}")
    announce(listener.addr)
    return listener


async def echo(conn):
    """Echo with a new bytes object for each message."""
    with contextlib.suppress(OSError):
        async with conn:
            while data := await conn.read():
                await conn.write(data)


async def echo_into(conn):
    """Echo out of one buffer, which costs each connection 64 KiB while it is idle too."""
    buffer = memoryview(bytearray(READ_BYTES))
    with contextlib.suppress(OSError):
        async with conn:
            while n := await conn.readinto(buffer):
                await conn.write(buffer[:n])


async def echo_handler(conn):
    """Echo; serve() closes, and logs errors."""
    with contextlib.suppress(OSError):
        while data := await conn.read():
            await conn.write(data)


def accepting(handler):
    """Return a server that starts a goroutine of *handler* for each connection."""

    async def main():
        async with await listen() as listener:
            async for conn in listener:
                gopoll.go(handler, conn)

    return lambda: gopoll.run(main)


async def serve():
    """Leave the connections to serve()."""
    await gopoll.serve(await listen(), echo_handler)


if __name__ == "__main__":
    start(
        {
            "gopoll": accepting(echo),
            "gopoll-readinto": accepting(echo_into),
            "gopoll-serve": lambda: gopoll.run(serve),
        }
    )
