"""Names to addresses, off the loop: Resolver, and Go's rules for what may be dialled.

Called by dial and listen, in a goroutine; getaddrinfo runs on the threads of runtime.blocking.
Go: net/lookup.go, net/ipsock.go, resolveAddrList in net/dial.go, internal/singleflight (go1.27).

N1: a name and family has one call at most in a run(): its flight is in the table from when it is
    made until its thread has left getaddrinfo, wanted or not. Who comes meanwhile joins it.
N2: a flight that is queued is dropped under the lock by the last waiter that leaves. Who joins
    looks in the table under the same lock.
N3: while a flight is queued, a worker has been started and not yet looked at the queue for the last
    time: who queues one starts a worker, unless all work, and a worker goes under the lock, with
    nothing queued. A signal handler may raise anywhere in between: who leaves looks once more.
"""

from __future__ import annotations

import collections
import functools
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Protocol, TypeVar

from gopoll._polldesc import Note
from gopoll.errors import (
    CANCELED_TEXT,
    NO_SUCH_HOST_TEXT,
    AddrError,
    Canceled,
    ClosedError,
    DeadlineExceeded,
    DNSError,
    OpError,
    dns_error,
)
from gopoll.net.addr import (
    IPAddr,
    IPSockAddr,
    ip_literal,
    is_ipv4,
    is_wildcard,
    parse_network,
    split_host_port,
)
from gopoll.net.checks import check_int
from gopoll.net.sock import map_err
from gopoll.runtime._sched import current_poller, current_sched
from gopoll.runtime.blocking import MAX_THREADS, Pool
from gopoll.runtime.context import Context, current_context
from gopoll.runtime.goroutine import go

__all__ = [
    "DEFAULT_RESOLVER",
    "AddrResolver",
    "Resolver",
    "resolve_addr_list",
    "resolve_local_addr",
]

WORKERS = MAX_THREADS // 2  # a DNS server that is dead leaves blocking() the other half

_NO_SUITABLE = "no suitable address found"
_MISMATCHED = "mismatched local address type"
_NUMBERS = re.compile(r"(0[xX][0-9A-Fa-f]*|[0-9]+)(\.(0[xX][0-9A-Fa-f]*|[0-9]+))*\.?")
_NUMBER_HINT = "an IPv4 address has four decimal numbers, none with a leading zero"

T = TypeVar("T")


class AddrResolver(Protocol):
    """What Dialer and ListenConfig need of a resolver; Resolver is one."""

    def lookup_addr(self, host: str, port: int, family: int, /) -> Awaitable[Iterable[IPSockAddr]]:
        """Return the addresses of *host*, best first. Called with three arguments, by position.

        host: a name in ASCII, never a literal. port: to be put into each address. family:
        AF_INET, AF_INET6, or AF_UNSPEC for any; others are dropped. An address is
        (host, port) or (host, port, 0, scope_id) with an IP literal as its host. What it raises
        comes out as it is, but an OSError as the DNSError that it is the cause of.
        """
        ...


