"""TLSConn: a connection in another one, encrypted.

Called by goroutines; close, close_write and the deadlines by any thread.
Go: crypto/tls/conn.go (go1.27).
"""

from __future__ import annotations

import errno
import os
import ssl
import time
from collections.abc import Awaitable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from gopoll._poller import READ, WRITE
from gopoll.errors import Addr, Canceled, OpError
from gopoll.net._bufio import CallOp
from gopoll.net.conn import Conn, _move_to, check_sending
from gopoll.net.tlscore import CHUNK, TLSCore
from gopoll.runtime._sched import current_sched
from gopoll.runtime.blocking import blocking
from gopoll.runtime.context import background
from gopoll.runtime.goroutine import current, go

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["TLSConn"]

ANNOUNCE_SECONDS = 5.0  # that close() waits for the peer to take its announcement, as Go does


class TLSConn(TLSCore):
    """A TLS connection over another, which it owns. Made by tls.client, tls.server, dial_tls.

    As every connection: any number of goroutines; reads queue behind reads, writes behind writes,
    and neither waits for the other. The deadlines are those of the connection below.

    A write that a deadline or a cancellation cuts does not break the stream: what has been
    encrypted is counted in .written, of the error and of the operation, and is sent before all
    else, by itself as soon as the deadline allows. b"" is the end that the peer has announced; a
    connection that ends without that is an OpError that is an ssl.SSLEOFError: "unexpected EOF".
    """

    __slots__ = ()

    async def readinto(self, buffer: WriteableBuffer) -> int:
        """Read into a writable *buffer*; return the count, 0 at the end. An op."""
        # Released here: the traceback of what ends it refers to the views.
        with memoryview(buffer) as whole, whole.cast("B") as view:
            if view.readonly:
                raise TypeError(f"readinto() needs a writable buffer, not {type(buffer).__name__}")
            count = await self._read(len(view), view)
        assert isinstance(count, int)
        return count

    def _writing(self) -> _Writing:
        return _Writing(self)

    async def _write_one(self, writing: _Writing, data: ReadableBuffer) -> int:
        with memoryview(data) as whole, whole.cast("B") as view:
            if len(view) > CHUNK:
                chunks = (view[at : at + CHUNK] for at in range(0, len(view), CHUNK))
                return await self._write(writing, chunks)
            async with writing:
                if view:
                    await writing.put(view)
            return writing.written

    async def _write_on(self, writing: _Writing, data: ReadableBuffer) -> int:
        """Go on with a write of *data* that has to read first (W4). TLSWriteOp has _wlock."""
        with memoryview(data) as whole, whole.cast("B") as view:
            await self._encrypt(view)
            writing.written = len(view)
        await self._flush(once=True)
        return writing.written

    def writev(self, buffers: Iterable[ReadableBuffer]) -> CallOp[int]:
        """Write all of *buffers* in order, as one write; return the sum of their lengths. An op."""
        writing = _Writing(self)
        return CallOp(self._write_each(writing, buffers), writing)

    async def _write_each(self, writing: _Writing, buffers: Iterable[ReadableBuffer]) -> int:
        views: list[memoryview] = []
        try:
            for buffer in buffers:
                with memoryview(buffer) as whole:
                    views.append(whole.cast("B"))
            return await self._write(writing, _gather(views))
        finally:
            for view in views:
                view.release()

    def sendfile(self, file: Any, offset: int | None = 0, count: int | None = None) -> CallOp[int]:
        """Send *count* bytes of *file* from *offset*, in one write; return their number. An op.

        file: a regular one, an object with fileno() or a descriptor. offset: None is where the
        descriptor stands, which then moves. count: None is up to the end.
        """
        writing = _Writing(self)
        return CallOp(self._send_file(writing, file, offset, count), writing)

    async def _send_file(
        self, writing: _Writing, file: Any, offset: int | None, count: int | None
    ) -> int:
        fd = check_sending(file, offset, count)
        async with writing:
            try:
                start = os.lseek(fd, 0, os.SEEK_CUR) if offset is None else offset
                await self._send_from(writing, fd, start, count)
            except OpError:
                raise
            except OSError as exc:
                raise self._op_error("sendfile", exc) from None
            finally:
                if offset is None and writing.written:
                    _move_to(fd, start + writing.written)
        return writing.written

    async def _send_from(self, writing: _Writing, fd: int, start: int, count: int | None) -> None:
        while count is None or writing.written < count:
            size = CHUNK if count is None else min(CHUNK, count - writing.written)
            data = await blocking(os.pread, fd, size, start + writing.written)
            if not data:
                break
            await writing.put(memoryview(data))

    async def _write(self, writing: _Writing, chunks: Iterator[memoryview]) -> int:
        async with writing:
            for chunk in chunks:
                with chunk:
                    await writing.put(chunk)
        return writing.written

    # -- the end

    def close_read(self) -> None:
        """Raise OpError: TLS ends its reading when the peer says so. Any thread."""
        with self._lock:
            self._check("close", 0)
        hint = "TLS cannot end its reading side alone: close() ends both, close_write() the other"
        raise self._op_error("close", errno.EOPNOTSUPP, hint)

    def close_write(self) -> None:
        """Announce the end (close_notify), behind the writes under way: the peer reads b"".

        Later writes raise BrokenPipeError; reads go on. Any thread, never blocks. Raises OpError
        before the end of the handshake. Go: Conn.CloseWrite.
        """
        with self._lock:
            self._check("close", 0)
            if not self._ready:
                raise self._op_error("close", errno.ENOTCONN)
            self._shut = True
        self._kick()

    def close(self) -> Awaitable[None]:
        """Announce the end, and close; a second call does nothing.

        Any thread, never blocks. Every waiter wakes with ClosedError. The awaitable is done when
        the connection below is really closed; awaiting it is optional.
        Where to announce the end is to wait, because the peer has not taken yet what was written,
        or over a connection without a descriptor, such as another TLSConn, a goroutine does so, for
        at most 5 s, and then closes; if this is called in one and no write is under way. Else the
        end is not announced. Go: Conn.Close.
        """
        with self._closing:  # a second one, by who is woken here, must not overtake the first
            with self._lock:
                first, self._closed = not self._closed, True
            try:
                if first and self._ready:
                    self._announce_or_wait()
            finally:
                closing = self._announcing or self._conn.close()
                self._waits.wake()  # W5, W6
        return closing

    def _announce_or_wait(self) -> None:
        """Send the end, or have a goroutine do it when there is room."""
        waits = self._sends_rest  # before the look at _wlock, which it gives up at its end
        if self._wlock.try_lock():
            try:
                self._announce_now()
                waits = bool(self._unsent)
            finally:
                self._wlock.unlock()
        if waits or self._sends_rest:
            self._announce_later()

    def _announce_now(self) -> None:
        """Send the end, and what is in front of it, as far as that need not wait. With _wlock."""
        with self._lock:
            self._shut = True
            self._notify()
            self._unsent = data = self._unsent + self._out.read()
        self._unsent = data[self._try_send(data) :]

    def _announce_later(self) -> None:
        """Have a goroutine send what is left, then the end, and close the connection below.

        Where somebody in its run() closes. Who waits here wakes at once.
        """
        if self._write_end is not None or current() is None or current_sched() is not self._sched:
            return
        try:
            self._conn.set_write_deadline(time.monotonic() + ANNOUNCE_SECONDS)
            self._conn.set_read_deadline(-1e9)
        except (OSError, NotImplementedError):
            return  # closed already, or of a kind that could wait for ever
        self._announcing = go(self._announce, name="tls", context=background())

    async def _announce(self) -> None:
        try:
            async with self._wlock:  # W2: behind what is sent by itself
                self._announce_now()
                await self._flush()
        except OSError:
            pass  # the peer is gone, or does not read
        finally:
            await self._conn.close()

    @property
    def is_closed(self) -> bool:
        """Whether close() has been called."""
        return self._closed or self._conn.is_closed

    # -- deadlines and addresses: of the connection below

    def set_read_deadline(self, when: float | None) -> None:
        """Set the deadline of reads; see set_deadline."""
        self._check("set", 0)
        self._conn.set_read_deadline(when)
        self._read_when = when
        if self._ask_deadline is None:  # else the connection below tells us
            self._deadline_moved(READ)

    def set_write_deadline(self, when: float | None) -> None:
        """Set the deadline of writes; see set_deadline."""
        self._check("set", 0)
        self._conn.set_write_deadline(when)
        self._write_when = when
        if self._ask_deadline is None:
            self._deadline_moved(WRITE)

    @property
    def local_addr(self) -> Addr | None:
        """The address at this end."""
        return self._conn.local_addr

    @property
    def remote_addr(self) -> Addr | None:
        """The address at the other end."""
        return self._conn.remote_addr

    @property
    def network(self) -> str:
        """The network of the connection below."""
        return self._conn.network

    @property
    def net_conn(self) -> Conn:
        """The connection below. To read or write there breaks this one. Go: Conn.NetConn."""
        return self._conn

    # -- what has been agreed on

    @property
    def version(self) -> str | None:
        """The protocol, such as "TLSv1.3"; None before the handshake."""
        with self._lock:
            return self._obj.version() if self._ready else None

    @property
    def cipher(self) -> tuple[str, str, int] | None:
        """The cipher: its name, the protocol that defines it, secret bits; or None."""
        with self._lock:
            return self._obj.cipher()

    @property
    def selected_alpn(self) -> str | None:
        """The protocol that both ends have agreed on, or None."""
        with self._lock:
            return self._obj.selected_alpn_protocol()

    @property
    def server_hostname(self) -> str | None:
        """The name that a client has asked for; None at the server."""
        return self._obj.server_hostname

    @property
    def session(self) -> ssl.SSLSession | None:
        """What tls.client(session=) resumes. With TLS 1.3 it comes with the first data read."""
        with self._lock:
            return self._obj.session

    @property
    def session_reused(self) -> bool:
        """Whether the handshake has resumed a session."""
        with self._lock:
            return bool(self._obj.session_reused)

    def peer_certificate(self, binary: bool = False) -> Any:
        """Return the peer's certificate as a dict, or its DER bytes; None if there is none.

        As ssl.SSLSocket.getpeercert: the dict is empty if the certificate was not verified.
        """
        if not self._ready:
            raise self._op_error("peer-certificate", errno.ENOTCONN)
        with self._lock:
            return self._obj.getpeercert(binary)

    def channel_binding(self, kind: str = "tls-unique") -> bytes | None:
        """Return what binds an authentication to this connection; None if TLS has none, as 1.3.

        kind: "tls-unique", the one that ssl has.
        """
        with self._lock:
            binding = self._obj.get_channel_binding(kind)
            return None if self._obj.version() == "TLSv1.3" else binding


