"""What EventLoop's sock_* calls return, but for sock_sendfile: coroutines of ours.

Called by asyncio's tasks on the loop's thread. asyncio registers a descriptor for each wait and
takes it out again; here it is registered once, edge-triggered, and stays so until somebody else
wants it (a transport, add_reader) or it is closed.

Y4: a descriptor's number says nothing: its socket may have been closed and the number be another's.
    The watcher of a number is used only for the very socket object that it was made for; for any
    other one it is replaced by a new registration.
Y5: a socket that an operation waits for is open, and its number its own: whoever closes it closes
    it when the operation has ended. socket counts its users for makefile(); we are one.
Y8: of the sock_sendall under way on a socket only the first sends, until it has ended; it wakes the
    next then. So each one's bytes stay together, in the order of the calls.
Y10: a wake-up says nothing: a socket is connected when it has no error and a peer.
Y12: who waits for what add_reader() or add_writer() takes is not woken: it would take that back.
    As in asyncio, it waits until it is cancelled.
"""

import weakref

import _socket

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.errno cimport EAGAIN, EBADF, EINPROGRESS, EINTR, ENOTCONN, errno
from libc.stdint cimport uint32_t

from gopoll._bytes cimport gopoll_bytes
from gopoll._epoll cimport EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP
from gopoll._park cimport Awaitable, give, never_awaited, set_iternext
from gopoll._sockaddr cimport AF_INET, AF_INET6, AF_UNIX, getpeername, getsockopt, socklen_t
from gopoll.embed.aio._calls cimport (IPPROTO_TCP, IPPROTO_UDP, MSG_DONTWAIT, MSG_NOSIGNAL,
                                      SO_ERROR, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET, Address, Kind,
                                      connect, get_writable, is_tcp, kind_of, os_error,
                                      read_address, recv, send, socket_type, write_address)
from gopoll.embed.aio._loop cimport BUFFER, LoopCore, Watcher


cdef extern from *:
    int PySys_Audit(const char *event, const char *format, ...) except -1

cdef enum:                             # as in selectors
    READS = 1
    WRITES = 2

cdef object _connect = _socket.socket.connect
cdef object _ref = weakref.ref


cdef class SockWatcher(Watcher):
    """The registration of a socket that sock_* waits for."""

    cdef int set_up(self, LoopCore loop, sock, int fd) except -1:
        self.loop, self.fd, self.ref = loop, fd, _ref(sock)
        self.tcp = is_tcp(sock)
        self.readers, self.writers, self.sending = [], [], []
        self.mask = EPOLLIN | EPOLLRDHUP
        if self.tcp:
            self.mask |= EPOLLPRI
        return 0

    cdef int turn(self, uint32_t events) except -1:
        if events & ~<uint32_t>(EPOLLIN | EPOLLOUT):
            self.more = True                                     # Y3
        if events & ~<uint32_t>EPOLLOUT:
            self.readable = True                                 # Y3
            if self.readers:
                self._wake(self.readers)
        if events & ~<uint32_t>EPOLLIN and self.writers:
            self._wake(self.writers)
        return 0

    cdef int _wake(self, list ops) except -1:
        """Let all of *ops* try again."""
        cdef object future
        while ops:
            future = (<SockOp>ops.pop(0)).future
            if not future.done():
                future.set_result(None)
        return 0

    cdef int forsake(self, int taken) except -1:
        if not self.loop._closed:
            if not taken & READS:                                # Y12
                self._wake(self.readers)
            return 0 if taken & WRITES else self._wake(self.writers)
        for op in self.readers + self.writers:                   # there is nobody to wake them
            (<SockOp>op).done = True
            (<SockOp>op)._let_go()
        return 0


