"""Latency of an echo server while one of its goroutines or tasks blocks: gopoll, asyncio, uvloop.

Run by hand: python bench/interference.py [--seconds S] [--rounds N] [--json FILE]. Open loop: 64
connections send 100 messages a second each, at times fixed beforehand, from a process of its own;
a latency counts from the time its message was due. Beside the echo runs, in the server:

    none      nothing
    sleep     time.sleep(0.1), over and over
    syscall   the same inside gopoll.syscall() (asyncio and uvloop: in a thread)
    python    computing in Python for 100 ms at a time

Servers take turns within a round; the table has medians over the rounds. A row that gopoll loses
is printed like the others. One CPU for the server and one for the load where there are two.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import os
import platform
import select
import socket
import statistics
import subprocess
import sys
import time

CONNS, RATE, SIZE = 64, 100, 1024
BLOCKERS = ("none", "sleep", "syscall", "python")
SERVERS = ("gopoll", "asyncio", "uvloop")


def compute(seconds):
    """Compute in Python for so long."""
    end = time.perf_counter() + seconds
    n = 0
    while time.perf_counter() < end:
        n += 1


# -- servers, each in a process of its own ---------------------------------------------------------


def serve_gopoll(blocker):
    """Serve with gopoll's defaults."""
    import gopoll

    async def echo(conn):
        async with conn:
            while data := await conn.read():
                await conn.write(data)

    async def block():
        while True:
            if blocker == "sleep":
                time.sleep(0.1)
            elif blocker == "syscall":
                with gopoll.syscall():
                    time.sleep(0.1)
            else:
                compute(0.1)
            await gopoll.sleep(0.001)

    async def main():
        async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
            print(listener.addr[1], flush=True)
            if blocker != "none":
                gopoll.go(block)
            async for conn in listener:
                gopoll.go(echo, conn)

    gopoll.run(main)


def serve_asyncio(blocker):
    """Serve with streams, the coroutine style that gopoll's connections have."""

    async def echo(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def block():
        while True:
            if blocker == "sleep":
                time.sleep(0.1)
            elif blocker == "syscall":
                await asyncio.to_thread(time.sleep, 0.1)
            else:
                compute(0.1)
            await asyncio.sleep(0.001)

    async def main():
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        if blocker != "none":
            task = asyncio.create_task(block())
            await task
        await server.serve_forever()

    asyncio.run(main())


def serve_uvloop(blocker):
    """The same on uvloop."""
    import uvloop

    uvloop.install()
    serve_asyncio(blocker)


# -- the load --------------------------------------------------------------------------------------


def load(port, seconds):
    """Send on schedule, return the latencies in ms, sorted; raise if an answer is wrong."""
    socks = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(CONNS)]
    epoll = select.epoll()
    owed, got = [[] for _ in socks], [b""] * CONNS
    message = bytes(i % 251 for i in range(SIZE))
    for s in socks:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.setblocking(False)
        epoll.register(s, select.EPOLLIN)
    index = {s.fileno(): i for i, s in enumerate(socks)}
    start = time.perf_counter() + 0.1
    due = [(start + i / (CONNS * RATE), i) for i in range(CONNS)]
    heapq.heapify(due)
    latencies, end, last = [], start + seconds, start + seconds + 5
    while True:
        now = time.perf_counter()
        while due and due[0][0] <= now:
            when, i = heapq.heappop(due)
            socks[i].send(message)
            owed[i].append(when)
            if when + 1 / RATE < end:
                heapq.heappush(due, (when + 1 / RATE, i))
        if (not due and not any(owed)) or now > last:
            break
        wait = max(0.0, due[0][0] - time.perf_counter()) if due else 0.1
        for fd, _ in epoll.poll(wait):
            i = index[fd]
            got[i] += socks[i].recv(1 << 16)
            done = time.perf_counter()
            while len(got[i]) >= SIZE:
                if got[i][:SIZE] != message:
                    raise RuntimeError("the server sent something else back")
                got[i] = got[i][SIZE:]
                latencies.append((done - owed[i].pop(0)) * 1e3)
    lost = sum(map(len, owed))
    for s in socks:
        s.close()
    epoll.close()
    if lost:
        raise RuntimeError(f"{lost} messages were not answered within 5 s")
    return sorted(latencies)


def point(server, blocker, seconds):
    """Measure one server beside one blocker: {percentile: ms}."""
    command = [sys.executable, __file__, "--serve", server, blocker]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            port = int(process.stdout.readline())
            found = load(port, seconds)
        finally:
            process.kill()
    count = len(found)
    return {p: found[min(count - 1, int(count * p / 100))] for p in (50, 99, 99.9)}


def main():
    """Measure all points, in rounds; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="of load for each point")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="write the figures to a file")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        globals()[f"serve_{options.serve[0]}"](options.serve[1])
        return
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rounds: dict[tuple[str, str], list[dict[float, float]]] = {}
    for n in range(options.rounds):
        for blocker in BLOCKERS:
            for server in SERVERS:
                print(f"round {n + 1}: {server}, {blocker}", file=sys.stderr)
                one = point(server, blocker, options.seconds)
                rounds.setdefault((server, blocker), []).append(one)
    table = {
        f"{server} {blocker}": {
            f"p{p:g}": round(statistics.median(one[p] for one in ones), 2) for p in (50, 99, 99.9)
        }
        for (server, blocker), ones in rounds.items()
    }
    print(f"{'ms, medians of ' + str(options.rounds):<24}{'p50':>9}{'p99':>9}{'p99.9':>9}")
    for name, row in sorted(table.items(), key=lambda item: BLOCKERS.index(item[0].split()[1])):
        print(f"{name:<24}" + "".join(f"{value:9.2f}" for value in row.values()))
    if options.json:
        where = {"python": platform.python_version(), "kernel": platform.release()}
        with open(options.json, "w", encoding="ascii") as file:
            json.dump({"where": where, "ms": table}, file, indent=1)


if __name__ == "__main__":
    main()
