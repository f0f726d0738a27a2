"""UDP and Unix sockets against Go's own net package, both ways, with names of every kind."""

import os
import subprocess

import pytest

import gopoll
from helpers.go import build_go
from net.tools import needs_ipv6, short_folder

MESSAGES = [bytes([i % 256]) * (1 + i * i % 5000) for i in range(200)]
DATAGRAMS = ("udp", "udp4", "udp6", "unixgram")
NETWORKS = [
    ("udp", "127.0.0.1:0"),
    pytest.param("udp6", "[::1]:0", marks=needs_ipv6),
    ("unix", "path"),
    ("unix", "@name"),
    ("unixpacket", "path"),
    ("unixgram", "path"),
    ("unixgram", "@name"),
]


@pytest.fixture(scope="session")
def go_netecho(tmp_path_factory):
    """Return the built Go program."""
    return build_go("netecho.go", tmp_path_factory.mktemp("go"))


@pytest.fixture
def name():
    """Return a function that makes a path, or an abstract name of its own, of a word."""
    with short_folder() as folder:

        def name(word):
            if ":" in word:
                return word
            return f"@{folder}/{word[1:]}" if word.startswith("@") else os.path.join(folder, word)

        yield name


@pytest.mark.parametrize(("network", "address"), NETWORKS)
def test_gopoll_dials_a_go_server(run, go_netecho, name, network, address):
    command = [go_netecho, "server", network, name(address)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        listening = server.stdout.readline().strip()

        async def main():
            local = name("@me") if network == "unixgram" else None
            conn = await gopoll.Dialer(local_addr=local).dial(network, listening)
            async with conn:
                reader = gopoll.Reader(conn)
                for message in MESSAGES:
                    await conn.write(message)
                    if network == "unix":
                        assert await reader.read_exactly(len(message)) == message
                    else:
                        assert await conn.read() == message
                if network in ("unix", "unixpacket"):
                    conn.close_write()
                    assert await conn.read() == b""

        try:
            run(main)
        finally:
            server.kill()


@pytest.mark.parametrize(("network", "address"), NETWORKS)
def test_a_go_client_dials_gopoll(run, go_netecho, name, network, address):
    async def echo(conn):
        async with conn:
            while data := await conn.read():
                await conn.write(data)

    async def serve(listener):
        async for conn in listener:
            gopoll.go(echo, conn)

    async def answer(conn):
        while True:
            data, addr = await conn.read_from()
            await conn.write_to(data, addr)

    async def main():
        if network in DATAGRAMS:
            server = await gopoll.listen_packet(network, name(address))
            serving, where = gopoll.go(answer, server), server.local_addr
        else:
            server = await gopoll.listen(network, name(address))
            serving, where = gopoll.go(serve, server), server.addr
        async with server:
            if isinstance(where, tuple):
                where = f"[{where[0]}]:{where[1]}" if ":" in where[0] else f"127.0.0.1:{where[1]}"
            command = [go_netecho, "client", network, where, name("@me"), "200"]
            done = await gopoll.blocking(
                subprocess.run, command, capture_output=True, text=True, timeout=60
            )
        if network in DATAGRAMS:
            with pytest.raises(gopoll.ClosedError):
                await serving
        else:
            await serving
        return done

    done = run(main)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok 200\n", "")
