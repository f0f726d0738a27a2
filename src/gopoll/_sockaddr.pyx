"""Socket addresses as Python sees them: ("host", port), a path, or "@name" for abstract ones.

Called by _fdop and _fdmsg with the GIL held, on any thread. Nothing is looked up: hosts are
literals, ports are numbers; names are for the net package.
Go: net/sockaddr_posix.go, ipToSockaddr in net/ipsock_posix.go, sockaddr in
syscall/syscall_linux.go (go1.27).
"""

import os

from cpython.long cimport PyLong_AsLongAndOverflow, PyLong_CheckExact
from cpython.tuple cimport PyTuple_CheckExact
from cpython.unicode cimport PyUnicode_CheckExact, PyUnicode_DecodeASCII
from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memcpy, memset, strlen

from gopoll.errors import AddrError


cdef extern from "<netinet/in.h>" nogil:
    cdef struct in_addr:
        pass
    cdef struct in6_addr:
        pass
    cdef struct sockaddr_in:
        uint16_t sin_port
        in_addr sin_addr
    cdef struct sockaddr_in6:
        uint16_t sin6_port
        uint32_t sin6_flowinfo
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    uint16_t ntohs(uint16_t port)
    uint32_t ntohl(uint32_t flow)
    uint16_t htons(uint16_t port)
    uint32_t htonl(uint32_t flow)
    bint IN6_IS_ADDR_V4MAPPED(const in6_addr *addr)

cdef extern from "<net/if.h>" nogil:
    unsigned int if_nametoindex(const char *name)

cdef extern from "<sys/un.h>" nogil:
    cdef struct sockaddr_un:
        unsigned short sun_family
        char sun_path[108]

cdef extern from "<arpa/inet.h>" nogil:
    const char *inet_ntop(int family, const void *src, char *dst, socklen_t size)
    int inet_pton(int family, const char *src, void *dst)

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef extern from "<stddef.h>" nogil:
    size_t offsetof_sun_path "offsetof(struct sockaddr_un, sun_path)"


cdef enum:
    ROOM = 108           # of sun_path; a path leaves a byte for its end, an abstract name need not
    MAX_PORT = 65535

# -- from the kernel -------------------------------------------------------------------------------

cdef object sockaddr_to_python(sockaddr_storage *addr, socklen_t size):
    """Return the address in *addr*: None for a family that has no form here."""
    cdef char text[64]
    cdef sockaddr_in *v4 = <sockaddr_in *>addr
    cdef sockaddr_in6 *v6 = <sockaddr_in6 *>addr
    if size == 0:
        return None
    if addr.ss_family == AF_INET:
        return v4_text(<const unsigned char *>&v4.sin_addr), ntohs(v4.sin_port)
    if addr.ss_family == AF_INET6:
        if IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr):      # an IPv4 peer of a dual-stack socket: as in Go
            return v4_text(<const unsigned char *>&v6.sin6_addr + 12), ntohs(v6.sin6_port)
        inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof(text))
        host = (<bytes>text).decode("ascii")
        if v6.sin6_scope_id or v6.sin6_flowinfo:
            return host, ntohs(v6.sin6_port), ntohl(v6.sin6_flowinfo), v6.sin6_scope_id
        return host, ntohs(v6.sin6_port)
    if addr.ss_family == AF_UNIX:
        return _unix_path(<sockaddr_un *>addr, size - offsetof_sun_path)
    return None


cdef str v4_text(const unsigned char *ip):
    """Return the four numbers: inet_ntop takes 1,500 instructions, once for each datagram."""
    cdef char text[16]
    cdef int i, n = 0
    for i in range(4):
        if ip[i] > 99:
            text[n] = 48 + ip[i] // 100
            n += 1
        if ip[i] > 9:
            text[n] = 48 + ip[i] // 10 % 10
            n += 1
        text[n] = 48 + ip[i] % 10
        text[n + 1] = 46                                     # "."
        n += 2
    return PyUnicode_DecodeASCII(text, n - 1, NULL)


cdef object _unix_path(sockaddr_un *addr, Py_ssize_t size):
    cdef bytes raw
    if size <= 0:
        return ""
    raw = addr.sun_path[:size]
    if raw[:1] == b"\0":
        return "@" + raw[1:].decode("utf-8", "surrogateescape")
    return raw.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


