"""Measure fresh servers, each with a load: what the server's CPU clock says meanwhile.

Called by the runner, on its main thread.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import resource
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.macro.processes import START_SECONDS, Failed, Process, rss_bytes, running
from bench.macro.workloads import Workload

SPARE_FDS = 64  # what a process has open besides its connections
SET_UP_SECONDS = 120  # for opening 10,000 connections, slowly
PATIENCE_SECONDS = 10  # for one answer
IDLE_BYTES = 20_000  # of an idle connection: both ends in the kernel, and what a server keeps
CHURN_SOURCES = 32  # addresses: closed connections keep their ports for a minute


@dataclass(frozen=True)
class Place:
    """Where server and load run."""

    server: int  # CPU
    load: int  # CPU
    batch: bool  # SCHED_BATCH: neither preempts the other at a wake-up


def places(cpus: str) -> Place:
    """Return the place that *cpus* says: "one", or "two". Raises Failed if there is but one."""
    there = sorted(os.sched_getaffinity(0))
    if cpus == "one":
        return Place(there[0], there[0], True)
    if len(there) < 2:
        raise Failed("two CPUs are wanted, and this process may use but one")
    return Place(there[0], there[1], False)


def fd_limit() -> int:
    """Raise the limit of descriptors as far as it goes, for the children too; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 20


def why_not(workload: Workload, limit: int, servers: int = 1) -> str | None:
    """Say why this machine cannot do *workload* with so many servers at once, or None."""
    wanted = workload.connections + workload.idle + SPARE_FDS
    if wanted > limit:
        return f"{wanted} descriptors are wanted and the limit is {limit} (raise RLIMIT_NOFILE)"
    memory, there = servers * workload.idle * IDLE_BYTES, available_bytes()
    if memory > there:
        return (
            f"{servers} servers with {workload.idle} idle connections each want {memory >> 20} MiB "
            f"and {there >> 20} are available (name fewer with --servers)"
        )
    return None


def available_bytes() -> int:
    """Return the memory that processes may still take."""
    with open("/proc/meminfo", encoding="ascii") as file:
        (kib,) = (line.split()[1] for line in file if line.startswith("MemAvailable:"))
    return int(kib) * 1024


def holders(idle: int, limit: int) -> list[int]:
    """Return how many idle connections each of the further load processes holds."""
    most = limit - SPARE_FDS
    return [min(most, idle - at) for at in range(0, idle, most)]


def arguments(load: str, port: int, workload: Workload) -> list[str]:
    """Return the command of the load that measures, as far as the workload says it."""
    command = [load, "--port", str(port), "--size", str(workload.size)]
    command += ["--connections", str(workload.connections), "--depth", str(workload.depth)]
    if workload.churn:
        command += ["--churn", "--sources", str(CHURN_SOURCES)]
    return command


class Contestant:
    """A fresh server with its connections open, whose window is measured slice by slice."""

    def __init__(self, server: list[str], workload: Workload, contest: Contest) -> None:
        """Start *server*, a command, and open the connections. Raises Failed, with all ended."""
        self._stack = contextlib.ExitStack()
        self._contest = contest
        self._slice: dict[str, Any] = {}
        try:
            self._open(server, workload)
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        """End its processes."""
        self._stack.close()

    def _open(self, server: list[str], workload: Workload) -> None:
        contest, place = self._contest, self._contest.place
        self._echo = self._stack.enter_context(running(server, place.server, batch=place.batch))
        try:
            port = int(self._echo.line(START_SECONDS))
        except ValueError:
            raise Failed("the server did not print its port") from None
        self._memory = {"rss_empty": rss_bytes(self._echo.pid)}
        patience = ["--patience", str(contest.patience)]
        command = [*arguments(contest.load, port, workload), "--wait", *patience]
        command += ["--seconds", str(contest.seconds), "--warmup", str(contest.warmup)]
        command += ["--slices", str(contest.slices), "--server-pid", str(self._echo.pid)]
        self._load = self._start_load(command)
        active = rss_bytes(self._echo.pid)
        for n, held in enumerate(holders(workload.idle, contest.limit)):
            command = [contest.load, "--port", str(port), "--connections", str(held), "--hold"]
            self._start_load([*command, "--source", str(n + 1), *patience])
        full = rss_bytes(self._echo.pid)
        self._memory["rss_connected"] = full
        if workload.idle:
            self._memory["rss_per_idle"] = (full - active) / workload.idle

    def _start_load(self, command: list[str]) -> Process:
        place = self._contest.place
        load = self._stack.enter_context(running(command, place.load, batch=place.batch))
        answer(load, self._echo, SET_UP_SECONDS)
        return load

    def take_slice(self) -> None:
        """Measure the next slice. Raises Failed."""
        self._load.tell("go")
        self._slice = self._answer()

    def figures(self) -> dict[str, Any]:
        """Return what all slices have come to. Raises Failed."""
        found = self._answer() if self._contest.slices > 1 else self._slice
        found |= self._memory | {"rss_end": rss_bytes(self._echo.pid)}
        if self._echo.has_ended():
            raise Failed(f"the server has ended: {self._echo.obituary()}")
        return figures(found)

    def _answer(self) -> dict[str, Any]:
        contest = self._contest
        long = contest.seconds + contest.warmup + 2 * contest.patience
        return answer(self._load, self._echo, long)


@dataclass(frozen=True)
class Contest:
    """How the servers of a round are measured under one workload, beside each other.

    All stand there with their connections open, and take slices in turn, in an order that changes:
    what the machine does meanwhile it does to all, where whole windows would be seconds apart.
    """

    place: Place
    load: str
    seconds: float  # that are measured, of each
    warmup: float
    slices: int
    limit: int  # of descriptors
    patience: float = PATIENCE_SECONDS

    def run(self, servers: dict[str, list[str]], workload: Workload) -> dict[str, dict[str, Any]]:
        """Measure the *servers*, {name: command}; return the figures of each, or its "error"."""
        found: dict[str, dict[str, Any]] = {}
        with contextlib.ExitStack() as stack:
            there: dict[str, Contestant] = {}

            def attempt(name: str, step: Callable[[], Any]) -> Any:
                try:
                    return step()
                except Failed as failed:
                    found[name] = {"error": str(failed)}
                    if name in there:
                        there.pop(name).close()  # what is left of it is in nobody's way

            def enter(name: str) -> None:
                there[name] = Contestant(servers[name], workload, self)
                stack.callback(there[name].close)

            for name in servers:
                attempt(name, functools.partial(enter, name))
            dice = random.Random(workload.name)  # the same orders in every run
            for _ in range(self.slices):
                for name in dice.sample(list(there), len(there)):
                    attempt(name, there[name].take_slice)
            for name in list(there):
                found[name] = attempt(name, there[name].figures) or found[name]
        return {name: found[name] for name in servers}


def answer(process: Process, server: Process, seconds: float) -> dict[str, Any]:
    """Return what a load says next; if it fails, say what the server has to say too."""
    try:
        return json.loads(process.line(seconds))
    except Failed as failed:
        if server.has_ended(1):  # a process that dies closes its connections first
            raise Failed(f"the server is dead: {server.obituary()}; {failed}") from None
        raise


def figures(found: dict[str, Any]) -> dict[str, Any]:
    """Add what follows from what the load has counted."""
    messages = found["messages"]
    found["cpu_us"] = found["server_cpu_seconds"] * 1e6 / messages
    found["load_cpu_us"] = found["load_cpu_seconds"] * 1e6 / messages
    found["per_second"] = messages / found["seconds"]
    return found