cdef class SockOp(Awaitable):
    """One operation on a socket; a subclass says in attempt() what."""

    def __init__(self, LoopCore loop not None, sock):
        self.loop, self.sock = loop, sock

    cdef str name(self):
        """The name of the call that has made it."""
        raise NotImplementedError

    @property
    def __name__(self):
        """For asyncio, which says in the repr of a task what runs in it."""
        return f"EventLoop.{self.name()}"

    cdef int attempt(self, int fd, PyObject **out) except -1:
        """Try once: 1 and the result as a new reference, or 0 if it would block. OSError."""
        raise NotImplementedError

    cdef int step(self, PyObject **out) except -1:
        cdef int fd
        cdef object future
        if self.done:
            raise RuntimeError("cannot reuse already awaited coroutine")
        if self.future is not None:
            if not self.future.done():
                raise RuntimeError("coroutine is being awaited already")
            self._unlist()
        try:
            fd = self.sock.fileno()
            if self.watcher is None or self.watcher.fd != fd or self.watcher.slot < 0:
                self._find(fd)
            if self.attempt(fd, out):
                self.done = True
                self._let_go()
                return 1
            future = self._park(fd)
        except BaseException:
            self.close()
            raise
        future._asyncio_future_blocking = True
        give(future, out)
        return 0

    cdef int _find(self, int fd) except -1:
        """Look for the registration of the socket, whose descriptor is *fd* (Y4)."""
        cdef object found = self.loop.socks.get(fd)
        self.watcher = None
        if found is not None and (<SockWatcher>found).ref() is self.sock:
            self.watcher = <SockWatcher>found
        return 0

    cdef object _park(self, int fd):
        """Return a future that is done when it is time to try again."""
        cdef SockWatcher w = self.watcher
        if fd < 0:
            raise os_error(EBADF)
        self.future = future = self.loop.create_future()
        if not self.held:
            self.sock._io_refs += 1
            self.held = True                                     # Y5
        if w is None:
            self.loop._ensure_fd_no_transport(fd)
            if fd in self.loop.selector.keys:            # add_reader() or add_writer() has it
                self.loop._settle_when_ready(fd, self.writes, future)
                return future
            self.watcher = w = SockWatcher.__new__(SockWatcher)
            w.set_up(self.loop, self.sock, fd)
            if self.writes:
                w.mask |= EPOLLOUT
            self.loop.watch(w, w.mask)
            self.loop.socks[fd] = w
        elif self.writes and not w.mask & EPOLLOUT:
            w.mask |= EPOLLOUT
            self.loop.rewatch(w, w.mask)
        (w.writers if self.writes else w.readers).append(self)
        return future

    def __del__(self):
        if self.held:                    # of a task that nobody has finished
            self.close()
        elif not self.done and self.sock is not None:    # who has begun holds it till all is done
            never_awaited(f"coroutine 'EventLoop.{self.name()}'", self)

    cdef int _unlist(self) except -1:
        """Wait no more."""
        cdef list ops
        future, self.future = self.future, None
        if self.watcher is not None:
            ops = self.watcher.writers if self.writes else self.watcher.readers
            if self in ops:
                ops.remove(self)
        if not (future.done() or self.loop._closed):
            future.cancel()
        return 0

    cdef int _let_go(self) except -1:
        """Let the socket be closed again (Y5)."""
        if self.held:
            self.held = False
            self.sock._io_refs -= 1
            if self.sock._closed:
                self.sock.close()
        return 0

    cdef bint _may_read(self) noexcept:
        """Whether a read can find something: not after one that has emptied the socket (Y3)."""
        return self.watcher is None or self.watcher.readable

    cdef int _has_read(self, Py_ssize_t n, Py_ssize_t most) except -1:
        """Keep what a read of *n* of *most* bytes says: 1, or 0 if there is nothing. OSError."""
        cdef int err = errno
        cdef SockWatcher w = self.watcher
        if n >= 0:
            if w is not None and w.tcp and 0 < n < most and not w.more:
                w.readable = False                               # Y3
            return 1
        if err == EAGAIN:
            if w is not None:
                w.readable = False                               # Y3
        else:
            raise os_error(err)
        return 0

    # -- a coroutine, as asyncio asks for one

    def send(self, value):
        """Go on. StopIteration with the result."""
        cdef PyObject *out = NULL
        cdef int rc = self.step(&out)
        cdef object given = <object>out
        Py_DECREF(given)                     # step() has made it for us
        if rc == 0:
            return given
        raise StopIteration(given)

    def throw(self, typ, val=None, tb=None):
        """End it with an error."""
        self.close()
        if isinstance(typ, type):
            typ = typ() if val is None else val if isinstance(val, typ) else typ(val)
        if tb is not None:
            typ = typ.with_traceback(tb)
        raise typ

    def close(self):
        """End it; a second call does nothing."""
        self.done = True
        if self.future is not None:
            self._unlist()
        self._let_go()


cdef class RecvOp(SockOp):
    """sock_recv: bytes, empty at the end of file."""

    def __init__(self, LoopCore loop not None, sock, Py_ssize_t n):
        self.loop, self.sock = loop, sock
        self.n = n

    cdef str name(self):
        return "sock_recv"

    cdef int attempt(self, int fd, PyObject **out) except -1:
        cdef Py_ssize_t n, most = self.n
        cdef object data
        if fd < 0 or most <= 0 or most > BUFFER:
            try:
                data = self.sock.recv(most)
            except BlockingIOError:
                if self.watcher is not None:
                    self.watcher.readable = False
                return 0
            return give(data, out)
        if not self._may_read():
            return 0
        n = recv(fd, self.loop.buffer, most, MSG_DONTWAIT)
        if not self._has_read(n, most):
            return 0
        data = gopoll_bytes(self.loop.buffer, n)
        return give(data, out)


