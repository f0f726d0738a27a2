"""gopoll demo: an echo server on loopback, a conversation with it, then many at once, counted.

Called by __main__, as the main goroutine. Server and clients are goroutines of one scheduler.
"""

from __future__ import annotations

import collections
import dataclasses
import sys
import time
from collections.abc import Iterable, Mapping

import gopoll
from gopoll._cli import echo
from gopoll._cli.client import MESSAGE, PROMPT
from gopoll._cli.output import is_terminal, say
from gopoll.errors import format_addr

__all__ = ["Tally", "percentile", "run_demo", "table"]

LINES = ("hello", "how fast are you?", "good bye")
GRACE = 10.0  # seconds that a message may take before the demo gives up
TERMINAL_STEP = 0.1  # seconds between two progress lines; a pipe gets four in all
TOGETHER = 16384  # bytes up to which a message fits into the socket buffers on its way

REMARKS = {
    "polls": "calls of epoll_wait",
    "events": "descriptors reported ready",
    "parks": "waits for a descriptor",
    "wakes": "waits that ended",
    "spurious": "events that found nobody waiting",
    "stale": "events of a descriptor closed since",
    "breaks": "polls interrupted on purpose",
    "switches": "slices run by goroutines",
    "overruns": "slices of 10 ms or more",
    "goroutines": "now",
    "descriptors": "registered now",
    "timers": "armed now",
}


class Tally:
    """What the clients have seen so far."""

    def __init__(self) -> None:
        self.messages = 0
        # By microsecond: bounded, however long the demo runs.
        self.round_trips: collections.Counter[int] = collections.Counter()

    def add(self, ns: int) -> None:
        """Count one message that took *ns* nanoseconds there and back."""
        self.messages += 1
        self.round_trips[ns // 1000] += 1


async def run_demo(seconds: float, conns: int, size: int) -> None:
    """Show it all: the conversation, *conns* connections for *seconds*, the figures."""
    async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
        gopoll.go(echo.serve, listener)
        address = format_addr(listener.addr)
        say(f"echo server on {address}\n")
        await converse(address)
        clients: list[gopoll.Conn] = []
        try:
            for _ in range(conns):
                clients.append(await gopoll.dial("tcp", address, timeout=GRACE))
            say(f"\n{counted(conns, 'connection')}, {counted(size, 'byte')} a message:")
            tally, took = await drive(clients, seconds, bytes(i % 251 for i in range(size)))
            stats = gopoll.stats()
        finally:
            for conn in clients:
                conn.close()
    say()
    say(table(figures(tally, took)))
    say("\ncounters of the poller and the scheduler\n")
    say(table((k, f"{v:,}", REMARKS.get(k, "")) for k, v in dataclasses.asdict(stats).items()))


async def converse(address: str) -> None:
    """Hold the conversation of a line-based client. Raises OpError if an answer is wrong."""
    async with await gopoll.dial("tcp", address, timeout=GRACE) as conn:
        conn.set_timeout(GRACE)
        reader = gopoll.Reader(conn)
        for line in LINES:
            say(PROMPT + line)
            await conn.write(line.encode() + b"\n")
            answer = await reader.read_line()
            say(MESSAGE + answer.decode(errors="backslashreplace").rstrip("\n"))
            check(conn, answer == line.encode() + b"\n")
        conn.close_write()
        check(conn, await reader.read_line() == b"")


async def drive(clients: list[gopoll.Conn], seconds: float, message: bytes) -> tuple[Tally, float]:
    """Send *message* to and fro on all *clients*; return what they saw and the seconds it took."""
    tally = Tally()
    begin = time.monotonic()
    until = begin + seconds
    for conn in clients:
        conn.set_deadline(until + GRACE)
    goroutines = [gopoll.go(client, conn, message, until, tally) for conn in clients]
    live = is_terminal(sys.stdout)
    step = TERMINAL_STEP if live else seconds / 4
    while (now := time.monotonic()) < until:
        await gopoll.sleep(min(step, until - now))
        elapsed = time.monotonic() - begin
        line = f"  {min(elapsed, seconds):4.1f} s  {tally.messages:12,} messages"
        say(f"\r{line}" if live else line, end="" if live else "\n")
    if live:
        say()
    for g in goroutines:
        await g
    return tally, time.monotonic() - begin


async def client(conn: gopoll.Conn, message: bytes, until: float, tally: Tally) -> None:
    """Exchange messages on *conn* until the time is over, one at least."""
    answer = bytearray(len(message))
    while True:
        start = time.monotonic_ns()
        await exchange(conn, message, answer)
        tally.add(time.monotonic_ns() - start)
        check(conn, answer == message)
        if time.monotonic() >= until:
            return


async def exchange(conn: gopoll.Conn, message: bytes, answer: bytearray) -> None:
    """Write *message* and read as much into *answer*."""
    writer = None
    if len(message) <= TOGETHER:
        await conn.write(message)
    else:
        # With full buffers both ends would write and neither read.
        writer = gopoll.go(conn.write(message))
    view = memoryview(answer)
    while view:
        n = await conn.readinto(view)
        check(conn, n > 0)
        view = view[n:]
    if writer is not None:
        await writer


def check(conn: gopoll.Conn, ok: bool) -> None:
    """Raise OpError unless the server has done what an echo server does."""
    if not ok:
        text = "the answer is not what was sent"
        raise gopoll.OpError("read", conn.network, conn.local_addr, conn.remote_addr, text)


def percentile(counts: Mapping[int, int], share: float) -> int:
    """Return the smallest value that *share* of the counted values do not exceed."""
    left = share * sum(counts.values())
    value = 0
    for value in sorted(counts):
        left -= counts[value]
        if left <= 0:
            break
    return value


def figures(tally: Tally, took: float) -> Iterable[tuple[str, str, str]]:
    """Yield the rows of the result."""
    yield "messages", f"{tally.messages:,}", f"there and back, in {took:.2f} s"
    yield "messages/s", f"{tally.messages / took:,.0f}", "server and clients in this one process"
    for share in (50, 99):
        value = percentile(tally.round_trips, share / 100)
        yield f"latency p{share}", f"{value:,}", "microseconds"


def table(rows: Iterable[tuple[str, str, str]]) -> str:
    """Return *rows* of name, figure and remark as aligned lines."""
    cells = list(rows)
    names = max(len(name) for name, _, _ in cells)
    values = max(12, *(len(value) for _, value, _ in cells))
    lines = (f"  {name:{names}}  {value:>{values}}  {remark}" for name, value, remark in cells)
    return "\n".join(line.rstrip() for line in lines)


def counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