class _Writing:
    """`async with _Writing(conn) as writing: await writing.put(chunk)`: one write.

    written: bytes of plaintext that have been encrypted; the .written of what ends the block, if
    that is of gopoll's.
    """

    __slots__ = ("_conn", "written")

    def __init__(self, conn: TLSConn) -> None:
        self._conn = conn
        self.written = 0

    async def put(self, chunk: memoryview) -> None:
        """Encrypt at most CHUNK bytes and send them."""
        conn = self._conn
        if not conn._try_encrypt(chunk):
            await conn._encrypt(chunk)
        self.written += len(chunk)
        await conn._flush(once=True)

    async def __aenter__(self) -> Self:
        try:
            await self._conn._begin_write()
        except BaseException as exc:
            self.tell(exc)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._conn._end_write()
        if exc is not None:
            self.tell(exc)

    def tell(self, exc: BaseException) -> None:
        if isinstance(exc, (OpError, Canceled)):
            exc.written = self.written


def _gather(views: list[memoryview]) -> Iterator[memoryview]:
    """Yield *views* in pieces of CHUNK; small ones are put together."""
    held = bytearray()
    for view in views:
        at = 0
        while at < len(view):
            piece = view[at : at + CHUNK - len(held)]
            at += len(piece)
            if not held and len(piece) == CHUNK:
                yield piece
                continue
            held += piece
            piece.release()
            if len(held) == CHUNK:
                yield memoryview(held)
                held = bytearray()
    if held:
        yield memoryview(held)
