"""An operation object that several tasks of a host await at once: one has it (K2).

As test_twice.py has it for goroutines. Go has nothing of the kind: there an operation is a call.
"""

import pytest

import gopoll
from embed.hosts import (
    Recorder,
    attached,
    host,  # noqa: F401  (a fixture)
    pair,
    until,
    waiting,
)
from gopoll.embed import Guest
from net.certs import certs

# ruff: noqa: F811

LARGE = 8 << 20  # more than the kernel has room for


async def receive_all(conn):
    got = 0
    while got < LARGE:
        got += len(await conn.read())


# Each returns an operation that waits on *a*, what ends the wait, and the result.


async def read(a, b):
    return a.read(10), b.write(b"here"), b"here"


async def read_line(a, b):
    return gopoll.Reader(a).read_line(), b.write(b"line\nmore"), b"line\n"


async def read_exactly(a, b):
    return gopoll.Reader(a).read_exactly(3), b.write(b"exactly"), b"exa"


async def write(a, b):
    return a.write(bytes(LARGE)), receive_all(b), LARGE


async def flush(a, b):
    return gopoll.Writer(a).write(bytes(LARGE)), receive_all(b), LARGE


async def splice(a, b):
    c, d = await pair()

    async def finish():
        async with c, d:
            await d.write(b"xyz")
            d.close_write()
            await b.read(3)

    return a.splice_from(c), finish(), 3


async def tls_read(a, b):
    server = gopoll.go(gopoll.tls.server, b, certs().server_context())
    client = await gopoll.tls.client(a, certs().client_context(), server_hostname="localhost")
    tls = await server
    await tls.write(b"first")
    assert await client.read() == b"first"
    return client.read(), tls.write(b"here"), b"here"


async def receive(a, b):
    chan = gopoll.Chan()
    return chan.recv(), chan.send(7), 7


@pytest.mark.parametrize(
    "kind", [read, read_line, read_exactly, write, flush, splice, tls_read, receive]
)
def test_one_task_has_it_and_the_others_are_refused(host, kind):
    async def share(op):
        return await op

    async def main(guest):
        a, b = await pair()
        async with a, b:
            op, finish, result = await kind(a, b)
            tasks = [host.start(share, op) for _ in range(3)]
            await waiting(host, guest, 1)
            await until(host, lambda: sum(task.done for task in tasks) == 2)
            await finish
            outcomes = [await task.outcome() for task in tasks]
            assert outcomes.count(result) == 1
            refused = [how for how in outcomes if how != result]
            assert [type(error) for error in refused] == [RuntimeError] * 2
            assert all("twice" in str(error) for error in refused)

    attached(host, main)


def test_one_that_was_given_up_is_not_awaited_again(host):
    async def share(op):
        return await op

    async def main(guest):
        a, b = await pair()
        async with a, b:
            reader = gopoll.Reader(a)
            op = reader.read_line()
            task = host.start(share, op)
            await waiting(host, guest, 1)
            task.cancel()
            assert await task.outcome() == "cancelled"
            with pytest.raises(RuntimeError, match="twice"):
                await op
            await b.write(b"line\n")
            assert await reader.read_line() == b"line\n"

    attached(host, main)


def test_an_await_that_is_gone_has_the_operation_no_more():
    """anext() with a default awaits anew at each turn, and the one before is gone by then."""
    host = Recorder()
    with Guest(host) as guest:
        chan, other = gopoll.Chan(), gopoll.Chan()
        op = chan.recv()
        first = op.__await__()
        assert next(first) == "the host's own"
        second = op.__await__()
        with pytest.raises(RuntimeError, match="twice"):
            next(second)
        del first
        elsewhere = [other.recv().__await__() for _ in range(64)]  # not at the address of the first
        third = op.__await__()
        chan.try_send("a value")
        guest.run_nowait()
        with pytest.raises(StopIteration) as stop:
            next(third)
        assert stop.value.value == "a value"
        for steps in elsewhere:
            steps.close()
