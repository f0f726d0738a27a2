"""The servers that are measured: what each is called, how it is started, what it needs.

Called by the runner. A server is a command that prints its port; what has to be installed or
compiled for it is looked for beforehand, and who lacks it is skipped with a reason.
"""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.macro.build import Missing, compile_c, compile_go
from bench.macro.processes import KEEP_BLOCKS

SERVERS = Path(__file__).resolve().parent / "servers"

FLOOR = "c-et"  # what ratios and overheads are counted from
PROTOCOL = "uvloop-proto"  # the second one that ratios are counted from
CONTROLS = ("py-selectors", "py-epoll-et")  # no rivals: what is left without a library


@dataclass(frozen=True)
class Rival:
    """A server. command() makes it ready to be started; it raises Missing."""

    name: str
    command: Callable[[], list[str]]
    tls: bool = False  # it wants a certificate, and a load that speaks TLS


# With the C library as it comes.
AS_SHIPPED = ("env", *(word for name in KEEP_BLOCKS for word in ("-u", name)))


def python(script: str, name: str, needs: str | None = None, prefix: tuple = ()) -> Rival:
    """A server in Python, run by this interpreter; *prefix* is a command that execs it."""

    def command() -> list[str]:
        if needs is not None and importlib.util.find_spec(needs) is None:
            raise Missing(f"{needs} is not installed (pip install {needs})")
        return [*prefix, sys.executable, str(SERVERS / script), name]

    return Rival(name, command)


def over_tls(rival: Rival) -> Rival:
    """The same server; who is to speak TLS knows it by its name."""
    return Rival(rival.name, rival.command, tls=True)


def in_go(name: str) -> Rival:
    """One of the servers in echo.go."""
    return Rival(name, lambda: [str(compile_go()), name])


def in_c(name: str) -> Rival:
    """One of the servers in echo.c."""
    return Rival(name, lambda: [str(compile_c("echo")), name])


def own(text: str) -> Rival:
    """A server of the user's: NAME=COMMAND. Raises ValueError."""
    name, _, command = text.partition("=")
    try:
        words = shlex.split(command)
    except ValueError as exc:
        raise ValueError(f"{exc} in {text!r}") from None
    if not (name and words):
        raise ValueError(f"want NAME=COMMAND, have {text!r}")
    if name in ALL:
        raise ValueError(f"{name} is the name of a server of ours, take another")
    return Rival(name, lambda: words)


ALL = {
    rival.name: rival
    for rival in (
        in_c("c-et"),
        in_c("c-et-eagain"),
        in_c("c-et-keep"),
        in_c("c-lt"),
        python("echo_gopoll.py", "gopoll", "gopoll"),
        python("echo_gopoll.py", "gopoll-keep", "gopoll"),
        python("echo_gopoll.py", "gopoll-readinto", "gopoll"),
        python("echo_gopoll.py", "gopoll-serve", "gopoll"),
        python("echo_gopoll.py", "gopoll-splice", "gopoll"),
        python("echo_gopoll.py", "gopoll-guest-asyncio", "gopoll"),
        python("echo_gopoll.py", "gopoll-guest-uvloop", "uvloop"),
        python("echo_gopoll.py", "gopoll-tasks-asyncio", "gopoll"),
        python("echo_gopoll.py", "gopoll-tasks-uvloop", "uvloop"),
        in_go("go"),
        in_go("go-copy"),
        python("echo_asyncio.py", "gopoll-aio-proto", "gopoll"),
        python("echo_asyncio.py", "gopoll-aio-bufproto", "gopoll"),
        python("echo_asyncio.py", "gopoll-aio-streams", "gopoll"),
        python("echo_asyncio.py", "gopoll-aio-sock", "gopoll"),
        python("echo_asyncio.py", "uvloop-proto", "uvloop"),
        python("echo_asyncio.py", "uvloop-bufproto", "uvloop"),
        python("echo_asyncio.py", "uvloop-streams", "uvloop"),
        python("echo_asyncio.py", "uvloop-sock", "uvloop"),
        python("echo_asyncio.py", "rloop-proto", "rloop"),
        python("echo_asyncio.py", "rloop-proto-shipped", "rloop", AS_SHIPPED),
        python("echo_asyncio.py", "rloop-streams", "rloop"),
        python("echo_asyncio.py", "rloop-streams-shipped", "rloop", AS_SHIPPED),
        python("echo_asyncio.py", "rloop-sock", "rloop"),
        python("echo_asyncio.py", "asyncio-proto"),
        python("echo_asyncio.py", "asyncio-proto-shipped", prefix=AS_SHIPPED),
        python("echo_asyncio.py", "asyncio-streams"),
        python("echo_asyncio.py", "asyncio-streams-shipped", prefix=AS_SHIPPED),
        python("echo_asyncio.py", "asyncio-sock"),
        python("echo_gevent.py", "gevent", "gevent"),
        python("echo_trio.py", "trio", "trio"),
        python("echo_curio.py", "curio", "curio"),
        python("echo_threads.py", "threads"),
        python("echo_plain.py", "py-selectors"),
        python("echo_plain.py", "py-epoll-et"),
    )
}


TLS = {
    rival.name: over_tls(rival)
    for rival in (
        python("echo_gopoll.py", "gopoll-tls", "gopoll"),
        in_go("go-tls"),
        python("echo_asyncio.py", "gopoll-aio-tls-proto", "gopoll"),
        python("echo_asyncio.py", "gopoll-aio-tls-streams", "gopoll"),
        python("echo_asyncio.py", "uvloop-tls-proto", "uvloop"),
        python("echo_asyncio.py", "uvloop-tls-streams", "uvloop"),
        python("echo_asyncio.py", "asyncio-tls-proto"),
        python("echo_asyncio.py", "asyncio-tls-streams"),
    )
}


def ready(rivals: list[Rival]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return ({name: command} of those that can be started, {name: reason} of the others)."""
    commands, skipped = {}, {}
    for rival in rivals:
        try:
            commands[rival.name] = rival.command()
        except Missing as missing:
            skipped[rival.name] = str(missing)
    return commands, skipped
