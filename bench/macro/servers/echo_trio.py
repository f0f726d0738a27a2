"""trio's echo server: a task for each connection, receive_some and send_all. Started by measure.py.

serve_listeners and SocketStream as shipped, with their checkpoints; they set NODELAY themselves.
"""

import beside
import trio
from listening import BACKLOG, READ_BYTES, announce, port, start


async def echo(stream):
    """Echo until the end; serve_listeners closes the stream."""
    try:
        while data := await stream.receive_some(READ_BYTES):
            await stream.send_all(data)
            del data  # not kept while it waits
    except trio.BrokenResourceError:
        pass


async def echo_in_time(stream):
    """The same; each read has a deadline."""
    try:
        while True:
            with trio.fail_after(beside.DEADLINE_SECONDS):
                data = await stream.receive_some(READ_BYTES)
            if not data:
                break
            await stream.send_all(data)
            del data
    except (trio.BrokenResourceError, trio.TooSlowError):
        pass


async def block():
    """Block, over and over."""
    while True:
        if beside.what() == "syscall":
            await trio.to_thread.run_sync(beside.block)
        else:
            beside.block()
        await trio.sleep(beside.REST_SECONDS)


async def main():
    """Serve on 127.0.0.1."""
    handler = echo_in_time if beside.what() == "deadlines" else echo
    listeners = await trio.open_tcp_listeners(port(), host="127.0.0.1", backlog=BACKLOG)
    announce(listeners[0].socket.getsockname())
    async with trio.open_nursery() as nursery:
        if beside.what() in beside.BLOCKING:
            nursery.start_soon(block)
        await trio.serve_listeners(handler, listeners)


if __name__ == "__main__":
    start({"trio": lambda: trio.run(main)})
