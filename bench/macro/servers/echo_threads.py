"""An echo server of plain threads: one for each connection, blocking calls. Started by measure.py.

Stacks of 256 KiB instead of 8 MiB, of which only the pages in use count, so that there can be
10,000.
"""

import contextlib
import threading
import time

import beside
from listening import READ_BYTES, announce, listen, start


def echo(sock):
    """Echo until the end."""
    with sock, contextlib.suppress(OSError):
        while data := sock.recv(READ_BYTES):
            sock.sendall(data)
            del data  # not kept while it waits


def block():
    """Block, over and over, in a thread as any other here."""
    while True:
        beside.block()
        time.sleep(beside.REST_SECONDS)


def serve():
    """Accept on the main thread."""
    threading.stack_size(256 * 1024)
    if beside.what() in beside.BLOCKING:
        threading.Thread(target=block, daemon=True).start()
    listener = listen(blocking=True)
    announce(listener.getsockname())
    while True:
        sock, _ = listener.accept()
        if beside.what() == "deadlines":
            sock.settimeout(beside.DEADLINE_SECONDS)  # of each call
        threading.Thread(target=echo, args=(sock,), daemon=True).start()


if __name__ == "__main__":
    start({"threads": serve})
