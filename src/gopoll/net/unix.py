"""Unix sockets: streams, datagrams and packets on paths of this machine or on abstract names.

Called by dial, listen and file; the connections by goroutines, close by any thread.
Go: net/unixsock.go, unixsock_posix.go (go1.27).
"""

from __future__ import annotations

import array
import errno
import functools
import os
import socket as _socket
import stat
import struct
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from gopoll.errors import AddrError, OpError, closed_error, op_error
from gopoll.net.addr import unix_sockaddr
from gopoll.net.checks import check_has, check_int
from gopoll.net.conn import FDPacketConn
from gopoll.net.listener import Listener
from gopoll.net.sock import F, Plan, socket
from gopoll.runtime.context import Context

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike, ReadableBuffer

__all__ = ["PeerCredentials", "UnixConn", "UnixListener", "unix_maker", "unix_socket"]

_SOTYPES = {
    "unix": _socket.SOCK_STREAM,
    "unixgram": _socket.SOCK_DGRAM,
    "unixpacket": _socket.SOCK_SEQPACKET,
}
_INT = struct.Struct("i")
_UCRED = struct.Struct("iii")
_SCM_MAX_FD = 253  # the kernel's, in one message
_SCM_PIDFD = 4  # not in the socket module yet
# What may come beside descriptors where SO_PASSCRED, SO_PASSSEC and SO_PASSPIDFD have been set.
_BESIDE = sum(map(_socket.CMSG_SPACE, (_UCRED.size, 256, _INT.size)))


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
    try:
        return await socket(ctx, net, _socket.AF_UNIX, sotype, 0, False, laddr, raddr, plan)
    except OpError as exc:
        if laddr is None or (exc.errno, exc.syscall) != (errno.EADDRINUSE, "bind"):
            raise
        raise op_error("", "", None, None, exc.err, hint=_taken(laddr), syscall="bind") from None


def _taken(path: str) -> str | None:
    """Return what to do about a path that is taken: a server that was killed leaves its own."""
    address = unix_sockaddr(path)
    try:
        if not stat.S_ISSOCK(os.lstat(address).st_mode):
            return "the file is no socket"
        # Of another kind than a server's, so that one that lives notices nothing.
        with _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM) as s:
            if s.connect_ex(address) == errno.ECONNREFUSED:
                return "nobody has it open any more: remove the file"
    except (OSError, ValueError):  # ValueError: it is abstract, and no file
        pass
    return None


class UnixConn(FDPacketConn):
    """A connection over a Unix socket: stream, datagrams or packets. Go: net.UnixConn."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def local_addr(self) -> str: ...

        @property
        def remote_addr(self) -> str | None: ...

    async def send_fds(self, data: ReadableBuffer, fds: Iterable[FileDescriptorLike]) -> int:
        """Send *data*, and copies of the descriptors *fds* with its first byte. An op.

        fds: numbers, or objects with fileno(); they stay the caller's, and must stay open until
        this is done. Returns the length of data, which must not be empty on a stream. Raises
        OpError: ETOOMANYREFS where too many are on their way already.
        """
        kept = _list_of(fds)  # what a generator makes must not be closed under way
        numbers = array.array("i", [fd if isinstance(fd, int) else fd.fileno() for fd in kept])
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, numbers)] if numbers else []
        return await self.sendmsg([data], rights)

    async def recv_fds(self, n: int, maxfds: int) -> tuple[bytes, list[int]]:
        """Read at most *n* bytes and at most *maxfds* descriptors that came with them. An op.

        The descriptors are closed on exec, and the caller's to close; what SO_PASSCRED and its kin
        bring beside them is left out. Where some are lost, for more came than maxfds or no more may
        be open, those that came are closed and OpError (EMFILE) is raised; the bytes are gone.
        recvmsg shows everything.
        """
        check_int("maxfds", maxfds, 0, _SCM_MAX_FD)
        room = _BESIDE + _socket.CMSG_LEN(maxfds * _INT.size)
        data, messages, flags, _ = await self.recvmsg(n, room)
        try:
            fds = _sent_in(messages, _socket.SCM_RIGHTS)
            beside = _sent_in(messages, _SCM_PIDFD)
            if flags & _socket.MSG_CTRUNC or len(fds) > maxfds:
                hint = f"more than maxfds={maxfds} came, or RLIMIT_NOFILE is reached"
                ends = self.network, self.local_addr, self.remote_addr
                raise op_error("read", *ends, errno.EMFILE, hint=hint)
            result = data, fds
        except BaseException:  # out of memory too: nobody else knows of them
            for fd in _sent_in(messages, _socket.SCM_RIGHTS, _SCM_PIDFD):
                os.close(fd)
            raise
        for fd in beside:
            os.close(fd)
        return result

    def peer_credentials(self) -> PeerCredentials:
        """Return process, user and group of who made the other end. Raises OpError.

        They are those of the moment when the peer connected or began to listen (SO_PEERCRED);
        without a peer pid is 0 and uid and gid are -1.
        """
        found: list[bytes] = []
        self._set_option(
            lambda s: found.append(
                s.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED.size)
            ),
            op="get",
        )
        return PeerCredentials(*_UCRED.unpack(found[0]))


def _sent_in(messages: Iterable[tuple[int, int, bytes]], *kinds: int) -> list[int]:
    """Return the descriptors of *kinds* that recvmsg has brought in *messages*."""
    return [
        fd
        for level, kind, content in messages
        if level == _socket.SOL_SOCKET and kind in kinds
        for (fd,) in _INT.iter_unpack(content)
        if fd >= 0  # else the errno for which there is none: of a pidfd, where there is no room
    ]


class PeerCredentials(NamedTuple):
    """Who is at the other end of a Unix socket."""

    pid: int
    uid: int
    gid: int


def _list_of(fds: Iterable[FileDescriptorLike]) -> list[FileDescriptorLike]:
    if isinstance(fds, (str, bytes)) or not isinstance(fds, Iterable):
        raise TypeError(
            f"fds must be several descriptors, such as a list, not {type(fds).__name__}"
        )
    kept = list(fds)
    for fd in kept:
        if isinstance(fd, bool) or not isinstance(fd, int):
            check_has("fds", fd, ("fileno",), "numbers or objects with fileno()")
    return kept


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
        self._pid = os.getpid()
        self._file: tuple[str, tuple[int, int] | None] | None = None
        self._unlink: list[tuple[str, tuple[int, int] | None]] = []  # emptied by the first close
        super().__init__(sysfd, network, **kinds)  # last: what fails here leaves the descriptor

    if TYPE_CHECKING:

        @property
        def addr(self) -> str: ...

        def __anext__(self) -> Awaitable[UnixConn]: ...

    def accept(self) -> Awaitable[UnixConn]:
        """Wait for a connection and return it; see Listener. Go: UnixListener.accept."""
        return self.accept_conn(UnixConn, stream=self.network == "unix")

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

    def detach(self) -> int:
        """Give the descriptor up, see FD; the path stays, for it listens on."""
        fd = super().detach()
        self._unlink.clear()
        return fd


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
