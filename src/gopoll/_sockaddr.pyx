"""Socket addresses as Python sees them: ("host", port), a path, or "@name" for abstract ones.

Called by _fd with the GIL held, on any thread. Go: net/sockaddr_posix.go (go1.27).
"""

from libc.stdint cimport uint16_t, uint32_t


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
    bint IN6_IS_ADDR_V4MAPPED(const in6_addr *addr)
    enum:
        AF_INET
        AF_INET6
        AF_UNIX

cdef extern from "<sys/un.h>" nogil:
    cdef struct sockaddr_un:
        char sun_path[108]

cdef extern from "<arpa/inet.h>" nogil:
    const char *inet_ntop(int family, const void *src, char *dst, socklen_t size)

cdef extern from "<stddef.h>" nogil:
    size_t offsetof_sun_path "offsetof(struct sockaddr_un, sun_path)"


cdef object sockaddr_to_python(sockaddr_storage *addr, socklen_t size):
    """Return the address in *addr*: None for a family that has no form here."""
    cdef char text[64]
    cdef sockaddr_in *v4 = <sockaddr_in *>addr
    cdef sockaddr_in6 *v6 = <sockaddr_in6 *>addr
    if size == 0:
        return None
    if addr.ss_family == AF_INET:
        inet_ntop(AF_INET, &v4.sin_addr, text, sizeof(text))
        return (<bytes>text).decode("ascii"), ntohs(v4.sin_port)
    if addr.ss_family == AF_INET6:
        if IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr):      # an IPv4 peer of a dual-stack socket: as in Go
            inet_ntop(AF_INET, <char *>&v6.sin6_addr + 12, text, sizeof(text))
            return (<bytes>text).decode("ascii"), ntohs(v6.sin6_port)
        inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof(text))
        host = (<bytes>text).decode("ascii")
        if v6.sin6_scope_id or v6.sin6_flowinfo:
            return host, ntohs(v6.sin6_port), ntohl(v6.sin6_flowinfo), v6.sin6_scope_id
        return host, ntohs(v6.sin6_port)
    if addr.ss_family == AF_UNIX:
        return _unix_path(<sockaddr_un *>addr, size - offsetof_sun_path)
    return None


cdef object _unix_path(sockaddr_un *addr, Py_ssize_t size):
    cdef bytes raw
    if size <= 0:
        return ""
    raw = addr.sun_path[:size]
    if raw[:1] == b"\0":
        return "@" + raw[1:].decode("utf-8", "surrogateescape")
    return raw.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
