"""DatagramTransport: what create_datagram_endpoint gives; DatagramCore does its work.

Called by the program, on the loop's thread. Two objects, as for streams: see _transport.
"""

import warnings
from asyncio import futures, transports, trsock

from gopoll._epoll cimport EPOLLIN, EPOLLOUT
from gopoll.embed.aio._datagram cimport DatagramCore

__all__ = ["DatagramTransport"]


class DatagramTransport(transports._FlowControlMixin, transports.DatagramTransport):
    """A datagram socket of an EventLoop. asyncio's mixin has the limits of the write buffer."""

    def __init__(self, loop, sock, protocol, address=None, waiter=None, extra=None):
        super().__init__(extra, loop)
        extra = self._extra
        extra["socket"] = trsock.TransportSocket(sock)
        try:
            extra["sockname"] = sock.getsockname()
        except OSError:
            extra["sockname"] = None
        if "peername" not in extra:
            try:
                extra["peername"] = sock.getpeername()
            except OSError:
                extra["peername"] = None
        self._core = DatagramCore(loop, self, sock, address, extra["peername"] is not None)
        self.set_protocol(protocol)
        loop._transports[self._sock_fd] = self
        loop.call_soon(protocol.connection_made, self)
        loop.call_soon(self._start)
        if waiter is not None:
            loop.call_soon(futures._set_result_unless_cancelled, waiter, None)

    def _start(self):
        (<DatagramCore>self._core).start()

    def __repr__(self):
        cdef DatagramCore core = self._core
        info = [self.__class__.__name__]
        if core.sock is None:
            info.append("closed")
        elif core.closing:
            info.append("closing")
        info.append(f"fd={core.fd}")
        if core.loop is not None and not core.loop._closed:
            info.append(f"read={'polling' if core._reads() else 'idle'}")
            info.append(f"write=<{'polling' if core.writing else 'idle'}, bufsize={core.queued}>")
        return f"<{' '.join(info)}>"

    def __del__(self, _warn=warnings.warn):
        cdef DatagramCore core = getattr(self, "_core", None)
        if core is not None and core.sock is not None:
            _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            if core.loop is not None:
                core.loop.unwatch(core)
            core.sock.close()

    def is_reading(self):
        """Whether datagrams are given to the protocol as they come."""
        cdef DatagramCore core = self._core
        return not (core.closing or core.paused)

    def pause_reading(self):
        """Give the protocol nothing more until resume_reading()."""
        (<DatagramCore>self._core).pause_reading()

    def resume_reading(self):
        """Undo pause_reading()."""
        (<DatagramCore>self._core).resume_reading()

    def sendto(self, data, addr=None):
        """Send *data* to *addr*, or to the peer: at once, or when there is room. Never blocks.

        TypeError for what is not bytes-like, ValueError for another address than the peer's; what
        the socket says comes in error_received(). Dropped after connection_lost().
        """
        (<DatagramCore>self._core).sendto(data, addr)

    def get_write_buffer_size(self):
        """Return the bytes that have not been sent yet; from 3.13 on 8 more for each datagram."""
        return (<DatagramCore>self._core).queued

    def set_protocol(self, protocol):
        """Give what comes from now on to *protocol*."""
        (<DatagramCore>self._core).protocol = protocol

    def get_protocol(self):
        """Return the protocol; None after connection_lost()."""
        return (<DatagramCore>self._core).protocol

    def is_closing(self):
        """Whether it is closed, or about to be."""
        return bool((<DatagramCore>self._core).closing)

    def close(self):
        """Send what waits, then close; connection_lost(None) comes after."""
        (<DatagramCore>self._core).close()

    def abort(self):
        """Close at once; what waits is lost."""
        self._force_close(None)

    # -- what asyncio's modules ask, and the loop's callbacks

    def _force_close(self, exc):
        (<DatagramCore>self._core).force_close(exc)

    def _fatal_error(self, exc, message="Fatal error on transport"):
        (<DatagramCore>self._core).fatal_error(exc, message)

    def _call_connection_lost(self, exc):
        (<DatagramCore>self._core).lose(exc)

    def _read_ready(self):
        """Read, as at an event."""
        (<DatagramCore>self._core).turn(EPOLLIN)

    def _sendto_ready(self):
        """Send of the backlog what goes, as at an event."""
        (<DatagramCore>self._core).turn(EPOLLOUT)

    def _retry(self):
        """Send, where no event tells of room."""
        (<DatagramCore>self._core).timed = False
        self._sendto_ready()

    @property
    def _sock(self):
        return (<DatagramCore>self._core).sock

    @property
    def _sock_fd(self):
        return (<DatagramCore>self._core).fd

    @property
    def _protocol(self):
        return (<DatagramCore>self._core).protocol

    @property
    def _closing(self):
        return bool((<DatagramCore>self._core).closing)

    @property
    def _conn_lost(self):
        return (<DatagramCore>self._core).conn_lost
