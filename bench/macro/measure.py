"""Measure one point: a fresh server, a load, and what the server's CPU clock says meanwhile.

Called by the runner, on its main thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
from dataclasses import dataclass
from typing import Any

from bench.macro.processes import START_SECONDS, Failed, Process, rss_bytes, running
from bench.macro.workloads import Workload

SPARE_FDS = 64  # what a process has open besides its connections
SET_UP_SECONDS = 120  # for opening 10,000 connections, slowly
PATIENCE_SECONDS = 10  # for one answer
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


def why_not(workload: Workload, limit: int) -> str | None:
    """Say why this machine cannot do *workload*, or None."""
    wanted = workload.connections + workload.idle + SPARE_FDS
    if wanted > limit:
        return f"{wanted} descriptors are wanted and the limit is {limit} (raise RLIMIT_NOFILE)"
    return None


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


def point(
    server: list[str],
    workload: Workload,
    place: Place,
    load: str,
    *,
    seconds: float,
    warmup: float,
    limit: int,
    patience: float = PATIENCE_SECONDS,
) -> dict[str, Any]:
    """Measure *server*, a command, once; return the figures. Raises Failed."""
    with contextlib.ExitStack() as stack:
        echo = stack.enter_context(running(server, place.server, batch=place.batch))
        try:
            port = int(echo.line(START_SECONDS))
        except ValueError:
            raise Failed("the server did not print its port") from None
        empty = rss_bytes(echo.pid)
        command = [*arguments(load, port, workload), "--wait", "--patience", str(patience)]
        command += ["--seconds", str(seconds), "--warmup", str(warmup)]
        command += ["--server-pid", str(echo.pid)]
        first = stack.enter_context(running(command, place.load, batch=place.batch))
        answer(first, echo, SET_UP_SECONDS)
        active = rss_bytes(echo.pid)
        for n, held in enumerate(holders(workload.idle, limit)):
            command = [load, "--port", str(port), "--connections", str(held), "--hold"]
            command += ["--source", str(n + 1), "--patience", str(patience)]
            holder = stack.enter_context(running(command, place.load, batch=place.batch))
            answer(holder, echo, SET_UP_SECONDS)
        full = rss_bytes(echo.pid)
        first.tell("go")
        found = answer(first, echo, seconds + warmup + 2 * patience)
        found |= {"rss_empty": empty, "rss_connected": full, "rss_end": rss_bytes(echo.pid)}
        if workload.idle:
            found["rss_per_idle"] = (full - active) / workload.idle
        if echo.has_ended():
            raise Failed(f"the server has ended: {echo.obituary()}")
        return figures(found)


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
