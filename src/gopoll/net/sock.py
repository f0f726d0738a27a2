"""Sockets: from a socket address to a registered FD, through Go's internetSocket, socket and dial.

Called by dial and listen, in a goroutine, on its thread. The socket module's object serves until
the descriptor is handed over to its FD; from then on only the FD closes it.
Go: net/ipsock_posix.go, sock_posix.go, sock_linux.go, fd_unix.go, hook_unix.go (go1.27).
"""

from __future__ import annotations

import errno
import functools
import math
import os
import socket as _socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from gopoll._fd import FD
from gopoll._poller import Poller
from gopoll.errors import (
    TIMEOUT_TEXT,
    Addr,
    AddrError,
    Canceled,
    DeadlineExceeded,
    OpError,
    canceled_error,
    closed_error,
    deadline_error,
)
from gopoll.net.addr import IPSockAddr, is_wildcard
from gopoll.runtime._sched import current_poller
from gopoll.runtime.context import Context, current_context

__all__ = [
    "Control",
    "KeepAlive",
    "KeepAliveConfig",
    "Plan",
    "RawConn",
    "check_keep_alive",
    "check_seconds",
    "favorite_addr_family",
    "internet_socket",
    "local_name",
    "map_err",
    "set_keep_alive",
    "set_no_delay",
    "socket",
    "tune_tcp",
]

# Hook points: the only way to these calls, so that a test can put a fault there.
socket_func: Callable[[int, int, int], _socket.socket] = _socket.socket
connect_func = _socket.socket.connect_ex
listen_func = _socket.socket.listen
wait_connect_func = FD.wait_connect
getsockname_func = FD.getsockname
getpeername_func = FD.getpeername


def hook_canceled_dial() -> None:
    """Do nothing; tests put in its place what is to happen once a cancel has reached a dial."""


# connect(2) goes on by itself after these.
_UNDER_WAY = frozenset({errno.EINPROGRESS, errno.EALREADY, errno.EINTR})

_A_LONG_TIME_AGO = -1e9  # seconds; a deadline that has passed whatever the clock says
_SOMAXCONN_FILE = "/proc/sys/net/core/somaxconn"
_SOMAXCONN = 128  # the kernel's default before 5.4, where the file cannot be read

F = TypeVar("F", bound=FD)


class RawConn:
    """The bare socket that a control callback sees, before bind and connect."""

    def __init__(self, sock: _socket.socket) -> None:
        self._sock = sock

    def control(self, fn: Callable[[int], object]) -> None:
        """Call fn(descriptor). ClosedError once the callback is over. Go: RawConn.Control."""
        fd = self._sock.fileno()
        if fd < 0:
            raise closed_error("raw-control", "", None, None)
        fn(fd)


Control: TypeAlias = Callable[[str, Addr, RawConn], object]


@dataclass(frozen=True)
class Plan(Generic[F]):
    """What to make of a socket: Go passes these along one by one, or makes them afterwards.

    make: the class of the FD. tune: sets options on the new socket, before control, so that
    control has the last word. backlog: of a listener, None for the system's.
    """

    make: Callable[[int, str], F]
    tune: Callable[[_socket.socket], None] | None = None
    control: Control | None = None
    backlog: int | None = None


async def internet_socket(
    ctx: Context,
    net: str,
    laddr: IPSockAddr | None,
    raddr: IPSockAddr | None,
    sotype: int,
    proto: int,
    mode: str,
    plan: Plan[F],
) -> F:
    """Return a connected (mode "dial") or listening (mode "listen") FD. Go: internetSocket."""
    family, ipv6only = favorite_addr_family(net, laddr, raddr, mode)
    return await socket(ctx, net, family, sotype, proto, ipv6only, laddr, raddr, plan)


def favorite_addr_family(
    network: str, laddr: IPSockAddr | None, raddr: IPSockAddr | None, mode: str
) -> tuple[int, bool]:
    """Return the address family and whether the socket is for IPv6 only.

    A listener on the wildcard serves both families from one IPv6 socket where the system can.
    Go: favoriteAddrFamily.
    """
    if network.endswith("4"):
        return _socket.AF_INET, False
    if network.endswith("6"):
        return _socket.AF_INET6, True
    if mode == "listen" and (laddr is None or is_wildcard(laddr[0])):
        if supports_ipv4_map() or not supports_ipv4():
            return _socket.AF_INET6, False
        return (_socket.AF_INET if laddr is None else _family(laddr)), False
    if all(addr is None or _family(addr) == _socket.AF_INET for addr in (laddr, raddr)):
        return _socket.AF_INET, False
    return _socket.AF_INET6, False


def _family(addr: IPSockAddr) -> int:
    return _socket.AF_INET6 if ":" in addr[0] else _socket.AF_INET


