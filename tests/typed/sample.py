"""What a type checker makes of programs: mypy reads this with the sources; nobody runs it.

An ignored error is one that must be found: mypy complains of an ignore that is not needed.
"""

import asyncio
import selectors
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, assert_type

import gopoll
from gopoll import (
    Addr,
    Conn,
    Goroutine,
    Listener,
    PacketConn,
    RawConn,
    TCPConn,
    TCPListener,
    TLSConn,
    UDPConn,
    UnixConn,
    UnixListener,
)
from gopoll.embed import Guest, Host, aio
from gopoll.embed.selector import NetpollSelector


async def length(text: str, times: int = 1) -> int:
    """Take one argument or two."""
    return len(text) * times


async def sums(*numbers: int) -> int:
    """Take any number."""
    return sum(numbers)


class Server:
    """Has a method to run."""

    async def serve(self, port: int) -> str:
        """Take one argument."""
        return f"served {port}"

    async def __call__(self) -> None:
        """Take none."""


def later(n: int) -> Awaitable[bytes]:
    """Be no coroutine function, and return something to await."""
    return gopoll.blocking(bytes, n)


def unknown_length(fd: int) -> int:
    """Be what raw_read calls."""
    return fd


class Lines(gopoll.Reader):
    """Override operations with coroutines."""

    async def read_line(self) -> bytes:
        """Take the newline off."""
        return (await super().read_line()).rstrip()

    async def __anext__(self) -> bytes:
        """Take the newline off here as well."""
        return (await super().__anext__()).rstrip()


class Loud(gopoll.Writer):
    """An operation of a Writer has what a coroutine has not: written."""

    async def write(self, data: Any) -> int:  # type: ignore[override]
        """Write it in capitals."""
        return await super().write(data.upper())


async def starts() -> float:
    """Start goroutines in every way."""
    g = gopoll.go(length, "abc")
    assert_type(g, Goroutine[int])
    assert_type(await g, int)
    assert_type(g.result(), int)
    assert_type(await gopoll.go(length, "abc", 2, name="twice"), int)
    assert_type(await gopoll.go(length("abc")), int)
    assert_type(await gopoll.go(sums, 1, 2, 3), int)
    assert_type(await gopoll.go(Server().serve, 80), str)
    assert_type(gopoll.go(Server()), Goroutine[None])
    assert_type(await gopoll.go(later, 3), bytes)
    assert_type(await gopoll.go(gopoll.sleep, 1), None)
    gopoll.go(length)  # type: ignore[call-arg,arg-type]
    gopoll.go(length, 5)  # type: ignore[arg-type]
    gopoll.go(length, "abc", nome="typo")  # type: ignore[call-overload]
    gopoll.go(len, "abc")  # type: ignore[arg-type]
    gopoll.go(5)  # type: ignore[call-overload]
    async with gopoll.Group() as group:
        assert_type(await group.go(length, "abc", name="one"), int)
        assert_type(await group.go(length("abc")), int)
        group.go(length, b"abc")  # type: ignore[arg-type]
    waits = gopoll.WaitGroup()
    assert_type(await waits.go(length, "abc"), int)
    assert_type(await waits.go(length("abc")), int)
    waits.go(length)  # type: ignore[call-arg,arg-type]
    assert_type(await gopoll.blocking(divmod, 7, 2), tuple[int, int])
    assert_type(await gopoll.blocking(sorted, "bca", reverse=True), list[str])
    await gopoll.blocking(length("abc"))  # type: ignore[arg-type]
    assert_type(await gopoll.sleep(1), None)
    assert_type(await gopoll.gosched(), None)
    return 1.5


