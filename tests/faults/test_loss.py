"""Two hosts and a wire that loses one packet in twenty: what arrives is whole."""

import os
import queue
import random
import struct

import pytest

import gopoll
from helpers.netns import two_hosts
from net.certs import certs

CONNECTIONS = 8
SIZE = 512 << 10  # bytes each way on each connection


async def echo(conn):
    async with conn:
        while data := await conn.read():
            await conn.write(data)
        conn.close_write()


async def send(conn, data):
    await conn.write(data)
    conn.close_write()


async def there_and_back(conn, data):
    """Send *data* and read what comes, until the end, at the same time."""
    async with conn:
        sending = gopoll.go(send, conn, data)
        got = bytearray()
        while piece := await conn.read():
            got += piece
        await sending
    assert got == data


class TCP:
    """How the two ends come to a connection."""

    async def dial(self, address):
        return await gopoll.dial("tcp", address)

    async def accept(self, listener):
        return await listener.accept()


class TLS(TCP):
    """The handshake goes through the wire as well."""

    def __init__(self):
        self.client_context = certs().client_context()
        self.server_context = certs().server_context()

    async def dial(self, address):
        conn = await super().dial(address)
        return await gopoll.tls.client(conn, self.client_context, server_hostname="localhost")

    async def accept(self, listener):
        return await gopoll.tls.server(await listener.accept(), self.server_context)


@pytest.mark.parametrize("kind", [TCP, TLS])
@pytest.mark.parametrize("procs", [1, 2])
def test_megabytes_both_ways_are_echoed_intact(run, kind, procs):
    bound = queue.Queue()
    ends = kind()

    async def server():
        async with await gopoll.listen("tcp", "10.77.0.2:0") as listener:
            bound.put(listener.addr)
            accepting = [gopoll.go(ends.accept, listener) for _ in range(CONNECTIONS)]
            for g in [gopoll.go(echo, await g) for g in accepting]:
                await g

    async def talk(address):
        await there_and_back(await ends.dial(address), os.urandom(SIZE))

    async def client(address):
        for g in [gopoll.go(talk, address) for _ in range(CONNECTIONS)]:
            await g

    with two_hosts(loss=0.05, seed=4) as (here, there, wire):
        serving = there.start(run, server, procs=procs)
        here.run(run, client, bound.get(timeout=60), procs=procs)
        serving.join()
    total = wire.carried + wire.lost
    assert total > 2 * CONNECTIONS * SIZE / 1500
    assert 0.02 < wire.lost / total < 0.08


def datagram(i):
    """Return the i-th datagram: its number, and as many bytes as that draws; some are fragmented.

    An empty one has no number, so there is none.
    """
    draw = random.Random(i)
    return struct.pack("!I", i) + draw.randbytes(draw.choice([0, 100, 1000, 4000]))


def test_datagrams_are_lost_as_a_whole_or_not_at_all(run):
    """Nothing is cut, mixed or made up, and the deadline ends the wait for those that are lost."""
    bound = queue.Queue()
    count = 600

    async def server():
        async with await gopoll.listen_packet("udp", "10.77.0.2:0") as packets:
            bound.put(packets.local_addr)
            while (datagram := await packets.read_from())[0] != b"over":
                await packets.write_to(*datagram)

    async def client(address):
        async with await gopoll.dial("udp", address) as conn:
            came = set()
            for i in range(count):
                await conn.write(datagram(i))
                conn.set_read_timeout(0.01)
                try:
                    while True:
                        data = await conn.read()
                        number = struct.unpack_from("!I", data)[0]
                        assert data == datagram(number)
                        assert number not in came
                        came.add(number)
                        if number == i:
                            break
                except TimeoutError:
                    pass
            return len(came)

    async def end(address):
        async with await gopoll.dial("udp", address) as conn:
            await conn.write(b"over")

    with two_hosts(loss=0.05, seed=4) as (here, there, wire):
        serving = there.start(run, server)
        address = bound.get(timeout=60)
        came = here.run(run, client, address)
        wire.loss = 0.0
        here.run(run, end, address)
        serving.join()
    assert wire.lost > 0
    assert count / 2 < came < count
