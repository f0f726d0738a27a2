"""gopoll demo: an echo server on loopback, a conversation with it, then many at once, counted.

Called by __main__, as the main goroutine. Server and clients are goroutines of one scheduler.
"""

from __future__ import annotations

import collections
import dataclasses
import errno
import os
import resource
import sys
import time
from collections.abc import Iterable, Mapping

import gopoll
from gopoll._cli import echo
from gopoll._cli.client import MESSAGE, PROMPT
from gopoll._cli.output import is_terminal, say
from gopoll.errors import format_addr, op_error

__all__ = ["Tally", "percentile", "run_demo", "table"]

LINES = ("hello", "how fast are you?", "good bye")
GRACE = 10.0  # seconds that a message may take before the demo gives up
STEP = 0.1  # seconds, at most, between two looks at the clients
PIPE_LINES = 4  # progress lines where one does not replace the other
SPARE = 4  # descriptors beside those of the clients: the listener, the end of the conversation
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
        self.error: gopoll.OpError | None = None  # the first one

    def add(self, ns: int) -> None:
        """Count one message that took *ns* nanoseconds there and back."""
        self.messages += 1
        self.round_trips[ns // 1000] += 1


class Progress:
    """The live line. On a terminal it replaces itself; elsewhere there are a few, in all."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._live = is_terminal(sys.stdout)
        self._lines = 0

    def show(self, elapsed: float, messages: int) -> None:
        """Say how far it is."""
        line = f"  {elapsed:4.1f} s  {messages:12,} messages"
        if self._live:
            say(f"\r{line}", end="")
            return
        while elapsed * PIPE_LINES >= self._seconds * (self._lines + 1):
            say(line)
            self._lines += 1

    def end(self) -> None:
        """Leave the line."""
        if self._live:
            say()


async def run_demo(seconds: float, conns: int, size: int) -> None:
    """Show it all: the conversation, *conns* connections for *seconds*, the figures."""
    check_limit(conns)
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


def check_limit(conns: int) -> None:
    """Raise OpError unless both ends of *conns* connections can be open at once.

    Without a look beforehand it would be the server that runs out, and the clients that wait.
    """
    lowest_free = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.close(lowest_free)
    if lowest_free + 2 * conns + SPARE > resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
        raise op_error("open", "", None, counted(conns, "connection"), errno.EMFILE)


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
    """Send *message* to and fro on all *clients*; return what they saw and the seconds it took.

    Raises the first OpError of a client; the others end when the caller closes the connections.
    """
    tally = Tally()
    now = begin = time.monotonic()
    until = begin + seconds
    for conn in clients:
        conn.set_deadline(until + GRACE)
    goroutines = [gopoll.go(client, conn, message, until, tally) for conn in clients]
    progress = Progress(seconds)
    while tally.error is None and now < until:
        await gopoll.sleep(min(STEP, seconds / PIPE_LINES, until - now))
        now = time.monotonic()
        progress.show(seconds if now >= until else now - begin, tally.messages)
    progress.end()
    for g in goroutines:
        if tally.error is not None:
            raise tally.error
        await g
    return tally, time.monotonic() - begin


async def client(conn: gopoll.Conn, message: bytes, until: float, tally: Tally) -> None:
    """Exchange messages on *conn* until the time is over, one at least; leave an error in *tally*.

    One client that fails and Ctrl-C end the demo for all: one line says why, not one for each.
    """
    try:
        while True:
            start = time.monotonic_ns()
            answer = await exchange(conn, message)
            tally.add(time.monotonic_ns() - start)
            check(conn, answer == message)
            if time.monotonic() >= until:
                return
    except gopoll.OpError as exc:
        if tally.error is None:
            tally.error = exc


async def exchange(conn: gopoll.Conn, message: bytes) -> bytes:
    """Write *message* and read as much."""
    if len(message) <= TOGETHER:
        await conn.write(message)
        return await receive(conn, len(message))
    # With full buffers both ends would write and neither read.
    writer = gopoll.go(send, conn, message)
    try:
        answer = await receive(conn, len(message))
    finally:
        failed = await writer
    if failed is not None:
        raise failed
    return answer


async def send(conn: gopoll.Conn, message: bytes) -> gopoll.OpError | None:
    """Write *message*; return the error: raised, it would be told of where Ctrl-C has ended us."""
    try:
        await conn.write(message)
    except gopoll.OpError as exc:
        return exc
    return None


async def receive(conn: gopoll.Conn, size: int) -> bytes:
    """Read *size* bytes.

    Not into a bytearray: without a GIL the count of its exports is not safe between threads.
    """
    data = await conn.read(size)
    while len(data) < size:
        more = await conn.read(size - len(data))
        check(conn, bool(more))
        data += more
    return data


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
