"""gevent's echo server: a greenlet for each connection, recv and sendall. Started by measure.py.

StreamServer as shipped, which accepts up to 100 at a time; the default loop (libev), no monkey
patching, because nothing here uses the standard library's sockets.
"""

import contextlib

from gevent import socket
from gevent.server import StreamServer
from listening import READ_BYTES, announce, listen, start


def echo(sock, address):
    """Echo until the end; StreamServer closes the socket."""
    with contextlib.suppress(OSError):
        while data := sock.recv(READ_BYTES):
            sock.sendall(data)


def serve():
    """Serve on a socket with the backlog and the NODELAY of the others."""
    listener = listen()
    announce(listener.getsockname())
    StreamServer(socket.socket(fileno=listener.detach()), echo).serve_forever()


if __name__ == "__main__":
    start({"gevent": serve})
