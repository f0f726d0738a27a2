"""Dialling: Go's chain from Dialer.dial_context down to one connected socket.

Called in a goroutine, on its thread; dial_parallel's racers are goroutines of their own.
Go: net/dial.go, net/tcpsock_posix.go (go1.27).
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, overload

from gopoll._polldesc import Note
from gopoll.errors import (
    Addr,
    AddrError,
    DeadlineExceeded,
    OpError,
    deadline_error,
    op_error,
)
from gopoll.net.addr import (
    Address,
    IPSockAddr,
    Path,
    TCPNetwork,
    UDPNetwork,
    UnixNetwork,
    parse_network,
    split_by_family,
    unix_path,
)
from gopoll.net.checks import check_control, check_local_addr, check_resolver, check_seconds
from gopoll.net.conn import Conn, TCPConn
from gopoll.net.resolve import (
    DEFAULT_RESOLVER,
    AddrResolver,
    resolve_addr_list,
    resolve_local_addr,
)
from gopoll.net.sock import Control, Plan, internet_socket, map_err
from gopoll.net.sockopt import DEFAULT_KEEP_ALIVE, KeepAlive, check_keep_alive, tune_tcp
from gopoll.net.udp import UDPConn, new_udp_conn
from gopoll.net.unix import UnixConn, unix_maker, unix_socket
from gopoll.runtime._sched import current_poller
from gopoll.runtime.context import (
    Context,
    current_context,
    with_cancel,
    with_deadline,
    with_timeout,
)
from gopoll.runtime.goroutine import go

__all__ = ["Dialer", "dial"]

_FALLBACK_DELAY = 0.3  # seconds, RFC 6555
_SANE_MINIMUM = 2.0  # seconds that one address gets at least, if there are as many


@overload
async def dial(network: TCPNetwork, address: Addr, *, timeout: float | None = None) -> TCPConn: ...


@overload
async def dial(network: UDPNetwork, address: Addr, *, timeout: float | None = None) -> UDPConn: ...


@overload
async def dial(
    network: UnixNetwork, address: Path, *, timeout: float | None = None
) -> UnixConn: ...


@overload
async def dial(network: str, address: Address, *, timeout: float | None = None) -> Conn: ...


async def dial(network: str, address: Address, *, timeout: float | None = None) -> Conn:
    """Connect to *address* on *network*, within *timeout* seconds. An op. Go: net.Dial.

    Raises OpError: ConnectionRefusedError and its like, DNSError, AddrError, UnknownNetworkError,
    and one that is a DeadlineExceeded when the time is over.
    """
    dialer = _DEFAULT if timeout is None else Dialer(timeout=timeout)
    return await dialer.dial_context(current_context(), network, address)


class Dialer:
    """How to connect; may be used again and by many goroutines at once. Go: net.Dialer.

    timeout: seconds for the whole dial, look-up and all addresses together; below 0 has passed.
    deadline: the same as a time.monotonic() moment; the earlier of the two counts.
    local_addr: where to dial from, an IP literal with a port (0: any), or the path of a Unix
        socket, which stays after close(). Which of the two it must be is seen with the network,
        so "127.0.0.1", without a port, is refused by dial().
    fallback_delay: seconds that the addresses of the first family get before those of the other
        join in (0: Go's default of 0.3; below 0: one after the other).
    keep_alive: of TCP, seconds of silence before the first probe (0: 15), below 0 for none, or
        a KeepAliveConfig.
    resolver: an object whose lookup_addr(host, port, family) is called, with these three, for
        the addresses of a name: see AddrResolver.
    control: control(network, address, raw) is called on each socket before bind and connect: see
        Control. Not an async function.

    Raises TypeError or ValueError for what makes no sense.
    """

    def __init__(
        self,
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        local_addr: Address | None = None,
        fallback_delay: float = _FALLBACK_DELAY,
        keep_alive: KeepAlive = DEFAULT_KEEP_ALIVE,
        resolver: AddrResolver | None = None,
        control: Control | None = None,
    ) -> None:
        """Keep the settings; nothing is looked up or opened yet."""
        for name, seconds in (("timeout", timeout), ("deadline", deadline)):
            if seconds is not None:
                check_seconds(name, seconds)
        check_seconds("fallback_delay", fallback_delay)
        check_local_addr(local_addr)
        check_resolver(resolver)
        check_control(control)
        self.timeout = timeout
        self.deadline = deadline
        self.local_addr = local_addr
        self.fallback_delay = fallback_delay or _FALLBACK_DELAY
        self.keep_alive = check_keep_alive(keep_alive)
        self.resolver = resolver if resolver is not None else DEFAULT_RESOLVER
        self.control = control

    @overload
    async def dial(self, network: TCPNetwork, address: Addr) -> TCPConn: ...

    @overload
    async def dial(self, network: UDPNetwork, address: Addr) -> UDPConn: ...

    @overload
    async def dial(self, network: UnixNetwork, address: Path) -> UnixConn: ...

    @overload
    async def dial(self, network: str, address: Address) -> Conn: ...

    async def dial(self, network: str, address: Address) -> Conn:
        """Connect under the ambient context. An op. Go: Dialer.Dial."""
        return await self.dial_context(current_context(), network, address)

    @overload
    async def dial_context(self, ctx: Context, network: TCPNetwork, address: Addr) -> TCPConn: ...

    @overload
    async def dial_context(self, ctx: Context, network: UDPNetwork, address: Addr) -> UDPConn: ...

    @overload
    async def dial_context(self, ctx: Context, network: UnixNetwork, address: Path) -> UnixConn: ...

    @overload
    async def dial_context(self, ctx: Context, network: str, address: Address) -> Conn: ...

    async def dial_context(self, ctx: Context, network: str, address: Address) -> Conn:
        """Connect while *ctx* lasts; it has no effect on the connection afterwards. An op.

        Raises as dial(); a cancelled ctx is "operation was canceled", errno ECANCELED. The
        ambient context raises Canceled. Go: Dialer.DialContext.
        """
        if not isinstance(ctx, Context):
            raise TypeError(f"ctx must be a Context, not {type(ctx).__name__}")
        cancel = None
        when = self._deadline()
        if when is not None:
            ctx, cancel = with_deadline(ctx, when)
        try:
            if parse_network(network, op="dial").family == socket.AF_UNIX:
                return await self._dial_unix(ctx, network, address)
            local = None
            if self.local_addr is not None:
                local = resolve_local_addr("dial", network, self.local_addr)
            addrs = await resolve_addr_list(ctx, self.resolver, "dial", network, address, local)
            primaries = addrs
            fallbacks: list[IPSockAddr] = []
            if network == "tcp" and self.fallback_delay > 0:
                primaries, fallbacks = split_by_family(addrs)
            dialler = _SysDialer(self, network, local)
            return await dialler.dial_parallel(ctx, primaries, fallbacks)
        finally:
            if cancel is not None:
                cancel()

    async def _dial_unix(self, ctx: Context, network: str, address: Address) -> Conn:
        """Dial the one address that a path is. Go: the Unix case of resolveAddrList."""
        if address == "":
            raise AddrError("dial", network, None, "missing address")
        path = unix_path(address, op="dial", net=network)
        local = None
        if self.local_addr is not None:
            if isinstance(self.local_addr, tuple):
                raise AddrError("dial", network, self.local_addr, "mismatched local address type")
            local = unix_path(self.local_addr, op="dial", net=network)
        return await _SysDialer(self, network, local).dial_serial(ctx, [path])

    def _tune_tcp(self, s: socket.SocketType) -> None:
        tune_tcp(s, self.keep_alive)

    def _deadline(self) -> float | None:
        """Return when this dial, beginning now, is over. Go: Dialer.deadline."""
        if self.timeout is None:
            return self.deadline
        when = time.monotonic() + self.timeout
        return when if self.deadline is None else min(when, self.deadline)


_DEFAULT = Dialer()


class _SysDialer:
    """One dial: the Dialer, the network and the local address. Go: sysDialer."""

    def __init__(self, dialer: Dialer, network: str, local: Addr | None) -> None:
        self.dialer = dialer
        self.network = network
        self.local = local

    async def dial_parallel(
        self, ctx: Context, primaries: Sequence[Addr], fallbacks: Sequence[Addr]
    ) -> Conn:
        """Race the families: *fallbacks* join in after a while, or once *primaries* have failed.

        Returns the first connection; the loser's, if it still comes, is closed. Raises the error
        of the primaries if both fail. Go: sysDialer.dialParallel.
        """
        if not fallbacks:
            return await self.dial_serial(ctx, primaries)
        race = _Race()
        primary_error: BaseException | None = None
        outcome: Conn | BaseException | None = None
        primary_ctx, cancel_primary = with_cancel(ctx)
        fallback_ctx, cancel_fallback = with_cancel(ctx)
        # Done means go: by time, by hurry(), or with ctx.
        delay, hurry = with_timeout(fallback_ctx, self.dialer.fallback_delay)

        async def fall_back() -> Conn:
            await delay.wait()
            return await self.dial_serial(fallback_ctx, fallbacks)

        try:
            race.start(True, lambda: self.dial_serial(primary_ctx, primaries))
            race.start(False, fall_back)
            for _ in range(2):
                primary, outcome = await race.next()
                if isinstance(outcome, Conn):
                    return outcome
                if primary:
                    primary_error = outcome
                    hurry()
            assert primary_error is not None
            raise primary_error
        finally:
            primary_error = outcome = None  # no cycle through the traceback
            race.close()
            cancel_primary()
            cancel_fallback()  # and the delay

    async def dial_serial(self, ctx: Context, addrs: Sequence[Addr]) -> Conn:
        """Dial *addrs* in order until one answers, each with a fair share of the time left.

        Raises the error of the first. Go: sysDialer.dialSerial.
        """
        first_error: OpError | None = None
        for i, addr in enumerate(addrs):
            if ctx.done:
                raise self._error(addr, map_err(ctx))
            dial_ctx, cancel = ctx, None
            if ctx.deadline is not None:
                try:
                    when = partial_deadline(time.monotonic(), ctx.deadline, len(addrs) - i)
                except DeadlineExceeded as exc:
                    first_error = first_error or self._op_error(addr, exc)
                    break
                if when < ctx.deadline:
                    dial_ctx, cancel = with_deadline(ctx, when)
            try:
                return await self.dial_single(dial_ctx, addr)
            except OpError as exc:
                first_error = first_error or exc
            finally:
                if cancel is not None:
                    cancel()
        try:
            raise first_error or AddrError("dial", self.network, None, "missing address")
        finally:
            first_error = None  # no cycle through the traceback

    async def dial_single(self, ctx: Context, addr: Addr) -> Conn:
        """Dial one address; every error says dial, network and addresses. Go: dialSingle."""
        try:
            if isinstance(addr, str):
                return await self.dial_unix(ctx, self.local, addr)
            if self.network.startswith("udp"):
                return await self.dial_udp(ctx, self.local, addr)
            return await self.dial_tcp(ctx, self.local, addr)
        except OSError as exc:
            raise self._op_error(addr, exc) from exc.__cause__

    async def dial_unix(self, ctx: Context, laddr: Addr | None, raddr: str) -> UnixConn:
        """Dial a Unix socket. Go: sysDialer.dialUnix."""
        assert laddr is None or isinstance(laddr, str)
        plan = Plan(unix_maker(self.network), None, self.dialer.control)
        return await unix_socket(ctx, self.network, laddr, raddr, "dial", plan)

    async def dial_udp(self, ctx: Context, laddr: Addr | None, raddr: IPSockAddr) -> UDPConn:
        """Dial UDP, which sends nothing yet. Go: sysDialer.dialUDP."""
        assert not isinstance(laddr, str)
        plan = Plan(new_udp_conn, None, self.dialer.control)
        return await internet_socket(
            ctx, self.network, laddr, raddr, socket.SOCK_DGRAM, 0, "dial", plan
        )

    def dial_tcp(
        self, ctx: Context, laddr: Addr | None, raddr: IPSockAddr
    ) -> Coroutine[Any, Any, TCPConn]:
        """Dial TCP. Go: sysDialer.dialTCP."""
        assert not isinstance(laddr, str)
        return self.do_dial_tcp(ctx, laddr, raddr)

    async def do_dial_tcp(
        self, ctx: Context, laddr: IPSockAddr | None, raddr: IPSockAddr
    ) -> TCPConn:
        """Dial, again up to twice where the kernel chose an unlucky local port.

        It may choose the very port that is dialled, and TCP then connects to itself
        (simultaneous open); or run out of ports for a moment. What the third attempt brings is
        accepted. Go: sysDialer.doDialTCP, which tells the story.
        """
        plan = Plan(TCPConn, self.dialer._tune_tcp, self.dialer.control)
        port_is_ours = laddr is None or laddr[1] == 0
        retries = 2 if port_is_ours else 0
        while True:
            try:
                conn = await internet_socket(
                    ctx, self.network, laddr, raddr, socket.SOCK_STREAM, 0, "dial", plan
                )
            except OSError as exc:
                if not retries or not spurious_enotavail(exc):
                    raise
            else:
                if not retries or not self_connect(conn):
                    return conn
                conn.close()
            retries -= 1

    def _error(self, addr: Addr, exc: BaseException) -> BaseException:
        """Return *exc* as it leaves this dial: Canceled as it is."""
        return self._op_error(addr, exc) if isinstance(exc, OSError) else exc

    def _op_error(self, addr: Addr, exc: OSError) -> OpError:
        """Return *exc* with everything that is known here."""
        if not isinstance(exc, OpError):
            if isinstance(exc, DeadlineExceeded):
                return deadline_error("dial", self.network, self.local, addr)
            return op_error("dial", self.network, self.local, addr, exc)
        exc.op, exc.net = "dial", self.network
        if not isinstance(exc, AddrError):  # there it is the address that is wrong
            exc.source, exc.addr = self.local, addr
        return exc


class _Race:
    """What the racers of dial_parallel hand over. A connection that nobody takes is closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all that follows
        self._outcomes: list[tuple[bool, Conn | BaseException]] = []
        self._note = Note(current_poller(), "dial")
        self._over = False

    def start(self, primary: bool, run: Callable[[], Awaitable[Conn]]) -> None:
        """Start a racer. Go: startRacer."""

        async def racer() -> None:
            try:
                self._put(primary, await run())
            except Exception as exc:
                self._put(primary, exc)
            except BaseException as exc:
                self._put(primary, exc)
                raise

        go(racer)

    def _put(self, primary: bool, outcome: Conn | BaseException) -> None:
        with self._lock:
            over, note = self._over, self._note
            if not over:
                self._outcomes.append((primary, outcome))
        if not over:
            note.wake()
        elif isinstance(outcome, Conn):
            outcome.close()

    async def next(self) -> tuple[bool, Conn | BaseException]:
        """Wait for the next outcome: whether it is the primary's, and the connection or error."""
        while True:
            with self._lock:
                if self._outcomes:
                    return self._outcomes.pop(0)
                self._note = note = Note(current_poller(), "dial")
            await note

    def close(self) -> None:
        """End the race: from now on the racers close what they get."""
        with self._lock:
            self._over = True
            rest, self._outcomes = self._outcomes, []
        for _, outcome in rest:
            if isinstance(outcome, Conn):
                outcome.close()


def partial_deadline(now: float, deadline: float, addrs_remaining: int) -> float:
    """Return when to give up one of *addrs_remaining* addresses: each gets an equal share, and
    2 s if there is as much. Raises DeadlineExceeded. Go: partialDeadline.
    """
    remaining = deadline - now
    if remaining <= 0:
        raise DeadlineExceeded
    share = remaining / addrs_remaining
    return now + max(share, min(remaining, _SANE_MINIMUM))


def self_connect(conn: Conn) -> bool:
    """Tell whether *conn* is connected to itself; an address that is missing counts as such.

    Go: selfConnect.
    """
    local, remote = conn.local_addr, conn.remote_addr
    return local is None or remote is None or local == remote


def spurious_enotavail(exc: OSError) -> bool:
    """Tell whether *exc* says that there was no local port to be had. Go: spuriousENOTAVAIL."""
    return exc.errno == errno.EADDRNOTAVAIL
