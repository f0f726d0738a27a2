"""trio's echo server: a task for each connection, receive_some and send_all. Started by measure.py.

serve_listeners and SocketStream as shipped, with their checkpoints; they set NODELAY themselves.
"""

import trio
from listening import BACKLOG, READ_BYTES, announce, port, start


async def echo(stream):
    """Echo until the end; serve_listeners closes the stream."""
    try:
        while data := await stream.receive_some(READ_BYTES):
            await stream.send_all(data)
    except trio.BrokenResourceError:
        pass


async def main():
    """Serve on 127.0.0.1."""
    listeners = await trio.open_tcp_listeners(port(), host="127.0.0.1", backlog=BACKLOG)
    announce(listeners[0].socket.getsockname())
    await trio.serve_listeners(echo, listeners)


if __name__ == "__main__":
    start({"trio": lambda: trio.run(main)})
