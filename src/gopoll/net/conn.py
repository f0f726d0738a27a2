"""Connections: Conn, which is abstract, and those that are a descriptor and inherit from FD too.

Called by goroutines, and by any thread where api.md says so.
Go: net/net.go, net/tcpsock.go, net/sockopt_posix.go (go1.27).
"""

from __future__ import annotations

import errno
import math
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from gopoll import _fdcopy, _fdmsg, _fdraw
from gopoll._fd import FD
from gopoll.errors import (
    Addr,
    Canceled,
    ClosedError,
    OpError,
    closed_error,
    format_addr,
    op_error,
)
from gopoll.net.checks import INT_MAX, check_int, check_seconds
from gopoll.net.sockopt import (
    KeepAlive,
    KeepAliveConfig,
    check_keep_alive,
    set_keep_alive,
    set_no_delay,
)
from gopoll.runtime.blocking import blocking

if TYPE_CHECKING:
    from _typeshed import HasFileno, ReadableBuffer, WriteableBuffer

__all__ = ["Closing", "Conn", "FDConn", "KeepAliveConfig", "PacketConn", "TCPConn"]

_COPY_BYTES = 262144  # at a time, where we copy ourselves
_MAX_LINGER = 65535  # seconds; the kernel keeps it in ticks


class Closing:
    """What `async with` closes: connections and listeners."""

    __slots__ = ()

    def close(self) -> Awaitable[None]:
        """Close; what it returns is done when that is done."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class Conn(Closing):
    """A connection: the abstract base of all that dial, accept and tls.client return.

    Any number of goroutines may use one at once: reads queue behind reads, writes behind writes,
    and a large write is not mixed with another.

    It holds no descriptor: a wrapper of another connection derives from it as the kinds of
    gopoll do, and gives read, write, close, is_closed, the read and the write deadline, both
    addresses and network. The rest stands on these until it gives better. Go: net.Conn.
    """

    __slots__ = ()

    def read(self, n: int = 69632) -> Awaitable[bytes]:
        """Read at most *n* bytes: b"" at the end (and for n == 0). An op.

        Raises ClosedError, TimeoutError (deadline), another OpError.
        """
        raise NotImplementedError

    def readinto(self, buffer: WriteableBuffer) -> Awaitable[int]:
        """Read into a writable *buffer*; return the count, 0 at the end. An op."""
        return self._readinto(buffer)

    async def _readinto(self, buffer: WriteableBuffer) -> int:
        with memoryview(buffer) as whole, whole.cast("B") as view:
            data = await self.read(len(view))
            view[: len(data)] = data
        return len(data)

    def write(self, data: ReadableBuffer) -> Awaitable[int]:
        """Write all of *data* and return its length, or raise an error whose .written says how
        much has left. An op; concurrent writes do not mix.
        """
        raise NotImplementedError

    def writev(self, buffers: Iterable[ReadableBuffer]) -> Awaitable[int]:
        """Write all of *buffers* in order, as write does; return the sum of their lengths. An op.

        Here one write each: others may come in between.
        """
        return self._writev(list(buffers))

    async def _writev(self, buffers: list[ReadableBuffer]) -> int:
        total = 0
        for buffer in buffers:
            total += await self._write_after(total, buffer)
        return total

    def sendfile(
        self, file: HasFileno | int, offset: int | None = 0, count: int | None = None
    ) -> Awaitable[int]:
        """Send *count* bytes of *file* from *offset*; return how many there were. An op.

        file: an object with fileno(), or a descriptor. offset: None is where it stands, which
        moves along. count: None is up to the end. Raises as write, and OpError for what has no
        position. Here by way of Python, read in blocking().
        """
        return self._sendfile(file, offset, count)

    async def _sendfile(self, file: HasFileno | int, offset: int | None, count: int | None) -> int:
        fd = check_sending(file, offset, count)
        total = 0
        try:
            at = os.lseek(fd, 0, os.SEEK_CUR) if offset is None else offset
            while count is None or total < count:
                size = _COPY_BYTES if count is None else min(_COPY_BYTES, count - total)
                data = await blocking(os.pread, fd, size, at + total)
                if not data:
                    break
                try:
                    total += await self._write_after(total, data)
                except (OpError, Canceled) as exc:
                    total = exc.written or total
                    raise
                finally:
                    if offset is None:
                        _move_to(fd, at + total)
        except OpError:
            raise
        except OSError as exc:
            ends = self.network, self.local_addr, self.remote_addr
            raise op_error("sendfile", *ends, exc, written=total) from None
        return total

    def splice_from(self, src: Conn, count: int | None = None) -> Awaitable[int]:
        """Write here what comes in on *src*, up to its end or *count* bytes. An op.

        Returns how many there were. Raises as read of src and as write: .written says how much
        has left, a note what had been read and is lost. Here by way of Python.
        """
        return self._splice_from(src, count)

    async def _splice_from(self, src: Conn, count: int | None) -> int:
        if not isinstance(src, Conn):
            raise TypeError(f"src must be a Conn, not {type(src).__name__}")
        if count is not None:
            check_int("count", count)
        total = 0
        while count is None or total < count:
            size = _COPY_BYTES if count is None else min(_COPY_BYTES, count - total)
            data = None
            try:
                data = await src.read(size)
                if not data:
                    break
                total += await self._write_after(total, data)
            except (OpError, Canceled) as exc:
                if data is None:
                    exc.written = total
                elif (lost := total + len(data) - (exc.written or 0)) > 0:
                    exc.add_note(f"{lost} bytes had been read and were not written")
                raise
        return total

    async def _write_after(self, total: int, data: ReadableBuffer) -> int:
        """Write *data*; an error counts what had left before it too."""
        try:
            return await self.write(data)
        except (OpError, Canceled) as exc:
            exc.written = total + (exc.written or 0)
            raise

    def close_read(self) -> None:
        """Shut down the reading side. Raises OpError, here because this kind has no sides."""
        raise self._unsupported("close")

    def close_write(self) -> None:
        """Shut down the writing side: the peer reads the end. Raises OpError, as close_read."""
        raise self._unsupported("close")

    def close(self) -> Awaitable[None]:
        """Close; a second call does nothing. Any thread, never blocks.

        Every waiter wakes with ClosedError. The awaitable is done when the connection is really
        closed; awaiting it is optional.
        """
        raise NotImplementedError

    @property
    def is_closed(self) -> bool:
        """Whether close() has been called."""
        raise NotImplementedError

    def set_deadline(self, when: float | None) -> None:
        """Set both deadlines to *when* (time.monotonic() seconds); None clears, the past cancels
        now. Holds for pending and later operations until changed; may be moved after it fired.
        Any thread. Raises ClosedError.
        """
        self.set_read_deadline(when)
        self.set_write_deadline(when)

    def set_read_deadline(self, when: float | None) -> None:
        """Set the deadline of reads; see set_deadline."""
        raise NotImplementedError

    def set_write_deadline(self, when: float | None) -> None:
        """Set the deadline of writes; see set_deadline."""
        raise NotImplementedError

    def set_timeout(self, timeout: float | None) -> None:
        """set_deadline(now + timeout seconds), the clock read once, now; None clears."""
        self.set_deadline(_when(timeout))

    def set_read_timeout(self, timeout: float | None) -> None:
        """set_read_deadline(now + timeout seconds); None clears."""
        self.set_read_deadline(_when(timeout))

    def set_write_timeout(self, timeout: float | None) -> None:
        """set_write_deadline(now + timeout seconds); None clears."""
        self.set_write_deadline(_when(timeout))

    @property
    def local_addr(self) -> Addr | None:
        """The address at this end."""
        raise NotImplementedError

    @property
    def remote_addr(self) -> Addr | None:
        """The address at the other end."""
        raise NotImplementedError

    @property
    def network(self) -> str:
        """The network, as it was given to dial or listen."""
        raise NotImplementedError

    def __repr__(self) -> str:
        ends = format_addr(self.local_addr)
        if self.remote_addr is not None:
            ends += f"->{format_addr(self.remote_addr)}"
        state = " closed" if self.is_closed else ""
        return f"<{type(self).__name__} {self.network} {ends}{state}>"

    def _unsupported(self, op: str) -> OpError:
        return op_error(op, self.network, self.local_addr, self.remote_addr, errno.EOPNOTSUPP)


class PacketConn(Conn):
    """A connection of datagrams, which keep their bounds: abstract. Go: net.PacketConn.

    listen_packet returns one that has no peer: read_from says who sent, write_to says to whom.
    One that was dialled has a peer, and read and write are for that one.
    """

    __slots__ = ()

    def read_from(self, n: int = 65536) -> Awaitable[tuple[bytes, Any]]:
        """Read a datagram of at most *n* bytes, the rest is lost: (data, address). An op.

        b"" is a datagram too. The address of a Unix socket without a name is None. Raises
        ClosedError, TimeoutError (deadline), another OpError.
        """
        raise NotImplementedError

    def write_to(self, data: ReadableBuffer, addr: Addr) -> Awaitable[int]:
        """Send *data* as one datagram to *addr*, a literal; return its length. An op.

        Raises OpError: one that has a peer takes no other.
        """
        raise NotImplementedError


def check_sending(file: HasFileno | int, offset: int | None, count: int | None) -> int:
    """Return the descriptor of *file*; TypeError or ValueError if sendfile can take none of it."""
    for name, value in (("offset", offset), ("count", count)):
        if value is not None:
            check_int(name, value)
    return _fdcopy.descriptor_of(file)


def _when(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    check_seconds("timeout", timeout)
    return time.monotonic() + timeout


# What FD has for the net package's own use: nobody is shown it who asks what a connection can do.
INTERNAL = frozenset(
    {"accept_conn", "dup", "getpeername", "getsockname", "init", "set_addrs"}
    | {"wait_closed", "wait_connect"}
)


class FDConn(FD, Conn):
    """A connection with a descriptor of its own: the base of TCPConn and its kin.

    read, readinto, write, the deadlines and the addresses are FD's, which goes first: no frame
    of Python stands between a caller and the operation.
    """

    __slots__ = ()

    writev = _fdcopy.writev
    sendfile = _fdcopy.sendfile
    raw_read = _fdraw.raw_read
    raw_write = _fdraw.raw_write

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name not in INTERNAL]

    def splice_from(self, src: Conn, count: int | None = None) -> Awaitable[int]:
        """Write here what comes in on *src*, up to its end or *count* bytes, and return how many
        there were. An op.

        By way of the kernel (splice) where both ends have a descriptor and are streams; it copies
        where the kernel cannot. Raises ClosedError, TimeoutError (deadline), another OpError, of
        either side: .written says how much has left, a note what had been read and is lost.
        Other reads of src and writes here may come in between. Go: TCPConn.ReadFrom.
        """
        if isinstance(src, FD):
            return _fdcopy.splice_from(self, src, count)
        return self._splice_from(src, count)

    def file(self) -> int:
        """Return a copy of the descriptor, the caller's to close. Any thread. Raises OpError.

        It is closed on exec and non-blocking, and shares that flag with the connection. If
        somebody clears it, reads and writes of a socket go on as before; what may block then are
        sendfile and splice_from, and reads and writes of a pipe or a terminal. Go: File, which
        clears it.
        """
        return self.dup()

    def close(self) -> Awaitable[None]:
        """Close; a second call does nothing. Any thread, never blocks.

        Every waiter wakes with ClosedError. The awaitable is done when the descriptor is really
        closed; awaiting it is optional.
        """
        try:
            return super().close()
        except ClosedError:
            return self.wait_closed()

    def set_read_buffer(self, size: int) -> None:
        """Ask for a receive buffer of *size* bytes; the kernel doubles it. Raises OpError."""
        check_int("size", size, 0, INT_MAX)
        self._set_option(lambda s: s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size))

    def set_write_buffer(self, size: int) -> None:
        """Ask for a send buffer of *size* bytes; the kernel doubles it. Raises OpError."""
        check_int("size", size, 0, INT_MAX)
        self._set_option(lambda s: s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size))

    def _set_option(self, apply: Callable[[socket.socket], object], op: str = "set") -> None:
        """Call *apply* on the socket, which cannot be closed meanwhile. Raises OpError."""

        def on_descriptor(fd: int) -> None:
            s = socket.socket(fileno=fd)
            try:
                apply(s)
            finally:
                s.detach()

        try:
            self._with_descriptor(on_descriptor)
        except ClosedError:
            raise closed_error(op, self.network, None, self.local_addr) from None
        except OSError as exc:
            raise op_error(
                op, self.network, None, self.local_addr, exc, syscall=f"{op}sockopt"
            ) from None


class FDPacketConn(FDConn, PacketConn):
    """A connection with a descriptor and messages: the base of UDPConn and UnixConn."""

    __slots__ = ()

    read_from = _fdmsg.read_from
    readinto_from = _fdmsg.readinto_from
    write_to = _fdmsg.write_to
    recvmsg = _fdmsg.recvmsg
    sendmsg = _fdmsg.sendmsg


class TCPConn(FDConn):
    """A TCP connection. Go: net.TCPConn."""

    __slots__ = ()

    if TYPE_CHECKING:  # but for a link-local address, which has four elements

        @property
        def local_addr(self) -> tuple[str, int]: ...

        @property
        def remote_addr(self) -> tuple[str, int]: ...

    def set_no_delay(self, no_delay: bool) -> None:
        """Send small writes at once (True, the default) or gather them. Raises OpError."""
        if not isinstance(no_delay, int):
            raise TypeError(f"no_delay must be a bool, not {type(no_delay).__name__}")
        self._set_option(lambda s: set_no_delay(s, bool(no_delay)))

    def set_keep_alive(self, config: KeepAlive | bool) -> None:
        """Set how silence is probed: a KeepAliveConfig, or seconds, or on and off. OpError."""
        if isinstance(config, bool):
            # As Go's SetKeepAlive: the figures stay.
            config = KeepAliveConfig(enable=config, idle=-1, interval=-1, count=-1)
        checked = check_keep_alive(config)
        self._set_option(lambda s: set_keep_alive(s, checked))

    def set_linger(self, timeout: float | None) -> None:
        """Say what becomes of unsent data on close. Raises OpError.

        None, or below 0 as in Go: the kernel sends it in the background (the default). 0: it is
        thrown away and the peer gets a reset. Above: the kernel tries for so many seconds, rounded
        up; close(2) itself may block that long.
        """
        if timeout is not None:
            check_seconds("timeout", timeout)
        wanted = -1.0 if timeout is None else timeout
        seconds = math.ceil(min(max(wanted, 0.0), _MAX_LINGER))
        linger = struct.pack("ii", wanted >= 0, seconds)
        self._set_option(lambda s: s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger))


def _move_to(fd: int, at: int) -> None:
    """Have *fd* stand at *at*; no error of that covers the one that has ended an operation."""
    try:
        os.lseek(fd, at, os.SEEK_SET)
    except OSError:
        pass  # closed, as the next read of it says
