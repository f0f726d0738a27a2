"""DatagramCore: a datagram socket as a transport reads and writes it.

Called by _endpoint (what the program calls) and by the loop's turn (events), on the loop's thread.
The order of its callbacks, its errors and their texts are those of asyncio's transport. That reads
one datagram a turn; here a turn reads on as long as asyncio's next would have nothing else to do.

Y6: an edge comes once, and a datagram tells nothing of the next. `readable` is set by an event and
    taken back by EAGAIN alone. Who stops with it set goes on in a turn (Y2) or at resume_reading.
Y7: a backlog always has somebody who comes for it: an edge for room, asked for after the EAGAIN; a
    pending turn; or, where the kernel tells nobody of room, a timer.
"""

import asyncio
import collections
import socket
import sys
from asyncio import constants
from asyncio.log import logger

import _socket

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.contextvars cimport PyContext_CopyCurrent
from libc.errno cimport EAGAIN, EBADF, EINTR, ENOTSOCK, errno
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcmp, memcpy

from gopoll._bytes cimport gopoll_bytes
from gopoll._epoll cimport EPOLLIN, EPOLLOUT
from gopoll._sockaddr cimport AF_INET, AF_INET6, AF_UNIX, socklen_t
from gopoll._timers cimport nanotime
from gopoll.embed.aio._calls cimport (MSG_DONTWAIT, MSG_NOSIGNAL, Address, os_error, read_address,
                                      recvfrom, write_address)
from gopoll.embed.aio._calls cimport sendto as send_to
from gopoll.embed.aio._core cimport TransportCore
from gopoll.embed.aio._loop cimport BUFFER, LoopCore


cdef extern from *:
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1

cdef enum:
    READS = 64                         # of one turn; then others have theirs
    SLICE = 100000                     # ns that a turn reads; of a slow protocol it is one datagram
    WRITES = 64                        # of the backlog, the same

cdef double SOON = 0.00005             # seconds to the first try where no event tells of room, ...
cdef double LATE = 0.002               # ... and between later ones at most (Y7)
cdef bint EMPTY_TOO = sys.version_info >= (3, 13)     # an empty datagram is sent, not dropped
cdef int HEADER = 8 if EMPTY_TOO else 0               # bytes that each counts beside its own
cdef int LOG_THRESHOLD = constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES
cdef object _deque = collections.deque
cdef object _family = _socket.socket.family.__get__
cdef object _socket_type = socket.socket


