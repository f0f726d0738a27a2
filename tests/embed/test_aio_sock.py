"""The sock_* calls of EventLoop, and what shares a descriptor with them."""

import asyncio
import os
import socket
import warnings

import pytest

from embed.loops import loop, pair, spin  # noqa: F401  (fixtures)

# ruff: noqa: F811


class Collect(asyncio.Protocol):
    """Put what comes into a list."""

    def __init__(self, seen):
        self.seen = seen

    def data_received(self, data):
        self.seen.append(data)


def test_sock_calls_are_coroutines(loop, pair):
    a, b = pair

    async def main():
        task = asyncio.create_task(loop.sock_recv(a, 5))
        await asyncio.sleep(0)
        await loop.sock_sendall(b, b"hello")
        got = await asyncio.gather(task, loop.sock_sendall(b, b"more"))
        buf = bytearray(2)
        return *got, await loop.sock_recv_into(a, buf), bytes(buf), await loop.sock_recv(a, 10)

    op = loop.sock_recv(a, 1)
    assert asyncio.iscoroutine(op)
    op.close()
    assert loop.run_until_complete(main()) == (b"hello", None, 2, b"mo", b"re")


def test_sock_recv_sees_the_end(loop, pair):
    a, b = pair

    async def main():
        task = asyncio.create_task(loop.sock_recv(a, 10))
        await asyncio.sleep(0)
        b.send(b"last")
        b.shutdown(socket.SHUT_WR)
        return await task, await loop.sock_recv(a, 10), await loop.sock_recv(a, 10)

    assert loop.run_until_complete(asyncio.wait_for(main(), 30)) == (b"last", b"", b"")


def test_data_and_end_that_come_between_two_waits_are_seen(loop, pair):
    """Y3: an edge comes once, and what has been seen must not be waited for."""
    a, b = pair

    async def main():
        out = []
        for i in range(50):
            task = asyncio.create_task(loop.sock_recv(a, 100))
            await asyncio.sleep(0)
            b.send(b"%d" % i)
            out.append(await task)
            b.send(b"x")  # while nobody waits
            for _ in range(i % 3):
                await asyncio.sleep(0)
            assert await loop.sock_recv(a, 100) == b"x"
        return out

    out = loop.run_until_complete(asyncio.wait_for(main(), 30))
    assert out == [b"%d" % i for i in range(50)]


def test_a_cancelled_wait_loses_nothing(loop, pair):
    a, b = pair

    async def main():
        for i in range(20):
            task = asyncio.create_task(loop.sock_recv(a, 10))
            await asyncio.sleep(0)
            b.send(b"d")
            for _ in range(i % 5):  # before it is told, when, and after
                await asyncio.sleep(0)
            cancelled = task.cancel()
            if cancelled:
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                assert await task == b"d"
                b.send(b"d")
            assert await loop.sock_recv(a, 10) == b"d"

    loop.run_until_complete(asyncio.wait_for(main(), 30))


def test_sendalls_at_once_send_one_after_the_other(loop, pair):
    """Y8."""
    a, b = pair
    size = 9 << 20

    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)

    async def read(got, n):
        while len(got) < n:
            got += await loop.sock_recv(b, 1 << 16)

    async def main():
        got = bytearray()
        tasks = [loop.create_task(loop.sock_sendall(a, bytes([i]) * size)) for i in range(3)]
        await asyncio.sleep(0)
        await read(got, size // 2)
        tasks.append(loop.create_task(loop.sock_sendall(a, b"\3")))  # overtakes nobody
        await read(got, 3 * size + 1)
        await asyncio.gather(*tasks)
        return got

    got = loop.run_until_complete(asyncio.wait_for(main(), 30))
    assert [got[i * size] for i in range(3)] == [0, 1, 2]
    assert got == bytes(sorted(got)), "mixed"


@pytest.mark.parametrize("which", [0, 1])
def test_a_cancelled_sendall_lets_the_next_send(loop, pair, which):
    a, b = pair
    size = 9 << 20
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)

    async def main():
        tasks = [loop.create_task(loop.sock_sendall(a, bytes([i]) * size)) for i in range(3)]
        await asyncio.sleep(0)
        tasks[which].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[which]
        got = bytearray()
        while got.count(2) < size:
            got += await loop.sock_recv(b, 1 << 16)
        await asyncio.gather(*tasks, return_exceptions=True)
        return got

    got = loop.run_until_complete(asyncio.wait_for(main(), 30))
    assert got == bytes(sorted(got))
    assert got.count(0) == size if which else got.count(0) < size
    assert got.count(1) == (0 if which else size)


