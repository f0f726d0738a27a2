"""Registered descriptors for the tests of FD and of the scheduler: socket pairs and pipes.

Called by tests, in a goroutine: an FD belongs to the poller of the scheduler that runs.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

from gopoll._fd import FD
from gopoll.runtime._sched import current_poller

MORE_THAN_FITS = bytes(8 << 20)  # what no socket buffer takes while nobody reads


def adopt(sock: socket.socket, network: str = "unix", **kind: bool) -> FD:
    """Take a plain socket over into a registered FD."""
    sock.setblocking(False)
    fd = FD(sock.detach(), network, **kind)
    fd.init(current_poller())
    return fd


@contextlib.contextmanager
def pair() -> Iterator[tuple[FD, FD]]:
    """Give two connected stream FDs, closed in the end."""
    with contextlib.ExitStack() as stack:
        a, b = (adopt(s) for s in socket.socketpair())
        stack.callback(close_quietly, a)
        stack.callback(close_quietly, b)
        yield a, b


@contextlib.contextmanager
def half_pair() -> Iterator[tuple[FD, socket.socket]]:
    """Give a registered FD and its peer, a plain socket that does not block."""
    ours, peer = socket.socketpair()
    with peer:
        peer.setblocking(False)
        fd = adopt(ours)
        try:
            yield fd, peer
        finally:
            close_quietly(fd)


@contextlib.contextmanager
def pipe() -> Iterator[tuple[FD, FD]]:
    """Give the reading and the writing end of a pipe as files."""
    with contextlib.ExitStack() as stack:
        ends = []
        for n in os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC):
            fd = FD(n, "pipe", file=True)
            fd.init(current_poller())
            stack.callback(close_quietly, fd)
            ends.append(fd)
        yield ends[0], ends[1]


def close_quietly(fd: FD) -> None:
    """Close unless it is closed; FD itself refuses a second close."""
    if not fd.is_closed:
        fd.close()


def drain(sock: socket.socket) -> bytes:
    """Take everything that has come in."""
    out = []
    with contextlib.suppress(BlockingIOError):
        while data := sock.recv(1 << 20):
            out.append(data)
    return b"".join(out)