cdef bint rawaddr_set(rawAddr *raw, const sockaddr_storage *addr, socklen_t size) noexcept nogil:
    """Keep *addr* as it is, to be formatted if somebody asks; False if it is none of IP."""
    if addr.ss_family not in (AF_INET, AF_INET6) or size > sizeof(raw.words):
        return False
    memcpy(raw.words, addr, size)
    raw.size = size
    return True


cdef object rawaddr_to_python(rawAddr *raw):
    """Return what rawaddr_set has kept, as sockaddr_to_python does."""
    cdef sockaddr_storage addr
    memcpy(&addr, raw.words, raw.size)
    return sockaddr_to_python(&addr, raw.size)


# -- to the kernel ---------------------------------------------------------------------------------

cdef int sockaddr_from_python(object addr, int family, sockaddr_storage *out, socklen_t *size,
                              str op, str net) except -1:
    """Put *addr* into *out* as a socket of *family* takes it. Raises AddrError and TypeError.

    family: AF_UNSPEC leaves it to the form. IPv4 on an IPv6 socket goes as a mapped address and a
    mapped one on an IPv4 socket as IPv4, "" and either wildcard as that of the family.
    *op* and *net* go into the AddrError. Go: ipToSockaddr.
    """
    memset(out, 0, sizeof(out[0]))
    if addr is None:
        raise AddrError(op, net, None, "missing address")
    if family == AF_UNSPEC:
        family = AF_UNSPEC if isinstance(addr, tuple) else AF_UNIX
    if family == AF_UNIX:
        size[0] = _from_path(addr, <sockaddr_un *>out, op, net)
    elif family == AF_INET or family == AF_INET6 or family == AF_UNSPEC:
        size[0] = _from_ip(addr, family, out, op, net)
    else:
        raise AddrError(op, net, str(addr), f"addresses of family {family} have no form here")
    return 0


cdef socklen_t _from_path(object addr, sockaddr_un *out, str op, str net) except? 0:
    cdef bytes raw
    cdef Py_ssize_t most = ROOM - 1
    if isinstance(addr, tuple):
        raise AddrError(op, net, addr, "not a path")
    path = os.fspath(addr)
    raw = path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path
    if not raw:
        raise AddrError(op, net, None, "missing address")
    if raw[:1] == b"@" and not isinstance(addr, (str, bytes)):
        raw = b"./" + raw                                    # a file's name: as unix_path
    if raw[:1] == b"@" or raw[:1] == b"\0":
        raw = b"\0" + raw[1:]
        most = ROOM
    elif b"\0" in raw:
        raise AddrError(op, net, path, "NUL byte in path")
    if len(raw) > most:
        what = "name" if most == ROOM else "path"
        raise AddrError(op, net, path, f"{what} too long ({len(raw)} bytes, at most {most})")
    out.sun_family = AF_UNIX
    memcpy(out.sun_path, <char *>raw, len(raw))
    return offsetof_sun_path + len(raw) + (most != ROOM)     # of a path the end mark counts


cdef socklen_t _from_ip(object addr, int family, sockaddr_storage *out, str op,
                        str net) except? 0:
    cdef sockaddr_in *v4 = <sockaddr_in *>out
    cdef sockaddr_in6 *v6 = <sockaddr_in6 *>out
    cdef in_addr ip4
    cdef in6_addr ip6
    cdef bint is4, wild
    cdef bytes text
    if family != AF_INET6 and _plain_v4(addr, v4):
        return sizeof(sockaddr_in)
    host, port, flow, scope = _split(addr, op, net)
    try:
        text = host.encode("ascii")
    except UnicodeEncodeError:
        text = b"?"                                          # no literal has one
    if b"\0" in text:
        text = b"?"
    if not text:
        text = b"::" if family == AF_INET6 else b"0.0.0.0"
    is4 = inet_pton(AF_INET, text, &ip4) == 1
    if not is4:
        if b"%" in text:
            text, scope = _split_zone(text, host, scope, op, net)
        if inet_pton(AF_INET6, text, &ip6) != 1:
            raise AddrError(op, net, addr, "host is not an IP address; look names up first, with "
                                           "a Resolver")
        if family == AF_INET:
            if not IN6_IS_ADDR_V4MAPPED(&ip6):
                raise AddrError(op, net, addr, "non-IPv4 address")
            memcpy(&ip4, <char *>&ip6 + 12, 4)
            is4 = True
    if is4 and (flow or scope):
        raise AddrError(op, net, addr, "unexpected flow or scope in IPv4 address")
    if is4 and family != AF_INET6:
        out.ss_family = AF_INET
        v4.sin_port = htons(port)
        v4.sin_addr = ip4
        return sizeof(sockaddr_in)
    if is4:
        memset(&ip6, 0, sizeof(ip6))
        wild = text == b"0.0.0.0"
        if not wild:
            memset(<char *>&ip6 + 10, 0xFF, 2)
            memcpy(<char *>&ip6 + 12, &ip4, 4)
    out.ss_family = AF_INET6
    v6.sin6_port = htons(port)
    v6.sin6_flowinfo = htonl(flow)
    v6.sin6_addr = ip6
    v6.sin6_scope_id = scope
    return sizeof(sockaddr_in6)


