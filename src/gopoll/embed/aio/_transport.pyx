"""SocketTransport: the asyncio.Transport that a protocol is given; StreamCore does its work.

Called by the program and by asyncio (TLS, sendfile, streams), on the loop's thread. An
asyncio.Transport has a layout of its own, which no compiled class can have as well: so there are
two objects. What asyncio's own modules ask of a transport of theirs by a private name is here.
"""

import sys
import warnings
from socket import SHUT_RDWR
from asyncio import constants, transports, trsock

from gopoll.embed.aio._calls cimport detach
from gopoll.embed.aio._stream cimport StreamCore

__all__ = ["SocketTransport"]


class SocketTransport(transports._FlowControlMixin):
    """A connected stream socket of an EventLoop."""

    __slots__ = ("__dict__", "__weakref__", "_core")

    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.TRY_NATIVE

    def __init__(self, loop, sock, protocol, waiter=None, extra=None, server=None):
        self._extra = {} if extra is None else extra
        self._extra["socket"] = trsock.TransportSocket(sock)
        try:
            self._extra["sockname"] = sock.getsockname()
        except OSError:
            self._extra["sockname"] = None
        if "peername" not in self._extra:
            try:
                self._extra["peername"] = sock.getpeername()
            except OSError:
                self._extra["peername"] = None
        self._loop = loop
        core = StreamCore(loop, self, sock, server)
        self._core = core
        self.set_protocol(protocol)
        loop._transports[core.fd] = self
        loop.call_soon(protocol.connection_made, self, context=core.context)
        loop.call_soon(self._start)
        if waiter is not None:
            loop.call_soon(_set_result, waiter)

    def _start(self):
        (<StreamCore>self._core).start()

    def __repr__(self):
        cdef StreamCore core = self._core
        info = [self.__class__.__name__]
        if core.sock is None:
            info.append("closed")
        elif core.closing:
            info.append("closing")
        info.append(f"fd={core.fd}")
        if core.loop is not None and not core.loop._closed:
            reading = core.started and not (core.paused or core.closing or core.ended)
            info.append(f"read={'polling' if reading else 'idle'}")
            info.append(f"write=<{'polling' if core.queued else 'idle'}, bufsize={core.queued}>")
        return f"<{' '.join(info)}>"

    def __del__(self, _warn=warnings.warn):
        cdef StreamCore core = getattr(self, "_core", None)
        if core is not None and core.sock is not None:
            _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            if core.loop is not None:
                core.loop.unwatch(core)
            core.sock.close()
            if core.server is not None:
                detach(core.server, self)

    # -- reading

    def is_reading(self):
        """Whether data is given to the protocol as it comes."""
        cdef StreamCore core = self._core
        return not (core.closing or core.paused)

    def pause_reading(self):
        """Give the protocol nothing more until resume_reading()."""
        (<StreamCore>self._core).pause_reading()

    def resume_reading(self):
        """Undo pause_reading()."""
        (<StreamCore>self._core).resume_reading()

    # -- writing

    def write(self, data):
        """Send *data*, at once what goes, the rest later. Never blocks.

        TypeError for what is not bytes-like, RuntimeError after write_eof(); what the socket says
        comes in connection_lost().
        """
        (<StreamCore>self._core).write(data)

    def writelines(self, list_of_data):
        """The same for several pieces, in one system call."""
        (<StreamCore>self._core).writelines(list_of_data)

    def write_eof(self):
        """Shut the writing side down when all has been sent."""
        (<StreamCore>self._core).write_eof()

    def can_write_eof(self):
        """Return True."""
        return True

    def get_write_buffer_size(self):
        """Return the bytes that have not been sent yet."""
        return (<StreamCore>self._core).queued

    def get_write_buffer_limits(self):
        """Return (low, high), in bytes."""
        cdef StreamCore core = self._core
        return core.low, core.high

    def set_write_buffer_limits(self, high=None, low=None):
        """Set when pause_writing() and resume_writing() are called, in bytes. ValueError."""
        cdef StreamCore core = self._core
        if high is None:
            high = 65536 if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        core.high, core.low = int(min(high, sys.maxsize)), int(min(low, sys.maxsize))
        core.maybe_pause_protocol()

    # -- the protocol and the end

    def set_protocol(self, protocol):
        """Give what comes from now on to *protocol*."""
        (<StreamCore>self._core).set_protocol(protocol)

    def get_protocol(self):
        """Return the protocol; None after connection_lost()."""
        return (<StreamCore>self._core).protocol

    def is_closing(self):
        """Whether it is closed, or about to be."""
        return bool((<StreamCore>self._core).closing)

    def close(self):
        """Send what waits, then close; connection_lost(None) comes after."""
        (<StreamCore>self._core).close()

    def abort(self):
        """Close at once; what waits is lost."""
        self._force_close(None)

    # -- what asyncio's modules ask

    def _force_close(self, exc):
        (<StreamCore>self._core).force_close(exc)

    def _fatal_error(self, exc, message="Fatal error on transport"):
        (<StreamCore>self._core).fatal_error(exc, message)

    def _call_connection_lost(self, exc):
        cdef StreamCore core = self._core
        if core.lent:                        # sendfile keeps the socket open: have it end
            try:
                core.sock.shutdown(SHUT_RDWR)
            except OSError:
                pass                         # it has an error to find
        core.lose(exc)

    def _make_empty_waiter(self):
        """Return a future that is done when all is sent; nobody writes until it is reset."""
        cdef StreamCore core = self._core
        if core.empty_waiter is not None:
            raise RuntimeError("Empty waiter is already set")
        core.empty_waiter = core.loop.create_future()
        if not core.queued:
            core.empty_waiter.set_result(None)
        return core.empty_waiter

    def _reset_empty_waiter(self):
        (<StreamCore>self._core).empty_waiter = None

    def _lend(self):
        """Let sock_sendfile have the descriptor's events."""
        (<StreamCore>self._core).lend()

    def _take_back(self):
        (<StreamCore>self._core).take_back()

    @property
    def _sock(self):
        return (<StreamCore>self._core).sock

    @property
    def _sock_fd(self):
        return (<StreamCore>self._core).fd

    @property
    def _protocol(self):
        return (<StreamCore>self._core).protocol

    @property
    def _server(self):
        return (<StreamCore>self._core).server

    @property
    def _closing(self):
        return bool((<StreamCore>self._core).closing)

    @property
    def _paused(self):
        return bool((<StreamCore>self._core).paused)

    @property
    def _eof(self):
        return bool((<StreamCore>self._core).eof)

    @property
    def _protocol_paused(self):
        return bool((<StreamCore>self._core).protocol_paused)

    @property
    def _conn_lost(self):
        return (<StreamCore>self._core).conn_lost


def _set_result(waiter):
    """Settle the future of create_connection and of a server, unless it is cancelled."""
    if not waiter.cancelled():
        waiter.set_result(None)