def to_sockaddr(addr: IPSockAddr, family: int) -> IPSockAddr:
    """Return *addr* as a socket of *family* takes it; AddrError if it cannot. Go: ipToSockaddr.

    IPv4 on an IPv6 socket goes as a mapped address, either wildcard as that of the family.
    """
    host, port = addr[:2]
    if family == _socket.AF_INET:
        if ":" in host:
            raise AddrError("", "", host, "non-IPv4 address")
        return host or "0.0.0.0", port
    if ":" in host:
        return addr
    return ("::" if host in ("", "0.0.0.0") else f"::ffff:{host}"), port, 0, 0


async def socket(
    ctx: Context,
    net: str,
    family: int,
    sotype: int,
    proto: int,
    ipv6only: bool,
    laddr: IPSockAddr | None,
    raddr: IPSockAddr | None,
    plan: Plan[F],
) -> F:
    """Make a socket and take it to its end: a local address alone listens, else it dials.

    Closes the descriptor on every error, also on the Canceled that an await may raise.
    Go: socket.
    """
    poller = current_poller()  # first: outside a goroutine nothing is opened
    s = socket_func(family, sotype | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC, proto)
    try:
        set_default_sockopts(s, family, sotype, ipv6only)
        if plan.tune is not None:
            plan.tune(s)
        if laddr is not None and raddr is None:
            return listen_stream(s, net, family, laddr, plan, poller)
        return await dial(s, ctx, net, family, laddr, raddr, plan, poller)
    except BaseException:
        s.close()  # nothing is left in it once new_fd has taken the descriptor
        raise


def set_default_sockopts(s: _socket.socket, family: int, sotype: int, ipv6only: bool) -> None:
    """Set what Go sets on every socket. Go: setDefaultSockopts."""
    if family == _socket.AF_INET6 and sotype != _socket.SOCK_RAW:
        # Said aloud, whatever net.ipv6.bindv6only is; some systems refuse to switch it off.
        try:
            s.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, int(ipv6only))
        except OSError:
            pass
    if sotype in (_socket.SOCK_DGRAM, _socket.SOCK_RAW) and family != _socket.AF_UNIX:
        s.setsockopt(_socket.SOL_SOCKET, _socket.SO_BROADCAST, 1)


def ctrl_network(net: str, family: int) -> str:
    """Return the network that a control callback is told: "tcp" is "tcp4" or "tcp6" by now.

    Go: netFD.ctrlNetwork.
    """
    if net.startswith("unix") or net[-1] in "46":
        return net
    return net + ("4" if family == _socket.AF_INET else "6")


def new_fd(s: _socket.socket, net: str, plan: Plan[F], poller: Poller) -> F:
    """Hand the descriptor over to an FD and register it. Go: newFD, netFD.init."""
    fd = plan.make(s.detach(), net)
    try:
        fd.init(poller)
    except BaseException:
        fd.close()
        raise
    return fd


# -- dial ------------------------------------------------------------------------------------------


async def dial(
    s: _socket.socket,
    ctx: Context,
    net: str,
    family: int,
    laddr: IPSockAddr | None,
    raddr: IPSockAddr | None,
    plan: Plan[F],
    poller: Poller,
) -> F:
    """Bind to *laddr* and connect to *raddr*, each if given; note both. Go: netFD.dial."""
    peer: Addr | None = None
    addr = raddr if raddr is not None else laddr
    if plan.control is not None and addr is not None:
        plan.control(ctrl_network(net, family), addr, RawConn(s))
    if laddr is not None:
        s.bind(to_sockaddr(laddr, family))
    if raddr is None:
        fd = new_fd(s, net, plan, poller)
    else:
        fd, peer = await connect(s, ctx, net, to_sockaddr(raddr, family), plan, poller)
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
    s: _socket.socket, ctx: Context, net: str, raddr: IPSockAddr, plan: Plan[F], poller: Poller
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
        raise OSError(code, os.strerror(code))
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
    when = ctx.deadline
    if when is not None and when != ambient.deadline:
        fd.set_write_deadline(when)
    stop = None if ctx is ambient else ctx.after_func(functools.partial(_cancel_connect, fd))
    late = False
    try:
        peer: Addr = await wait_connect_func(fd)
    except OpError as exc:
        # By text: the kernel's own ETIMEDOUT is a TimeoutError too.
        if exc.err != TIMEOUT_TEXT:
            raise
        late = True
    finally:
        if stop is not None and not stop():
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
    s: _socket.socket, net: str, family: int, laddr: IPSockAddr, plan: Plan[F], poller: Poller
) -> F:
    """Bind *s* to *laddr*, listen and register. Go: netFD.listenStream."""
    # A restarted server may bind while connections of its predecessor linger in TIME_WAIT.
    s.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    if plan.control is not None:
        plan.control(ctrl_network(net, family), laddr, RawConn(s))
    s.bind(to_sockaddr(laddr, family))
    listen_func(s, max_listener_backlog() if plan.backlog is None else plan.backlog)
    fd = new_fd(s, net, plan, poller)
    fd.set_addrs(local_name(fd), None)
    return fd


