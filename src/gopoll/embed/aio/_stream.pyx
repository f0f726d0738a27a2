"""StreamCore: a connected stream socket as a transport reads and writes it.

Called by _transport (what the program calls) and by the loop's turn (events), on the loop's thread.
The order of its callbacks, its errors and their texts are those of asyncio's transports.

Y3: an edge comes once. `readable` is set by an event and taken back by a read that has emptied the
    socket: one that says EAGAIN, or a short one, as long as no event has said more than readable or
    writable (end of file, errors, urgent data), for those may share an edge with data. Of what else
    cuts a read short no event tells, descriptors on a Unix socket, a buffer with a page missing
    (R1): there we ask. Who stops with `readable` set goes on in a turn (Y2) or at resume_reading.
Y9: a TCP transport goes on with the registration that sock_connect has made for its very socket,
    and with what its edges have said: they do not come again.
"""

import asyncio
import collections
import socket
import sys
from asyncio import constants
from asyncio.log import logger

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.contextvars cimport PyContext_CopyCurrent
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_XDECREF
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint32_t
from libc.string cimport memset

from gopoll._bytes cimport gopoll_bytes
from gopoll._epoll cimport EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP
from gopoll._fdop cimport AMPLE, DIRECT, is_own_memory
from gopoll.embed.aio._calls cimport (FIONREAD, IPPROTO_TCP, MSG_DONTWAIT, MSG_NOSIGNAL,
                                      TCP_NODELAY, _PyBytes_Resize, attach, get_writable,
                                      ioctl, iovec, is_tcp, msghdr, os_error, recv, send, sendmsg,
                                      setsockopt, try_bytes)
from gopoll.embed.aio._core cimport TransportCore
from gopoll.embed.aio._loop cimport BUFFER, LoopCore, Watcher
from gopoll.embed.aio._sockop cimport SockWatcher


cdef extern from *:
    """
    /* Enter *context*, unless somebody is in it already: whether it is to be left. */
    static int gopoll_try_enter(PyObject *context) {
      if (PyContext_Enter(context) == 0) return 1;
      PyErr_Clear();
      return 0;
    }
    """
    bint try_enter "gopoll_try_enter"(object context) noexcept
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1

cdef enum:
    WRITES = 16                        # of one turn; then others have theirs
    PIECES = 64                        # of the backlog in one writev

cdef int LOG_THRESHOLD = constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES
cdef object BufferedProtocol = asyncio.BufferedProtocol
cdef object _deque = collections.deque
cdef object SHUT_WR = socket.SHUT_WR
cdef str _WRITABLE = ("bytes, bytearray, or memoryview" if sys.version_info >= (3, 14)
                      else "bytes-like")              # as asyncio says it


