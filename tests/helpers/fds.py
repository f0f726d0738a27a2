"""Registered descriptors for the tests of FD and of the scheduler: socket pairs and pipes.

Called by tests, in a goroutine: an FD belongs to the poller of the scheduler that runs.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any

from gopoll import Poller, _fdcopy, _fdmsg, _fdraw
from gopoll._fd import FD
from gopoll.errors import Canceled, ClosedError
from gopoll.runtime._sched import current_poller
from gopoll.runtime.goroutine import Goroutine, go, sleep
from plugins.guard import wait_parked

MORE_THAN_FITS = bytes(8 << 20)  # what no socket buffer takes while nobody reads


class AnyFD(FD):
    """An FD with every operation there is; the net package's classes have some of them each."""

    read_from = _fdmsg.read_from
    readinto_from = _fdmsg.readinto_from
    recvmsg = _fdmsg.recvmsg
    write_to = _fdmsg.write_to
    sendmsg = _fdmsg.sendmsg
    writev = _fdcopy.writev
    sendfile = _fdcopy.sendfile
    splice_from = _fdcopy.splice_from
    raw_read = _fdraw.raw_read
    raw_write = _fdraw.raw_write


def adopt(sock: socket.socket, network: str = "unix", **kind: bool) -> AnyFD:
    """Take a plain socket over into a registered FD."""
    sock.setblocking(False)
    fd = AnyFD(sock.detach(), network, **kind)
    fd.init(current_poller())
    return fd


def message(sock: socket.socket, network: str, **kind: bool) -> AnyFD:
    """Take a socket that carries messages over; adopt is for streams."""
    kind.setdefault("zero_read_is_eof", sock.type == socket.SOCK_SEQPACKET)
    return adopt(sock, network, stream=False, **kind)


def tcp_pair() -> tuple[AnyFD, socket.socket]:
    """Return a registered TCP FD and its peer, a plain socket that blocks."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    return adopt(ours, "tcp"), peer


def reset(peer: socket.socket) -> None:
    """Close *peer* so that the other end is reset."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()


# What ends an operation that waits, and the error of it.
CUTS = {
    "deadline": TimeoutError,
    "close": ClosedError,
    "cancel": Canceled,
    "reset": ConnectionError,
}


def cut(how: str, fd: FD, g: Goroutine[Any], peer: socket.socket) -> None:
    """End the operation that *g* waits in on *fd*, in one of the ways of CUTS."""
    match how:
        case "deadline":
            fd.set_timeout(0.001)
        case "close":
            fd.close()
        case "cancel":
            g.cancel("enough")
        case "reset":
            reset(peer)


@contextlib.contextmanager
def pair() -> Iterator[tuple[AnyFD, AnyFD]]:
    """Give two connected stream FDs, closed in the end."""
    with contextlib.ExitStack() as stack:
        a, b = (adopt(s) for s in socket.socketpair())
        stack.callback(close_quietly, a)
        stack.callback(close_quietly, b)
        yield a, b


@contextlib.contextmanager
def half_pair() -> Iterator[tuple[AnyFD, socket.socket]]:
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
def registered(poller: Poller) -> Iterator[tuple[FD, socket.socket]]:
    """Give an FD on *poller*, outside any goroutine, and its peer, which blocks."""
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    with peer:
        fd = FD(ours.detach(), "unix")
        fd.init(poller)
        yield fd, peer
        close_quietly(fd)


@contextlib.contextmanager
def pipe() -> Iterator[tuple[AnyFD, AnyFD]]:
    """Give the reading and the writing end of a pipe as files."""
    with contextlib.ExitStack() as stack:
        ends = []
        for n in os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC):
            fd = AnyFD(n, "pipe", file=True)
            fd.init(current_poller())
            stack.callback(close_quietly, fd)
            ends.append(fd)
        yield ends[0], ends[1]


def close_quietly(fd: FD) -> None:
    """Close unless it is closed; FD itself refuses a second close."""
    if not fd.is_closed:
        fd.close()


def drain(from_: socket.socket | FD) -> bytes:
    """Take everything that has come in, of a socket or of a file's descriptor."""
    out = []
    with contextlib.suppress(BlockingIOError):
        while data := os.read(from_.fileno(), 1 << 20):
            out.append(data)
    return b"".join(out)


async def parked(fn: Callable[..., Any], *args: Any) -> Goroutine[Any]:
    """Start fn(*args) and return its goroutine once it waits: so the order of several is known."""
    g = go(fn, *args)
    await wait_parked(g)
    return g


async def still_works(fd: FD, peer: socket.socket) -> None:
    """The lock of both directions is free and nothing is stuck."""
    peer.send(b"z")
    assert await fd.read(1) == b"z"
    assert await fd.write(b"z") == 1
    assert peer.recv(9) == b"z"


async def stuck(g: Goroutine[Any], feeder: socket.socket) -> None:
    """Wait until *g* waits to write: it waits, and *feeder*, which it reads from, is full.

    That nothing moves is seen by looking again and again.
    """
    still = 0
    while still < 10:
        await sleep(0.002)
        full = not select.select([], [feeder], [], 0)[1]
        still = still + 1 if full and g.state == "waiting" else 0
