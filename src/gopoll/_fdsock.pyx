"""AcceptOp, ConnectOp and ClosingOp: how connections come to be, and when they are gone.

Made by FD's methods. Go: FD.Accept in internal/poll/fd_unix.go, netFD.connect in net/fd_unix.go
(go1.27).

L3: who has waited for an exclusive listener, and leaves it with a connection or without, may be the
    only one who has been told of those that are there: he takes it out of epoll (L2), looks at the
    queue, and if that is not empty has the kernel tell the next who waits.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.errno cimport (EAGAIN, EALREADY, ECONNABORTED, EINPROGRESS, EINTR, EISCONN, ENOTCONN,
                         errno)

from gopoll._fdop cimport AGAIN, DONE, Op
from gopoll._park cimport Awaitable, ThreadWords, give, thread_words
from gopoll._polldesc cimport Note
from gopoll._atomic cimport load_int, load_u64, store_int
from gopoll._pollcache cimport pollDisarm, regEdge, regExclusive, regPlain
from gopoll._pollserver cimport pollserver_forked
from gopoll._sockaddr cimport (SOCK_CLOEXEC, SOCK_NONBLOCK, accept4, getpeername, getsockname,
                               getsockopt, rawaddr_set, sockaddr, sockaddr_storage,
                               sockaddr_to_python, socklen_t)
from gopoll._sysfd cimport SysFD

from gopoll.errors import ClosedError, OpError


cdef extern from * nogil:
    """
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <poll.h>
    #include <sys/socket.h>
    #ifndef TCP_NOTSENT_LOWAT
    #define TCP_NOTSENT_LOWAT 25
    #endif
    /* If there is a connection in the queue, wake the next who waits for it exclusively: TCP tells
       those who wait for room to write, too (pollmask), when an option is set that may make some.
       It keeps its value. Unix sockets have no such option. */
    static void gopoll_pass_on(int fd) {
      struct pollfd p = {fd, POLLIN, 0};
      int value;
      socklen_t size = sizeof value;
      if (poll(&p, 1, 0) > 0
          && getsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &value, &size) == 0)
        setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &value, size);
    }
    """
    void gopoll_pass_on(int fd)

cdef extern from "<sys/socket.h>" nogil:
    enum:
        SOL_SOCKET
        SO_ERROR

cdef extern from "<unistd.h>" nogil:
    int close(int fd)


cdef class AcceptOp(Op):
    cdef str name(self):
        return "accept"

    cdef str call(self):
        return "accept4"

    cdef int step(self, PyObject **out) except -1:
        try:
            return 2 if Op.step(self, out) else 0  # what attempt gives is a StopIteration already
        except OpError as exc:
            if not (self.iterate and isinstance(exc, ClosedError)):
                if exc.op == "accept":           # not that of a signal handler
                    exc.source, exc.addr = None, self.fd.local_addr
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

    cdef int park(self, PyObject **out) except -1:
        self.told = self.fd.pd != NULL and self.fd.pd.reg == regExclusive
        return Op.park(self, out)

    cdef int finish(self) except -1:
        if self.told:
            self.told = False
            self.pass_on()
        return Op.finish(self)

    cdef int pass_on(self) except -1:
        """Leave an exclusive listener to the others who wait for it (L3)."""
        cdef SysFD fd = self.fd
        if pollserver_forked(fd.ps):                                                 # A9
            return 0
        if fd.poller.hold():                         # not: the poller has gone, and with it epoll
            pollDisarm(fd.ps, fd.pd, load_u64(&fd.pd.fdseq))
        fd.poller.leave()
        gopoll_pass_on(fd.sysfd)
        return 0

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

    cdef str call(self):
        return "connect"

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
        # SO_ERROR 0 alone is no proof: a wake-up may be spurious.
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
            return give(None, out)
        if tw.current == NULL and tw.host == NULL:
            raise RuntimeError(f"close {self.fd.network} would block outside a goroutine: await "
                               "it in gopoll.run(...) or where gopoll is attached (gopoll.embed), "
                               "or do not await it")
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