cdef class StreamCore(TransportCore):
    """A stream socket, its protocol and what has not been sent yet."""

    cdef int set_up(self, LoopCore loop, transport, sock, server, context) except -1:
        """Begin with *sock*, which is its own from now on. *context*: None for a copy of this."""
        cdef int on = 1
        self.loop, self.transport, self.sock, self.server = loop, transport, sock, server
        self.fd = sock.fileno()
        self.context = PyContext_CopyCurrent() if context is None else context
        self.low, self.high = 16384, 65536
        self.tcp = is_tcp(sock)
        if self.tcp:
            setsockopt(self.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))
        if server is not None:
            attach(server, transport)
        return 0

    cdef int set_protocol(self, protocol) except -1:
        self.protocol = protocol
        self.buffered = isinstance(protocol, BufferedProtocol) or (
            hasattr(protocol, "get_buffer") and not hasattr(protocol, "data_received"))
        return 0

    # -- events

    cdef int turn(self, uint32_t events) except -1:
        if events & ~<uint32_t>(EPOLLIN | EPOLLOUT):
            self.more = True                                     # Y3
        if events & ~<uint32_t>EPOLLOUT:
            self.readable = True                                 # Y3
        PyContext_Enter(self.context)
        try:
            if self.readable and self.reads() and not self.waits_for_poll():
                self._read()
            if self.queued and (events & ~<uint32_t>EPOLLIN or events == 0):
                self._flush()
        except (SystemExit, KeyboardInterrupt):   # it ends the loop, which may be run again
            self.loop.pend(self)
            raise
        except BaseException as exc:     # asyncio has a handle around this, which takes it
            self.fatal_error(exc, "Fatal error on socket transport")
        finally:
            PyContext_Exit(self.context)
        return 0

    cdef int _register(self, uint32_t mask) except -1:
        """Have the kernel tell of *mask*, too."""
        if self.mask == 0:
            self.mask = EPOLLIN | EPOLLRDHUP | mask
            if self.tcp:
                self.mask |= EPOLLPRI
            self.loop.watch(self, self.mask)
        elif mask & ~self.mask:
            self.mask |= mask
            self.loop.rewatch(self, self.mask)
        return 0

    cdef bint succeed(self, Watcher other) except -1:
        """Go on with a registration of sock_*'s, if it is for the same socket object (Y4, Y9)."""
        if not self.tcp or type(other) is not SockWatcher:
            return False                 # a Unix socket is better off without EPOLLOUT
        if (<SockWatcher>other).ref() is not self.sock:
            return False
        self.readable |= (<SockWatcher>other).readable
        self.more |= (<SockWatcher>other).more
        return True

    cdef int _want_out(self) except -1:
        """Have the kernel tell when there is room again."""
        if not self.lent:
            self._register(EPOLLOUT)
        return 0

    cdef int start(self) except -1:
        """Begin to read: connection_made has been called."""
        self.started = True
        if self.conn_lost or self.loop is None:
            return 0
        self.began = self.loop.polls
        self._register(0)
        if self.readable and not self.paused:
            self.loop.pend(self)
        return 0

    # -- reading

    cdef bint reads(self) noexcept:
        return self.started and not (self.paused or self.closing or self.ended)

    cdef int _read(self) except -1:
        """Read and give to the protocol what has come: once, as asyncio does in a turn."""
        cdef Py_ssize_t n
        n = self._read_into() if self.buffered else self._read_data()
        if n == 0:
            return self._got_eof()
        if self.readable and not (self.paused or self.closing):
            self.loop.pend(self)                                 # Y2
        return 0

    cdef bint _is_drained(self, bint whole) noexcept:
        """Whether a short read has emptied the socket (Y3). *whole*: all of the buffer is there."""
        cdef int left = 1
        if self.more:
            return False
        return self.tcp and whole or (ioctl(self.fd, FIONREAD, &left) == 0 and left == 0)

    cdef Py_ssize_t _read_data(self) except -2:
        """Read once for data_received(): bytes read, 0 at the end of file, -1 for nothing."""
        cdef PyObject *large = NULL
        cdef char *at = self.loop.buffer
        cdef Py_ssize_t n, asked = BUFFER
        cdef int err
        if DIRECT <= self.last_read < AMPLE and try_bytes(AMPLE, &large):
            asked = AMPLE                        # into what the protocol gets: nothing to copy
            at = PyBytes_AS_STRING(<object>large)
        n = recv(self.fd, at, asked, MSG_DONTWAIT)
        err = errno
        if n <= 0:
            Py_XDECREF(large)
            return 0 if self._received(n, err) else -1
        self.last_read = n
        if n < asked and self._is_drained(True):
            self.readable = False                                # Y3
        try:
            if large == NULL:
                data = gopoll_bytes(at, n)
            else:
                _PyBytes_Resize(&large, n)
                data = <object>large
                Py_DECREF(data)
            self.protocol.data_received(data)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.fatal_error(exc, "Fatal error: protocol.data_received() call failed.")
        return n

    cdef Py_ssize_t _read_into(self) except -2:
        """The same for a BufferedProtocol, into its own buffer."""
        cdef Py_buffer view
        cdef Py_ssize_t n, err
        try:
            buf = self.protocol.get_buffer(-1)
            if not len(buf):
                raise RuntimeError("get_buffer() returned an empty buffer")
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.fatal_error(exc, "Fatal error: protocol.get_buffer() call failed.")
            return -1
        try:
            get_writable(buf, &view)
        except BaseException as exc:
            self.fatal_error(exc, "Fatal read error on socket transport")
            return -1
        n = recv(self.fd, view.buf, view.len, MSG_DONTWAIT)
        err = errno                      # here: what releases the buffer may change it
        if 0 < n < view.len and self._is_drained(is_own_memory(&view)):
            self.readable = False                                # Y3
        PyBuffer_Release(&view)
        buf = None
        if n <= 0 and not self._received(n, <int>err):
            return -1
        if n == 0:
            return 0
        try:
            self.protocol.buffer_updated(n)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.fatal_error(exc, "Fatal error: protocol.buffer_updated() call failed.")
        return n

    cdef int _received(self, Py_ssize_t n, int err) except -1:
        """Look at what recv said with *n* <= 0 and *err*: whether that was the end of file."""
        if n == 0:
            return 1
        if err == EAGAIN:
            self.readable = False                                # Y3
        else:
            self.readable = False
            self.fatal_error(os_error(err), "Fatal read error on socket transport")
        return 0

    cdef int _got_eof(self) except -1:
        """Tell the protocol of the peer's end of file, and close unless it wants to go on."""
        self.readable = False
        self.ended = True
        if self.loop._debug:
            logger.debug("%r received EOF", self.transport)
        try:
            keep_open = self.protocol.eof_received()
        except (SystemExit, KeyboardInterrupt):
            self.ended, self.readable = False, True              # to be told when the loop goes on
            raise
        except BaseException as exc:
            self.fatal_error(exc, "Fatal error: protocol.eof_received() call failed.")
            return 0
        if not keep_open:
            self.transport.close()
        return 0

    # -- writing

    cdef int write(self, data) except -1:
        cdef Py_ssize_t n = 0
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data argument must be a {_WRITABLE} object, "
                            f"not {type(data).__name__!r}")
        if self.eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self.empty_waiter is not None:
            raise RuntimeError("unable to write; sendfile is in progress")
        if not data:
            return 0
        if self.conn_lost:
            if self.conn_lost >= LOG_THRESHOLD:
                logger.warning("socket.send() raised exception.")
            self.conn_lost += 1
            return 0
        if not self.queued and self._send_now(data, &n):
            return 0
        self._keep(data, n)
        self._want_out()
        return self.maybe_pause_protocol()

    cdef int _send_now(self, data, Py_ssize_t *sent) except -1:
        """Send what goes at once: 1 if nothing is left to do, 0 if the rest after *sent* is."""
        cdef Py_buffer view
        cdef Py_ssize_t n, size, err
        if type(data) is bytes:
            size = PyBytes_GET_SIZE(data)
            n = send(self.fd, PyBytes_AS_STRING(data), size, MSG_DONTWAIT | MSG_NOSIGNAL)
            err = errno
        else:
            try:
                PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
            except BaseException as exc:
                self.fatal_error(exc, "Fatal write error on socket transport")
                return 1
            size = view.len
            n = send(self.fd, view.buf, size, MSG_DONTWAIT | MSG_NOSIGNAL)
            err = errno                  # here: what releases the buffer may change it
            PyBuffer_Release(&view)
        if n < 0:
            if err != EAGAIN:
                self._broken(<int>err)
                return 1
            n = 0
        sent[0] = n
        return n == size

    cdef int _keep(self, data, Py_ssize_t sent) except -1:
        """Put what is left of *data* after *sent* bytes into the backlog."""
        if self.backlog is None:
            self.backlog = _deque()
        if type(data) is not bytes:
            # Its owner may change it. Not all views can be cast, but what was sent in part was.
            data = bytes(memoryview(data).cast("B")[sent:] if sent else memoryview(data))
            sent = 0
        elif not self.queued:
            self.head = sent
        elif sent:
            raise AssertionError("a part of what waits was sent before the rest")
        if len(data) > sent:
            self.backlog.append(data)
            self.queued += len(data) - sent
        return 0

    cdef int writelines(self, list_of_data) except -1:
        if self.eof:
            raise RuntimeError("Cannot call writelines() after write_eof()")
        if self.empty_waiter is not None:
            raise RuntimeError("unable to writelines; sendfile is in progress")
        pieces = [piece if type(piece) is bytes else bytes(memoryview(piece))
                  for piece in list_of_data]
        if self.conn_lost:
            return self.write(b"".join(pieces))
        if not self.queued:
            self.head = 0
        for piece in pieces:
            if piece:
                self._keep(piece, 0)
        if self.queued:
            self._flush()
            if self.queued:
                self._want_out()
                self.maybe_pause_protocol()
        return 0

    cdef int _flush(self) except -1:
        """Send of the backlog what goes, for as long as the turn lasts."""
        cdef iovec vec[PIECES]
        cdef msghdr msg
        cdef int left = WRITES, count
        cdef Py_ssize_t n, skip
        memset(&msg, 0, sizeof(msg))
        while self.queued and not self.conn_lost:
            if left == 0:
                self.loop.pend(self)
                break
            left -= 1
            count, skip = 0, self.head
            for piece in self.backlog:
                vec[count].iov_base = PyBytes_AS_STRING(piece) + skip
                vec[count].iov_len = PyBytes_GET_SIZE(piece) - skip
                skip = 0
                count += 1
                if count == PIECES:
                    break
            msg.msg_iov, msg.msg_iovlen = vec, count
            n = sendmsg(self.fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL)
            if n < 0:
                if errno != EAGAIN and errno != EINTR:
                    return self._broken(errno)
                if errno == EINTR:
                    self.loop.pend(self)
                break
            self._sent(n)
        if self.conn_lost:
            return 0
        try:
            self.maybe_resume_protocol()                 # which may write, close, and end the loop
        finally:
            if not (self.queued or self.conn_lost):
                self._flushed()
        return 0

    cdef int _sent(self, Py_ssize_t n) except -1:
        """Take *n* bytes off the backlog."""
        cdef Py_ssize_t size
        self.queued -= n
        while n > 0:
            size = PyBytes_GET_SIZE(self.backlog[0]) - self.head
            if size > n:
                self.head += n
                break
            n -= size
            self.head = 0
            self.backlog.popleft()
        return 0

    cdef int _flushed(self) except -1:
        """Do what has waited for the end of the backlog."""
        if not self.tcp and self.mask & EPOLLOUT and self.slot >= 0:
            self.mask &= ~<uint32_t>EPOLLOUT     # a Unix socket tells of every read of the peer's
            self.loop.rewatch(self, self.mask)
        if self.empty_waiter is not None:
            if not self.empty_waiter.done():
                self.empty_waiter.set_result(None)
        if self.closing:
            self._lose_soon(None)        # not here: a callback of the protocol's may be under way
        elif self.eof:
            try:
                self.sock.shutdown(SHUT_WR)
            except OSError as exc:
                self.fatal_error(exc, "Fatal write error on socket transport")
        return 0

    cdef int _broken(self, int err) except -1:
        """Give up what waits: the socket cannot be written to."""
        error = os_error(err)
        if self.queued:
            self.backlog.clear()
            self.queued = self.head = 0
        self.fatal_error(error, "Fatal write error on socket transport")
        if self.empty_waiter is not None and not self.empty_waiter.done():
            self.empty_waiter.set_exception(error)
        return 0

    cdef int write_eof(self) except -1:
        if not (self.closing or self.eof):
            self.eof = True
            if not self.queued:
                self.sock.shutdown(SHUT_WR)
        return 0

    cdef int maybe_pause_protocol(self) except -1:
        """Tell the protocol to stop writing if there is too much already."""
        if self.queued <= self.high or self.protocol_paused:
            return 0
        self.protocol_paused = True
        return self._tell_flow("pause_writing")

    cdef int maybe_resume_protocol(self) except -1:
        """Tell the protocol to go on if it has been told to stop and there is little left."""
        if not self.protocol_paused or self.queued > self.low:
            return 0
        self.protocol_paused = False
        return self._tell_flow("resume_writing")

    cdef int _tell_flow(self, str method) except -1:
        cdef bint entered = try_enter(self.context)
        try:
            getattr(self.protocol, method)()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.loop.call_exception_handler({
                "message": f"protocol.{method}() failed",
                "exception": exc,
                "transport": self.transport,
                "protocol": self.protocol,
            })
        finally:
            if entered:
                PyContext_Exit(self.context)
        return 0

    # -- the end

    cdef int _lose_soon(self, exc) except -1:
        self.conn_lost += 1
        self.loop.unwatch(self)
        self.loop.call_soon(self.transport._call_connection_lost, exc, context=self.context)
        return 0

    cdef int lose(self, exc) except -1:
        try:
            return TransportCore.lose(self, exc)
        finally:
            if self.empty_waiter is not None and not self.empty_waiter.done():
                self.empty_waiter.set_exception(ConnectionError("Connection is closed by peer"))

    # -- for sendfile

    cdef int lend(self) except -1:
        """Leave the descriptor's events to somebody else."""
        self.loop.unwatch(self)
        self.mask = 0
        self.lent = True
        return 0

    cdef int take_back(self) except -1:
        """Undo lend(), unless the connection is lost by now."""
        self.lent = False
        if self.loop is not None and not self.conn_lost:
            self.readable = True         # nobody knows
            self._register(EPOLLOUT if self.queued else 0)
        return 0
