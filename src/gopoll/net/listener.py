"""Listeners: the acceptance of connections, over TCP here and over Unix sockets in unix.

Called by goroutines; close and deadlines by any thread.
Go: net/tcpsock.go, tcpsock_posix.go, netFD.accept in fd_unix.go (go1.27).
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NoReturn, Self, cast

from gopoll._fd import FD
from gopoll.errors import Addr, ClosedError, format_addr, op_error
from gopoll.net.conn import INTERNAL, Closing, Conn, TCPConn

__all__ = ["Listener", "ListenerBase", "TCPListener"]


class ListenerBase(Closing):
    """What all listeners are: accept connections one by one, or all with `async for`.

    Any number of goroutines may accept at once.
    """

    __slots__ = ()

    def accept(self) -> Awaitable[Conn]:
        """Wait for a connection and return it. An op.

        Raises ClosedError, TimeoutError (deadline), or another OpError. Too many open files
        (.is_temporary) does not end the listener: close something, or wait, and accept again.
        """
        raise NotImplementedError

    @property
    def addr(self) -> Addr:
        """The address it listens on."""
        raise NotImplementedError

    @property
    def network(self) -> str:
        """The network, as it was given to listen."""
        raise NotImplementedError

    @property
    def is_closed(self) -> bool:
        """Whether close() has been called."""
        raise NotImplementedError

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[Conn]:
        """Accept; the iteration ends when the listener is closed."""
        return self._next()

    async def _next(self) -> Conn:
        try:
            return await self.accept()
        except ClosedError:
            raise StopAsyncIteration from None

    def __repr__(self) -> str:
        state = " closed" if self.is_closed else ""
        return f"<{type(self).__name__} {self.network} {format_addr(self.addr)}{state}>"


class _Absent:
    """What FD has and a listener has not: whoever looks for it gets an AttributeError."""

    __slots__ = ("_name",)

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, obj: object, owner: type) -> NoReturn:
        text = f"{owner.__name__} has no {self._name!r}: a listener accepts connections"
        raise AttributeError(text, name=self._name, obj=obj)


class Listener(FD, ListenerBase):
    """A listening socket. Go: net.Listener."""

    __slots__ = ()

    if not TYPE_CHECKING:  # shutdown(2) would end the accepting without closing anything
        read = _Absent()
        readinto = _Absent()
        write = _Absent()
        close_read = _Absent()
        close_write = _Absent()
        wait_connect = _Absent()

    def __dir__(self) -> list[str]:
        hidden = {name for name, value in vars(Listener).items() if isinstance(value, _Absent)}
        return [name for name in super().__dir__() if name not in hidden | INTERNAL]

    @property
    def addr(self) -> Addr:
        """The address it listens on."""
        addr: Addr = self.local_addr
        return addr

    def close(self) -> Awaitable[None]:
        """Stop listening; a second call does nothing. Any thread, never blocks.

        Waiting accepts wake with ClosedError; connections nobody has accepted are reset. When the
        awaitable is done, the address is free again.
        """
        try:
            return super().close()
        except ClosedError:
            return self.wait_closed()

    async def raw_read(self, fn: Callable[[int], object]) -> NoReturn:
        """Raise OpError: a listener has no data. raw_control works. Go: rawListener."""
        raise op_error("raw-read", self.network, None, self.addr, errno.EINVAL)

    async def raw_write(self, fn: Callable[[int], object]) -> NoReturn:
        """Raise OpError: a listener takes no data. raw_control works. Go: rawListener."""
        raise op_error("raw-write", self.network, None, self.addr, errno.EINVAL)

    def file(self) -> int:
        """Return a copy of the descriptor, non-blocking, the caller's to close. Raises OpError.

        from_fd makes a listener of it in another run or process. Any thread. Go: File.
        """
        return self.dup()


class TCPListener(Listener):
    """A TCP listener. Go: net.TCPListener."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def addr(self) -> tuple[str, int]: ...

    def accept(self) -> Awaitable[TCPConn]:
        """Wait for a connection and return it; see Listener. Go: TCPListener.accept, newTCPConn.

        NODELAY and keep-alive are the listener's own, which pass to the connection (tune_tcp).
        """
        return self.accept_conn(TCPConn)

    def __anext__(self) -> Awaitable[TCPConn]:
        if type(self) is TCPListener:  # the same, without a frame of Python's
            return self.accept_conn(TCPConn, iterate=True)
        return cast("Awaitable[TCPConn]", self._next())
