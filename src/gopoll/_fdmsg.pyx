"""Datagrams and messages: operations with an address or ancillary data.

The functions are methods of the net package's datagram and Unix connections, by assignment: their
first argument is the FD. Called in a goroutine, on the scheduler of the connection.
Go: internal/poll/fd_unix.go: ReadFrom, ReadMsg, WriteTo, WriteMsg; net/udpsock_posix.go and
net/unixsock_posix.go (go1.27).
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EISCONN, errno
from libc.limits cimport INT_MAX
from libc.stdint cimport int64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from gopoll._atomic cimport load_word, store_word
from gopoll._bytes cimport gopoll_bytes
from gopoll._fdop cimport AGAIN, DONE, PARKED, SMALL, SPENT, Op
from gopoll._fdvec cimport Vec, VecOp, iovec
from gopoll._park cimport ParkRequest, thread_words
from gopoll._pollcache cimport modeRead, modeWrite, netpollcheckerr, pollNoError
from gopoll._pollerbase cimport check_int
from gopoll._pollserver cimport netpollwake, pollserver_forked
from gopoll._sockaddr cimport (AF_UNIX, sockaddr, sockaddr_from_python, sockaddr_storage,
                               sockaddr_to_python, socklen_t)
from gopoll._sysfd cimport SysFD
from gopoll._timers cimport TIMER_WAITER, nanotime, timer_arm, timer_init, timer_stop

from gopoll.errors import OpError


cdef extern from "<sys/socket.h>" nogil:
    """
    #ifndef SCM_PIDFD                    /* Linux 6.5 */
    #define SCM_PIDFD 4
    #endif
    """
    cdef struct msghdr:
        void *msg_name
        socklen_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    cdef struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    Py_ssize_t recvfrom(int fd, void *buf, size_t n, int flags, sockaddr *addr, socklen_t *len)
    Py_ssize_t sendto(int fd, const void *buf, size_t n, int flags, const sockaddr *addr,
                      socklen_t len)
    Py_ssize_t recvmsg_ "recvmsg"(int fd, msghdr *msg, int flags)
    Py_ssize_t sendmsg_ "sendmsg"(int fd, const msghdr *msg, int flags)
    cmsghdr *CMSG_FIRSTHDR(msghdr *msg)
    cmsghdr *CMSG_NXTHDR(msghdr *msg, cmsghdr *cmsg)
    unsigned char *CMSG_DATA(cmsghdr *cmsg)
    size_t CMSG_LEN(size_t n)
    size_t CMSG_SPACE(size_t n)
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL
        MSG_CMSG_CLOEXEC
        SOL_SOCKET
        SCM_RIGHTS
        SCM_PIDFD

cdef extern from "<unistd.h>" nogil:
    int close(int fd)

cdef enum:
    NAP_NS = 1000000
    NAP_MOST_NS = 16000000


# -- reading -------------------------------------------------------------------------------------

cdef class ReadFromOp(Op):
    wait_reason = "read"

    cdef str name(self):
        return "read"

    cdef str call(self):
        return "recvfrom"

    cdef int attempt(self, PyObject **out) except -1:
        cdef char small[SMALL]
        cdef char *at
        cdef sockaddr_storage addr
        cdef socklen_t length = sizeof(addr)
        cdef Py_ssize_t n
        cdef bytes data
        if self.size <= SMALL:
            at = small
            n = recvfrom(self.fd.sysfd, at, self.size, MSG_DONTWAIT, <sockaddr *>&addr, &length)
            self.err = errno
        else:
            data = bytes_for(self, self.size)
            at = PyBytes_AS_STRING(data)
            with nogil:
                n = recvfrom(self.fd.sysfd, at, self.size, MSG_DONTWAIT, <sockaddr *>&addr,
                             &length)
                self.err = errno                 # here: attaching again may change it
        if n < 0:
            return AGAIN
        try:
            return give_pair(gopoll_bytes(at, n), n, &addr, length, out)
        except BaseException:
            self.finish()
            raise


cdef bytes bytes_for(Op op, Py_ssize_t n):
    """Return room for *n* bytes; without it the operation is over."""
    try:
        return PyBytes_FromStringAndSize(NULL, n)
    except MemoryError:
        op.finish()
        raise


cdef class ReadIntoFromOp(ReadIntoOp):
    wait_reason = "read"

    cdef str call(self):
        return "recvfrom"

    cdef int shortcut(self, PyObject **out) except -1:
        return AGAIN                             # an empty buffer takes a datagram all the same

    cdef int attempt(self, PyObject **out) except -1:
        cdef sockaddr_storage addr
        cdef socklen_t length = sizeof(addr)
        cdef Py_ssize_t n
        if self.view.len <= SMALL:
            n = recvfrom(self.fd.sysfd, self.view.buf, self.view.len, MSG_DONTWAIT,
                         <sockaddr *>&addr, &length)
            self.err = errno
        else:
            with nogil:
                n = recvfrom(self.fd.sysfd, self.view.buf, self.view.len, MSG_DONTWAIT,
                             <sockaddr *>&addr, &length)
                self.err = errno
        if n < 0:
            return AGAIN
        try:
            give_pair(n, n, &addr, length, out)
        except BaseException:
            self.finish()
            raise
        PyBuffer_Release(&self.view)
        return DONE


cdef int give_pair(object what, Py_ssize_t n, sockaddr_storage *addr, socklen_t length,
                   PyObject **out) except -1:
    pair = (what, sockaddr_to_python(addr, length))
    Py_INCREF(pair)
    out[0] = <PyObject *>pair
    thread_words().spent_bytes += n
    return DONE


cdef class RecvMsgOp(Op):
    wait_reason = "read"

    cdef str name(self):
        return "read"

    cdef str call(self):
        return "recvmsg"

    cdef int attempt(self, PyObject **out) except -1:
        cdef char small[SMALL]
        cdef sockaddr_storage addr
        cdef iovec iov
        cdef msghdr msg
        cdef Py_ssize_t n
        cdef bytes data = None
        memset(&msg, 0, sizeof(msg))
        msg.msg_name = &addr
        msg.msg_namelen = sizeof(addr)
        msg.msg_iov = &iov
        msg.msg_iovlen = 1
        msg.msg_control = self.control
        msg.msg_controllen = self.room
        iov.iov_len = self.size
        if self.size <= SMALL:
            iov.iov_base = small
            n = recvmsg_(self.fd.sysfd, &msg, self.flags)
            self.err = errno
        else:
            data = bytes_for(self, self.size)
            iov.iov_base = PyBytes_AS_STRING(data)
            with nogil:
                n = recvmsg_(self.fd.sysfd, &msg, self.flags)
                self.err = errno
        if n < 0:
            return AGAIN
        # X1: descriptors that have come in are ours until the result is handed over.
        try:
            # With MSG_TRUNC among the flags n is the message's length, not ours.
            data = PyBytes_FromStringAndSize(<char *>iov.iov_base, min(n, self.size))
            stop = StopIteration((data, ancillary(&msg), msg.msg_flags & ~MSG_CMSG_CLOEXEC,
                                  sockaddr_to_python(&addr, msg.msg_namelen)))
            self.finish()
        except BaseException:
            close_received(&msg)
            self.finish()
            raise
        thread_words().spent_bytes += n
        Py_INCREF(stop)
        out[0] = <PyObject *>stop
        return DONE

    cdef int step(self, PyObject **out) except -1:
        return 2 if Op.step(self, out) else 0    # what attempt gives is a StopIteration already

    def __dealloc__(self):
        free(self.control)


cdef size_t data_length(msghdr *msg, cmsghdr *cmsg) noexcept:
    """How much of a message's data is really there: the last may be cut short."""
    cdef size_t head = CMSG_LEN(0)
    cdef size_t before = <char *>cmsg - <char *>msg.msg_control
    if cmsg.cmsg_len < head or msg.msg_controllen < before + head:
        return 0
    return min(cmsg.cmsg_len, msg.msg_controllen - before) - head


