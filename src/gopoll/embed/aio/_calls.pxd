"""System calls on sockets, and what is asked of a socket object. See _calls.pyx."""

from cpython.object cimport PyObject

from gopoll._sockaddr cimport sockaddr, socklen_t

cdef extern from *:
    """
    /* Make a bytes object of so much, to be filled: whether there is memory for it. */
    static int gopoll_try_bytes(Py_ssize_t size, PyObject **out) {
      if (!(*out = PyBytes_FromStringAndSize(NULL, size))) PyErr_Clear();
      return *out != NULL;
    }
    """
    bint try_bytes "gopoll_try_bytes"(Py_ssize_t size, PyObject **out) noexcept
    int _PyBytes_Resize(PyObject **bytes, Py_ssize_t size) except -1

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL
    Py_ssize_t recvfrom(int fd, void *buf, size_t n, int flags, sockaddr *addr, socklen_t *size)
    Py_ssize_t sendto(int fd, const void *buf, size_t n, int flags, const sockaddr *addr,
                      socklen_t size)
    cdef struct iovec:
        void *iov_base
        size_t iov_len
    cdef struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    Py_ssize_t sendmsg(int fd, const msghdr *msg, int flags)
    int connect(int fd, const sockaddr *addr, socklen_t size)
    int setsockopt(int fd, int level, int name, const void *value, unsigned int size)
    enum:
        SOCK_STREAM
        SOCK_DGRAM
        SOL_SOCKET
        SO_ERROR

# None of these blocks, and no edge says when one that was interrupted is to be made again: at once.
cdef extern from * nogil:
    """
    #include <errno.h>
    #include <sys/socket.h>
    static inline ssize_t gopoll_aio_recv(int fd, void *buf, size_t n, int flags) {
      ssize_t got;
      do got = recv(fd, buf, n, flags); while (got < 0 && errno == EINTR);
      return got;
    }
    static inline ssize_t gopoll_aio_send(int fd, const void *buf, size_t n, int flags) {
      ssize_t sent;
      do sent = send(fd, buf, n, flags); while (sent < 0 && errno == EINTR);
      return sent;
    }
    """
    Py_ssize_t recv "gopoll_aio_recv"(int fd, void *buf, size_t n, int flags)
    Py_ssize_t send "gopoll_aio_send"(int fd, const void *buf, size_t n, int flags)

cdef extern from "<sys/ioctl.h>" nogil:
    enum:
        FIONREAD
    int ioctl(int fd, unsigned long request, int *value)

cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_NODELAY

cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_TCP
        IPPROTO_UDP
    cdef struct in_addr:
        pass
    cdef struct in6_addr:
        pass
    cdef struct sockaddr_in:
        unsigned short sin_port
        in_addr sin_addr
    cdef struct sockaddr_in6:
        unsigned short sin6_port
        unsigned int sin6_flowinfo
        in6_addr sin6_addr
        unsigned int sin6_scope_id

cdef extern from "<arpa/inet.h>" nogil:
    unsigned short ntohs(unsigned short)
    unsigned int ntohl(unsigned int)
    unsigned short htons(unsigned short)
    unsigned int htonl(unsigned int)
    int inet_pton(int family, const char *text, void *address)
    const char *inet_ntop(int family, const void *address, char *text, socklen_t size)

cdef extern from "<sys/un.h>" nogil:
    cdef struct sockaddr_un:
        char sun_path[108]

cdef union Address:
    sockaddr any
    sockaddr_in v4
    sockaddr_in6 v6
    sockaddr_un un

cdef struct Kind:                      # of a socket
    int family, type, proto

cdef object socket_type                # socket.socket, as it was when this was loaded

cdef int accept(int fd, Address *address, socklen_t *size) except -2
cdef object name_of(object sock, int fd)
cdef int kind_of(object sock, Kind *out) except -1
cdef bint is_tcp(object sock) except -1
cdef object read_address(const Address *address, socklen_t size)
cdef socklen_t write_address(object addr, int family, Address *out) except? 0
cdef object os_error(int err)
cdef int get_writable(object buf, Py_buffer *view) except -1
cdef int attach(object server, object transport) except -1
cdef int detach(object server, object transport) except -1