def test_a_large_sendall_waits_for_room(loop, pair):
    a, b = pair
    data = os.urandom(4 << 20)

    async def drain():
        got = bytearray()
        while len(got) < len(data):
            got += await loop.sock_recv(b, 65536)
        return bytes(got)

    async def main():
        return await asyncio.gather(loop.sock_sendall(a, memoryview(data)), drain())

    assert loop.run_until_complete(asyncio.wait_for(main(), 60)) == [None, data]


def test_what_sendall_still_has_to_send_cannot_be_resized(loop, pair):
    """It went on at its place in a buffer that had become shorter, and sent what lies behind."""
    a, b = pair
    data = bytearray(4 << 20)
    size = len(data)

    async def main():
        task = asyncio.create_task(loop.sock_sendall(a, data))
        await asyncio.sleep(0)
        with pytest.raises(BufferError):
            data.pop()
        got = 0
        while got < size:
            got += len(await loop.sock_recv(b, 65536))
        await task
        data.pop()  # although the task is there still
        cut = asyncio.create_task(loop.sock_sendall(a, data))
        await asyncio.sleep(0)
        cut.cancel()
        await asyncio.wait([cut])
        data.clear()

    loop.run_until_complete(asyncio.wait_for(main(), 60))


def test_add_reader_takes_a_descriptor_over_from_sock_recv(loop, pair):
    a, b = pair

    async def main():
        task = asyncio.create_task(loop.sock_recv(a, 10))
        await asyncio.sleep(0)
        seen = loop.create_future()
        loop.add_writer(a, lambda: seen.done() or seen.set_result("writable"))
        assert await seen == "writable"
        loop.remove_writer(a)
        b.send(b"still")
        assert await task == b"still"
        task = asyncio.create_task(loop.sock_recv(a, 10))
        await asyncio.sleep(0)
        b.send(b"again")
        return await task

    assert loop.run_until_complete(asyncio.wait_for(main(), 30)) == b"again"


def test_a_reused_descriptor_is_another_socket(loop):
    """Y4: the registration of the last one is of no use to it."""

    async def main():
        for i in range(20):
            a, b = socket.socketpair()
            with a, b:
                a.setblocking(False)
                task = asyncio.create_task(loop.sock_recv(a, 10))
                await asyncio.sleep(0)
                b.send(b"%d" % i)
                assert await task == b"%d" % i

    loop.run_until_complete(asyncio.wait_for(main(), 30))


def test_a_socket_that_is_waited_for_is_closed_afterwards(loop, pair):
    """Y5."""
    a, b = pair

    async def main():
        task = asyncio.create_task(loop.sock_recv(a, 10))
        await asyncio.sleep(0)
        a.close()
        assert a.fileno() != -1
        b.send(b"late")
        assert await task == b"late"
        assert a.fileno() == -1
        with pytest.raises(OSError, match="Bad file descriptor"):
            await loop.sock_recv(a, 10)

    loop.run_until_complete(asyncio.wait_for(main(), 30))


def test_closing_the_loop_lets_go_of_sockets(loop, pair):
    a, _ = pair
    task = loop.create_task(loop.sock_recv(a, 10))
    spin(loop)
    a.close()
    assert a.fileno() != -1
    task._log_destroy_pending = False
    loop.close()
    assert a.fileno() == -1


def test_an_operation_is_awaited_once(loop, pair):
    a, b = pair
    b.send(b"x")

    async def main():
        op = loop.sock_recv(a, 10)
        assert await op == b"x"
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await op

    loop.run_until_complete(main())