cdef list ancillary(msghdr *msg):
    """Return [(level, type, data), ...], as socket.recvmsg does."""
    cdef list out = []
    cdef cmsghdr *cmsg = CMSG_FIRSTHDR(msg)
    while cmsg != NULL:
        data = PyBytes_FromStringAndSize(<char *>CMSG_DATA(cmsg), data_length(msg, cmsg))
        out.append((cmsg.cmsg_level, cmsg.cmsg_type, data))
        cmsg = CMSG_NXTHDR(msg, cmsg)
    return out


cdef void close_received(msghdr *msg) noexcept:
    """Close the descriptors in a message that nobody will get (X1)."""
    cdef cmsghdr *cmsg = CMSG_FIRSTHDR(msg)
    cdef size_t i
    cdef int fd
    while cmsg != NULL:
        if cmsg.cmsg_level == SOL_SOCKET and cmsg.cmsg_type in (SCM_RIGHTS, SCM_PIDFD):
            for i in range(data_length(msg, cmsg) // sizeof(int)):
                memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(int))
                if fd >= 0:
                    close(fd)
        cmsg = CMSG_NXTHDR(msg, cmsg)


# -- writing -------------------------------------------------------------------------------------

cdef int refuse_connected(Op op, object addr) except -1:
    """Raise, after finish(), if the connection has a peer of its own. Go: ErrWriteToConnected."""
    cdef SysFD fd = op.fd
    if fd.remote_ is None and fd.raw_remote.size == 0:
        return 0
    op.finish()
    raise OpError(op.name(), fd.network, fd.local_addr, addr,
                  "use of write_to with pre-connected connection", errno=EISCONN, written=0,
                  hint="leave the address out: write")


