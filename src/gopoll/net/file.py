"""Descriptors that somebody else has opened: sockets become connections, anything else a File.

Called by goroutines; what is made belongs to the scheduler of the caller.
Go: net/file.go, file_unix.go, os/file_unix.go (go1.27).
"""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import socket
import stat
import sys
from collections.abc import Callable
from typing import TypeVar

from gopoll._fd import FD
from gopoll.errors import OpError, op_error
from gopoll.net.conn import Conn, FDConn, TCPConn
from gopoll.net.listener import Listener, TCPListener
from gopoll.net.sock import local_name
from gopoll.net.sockopt import KeepAliveConfig, tune_tcp
from gopoll.net.udp import new_udp_conn
from gopoll.net.unix import UnixListener, unix_maker
from gopoll.runtime._sched import current_poller

__all__ = ["File", "from_fd", "from_socket", "open_fd"]

F = TypeVar("F", bound=FD)

_INET = (socket.AF_INET, socket.AF_INET6)
_UNIX_NETWORKS = {
    socket.SOCK_STREAM: "unix",
    socket.SOCK_DGRAM: "unixgram",
    socket.SOCK_SEQPACKET: "unixpacket",
}
_IPPROTO_MPTCP = 262


class File(FDConn):
    """A descriptor that is no socket of ours: a pipe, a terminal, an eventfd. Go: os.File."""

    __slots__ = ()

    def __repr__(self) -> str:
        state = " closed" if self.is_closed else ""
        return f"<File {self.local_addr}{state}>"


def from_fd(fd: int, *, dup: bool = False, exclusive: bool = False) -> Conn | Listener:
    """Make a connection or a listener of the socket *fd*: what it is, the kernel says.

    It belongs to the result from now on; dup=True makes a copy and leaves the caller his own. On
    an error it is the caller's still, as it was. The socket becomes non-blocking, also for those
    who share it through a copy, and is closed on exec; if one of those makes a listener blocking
    again, accept() blocks its thread (reads and writes ask for no wait each time). TCP gets NODELAY
    and keep-alive as after dial and listen, as in Go.
    exclusive: as in ListenConfig, for a listener that processes share.
    Raises OpError. Go: net.FileConn, FileListener, FilePacketConn, which always copy.
    """
    if isinstance(fd, bool) or not isinstance(fd, int):
        raise TypeError(f"fd must be an int, not {type(fd).__name__}")
    network, make = _kind_of(fd, exclusive)

    def complete(conn: FD) -> None:
        conn.set_addrs(local_name(conn), _peer_of(conn))
        if network == "tcp":
            conn.raw_control(_tune)

    return _adopt(fd, network, make, dup=dup, exclusive=exclusive, complete=complete)


def from_socket(sock: socket.socket, *, exclusive: bool = False) -> Conn | Listener:
    """Make a connection or a listener of *sock*, which is detached: it has no descriptor after.

    As from_fd; on an error sock is as it was.
    """
    if not isinstance(sock, socket.socket):
        raise TypeError(f"sock must be a socket.socket, not {type(sock).__name__}")
    ssl = sys.modules.get("ssl")
    if ssl is not None and isinstance(sock, ssl.SSLSocket):
        raise TypeError("sock must be a plain socket, not an SSLSocket: its state would be lost")
    if sock.fileno() < 0:
        raise ValueError("sock is closed or detached")
    conn = from_fd(sock.fileno(), exclusive=exclusive)
    sock.detach()
    return conn


