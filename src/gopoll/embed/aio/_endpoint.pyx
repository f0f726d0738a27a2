"""DatagramTransport: what create_datagram_endpoint gives; DatagramCore does its work.

Called by the program, on the loop's thread. Two objects, as for streams: see _core.
"""

from asyncio import futures, transports

from gopoll._epoll cimport EPOLLIN, EPOLLOUT
from gopoll.embed.aio._core cimport fill_extra
from gopoll.embed.aio._datagram cimport DatagramCore

from gopoll.embed.aio._core import TransportFace

__all__ = ["DatagramTransport"]


class DatagramTransport(TransportFace, transports._FlowControlMixin,
                        transports.DatagramTransport):
    """A datagram socket of an EventLoop. asyncio's mixin has the limits of the write buffer."""

    def __init__(self, loop, sock, protocol, address=None, waiter=None, extra=None):
        super().__init__(extra, loop)
        extra = fill_extra(self._extra, sock)
        self._core = DatagramCore(loop, self, sock, address, extra["peername"] is not None)
        self.set_protocol(protocol)
        loop._transports[self._sock_fd] = self
        loop.call_soon(protocol.connection_made, self)
        loop.call_soon(self._start)
        if waiter is not None:
            loop.call_soon(futures._set_result_unless_cancelled, waiter, None)

    def _start(self):
        (<DatagramCore>self._core).start()

    def sendto(self, data, addr=None):
        """Send *data* to *addr*, or to the peer: at once, or when there is room. Never blocks.

        TypeError for what is not bytes-like, ValueError for another address than the peer's; what
        the socket says comes in error_received(). Dropped after connection_lost().
        """
        (<DatagramCore>self._core).sendto(data, addr)

    def set_protocol(self, protocol):
        """Give what comes from now on to *protocol*."""
        (<DatagramCore>self._core).protocol = protocol

    # -- what asyncio's modules ask, and the loop's callbacks

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