async def connects(network: str, anything: Any) -> None:
    """Dial and listen on networks that are known and that are not."""
    async with await gopoll.dial("tcp", "localhost:80") as conn:
        assert_type(conn, TCPConn)
        conn.close_write()
        conn.set_no_delay(False)
        assert_type(await conn.read(), bytes)
        assert_type(await conn.write(b"x"), int)
        assert_type(conn.write(b"x").written, int)
        assert_type(await gopoll.Reader(conn).read_line(), bytes)
        async with gopoll.Writer(conn, size=4096) as writer:
            assert_type(await writer.write(bytearray(b"x")), int)
            assert_type(await writer.flush(), None)
            assert_type(writer.flush().written, int | None)
            await writer.write("text")  # type: ignore[arg-type]
    unknown = await gopoll.dial(network, "localhost:80", timeout=1)
    assert_type(unknown, Conn)
    unknown.close_write()
    unknown.set_no_delay(False)  # type: ignore[attr-defined]
    dialer = gopoll.Dialer(timeout=1)
    assert_type(await dialer.dial("tcp4", ("::1", 80)), TCPConn)
    assert_type(await dialer.dial(network, ("::1", 80)), Conn)
    background = gopoll.background()
    assert_type(await dialer.dial_context(background, "tcp6", ("::1", 80)), TCPConn)
    assert_type(await dialer.dial_context(background, network, ("::1", 80)), Conn)
    listener = await gopoll.listen("tcp", ":0", backlog=5)
    assert_type(await listener.accept(), TCPConn)
    async for accepted in listener:
        assert_type(accepted, TCPConn)
    some: Listener = listener
    assert_type(await some.accept(), Conn)
    async for each in await gopoll.listen(network, ":0"):
        assert_type(each, Conn)
    await gopoll.dial(80, "localhost")  # type: ignore[call-overload]
    unix = await gopoll.dial("unixpacket", Path("/run/x"))
    assert_type(unix, UnixConn)
    assert_type(await dialer.dial("unix", "@x"), UnixConn)
    assert_type(await dialer.dial_context(background, "udp6", "[::1]:80"), UDPConn)
    udp = await gopoll.dial("udp", "localhost:53")
    assert_type(udp, UDPConn)
    config = gopoll.ListenConfig(reuse_port=True, exclusive=True)
    assert_type(await (await config.listen("unix", "/run/x")).accept(), UnixConn)
    assert_type(await config.listen_packet("udp", ":0"), UDPConn)
    assert_type(await gopoll.listen_packet("unixgram", "/run/y"), UnixConn)
    assert_type(await udp.read_from(), tuple[bytes, Any])
    assert_type(await udp.write_to(b"x", ("::1", 80)), int)
    assert_type(await udp.sendmsg([b"x"], addr="[::1]:80"), int)
    assert_type(await unix.recv_fds(1, 2), tuple[bytes, list[int]])
    assert_type(unix.peer_credentials().uid, int)
    assert_type(await unix.raw_read(unknown_length), int)
    assert_type(await unix.splice_from(conn), int)
    assert_type(unix.file(), int)
    assert_type(gopoll.from_fd(3), Conn | Listener)
    async with gopoll.open_fd(0, dup=True) as terminal:
        assert_type(await terminal.read(), bytes)
        some_conn: Conn = terminal
        assert_type(await some_conn.sendfile(5), int)
    packets: PacketConn = await gopoll.listen_packet(network, ":0", reuse_port=True)
    assert_type(await packets.read(), bytes)
    await gopoll.listen("tcp", ":0", backlogg=5)  # type: ignore[call-overload]
    await gopoll.listen_packet("udp", ":0", backlog=5)  # type: ignore[call-overload]
    gopoll.Reader(5)  # type: ignore[arg-type]
    gopoll.Writer(5)  # type: ignore[arg-type]
    gopoll.go(connects, network, anything)


class Hosts:
    """Resolve, with a tuple and under other names."""

    async def lookup_addr(self, name: str, port: int, family: int) -> tuple[tuple[str, int], ...]:
        """Answer."""
        return (("127.0.0.1", port),)


class TwoArguments:
    """Be no resolver."""

    async def lookup_addr(self, host: str, port: int) -> list[tuple[str, int]]:
        """Answer what is not asked."""
        return [("127.0.0.1", port)]


def control(network: str, address: Addr, raw: RawConn) -> None:
    """Look at a socket."""
    assert_type(raw.control(unknown_length), None)


async def addresses(network: str) -> None:
    """Take addresses apart, as those of sockets."""
    listener: TCPListener = await gopoll.listen("tcp", ":0", resolver=Hosts(), control=control)
    host, port = listener.addr
    assert_type(port, int)
    conn = await gopoll.dial("tcp", ("127.0.0.1", port))
    assert_type(conn, TCPConn)
    assert_type(await gopoll.dial("tcp", conn.remote_addr), TCPConn)
    assert_type(await gopoll.dial("tcp", listener.addr), TCPConn)
    assert_type(conn.remote_addr[:2], tuple[str, int])
    await gopoll.dial("tcp", (host, port), timeout=conn.local_addr[1])
    udp = await gopoll.listen_packet("udp", ":0")
    await udp.write_to(b"x", udp.local_addr)
    udp.remote_addr[0]  # type: ignore[index]
    unix: UnixListener = await gopoll.listen("unix", "")
    assert_type(unix.addr, str)
    assert_type((await unix.accept()).local_addr, str)
    assert_type((await gopoll.dial(network, listener.addr)).remote_addr, Addr | None)
    hook: gopoll.Control = control
    resolver: gopoll.AddrResolver = Hosts()
    resolver = gopoll.Resolver()
    gopoll.Dialer(resolver=resolver, control=hook)
    gopoll.Dialer(resolver=TwoArguments())  # type: ignore[arg-type]
    file: gopoll.File = gopoll.open_fd(0)
    who: gopoll.PeerCredentials = (await unix.accept()).peer_credentials()
    gopoll.go(addresses, f"{file} {who}")