class Resolver:
    """Look names up with getaddrinfo: /etc/hosts, DNS and whatever nsswitch.conf says.

    workers: so many calls run at once, the others queue; of blocking()'s threads, which are 32.
    Look-ups of one name at the same time share one call, which no cancellation of a caller ends
    for the others. For any number of goroutines and runs; each run() has workers of its own.
    """

    def __init__(self, *, workers: int = WORKERS) -> None:
        """Keep the settings; nothing is started yet."""
        check_int("workers", workers, 1)
        self._workers = workers

    async def lookup_host(self, host: str) -> list[str]:
        """Return the addresses of *host* as texts, best first. Raises DNSError.

        A literal comes back as it is understood, without a look-up. Go: Resolver.LookupHost.
        """
        return [_host_of(ip.sockaddr(0)) for ip in await self._lookup(host, socket.AF_UNSPEC)]

    async def lookup_addr(
        self, host: str, port: int, family: int = socket.AF_UNSPEC
    ) -> list[IPSockAddr]:
        """Return the addresses of *host* with *port* in them, best first. Raises DNSError.

        port: 0 to 65535. family: AF_INET or AF_INET6 for those only, of a literal too.
        """
        check_int("port", port, 0, 65535)
        if family not in (socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6):
            raise ValueError(f"family must be AF_UNSPEC, AF_INET or AF_INET6, not {family!r}")
        return [_sockaddr(ip, port) for ip in await self._lookup(host, family)]

    async def _lookup(self, host: str, family: int) -> list[IPAddr]:
        """Go: Resolver.lookupIPAddr."""
        if not isinstance(host, str):
            raise TypeError(f"host must be a str, not {type(host).__name__}")
        if not host or "\0" in host:
            raise dns_error("", "", host, NO_SUCH_HOST_TEXT)
        literal = ip_literal(host)
        if literal is not None:
            if family not in (socket.AF_UNSPEC, literal.family):
                code = socket.EAI_ADDRFAMILY
                raise DNSError("", "", host, _NO_SUITABLE, errno=code, is_not_found=True)
            return [literal]
        if _is_number(host):
            raise DNSError(
                err=NO_SUCH_HOST_TEXT,
                host=host,
                errno=socket.EAI_NONAME,
                is_not_found=True,
                hint=_NUMBER_HINT,
            )
        flight = await self._flights().join((host, family), lambda: _getaddrinfo(host, family))
        error = flight.error
        if isinstance(error, (OSError, UnicodeError)):
            raise dns_error("", "", host, error)  # one for each caller, who says more in it
        if error is not None:
            try:
                raise error
            finally:
                del error, flight  # no cycle through the traceback
        if not flight.found:
            raise dns_error("", "", host, NO_SUCH_HOST_TEXT)
        return list(flight.found)

    def _flights(self) -> _Flights:
        """Return the look-ups of the run() on this thread, which keeps them: we would keep it."""
        pool: Pool = current_sched().pool
        return pool.kept_for(self, lambda: _Flights(pool, self._workers))


class _Flight:
    """A look-up and those who wait for it. Fields are guarded by the lock of its _Flights."""

    def __init__(self, key: Hashable, look_up: Callable[[], list[IPAddr]]) -> None:
        self.key = key
        self.look_up = look_up
        self.waiters: list[Note] = []
        self.found: list[IPAddr] = []  # constant when the waiters have been woken, as is
        self.error: BaseException | None = None


class _Flights:
    """The look-ups of one run(), and the workers that do them. Go: singleflight.Group."""

    def __init__(self, pool: Pool, workers: int) -> None:
        self._pool = pool
        self._max = workers
        self._lock = threading.Lock()  # guards what follows, and the flights
        self._table: dict[Hashable, _Flight] = {}
        self._queue: collections.deque[_Flight] = collections.deque()  # that no thread has taken
        self._workers: set[object] = set()  # those that have been started and have not gone

    async def join(self, key: Hashable, look_up: Callable[[], list[IPAddr]]) -> _Flight:
        """Wait for the look-up of *key*, begun with *look_up* if there is none, and return it.

        Cancellation ends the waiting; the look-up goes on for the others.
        """
        note = Note(current_poller(), "lookup")
        flight: _Flight | None = None
        try:
            with self._lock:
                flight = self._table.get(key)  # N1
                queue = flight is None
                if flight is None:
                    flight = _Flight(key, look_up)
                    self._queue.append(flight)
                    self._table[key] = flight
                flight.waiters.append(note)
            if queue:
                self._start_worker()
            await note
        finally:
            if flight is not None:
                self._leave(flight, note)
        return flight

    def _start_worker(self) -> None:
        """Have another thread work, if something is queued and it may (N3)."""
        worker = object()
        try:
            with self._lock:
                if not self._queue or len(self._workers) >= self._max:
                    return
                self._workers.add(worker)
            self._pool.start(functools.partial(self._work, worker))
        except BaseException:  # no thread to be had, or of a signal handler
            with self._lock:
                self._workers.discard(worker)  # should one begin for it, it goes again
            raise

    def _leave(self, flight: _Flight, note: Note) -> None:
        with self._lock:
            if note in flight.waiters:
                flight.waiters.remove(note)
            if not flight.waiters and flight in self._queue:
                self._queue.remove(flight)
                self._forget(flight)  # N2
            stranded = bool(self._queue and not self._workers)  # N3
        if stranded:
            try:
                self._start_worker()
            except BaseException as exc:
                self._strand(exc)

    def _strand(self, exc: BaseException) -> None:
        """Tell those who are queued that nobody will work, and why."""
        with self._lock:
            flights = [] if self._workers else list(self._queue)
            for flight in flights:
                self._queue.remove(flight)
        for flight in flights:
            self._end(flight, [], exc)

    def _forget(self, flight: _Flight) -> None:
        if self._table.get(flight.key) is flight:
            del self._table[flight.key]

    def _work(self, worker: object) -> None:
        """Look up on a thread of blocking(), until nothing is queued."""
        while (flight := self._next(worker)) is not None:
            try:
                found, error = flight.look_up(), None
            except BaseException as exc:
                found, error = [], exc
            self._end(flight, found, error)
            del error

    def _next(self, worker: object) -> _Flight | None:
        """Return what *worker* looks up next, None if it goes (N3)."""
        with self._lock:
            if worker in self._workers:
                if self._queue:
                    return self._queue.popleft()
                self._workers.discard(worker)
        return None

    def _end(self, flight: _Flight, found: list[IPAddr], error: BaseException | None) -> None:
        """Give everybody who waits the outcome."""
        flight.found, flight.error = found, error
        with self._lock:
            self._forget(flight)
            notes = list(flight.waiters)
        for note in notes:
            try:
                note.wake()
            except ClosedError:
                pass  # run() has ended; nobody waits any more