cdef bint _plain_v4(object addr, sockaddr_in *out):
    """Put ("1.2.3.4", port) into *out*, as almost every address is; False: look closely."""
    cdef const char *text
    cdef Py_ssize_t n
    cdef long port
    cdef int over
    if not PyTuple_CheckExact(addr) or len(<tuple>addr) != 2:
        return False
    host, number = <tuple>addr
    if not PyUnicode_CheckExact(host) or not PyLong_CheckExact(number) or not host.isascii():
        return False
    port = PyLong_AsLongAndOverflow(number, &over)
    text = PyUnicode_AsUTF8AndSize(host, &n)
    if over or not 0 <= port <= MAX_PORT or <Py_ssize_t>strlen(text) != n:
        return False
    if inet_pton(AF_INET, text, &out.sin_addr) != 1:
        return False
    (<sockaddr_storage *>out).ss_family = AF_INET
    out.sin_port = htons(port)
    return True


cdef tuple _split(object addr, str op, str net):
    """Return (host, port, flow, scope) of a tuple or of "host:port", each in its range."""
    if isinstance(addr, str):
        host, colon, digits = addr.rpartition(":")
        if host[:1] == "[" and host[len(host) - 1:] == "]":
            host = host[1:len(host) - 1]
        elif ":" in host:
            raise AddrError(op, net, addr, "too many colons in address")
        if not colon:
            raise AddrError(op, net, addr or None,
                            "missing port in address" if addr else "missing address")
        if not (digits.isascii() and digits.isdecimal() and len(digits) < 9):
            raise AddrError(op, net, addr, "invalid port")
        fields = (host, int(digits))
    elif isinstance(addr, tuple):
        fields = addr
    else:
        raise TypeError("address must be a (host, port) tuple or 'host:port', not "
                        f"{type(addr).__name__}")
    if len(fields) != 2 and len(fields) != 4:
        raise AddrError(op, net, str(addr), "neither (host, port) nor (host, port, flow, scope)")
    host, port = fields[:2]
    flow, scope = fields[2:] or (0, 0)
    if not isinstance(host, str):
        raise TypeError(f"host must be a str, not {type(host).__name__}")
    for what, value, most in (("port", port, MAX_PORT), ("flow", flow, 0xFFFFFFFF),
                              ("scope", scope, 0xFFFFFFFF)):
        if not isinstance(value, int):
            raise TypeError(f"{what} must be an int, not {type(value).__name__}")
        if not 0 <= value <= most:
            raise AddrError(op, net, str(value), f"invalid {what}")
    return host, port, flow, scope


cdef tuple _split_zone(bytes text, str host, scope, str op, str net):
    """Return (address, scope id) of "fe80::1%eth0"; a zone is an interface's name or number."""
    cdef unsigned int index
    text, _, zone = text.partition(b"%")
    if zone.isdigit() and len(zone) < 10:
        index = int(zone)
    else:
        index = if_nametoindex(zone)
        if index == 0:
            raise AddrError(op, net, host, "no such zone in address (see: ip link)")
    if scope and scope != index:
        raise AddrError(op, net, host, f"zone and scope {scope} differ")
    return text, index
