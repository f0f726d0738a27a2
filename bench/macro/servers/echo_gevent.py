"""gevent's echo server: a greenlet for each connection, recv and sendall. Started by measure.py.

StreamServer as shipped, which accepts up to 100 at a time; the default loop (libev), no monkey
patching, because nothing here uses the standard library's sockets.
"""

import contextlib

import beside
import gevent
from gevent import socket
from gevent.server import StreamServer
from listening import READ_BYTES, announce, listen, start


def echo(sock, address):
    """Echo until the end; StreamServer closes the socket."""
    with contextlib.suppress(OSError):
        while data := sock.recv(READ_BYTES):
            sock.sendall(data)
            del data  # not kept while it waits


def echo_in_time(sock, address):
    """The same; each read has a deadline, a gevent timer of the socket's own."""
    sock.settimeout(beside.DEADLINE_SECONDS)
    echo(sock, address)


def block():
    """Block, over and over."""
    while True:
        if beside.what() == "syscall":
            gevent.get_hub().threadpool.apply(beside.block)
        else:
            beside.block()
        gevent.sleep(beside.REST_SECONDS)


def serve():
    """Serve on a socket with the backlog and the NODELAY of the others."""
    if beside.what() in beside.BLOCKING:
        gevent.spawn(block)
    handler = echo_in_time if beside.what() == "deadlines" else echo
    listener = listen()
    announce(listener.getsockname())
    StreamServer(socket.socket(fileno=listener.detach()), handler).serve_forever()


if __name__ == "__main__":
    start({"gevent": serve})
