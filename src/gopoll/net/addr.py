"""Addresses and networks: text to socket address and back, without a look-up of a host.

Called by resolve, dial, listen and conn, on any thread; only a port given by service name reads a
file (/etc/services).
Go: net/ipsock.go, net/port.go, net/ip.go, net/lookup_unix.go, net/unixsock.go (go1.27).
"""

from __future__ import annotations

import functools
import os
import re
import socket
from collections.abc import Iterable
from typing import Literal, NamedTuple, TypeAlias

from gopoll.errors import (
    UNKNOWN_PORT_TEXT,
    Addr,
    AddrError,
    UnknownNetworkError,
    format_addr,
)

__all__ = [
    "Address",
    "IPAddr",
    "IPSockAddr",
    "Network",
    "Path",
    "TCPNetwork",
    "UDPNetwork",
    "UnixNetwork",
    "UnixStreamNetwork",
    "UnixgramNetwork",
    "format_addr",
    "ip_literal",
    "is_ipv4",
    "is_multicast",
    "is_wildcard",
    "join_host_port",
    "parse_network",
    "parse_port",
    "split_by_family",
    "split_host_port",
    "unix_path",
    "unix_sockaddr",
]

Path: TypeAlias = str | os.PathLike[str]
Address: TypeAlias = Addr | os.PathLike[str]  # what dial and listen take
IPSockAddr: TypeAlias = tuple[str, int] | tuple[str, int, int, int]
TCPNetwork: TypeAlias = Literal["tcp", "tcp4", "tcp6"]
UDPNetwork: TypeAlias = Literal["udp", "udp4", "udp6"]
UnixStreamNetwork: TypeAlias = Literal["unix", "unixpacket"]  # those with listeners
UnixgramNetwork: TypeAlias = Literal["unixgram"]
UnixNetwork: TypeAlias = UnixStreamNetwork | UnixgramNetwork

# For machines without /etc/services, as in slim containers; the names Go builds in.
_WELL_KNOWN_PORTS = {
    "domain": 53,
    "ftp": 21,
    "ftps": 990,
    "gopher": 70,
    "http": 80,
    "https": 443,
    "imap2": 143,
    "imap3": 220,
    "imaps": 993,
    "pop3": 110,
    "pop3s": 995,
    "smtp": 25,
    "ssh": 22,
    "submissions": 465,
    "telnet": 23,
}

_NUMBER = re.compile(r"[+-]?[0-9]+")
_SERVICE = re.compile(r"(?=.*[A-Za-z])[0-9A-Za-z._+*/-]+")
_MAPPED = b"\0" * 10 + b"\xff\xff"  # what an IPv4 address in an IPv6 one begins with
_MAX_PORT = 65535
_HUGE = "(over 64 bits)"
_SUN_PATH = 108  # bytes in a sockaddr_un; a path ends with a NUL there, an abstract name does not


class Network(NamedTuple):
    """A network name taken apart: "tcp4" is ("tcp", AF_INET)."""

    base: str  # "tcp", "udp", "unix", "unixgram" or "unixpacket"
    family: socket.AddressFamily  # AF_UNSPEC where the name leaves it open


# The families of each network; AF_UNSPEC is "whichever the address has".
_NETWORKS = {
    "tcp": Network("tcp", socket.AF_UNSPEC),
    "tcp4": Network("tcp", socket.AF_INET),
    "tcp6": Network("tcp", socket.AF_INET6),
    "udp": Network("udp", socket.AF_UNSPEC),
    "udp4": Network("udp", socket.AF_INET),
    "udp6": Network("udp", socket.AF_INET6),
    "unix": Network("unix", socket.AF_UNIX),
    "unixgram": Network("unixgram", socket.AF_UNIX),
    "unixpacket": Network("unixpacket", socket.AF_UNIX),
}


class IPAddr(NamedTuple):
    """An IP address in the shape the socket module wants."""

    family: socket.AddressFamily
    host: str  # canonical text, without a zone
    scope_id: int = 0

    def sockaddr(self, port: int) -> IPSockAddr:
        """Return the tuple for bind, connect and sendto."""
        if self.family == socket.AF_INET:
            return self.host, port
        return self.host, port, 0, self.scope_id


def parse_network(network: str, *, op: str = "") -> Network:
    """Return the base and the family of *network*; UnknownNetworkError if it is none of ours."""
    if not isinstance(network, str):
        raise TypeError(f"network must be a str such as 'tcp', not {type(network).__name__}")
    found = _NETWORKS.get(network)
    if found is None:
        raise UnknownNetworkError(op, network)
    return found


