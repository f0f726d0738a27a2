"""Sockets: from a socket address to a registered FD, through Go's internetSocket, socket and dial.

Called by dial and listen, in a goroutine, on its thread. The socket module's object serves until
the descriptor is handed over to its FD; from then on only the FD closes it.
Go: net/ipsock_posix.go, sock_posix.go, sock_linux.go, fd_unix.go, hook_unix.go (go1.27).
"""

from __future__ import annotations

import errno
import functools
import os
import re
import socket as _socket
from collections.abc import Callable, Coroutine
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from gopoll._fd import FD
from gopoll._poller import Poller
from gopoll.errors import (
    TIMEOUT_TEXT,
    Addr,
    Canceled,
    DeadlineExceeded,
    OpError,
    canceled_error,
    closed_error,
    deadline_error,
    op_error,
)
from gopoll.net.addr import IPSockAddr, is_multicast, unix_sockaddr
from gopoll.net.ipsock import favorite_addr_family, to_sockaddr
from gopoll.net.sockopt import set_default_sockopts
from gopoll.runtime._sched import current_poller
from gopoll.runtime.context import Context, current_context

__all__ = [
    "Control",
    "Plan",
    "RawConn",
    "internet_socket",
    "local_name",
    "map_err",
    "send_at_once",
    "socket",
]

# Hook points: the only way to these calls, so that a test can put a fault there.
socket_func: Callable[[int, int, int], _socket.SocketType] = _socket.SocketType
connect_func = _socket.SocketType.connect_ex
listen_func = _socket.SocketType.listen
wait_connect_func = FD.wait_connect
getsockname_func = FD.getsockname
getpeername_func = FD.getpeername


def hook_canceled_dial() -> None:
    """Do nothing; tests put in its place what is to happen once a cancel has reached a dial."""


# connect(2) goes on by itself after these.
_UNDER_WAY = frozenset({errno.EINPROGRESS, errno.EALREADY, errno.EINTR})

_LINK_LOCAL = re.compile("fe[89ab][0-9a-f]:")

_A_LONG_TIME_AGO = -1e9  # seconds; a deadline that has passed whatever the clock says
_SOMAXCONN_FILE = "/proc/sys/net/core/somaxconn"
_SOMAXCONN = 128  # the kernel's default before 5.4, where the file cannot be read

F = TypeVar("F", bound=FD)


class RawConn:
    """The bare socket that a control hook is given, before bind and connect. Go: RawConn."""

    def __init__(self, sock: _socket.SocketType) -> None:
        self._sock = sock

    def control(self, fn: Callable[[int], object]) -> None:
        """Call fn(descriptor). ClosedError once the callback is over. Go: RawConn.Control."""
        fd = self._sock.fileno()
        if fd < 0:
            raise closed_error("raw-control", "", None, None)
        fn(fd)


class Control(Protocol):
    """A control hook of Dialer and ListenConfig: a plain function, called on every socket.

    network: the one it is for, with its family: "tcp4", "udp6", "unix". address: what it will be
    connected to, or bound to if it listens: an address tuple or a path. raw: raw.control(fn)
    calls fn(descriptor), until the hook returns. What it returns is ignored; what it raises ends
    this attempt, an OSError as an OpError. It runs before bind and connect, and must not block.
    """

    def __call__(self, network: str, address: Addr, raw: RawConn, /) -> object:
        """Look at the socket, or set options on it."""
        ...


class Plan(NamedTuple, Generic[F]):
    """What to make of a socket: Go passes these along one by one, or makes them afterwards.

    make: the class of the FD. tune: sets options on the new socket, before control, so that
    control has the last word. backlog: of a listener, None for the system's. exclusive: register
    a listener so that a connection wakes few of the processes that share it (L2).
    """

    make: Callable[[int, str], F]
    tune: Callable[[_socket.SocketType], None] | None = None
    control: Control | None = None
    backlog: int | None = None
    exclusive: bool = False


def internet_socket(
    ctx: Context,
    net: str,
    laddr: IPSockAddr | None,
    raddr: IPSockAddr | None,
    sotype: int,
    proto: int,
    mode: str,
    plan: Plan[F],
) -> Coroutine[Any, Any, F]:
    """Return a connected (mode "dial") or listening (mode "listen") FD. Go: internetSocket."""
    family, ipv6only = favorite_addr_family(net, laddr, raddr, mode)
    return socket(ctx, net, family, sotype, proto, ipv6only, laddr, raddr, plan)


