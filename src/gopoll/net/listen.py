"""Listening: listen, Listener and the acceptance of connections.

Called by goroutines; close and deadlines by any thread.
Go: net/dial.go (ListenConfig), net/tcpsock.go, tcpsock_posix.go, netFD.accept (go1.27).
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Awaitable
from types import TracebackType
from typing import TYPE_CHECKING, Self, overload

from gopoll._fd import FD
from gopoll.errors import Addr, AddrError, ClosedError, OpError, format_addr, op_error
from gopoll.net.addr import IPSockAddr, TCPNetwork, is_ipv4
from gopoll.net.conn import Conn, TCPConn
from gopoll.net.resolve import DEFAULT_RESOLVER, AddrResolver, resolve_addr_list
from gopoll.net.sock import (
    Control,
    KeepAlive,
    Plan,
    check_keep_alive,
    internet_socket,
    local_name,
    tune_tcp,
)
from gopoll.runtime.context import current_context

__all__ = ["ListenConfig", "Listener", "TCPListener", "listen"]


class Listener(FD):
    """A listening socket: accept connections one by one, or all with `async for`.

    Any number of goroutines may accept at once.
    """

    __slots__ = ()

    async def accept(self) -> Conn:
        """Wait for a connection and return it. An op.

        Raises ClosedError, TimeoutError (deadline), or another OpError. Too many open files
        (.is_temporary) does not end the listener: close something, or wait, and accept again.
        """
        raise NotImplementedError

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

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Conn:
        """Accept; the iteration ends when the listener is closed."""
        try:
            return await self.accept()
        except ClosedError:
            raise StopAsyncIteration from None

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
        state = " closed" if self.is_closed else ""
        return f"<{type(self).__name__} {self.network} {format_addr(self.local_addr)}{state}>"


class TCPListener(Listener):
    """A TCP listener. Go: net.TCPListener."""

    __slots__ = ()

    if TYPE_CHECKING:

        async def __anext__(self) -> TCPConn: ...

    async def accept(self) -> TCPConn:
        """Wait for a connection and return it; see Listener. Go: netFD.accept, newTCPConn.

        NODELAY and keep-alive are the listener's own, which pass to the connection (tune_tcp).
        """
        sysfd, remote = await self.accept_fd()
        conn = TCPConn(sysfd, self.network)
        try:
            conn.init(self.poller)
            conn.set_addrs(local_name(conn), remote)
        except BaseException as exc:
            conn.close()  # the new descriptor, not ours (Go issue 34392)
            if isinstance(exc, OpError):
                exc.op, exc.source, exc.addr = "accept", None, self.local_addr
            raise
        return conn


class ListenConfig:
    """How to listen; may be used again. Go: net.ListenConfig.

    control: control(network, address, raw) is called on the socket before bind.
    keep_alive: of the accepted connections, as in Dialer.
    backlog: how many connections may wait to be accepted; None is the system's limit.
    """

    def __init__(
        self,
        *,
        control: Control | None = None,
        keep_alive: KeepAlive = 15.0,
        backlog: int | None = None,
        resolver: AddrResolver | None = None,
    ) -> None:
        """Keep the settings; nothing is opened yet."""
        if backlog is not None and backlog < 0:
            raise ValueError(f"backlog must not be negative, not {backlog}")
        self.control = control
        self.keep_alive = check_keep_alive(keep_alive)
        self.backlog = backlog
        self.resolver = resolver if resolver is not None else DEFAULT_RESOLVER

    @overload
    async def listen(self, network: TCPNetwork, address: Addr) -> TCPListener: ...

    @overload
    async def listen(self, network: str, address: Addr) -> Listener: ...

    async def listen(self, network: str, address: Addr) -> Listener:
        """Listen on *address* ("" or ":0": every address, any port). An op. Raises OpError.

        Where a name stands for several addresses, one is taken, IPv4 first. SO_REUSEADDR is set,
        SO_REUSEPORT never: control can. Go: ListenConfig.Listen.
        """
        ctx = current_context()
        addrs = await resolve_addr_list(ctx, self.resolver, "listen", network, address)
        laddr = next((addr for addr in addrs if is_ipv4(addr)), addrs[0])
        try:
            return await self._listen_tcp(network, laddr)
        except OSError as exc:
            raise _listen_error(network, laddr, exc) from None

    async def _listen_tcp(self, network: str, laddr: IPSockAddr) -> TCPListener:
        """Go: sysListener.listenTCP."""
        plan = Plan(
            make=TCPListener,
            tune=functools.partial(tune_tcp, keep_alive=self.keep_alive),
            control=self.control,
            backlog=self.backlog,
        )
        return await internet_socket(
            current_context(), network, laddr, None, socket.SOCK_STREAM, 0, "listen", plan
        )


def _listen_error(network: str, laddr: IPSockAddr, exc: OSError) -> OpError:
    """Return *exc* with operation, network and address."""
    if not isinstance(exc, OpError):
        return op_error("listen", network, None, laddr, exc)
    exc.op, exc.net = "listen", network
    if not isinstance(exc, AddrError):
        exc.source, exc.addr = None, laddr
    return exc


@overload
async def listen(
    network: TCPNetwork,
    address: Addr,
    *,
    control: Control | None = None,
    keep_alive: KeepAlive = 15.0,
    backlog: int | None = None,
) -> TCPListener: ...


@overload
async def listen(
    network: str,
    address: Addr,
    *,
    control: Control | None = None,
    keep_alive: KeepAlive = 15.0,
    backlog: int | None = None,
) -> Listener: ...


async def listen(
    network: str,
    address: Addr,
    *,
    control: Control | None = None,
    keep_alive: KeepAlive = 15.0,
    backlog: int | None = None,
) -> Listener:
    """Listen on *address*; the arguments are ListenConfig's. An op. Go: net.Listen."""
    config = ListenConfig(control=control, keep_alive=keep_alive, backlog=backlog)
    return await config.listen(network, address)
