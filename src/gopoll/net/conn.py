"""Connections: what dial and accept return. Reads, writes and deadlines are inherited from FD.

Called by goroutines, and by any thread where api.md says so.
Go: net/net.go, net/tcpsock.go, net/sockopt_posix.go (go1.27).
"""

from __future__ import annotations

import math
import socket
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from gopoll._fd import FD
from gopoll.errors import ClosedError, closed_error, format_addr, op_error
from gopoll.net.sock import (
    KeepAlive,
    KeepAliveConfig,
    check_keep_alive,
    check_seconds,
    set_keep_alive,
    set_no_delay,
)

__all__ = ["Conn", "KeepAliveConfig", "TCPConn"]

_MAX_LINGER = 65535  # seconds; the kernel keeps it in ticks


class Conn(FD):
    """A stream connection: the base of TCPConn and its later kin. Made by dial, accept and so on.

    Any number of goroutines may use one at once: reads queue behind reads, writes behind writes,
    and a large write is not mixed with another. read, readinto, write, the deadlines and the
    addresses are FD's.
    """

    __slots__ = ()

    def close(self) -> Awaitable[None]:
        """Close; a second call does nothing. Any thread, never blocks.

        Every waiter wakes with ClosedError. The awaitable is done when the descriptor is really
        closed; awaiting it is optional.
        """
        try:
            return super().close()
        except ClosedError:
            return self.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        ends = f"{format_addr(self.local_addr)}->{format_addr(self.remote_addr)}"
        state = " closed" if self.is_closed else ""
        return f"<{type(self).__name__} {self.network} {ends}{state}>"

    def set_read_buffer(self, size: int) -> None:
        """Ask for a receive buffer of *size* bytes; the kernel doubles it. Raises OpError."""
        _check_int("size", size)
        self._set_option(lambda s: s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size))

    def set_write_buffer(self, size: int) -> None:
        """Ask for a send buffer of *size* bytes; the kernel doubles it. Raises OpError."""
        _check_int("size", size)
        self._set_option(lambda s: s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size))

    def _set_option(self, apply: Callable[[socket.socket], object]) -> None:
        """Call *apply* on the socket, which cannot be closed meanwhile. Raises OpError "set"."""

        def on_descriptor(fd: int) -> None:
            s = socket.socket(fileno=fd)
            try:
                apply(s)
            finally:
                s.detach()

        try:
            self.raw_control(on_descriptor)
        except ClosedError:
            raise closed_error("set", self.network, None, self.local_addr) from None
        except OSError as exc:
            raise op_error("set", self.network, None, self.local_addr, exc) from None


class TCPConn(Conn):
    """A TCP connection. Go: net.TCPConn."""

    __slots__ = ()

    def set_no_delay(self, no_delay: bool) -> None:
        """Send small writes at once (True, the default) or gather them. Raises OpError."""
        if not isinstance(no_delay, int):
            raise TypeError(f"no_delay must be a bool, not {type(no_delay).__name__}")
        self._set_option(lambda s: set_no_delay(s, no_delay))

    def set_keep_alive(self, config: KeepAlive | bool) -> None:
        """Set how silence is probed: a KeepAliveConfig, or seconds, or on and off. OpError."""
        if isinstance(config, bool):
            # As Go's SetKeepAlive: the figures stay.
            config = KeepAliveConfig(enable=config, idle=-1, interval=-1, count=-1)
        checked = check_keep_alive(config)
        self._set_option(lambda s: set_keep_alive(s, checked))

    def set_linger(self, timeout: float | None) -> None:
        """Say what becomes of unsent data on close. Raises OpError.

        None: the kernel sends it in the background (the default). 0: it is thrown away and the
        peer gets a reset. Above: the kernel tries for so many seconds, rounded up; close(2)
        itself may block that long.
        """
        if timeout is not None:
            check_seconds("timeout", timeout)
        seconds = -1 if timeout is None else math.ceil(min(timeout, _MAX_LINGER))
        linger = struct.pack("ii", seconds >= 0, max(seconds, 0))
        self._set_option(lambda s: s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger))


def _check_int(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