async def socket(
    ctx: Context,
    net: str,
    family: int,
    sotype: int,
    proto: int,
    ipv6only: bool,
    laddr: Addr | None,
    raddr: Addr | None,
    plan: Plan[F],
) -> F:
    """Make a socket and take it to its end: a local address alone listens, else it dials.

    Closes the descriptor on every error, also on the Canceled that an await may raise.
    Go: socket.
    """
    poller = current_poller()  # first: outside a goroutine nothing is opened
    flags = _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
    try:
        s = socket_func(family, sotype | flags, proto)
    except OSError as exc:
        raise syscall_error("socket", exc) from None
    try:
        try:
            set_default_sockopts(s, family, sotype, ipv6only)
            if plan.tune is not None:
                plan.tune(s)
        except OSError as exc:
            raise syscall_error("setsockopt", exc) from None
        if laddr is not None and raddr is None:
            listen = listen_datagram if sotype == _socket.SOCK_DGRAM else listen_stream
            return listen(s, net, family, laddr, plan, poller)
        return await dial(s, ctx, net, family, laddr, raddr, plan, poller)
    except BaseException:
        s.close()  # nothing is left in it once new_fd has taken the descriptor
        raise


def syscall_error(name: str, exc: OSError) -> OpError:
    """Return *exc* as one that says which system call it was. Go: os.NewSyscallError."""
    # Without an errno it is Python's own: no call has been made.
    return op_error("", "", None, None, exc, syscall=name if exc.errno is not None else None)


def bind(s: _socket.SocketType, addr: Any) -> None:
    """Bind *s* to *addr*, which is as it takes it."""
    try:
        s.bind(addr)
    except OSError as exc:
        if hint := _remedy(exc.errno, addr):
            raise op_error("", "", None, None, exc, hint=hint, syscall="bind") from None
        raise syscall_error("bind", exc) from None


def unbind(path: str) -> None:
    """Remove the *path* that bind has made for a listener that does not come to be."""
    if path and not path.startswith("@"):
        try:
            os.unlink(unix_sockaddr(path))
        except OSError:
            pass


def _remedy(code: int | None, addr: Any) -> str | None:
    """Return what to do about a bind or connect to *addr* that gave *code*; None for most."""
    if code == errno.EAGAIN and isinstance(addr, bytes):
        return "the listener's queue is full; try again"
    # Behind the port stand the flow and the interface.
    unsaid = isinstance(addr, tuple) and not any(addr[3:])
    if code == errno.EINVAL and unsaid and _LINK_LOCAL.match(addr[0]):
        return "it is one of each interface: say which, as in fe80::1%eth0"
    return None


def ctrl_network(net: str, family: int) -> str:
    """Return the network that a control callback is told: "tcp" is "tcp4" or "tcp6" by now.

    Go: netFD.ctrlNetwork.
    """
    if net.startswith("unix") or net[-1] in "46":
        return net
    return net + ("4" if family == _socket.AF_INET else "6")


def new_fd(s: _socket.SocketType, net: str, plan: Plan[F], poller: Poller) -> F:
    """Hand the descriptor over to an FD and register it. Go: newFD, netFD.init."""
    number = s.detach()
    try:
        fd = plan.make(number, net)
    except BaseException:
        os.close(number)
        raise
    try:
        plain = net.startswith("tcp") and plan.control is None
        fd.init(poller, exclusive=plan.exclusive, plain=plain)
    except BaseException:
        fd.close()
        raise
    return fd


def sockaddr(addr: Addr, family: int) -> Any:
    """Return *addr* as a socket of *family* takes it; AddrError if it cannot."""
    return unix_sockaddr(addr) if isinstance(addr, str) else to_sockaddr(addr, family)