DEFAULT_RESOLVER = Resolver()  # of whoever names none: two dials of one name share the look-up


def _is_number(host: str) -> bool:
    """Tell whether *host* is all numbers: getaddrinfo would take 010.0.0.1 for 8.0.0.1, 127.1 for
    127.0.0.1, where a list of what may be dialled sees neither. Go: isDomainName, and ParseIP.
    """
    try:
        name = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        return False
    return _NUMBERS.fullmatch(name.partition("%")[0]) is not None


def _getaddrinfo(host: str, family: int) -> list[IPAddr]:
    """Ask the system, on whatever thread this runs."""
    found: list[IPAddr] = []
    for _, _, _, _, sockaddr in socket.getaddrinfo(host, None, family, socket.SOCK_STREAM):
        # A literal by now; ip_literal says that a mapped address is IPv4. A zone is in the tuple.
        ip = ip_literal(str(sockaddr[0]).partition("%")[0])
        if ip is not None:
            scope_id = int(sockaddr[3]) if len(sockaddr) == 4 else 0
            found.append(ip._replace(scope_id=scope_id if ip.family == socket.AF_INET6 else 0))
    return list(dict.fromkeys(found))


def _sockaddr(ip: IPAddr, port: int) -> IPSockAddr:
    """Return the address as we show it: four elements only where the scope id says something."""
    return ip.sockaddr(port) if ip.scope_id else (ip.host, port)


def _host_of(addr: IPSockAddr) -> str:
    """Return the host of *addr* with its zone."""
    if len(addr) == 4 and addr[3]:
        try:
            return f"{addr[0]}%{socket.if_indextoname(addr[3])}"
        except OSError:
            return f"{addr[0]}%{addr[3]}"
    return addr[0]


# -- the dial chain's part -------------------------------------------------------------------------


async def resolve_addr_list(
    ctx: Context,
    resolver: AddrResolver,
    op: str,
    network: str,
    address: object,
    hint: IPSockAddr | None = None,
) -> list[IPSockAddr]:
    """Return what *address* stands for on *network*, tcp or udp or their kin; never nothing.

    op: "dial" or "listen", for errors too. hint: the local address, whose family the others must
    share unless one of the two is a wildcard. Raises UnknownNetworkError, AddrError, DNSError or
    another OpError, each with *op* and *network*. Go: Resolver.resolveAddrList.
    """
    parse_network(network, op=op)
    if op == "dial" and address == "":
        raise AddrError(op, network, None, "missing address")
    addrs = await internet_addr_list(ctx, resolver, op, network, address)
    if hint is None or is_wildcard(hint[0]):
        return addrs
    suitable = [a for a in addrs if is_wildcard(a[0]) or is_ipv4(a) == is_ipv4(hint)]
    if not suitable:
        raise AddrError(op, network, hint, _NO_SUITABLE)
    return suitable


