"""What it costs to send a file: gopoll's sendfile, its fallback, asyncio, the bare system call.

Run by `pytest bench/ --benchmark-only`, with the extra [bench]. A process of its own reads and
throws away; a round ends when it has said that all is there. splice is measured under load, as the
servers gopoll-splice and go-copy of bench.macro: --servers c-et,gopoll,gopoll-splice,go,go-copy
--workloads c0.
"""

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time

import pytest

import gopoll

pytestmark = [pytest.mark.benchmark(disable_gc=True), pytest.mark.timeout(60)]

MIB = 1 << 20
FILE_BYTES = 64 * MIB
CHUNK_BYTES = 65536
ROUNDS = 10

# Answers a byte for every FILE_BYTES that have come. MSG_TRUNC throws away without copying.
SINK = """
import socket, sys
whole = int(sys.argv[1])
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
sock, _ = listener.accept()
buffer, come = bytearray(1 << 20), 0
while n := sock.recv_into(buffer, 0, socket.MSG_TRUNC):
    come += n
    if come == whole:
        sock.sendall(b"x")
        come = 0
"""


@pytest.fixture
def sink():
    """Return a blocking socket that is connected to the sink."""
    with subprocess.Popen(
        [sys.executable, "-c", SINK, str(FILE_BYTES)], stdout=subprocess.PIPE
    ) as process:
        try:
            address = ("127.0.0.1", int(process.stdout.readline()))
            with socket.create_connection(address) as sock:
                yield sock
        finally:
            process.kill()


@pytest.fixture
def file(tmp_path):
    """Return a file in the page cache, open for reading."""
    path = tmp_path / "file"
    path.write_bytes(bytes(FILE_BYTES))
    with path.open("rb") as opened:
        yield opened


def chunks(file):
    """Give the file in blocks."""
    at = 0
    while data := os.pread(file.fileno(), CHUNK_BYTES, at):
        at += len(data)
        yield data


async def by_sendfile(conn, file):
    """Send with gopoll's sendfile."""
    assert await conn.sendfile(file, 0) == FILE_BYTES


async def by_writes(conn, file):
    """Read and write blocks, which is what sendfile does where the kernel cannot."""
    for data in chunks(file):
        await conn.write(data)


def on_gopoll(send):
    """Return a function that sends the file to the sink: send(conn, file)."""

    def function(sock, file):
        async def main():
            async with gopoll.from_fd(sock.fileno(), dup=True) as conn:
                await send(conn, file)
                assert await conn.read(1) == b"x"

        gopoll.run(main, procs=1)

    return function


def on_asyncio(send):
    """The same over a transport of asyncio: send(transport's writer, file)."""

    def function(sock, file):
        async def main():
            copy = sock.dup()
            reader, writer = await asyncio.open_connection(sock=copy)
            await send(writer, file)
            assert await reader.readexactly(1) == b"x"
            writer.close()
            await writer.wait_closed()

        asyncio.run(main())

    return function


async def by_loop(writer, file):
    """Send with loop.sendfile, without its fallback."""
    loop = asyncio.get_running_loop()
    assert await loop.sendfile(writer.transport, file, fallback=False) == FILE_BYTES


async def by_drains(writer, file):
    """Write blocks and drain."""
    for data in chunks(file):
        writer.write(data)
        await writer.drain()


def by_system_call(sock, file):
    """Call sendfile(2) on a blocking socket: what a thread can do."""
    sock.setblocking(True)
    at = 0
    while at < FILE_BYTES:
        at += os.sendfile(sock.fileno(), file.fileno(), at, FILE_BYTES - at)
    assert sock.recv(1) == b"x"


SIDES = {
    "gopoll-sendfile": on_gopoll(by_sendfile),
    "gopoll-write": on_gopoll(by_writes),
    "asyncio-sendfile": on_asyncio(by_loop),
    "asyncio-streams": on_asyncio(by_drains),
    "os.sendfile": by_system_call,
}


@pytest.mark.parametrize("name", SIDES)
def test_copy_ns_per_mib(name, sink, file, measure, benchmark):
    """Wall time until the sink has it all, and what of it is our CPU time."""
    benchmark.group = f"a file of {FILE_BYTES // MIB} MiB to TCP: ns per MiB"
    spent = []

    def function():
        began = time.process_time_ns()
        SIDES[name](sink, file)
        spent.append(time.process_time_ns() - began)

    measure(function, per_round=FILE_BYTES // MIB, unit="mib", rounds=ROUNDS)
    cpu = statistics.median(spent) / (FILE_BYTES // MIB)
    benchmark.extra_info["cpu_ns_per_mib"] = round(cpu)
