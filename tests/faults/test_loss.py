"""Two hosts and a wire that loses one packet in twenty: what arrives is whole and in order."""

import os
import queue

import pytest

import gopoll
from helpers.netns import two_hosts

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


async def there_and_back(address, data):
    """Send *data* and read what comes, until the end, at the same time."""
    async with await gopoll.dial("tcp", address) as conn:
        sending = gopoll.go(send, conn, data)
        got = bytearray()
        while piece := await conn.read():
            got += piece
        await sending
    assert got == data


@pytest.mark.parametrize("procs", [1, 2])
def test_megabytes_both_ways_are_echoed_intact(run, procs):
    bound = queue.Queue()

    async def server():
        async with await gopoll.listen("tcp", "10.77.0.2:0") as listener:
            bound.put(listener.addr)
            echoes = [gopoll.go(echo, await listener.accept()) for _ in range(CONNECTIONS)]
            for g in echoes:
                await g

    async def client(address):
        bodies = [os.urandom(SIZE) for _ in range(CONNECTIONS)]
        for g in [gopoll.go(there_and_back, address, body) for body in bodies]:
            await g

    with two_hosts(loss=0.05, seed=4) as (here, there, wire):
        serving = there.start(run, server, procs=procs)
        here.run(run, client, bound.get(timeout=20), procs=procs)
        serving.join()
    total = wire.carried + wire.lost
    assert total > 2 * CONNECTIONS * SIZE / 1500
    assert 0.02 < wire.lost / total < 0.08