cdef class RecvIntoOp(SockOp):
    """sock_recv_into: the number of bytes, 0 at the end of file."""

    def __init__(self, LoopCore loop not None, sock, buf):
        self.loop, self.sock = loop, sock
        self.buf = buf

    cdef str name(self):
        return "sock_recv_into"

    cdef int attempt(self, int fd, PyObject **out) except -1:
        cdef Py_buffer view
        cdef Py_ssize_t n
        cdef object count
        if fd < 0:
            self.sock.recv_into(self.buf)
        get_writable(self.buf, &view)            # what is none is told at once
        try:
            if not self._may_read():
                return 0
            n = recv(fd, view.buf, view.len, MSG_DONTWAIT)
            # Somebody's own memory: a missing page cuts a read as well, so this tells nothing.
            if not self._has_read(n, 0):
                return 0
        finally:
            PyBuffer_Release(&view)
        count = n
        return give(count, out)


cdef class SendallOp(SockOp):
    """sock_sendall: None when all has been sent."""

    def __init__(self, LoopCore loop not None, sock, data):
        self.loop, self.sock = loop, sock
        self.data = data
        self.writes = True

    cdef str name(self):
        return "sock_sendall"

    cdef int attempt(self, int fd, PyObject **out) except -1:
        cdef Py_buffer view
        cdef Py_ssize_t n = 0, size
        cdef int err = 0
        if fd < 0:
            self.sock.send(self.data)
        if (self.watcher is not None and self.watcher.sending
                and self.watcher.sending[0] is not self):
            return 0                                             # Y8
        if type(self.data) is bytes:
            size = len(self.data)
            n = _send_all(fd, PyBytes_AS_STRING(self.data), size, &self.at, &err)
        else:
            PyObject_GetBuffer(self.data, &view, PyBUF_SIMPLE)
            size = view.len
            n = _send_all(fd, <char *>view.buf, size, &self.at, &err)
            PyBuffer_Release(&view)
        if n < 0 and err != EAGAIN:
            raise os_error(err)
        if n < 0:
            if type(self.data) is not bytes:
                self.data = memoryview(self.data)        # held: where it goes on must stay there
            return 0
        return give(None, out)

    cdef object _park(self, int fd):
        cdef object future = SockOp._park(self, fd)
        if self.line is not self.watcher:
            self._leave()
            if self.watcher is not None:
                self.line = self.watcher
                self.line.sending.append(self)                   # Y8
        return future

    cdef int _let_go(self) except -1:
        self.data = None                         # a task that has ended keeps the operation
        if self.line is not None:
            self._leave()
        return SockOp._let_go(self)

    cdef int _leave(self) except -1:
        """Let the next one send (Y8)."""
        cdef SockWatcher line = self.line
        cdef bint first
        cdef object future
        if line is None:
            return 0
        self.line = None
        first = line.sending[0] is self
        line.sending.remove(self)
        if first and line.sending and not self.loop._closed:
            future = (<SendallOp>line.sending[0]).future
            if future is not None and not future.done():
                future.set_result(None)
        return 0


cdef class CallOp(SockOp):
    """A call of the socket's own, made again until it would not block: (name, function, args)."""

    def __init__(self, LoopCore loop not None, sock, str called not None, function,
                 tuple args not None, bint writes):
        self.loop, self.sock = loop, sock
        self.called, self.function, self.args, self.writes = called, function, args, writes

    cdef str name(self):
        return self.called

    cdef int attempt(self, int fd, PyObject **out) except -1:
        cdef object result
        try:
            result = self.function(*self.args)
        except BlockingIOError:
            if not self.writes and self.watcher is not None:
                self.watcher.readable = False                    # Y3
            return 0
        return give(result, out)


