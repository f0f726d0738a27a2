"""The operations that guard.py counts, each driven step by step. Started by guard.py.

Everything happens on one thread, so that nothing is left to time: client and server are goroutines
of one run, sysmon rests (all it does depends on the clock) and so does the garbage collector.
Around each block of operations stands a system call that nobody else makes: callgrind and strace
cut there.

usage: guard_ops.py NAME ...: of each, one block that is not counted (the interpreter specialises
its bytecode, free lists fill), then BLOCKS that are.
"""

import contextlib
import gc
import os
import socket
import sys
import threading

import gopoll
from gopoll.runtime import sched

BLOCKS = 3
MESSAGE = bytes(range(256)) * 4
READY = 64  # descriptors, for netpoll
LATER = 3600.0  # seconds; the clock has gone on since the last time

mark = os.getppid


class Resting(sched.Sysmon):
    """A sysmon that watches nothing."""

    def loop(self):
        """Return at once."""


def blocks(count):
    """Yield how many operations the next block has, between two marks; the first has no marks."""
    yield count
    for _ in range(BLOCKS):
        mark()
        yield count
        mark()


# -- an echo ---------------------------------------------------------------------------------------


async def pair():
    """Return both ends of a TCP connection."""
    async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
        ours = await gopoll.dial("tcp", listener.addr)
        return ours, await listener.accept()


async def echo(conn):
    """Echo with a new bytes object for each message, up to the end."""
    while data := await conn.read():
        await conn.write(data)
    await conn.close()


async def echo_into(conn):
    """Echo out of one buffer."""
    buffer = memoryview(bytearray(65536))
    while n := await conn.readinto(buffer):
        await conn.write(buffer[:n])
    await conn.close()


async def read_write(count):
    """A message of 1 KiB from one goroutine to another: await conn.read(), await conn.write().

    There and back are two messages: each end reads and writes one.
    """
    ours, theirs = await pair()
    server = gopoll.go(echo, theirs)
    for n in blocks(count):
        for _ in range(n // 2):
            await ours.write(MESSAGE)
            await ours.read()
    await ours.close()
    await server


async def readinto_write(count):
    """The same with readinto and one buffer at each end."""
    ours, theirs = await pair()
    server = gopoll.go(echo_into, theirs)
    buffer = memoryview(bytearray(65536))
    buffer[: len(MESSAGE)] = MESSAGE
    for n in blocks(count):
        message = buffer[: len(MESSAGE)]
        for _ in range(n // 2):
            await ours.write(message)
            await ours.readinto(buffer)
    await ours.close()
    await server


# -- a connection ----------------------------------------------------------------------------------


async def accept_echo_close(count):
    """A connection: a waiting accept, a goroutine that echoes 1 KiB, reads the end and closes.

    The client is a bare socket, and its calls count: socket, connect, sendmsg, shutdown, recvfrom
    and a close.
    """
    done = gopoll.Chan()

    async def handle(conn):
        await echo(conn)
        await done.send(None)

    async def serve(listener):
        with contextlib.suppress(gopoll.ClosedError):
            while True:
                gopoll.go(handle, await listener.accept())

    listener = await gopoll.listen("tcp", "127.0.0.1:0")
    server = gopoll.go(serve, listener)
    await gopoll.gosched()
    for n in blocks(count):
        for _ in range(n):
            client = socket.socket()
            client.connect(listener.addr)
            client.sendmsg([MESSAGE])
            client.shutdown(socket.SHUT_WR)
            await done.recv()
            assert client.recv(2048) == MESSAGE
            client.close()
    await listener.close()
    await server


# -- the rest --------------------------------------------------------------------------------------


async def set_read_timeout(count):
    """conn.set_read_timeout() that moves the deadline later."""
    ours, theirs = await pair()
    for n in blocks(count):
        for _ in range(n):
            ours.set_read_timeout(LATER)
    await ours.close()
    await theirs.close()


async def nothing():
    """End at once."""


async def spawn_join(count):
    """A goroutine that is started, ends and is awaited."""
    for n in blocks(count):
        for _ in range(n):
            await gopoll.go(nothing)


async def netpoll(count):
    """A waiter out of Poller.netpoll(0): one of READY, with what it takes to make it ready.

    That is a send and a recv of a bare socket, reset(), wait() and commit().
    """
    poller = gopoll.Poller()
    pairs = [socket.socketpair() for _ in range(READY)]
    descs = [poller.open(ours.fileno()) for ours, _ in pairs]
    for n in blocks(count):
        for _ in range(n // READY):
            for desc in descs:
                desc.reset(gopoll.READ)
                desc.wait(gopoll.READ).commit(desc)
            for _, theirs in pairs:
                theirs.send(b"x")
            assert len(poller.netpoll(0, 128)) == READY
            for ours, _ in pairs:
                ours.recv(16)
    for desc in descs:
        desc.evict()
        desc.close()
    poller.close()
    for both in pairs:
        for end in both:
            end.close()


# name: the function, and how many operations a block has. An M polls the network every 61 slices,
# and a spawn and join has two: 244 of them are 8 polls, wherever a block begins.
OPERATIONS = {
    "read/write": (read_write, 256),
    "readinto/write": (readinto_write, 256),
    "accept-echo-close": (accept_echo_close, 64),
    "set_read_timeout": (set_read_timeout, 256),
    "spawn-join": (spawn_join, 244),
    "netpoll": (netpoll, 4 * READY),
}


def main(names):
    """Do the operations of these names."""
    sched.Sysmon = Resting
    gc.disable()
    for name in names:
        function, count = OPERATIONS[name]
        gopoll.run(function, count, procs=1)
    assert threading.active_count() == 1


if __name__ == "__main__":
    main(sys.argv[1:])
