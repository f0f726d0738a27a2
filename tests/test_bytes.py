"""K6: the bytes object of a read is used again when nobody has it, and only then.

Each way to receive has been given messages of one length, one after the other.
"""

import asyncio
import io
import socket
import sys
import sysconfig

import pytest

import gopoll
from gopoll.embed.aio import EventLoop
from net.tools import pair

SIZE = 1000
MESSAGES = [bytes([n]) * SIZE for n in b"abcd"]
GIL = not sysconfig.get_config_var("Py_GIL_DISABLED")  # what the C asks


def nothing():
    """What is done between two messages."""


def by_read(messages, take, between=nothing):
    async def main():
        async with pair() as (ours, theirs):
            for message in messages:
                await theirs.write(message)
                take(await ours.read())
                between()

    gopoll.run(main)


def by_read_from(messages, take, between=nothing):
    async def main():
        async with (
            await gopoll.listen_packet("udp", "127.0.0.1:0") as ours,
            await gopoll.listen_packet("udp", "127.0.0.1:0") as theirs,
        ):
            for message in messages:
                await theirs.write_to(message, ours.local_addr)
                take((await ours.read_from())[0])
                between()

    gopoll.run(main)


def in_loop(main):
    with asyncio.Runner(loop_factory=EventLoop) as runner:
        runner.run(main())


def by_sock_recv(messages, take, between=nothing):
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            for message in messages:
                theirs.sendall(message)
                take(await loop.sock_recv(ours, 65536))
                between()

    in_loop(main)


class Taking(asyncio.DatagramProtocol, asyncio.Protocol):
    def __init__(self, take):
        self.take = take
        self.came = asyncio.Event()

    def data_received(self, data):
        self.take(data)
        self.came.set()

    def datagram_received(self, data, addr):
        self.data_received(data)


def by_protocol(kind, messages, take, between):
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(type=kind)
        stream = kind == socket.SOCK_STREAM
        make = loop.create_connection if stream else loop.create_datagram_endpoint
        with theirs:
            transport, protocol = await make(lambda: Taking(take), sock=ours)
            for message in messages:
                theirs.sendall(message)
                await protocol.came.wait()
                protocol.came.clear()
                between()
            transport.close()

    in_loop(main)


def by_data_received(messages, take, between=nothing):
    by_protocol(socket.SOCK_STREAM, messages, take, between)


def by_datagram_received(messages, take, between=nothing):
    by_protocol(socket.SOCK_DGRAM, messages, take, between)


each_way = pytest.mark.parametrize(
    "way", [by_read, by_read_from, by_sock_recv, by_data_received, by_datagram_received]
)


@pytest.mark.skipif(not GIL, reason="nothing is kept without a GIL")
@pytest.mark.skipif(sys.version_info >= (3, 15), reason="nothing is kept since 3.15")
@each_way
def test_what_nobody_has_is_used_again(way):
    """Where memory that was free would be somebody else's by then."""
    numbers = []
    others = []
    way(
        MESSAGES,
        lambda data: numbers.append(id(data)),
        between=lambda: others.extend(bytes(bytearray(SIZE)) for _ in range(8)),
    )
    assert len(numbers) == len(MESSAGES)
    assert len(set(numbers)) == 1


HOLDERS = {
    "itself": lambda data: data,
    "view": memoryview,
    "file": io.BytesIO,
    "key": lambda data: {data: None},
}


@each_way
@pytest.mark.parametrize("holder", HOLDERS)
def test_what_somebody_has_is_left_alone(way, holder):
    held = []
    way(MESSAGES, lambda data: held.append(HOLDERS[holder](data)))
    content = {"file": io.BytesIO.getvalue, "key": lambda it: next(iter(it))}.get(holder, bytes)
    assert [content(it) for it in held] == MESSAGES


@each_way
def test_the_hash_is_of_what_has_come_last(way):
    seen = []
    way(MESSAGES, lambda data: seen.append(hash(data)))
    assert seen == [hash(message) for message in MESSAGES]


@each_way
def test_another_length_is_another_object(way):
    messages = [b"a" * 1000, b"b" * 999, b"c" * 1001, b"d" * 1000, b"e", b"f" * 1000]
    seen = []
    way(messages, lambda data: seen.append((len(data), bytes(memoryview(data)))))
    assert seen == [(len(message), message) for message in messages]
