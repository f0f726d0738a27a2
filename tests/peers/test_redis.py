"""redis-server as a peer: thousands of commands in one go, values of megabytes, messages pushed."""

import os
from pathlib import Path

import pytest

import gopoll
from net.tools import short_folder
from peers.servers import redis

COMMANDS = 5000


def command(*words):
    """Return a command in RESP: an array of strings with their lengths."""
    words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        parts += [b"$%d\r\n" % len(word), word, b"\r\n"]
    return b"".join(parts)


class RedisError(Exception):
    """The server says no."""


async def read_reply(reader):
    """Return the next reply: a number, a string, a list, None, or a RedisError."""
    line = await reader.read_line()
    assert line.endswith(b"\r\n")
    kind, rest = line[:1], line[1:-2]
    match kind:
        case b"+":
            return rest
        case b"-":
            return RedisError(rest.decode())
        case b":":
            return int(rest)
        case b"$":
            if rest == b"-1":
                return None
            body = await reader.read_exactly(int(rest) + 2)
            assert body.endswith(b"\r\n")
            return body[:-2]
        case b"*":
            return [await read_reply(reader) for _ in range(int(rest))]
    raise AssertionError(line)


async def ask(conn, reader, *words):
    await conn.write(command(*words))
    return await read_reply(reader)


@pytest.fixture
def servers():
    """Run redis-server; return {network: address}, which gopoll.dial takes."""
    with short_folder() as folder, redis(Path(folder)) as (tcp, unix):
        yield {"tcp": tcp, "unix": unix}


@pytest.fixture
def server(servers):
    """Run redis-server; return its TCP address."""
    return servers["tcp"]


async def pipelined(network, address, key):
    """Send thousands of commands without waiting; read the replies as they come."""
    commands, replies = [], []
    for i in range(COMMANDS):
        match i % 5:
            case 0:
                commands.append(command("SET", f"{key}:{i}", b"v" * (i % 700)))
                replies.append(b"OK")
            case 1:
                commands.append(command("GET", f"{key}:{i - 1}"))
                replies.append(b"v" * ((i - 1) % 700))
            case 2:
                commands.append(command("INCR", key))
                replies.append(i // 5 + 1)
            case 3:
                commands.append(command("GET", f"{key}:none"))
                replies.append(None)
            case _:
                commands.append(command("MGET", key, f"{key}:{i - 4}"))
                replies.append([b"%d" % (i // 5 + 1), b"v" * ((i - 4) % 700)])
    async with await gopoll.dial(network, address) as conn:
        reader = gopoll.Reader(conn)
        writing = gopoll.go(conn.write, b"".join(commands))
        for expected in replies:
            assert await read_reply(reader) == expected
        await writing
        assert await ask(conn, reader, "QUIT") == b"OK"
        assert await reader.read() == b""


@pytest.mark.parametrize(("procs", "clients"), [(1, 1), (4, 4)])
@pytest.mark.parametrize("network", ["tcp", "unix"])
def test_thousands_of_commands_get_their_replies_in_order(run, servers, network, procs, clients):
    async def main():
        async with gopoll.Group() as tg:
            for i in range(clients):
                tg.go(pipelined, network, servers[network], f"key{i}")

    run(main, procs=procs)


def test_a_value_of_megabytes_comes_back_whole(run, server):
    async def main():
        async with await gopoll.dial("tcp", server) as conn:
            reader = gopoll.Reader(conn)
            for size in (0, 1, 65_536, 16 << 20):
                value = os.urandom(size)
                assert await ask(conn, reader, "SET", "value", value) == b"OK"
                assert await ask(conn, reader, "GET", "value") == value

    run(main)


def test_what_the_server_refuses_leaves_the_session_usable(run, server):
    async def main():
        async with await gopoll.dial("tcp", server) as conn:
            reader = gopoll.Reader(conn)
            error = await ask(conn, reader, "NONSENSE")
            assert isinstance(error, RedisError)
            assert "unknown command" in str(error)
            assert await ask(conn, reader, "PING") == b"PONG"

    run(main)


def test_a_read_that_waits_is_cut_by_its_deadline_and_the_session_goes_on(run, server):
    """BLPOP keeps us waiting; what it brings after the deadline is read by the next call."""

    async def main():
        async with (
            await gopoll.dial("tcp", server) as conn,
            await gopoll.dial("tcp", server) as other,
        ):
            reader = gopoll.Reader(conn)
            await conn.write(command("BLPOP", "list", 0))
            conn.set_read_timeout(0.05)
            with pytest.raises(TimeoutError):
                await read_reply(reader)
            conn.set_read_deadline(None)
            assert await ask(other, gopoll.Reader(other), "LPUSH", "list", "late") == 1
            assert await read_reply(reader) == [b"list", b"late"]

    run(main)


def test_messages_reach_those_who_have_subscribed(run, server):
    messages = [b"%d" % i for i in range(1000)]

    async def subscriber(ready):
        async with await gopoll.dial("tcp", server) as conn:
            reader = gopoll.Reader(conn)
            assert await ask(conn, reader, "SUBSCRIBE", "news") == [b"subscribe", b"news", 1]
            ready.done()
            return [(await read_reply(reader))[2] for _ in messages]

    async def main():
        ready = gopoll.WaitGroup()
        ready.add(10)
        subscribers = [gopoll.go(subscriber, ready) for _ in range(10)]
        await ready.wait()
        async with await gopoll.dial("tcp", server) as conn:
            reader = gopoll.Reader(conn)
            await conn.write(b"".join(command("PUBLISH", "news", m) for m in messages))
            assert [await read_reply(reader) for _ in messages] == [10] * len(messages)
        for g in subscribers:
            assert await g == messages

    run(main)


def test_a_server_that_ends_ends_its_connections(run, tmp_path):
    async def main():
        with redis(tmp_path) as (address, _):
            conn = await gopoll.dial("tcp", address)
            reader = gopoll.Reader(conn)
            assert await ask(conn, reader, "PING") == b"PONG"
            await conn.write(command("BLPOP", "list", 0))
            waiting = gopoll.go(reader.read)
            # Its end: redis-server closes what it has, blocked clients get an error or nothing.
        rest = await waiting
        assert rest == b"" or rest.startswith(b"-UNBLOCKED")
        while await reader.read():
            pass
        await conn.close()
        with pytest.raises(ConnectionRefusedError):
            await gopoll.dial("tcp", address)

    run(main)
