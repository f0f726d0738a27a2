"""SSLProtocol and SSLTransport: TLS between a transport and a protocol of the program's.

Called by the transport below, by the program and by asyncio's streams, on the loop's thread. The
handshake, the end, timeouts and flow control are inherited from asyncio's SSLProtocol, whose
attributes are fields here; what is done for each message is SSLFlow's. MemoryBIO and SSLObject are
those of ssl.

Y11: nothing can be decrypted when neither buffer, ours nor OpenSSL's, has anything: SSL_read is not
     called to hear that, since an exception is dearer than the message was. Who else has OpenSSL
     read, the handshake and a write that must read first, sets `ask`: then it is called. An object
     of the program's own in the place of ssl's is always asked.
"""

import ssl
from asyncio import constants, sslproto
from asyncio.log import logger

from cpython.memoryview cimport PyMemoryView_Check, PyMemoryView_FromObject

from gopoll.embed.aio._transport import SocketTransport

__all__ = ["SSLProtocol", "SSLTransport"]


cdef extern from "Python.h":
    object PyObject_CallNoArgs(object fn)
    object PyObject_CallOneArg(object fn, object arg)

cdef enum:
    RECORD = 16384             # the most plaintext that one record has
    MAX_SIZE = 256 * 1024      # of the buffer that another transport than ours reads into

cdef int LOG_THRESHOLD = constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES
cdef object SSLAgainErrors = sslproto.SSLAgainErrors
cdef object WRAPPED = sslproto.SSLProtocolState.WRAPPED
cdef object FLUSHING = sslproto.SSLProtocolState.FLUSHING
cdef object UNWRAPPED = sslproto.SSLProtocolState.UNWRAPPED
cdef object HANDSHAKE = sslproto.SSLProtocolState.DO_HANDSHAKE
cdef object SHUTDOWN = sslproto.SSLProtocolState.SHUTDOWN
cdef object SSLObject = ssl.SSLObject
cdef object READ = ssl.SSLObject.read
cdef object WRITE = ssl.SSLObject.write
cdef object FATAL = "Fatal error on SSL protocol"


