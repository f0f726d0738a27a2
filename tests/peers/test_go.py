"""Go as a peer for what is not a stream: datagrams, also empty ones, and descriptors that pass.

The echoes over every network are in tests/net/test_net_peers.py.
"""

import contextlib
import os
import subprocess

import pytest

import gopoll
from helpers.go import build_go
from net.tools import needs_ipv6, short_folder


@pytest.fixture(scope="session")
def go_packets(tmp_path_factory):
    """Return the built Go program."""
    return build_go("packets.go", tmp_path_factory.mktemp("go"))


@pytest.mark.parametrize(
    "network", ["udp", "udp4", pytest.param("udp6", marks=needs_ipv6), "unixgram"]
)
def test_datagrams_on_sockets_that_are_connected_and_that_are_not(run, go_packets, network):
    async def echo(packets):
        with contextlib.suppress(gopoll.ClosedError):
            while True:
                data, sender = await packets.read_from()
                assert await packets.write_to(data, sender) == len(data)

    async def main(address):
        async with await gopoll.listen_packet(network, address) as packets:
            echoing = gopoll.go(echo, packets)
            local = packets.local_addr
            if not isinstance(local, str):
                local = ("[{}]:{}" if ":" in local[0] else "{}:{}").format(*local[:2])
            done = await gopoll.blocking(
                subprocess.run,
                [go_packets, "client", network, local, "200"],
                capture_output=True,
                text=True,
                timeout=60,
            )
        await echoing
        return done

    with short_folder() as folder:
        hosts = {"udp6": "[::1]:0", "unixgram": f"{folder}/s"}
        done = run(main, hosts.get(network, "127.0.0.1:0"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok 200\n", "")


async def read_all(fd):
    """Read a pipe, which is closed then, to its end."""
    async with gopoll.open_fd(fd) as file:
        got = b""
        while piece := await file.read():
            got += piece
        return got


def test_descriptors_pass_both_ways(run, go_packets):
    async def main(address):
        async with await gopoll.listen("unix", address) as listener:
            command = [go_packets, "descriptors", address]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as peer:
                async with await listener.accept() as conn:
                    assert conn.peer_credentials().pid == peer.pid
                    data, [theirs] = await conn.recv_fds(64, 8)
                    assert data == b"reading end"
                    assert await read_all(theirs) == b"from Go"
                    r, w = os.pipe()
                    assert await conn.send_fds(b"writing end", [w]) == 11
                    os.close(w)
                    assert await read_all(r) == b"Go has got the writing end"
                return await gopoll.blocking(peer.communicate)

    with short_folder() as folder:
        assert run(main, f"{folder}/s") == ("ok 1 1\n", None)
