"""Listening: listen, listen_packet and the settings of both.

Called by goroutines.
Go: net/dial.go (ListenConfig), tcpsock_posix.go, udpsock_posix.go, unixsock_posix.go (go1.27).
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable
from typing import TypedDict, TypeVar, Unpack, overload

from gopoll.errors import Addr, AddrError, OpError, op_error
from gopoll.net.addr import (
    Address,
    IPSockAddr,
    Path,
    TCPNetwork,
    UDPNetwork,
    UnixgramNetwork,
    UnixStreamNetwork,
    is_ipv4,
    parse_network,
    unix_path,
)
from gopoll.net.checks import INT_MAX, check_control, check_int, check_resolver
from gopoll.net.conn import PacketConn
from gopoll.net.listener import Listener, TCPListener
from gopoll.net.resolve import DEFAULT_RESOLVER, AddrResolver, resolve_addr_list
from gopoll.net.sock import Control, Plan, internet_socket
from gopoll.net.sockopt import DEFAULT_KEEP_ALIVE, KeepAlive, check_keep_alive, tune_tcp
from gopoll.net.udp import UDPConn, new_udp_conn
from gopoll.net.unix import UnixConn, UnixListener, unix_maker, unix_socket
from gopoll.runtime.context import current_context

__all__ = ["ListenConfig", "Listener", "TCPListener", "listen", "listen_packet"]

L = TypeVar("L")


class PacketOptions(TypedDict, total=False):
    """The arguments of listen_packet: those of ListenConfig that concern it."""

    control: Control | None
    reuse_port: bool
    resolver: AddrResolver | None


class ListenOptions(PacketOptions, total=False):
    """The arguments of listen: those of ListenConfig."""

    keep_alive: KeepAlive
    exclusive: bool
    backlog: int | None


class ListenConfig:
    """How to listen; may be used again. Go: net.ListenConfig.

    control: control(network, address, raw) is called on the socket before bind: see Control.
    keep_alive: of the accepted connections, as in Dialer.
    reuse_port: let several sockets, of other processes too, have the address; each connection
        or datagram goes to one of them (SO_REUSEPORT). For tcp and udp.
    exclusive: for a listener that several processes share: a connection wakes one of those that
        wait in accept, or few, but not all (EPOLLEXCLUSIVE). Who does not accept just now leaves
        it to the others. A parent detaches it and forks, each child takes it with from_fd.
    backlog: how many connections may wait to be accepted; None is the system's limit, which
        holds in any case.
    resolver: of the name of a host to listen on, as in Dialer.

    Raises TypeError or ValueError for what makes no sense. listen_packet() looks at control,
    reuse_port and resolver only, and keep_alive is for tcp.
    """

    def __init__(
        self,
        *,
        control: Control | None = None,
        keep_alive: KeepAlive = DEFAULT_KEEP_ALIVE,
        reuse_port: bool = False,
        exclusive: bool = False,
        backlog: int | None = None,
        resolver: AddrResolver | None = None,
    ) -> None:
        """Keep the settings; nothing is opened yet."""
        for name, value in (("reuse_port", reuse_port), ("exclusive", exclusive)):
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be a bool, not {type(value).__name__}")
        if backlog is not None:
            check_int("backlog", backlog, 0, INT_MAX)
        check_resolver(resolver)
        check_control(control)
        self.control = control
        self.keep_alive = check_keep_alive(keep_alive)
        self.reuse_port = reuse_port
        self.exclusive = exclusive
        self.backlog = backlog
        self.resolver = resolver if resolver is not None else DEFAULT_RESOLVER

    @overload
    async def listen(self, network: TCPNetwork, address: Addr) -> TCPListener: ...

    @overload
    async def listen(self, network: UnixStreamNetwork, address: Path) -> UnixListener: ...

    @overload
    async def listen(self, network: str, address: Address) -> Listener: ...

    async def listen(self, network: str, address: Address) -> Listener:
        """Listen for connections on *address*. An op. Raises OpError. Go: ListenConfig.Listen.

        tcp: "" and ":0" are every address and any port; where a name stands for several
        addresses, one is taken, IPv4 first. SO_REUSEADDR is set. unix, unixpacket: a path where
        there is no file, which close() removes; "@name" (abstract); "" is an abstract name of
        the kernel's choice.
        """
        base = parse_network(network, op="listen").base
        if base in ("udp", "unixgram"):
            raise _unexpected(network, address, "listen_packet")
        if base == "tcp":
            laddr = await self._resolve(network, address)
            return await _naming(network, laddr, self._listen_tcp(network, laddr))
        path = self._unix_path(network, address)
        return await _naming(network, path, self._listen_unix(network, path))

    @overload
    async def listen_packet(self, network: UDPNetwork, address: Addr) -> UDPConn: ...

    @overload
    async def listen_packet(self, network: UnixgramNetwork, address: Path) -> UnixConn: ...

    @overload
    async def listen_packet(self, network: str, address: Address) -> PacketConn: ...

    async def listen_packet(self, network: str, address: Address) -> PacketConn:
        """Receive the datagrams that come to *address*. An op. Raises OpError.

        udp: as listen on tcp, but without SO_REUSEADDR. The address of a multicast group is its
        port on every address, which others may listen to as well; joining the group is
        control's task, or raw_control's. unixgram: as listen on unix, but the path stays after
        close(). Go: ListenConfig.ListenPacket.
        """
        base = parse_network(network, op="listen").base
        if base not in ("udp", "unixgram"):
            raise _unexpected(network, address, "listen")
        if self.exclusive:
            raise ValueError("exclusive is for listen: who sends waits for room too")
        if base == "udp":
            laddr = await self._resolve(network, address)
            return await _naming(network, laddr, self._listen_udp(network, laddr))
        path = self._unix_path(network, address)
        return await _naming(network, path, self._listen_unixgram(network, path))

    async def _resolve(self, network: str, address: object) -> IPSockAddr:
        """Return the one address to bind to. Go: addrList.first(isIPv4)."""
        ctx = current_context()
        addrs = await resolve_addr_list(ctx, self.resolver, "listen", network, address)
        return next((addr for addr in addrs if is_ipv4(addr)), addrs[0])

    def _unix_path(self, network: str, address: object) -> str:
        if self.reuse_port:
            raise ValueError("reuse_port is for tcp and udp: a path has one socket")
        return unix_path(address, op="listen", net=network)

    async def _listen_tcp(self, network: str, laddr: IPSockAddr) -> TCPListener:
        """Go: sysListener.listenTCP."""
        plan = Plan(TCPListener, self._tune_tcp, self.control, self.backlog, self.exclusive)
        return await internet_socket(
            current_context(), network, laddr, None, socket.SOCK_STREAM, 0, "listen", plan
        )

    async def _listen_udp(self, network: str, laddr: IPSockAddr) -> UDPConn:
        """Go: sysListener.listenUDP."""
        plan = Plan(new_udp_conn, self._tune_udp, self.control)
        return await internet_socket(
            current_context(), network, laddr, None, socket.SOCK_DGRAM, 0, "listen", plan
        )

    async def _listen_unix(self, network: str, path: str) -> UnixListener:
        """Go: sysListener.listenUnix."""
        plan = Plan(UnixListener, None, self.control, self.backlog, self.exclusive)
        listener = await unix_socket(current_context(), network, path, None, "listen", plan)
        listener.set_unlink_on_close(True)
        return listener

    async def _listen_unixgram(self, network: str, path: str) -> UnixConn:
        """Go: sysListener.listenUnixgram."""
        plan = Plan(unix_maker(network), None, self.control)
        return await unix_socket(current_context(), network, path, None, "listen", plan)

    def _tune_tcp(self, s: socket.SocketType) -> None:
        tune_tcp(s, self.keep_alive)
        self._tune_udp(s)

    def _tune_udp(self, s: socket.SocketType) -> None:
        if self.reuse_port:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _unexpected(network: str, address: object, remedy: str) -> AddrError:
    return AddrError("listen", network, address, f"unexpected address type (use {remedy})")


async def _naming(network: str, laddr: Addr, listening: Awaitable[L]) -> L:
    """Await *listening*; every error says operation, network and address."""
    try:
        return await listening
    except OSError as exc:
        if not isinstance(exc, OpError):
            raise op_error("listen", network, None, laddr, exc) from None
        exc.op, exc.net = "listen", network
        if not isinstance(exc, AddrError):
            exc.source, exc.addr = None, laddr
        raise exc from None


@overload
async def listen(
    network: TCPNetwork, address: Addr, **cfg: Unpack[ListenOptions]
) -> TCPListener: ...


@overload
async def listen(
    network: UnixStreamNetwork, address: Path, **cfg: Unpack[ListenOptions]
) -> UnixListener: ...


@overload
async def listen(network: str, address: Address, **cfg: Unpack[ListenOptions]) -> Listener: ...


async def listen(network: str, address: Address, **cfg: Unpack[ListenOptions]) -> Listener:
    """Listen on *address*; the arguments are ListenConfig's. An op. Go: net.Listen.

    ValueError for keep_alive or reuse_port with a Unix socket.
    """
    if "keep_alive" in cfg and parse_network(network, op="listen").family == socket.AF_UNIX:
        raise ValueError("keep_alive is for tcp: nobody probes a Unix socket")
    return await ListenConfig(**cfg).listen(network, address)


@overload
async def listen_packet(
    network: UDPNetwork, address: Addr, **cfg: Unpack[PacketOptions]
) -> UDPConn: ...


@overload
async def listen_packet(
    network: UnixgramNetwork, address: Path, **cfg: Unpack[PacketOptions]
) -> UnixConn: ...


@overload
async def listen_packet(
    network: str, address: Address, **cfg: Unpack[PacketOptions]
) -> PacketConn: ...


async def listen_packet(network: str, address: Address, **cfg: Unpack[PacketOptions]) -> PacketConn:
    """Receive datagrams; the arguments are those of ListenConfig that concern them. An op.

    control, reuse_port (not with a Unix socket) and resolver. Go: net.ListenPacket.
    """
    for name in ("backlog", "keep_alive"):
        if name in cfg:
            raise ValueError(f"{name} is for listen: datagrams are not accepted")
    return await ListenConfig(**cfg).listen_packet(network, address)
