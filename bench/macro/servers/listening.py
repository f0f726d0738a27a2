"""What all echo servers in Python share: the listening socket, and how one of them is started.

Imported by the servers beside this file. `python SERVER NAME [PORT]` serves on 127.0.0.1 and prints
the port, a line of its own, when it listens; it goes on until it is killed. What may follow is in
beside.py.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable

import beside

BACKLOG = 4096  # for everybody: a queue that overflows would measure the kernel's retries
READ_BYTES = 65536  # at a time, for everybody who can be told


def port() -> int:
    """Return the port asked for: 0, any, unless the command line has one."""
    return int(sys.argv[2]) if len(sys.argv) > 2 else 0


def listen(*, blocking: bool = False) -> socket.socket:
    """Return a socket that listens. NODELAY passes to what is accepted, at no cost."""
    sock = socket.create_server(("127.0.0.1", port()), backlog=BACKLOG)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(blocking)
    return sock


def announce(address: tuple[str, int]) -> None:
    """Say where we listen."""
    print(address[1], flush=True)


def start(servers: dict[str, Callable[[], object]]) -> None:
    """Run the server that the command line names."""
    if len(sys.argv) < 2 or sys.argv[1] not in servers:
        sys.exit(f"usage: {sys.argv[0]} {'|'.join(servers)} [PORT [BESIDE [CERTIFICATE]]]")
    beside.hog()
    servers[sys.argv[1]]()
