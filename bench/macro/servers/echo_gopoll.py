"""gopoll's echo servers: read and write, readinto and write, serve(), splice, TLS, and as a guest.

Started by measure.py.

As shipped: run() with its hand-off and its sysmon. GOMAXPROCS=1 comes from the runner, as for Go.
-guest: the same goroutines in a loop of asyncio's or uvloop's; -tasks: that loop's tasks instead.
"""

import contextlib

import beside
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
                del data  # not kept while it waits


async def echo_keep(conn):
    """The same as one writes it: a variable keeps the last message until the next has come."""
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


async def echo_splice(conn):
    """Echo by way of a pipe in the kernel."""
    with contextlib.suppress(OSError):
        async with conn:
            await conn.splice_from(conn)


async def echo_in_time(conn):
    """Echo as echo() does; each read has a deadline."""
    with contextlib.suppress(OSError):
        async with conn:
            conn.set_read_timeout(beside.DEADLINE_SECONDS)
            while data := await conn.read():
                await conn.write(data)
                del data
                conn.set_read_timeout(beside.DEADLINE_SECONDS)


async def block():
    """Block, over and over."""
    while True:
        if beside.what() == "syscall":
            with gopoll.syscall():
                beside.block()
        else:
            beside.block()
        await gopoll.sleep(beside.REST_SECONDS)


async def echo_handler(conn):
    """Echo; serve() closes, and logs errors."""
    with contextlib.suppress(OSError):
        while data := await conn.read():
            await conn.write(data)
            del data


def over_tls(listener):
    """Return a listener whose connections speak TLS: the first read of each shakes hands."""
    import ssl  # here, since it would be seen in the memory of the others

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(beside.certificate())
    return gopoll.tls.listener(listener, context)


def accepting(handler, wrap=lambda listener: listener):
    """Return a server that starts a goroutine of *handler* for each connection."""

    async def main():
        async with wrap(await listen()) as listener:
            if beside.what() in beside.BLOCKING:
                gopoll.go(block)
            async for conn in listener:
                gopoll.go(handler, conn)

    return lambda: gopoll.run(main)


async def serve():
    """Leave the connections to serve()."""
    await gopoll.serve(await listen(), echo_handler)


def in_loop(module, tasks):
    """Return a server inside the loop of *module*: a goroutine, or a task, for each connection."""

    async def main():
        import asyncio

        from gopoll.embed import aio

        async with aio.attach(), await listen() as listener:
            kept = set()
            async for conn in listener:
                if tasks:
                    task = asyncio.create_task(echo(conn))
                    kept.add(task)
                    task.add_done_callback(kept.discard)
                else:
                    gopoll.go(echo, conn)

    def serve_there():
        import asyncio
        import importlib

        with asyncio.Runner(loop_factory=importlib.import_module(module).new_event_loop) as runner:
            runner.run(main())

    return serve_there


if __name__ == "__main__":
    plain = echo_in_time if beside.what() == "deadlines" else echo
    start(
        {
            "gopoll": accepting(plain),
            "gopoll-keep": accepting(echo_keep),
            "gopoll-readinto": accepting(echo_into),
            "gopoll-serve": lambda: gopoll.run(serve),
            "gopoll-splice": accepting(echo_splice),
            "gopoll-guest-asyncio": in_loop("asyncio", tasks=False),
            "gopoll-guest-uvloop": in_loop("uvloop", tasks=False),
            "gopoll-tasks-asyncio": in_loop("asyncio", tasks=True),
            "gopoll-tasks-uvloop": in_loop("uvloop", tasks=True),
            "gopoll-tls": accepting(plain, over_tls),
        }
    )