async def internet_addr_list(
    ctx: Context, resolver: AddrResolver, op: str, network: str, address: object
) -> list[IPSockAddr]:
    """Return the addresses of a "host:port" on *network*; ("", port) is the wildcard.

    Go: Resolver.internetAddrList, filterAddrList.
    """
    family = parse_network(network).family
    # Listen on "" is listen on any port.
    host, port = ("", 0) if address == "" else split_host_port(address, op=op, net=network)
    if not host:
        return [("", port)]
    literal = ip_literal(host, op=op, net=network)
    if literal is not None:
        addrs = [_sockaddr(literal, port)]
    else:
        addrs = await _lookup_under(ctx, resolver, op, network, host, port, family)
    if op == "dial" and len(addrs) == 1 and addrs[0][0] == "::":
        # Where IPv6 is half configured one can bind to :: but not connect to it (Go issue 18806).
        # Only to dial: a listener, which takes IPv4 first, would never be on [::].
        addrs.append(("0.0.0.0", port))
    if family != socket.AF_UNSPEC:
        addrs = [a for a in addrs if is_ipv4(a) == (family == socket.AF_INET)]
    if not addrs:
        raise AddrError(op, network, host, _NO_SUITABLE)
    return addrs


async def _lookup_under(
    ctx: Context,
    resolver: AddrResolver,
    op: str,
    network: str,
    host: str,
    port: int,
    family: int,
) -> list[IPSockAddr]:
    """Look *host* up for as long as *ctx* lasts; every failure is a DNSError that says *op*."""
    try:
        found = list(await _under(ctx, resolver.lookup_addr, host, port, family))
    except DNSError as exc:
        exc.op, exc.net = op, network
        raise
    except OSError as exc:
        raise dns_error(op, network, host, exc) from None
    except _ContextDoneError:
        error = map_err(ctx)
        if isinstance(error, DeadlineExceeded):
            raise dns_error(op, network, host, DeadlineExceeded()) from None
        if isinstance(error, OpError):
            raise dns_error(op, network, host, CANCELED_TEXT) from error.__cause__
        raise error from None  # the ambient context
    return [_checked(addr, op, network) for addr in found]


def _checked(addr: object, op: str, network: str) -> IPSockAddr:
    """Return *addr*, of a resolver that may be anybody's, as we have it. TypeError, AddrError.

    A name in it would be looked up by connect(2)'s caller, on the loop.
    """
    if not isinstance(addr, tuple):
        kind = type(addr).__name__
        raise TypeError(f"lookup_addr of the resolver must return (host, port) tuples, not {kind}s")
    host, port = split_host_port(addr, op=op, net=network)
    literal = ip_literal(host, op=op, net=network)
    if literal is None:
        raise AddrError(op, network, host, "the resolver's answer is not an IP address")
    return _sockaddr(literal, port)


class _ContextDoneError(Exception):
    """The context of a look-up is done."""


async def _under(ctx: Context, fn: Callable[..., Awaitable[T]], *args: object) -> T:
    """Run fn(*args) until *ctx* is done, then leave it behind. Go: the select of lookupIPAddr."""
    if ctx is current_context():
        return await fn(*args)  # the scheduler ends this wait itself
    note = Note(current_poller())
    results: list[T] = []
    errors: list[BaseException] = []
    left = False

    async def look_up() -> None:
        try:
            results.append(await fn(*args))
        except Canceled as exc:  # of fn's own: no context here has ended, unless it is left behind
            if not left:
                errors.append(exc)
        except Exception as exc:
            errors.append(exc)
        finally:
            note.wake()

    goroutine = go(look_up)
    stop = ctx.after_func(note.wake)
    try:
        await note
    finally:
        stop()
        left = True
        goroutine.cancel()
    if errors:
        raise errors.pop()  # of which nothing here has hold, then: no cycle through the traceback
    if not results:
        raise _ContextDoneError
    return results[0]


def resolve_local_addr(op: str, network: str, address: object) -> IPSockAddr:
    """Return the local address of a dial: a literal with a port, or a wildcard.

    Raises AddrError for a name, which may stand for several, and for the path of a Unix socket.
    """
    parse_network(network, op=op)
    if isinstance(address, str) and (address.startswith(("@", "\0")) or "/" in address):
        raise AddrError(op, network, address, _MISMATCHED)
    host, port = ("", 0) if address == "" else split_host_port(address, op=op, net=network)
    if not host:
        return "", port
    literal = ip_literal(host, op=op, net=network)
    if literal is None:
        raise AddrError(op, network, host, "local address is not an IP address")
    return _sockaddr(literal, port)
