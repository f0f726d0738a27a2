"""TransportCore and TransportFace: what stream and datagram transports have in common.

Called by the program and by asyncio's modules through _transport and _endpoint, and by the loop's
turn, on the loop's thread. An asyncio.Transport has a layout of its own, which no compiled class
can have as well: so a transport is two objects, a face and a core.
"""

from asyncio import trsock
from asyncio.log import logger

from gopoll._park cimport warn
from gopoll.embed.aio._calls cimport detach, name_of
from gopoll.embed.aio._loop cimport Watcher


cdef object TransportSocket = trsock.TransportSocket
cdef object _new_told = TransportSocket.__new__


cdef dict fill_extra(extra, sock):
    """Return *extra*, or a new dict, with what get_extra_info() tells of *sock*."""
    cdef dict out = {} if extra is None else extra
    out["socket"] = told = _new_told(TransportSocket)
    told._sock = sock
    try:
        out["sockname"] = name_of(sock, sock.fileno())
    except OSError:
        out["sockname"] = None
    if "peername" not in out:
        try:
            out["peername"] = sock.getpeername()
        except OSError:
            out["peername"] = None
    return out


cdef class TransportCore(Watcher):
    """A socket, its protocol and how they part."""

    def __repr__(self):
        return f"<events of {self.transport!r}>"

    cdef int start(self) except -1:
        """Begin to read: connection_made has been called."""
        raise NotImplementedError

    cdef bint waits_for_poll(self) except -1:
        """Whether it began to read after the last poll: then it does after the next (Y2)."""
        if self.began != self.loop.polls:
            return False
        self.loop.pend(self)
        return True

    cdef bint reads(self) noexcept:
        """Whether the protocol is to be given what comes."""
        return self.started and not (self.paused or self.closing or self.conn_lost)

    cdef bint writes(self) noexcept:
        """Whether something waits for room."""
        return self.queued != 0

    cdef int pause_reading(self) except -1:
        if not (self.closing or self.paused):
            self.paused = True
            if self.loop._debug:
                logger.debug("%r pauses reading", self.transport)
        return 0

    cdef int resume_reading(self) except -1:
        if self.paused and not self.closing:
            self.paused = False
            self.began = self.loop.polls
            if self.readable and self.started:
                self.loop.pend(self)                             # Y3, Y6
            if self.loop._debug:
                logger.debug("%r resumes reading", self.transport)
        return 0

    cdef int close(self) except -1:
        """Stop reading; connection_lost comes when the backlog has been sent."""
        if self.closing:
            return 0
        self.closing = True
        return 0 if self.queued else self._lose_soon(None)

    cdef int force_close(self, exc) except -1:
        """Drop the backlog; connection_lost(exc) comes in the next turn."""
        if self.conn_lost:
            return 0
        if self.queued:
            self.backlog.clear()
            self.queued = 0
        self.closing = True
        return self._lose_soon(exc)

    cdef int _lose_soon(self, exc) except -1:
        raise NotImplementedError

    cdef int fatal_error(self, exc, str message) except -1:
        """Close for *exc*. What is no OSError goes to the loop's exception handler."""
        if isinstance(exc, OSError):
            if self.loop._debug:
                logger.debug("%r: %s", self.transport, message, exc_info=exc)
        else:
            self.loop.call_exception_handler({"message": message, "exception": exc,
                                              "transport": self.transport,
                                              "protocol": self.protocol})
        self.transport._force_close(exc)
        return 0

    cdef int lose(self, exc) except -1:
        """Tell the protocol and close the socket; a second call does nothing."""
        cdef object transport = self.transport
        if self.sock is None:
            return 0
        self.conn_lost = max(self.conn_lost, 1)
        try:
            self.protocol.connection_lost(exc)
        finally:
            self.loop.unwatch(self)
            self.sock.close()
            self.loop = self.sock = self.protocol = self.transport = None
            if self.server is not None:
                server, self.server = self.server, None
                detach(server, transport)
        return 0


class TransportFace:
    """The methods of a transport that only hand over to its core."""

    __slots__ = ()

    def __del__(self):
        cdef TransportCore core = getattr(self, "_core", None)
        if core is not None and core.sock is not None:
            warn(f"unclosed transport {self!r}", ResourceWarning, self)
            if core.loop is not None:
                core.loop.unwatch(core)
            core.sock.close()
            if core.server is not None:
                detach(core.server, self)

    def __repr__(self):
        cdef TransportCore core = self._core
        info = [self.__class__.__name__]
        if core.sock is None:
            info.append("closed")
        elif core.closing:
            info.append("closing")
        info.append(f"fd={core.fd}")
        if core.loop is not None and not core.loop._closed:
            info.append(f"read={'polling' if core.reads() else 'idle'}")
            info.append(f"write=<{'polling' if core.writes() else 'idle'}, bufsize={core.queued}>")
        return f"<{' '.join(info)}>"

    def is_reading(self):
        """Whether what comes is given to the protocol."""
        cdef TransportCore core = self._core
        return not (core.closing or core.paused)

    def pause_reading(self):
        """Give the protocol nothing more until resume_reading()."""
        (<TransportCore>self._core).pause_reading()

    def resume_reading(self):
        """Undo pause_reading()."""
        (<TransportCore>self._core).resume_reading()

    def get_write_buffer_size(self):
        """Return the bytes not sent yet; of datagrams, from 3.13 on, 8 more for each."""
        return (<TransportCore>self._core).queued

    def get_protocol(self):
        """Return the protocol; None after connection_lost()."""
        return (<TransportCore>self._core).protocol

    def is_closing(self):
        """Whether it is closed, or about to be."""
        return bool((<TransportCore>self._core).closing)

    def close(self):
        """Send what waits, then close; connection_lost(None) comes after."""
        (<TransportCore>self._core).close()

    def abort(self):
        """Close at once; what waits is lost."""
        self._force_close(None)

    # -- what asyncio's modules ask

    def _force_close(self, exc):
        (<TransportCore>self._core).force_close(exc)

    def _fatal_error(self, exc, message="Fatal error on transport"):
        (<TransportCore>self._core).fatal_error(exc, message)

    @property
    def _sock(self):
        return (<TransportCore>self._core).sock

    @property
    def _sock_fd(self):
        return (<TransportCore>self._core).fd

    @property
    def _protocol(self):
        return (<TransportCore>self._core).protocol

    @property
    def _server(self):
        return (<TransportCore>self._core).server

    @property
    def _closing(self):
        return bool((<TransportCore>self._core).closing)

    @property
    def _paused(self):
        return bool((<TransportCore>self._core).paused)

    @property
    def _conn_lost(self):
        return (<TransportCore>self._core).conn_lost