def open_fd(fd: int, *, dup: bool = False) -> File:
    """Make a File of *fd*: reads, writes and deadlines on whatever the kernel polls.

    That is a pipe, a FIFO, a terminal, an eventfd, a timerfd, an inotify, a tun device. A regular
    file, a directory or /dev/null raises NotPollableError: read it in blocking().
    It belongs to the result from now on; dup=True makes a copy and leaves the caller his own. On
    an error it is the caller's still, as it was. It becomes non-blocking, also for those who
    share it: of a terminal that is the shell. Nobody makes it blocking again but you
    (os.set_blocking on a copy of yours, after close); before that, reads and writes would block
    their thread. Raises OpError. Go: os.NewFile.
    """
    if isinstance(fd, bool) or not isinstance(fd, int):
        raise TypeError(f"fd must be an int, not {type(fd).__name__}")
    try:
        mode = os.fstat(fd).st_mode
        name = os.readlink(f"/proc/self/fd/{fd}")
    except OSError as exc:
        raise op_error("open", "file", None, None, exc) from None
    # A pipe or a terminal is a stream; an eventfd, a tun device and the like take messages.
    stream = stat.S_ISFIFO(mode) or os.isatty(fd)
    make = functools.partial(_new_file, stream=stream, name=name)
    return _adopt(fd, "file", make, dup=dup, exclusive=False, op="open")


def _new_file(sysfd: int, network: str, *, stream: bool, name: str) -> File:
    file = File(sysfd, network, stream=stream, file=True)
    file.set_addrs(name, None)
    return file


def _kind_of(fd: int, exclusive: bool) -> tuple[str, Callable[[int, str], FDConn | Listener]]:
    """Return the network of a socket and what makes its FD. Raises OpError. Go: newFileFD."""
    try:
        blocking = os.get_blocking(fd)
        s = socket.socket(fileno=fd)
        try:
            family, sotype, proto = s.family, s.type, s.proto
            listening = s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        finally:
            s.detach()
            os.set_blocking(fd, blocking)  # socket.setdefaulttimeout() has changed it
    except OSError as exc:
        raise op_error("file", "", None, None, exc, hint=_hint_of(exc)) from None
    if exclusive and not listening:
        raise ValueError("exclusive is for listeners")
    if family in _INET:
        if sotype == socket.SOCK_STREAM and proto in (0, socket.IPPROTO_TCP, _IPPROTO_MPTCP):
            return "tcp", TCPListener if listening else TCPConn
        if sotype == socket.SOCK_DGRAM and proto in (0, socket.IPPROTO_UDP):
            return "udp", new_udp_conn
    elif family == socket.AF_UNIX and sotype in _UNIX_NETWORKS:
        network = _UNIX_NETWORKS[sotype]
        return network, UnixListener if listening else unix_maker(network)
    raise op_error(
        "file", "", None, None, errno.EPROTONOSUPPORT, hint="open_fd takes any descriptor"
    )


def _tune(fd: int) -> None:
    """Set the options of a TCP connection, or of those that a listener accepts."""
    s = socket.socket(fileno=fd)
    try:
        tune_tcp(s, KeepAliveConfig())
    finally:
        s.detach()


def _hint_of(exc: OSError) -> str | None:
    return "open_fd takes any descriptor" if exc.errno == errno.ENOTSOCK else None


def _adopt(
    fd: int,
    network: str,
    make: Callable[[int, str], F],
    *,
    dup: bool,
    exclusive: bool,
    op: str = "file",
    complete: Callable[[F], object] | None = None,
) -> F:
    """Register *fd*, or a copy, and *complete* what was made; on every error it is as it was."""
    poller = current_poller()
    mine = -1
    try:
        blocking, inheritable = os.get_blocking(fd), os.get_inheritable(fd)
        if dup:
            fd = mine = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)
        try:
            os.set_inheritable(fd, False)
            os.set_blocking(fd, False)
            conn = make(fd, network)
            try:
                conn.init(poller, exclusive=exclusive)
                if complete is not None:
                    complete(conn)
            except BaseException:
                conn.detach()
                raise
        except BaseException:
            os.set_blocking(fd, blocking)
            os.set_inheritable(fd, inheritable)
            if mine >= 0:
                os.close(mine)
            raise
    except OpError as exc:
        if exc.errno == errno.EEXIST:
            hint = "a connection of this run has it already; use dup=True"
            raise op_error(op, network, None, None, errno.EEXIST, hint=hint) from None
        exc.op = op
        raise
    except OSError as exc:
        raise op_error(op, network, None, None, exc) from None
    return conn


def _peer_of(conn: FD) -> object:
    """Return the remote address of *conn*, None if it has none."""
    try:
        return conn.getpeername()
    except OSError:
        return None