def send_at_once(fd: int, data: bytes) -> int:
    """send(2) without waiting; raises OSError."""
    # The family and the kind do not matter to send(2), and to find them out takes system calls.
    s = _socket.SocketType(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fileno=fd)
    try:
        s.setblocking(False)  # whatever socket.setdefaulttimeout() says
        return s.send(data, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
    finally:
        s.detach()


# -- dial ------------------------------------------------------------------------------------------


async def dial(
    s: _socket.SocketType,
    ctx: Context,
    net: str,
    family: int,
    laddr: Addr | None,
    raddr: Addr | None,
    plan: Plan[F],
    poller: Poller,
) -> F:
    """Bind to *laddr* and connect to *raddr*, each if given; note both. Go: netFD.dial."""
    peer: Addr | None = None
    addr = raddr if raddr is not None else laddr
    if plan.control is not None and addr is not None:
        plan.control(ctrl_network(net, family), addr, RawConn(s))
    if laddr is not None:
        bind(s, sockaddr(laddr, family))
    if raddr is None:
        fd = new_fd(s, net, plan, poller)
    else:
        fd, peer = await connect(s, ctx, net, sockaddr(raddr, family), plan, poller)
    if peer is None:
        try:
            peer = getpeername_func(fd)
        except OSError:
            peer = raddr
    fd.set_addrs(local_name(fd), peer)
    return fd


def local_name(fd: FD) -> Addr | None:
    """Return the local address of *fd*, None if the kernel will not say. Go ignores that too."""
    try:
        addr: Addr | None = getsockname_func(fd)
    except OSError:
        addr = None
    return addr


async def connect(
    s: _socket.SocketType, ctx: Context, net: str, raddr: Any, plan: Plan[F], poller: Poller
) -> tuple[F, Addr | None]:
    """Connect: connect(2) first, then register, so that no event of the fresh socket is taken for
    the outcome. Go: netFD.connect.
    """
    code = connect_func(s, raddr)
    if code in (0, errno.EISCONN):
        if ctx.done:
            raise map_err(ctx)
        return new_fd(s, net, plan, poller), None
    if code not in _UNDER_WAY:
        hint = _remedy(code, raddr)
        raise op_error("", "", None, None, code, hint=hint, syscall="connect")
    fd = new_fd(s, net, plan, poller)
    try:
        return fd, await _wait_connected(fd, ctx)
    except BaseException:
        fd.close()
        raise


async def _wait_connected(fd: FD, ctx: Context) -> Addr:
    """Wait for the connect(2) under way, for as long as *ctx* lasts; return the peer's address.

    The ambient context needs none of this: the scheduler itself ends the wait with Canceled, and
    a deadline of our own at the same moment would only race with that.
    """
    ambient = current_context()
    if ctx is ambient:
        peer: Addr = await wait_connect_func(fd)
        return peer
    when = ctx.deadline
    if when is not None and when != ambient.deadline:
        fd.set_write_deadline(when)
    stop = ctx.after_func(functools.partial(_cancel_connect, fd))
    late = False
    try:
        peer = await wait_connect_func(fd)
    except OpError as exc:
        # By text: the kernel's own ETIMEDOUT is a TimeoutError too.
        if exc.err != TIMEOUT_TEXT:
            raise
        late = True
    finally:
        if not stop():
            late = True
    if late:
        # A cancel that came after the wait has poisoned the connection, or is about to: prefer
        # its error to the success.
        raise map_err(ctx)
    fd.set_write_deadline(None)
    return peer


def _cancel_connect(fd: FD) -> None:
    """Wake a wait for connect. Any thread; the FD may be closed by now."""
    try:
        fd.set_write_deadline(_A_LONG_TIME_AGO)
    except OSError:
        pass
    hook_canceled_dial()


def map_err(ctx: Context) -> BaseException:
    """Return what a dial raises because *ctx* is done, or past a deadline it does not yet see.

    The ambient context goes first: its end is never an OSError, which a retry loop would swallow.
    Go: mapErr.
    """
    ambient = current_context()
    if ambient.done:
        return Canceled(ambient.cause)
    cause = ctx.cause
    if ctx.done and not isinstance(cause, DeadlineExceeded):
        error = canceled_error("dial", "", None, None)
    else:
        error = deadline_error("dial", "", None, None)
        cause = None  # it says no more than the error does
    # Even None keeps what is being handled, such as the wake-up, out of the traceback.
    error.__cause__ = cause if isinstance(cause, BaseException) else None
    return error


# -- listen ----------------------------------------------------------------------------------------


def listen_stream(
    s: _socket.SocketType, net: str, family: int, laddr: Addr, plan: Plan[F], poller: Poller
) -> F:
    """Bind *s* to *laddr*, listen and register. Go: netFD.listenStream."""
    # A restarted server may bind while connections of its predecessor linger in TIME_WAIT.
    reuse_addr(s)
    if plan.control is not None:
        plan.control(ctrl_network(net, family), laddr, RawConn(s))
    bind(s, sockaddr(laddr, family))
    try:
        try:
            listen_func(s, max_listener_backlog() if plan.backlog is None else plan.backlog)
        except OSError as exc:
            raise syscall_error("listen", exc) from None
        fd = new_fd(s, net, plan, poller)
    except BaseException:
        if isinstance(laddr, str):
            unbind(laddr)
        raise
    fd.set_addrs(local_name(fd), None)
    return fd


def listen_datagram(
    s: _socket.SocketType, net: str, family: int, laddr: Addr, plan: Plan[F], poller: Poller
) -> F:
    """Bind *s* to *laddr* and register. Go: netFD.listenDatagram.

    A multicast group stands for the wildcard with a port that several may share, each for its
    own group; joining it is the caller's, in control or with raw_control.
    """
    if not isinstance(laddr, str) and is_multicast(laddr[0]):
        reuse_addr(s)
        laddr = ("0.0.0.0" if family == _socket.AF_INET else "::", laddr[1])
    if plan.control is not None:
        plan.control(ctrl_network(net, family), laddr, RawConn(s))
    bind(s, sockaddr(laddr, family))
    fd = new_fd(s, net, plan, poller)
    fd.set_addrs(local_name(fd), None)
    return fd


def reuse_addr(s: _socket.SocketType) -> None:
    """Let *s* be bound where another one was, or is. Go: setDefaultListenerSockopts."""
    try:
        s.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    except OSError as exc:
        raise syscall_error("setsockopt", exc) from None


@functools.cache
def max_listener_backlog() -> int:
    """Return the longest queue of connections the system allows. Go: maxListenerBacklog."""
    try:
        with open(_SOMAXCONN_FILE, encoding="ascii") as file:
            return int(file.read()) or _SOMAXCONN
    except (OSError, ValueError):
        return _SOMAXCONN
