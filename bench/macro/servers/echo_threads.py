"""An echo server of plain threads: one for each connection, blocking calls. Started by measure.py.

Stacks of 256 KiB instead of 8 MiB, of which only the pages in use count, so that there can be
10,000.
"""

import contextlib
import threading

from listening import READ_BYTES, announce, listen, start


def echo(sock):
    """Echo until the end."""
    with sock, contextlib.suppress(OSError):
        while data := sock.recv(READ_BYTES):
            sock.sendall(data)


def serve():
    """Accept on the main thread."""
    threading.stack_size(256 * 1024)
    listener = listen(blocking=True)
    announce(listener.getsockname())
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=echo, args=(sock,), daemon=True).start()


if __name__ == "__main__":
    start({"threads": serve})