async def misspells() -> None:
    """Ask for what is not there."""
    await gopoll.dail("tcp", "h:1")  # type: ignore[attr-defined]
    gopoll.tls.cleint()  # type: ignore[attr-defined]


async def echo(conn: TCPConn) -> None:
    """Handle a connection of TCP."""
    conn.set_no_delay(True)
    assert_type(conn.detach(), int)


async def handle(conn: Conn) -> str:
    """Handle any connection."""
    return repr(conn)


async def secures(ctx: ssl.SSLContext) -> None:
    """Speak TLS as both ends."""
    async with await gopoll.dial_tls("tcp", "localhost:443", alpn=["h2"], timeout=5) as conn:
        assert_type(conn, TLSConn)
        assert_type(await conn.read(), bytes)
        assert_type(await conn.writev([b"a", bytearray(b"b")]), int)
        assert_type(conn.selected_alpn, str | None)
        assert_type(conn.net_conn, Conn)
        assert_type(await gopoll.tls.client(conn, server_hostname="inner"), TLSConn)
    below = await gopoll.listen("tcp", ":0")
    listener = gopoll.tls.listener(below, ctx)
    assert_type(await listener.accept(), TLSConn)
    async for accepted in listener:
        assert_type(accepted, TLSConn)
    await gopoll.serve(listener, handle)
    await gopoll.serve(listener, echo)  # type: ignore[arg-type]
    await gopoll.tls.server(await below.accept())  # type: ignore[call-arg]
    await gopoll.dial_tls("tcp", "localhost:443", alpn="h2", timeout="5")  # type: ignore[arg-type]


async def serves(network: str) -> None:
    """Serve with handlers that suit the listener and one that does not."""
    listener = await gopoll.listen("tcp", ":0")
    assert_type(await gopoll.serve(listener, echo, limit=5, grace=None), None)
    await gopoll.serve(listener, handle)
    some = await gopoll.listen(network, ":0")
    await gopoll.serve(some, handle)
    await gopoll.serve(some, echo)  # type: ignore[arg-type]
    gopoll.go(serves, network)


def runs() -> None:
    """Run programs."""
    assert_type(gopoll.run(starts), float)
    assert_type(gopoll.run(starts()), float)
    assert_type(gopoll.run(length, "abc", procs=1, handoff=False), int)
    assert_type(gopoll.run(connects, "tcp", None), None)
    gopoll.run(length, procs=1)  # type: ignore[call-arg,arg-type]
    gopoll.run(starts, procs="1")  # type: ignore[call-overload,call-arg]
    gopoll.run(starts, 1)  # type: ignore[arg-type]


def selects(file: int) -> None:
    """Use a selector where any will do."""
    selector: selectors.BaseSelector = NetpollSelector()
    assert_type(NetpollSelector().register(file, selectors.EVENT_READ), selectors.SelectorKey)
    for key, events in NetpollSelector().select(0.5):
        assert_type(key, selectors.SelectorKey)
        assert_type(events, int)
    NetpollSelector().select("1")  # type: ignore[arg-type]
    selector.close()


class SomeHost(Host):
    """A host that type checkers accept."""

    def watch(self, fd: int, callback: Callable[[], object]) -> None: ...

    def unwatch(self, fd: int) -> None: ...


async def attaches() -> None:
    """Run goroutines in other loops."""
    async with aio.attach() as guest:
        assert_type(guest, Guest)
        assert_type(await gopoll.dial("tcp", "localhost:80"), TCPConn)
    with Guest(SomeHost()) as guest:
        assert_type(guest.run_nowait(10), int)
    Guest(3)  # type: ignore[arg-type]


def asyncio_loop(main: Coroutine[Any, Any, int]) -> None:
    """Use the loop as asyncio's."""
    assert_type(aio.run(main), int)
    loop: asyncio.AbstractEventLoop = aio.new_event_loop()
    assert_type(aio.EventLoop().call_later(1, print, "later"), asyncio.TimerHandle)
    with asyncio.Runner(loop_factory=aio.new_event_loop) as runner:
        assert_type(runner.get_loop(), asyncio.AbstractEventLoop)
    loop.close()
