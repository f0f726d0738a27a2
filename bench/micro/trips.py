"""Sides of the connection groups: a message to and fro between two tasks, connect and close.

Called by bench/test_conn.py. What differs is who waits for the socket; the system calls that move
the bytes are the same for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import select
import socket

import gopoll
from bench.micro.contest import CONTROL, Side, now_ns
from bench.micro.rivals import in_c, in_go, load, on_gopoll, on_greenlets, on_kernel, on_loops

MOST = 65536  # that one read takes
LOOPS = ("asyncio", "uvloop", "rloop")


def unix_pair():
    """Return two connected sockets that do not block."""
    return tuple(map(not_blocking, socket.socketpair()))


def tcp_pair():
    """The same over loopback, with NODELAY."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    for end in (ours, theirs):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return not_blocking(ours), not_blocking(theirs)


def not_blocking(sock):
    sock.setblocking(False)
    return sock


# -- to and fro ------------------------------------------------------------------------------------


async def gopoll_unix_pair():
    """Return two connections."""
    return tuple(map(gopoll.from_socket, socket.socketpair()))


async def gopoll_tcp_pair():
    """The same by listen and dial, as Go's program does: nobody else has had the sockets."""
    async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
        ours = await gopoll.dial("tcp", f"127.0.0.1:{listener.addr[1]}")
        return ours, await listener.accept()


async def gopoll_trips(pair, message, count):
    """Two goroutines, `await conn.read()` and `await conn.write(data)`."""
    ours, theirs = await {unix_pair: gopoll_unix_pair, tcp_pair: gopoll_tcp_pair}[pair]()
    async with ours, theirs:

        async def answer():
            for _ in range(count):
                await theirs.write(await theirs.read())

        g = gopoll.go(answer)
        began = now_ns()
        for _ in range(count):
            await ours.write(message)
            data = await ours.read()
        took = now_ns() - began
        await g
    assert data == message
    return took / count


async def sock_trips(pair, message, count):
    """Two tasks with asyncio's sock_recv and sock_sendall."""
    loop = asyncio.get_running_loop()
    recv, send = loop.sock_recv, loop.sock_sendall
    ours, theirs = pair()
    with ours, theirs:

        async def answer():
            for _ in range(count):
                await send(theirs, await recv(theirs, MOST))

        task = loop.create_task(answer())
        began = now_ns()
        for _ in range(count):
            await send(ours, message)
            data = await recv(ours, MOST)
        took = now_ns() - began
        await task
    assert data == message
    return took / count


async def stream_trips(pair, message, count):
    """Two tasks with asyncio's streams, drain() after each write."""
    ends = [await asyncio.open_connection(sock=sock) for sock in pair()]
    (reader, writer), (their_reader, their_writer) = ends

    async def answer():
        for _ in range(count):
            their_writer.write(await their_reader.read(MOST))
            await their_writer.drain()

    task = asyncio.get_running_loop().create_task(answer())
    began = now_ns()
    for _ in range(count):
        writer.write(message)
        await writer.drain()
        data = await reader.read(MOST)
    took = now_ns() - began
    await task
    for end in (writer, their_writer):
        end.close()
        await end.wait_closed()
    assert data == message
    return took / count


class FutureReader:
    """A socket that asyncio watches all the time; a wait is a future."""

    def __init__(self, loop, sock):
        self.loop, self.sock, self.future = loop, sock, loop.create_future()
        loop.add_reader(sock, self.ready)

    def ready(self):
        """Read and wake; the next wait stands before the peer can answer."""
        future, self.future = self.future, self.loop.create_future()
        future.set_result(self.sock.recv(MOST))


async def reader_trips(pair, message, count):
    """Two tasks on add_reader, once: the cheapest way, no flow control."""
    loop = asyncio.get_running_loop()
    ours, theirs = pair()
    with ours, theirs:
        a, b = FutureReader(loop, ours), FutureReader(loop, theirs)

        async def answer():
            for _ in range(count):
                theirs.send(await b.future)

        task = loop.create_task(answer())
        await asyncio.sleep(0)  # it waits before the first byte can come
        began = now_ns()
        for _ in range(count):
            future = a.future
            ours.send(message)
            data = await future
        took = now_ns() - began
        await task
        loop.remove_reader(ours)
        loop.remove_reader(theirs)
    assert data == message
    return took / count


async def trio_trips(pair, message, trio, count):
    ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(s)) for s in pair())

    async def answer():
        for _ in range(count):
            await theirs.send_all(await theirs.receive_some(MOST))

    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        began = now_ns()
        for _ in range(count):
            await ours.send_all(message)
            data = await ours.receive_some(MOST)
        took = now_ns() - began
    assert data == message
    return took / count


async def curio_trips(pair, message, curio, count):
    ours, theirs = map(load("curio.io").Socket, pair())
    async with ours, theirs:

        async def answer():
            for _ in range(count):
                await theirs.sendall(await theirs.recv(MOST))

        task = await curio.spawn(answer)
        began = now_ns()
        for _ in range(count):
            await ours.sendall(message)
            data = await ours.recv(MOST)
        took = now_ns() - began
        await task.join()
    assert data == message
    return took / count


def gevent_trips(pair, message, gevent, count):
    make = load("gevent.socket").socket
    ours, theirs = (make(s.family, s.type, fileno=s.detach()) for s in pair())
    with ours, theirs:

        def answer():
            for _ in range(count):
                theirs.sendall(theirs.recv(MOST))

        greenlet = gevent.spawn(answer)
        began = now_ns()
        for _ in range(count):
            ours.sendall(message)
            data = ours.recv(MOST)
        took = now_ns() - began
        greenlet.join()
    assert data == message
    return took / count


