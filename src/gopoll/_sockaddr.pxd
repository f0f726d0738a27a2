"""Socket addresses and the socket calls that the hot path makes itself. See _sockaddr.pyx."""


cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    cdef struct sockaddr:
        unsigned short sa_family
    cdef struct sockaddr_storage:
        unsigned short ss_family
    int accept4(int fd, sockaddr *addr, socklen_t *len, int flags)
    int getsockname(int fd, sockaddr *addr, socklen_t *len)
    int getpeername(int fd, sockaddr *addr, socklen_t *len)
    int getsockopt(int fd, int level, int name, void *value, socklen_t *len)
    enum:
        AF_UNSPEC
        AF_INET
        AF_INET6
        AF_UNIX
        SOCK_NONBLOCK
        SOCK_CLOEXEC

# An address of TCP or UDP as the kernel has given it; size 0: none.
cdef struct rawAddr:
    socklen_t size
    unsigned int words[7]      # a sockaddr_in or a sockaddr_in6

cdef bint rawaddr_set(rawAddr *raw, const sockaddr_storage *addr, socklen_t size) noexcept nogil
cdef object rawaddr_to_python(rawAddr *raw)
cdef str v4_text(const unsigned char *ip)
cdef object sockaddr_to_python(sockaddr_storage *addr, socklen_t size)
cdef int sockaddr_from_python(object addr, int family, sockaddr_storage *out, socklen_t *size,
                              str op, str net) except -1