@cython.no_gc_clear
cdef class Nap(ParkRequest):
    """A moment's wait with the lock held, before the next attempt.

    An unconnected Unix datagram socket is not told when its receiver has room again, and each
    attempt makes it writable at once: waiting for that would spin (measured: 600,000 a second, in
    Go too). So it looks again after 1 ms, and twice as long each time up to 16; so long its close
    and its deadline may take to be seen. no_gc_clear: __dealloc__ finds the heap by the poller.
    """
    wait_reason = "write"

    cdef bint commit_word(self, PyObject *waiter) noexcept:
        cdef int rc
        store_word(<uintptr_t *>&self.node.arg, <uintptr_t>waiter)
        rc = timer_arm(&self.ps.timers, &self.node, nanotime() + self.ns, 0)
        if rc > 0:
            netpollwake(self.ps)                 # P5
        return rc >= 0

    cdef int abort_word(self, PyObject *waiter) noexcept:
        if load_word(<uintptr_t *>&self.node.arg) != <uintptr_t>waiter:
            return 0
        return timer_stop(&self.ps.timers, &self.node)

    def __dealloc__(self):
        if self.ps != NULL and not pollserver_forked(self.ps):                       # A9
            if timer_stop(&self.ps.timers, &self.node):
                Py_DECREF(<object><PyObject *>self.node.arg)


cdef Nap next_nap(Op op, Nap last):
    """Announce the next one: op lets the others run, with its lock. Raises if op is over."""
    cdef SysFD fd = op.fd
    cdef Nap nap
    cdef int rc
    op.check_thread()
    rc = netpollcheckerr(fd.pd, modeWrite)
    if rc != pollNoError:
        op.fail(rc)
    try:
        nap = Nap.__new__(Nap)
    except MemoryError:                          # who parks is not looked after, as attempt is
        op.finish()
        raise
    nap.poller = fd.poller
    nap.ps = fd.ps
    nap.ns = NAP_NS if last is None else min(2 * last.ns, <int64_t>NAP_MOST_NS)
    timer_init(&nap.node, TIMER_WAITER, NULL)
    op.phase = SPENT
    return nap