def watched_pair(pair, size, stack: contextlib.ExitStack):
    """Make a pair and an epoll instance that has both, edge-triggered: arguments for C."""
    ours, theirs = map(stack.enter_context, pair())
    epoll = stack.enter_context(select.epoll())
    for sock in (ours, theirs):
        epoll.register(sock, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
    return epoll.fileno(), ours.fileno(), theirs.fileno(), size


def trips(pair, name: str, size: int, *more: Side) -> tuple[Side, ...]:
    """Return the sides that pass *size* bytes to and fro over what pair() makes."""
    message = bytes(size)

    def of(main):
        return functools.partial(main, pair, message)

    return (
        in_c("floor_trips", maker=functools.partial(watched_pair, pair, size)),
        on_gopoll(of(gopoll_trips)),
        *on_loops(of(sock_trips), LOOPS, "-sock"),
        *on_loops(of(reader_trips), ("asyncio", "uvloop"), "-reader", CONTROL),
        *more,
        on_kernel("trio", of(trio_trips)),
        on_kernel("curio", of(curio_trips)),
        on_greenlets("gevent", of(gevent_trips)),
        in_go(name, size),
    )


BYTE = trips(unix_pair, "unix", 1)
ON_STREAMS = functools.partial(stream_trips, tcp_pair, bytes(1024))
STREAMS = on_loops(ON_STREAMS, LOOPS, "-streams")
KIB = trips(tcp_pair, "tcp", 1024, *STREAMS)

# -- connect, accept, close ------------------------------------------------------------------------
#
# The accepted end is closed first, the other one is closed when it has read that: so both tasks
# wait once in each cycle, whatever the loop. All set NODELAY, as Go and gopoll do by themselves.


def listening():
    """Return a listener that does not block, of a port of its own, with the system's backlog."""
    return not_blocking(socket.create_server(("127.0.0.1", 0), backlog=4096))


def no_delay(sock):
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


async def gopoll_connects(count):
    async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
        address = f"127.0.0.1:{listener.addr[1]}"

        async def accept():
            for _ in range(count):
                conn = await listener.accept()
                conn.close()

        g = gopoll.go(accept)
        began = now_ns()
        for _ in range(count):
            conn = await gopoll.dial("tcp", address)
            assert await conn.read() == b""
            conn.close()
        took = now_ns() - began
        await g
    return took / count


async def sock_connects(count):
    loop = asyncio.get_running_loop()
    with listening() as listener:
        address = listener.getsockname()

        async def accept():
            for _ in range(count):
                conn, _ = await loop.sock_accept(listener)
                no_delay(conn)
                conn.close()

        task = loop.create_task(accept())
        began = now_ns()
        for _ in range(count):
            conn = not_blocking(socket.socket())
            no_delay(conn)
            await loop.sock_connect(conn, address)
            assert await loop.sock_recv(conn, 1) == b""
            conn.close()
        took = now_ns() - began
        await task
    return took / count


async def stream_connects(count):
    """The same with start_server and open_connection."""

    async def close(reader, writer):
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0, backlog=4096)
    async with server:
        port = server.sockets[0].getsockname()[1]
        began = now_ns()
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read(1) == b""
            writer.close()
            await writer.wait_closed()
        took = now_ns() - began
    return took / count


async def trio_connects(trio, count):
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=4096)
    port = listener.socket.getsockname()[1]

    async def accept():
        for _ in range(count):
            await (await listener.accept()).aclose()

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        began = now_ns()
        for _ in range(count):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            assert await stream.receive_some(1) == b""
            await stream.aclose()
        took = now_ns() - began
    return took / count


async def curio_connects(curio, count):
    sockets = load("curio.socket")
    listener = load("curio.io").Socket(listening())
    address = listener._socket.getsockname()

    async def accept():
        for _ in range(count):
            conn, _ = await listener.accept()
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await conn.close()

    async with listener:
        task = await curio.spawn(accept)
        began = now_ns()
        for _ in range(count):
            conn = sockets.socket(socket.AF_INET, socket.SOCK_STREAM)
            no_delay(conn)
            await conn.connect(address)
            assert await conn.recv(1) == b""
            await conn.close()
        took = now_ns() - began
        await task.join()
    return took / count


def gevent_connects(gevent, count):
    sockets = load("gevent.socket")
    plain = listening()
    listener = sockets.socket(plain.family, plain.type, fileno=plain.detach())
    with listener:
        address = listener.getsockname()

        def accept():
            for _ in range(count):
                conn, _ = listener.accept()
                no_delay(conn)
                conn.close()

        greenlet = gevent.spawn(accept)
        began = now_ns()
        for _ in range(count):
            conn = sockets.socket()
            no_delay(conn)
            conn.connect(address)
            assert conn.recv(1) == b""
            conn.close()
        took = now_ns() - began
        greenlet.join()
    return took / count


def plain_listener(stack: contextlib.ExitStack):
    """Make a listener that blocks: arguments for C."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096))
    return listener.fileno(), listener.getsockname()[1]


CONNECT = (
    in_c("floor_connect", maker=plain_listener),
    on_gopoll(gopoll_connects),
    *on_loops(sock_connects, LOOPS, "-sock"),
    *on_loops(stream_connects, ("asyncio", "uvloop"), "-streams"),
    on_kernel("trio", trio_connects),
    on_kernel("curio", curio_connects),
    on_greenlets("gevent", gevent_connects),
    in_go("connect"),
)
