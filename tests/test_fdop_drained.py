"""R1: after a short read, or a short write, one waits without a try; where that would not be sound
one tries. The interleavings are in test_interleavings.py."""

import contextlib
import mmap
import random
import socket
import threading

import pytest

import gopoll
from gopoll.runtime._sched import current_poller
from helpers.fds import AnyFD, cut, parked, reset
from net.tools import pair


@contextlib.contextmanager
def plain_pair(plain=True):
    """Give a registered TCP FD that nobody else has touched, and its peer, which blocks."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ours, _ = server.accept()
    ours.setblocking(False)
    fd = AnyFD(ours.detach(), "tcp")
    fd.init(current_poller(), plain=plain)
    with peer:
        yield fd, peer
    if not fd.is_closed:
        fd.close()


def tries(fd, peer):
    """Report whether the next read makes its system call although no event has come."""
    peer.sendall(b"there")  # loopback: it is there when sendall returns, and nobody has polled
    op = fd.read(100)
    with contextlib.suppress(StopIteration):
        next(op)
        op.close()
        return False
    return True


async def read_short(fd, peer):
    """Have the first read of *fd* be a short one."""
    peer.sendall(b"abc")
    assert await fd.read(100) == b"abc"


def test_a_message_of_64_kib_is_followed_by_a_wait(run):
    """By itself a read asks for more than that."""

    async def main():
        with plain_pair() as (fd, peer):
            for _ in range(2):  # through the stack, and straight into the result
                sender = threading.Thread(target=peer.sendall, args=(bytes(65536),))
                sender.start()
                sender.join()
                left = 65536
                while left:
                    left -= len(await fd.read())
            assert not tries(fd, peer)

    run(main)


def test_a_short_read_is_followed_by_a_wait(run):
    async def main():
        with plain_pair() as (fd, peer):
            assert tries(fd, peer), "the first"
            assert not tries(fd, peer)
            assert await fd.read(100) == b"there", "the one before has been left: no try, no data"
            await read_short(fd, peer)
            reader = await parked(fd.read, 100)
            peer.sendall(b"more")
            assert await reader == b"more"

    run(main)


@pytest.mark.parametrize("into", [bytearray, memoryview])
def test_a_full_buffer_is_followed_by_a_try(run, into):
    async def main():
        with plain_pair() as (fd, peer):
            peer.sendall(b"abcdef")
            assert await fd.read(2) == b"ab"
            assert await fd.readinto(into(bytearray(2))) == 2
            assert await fd.read(2) == b"ef"
            assert tries(fd, peer)
            assert not tries(fd, peer)

    run(main)


@pytest.mark.parametrize("how", ["deadline", "cancel"])
def test_who_ends_a_wait_leaves_the_next_one_a_try(run, how):
    """What it has consumed of readiness it has consumed for nothing."""

    async def main():
        with plain_pair() as (fd, peer):
            await read_short(fd, peer)
            reader = await parked(fd.read, 100)
            cut(how, fd, reader, peer)
            with pytest.raises((TimeoutError, gopoll.Canceled)):
                await reader
            fd.set_deadline(None)
            assert tries(fd, peer)

    run(main)


TOUCHED = {
    "fileno": lambda fd: fd.fileno(),
    "raw_control": lambda fd: fd.raw_control(int),
    "raw_read": lambda fd: fd.raw_read(int).close(),
    "dup": lambda fd: socket.socket(fileno=fd.dup()).close(),
}


@pytest.mark.parametrize("touch", TOUCHED.values(), ids=TOUCHED)
def test_a_socket_that_somebody_else_has_is_tried(run, touch):
    async def main():
        with plain_pair() as (fd, peer):
            assert fd._is_plain
            touch(fd)
            assert not fd._is_plain
            await read_short(fd, peer)
            assert tries(fd, peer)

    run(main)


def test_one_that_came_from_elsewhere_is_tried(run):
    async def main():
        with plain_pair(plain=False) as (fd, peer):
            await read_short(fd, peer)
            assert tries(fd, peer)

    run(main)


def test_connections_are_plain_unless_somebody_was_asked(run):
    async def main():
        async with pair() as (a, b):
            assert a._is_plain
            assert b._is_plain
            a.set_write_buffer(1 << 16)  # that changes nothing about reads
            assert a._is_plain
        asked = gopoll.ListenConfig(control=lambda *args: None)
        async with await asked.listen("tcp", "127.0.0.1:0") as listener:
            dialer = gopoll.Dialer(control=lambda *args: None)
            dialing = gopoll.go(dialer.dial, "tcp", listener.addr)
            async with await listener.accept() as a, await dialing as b:
                assert not a._is_plain, "options are inherited"
                assert not b._is_plain
        async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
            listener.raw_control(int)
            dialing = gopoll.go(gopoll.dial, "tcp", listener.addr)
            async with await listener.accept() as a, await dialing as b:
                assert not a._is_plain
                assert b._is_plain

    run(main)


def test_what_is_there_beside_an_end_is_read_to_the_end(run):
    """Data and FIN share an edge; who relied on a short read then hung for 4 of 10 connections."""
    rng = random.Random(5)
    sizes = [rng.randrange(1, 3000) for _ in range(400)]

    async def main():
        async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:

            def send():
                for size in sizes:
                    with socket.create_connection(listener.addr) as peer:
                        peer.sendall(bytes(size))

            sender = gopoll.go(gopoll.blocking, send)
            for size in sizes:
                async with await listener.accept() as conn:
                    got = 0
                    while data := await conn.read(rng.choice([1, 100, 4096])):
                        got += len(data)
                    assert got == size
            await sender

    run(main)


@pytest.mark.parametrize("parks", [False, True])
def test_urgent_data_cuts_a_read_and_hides_nothing(run, parks):
    async def main():
        with plain_pair() as (fd, peer):
            reader = await parked(fd.read, 100) if parks else None
            peer.send(b"before!", socket.MSG_OOB)
            peer.sendall(b"after")
            got = b"" if reader is None else await reader
            while len(got) < len(b"beforeafter"):
                got += await fd.read(100)
            assert got == b"beforeafter"
            assert tries(fd, peer), "from then on"

    run(main)


def test_a_reset_is_met_at_once(run):
    async def main():
        with plain_pair() as (fd, peer):
            await read_short(fd, peer)
            reset(peer)
            with pytest.raises(ConnectionResetError):
                await fd.read(1)

    run(main)


BUFFERS = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "mmap": lambda data: (mapped := mmap.mmap(-1, len(data))).write(data) and mapped,
}


@pytest.mark.parametrize("kind", BUFFERS)
def test_a_short_write_waits_and_loses_nothing(run, kind):
    data = random.Random(6).randbytes(5 << 20)

    async def main():
        with plain_pair() as (fd, peer):
            writer = await parked(fd.write, BUFFERS[kind](data))
            got = bytearray()

            def read():
                while len(got) < len(data):
                    got.extend(peer.recv(1 << 16))

            thread = threading.Thread(target=read)
            thread.start()
            assert await writer == len(data)
            await gopoll.blocking(thread.join)
            assert got == data

    run(main)
