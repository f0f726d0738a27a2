"""Socket options: what is set on every socket, and the keep-alive of TCP.

Called by sock, conn, dial and listen, on any thread.
Go: net/sockopt_linux.go, sockopt_posix.go, tcpsockopt_unix.go, tcpsock.go (go1.27).
"""

from __future__ import annotations

import math
import socket
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from gopoll.net.checks import INT_MAX, check_int, check_seconds

__all__ = [
    "DEFAULT_KEEP_ALIVE",
    "KeepAlive",
    "KeepAliveConfig",
    "check_keep_alive",
    "set_default_sockopts",
    "set_keep_alive",
    "set_no_delay",
    "tune_tcp",
]


def set_default_sockopts(s: socket.SocketType, family: int, sotype: int, ipv6only: bool) -> None:
    """Set what Go sets on every socket. Go: setDefaultSockopts."""
    if family == socket.AF_INET6 and sotype != socket.SOCK_RAW:
        # Said aloud, whatever net.ipv6.bindv6only is; some systems refuse to switch it off.
        try:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(ipv6only))
        except OSError:
            pass
    if sotype in (socket.SOCK_DGRAM, socket.SOCK_RAW) and family != socket.AF_UNIX:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)


# -- options of TCP --------------------------------------------------------------------------------


_KEEP_ALIVE_SECONDS = 15
_KEEP_ALIVE_COUNT = 9


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
    _options: ClassVar[tuple[tuple[int, int, int], ...]]  # of setsockopt; each object has its own

    def __post_init__(self) -> None:
        """TypeError or ValueError for what is no figure: options that fail make no noise later."""
        _check_enable(self.enable)
        check_seconds("idle", self.idle)
        check_seconds("interval", self.interval)
        check_int("count", self.count, None)
        options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(self.enable))]
        for option, value, default in (
            (socket.TCP_KEEPIDLE, self.idle, _KEEP_ALIVE_SECONDS),
            (socket.TCP_KEEPINTVL, self.interval, _KEEP_ALIVE_SECONDS),
            (socket.TCP_KEEPCNT, self.count, _KEEP_ALIVE_COUNT),
        ):
            if value >= 0:
                figure = math.ceil(min(value, INT_MAX)) or default
                options.append((socket.IPPROTO_TCP, option, figure))
        object.__setattr__(self, "_options", tuple(options))  # once, not for each connection


def _check_enable(enable: object) -> None:
    if not isinstance(enable, bool):
        kind = type(enable).__name__
        raise TypeError(f"enable must be a bool, not {kind} (seconds go to idle and interval)")


KeepAlive: TypeAlias = float | KeepAliveConfig

DEFAULT_KEEP_ALIVE = 15.0
_DEFAULT = KeepAliveConfig(idle=DEFAULT_KEEP_ALIVE)


def check_keep_alive(value: object) -> KeepAliveConfig:
    """Return the configuration that *value* stands for: seconds set idle, below 0 is off."""
    if value is DEFAULT_KEEP_ALIVE:
        return _DEFAULT
    if isinstance(value, KeepAliveConfig):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        raise TypeError(f"keep_alive must be seconds or a KeepAliveConfig, not {value!r}")
    return KeepAliveConfig(enable=value >= 0, idle=max(value, 0.0))


def tune_tcp(s: socket.SocketType, keep_alive: KeepAliveConfig) -> None:
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


def set_no_delay(s: socket.SocketType, no_delay: bool) -> None:
    """Switch Nagle's algorithm off (True) or on. Go: setNoDelay."""
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(no_delay))


def set_keep_alive(s: socket.SocketType, config: KeepAliveConfig) -> None:
    """Set SO_KEEPALIVE and its three figures. Raises OSError. Go: SetKeepAliveConfig."""
    for level, option, value in config._options:
        s.setsockopt(level, option, value)
