"""What sides are made of: event loops, the C library and the Go program, each only where it is.

Called by the benches, on the main thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import importlib
import importlib.util
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import gopoll
from bench.macro.build import Missing, compile_go, compile_library
from bench.macro.processes import running
from bench.micro.contest import CONTROL, FLOOR, OURS, RIVAL, Round, Side
from plugins.probe import load as load_probe

HERE = Path(__file__).resolve().parent
GO_SECONDS = 60  # that a round may take

Main = Callable[[int], Awaitable[float]]  # does so many operations; returns ns for each
Maker = Callable[[contextlib.ExitStack], Any]


def load(name: str) -> Any:
    """Return the module of a rival. Raises Missing, also for one that this Python breaks."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name != name:
            raise Missing(f"{name} does not work here: {exc}") from None
        raise Missing(f"{name} is not installed (pip install {name})") from None
    except Exception as exc:
        raise Missing(f"{name} does not work here: {type(exc).__name__}: {exc}") from None


# -- event loops: a round starts one; main takes the time within -----------------------------------


def on_gopoll(main: Main, name: str = "gopoll") -> Side:
    """A side of ours: main in the main goroutine of one P."""
    return Side(name, lambda _, count: lambda: gopoll.run(main, count, procs=1), OURS)


def on_loops(main: Main, names: Iterable[str], suffix: str = "", kind: str = RIVAL) -> list[Side]:
    """Sides that are asyncio's own loop and others that asyncio can have."""

    def enter(name: str, stack: contextlib.ExitStack, count: int) -> Round:
        new_loop = load(name).new_event_loop

        def measure() -> float:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                return runner.run(main(count))

        return measure

    return [Side(name + suffix, functools.partial(enter, name), kind) for name in names]


def on_kernel(name: str, main: Callable[..., Awaitable[float]]) -> Side:
    """A side on trio or curio: main(module, count) under the module's run()."""

    def enter(stack: contextlib.ExitStack, count: int) -> Round:
        module = load(name)
        return lambda: module.run(main, module, count)

    return Side(name, enter)


def on_greenlets(name: str, main: Callable[..., float], kind: str = RIVAL) -> Side:
    """A side on gevent or greenlet: main(module, count), in this greenlet."""

    def enter(stack: contextlib.ExitStack, count: int) -> Round:
        module = load(name)
        return lambda: main(module, count)

    return Side(name, enter, CONTROL if name == "greenlet" else kind)


# -- C and Go --------------------------------------------------------------------------------------


@functools.cache
def library() -> ctypes.CDLL:
    """Return floor.c as a library: each of its functions returns ns, or -errno. Raises Missing."""
    found = ctypes.CDLL(str(compile_library(HERE / "floor.c")))
    for name in FLOORS:
        getattr(found, name).restype = ctypes.c_int64
    return found


FLOORS = (
    *("floor_register", "floor_take", "floor_poll", "floor_park", "floor_wake"),
    *("floor_trips", "floor_connect", "floor_malloc"),
)


def floor(name: str, *arguments: Any) -> int:
    """Call a function of the library; return its ns. Raises OSError."""
    ns = getattr(library(), name)(*arguments)
    if ns < 0:
        raise OSError(-ns, f"{name}: {os.strerror(-ns)}")
    return ns


def probe() -> Any:
    """Return the Cython module that reaches what Python does not. Raises Missing."""
    if importlib.util.find_spec("Cython") is None:
        raise Missing("Cython is not installed (pip install Cython)")
    return load_probe("_benchprobe")


def in_c(name: str, *arguments: int, maker: Maker | None = None, per: int = 1) -> Side:
    """The floor: name(*arguments, *made, count) of floor.c; *per* operations a count."""

    def enter(stack: contextlib.ExitStack, count: int) -> Round:
        library()
        made = () if maker is None else maker(stack)
        return lambda: floor(name, *arguments, *made, count) / count / per

    return Side("c", enter, FLOOR)


def in_go(operation: str, *arguments: int) -> Side:
    """A side in Go, GOMAXPROCS=1, on the same CPU: a process that does a round when it is told."""

    def enter(stack: contextlib.ExitStack, count: int) -> Round:
        program = compile_go(HERE / "rival.go")
        cpu = min(os.sched_getaffinity(0))
        child = stack.enter_context(running([str(program)], cpu, batch=True))

        def measure() -> float:
            child.tell(" ".join(map(str, (operation, count, *arguments))))
            return float(child.line(GO_SECONDS))

        return measure

    return Side("go", enter)
