"""What the tests of the net package share: pairs, peers that misbehave, and ways to wait for them.

Called by tests, in a goroutine unless it says otherwise. All traffic stays on loopback.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from gopoll.net.conn import Conn
from gopoll.net.dial import Dialer
from gopoll.net.file import from_socket
from gopoll.net.ipsock import supports_ipv4_map, supports_ipv6
from gopoll.net.listen import Listener, listen
from gopoll.runtime.goroutine import Goroutine, gosched

BIG = bytes(32 << 20)  # more than a connection's buffers take while nobody reads

needs_ipv6 = pytest.mark.skipif(not supports_ipv6(), reason="no IPv6 on this machine")
needs_ipv4_map = pytest.mark.skipif(
    not (supports_ipv6() and supports_ipv4_map()), reason="no IPv6 on this machine"
)


async def parked(*goroutines: Goroutine[Any], reason: str | None = None) -> None:
    """Let the others run until each of *goroutines* is parked, for *reason* if given."""
    for g in goroutines:
        while g.state != "waiting" or (reason is not None and g.wait_reason != reason):
            assert not g.done, f"{g!r} has ended instead of parking"
            await gosched()


async def until(condition: Callable[[], object]) -> None:
    """Let the others run until *condition* holds; pytest-timeout bounds it."""
    while not condition():
        await gosched()


@contextlib.asynccontextmanager
async def local_listener(address: str = "127.0.0.1:0", **config: Any) -> AsyncIterator[Listener]:
    """Listen on loopback for the length of a block."""
    async with await listen("tcp", address, **config) as listener:
        yield listener


@contextlib.asynccontextmanager
async def pair(**dialer: Any) -> AsyncIterator[tuple[Conn, Conn]]:
    """Connect two ends: the one that dialled and the one that was accepted."""
    async with local_listener() as listener:
        async with await Dialer(**dialer).dial("tcp", listener.addr) as client:
            async with await listener.accept() as server:
                yield client, server


@contextlib.asynccontextmanager
async def unix_pair() -> AsyncIterator[tuple[Conn, Conn]]:
    """Connect two ends over a Unix socket: the one that dialled and the one that was accepted."""
    with short_folder() as folder:
        path = os.path.join(folder, "s")
        async with await listen("unix", path) as listener:
            async with await Dialer().dial("unix", path) as client:
                async with await listener.accept() as server:
                    yield client, server


@contextlib.asynccontextmanager
async def socket_pair() -> AsyncIterator[tuple[Conn, Conn]]:
    """Take both ends of a socketpair, which have no names."""
    a, b = (from_socket(s) for s in socket.socketpair())
    assert isinstance(a, Conn)
    assert isinstance(b, Conn)
    async with a, b:
        yield a, b


@contextlib.contextmanager
def short_folder() -> Iterator[str]:
    """Give a folder whose name leaves room for the path of a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="gp") as folder:
        yield folder


@contextlib.contextmanager
def full_backlog() -> Iterator[tuple[str, int]]:
    """Give the address of a listener whose queue is full: it answers no further SYN."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        # A queue of 0 holds one connection.
        stack.enter_context(socket.create_connection(listener.getsockname(), timeout=60))
        yield listener.getsockname()


def closed_port(host: str = "127.0.0.1") -> tuple[str, int]:
    """Return an address that nobody listens on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as s:
        s.bind((host, 0))
        return s.getsockname()[:2]


def open_fds() -> dict[int, str]:
    """Return every open descriptor with what it is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def sockets() -> set[str]:
    """Return the sockets that this process has open."""
    return {text for text in open_fds().values() if text.startswith("socket:")}


def option(conn: Any, level: int, name: int) -> int:
    """Return a socket option of a connection or listener."""
    values = []
    conn.raw_control(lambda fd: values.append(_getsockopt(fd, level, name)))
    return values[0]


def _getsockopt(fd: int, level: int, name: int) -> int:
    with socket.socket(fileno=os.dup(fd)) as s:
        return s.getsockopt(level, name)


def reset(s: socket.socket) -> None:
    """Close a plain socket so that its peer gets a reset."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    s.close()