cdef class WriteToOp(WriteOp):
    wait_reason = "write"

    cdef str call(self):
        return "sendto"

    cdef int park(self, PyObject **out) except -1:
        if self.to.ss_family != AF_UNIX or self.fd.pd == NULL:
            return WriteOp.park(self, out)
        self.nap = next_nap(self, self.nap)
        Py_INCREF(self.nap)
        out[0] = <PyObject *>self.nap
        return PARKED

    cdef object peer(self):
        return self.addr

    cdef int shortcut(self, PyObject **out) except -1:
        refuse_connected(self, self.addr)
        return AGAIN

    cdef int attempt(self, PyObject **out) except -1:
        cdef Py_ssize_t n, left = self.view.len
        cdef object count
        if left <= SMALL:
            n = sendto(self.fd.sysfd, self.view.buf, left, MSG_NOSIGNAL | MSG_DONTWAIT,
                       <sockaddr *>&self.to, self.length)
            self.err = errno
        else:
            with nogil:
                n = sendto(self.fd.sysfd, self.view.buf, left, MSG_NOSIGNAL | MSG_DONTWAIT,
                           <sockaddr *>&self.to, self.length)
                self.err = errno
        if n < 0:
            return AGAIN
        thread_words().spent_bytes += n
        count = n
        Py_INCREF(count)
        out[0] = <PyObject *>count
        PyBuffer_Release(&self.view)
        return DONE


cdef class SendMsgOp(VecOp):
    wait_reason = "write"

    cdef str name(self):
        return "write"

    cdef str call(self):
        return "sendmsg"

    cdef object peer(self):
        return self.fd.remote_addr if self.length == 0 else self.addr

    cdef int shortcut(self, PyObject **out) except -1:
        if self.length != 0:
            refuse_connected(self, self.addr)
        return AGAIN

    cdef int park(self, PyObject **out) except -1:
        if self.length == 0 or self.to.ss_family != AF_UNIX or self.fd.pd == NULL:
            return VecOp.park(self, out)
        self.nap = next_nap(self, self.nap)
        Py_INCREF(self.nap)
        out[0] = <PyObject *>self.nap
        return PARKED

    cdef Py_ssize_t put(self, iovec *iov, int n) noexcept nogil:
        cdef msghdr msg
        memset(&msg, 0, sizeof(msg))
        if self.length != 0:
            msg.msg_name = &self.to
            msg.msg_namelen = self.length
        msg.msg_iov = iov
        msg.msg_iovlen = n
        if self.written == 0:                    # with the first byte, not with the others
            msg.msg_control = self.control
            msg.msg_controllen = self.room
        return sendmsg_(self.fd.sysfd, &msg, self.flags)

    cdef int pack(self, object ancdata) except -1:
        """Make the control buffer of [(level, type, data), ...]."""
        cdef list items = []
        cdef size_t room = 0
        cdef msghdr msg
        cdef cmsghdr *cmsg
        try:
            for level, kind, data in ancdata:
                items.append((<int>level, <int>kind, bytes(memoryview(data))))
        except (TypeError, ValueError):
            raise TypeError("ancillary data must be a list of tuples (level, type, data), two ints "
                            "and bytes") from None
        for _, _, data in items:
            room += CMSG_SPACE(len(<bytes>data))
            if room > INT_MAX:
                raise OSError("too much ancillary data")
        if room == 0:
            return 0
        self.control = <char *>calloc(1, room)   # NXTHDR looks at the length of what follows
        if self.control == NULL:
            raise MemoryError
        self.room = room
        memset(&msg, 0, sizeof(msg))
        msg.msg_control = self.control
        msg.msg_controllen = room
        cmsg = CMSG_FIRSTHDR(&msg)
        for level, kind, data in items:
            cmsg.cmsg_level = level
            cmsg.cmsg_type = kind
            cmsg.cmsg_len = CMSG_LEN(len(<bytes>data))
            memcpy(CMSG_DATA(cmsg), <char *>(<bytes>data), len(<bytes>data))
            cmsg = CMSG_NXTHDR(&msg, cmsg)
        return 0

    def __dealloc__(self):
        free(self.control)


# -- methods -------------------------------------------------------------------------------------

