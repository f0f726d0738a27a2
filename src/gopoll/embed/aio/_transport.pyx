"""SocketTransport: the asyncio.Transport that a protocol is given; StreamCore does its work.

Called by the program and by asyncio (TLS, sendfile, streams), on the loop's thread. What asyncio's
own modules ask of a transport of theirs by a private name is here and in TransportFace.
"""

import sys
from socket import SHUT_RDWR
from asyncio import constants, transports

from cpython.object cimport PyObject

from gopoll.embed.aio._core cimport fill_extra
from gopoll.embed.aio._stream cimport StreamCore

from gopoll.embed.aio._core import TransportFace

cdef extern from *:
    object PyWeakref_NewRef(object o, PyObject *callback)

__all__ = ["SocketTransport"]


cdef class Transports:
    """What asyncio has a WeakValueDictionary for: the transport of each descriptor that has one.

    The one that has gone is forgotten when its number is used again: no reference calls back.
    """

    cdef dict refs

    def __cinit__(self):
        self.refs = {}

    def __setitem__(self, fd, transport):
        self.refs[fd] = PyWeakref_NewRef(transport, NULL)

    def __delitem__(self, fd):
        del self.refs[fd]

    def __getitem__(self, fd):
        found = self.get(fd)
        if found is None:
            raise KeyError(fd)
        return found

    def get(self, fd):
        """Return the transport of *fd*, or None."""
        ref = self.refs.get(fd)
        return None if ref is None else ref()

    def values(self):
        """Return a list of all transports."""
        return [found for ref in self.refs.values() if (found := ref()) is not None]


class SocketTransport(TransportFace, transports._FlowControlMixin):
    """A connected stream socket of an EventLoop."""

    __slots__ = ("__dict__", "__weakref__", "_core")

    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.TRY_NATIVE

    def __init__(self, loop, sock, protocol, waiter=None, extra=None, server=None, context=None):
        cdef StreamCore core
        self._extra, self._loop = fill_extra(extra, sock), loop
        core = StreamCore.__new__(StreamCore)
        core.set_up(loop, self, sock, server, context)
        self._core = core
        core.set_protocol(protocol)
        loop._transports[core.fd] = self
        loop.call_soon(protocol.connection_made, self, context=core.context)
        loop.call_soon(self._start, waiter)

    def _start(self, waiter):
        """Begin to read; settle *waiter*, the future of create_connection and of a server."""
        try:
            (<StreamCore>self._core).start()
        finally:
            if waiter is not None and not waiter.cancelled():
                waiter.set_result(None)

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

    def set_protocol(self, protocol):
        """Give what comes from now on to *protocol*."""
        (<StreamCore>self._core).set_protocol(protocol)

    # -- what asyncio's modules ask

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
    def _eof(self):
        return bool((<StreamCore>self._core).eof)

    @property
    def _protocol_paused(self):
        return bool((<StreamCore>self._core).protocol_paused)