def split_host_port(address: object, *, op: str = "", net: str = "") -> tuple[str, int]:
    """Return host and port of "host:port", "[v6%zone]:port", ":service" or an address tuple.

    The host is ASCII (IDNA), without brackets, and "" for the wildcard; a scope id of a 4-tuple
    comes back as its zone, a flow label is dropped. *op* and *net* go into the AddrError.
    Go: net.SplitHostPort and Resolver.LookupPort.
    """
    if isinstance(address, tuple):
        host, port = _split_tuple(address, op, net)
    elif isinstance(address, str):
        host, port = _split_text(address, op, net)
    else:
        raise TypeError(
            f"address must be 'host:port' or a (host, port) tuple, not {type(address).__name__}"
        )
    if "\0" in host:
        raise AddrError(op, net, address, "NUL byte in host")
    if not host.isascii():
        host = _to_ascii(host, address, op, net)
    return host, parse_port(port, op=op, net=net)


def _split_text(address: str, op: str, net: str) -> tuple[str, str]:
    """Split "host:port" at its last colon, with Go's complaint about anything else."""
    if not address:
        raise AddrError(op, net, None, "missing address")
    head, colon, port = address.rpartition(":")
    why = "" if colon else "missing port in address"
    rest = address  # what may hold no bracket
    if not why and address.startswith("["):
        # The brackets are there because the host has colons: the last one must follow "]".
        inside, bracket, tail = address[1:].partition("]")
        if not bracket:
            why = "missing ']' in address"
        elif not tail.startswith(":"):
            why = "missing port in address"
        elif ":" in tail[1:]:
            why = "too many colons in address"
        head, rest = inside, inside + tail
    elif ":" in head:
        why = "too many colons in address"
    if not why:
        why = next((f"unexpected '{c}' in address" for c in "[]" if c in rest), "")
    if why:
        raise AddrError(op, net, address, why)
    return head, port


def _split_tuple(address: tuple[object, ...], op: str, net: str) -> tuple[str, str | int]:
    """Check a (host, port) or (host, port, flowinfo, scope_id) tuple."""
    if len(address) not in (2, 4):
        raise TypeError(
            "address must be (host, port) or (host, port, flowinfo, scope_id), "
            f"not a tuple of {len(address)}"
        )
    host, port = address[:2]
    if not isinstance(host, str):
        raise TypeError(f"host must be a str, not {type(host).__name__}")
    if not isinstance(port, (int, str)) or isinstance(port, bool):
        raise TypeError(f"port must be an int or a service name, not {type(port).__name__}")
    if "[" in host or "]" in host:
        bracket = next(c for c in host if c in "[]")
        raise AddrError(op, net, address, f"unexpected '{bracket}' in address")
    if len(address) == 4:
        scope_id = address[3]
        if not isinstance(scope_id, int) or isinstance(scope_id, bool):
            raise TypeError(f"scope_id must be an int, not {type(scope_id).__name__}")
        if not 0 <= scope_id < 1 << 32:
            raise AddrError(op, net, str(scope_id), "invalid scope id")
        if scope_id and "%" not in host:
            host = f"{host}%{scope_id}"
    return host, port


def _to_ascii(host: str, address: object, op: str, net: str) -> str:
    """Return *host* in the ASCII form that DNS knows; a zone stays as it is."""
    name, percent, zone = host.partition("%")
    try:
        return name.encode("idna").decode("ascii") + percent + zone
    except UnicodeError as exc:
        raise AddrError(op, net, address, "invalid host name") from exc


def parse_port(port: str | int, *, op: str = "", net: str = "") -> int:
    """Return the number of *port*: 0 to 65535, digits, "" for 0, or a service name.

    A service is looked up for the base network of *net*. Go: net.parsePort, LookupPort.
    """
    if isinstance(port, int):
        if 0 <= port <= _MAX_PORT:
            return int(port)
        text = str(port) if port.bit_length() < 64 else _HUGE
    elif not port:
        return 0
    elif not _NUMBER.fullmatch(port):
        return _service_port(port, op, net)
    else:
        text = port if len(port) < 20 else _HUGE
    # Beyond that str() and int() refuse with texts of their own.
    if text == _HUGE or not 0 <= int(text) <= _MAX_PORT:
        raise AddrError(op, net, text, "invalid port")
    return int(text)


def _service_port(service: str, op: str, net: str) -> int:
    """Return the port of a service by name, in any case."""
    kind = socket.SOCK_DGRAM if net.startswith("udp") else socket.SOCK_STREAM
    name = service.lower()
    # The pattern keeps " 80" and "80x" away from getaddrinfo, which takes the first for a number.
    if _SERVICE.fullmatch(name):
        try:
            # Not getservbyname: two threads would share its static buffer.
            found = socket.getaddrinfo("127.0.0.1", name, type=kind, flags=socket.AI_NUMERICHOST)
            return int(found[0][4][1])
        except socket.gaierror:
            if name in _WELL_KNOWN_PORTS:
                return _WELL_KNOWN_PORTS[name]
    raise AddrError(op, net, service, UNKNOWN_PORT_TEXT)


