"""A thousand clients that send a byte a second, and a server that has deadlines for them."""

import contextlib
import resource
import time

import pytest

import gopoll
from gopoll import OpError
from net.tools import local_listener

CLIENTS = 1000
TICK = 1.0  # seconds from one byte of a client to its next
BYTES = 3  # of a request
PATIENCE = 60.0  # seconds that a byte may take: far beyond what a busy machine takes for a tick
STRICT = 1.5 * TICK  # seconds that a whole request may take: half of what a client needs


@contextlib.contextmanager
def room_for(descriptors):
    """Raise the limit of descriptors for the length of a block, if it is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < descriptors:
        pytest.skip(f"no {descriptors} descriptors on this machine")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, descriptors), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def patient(conn):
    """Read a request; each byte moves the deadline."""
    request = b""
    while len(request) < BYTES:
        conn.set_read_timeout(PATIENCE)
        request += await conn.read(1)
    await conn.write(b"thank you for " + request)


async def drain(conn):
    while await conn.read(1):
        pass


async def strict(conn):
    """Read a request under one deadline, which comes first."""
    end = time.monotonic() + STRICT
    conn.set_read_deadline(end)
    with pytest.raises(OpError, match=r"^read tcp .*: i/o timeout$") as caught:
        await drain(conn)
    assert isinstance(caught.value, TimeoutError)
    assert time.monotonic() >= end
    conn.set_read_deadline(None)
    conn.set_linger(0)


async def serve(conn):
    async with conn:
        await {b"p": patient, b"s": strict}[await conn.read(1)](conn)


async def client(address, kind):
    """Send a byte a second; return the answer, or b"" if the server has had enough."""
    async with await gopoll.dial("tcp", address) as conn:
        await conn.write(kind)
        try:
            for i in range(BYTES if kind == b"p" else 1 << 30):
                await gopoll.sleep(TICK)
                await conn.write(b"%d" % (i % 10))
            return await conn.read()
        except OpError:
            return b""


@pytest.mark.parametrize("procs", [1, 2])
def test_slow_clients_are_served_or_cut_off_as_the_deadlines_say(run, procs):
    async def main():
        async with local_listener() as listener:
            kinds = [b"ps"[i % 2 : i % 2 + 1] for i in range(CLIENTS)]
            clients = [gopoll.go(client, listener.addr, kind) for kind in kinds]
            serving = [gopoll.go(serve, await listener.accept()) for _ in clients]
            for g in serving:
                await g
            answers = [await g for g in clients]
        expected = {b"p": b"thank you for 012", b"s": b""}
        assert answers == [expected[kind] for kind in kinds]

    with room_for(2 * CLIENTS + 200):
        run(main, procs=procs)