cdef class ConnectOp(SockOp):
    """sock_connect, to an address that needs no looking up: None. `peer` is whom it has reached."""

    def __init__(self, LoopCore loop not None, sock):
        self.loop, self.sock = loop, sock
        self.writes = True

    cdef str name(self):
        return "sock_connect"

    cdef bint aim(self, address) except -1:
        """Have it connect to *address*: whether it can."""
        cdef Kind kind
        kind_of(self.sock, &kind)
        self.family, self.address = kind.family, address
        if kind.family == AF_INET or kind.family == AF_INET6:
            if (kind.type != SOCK_STREAM and kind.type != SOCK_DGRAM
                    or kind.proto not in (0, IPPROTO_TCP, IPPROTO_UDP)):
                return False
        elif kind.family != AF_UNIX:
            return False
        self.size = write_address(address, kind.family, &self.raw)
        if kind.family == AF_INET6 and self.size:
            self.address = address + (0, 0)[len(address) - 2:]
        return self.size != 0 and socket_type.connect is _connect        # or it is somebody's

    cdef int attempt(self, int fd, PyObject **out) except -1:
        cdef Address peer
        cdef socklen_t size = sizeof(int)
        cdef int err = 0
        if fd < 0:
            raise os_error(EBADF)
        if not self.begun:
            self.begun = True
            PySys_Audit("socket.connect", "OO", <PyObject *>self.sock, <PyObject *>self.address)
            with nogil:
                if connect(fd, &self.raw.any, self.size) != 0:
                    err = errno
            if err == EINPROGRESS or err == EAGAIN or err == EINTR:
                return 0
            if err:
                raise os_error(err)
        elif getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &size) != 0:
            raise os_error(errno)
        elif err:
            raise OSError(err, f"Connect call failed {self.address}")
        elif self.family != AF_UNIX:
            size = sizeof(peer)
            if getpeername(fd, &peer.any, &size) == 0:
                self.peer = read_address(&peer, size)
            elif errno == ENOTCONN:          # it is still under way (Y10)
                return 0
        return give(None, out)


def _accept(sock):
    """Accept a connection, without blocking: (socket, address)."""
    conn, address = sock.accept()
    conn.setblocking(False)
    return conn, address


cdef int _send_all(int fd, const char *data, Py_ssize_t size, Py_ssize_t *at, int *err) noexcept:
    """Send *data* from *at on: 0 when all is gone, -1 with *err if not."""
    cdef Py_ssize_t n
    while True:
        n = send(fd, data + at[0], size - at[0], MSG_DONTWAIT | MSG_NOSIGNAL)
        if n >= 0:
            at[0] += n
            if at[0] >= size:
                return 0
        else:
            err[0] = errno
            return -1


for _cls in (SockOp, RecvOp, RecvIntoOp, SendallOp, CallOp, ConnectOp):
    set_iternext(_cls)


cdef bint _is_asyncios(LoopCore loop, sock) except -1:
    """Whether *sock* is none of ours: a class of its own, or what asyncio refuses in debug mode."""
    return type(sock) is not socket_type or (loop._debug and sock.gettimeout() != 0)


class SockCalls:
    """The calls of a loop that give one of these. What they cannot do is asyncio's, as before."""

    def sock_recv(self, sock, n):
        """Receive at most *n* bytes of *sock*; empty at the end of file."""
        if _is_asyncios(self, sock):
            return super().sock_recv(sock, n)
        return RecvOp(self, sock, n)

    def sock_recv_into(self, sock, buf):
        """Receive into *buf*; return the number of bytes, 0 at the end of file."""
        if _is_asyncios(self, sock):
            return super().sock_recv_into(sock, buf)
        return RecvIntoOp(self, sock, buf)

    def sock_sendall(self, sock, data):
        """Send all of *data*."""
        if _is_asyncios(self, sock):
            return super().sock_sendall(sock, data)
        return SendallOp(self, sock, data)

    def sock_recvfrom(self, sock, bufsize):
        """Receive a datagram of at most *bufsize* bytes: (bytes, address)."""
        if bufsize < 0 or _is_asyncios(self, sock):
            return super().sock_recvfrom(sock, bufsize)
        return CallOp(self, sock, "sock_recvfrom", sock.recvfrom, (bufsize,), False)

    def sock_recvfrom_into(self, sock, buf, nbytes=0):
        """Receive a datagram into *buf*, at most *nbytes* or what it holds: (bytes, address)."""
        if _is_asyncios(self, sock):
            return super().sock_recvfrom_into(sock, buf, nbytes)
        return CallOp(self, sock, "sock_recvfrom_into", sock.recvfrom_into, (buf, nbytes), False)

    def sock_sendto(self, sock, data, address):
        """Send *data* to *address*; return the number of bytes."""
        if _is_asyncios(self, sock):
            return super().sock_sendto(sock, data, address)
        return CallOp(self, sock, "sock_sendto", sock.sendto, (data, address), True)

    def sock_accept(self, sock):
        """Accept a connection: (socket, address)."""
        if _is_asyncios(self, sock):
            return super().sock_accept(sock)
        return CallOp(self, sock, "sock_accept", _accept, (sock,), False)

    def sock_connect(self, sock, address):
        """Connect *sock* to *address*."""
        cdef ConnectOp op
        if not _is_asyncios(self, sock):
            op = ConnectOp(self, sock)
            if op.aim(address):
                return op
            op.close()
        return self._connect_looked_up(sock, address)
