"""What can disturb an echo server, and the measurement of one server beside one of these.

Called by the runner, on its main thread. The servers themselves are those of bench.macro; what
they do about a disturbance is in bench/macro/servers/beside.py.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.macro import rivals
from bench.macro.build import certificate
from bench.macro.measure import SET_UP_SECONDS, Place, answer, figures
from bench.macro.processes import START_SECONDS, Failed, Process, running

CONNECTIONS, SIZE, RATE = 64, 1024, 100  # RATE: messages a second on each, in the open loop
CLIENT_RATE = 1  # bytes a second of a slow client
FOREVER_SECONDS = 1_000_000


@dataclass(frozen=True)
class Disturbance:
    """What goes on beside the echo. *word* says it to the server; *clients* are slow ones."""

    name: str
    title: str
    word: str
    clients: int = 0


DISTURBANCES = {
    d.name: d
    for d in (
        Disturbance("none", "nothing", "none"),
        Disturbance("hog", "a thread computes in Python without a pause", "hog"),
        Disturbance("sleep", "a task calls time.sleep(0.1) over and over", "sleep"),
        Disturbance("syscall", "the same in syscall(), or in a thread", "syscall"),
        Disturbance("compute", "a task computes in Python for 100 ms over and over", "compute"),
        Disturbance("deadlines", "each read has a deadline", "deadlines"),
        Disturbance("slow", "that, and 1,000 clients send a byte a second", "deadlines", 1000),
    )
}

SERVERS = (
    *("gopoll", "uvloop-proto", "uvloop-streams", "uvloop-sock", "rloop-proto", "rloop-streams"),
    *("asyncio-proto", "asyncio-streams", "asyncio-sock", "gevent", "trio", "threads", "go"),
)
ALL = {name: rivals.ALL[name] for name in SERVERS} | rivals.TLS

# What would say nothing new: a thread or a goroutine that blocks has a thread already, and TLS is
# looked at where it has most to compute itself.
_NOT = {(server, "syscall") for server in ("go", "threads")}
# A connection that rloop's own timer closes stays open until the peer speaks.
_NOT |= {(f"rloop-{s}", d) for s in ("proto", "streams") for d in ("deadlines", "slow")}
_TLS = ("none", "hog")


def applies(server: str, disturbance: str) -> bool:
    """Report whether a server is measured beside a disturbance."""
    if server in rivals.TLS:
        return disturbance in _TLS
    return (server, disturbance) not in _NOT


def point(
    server: str,
    command: list[str],
    disturbance: Disturbance,
    place: Place,
    load: str,
    *,
    seconds: float,
    open_seconds: float,
    warmup: float,
    patience: float,
) -> dict[str, Any]:
    """Measure *server*, whose command is given, once: a closed loop, then an open one.

    Raises Failed.
    """
    tls = ALL[server].tls if server in ALL else False
    words = ["0", disturbance.word, *([str(certificate())] if tls else [])]
    with contextlib.ExitStack() as stack:
        echo = stack.enter_context(running([*command, *words], place.server, batch=place.batch))
        try:
            port = int(echo.line(START_SECONDS))
        except ValueError:
            raise Failed("the server did not print its port") from None
        common = [load, "--port", str(port), "--wait", "--patience", str(patience)]
        clients = None
        if disturbance.clients:
            words = ["--connections", str(disturbance.clients), "--size", "1"]
            words += ["--rate", str(CLIENT_RATE), "--seconds", str(FOREVER_SECONDS)]
            clients = stack.enter_context(running([*common, *words], place.load, batch=place.batch))
            answer(clients, echo, SET_UP_SECONDS)
            clients.tell("go")
        common += ["--connections", str(CONNECTIONS), "--size", str(SIZE)]
        common += ["--server-pid", str(echo.pid), "--warmup", str(warmup)]
        common += ["--tls"] * tls

        def loop(words: list[str], long: float) -> dict[str, Any]:
            words = [*common, *words, "--seconds", str(long)]
            with running(words, place.load, batch=place.batch) as process:
                answer(process, echo, SET_UP_SECONDS)
                before, began = hog_ns(echo), time.monotonic_ns()
                process.tell("go")
                found = figures(answer(process, echo, long + warmup + 2 * patience))
                if before is not None and (after := hog_ns(echo)) is not None:
                    found["hog_share"] = (after - before) / (time.monotonic_ns() - began)
            return found

        found = {"closed": loop([], seconds), "open": loop(["--rate", str(RATE)], open_seconds)}
        if echo.has_ended():
            raise Failed(f"the server has ended: {echo.obituary()}")
        if clients is not None and clients.has_ended():
            raise Failed(f"the slow clients have ended: {clients.obituary()}")
        return found


def hog_ns(server: Process) -> int | None:
    """Return the CPU time of the server's thread called "hog"; None if there is none."""
    for task in Path(f"/proc/{server.pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            if (task / "comm").read_text() == "hog\n":
                return int((task / "schedstat").read_text().split()[0])
    return None