def join_host_port(host: str, port: int | str) -> str:
    """Return "host:port", with brackets where the host has colons. Go: net.JoinHostPort."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def ip_literal(host: str, *, op: str = "", net: str = "") -> IPAddr | None:
    """Return the address that *host* spells out, or None if it is a name (or "").

    A v4-mapped v6 address is its IPv4 address, as in Go. Raises AddrError for a zone that is no
    interface of this machine.
    """
    if "%" not in host:
        return _unzoned(host)
    text, _, zone = host.partition("%")
    packed = _pton(socket.AF_INET6, text)
    if packed is None:
        return None
    if packed.startswith(_MAPPED):
        raise AddrError(op, net, host, "unexpected zone in IPv4 address")
    scope_id = _zone_index(zone, host, op, net)
    return IPAddr(socket.AF_INET6, socket.inet_ntop(socket.AF_INET6, packed), scope_id)


@functools.lru_cache(maxsize=1024)
def _unzoned(host: str) -> IPAddr | None:
    """Return what *host*, which has no zone, spells out: the same whenever it is asked."""
    packed = _pton(socket.AF_INET, host)
    if packed is None:
        packed = _pton(socket.AF_INET6, host)
        if packed is None:
            return None
        if not packed.startswith(_MAPPED):
            return IPAddr(socket.AF_INET6, socket.inet_ntop(socket.AF_INET6, packed))
        packed = packed[12:]
    return IPAddr(socket.AF_INET, socket.inet_ntop(socket.AF_INET, packed))


def _pton(family: socket.AddressFamily, text: str) -> bytes | None:
    try:
        return socket.inet_pton(family, text)
    except (OSError, ValueError):  # ValueError: a NUL or a surrogate inside
        return None


def _zone_index(zone: str, host: str, op: str, net: str) -> int:
    """Return the scope id of a zone, which is an interface's name or its number."""
    if _NUMBER.fullmatch(zone) and len(zone) < 11:
        number = int(zone)
        if 0 <= number < 1 << 32:
            return number
    try:
        return socket.if_nametoindex(zone)
    except (OSError, ValueError) as exc:
        raise AddrError(op, net, host, "no such zone in address (see: ip link)") from exc


def is_ipv4(sockaddr: IPSockAddr) -> bool:
    """Tell whether *sockaddr* is an IPv4 address; a v4-mapped v6 one is."""
    host = sockaddr[0]
    literal = _pton(socket.AF_INET6, host.partition("%")[0]) if ":" in host else None
    return ":" not in host or (literal or b"").startswith(_MAPPED)


def is_wildcard(host: str) -> bool:
    """Tell whether *host* means every local address."""
    literal = None if not host or "%" in host else ip_literal(host)
    return not host or (literal is not None and literal.host in ("0.0.0.0", "::"))


def is_multicast(host: str) -> bool:
    """Tell whether *host* is the literal of a group: 224.0.0.0/4 or ff00::/8. Go: IP.IsMulticast.

    A name is none.
    """
    literal = None if not host or "%" in host else ip_literal(host)
    if literal is None:
        return host.startswith(("ff", "FF")) and ":" in host  # with a zone
    first = socket.inet_pton(literal.family, literal.host)[0]
    return first >> 4 == 14 if literal.family == socket.AF_INET else first == 255


def split_by_family(addrs: Iterable[IPSockAddr]) -> tuple[list[IPSockAddr], list[IPSockAddr]]:
    """Split *addrs* into those of the first one's family and the others, both in order.

    Go: addrList.partition(isIPv4).
    """
    primaries: list[IPSockAddr] = []
    fallbacks: list[IPSockAddr] = []
    for addr in addrs:
        same = not primaries or is_ipv4(addr) == is_ipv4(primaries[0])
        (primaries if same else fallbacks).append(addr)
    return primaries, fallbacks


def unix_path(address: object, *, op: str = "", net: str = "") -> str:
    """Return the path, or "@name" (abstract), of a Unix socket's *address*: a str or os.PathLike.

    "" stays: to listen on it is to be given a name by the kernel. Raises AddrError for what the
    kernel would not take, or would cut at a NUL, and for the tuple of an IP network.
    """
    if isinstance(address, tuple):
        raise AddrError(op, net, address, "unexpected address type (a Unix address is a path)")
    if not isinstance(address, (str, os.PathLike)):
        kind = type(address).__name__
        raise TypeError(f"address must be the path of a Unix socket, not {kind}")
    path = os.fsdecode(address)
    if path.startswith("\0"):
        path = "@" + path[1:]
    elif path.startswith("@") and not isinstance(address, str):
        path = "./" + path  # a file's name, not an abstract one
    try:
        size = len(path.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError as exc:
        raise AddrError(op, net, path, "path that no file can have") from exc
    limit = _SUN_PATH if path.startswith("@") else _SUN_PATH - 1
    if size > limit:
        what = "name" if path.startswith("@") else "path"
        raise AddrError(op, net, path, f"{what} too long ({size} bytes, at most {limit})")
    if "\0" in path and not path.startswith("@"):
        raise AddrError(op, net, path, "NUL byte in path")
    return path


def unix_sockaddr(path: str) -> bytes:
    """Return *path* as the socket module takes it: "@name" begins with a NUL. Go: SockaddrUnix."""
    raw = path.encode("utf-8", "surrogateescape")
    return b"\0" + raw[1:] if raw.startswith(b"@") else raw