@functools.cache
def max_listener_backlog() -> int:
    """Return the longest queue of connections the system allows. Go: maxListenerBacklog."""
    try:
        with open(_SOMAXCONN_FILE, encoding="ascii") as file:
            return int(file.read()) or _SOMAXCONN
    except (OSError, ValueError):
        return _SOMAXCONN


# -- options of TCP --------------------------------------------------------------------------------


@dataclass(frozen=True)
class KeepAliveConfig:
    """When a silent TCP connection is probed, and when it is given up. Go: net.KeepAliveConfig.

    idle: seconds of silence before the first probe; interval: seconds between probes; count:
    unanswered probes until the connection is dead. 0 is the default (15 s, 15 s, 9), below 0
    leaves the system's value. Fractions are rounded up to whole seconds.
    """

    enable: bool = True
    idle: float = 0.0
    interval: float = 0.0
    count: int = 0

    def __post_init__(self) -> None:
        """TypeError or ValueError for what is no figure: options that fail make no noise later."""
        _check_enable(self.enable)
        check_seconds("idle", self.idle)
        check_seconds("interval", self.interval)
        if isinstance(self.count, bool) or not isinstance(self.count, int):
            raise TypeError(f"count must be an int, not {type(self.count).__name__}")


def _check_enable(enable: object) -> None:
    if not isinstance(enable, bool):
        kind = type(enable).__name__
        raise TypeError(f"enable must be a bool, not {kind} (seconds go to idle and interval)")


def check_seconds(name: str, seconds: object) -> None:
    """Raise TypeError or ValueError if *seconds* is none."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{name} must be seconds, not {type(seconds).__name__}")
    if math.isnan(seconds):
        raise ValueError(f"{name} must not be nan")


KeepAlive: TypeAlias = float | KeepAliveConfig

_KEEP_ALIVE_SECONDS = 15
_KEEP_ALIVE_COUNT = 9
_INT_MAX = 2**31 - 1


def check_keep_alive(value: object) -> KeepAliveConfig:
    """Return the configuration that *value* stands for: seconds set idle, below 0 is off."""
    if isinstance(value, KeepAliveConfig):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        raise TypeError(f"keep_alive must be seconds or a KeepAliveConfig, not {value!r}")
    return KeepAliveConfig(enable=value >= 0, idle=max(value, 0.0))


def tune_tcp(s: _socket.socket, keep_alive: KeepAliveConfig) -> None:
    """Set the options of a TCP connection, without a word if the system refuses. Go: newTCPConn.

    Set on the fresh socket, not after connect and accept as in Go: on Linux a listener's options
    pass to what it accepts, which spares five system calls for each connection.
    """
    try:
        set_no_delay(s, True)
    except OSError:
        pass
    if keep_alive.enable:
        try:
            set_keep_alive(s, keep_alive)
        except OSError:
            pass


def set_no_delay(s: _socket.socket, no_delay: bool) -> None:
    """Switch Nagle's algorithm off (True) or on. Go: setNoDelay."""
    s.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, int(no_delay))


def set_keep_alive(s: _socket.socket, config: KeepAliveConfig) -> None:
    """Set SO_KEEPALIVE and its three figures. Raises OSError. Go: SetKeepAliveConfig."""
    s.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, int(config.enable))
    for option, value, default in (
        (_socket.TCP_KEEPIDLE, config.idle, _KEEP_ALIVE_SECONDS),
        (_socket.TCP_KEEPINTVL, config.interval, _KEEP_ALIVE_SECONDS),
        (_socket.TCP_KEEPCNT, config.count, _KEEP_ALIVE_COUNT),
    ):
        if value >= 0:
            figure = math.ceil(min(value, _INT_MAX)) or default
            s.setsockopt(_socket.IPPROTO_TCP, option, figure)


# -- what the system can ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Capabilities:
    ipv4: bool
    ipv6: bool
    ipv4_mapped: bool


@functools.cache
def _capabilities() -> _Capabilities:
    """Try once what addresses sockets can be bound to. Go: ipStackCapabilities.probe."""
    return _Capabilities(
        ipv4=_can_bind(_socket.AF_INET, None, False),
        ipv6=_can_bind(_socket.AF_INET6, "::1", True),
        ipv4_mapped=_can_bind(_socket.AF_INET6, "::ffff:127.0.0.1", False),
    )


def _can_bind(family: int, host: str | None, ipv6only: bool) -> bool:
    """Tell whether a socket of *family* can be had, and bound to *host*."""
    try:
        with _socket.socket(family, _socket.SOCK_STREAM) as s:
            if host is not None:
                s.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, int(ipv6only))
                s.bind((host, 0))
            return True
    except PermissionError:  # a sandbox that forbids bind says nothing about addresses
        return True
    except OSError:
        return False


def supports_ipv4() -> bool:
    """Tell whether there are IPv4 sockets."""
    return _capabilities().ipv4


def supports_ipv6() -> bool:
    """Tell whether there are IPv6 sockets."""
    return _capabilities().ipv6


def supports_ipv4_map() -> bool:
    """Tell whether an IPv6 socket can serve IPv4 too."""
    return _capabilities().ipv4_mapped