def test_who_awaits_an_operation_second_is_refused(loop, pair):
    """Both were cancelled."""
    a, b = pair

    async def main():
        op = loop.sock_recv(a, 10)

        async def wait():
            return await op

        tasks = [asyncio.create_task(wait()) for _ in range(2)]
        await asyncio.sleep(0)
        b.send(b"x")
        first, second = await asyncio.gather(*tasks, return_exceptions=True)
        assert first == b"x"
        assert isinstance(second, RuntimeError)
        assert str(second) == "coroutine is being awaited already"

    loop.run_until_complete(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize(
    "make",
    [
        lambda loop, sock: loop.sock_recv(sock, 1),
        lambda loop, sock: loop.sock_recv_into(sock, bytearray(1)),
        lambda loop, sock: loop.sock_sendall(sock, b"x"),
        lambda loop, sock: loop.sock_recvfrom(sock, 1),
        lambda loop, sock: loop.sock_recvfrom_into(sock, bytearray(1)),
        lambda loop, sock: loop.sock_sendto(sock, b"x", ("127.0.0.1", 9)),
        lambda loop, sock: loop.sock_accept(sock),
    ],
)
def test_an_operation_that_nobody_awaits_is_a_warning(loop, pair, make):
    with pytest.warns(RuntimeWarning, match=r"coroutine 'EventLoop\.sock_\w+' was never awaited"):
        make(loop, pair[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(loop, pair[0]).close()
        loop.create_task(make(loop, pair[0])).cancel()
        spin(loop)


def test_the_repr_of_a_task_names_the_operation(loop, pair):
    task = loop.create_task(loop.sock_recv(pair[0], 1))
    assert "coro=<EventLoop.sock_recv()>" in repr(task)
    task.cancel()
    spin(loop)


def test_an_operation_with_wrong_arguments_is_no_warning_too(loop, pair):
    with pytest.raises(TypeError):
        loop.sock_recv(pair[0], "ten")


def test_a_cancelled_accept_loses_no_connection(loop):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)

        async def main():
            for i in range(10):
                task = asyncio.create_task(loop.sock_accept(listener))
                await asyncio.sleep(0)
                with socket.create_connection(listener.getsockname()) as client:
                    for _ in range(i % 5):  # before it is told, when, and after
                        await asyncio.sleep(0)
                    if task.cancel():
                        with pytest.raises(asyncio.CancelledError):
                            await task
                        task = asyncio.create_task(loop.sock_accept(listener))
                    conn, address = await task
                    with conn:
                        assert address == client.getsockname()

        loop.run_until_complete(asyncio.wait_for(main(), 30))


def test_many_accept_from_one_listener(loop):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)

        async def main():
            tasks = [asyncio.create_task(loop.sock_accept(listener)) for _ in range(5)]
            await asyncio.sleep(0)
            clients = [socket.create_connection(listener.getsockname()) for _ in tasks]
            got = [conn for conn, _ in await asyncio.gather(*tasks)]
            assert sorted(c.getpeername() for c in got) == sorted(c.getsockname() for c in clients)
            for sock in got + clients:
                sock.close()

        loop.run_until_complete(asyncio.wait_for(main(), 30))


def test_in_debug_mode_nobody_who_waits_is_forgotten(loop, pair):
    """asyncio keeps the last one only. In debug mode it refuses a blocking socket: we, too."""
    a, b = pair
    loop.set_debug(True)

    async def main():
        waiting = [asyncio.create_task(loop.sock_recv(a, 1)) for _ in range(3)]
        await asyncio.sleep(0)
        await loop.sock_sendall(b, b"xyz")
        assert await asyncio.gather(*waiting) == [b"x", b"y", b"z"]
        b.setblocking(True)
        with pytest.raises(ValueError, match="the socket must be non-blocking"):
            await loop.sock_recv(b, 1)

    loop.run_until_complete(asyncio.wait_for(main(), 30))


def test_datagrams_that_come_at_once_are_all_seen(loop):
    """An edge tells of the first of many."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        a.setblocking(False)
        b.setblocking(False)

        async def main():
            for _ in range(3):
                task = asyncio.create_task(loop.sock_recvfrom(a, 10))
                await asyncio.sleep(0)
                for i in range(5):
                    b.send(b"%d" % i)
                got = [(await task)[0]]
                got += [(await loop.sock_recvfrom(a, 10))[0] for _ in range(4)]
                assert got == [b"0", b"1", b"2", b"3", b"4"]

        loop.run_until_complete(asyncio.wait_for(main(), 30))


def test_a_transport_takes_a_descriptor_that_has_a_forgotten_reader(loop, pair):
    a, b = pair

    async def main():
        loop.add_reader(a, print)
        loop.add_writer(a, print)
        transport, protocol = await loop.create_connection(lambda: Collect([]), sock=a)
        b.send(b"data")
        while not protocol.seen:
            await asyncio.sleep(0.0005)
        fd = a.fileno()
        transport.close()
        await asyncio.sleep(0.001)
        one, other = socket.socketpair()
        with one, other:
            assert fd in (one.fileno(), other.fileno())
            seen = asyncio.Event()
            loop.add_writer(fd, seen.set)
            await asyncio.wait_for(seen.wait(), 30)
            loop.remove_writer(fd)

    loop.run_until_complete(main())


def test_a_transports_descriptor_is_refused(loop, pair):
    a, _ = pair

    async def main():
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=a)
        with pytest.raises(RuntimeError, match="is used by transport"):
            await loop.sock_recv(a, 10)
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.add_reader(a, print)
        transport.abort()
        await asyncio.sleep(0)

    loop.run_until_complete(main())