cdef class SSLFlow:
    """What SSLProtocol does for each message, and the attributes of asyncio's that it looks at."""

    @property
    def _sslobj(self):
        """SSLObject."""
        return self.obj

    @_sslobj.setter
    def _sslobj(self, obj):
        self.obj = obj
        self.own = (type(obj) is not SSLObject or SSLObject.read is not READ
                    or SSLObject.write is not WRITE)
        inner = obj if self.own else obj._sslobj     # to which ssl's own only hands over
        self.ssl_read, self.ssl_write = inner.read, inner.write
        self.ssl_pending = None if self.own else inner.pending
        self.fill, self.drain = self._incoming.write, self._outgoing.read
        self.ask = True

    @property
    def _transport(self):
        """The transport below, from connection_made() to connection_lost()."""
        return self.lower

    @_transport.setter
    def _transport(self, lower):
        self.lower, self.core = lower, None
        if type(lower) is SocketTransport:
            self.core = lower._core
            self.core.buffered = False               # it has a buffer itself

    # -- what comes from below

    def data_received(self, data):
        """Take in what a transport of ours has read."""
        PyObject_CallOneArg(self.fill, data)
        self.go_on()

    def buffer_updated(self, nbytes):
        """Take in what another transport has read into get_buffer()."""
        PyObject_CallOneArg(self.fill, self._ssl_buffer_view[:nbytes])
        self.go_on()

    cdef int go_on(self) except -1:
        """Do with what has come what it is for."""
        state = self._state
        if state is WRAPPED:
            self.do_read()
        elif state is HANDSHAKE:
            self._do_handshake()
        elif state is FLUSHING:
            self._do_flush()
        elif state is SHUTDOWN:
            self._do_shutdown()
        return 0

    cdef Py_ssize_t more(self) except -1:
        """How much to ask SSL_read for; 0 if it would have nothing to give or to say (Y11)."""
        cdef Py_ssize_t n
        if self.own:
            return RECORD
        n = self._incoming.pending       # a little more than is in it
        if n == 0:
            n = PyObject_CallNoArgs(self.ssl_pending)
            if n == 0 and self.ask:
                n = RECORD
        return min(n, <Py_ssize_t>RECORD)

    def _do_read(self):
        """Give the protocol what has come; send what that has led to, or what waits."""
        self.do_read()

    cdef int do_read(self) except -1:
        if self._state is not WRAPPED and self._state is not FLUSHING:
            return 0
        try:
            while not self._app_reading_paused and self.more():
                if not self._app_protocol_is_buffer:
                    self.read_data()
                elif self.read_into():
                    if self._state is FLUSHING:
                        continue                     # there is no later
                    self._loop.call_soon(self._do_read)
                break
            if self._write_backlog and self._state is not SHUTDOWN:
                self._do_write()
            else:
                self.send_out()
            self.control_reading()
        except Exception as exc:
            self._fatal_error(exc, FATAL)
        except BaseException:            # it ends the loop, which may be run again
            self._loop.call_soon(self._do_read)
            raise
        return 0

    cdef int read_data(self) except -1:
        """Decrypt all that has come, for data_received()."""
        cdef bint end = False
        cdef list parts = None
        cdef Py_ssize_t n
        data = None
        while (n := self.more()):
            self.ask = False
            try:
                chunk = PyObject_CallOneArg(self.ssl_read, n)
            except SSLAgainErrors:
                break
            except Exception as exc:
                self._fatal_error(exc, FATAL)        # for the next turn: what came before it is
                break                                # given to the protocol in this one
            if not chunk:
                end = self.ask = True    # it says so again, should the protocol end the loop
                break
            if data is None:
                data = chunk
            elif parts is None:
                parts = [data, chunk]
            else:
                parts.append(chunk)
        if parts is not None:
            data = b"".join(parts)
        if data is not None:
            self._app_protocol.data_received(data)
        return self.ended() if end else 0

    cdef bint read_into(self) except -1:
        """Decrypt what the protocol's own buffer has room for; return whether that was not all."""
        cdef Py_ssize_t size, n, at = 0
        cdef bint end = False
        buffer = self._app_protocol_get_buffer(self._incoming.pending)
        view = PyMemoryView_FromObject(buffer)
        if view.itemsize != 1 or view.ndim != 1:
            view = view.cast("B")
        size = len(view)
        if size == 0:
            raise RuntimeError("get_buffer() returned an empty buffer")
        while at < size and self.more():
            self.ask = False
            try:
                n = self.ssl_read(size - at, view[at:] if at else view)
            except SSLAgainErrors:
                break
            except Exception as exc:
                self._fatal_error(exc, FATAL)        # for the next turn, as above
                break
            if n == 0:
                end = self.ask = True    # it says so again, should the protocol end the loop
                break
            at += n
        view.release()                   # the protocol may want to change its size
        if at:
            self._app_protocol_buffer_updated(at)
        if end:
            self.ended()
        return at == size and not end

    cdef int ended(self) except -1:
        """The peer has announced its end."""
        self._call_eof_received()
        self._start_shutdown()
        return 0

    cdef int control_reading(self) except -1:
        """Have the transport below stop or go on reading."""
        cdef Py_ssize_t size = self._incoming.pending
        if self.lower is None:
            return 0
        if not self._ssl_reading_paused:
            if size >= self._incoming_high_water:
                self._ssl_reading_paused = True
                self.lower.pause_reading()
        elif size <= self._incoming_low_water:
            self._ssl_reading_paused = False
            self.lower.resume_reading()
        return 0

    # -- what the protocol sends

    def _write_appdata(self, list_of_data):
        """Send what is in the list."""
        self.write(b"".join(list_of_data))

    cdef int write(self, data) except -1:
        """Encrypt *data* and hand it down, or keep it until that can be done."""
        if self._state is not WRAPPED and self._state is not HANDSHAKE:
            if self._conn_lost >= LOG_THRESHOLD:
                logger.warning("SSL connection is closed")
            self._conn_lost += 1
            return 0
        try:
            if self._write_backlog or self._state is HANDSHAKE:
                self.keep(data)
                if self._state is WRAPPED:
                    self._do_write()
            else:
                self.encrypt(data)
                self.send_out()
        except Exception as exc:
            self._fatal_error(exc, FATAL)
        return 0

    cdef int encrypt(self, data) except -1:
        cdef Py_ssize_t n, size = data.nbytes if PyMemoryView_Check(data) else len(data)
        try:
            n = PyObject_CallOneArg(self.ssl_write, data)        # ssl's own: all, in memory
        except SSLAgainErrors:
            self.ask = True                                      # Y11
            self.keep(data)
            return 0
        if n < size:
            self.keep(memoryview(data).cast("B")[n:])
            self._do_write()
        return 0

    cdef int keep(self, data) except -1:
        """Put *data* into the backlog; its owner may change it."""
        if type(data) is not bytes:
            data = bytes(data)
        self._write_backlog.append(data)
        self._write_buffer_size += len(data)
        return 0

    def _process_outgoing(self):
        """Hand down what has been encrypted."""
        self.send_out()

    cdef int send_out(self) except -1:
        if not self._ssl_writing_paused and self._outgoing.pending:
            data = PyObject_CallNoArgs(self.drain)
            if self.core is not None:
                self.core.write(data)
            elif self.lower is not None:
                self.lower.write(data)
        return self.control_writing()

    cdef int control_writing(self) except -1:
        """Have the protocol stop or go on writing, where the marks are met."""
        cdef Py_ssize_t size = self._write_buffer_size
        if self._ssl_writing_paused:
            size += self._outgoing.pending
        if size <= self._outgoing_low_water if self._app_writing_paused else (
                size >= self._outgoing_high_water):
            self._control_app_writing()
        return 0


