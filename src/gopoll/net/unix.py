"""Unix sockets: streams, datagrams and packets on paths of this machine or on abstract names.

Called by dial, listen and file; the connections by goroutines, close by any thread.
Go: net/unixsock.go, unixsock_posix.go (go1.27).
"""

from __future__ import annotations

import functools
import os
import socket as _socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from gopoll.errors import AddrError, closed_error
from gopoll.net.conn import FDConn, PacketConn
from gopoll.net.listener import Listener
from gopoll.net.sock import F, Plan, socket
from gopoll.runtime.context import Context

__all__ = ["UnixConn", "UnixListener", "unix_maker", "unix_socket"]

_SOTYPES = {
    "unix": _socket.SOCK_STREAM,
    "unixgram": _socket.SOCK_DGRAM,
    "unixpacket": _socket.SOCK_SEQPACKET,
}


async def unix_socket(
    ctx: Context, net: str, laddr: str | None, raddr: str | None, mode: str, plan: Plan[F]
) -> F:
    """Return a connected (mode "dial") or bound (mode "listen") FD. Go: unixSocket.

    To dial, "" is no address; to listen on it is to be given an abstract name.
    """
    sotype = _SOTYPES[net]
    if mode == "dial":
        laddr, raddr = laddr or None, raddr or None
        if raddr is None:
            raise AddrError("", "", None, "missing address")
    return await socket(ctx, net, _socket.AF_UNIX, sotype, 0, False, laddr, raddr, plan)


class UnixConn(FDConn, PacketConn):
    """A connection over a Unix socket: stream, datagrams or packets. Go: net.UnixConn."""

    __slots__ = ()


def unix_maker(network: str) -> Callable[[int, str], UnixConn]:
    """Return what makes a connection on *network* of a descriptor and the network."""
    return functools.partial(
        UnixConn, stream=network == "unix", zero_read_is_eof=network != "unixgram"
    )


class UnixListener(Listener):
    """A listener on a Unix socket, stream or packets. Go: net.UnixListener.

    The path that listen() made goes with the first close(), unless set_unlink_on_close(False)
    was said, another socket has taken its place, or this is a forked child of who listened.
    """

    __slots__ = ("_file", "_pid", "_unlink")

    def __init__(self, sysfd: int, network: str, **kinds: Any) -> None:
        super().__init__(sysfd, network, **kinds)
        self._pid = os.getpid()
        self._file: tuple[str, tuple[int, int] | None] | None = None
        self._unlink: list[tuple[str, tuple[int, int] | None]] = []  # emptied by the first close

    if TYPE_CHECKING:

        async def __anext__(self) -> UnixConn: ...

    async def accept(self) -> UnixConn:
        """Wait for a connection and return it; see Listener. Go: UnixListener.accept."""
        return await self._accept(unix_maker(self.network))

    def set_unlink_on_close(self, unlink: bool) -> None:
        """Say whether close() removes the path: it does after listen(), not after from_fd().

        An abstract name has no path. Raises ClosedError. Go: UnixListener.SetUnlinkOnClose.
        """
        if not isinstance(unlink, bool):
            raise TypeError(f"unlink must be a bool, not {type(unlink).__name__}")
        if self.is_closed:
            raise closed_error("set", self.network, None, self.local_addr)
        if self._file is None:
            self._file = _file_of(self.local_addr)
        self._unlink[:] = [self._file] if unlink and self._file is not None else []

    def close(self) -> Awaitable[None]:
        """Stop listening and remove the path; a second call does nothing. Any thread.

        Waiting accepts wake with ClosedError; connections nobody has accepted are reset.
        """
        try:
            path, inode = self._unlink.pop()  # one thread gets it
        except IndexError:
            return super().close()
        # Before the descriptor goes, as in Go: afterwards the path may be somebody else's.
        if self._pid == os.getpid():
            _remove(path, inode)
        return super().close()


def _file_of(addr: str | None) -> tuple[str, tuple[int, int] | None] | None:
    """Return the path of *addr*, good after a chdir too, and its inode; None if it has none."""
    if not addr or addr.startswith("@"):
        return None
    try:
        path = os.path.abspath(addr)
    except OSError:  # the working directory has been removed
        path = addr
    return path, _inode_of(path)


def _inode_of(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _remove(path: str, inode: tuple[int, int] | None) -> None:
    """Remove *path* if it is the same file still; Go does not look, and removes a successor's."""
    if inode is None or _inode_of(path) != inode:
        return
    try:
        os.unlink(path)
    except OSError:
        pass
