"""IP sockets: which family one gets, its addresses in that family, and what the system can.

Called by sock, listen and tests, on any thread.
Go: net/ipsock_posix.go, ipsock.go (go1.27).
"""

from __future__ import annotations

import functools
import socket
from dataclasses import dataclass

from gopoll.errors import AddrError
from gopoll.net.addr import IPSockAddr, is_wildcard

__all__ = [
    "favorite_addr_family",
    "supports_ipv4",
    "supports_ipv4_map",
    "supports_ipv6",
    "to_sockaddr",
]


def favorite_addr_family(
    network: str, laddr: IPSockAddr | None, raddr: IPSockAddr | None, mode: str
) -> tuple[int, bool]:
    """Return the address family and whether the socket is for IPv6 only.

    A listener on the wildcard serves both families from one IPv6 socket where the system can.
    Go: favoriteAddrFamily.
    """
    if network.endswith("4"):
        return socket.AF_INET, False
    if network.endswith("6"):
        return socket.AF_INET6, True
    if mode == "listen" and (laddr is None or is_wildcard(laddr[0])):
        if supports_ipv4_map() or not supports_ipv4():
            return socket.AF_INET6, False
        return (socket.AF_INET6 if _is_ipv6(laddr) else socket.AF_INET), False
    if _is_ipv6(laddr) or _is_ipv6(raddr):
        return socket.AF_INET6, False
    return socket.AF_INET, False


def _is_ipv6(addr: IPSockAddr | None) -> bool:
    return addr is not None and ":" in addr[0]


def to_sockaddr(addr: IPSockAddr, family: int) -> IPSockAddr:
    """Return *addr* as a socket of *family* takes it; AddrError if it cannot. Go: ipToSockaddr.

    IPv4 on an IPv6 socket goes as a mapped address, either wildcard as that of the family.
    """
    host, port = addr[:2]
    if family == socket.AF_INET:
        if ":" in host:
            raise AddrError("", "", host, "non-IPv4 address")
        return host or "0.0.0.0", port
    if ":" in host:
        return addr
    return ("::" if host in ("", "0.0.0.0") else f"::ffff:{host}"), port, 0, 0


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
        ipv4=_can_bind(socket.AF_INET, None, False),
        ipv6=_can_bind(socket.AF_INET6, "::1", True),
        ipv4_mapped=_can_bind(socket.AF_INET6, "::ffff:127.0.0.1", False),
    )


def _can_bind(family: int, host: str | None, ipv6only: bool) -> bool:
    """Tell whether a socket of *family* can be had, and bound to *host*."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as s:
            if host is not None:
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(ipv6only))
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