class SSLProtocol(SSLFlow, sslproto.SSLProtocol):
    """What a transport below takes for its protocol, and SSLTransport for its connection."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)           # which makes a buffer of max_size: none
        self.max_size = MAX_SIZE

    def _abort(self, exc=None):
        """Close for *exc*, at once: what asyncio's own of 3.11 and 3.12 is not given."""
        self._state = UNWRAPPED
        if self._transport is None:
            return
        if exc is None:
            self._transport.abort()
        else:
            self._transport._force_close(exc)

    def _do_write(self):
        """Encrypt what is kept, and hand it down."""
        super()._do_write()
        if self._write_backlog:
            (<SSLFlow>self).ask = True               # Y11

    def _get_app_transport(self):
        if self._app_transport is None:
            if self._app_transport_created:
                raise RuntimeError("the transport of a TLS connection is made once")
            self._app_transport = SSLTransport(self._loop, self)
            self._app_transport_created = True
        return self._app_transport


class SSLTransport(sslproto._SSLProtocolTransport):
    """A TLS connection of an EventLoop. As asyncio's own, it lets go of all at a second close()."""

    def get_extra_info(self, name, default=None):
        """Return what is known of the connection, or *default*."""
        protocol = self._ssl_protocol
        return default if protocol is None else protocol._get_extra_info(name, default)

    def get_protocol(self):
        """Return the protocol; None after connection_lost()."""
        protocol = self._ssl_protocol
        return None if protocol is None else protocol._app_protocol

    def write(self, data):
        """Send *data*, at once what goes, the rest later. Never blocks.

        TypeError for what is not bytes-like; what the connection says comes in connection_lost().
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data argument must be a bytes-like object, "
                            f"not {type(data).__name__!r}")
        if data and self._ssl_protocol is not None:
            (<SSLFlow?>self._ssl_protocol).write(data)

    def writelines(self, list_of_data):
        """The same for several pieces, encrypted as one."""
        self.write(b"".join(list_of_data))
