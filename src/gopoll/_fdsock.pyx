"""AcceptOp, ConnectOp and ClosingOp: how connections come to be, and when they are gone.

Made by FD's methods. Go: FD.Accept in internal/poll/fd_unix.go, netFD.connect in net/fd_unix.go
(go1.27).
"""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.errno cimport (EAGAIN, EALREADY, ECONNABORTED, EINPROGRESS, EINTR, EISCONN, ENOTCONN,
                         errno)

from gopoll._fdop cimport AGAIN, DONE, Op
from gopoll._park cimport Awaitable, ThreadWords, thread_words
from gopoll._polldesc cimport Note
from gopoll._atomic cimport load_int, store_int
from gopoll._pollcache cimport regEdge, regPlain
from gopoll._sockaddr cimport (SOCK_CLOEXEC, SOCK_NONBLOCK, accept4, getpeername, getsockname,
                               getsockopt, rawaddr_set, sockaddr, sockaddr_storage,
                               sockaddr_to_python, socklen_t)
from gopoll._sysfd cimport SysFD

from gopoll.errors import ClosedError, OpError


cdef extern from "<sys/socket.h>" nogil:
    enum:
        SOL_SOCKET
        SO_ERROR

cdef extern from "<unistd.h>" nogil:
    int close(int fd)


cdef class AcceptOp(Op):
    cdef str name(self):
        return "accept"

    cdef int step(self, PyObject **out) except -1:
        try:
            return 2 if Op.step(self, out) else 0  # what attempt gives is a StopIteration already
        except ClosedError:
            if not self.iterate:
                raise
        raise StopAsyncIteration

    cdef int attempt(self, PyObject **out) except -1:
        cdef sockaddr_storage addr
        cdef socklen_t size = sizeof(addr)
        cdef int fd
        while True:
            fd = accept4(self.fd.sysfd, <sockaddr *>&addr, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd >= 0:
                break
            if errno != ECONNABORTED:            # that one was gone before we came: the next
                self.err = errno
                return AGAIN
        stop = self.admit(fd, &addr, size)
        Py_INCREF(stop)
        out[0] = <PyObject *>stop
        return DONE

    cdef object admit(self, int fd, sockaddr_storage *addr, socklen_t size):
        """Make a connection of *fd*, which is closed if that fails (Go issue 34392).

        Return it in a StopIteration. Options such as NODELAY it has from the listener.
        """
        cdef SysFD listener = self.fd, conn
        try:
            conn = <SysFD?>self.cls.__new__(self.cls)
        except BaseException:
            close(fd)
            raise
        conn.sysfd = fd                          # its own, from here on
        conn.destroyed = 0
        conn.network = listener.network
        conn.is_stream = self.stream
        conn.zero_is_eof = self.zero_is_eof
        try:
            if not self.stream:
                conn.ask_family()
            if listener.poller is not None:
                plain = load_int(&listener.plain)
                conn.register(listener.poller, regPlain if plain else regEdge)
                store_int(&conn.plain, plain)
            if not rawaddr_set(&conn.raw_remote, addr, size):
                conn.remote_ = sockaddr_to_python(addr, size)
            size = sizeof(addr[0])
            if getsockname(fd, <sockaddr *>addr, &size) != 0:
                size = 0                         # the kernel will not say; Go ignores that too
            if not rawaddr_set(&conn.raw_local, addr, size):
                conn.local_ = sockaddr_to_python(addr, size)
            stop = StopIteration(conn)
            self.finish()                        # here: if it fails, nobody gets the connection
        except BaseException as exc:
            conn.evict()
            if isinstance(exc, OpError):
                exc.op, exc.source, exc.addr = "accept", None, listener.local_addr
            raise
        return stop


cdef class ConnectOp(Op):
    """Wait until a connect(2) that is under way has ended. Go: the loop of netFD.connect."""

    cdef str name(self):
        return "dial"

    cdef int attempt(self, PyObject **out) except -1:
        cdef sockaddr_storage addr
        cdef socklen_t size = sizeof(int)
        cdef int code = 0
        if getsockopt(self.fd.sysfd, SOL_SOCKET, SO_ERROR, &code, &size) != 0:
            self.err = errno
            return AGAIN
        if code in (EINPROGRESS, EALREADY, EINTR):
            self.err = EAGAIN
            return AGAIN
        if code != 0 and code != EISCONN:
            self.err = code
            return AGAIN
        # SO_ERROR 0 alone is no proof: a wake-up may be spurious (go-reference, lesson 8).
        size = sizeof(addr)
        if getpeername(self.fd.sysfd, <sockaddr *>&addr, &size) != 0:
            self.err = EAGAIN if errno == ENOTCONN else errno
            return AGAIN
        peer = sockaddr_to_python(&addr, size)
        Py_INCREF(peer)
        out[0] = <PyObject *>peer
        return DONE


cdef class ClosingOp(Awaitable):
    """Done when the descriptor is really closed. Go: the wait for csema in FD.Close.

    C1: it lists itself, then looks; destroy marks, then takes the list.
    """

    cdef int step(self, PyObject **out) except -1:
        cdef ThreadWords *tw = thread_words()
        if load_int(&self.fd.destroyed):
            Py_INCREF(None)
            out[0] = <PyObject *>None
            return 1
        if tw.current == NULL:
            raise RuntimeError(f"close {self.fd.network} would block outside a goroutine: await "
                               "it in gopoll.run(...), or do not await it")
        poller = <object>tw.poller           # where the waiter lives, not the connection
        with cython.critical_section(self.fd):
            if self.note is None:
                self.note = Note(poller, "close")
                if self.fd.closers is None:
                    self.fd.closers = set()
                self.fd.closers.add(self.note)
        if load_int(&self.fd.destroyed):             # C1: listed, then looked; destroy does both
            self.note.wake_word()                    # the other way round
        return self.note.step(out)

    def __del__(self):
        if self.note is not None:
            with cython.critical_section(self.fd):
                if self.fd.closers is not None:
                    self.fd.closers.discard(self.note)