cdef class DatagramCore(TransportCore):
    """A datagram socket, its protocol and what has not been sent yet."""

    def __init__(self, LoopCore loop not None, transport, sock, address, bint connected):
        self.loop, self.transport, self.sock, self.address = loop, transport, sock, address
        self.fd, self.connected = sock.fileno(), connected
        self.context = PyContext_CopyCurrent()
        self.backlog = _deque()
        self.delay = SOON
        self.family = _family(sock) if issubclass(type(sock), _socket.socket) else -1
        self.native = (type(sock) is _socket_type
                       and self.family in (AF_INET, AF_INET6, AF_UNIX))

    # -- events

    cdef bint writes(self) noexcept:
        return self.writing

    cdef int turn(self, uint32_t events) except -1:
        if events & ~<uint32_t>EPOLLOUT:
            self.readable = True                                 # Y6
        if self.readable and self.reads() and not self.waits_for_poll():
            self._in_context(self.context, False)
        if self.writing and (events & ~<uint32_t>EPOLLIN or events == 0):
            self._in_context(self.write_context, True)
        return 0

    cdef int _in_context(self, context, bint writes) except -1:
        """Read or write; what the protocol raises is told as asyncio tells of a callback's."""
        cdef LoopCore loop = self.loop
        cdef object transport = self.transport
        PyContext_Enter(context)
        try:
            if writes:
                self._flush()
            else:
                self._read()
        except BaseException as exc:
            if self.loop is not None:
                loop.pend(self)                                  # Y6, Y7
            if isinstance(exc, (SystemExit, KeyboardInterrupt)):
                raise
            callback = transport._sendto_ready if writes else transport._read_ready
            loop._handle_failed(asyncio.Handle(callback, (), loop), exc)
        finally:
            PyContext_Exit(context)
        return 0

    cdef int _register(self, uint32_t mask) except -1:
        """Have the kernel tell of *mask*, and of datagrams; what is ready is told again."""
        self.mask = EPOLLIN | mask
        if self.slot < 0:
            self.loop.watch(self, self.mask)
        else:
            self.loop.rewatch(self, self.mask)
        return 0

    cdef int start(self) except -1:
        """Begin to read: connection_made has been called."""
        self.started = True
        if self.closing or self.loop is None:
            return 0
        self.began = self.loop.polls
        if self.slot < 0:
            self._register(0)
        if self.readable or self.writing:
            self.loop.pend(self)                                 # Y6, Y7
        return 0

    # -- reading

    cdef int _read(self) except -1:
        """Give to the protocol what has come, until there is something else to do.

        asyncio lets a turn pass between two datagrams. Nobody can tell as long as nothing is ready
        or due to run in it; if a protocol wakes a task, that runs before the protocol is called
        again. Other descriptors wait no longer than SLICE and one call.
        """
        cdef LoopCore loop = self.loop
        cdef int left = READS
        cdef int64_t end = nanotime() + SLICE
        while self._receive():
            left -= 1
            if not self.reads():
                return 0
            if left == 0 or loop._stopping or len(loop._ready) > 0 or nanotime() >= end:
                break
            if loop._scheduled and loop.is_due():
                break
        if self.readable and self.reads():
            loop.pend(self)                                      # Y2
        return 0

    cdef int _receive(self) except -1:
        """Receive one datagram, or an error: whether to go on."""
        cdef Address address
        cdef socklen_t size = sizeof(Address)
        cdef Py_ssize_t n
        if not self.native:
            return self._receive_slowly()
        n = recvfrom(self.fd, self.loop.buffer, BUFFER, MSG_DONTWAIT, &address.any, &size)
        if n >= 0:
            self.protocol.datagram_received(gopoll_bytes(self.loop.buffer, n),
                                            self._source_of(&address, size))
            return 1
        if errno == EAGAIN:
            self.readable = False                                # Y6
            return 0
        if errno != EINTR:
            self._failed(os_error(errno))
        return self.readable

    cdef int _receive_slowly(self) except -1:
        """The same as socket does it: another family's address, or a class of somebody's own."""
        try:
            data, addr = self.sock.recvfrom(BUFFER)
        except BlockingIOError:
            self.readable = False                                # Y6
        except InterruptedError:
            pass
        except OSError as exc:
            self._failed(exc)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.fatal_error(exc, "Fatal read error on datagram transport")
        else:
            self.protocol.datagram_received(data, addr)
        return self.readable

    cdef int _failed(self, exc) except -1:
        """Tell the protocol of an error of a read, which takes the socket's own, and no other."""
        if exc.errno in (EBADF, ENOTSOCK):
            self.readable = False
        self.protocol.error_received(exc)
        return 0

    cdef object _source_of(self, const Address *address, socklen_t size):
        """Return *address* as socket has it, None for a Unix sender without a name."""
        if size == 0:
            return None
        if size > sizeof(Address):
            size = sizeof(Address)
        if size != self.source_size or memcmp(address, &self.source_raw, size) != 0:
            self.source_size = 0
            self.source = read_address(address, size)
            if size <= sizeof(address.un):       # more: a path without an end, nothing to send to
                memcpy(&self.source_raw, address, size)
                self.source_size = size
        return self.source

    cdef int resume_reading(self) except -1:
        if self.paused and not self.closing:
            self.context = PyContext_CopyCurrent()
        return TransportCore.resume_reading(self)

    # -- writing

    cdef int sendto(self, data, addr) except -1:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data argument must be a bytes-like object, "
                            f"not {type(data).__name__!r}")
        if not (EMPTY_TOO or data):
            return 0
        if self.address:
            if addr is not None and addr != self.address:
                raise ValueError(f"Invalid address: must be None or {self.address}")
            if self.conn_lost:
                if self.conn_lost >= LOG_THRESHOLD:
                    logger.warning("socket.send() raised exception.")
                self.conn_lost += 1
                return 0
            addr = self.address
        if self.sock is None:
            return 0
        if not self.backlog:
            try:
                if self._send(data, addr):
                    return 0
            except OSError as exc:
                self.protocol.error_received(exc)
                return 0
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exc:
                self.fatal_error(exc, "Fatal write error on datagram transport")
                return 0
            if self.conn_lost:           # nobody would come for it
                return 0
            self._wait_for_room()
        data = bytes(data)               # its owner may change it
        self.backlog.append((data, addr))
        self.queued += len(data) + HEADER
        self.transport._maybe_pause_protocol()
        return 0

    cdef int _send(self, data, addr) except -1:
        """Send a datagram: 1, or 0 if it would block. OSError, and what socket says of *addr*."""
        cdef Py_buffer view
        cdef const Address *to = NULL
        cdef socklen_t size = 0
        cdef Py_ssize_t n, err
        if not self.native:
            return self._send_slowly(data, addr)
        if not self.connected:
            if addr is self.source and self.source_size:
                to, size = &self.source_raw, self.source_size
            elif addr is self.target and self.target_size or self._find_target(addr):
                to, size = &self.target_raw, self.target_size
            else:
                return self._send_slowly(data, addr)
        if type(data) is bytes:
            n = send_to(self.fd, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data),
                        MSG_DONTWAIT | MSG_NOSIGNAL, &to.any, size)
            err = errno
        else:
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
            n = send_to(self.fd, view.buf, view.len, MSG_DONTWAIT | MSG_NOSIGNAL, &to.any, size)
            err = errno                  # here: what releases the buffer may change it
            PyBuffer_Release(&view)
        if n >= 0:
            return 1
        if err != EAGAIN and err != EINTR:
            raise os_error(<int>err)
        return 0

    cdef int _send_slowly(self, data, addr) except -1:
        """The same as socket does it: names are looked up, what is no address is its error."""
        try:
            if self.connected:
                self.sock.send(data)
            else:
                self.sock.sendto(data, addr)
        except (BlockingIOError, InterruptedError):
            return 0
        return 1

    cdef int _find_target(self, addr) except -1:
        """Make *addr* the target, if it is one that needs no looking up: whether it is."""
        self.target_size = 0
        self.target_size = write_address(addr, self.family, &self.target_raw)
        self.target = addr if self.target_size else None
        return self.target_size != 0

    cdef int _wait_for_room(self) except -1:
        """Have somebody come for the backlog (Y7), with the context of now."""
        if not self.writing:
            self.write_context = PyContext_CopyCurrent()
        self.writing = True
        if self.family != AF_UNIX or self.connected:
            return 0 if self.mask & EPOLLOUT else self._register(EPOLLOUT)
        # What is full is a receiver's queue, of which the kernel tells only the receiver's peer. To
        # it we are writable, after each try anew.
        if not self.timed:
            self.timed = True
            self.loop.call_later(self.delay, self.transport._retry)
            self.delay = min(2 * self.delay, LATE)
        return 0

    cdef int _flush(self) except -1:
        """Send of the backlog what goes, for as long as the turn lasts."""
        cdef int left = WRITES
        while self.backlog:
            if left == 0:
                self.loop.pend(self)                             # Y7
                break
            left -= 1
            data, addr = item = self.backlog.popleft()
            self.queued -= len(data) + HEADER
            try:
                if not self._send(data, addr):
                    self.backlog.appendleft(item)
                    self.queued += len(data) + HEADER
                    self._wait_for_room()
                    break
                self.delay = SOON
            except OSError as exc:
                self.loop.pend(self)                             # Y7
                self.protocol.error_received(exc)
                return 0
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exc:
                self.fatal_error(exc, "Fatal write error on datagram transport")
                return 0
        self.transport._maybe_resume_protocol()                  # which may send, and close
        return 0 if self.backlog else self._flushed()

    cdef int _flushed(self) except -1:
        """Do what has waited for the end of the backlog."""
        self.writing = False
        if self.conn_lost:
            return 0
        if self.closing:
            return self.lose(None)
        if self.mask & EPOLLOUT:         # else an event comes for each datagram that a peer reads
            self._register(0)
        return 0

    # -- the end

    cdef int _lose_soon(self, exc) except -1:
        self.conn_lost += 1
        self.writing = False
        self.loop.unwatch(self)
        self.loop.call_soon(self.transport._call_connection_lost, exc)
        return 0

    cdef int lose(self, exc) except -1:
        cdef object transport = self.transport
        try:
            return TransportCore.lose(self, exc)
        finally:
            if transport is not None:
                transport._loop = None