def read_from(SysFD fd not None, Py_ssize_t n=SMALL):
    """Read one message of at most *n* bytes: (bytes, address of the sender). An op.

    What is longer is cut; an empty one is b"", and n == 0 takes one too. The address is None where
    the sender has none. Raises ClosedError, TimeoutError (deadline), another OpError.
    Go: UDPConn.ReadFrom.
    """
    cdef ReadFromOp op
    if n < 0:
        raise ValueError(f"cannot read {n} bytes: n must not be negative")
    op = ReadFromOp.__new__(ReadFromOp)
    op.fd = fd
    op.mode = modeRead
    op.size = n
    return op


def readinto_from(SysFD fd not None, buffer):
    """Read one message into a writable *buffer*: (length, address of the sender). An op.

    As read_from, without allocating.
    """
    cdef ReadIntoFromOp op = ReadIntoFromOp.__new__(ReadIntoFromOp)
    PyObject_GetBuffer(buffer, &op.view, PyBUF_WRITABLE)
    op.fd = fd
    op.mode = modeRead
    return op


def recvmsg(SysFD fd not None, Py_ssize_t n, Py_ssize_t ancbufsize=0, flags=0):
    """Read one message with what came beside it: (bytes, ancdata, msg_flags, address). An op.

    The arguments and the result are those of socket.recvmsg, with room for *ancbufsize* bytes of
    ancillary data (socket.CMSG_SPACE). Descriptors that come in are closed on exec, and the
    caller's to close. MSG_TRUNC and MSG_CTRUNC in msg_flags: something was cut.
    Raises as read_from. Go: UDPConn.ReadMsgUDP, UnixConn.ReadMsgUnix.
    """
    cdef RecvMsgOp op
    cdef int wanted = check_int(flags, "flags")
    if n < 0:
        raise ValueError(f"cannot read {n} bytes: n must not be negative")
    if not 0 <= ancbufsize <= INT_MAX:
        raise ValueError(f"ancbufsize {ancbufsize} is not in 0..{INT_MAX}")
    op = RecvMsgOp.__new__(RecvMsgOp)
    if ancbufsize > 0:
        op.control = <char *>malloc(ancbufsize)
        if op.control == NULL:
            raise MemoryError
    op.fd = fd
    op.mode = modeRead
    op.size = n
    op.room = ancbufsize
    op.flags = wanted | MSG_CMSG_CLOEXEC | MSG_DONTWAIT
    return op


def write_to(SysFD fd not None, data, addr):
    """Send *data* as one message to *addr* and return its length. An op.

    addr: (host, port) or "host:port" with a literal host, or a path. Raises AddrError at once;
    ClosedError, TimeoutError (deadline), another OpError: too long (EMSGSIZE), a connection that
    has its peer. Go: UDPConn.WriteTo, UnixConn.WriteTo.
    """
    cdef WriteToOp op = WriteToOp.__new__(WriteToOp)
    sockaddr_from_python(addr, fd.family, &op.to, &op.length, "write", fd.network)
    PyObject_GetBuffer(data, &op.view, PyBUF_SIMPLE)
    op.addr = addr
    op.fd = fd
    op.mode = modeWrite
    return op


def sendmsg(SysFD fd not None, buffers, ancdata=(), flags=0, addr=None):
    """Send *buffers* as one message, with what goes beside it, and return the length. An op.

    The arguments are those of socket.sendmsg. On a stream everything is written, *ancdata* with
    the first byte, or an error says in .written how much; there must be a byte to carry it.
    Descriptors in *ancdata* stay open until it is over. Raises as write_to.
    Go: UDPConn.WriteMsgUDP, UnixConn.WriteMsgUnix.
    """
    cdef SendMsgOp op = SendMsgOp.__new__(SendMsgOp)
    op.flags = check_int(flags, "flags") | MSG_NOSIGNAL | MSG_DONTWAIT
    if addr is not None:
        sockaddr_from_python(addr, fd.family, &op.to, &op.length, "write", fd.network)
    op.pack(ancdata)
    op.vec = Vec()
    op.vec.fill(buffers)
    if op.room and fd.is_stream and op.vec.left == 0:
        raise ValueError("ancillary data on a stream goes with a byte: send at least one")
    op.addr = addr
    op.fd = fd
    op.mode = modeWrite
    return op
