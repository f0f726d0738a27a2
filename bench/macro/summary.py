"""From raw points to rows: medians over rounds, and ratios within the round and slice.

Called by the runner and by bench/report.py. A point is a dict with cpus, round, workload, server,
and either the figures or "error".
"""

from __future__ import annotations

import operator
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bench.macro.rivals import FLOOR, PROTOCOL

Point = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One server under one workload; None where there is nothing to compare with.

    Times are microseconds. A ratio or difference is the median, over the slices of all rounds, of
    that within the slice, so what all servers have met with falls out.
    """

    server: str
    rounds: int
    cpu: float
    spread: float  # (largest - smallest) / median of the rounds' cpu
    to_floor: float | None  # cpu / that of c-et
    to_floor_spread: float | None  # (largest - smallest) of the rounds' to_floor
    to_protocol: float | None  # cpu / that of uvloop-proto
    over_floor: float | None  # cpu - that of c-et
    per_second: float
    p50: float
    p99: float
    p999: float
    rss: float  # bytes, at the end
    rss_per_idle: float | None  # bytes
    kept: float | None  # of the rate without the idle connections (a0)
    errors: tuple[str, ...]  # of the rounds that failed


@dataclass(frozen=True)
class Broken:
    """A server that has failed in every round."""

    server: str
    errors: tuple[str, ...]


def rows(points: Iterable[Point], cpus: str, workload: str) -> list[Row | Broken]:
    """Return the rows of one table, the least CPU first, what failed last."""
    here = [p for p in points if p["cpus"] == cpus]
    found: dict[str, dict[int, Point]] = {}
    errors: dict[str, list[str]] = {}
    for p in here:
        if p["workload"] == workload:
            errors.setdefault(p["server"], [])
            if "error" in p:
                errors[p["server"]].append(p["error"])
            else:
                found.setdefault(p["server"], {})[p["round"]] = p
    a0 = {(p["server"], p["round"]): p for p in here if p["workload"] == "a0" and "error" not in p}
    good = [row(server, found, a0, errors[server]) for server in found]
    bad = [Broken(server, tuple(said)) for server, said in errors.items() if server not in found]
    return [*sorted(good, key=lambda r: r.cpu), *bad]


def cpu_us(p: Point) -> list[float]:
    """Return the CPU per message of a point's slices; a point without any is one slice."""
    return [s[0] for s in p["slices"]] if "slices" in p else [p["cpu_us"]]


def per_second(p: Point) -> list[float]:
    return [s[1] for s in p["slices"]] if "slices" in p else [p["per_second"]]


def beside(
    mine: dict[int, Point],
    other: dict[int, Point],
    values: Callable[[Point], list[float]],
    f: Callable[[float, float], float],
) -> list[list[float]]:
    """Return, for each round in which both were measured, f() of their values slice by slice."""
    both = [(values(p), values(other[n])) for n, p in mine.items() if n in other]
    return [[f(a, b) for a, b in zip(*pair, strict=False)] for pair in both]


def middle(rounds: list[list[float]]) -> float | None:
    """Return the median over the slices of all rounds; None if there is none."""
    values = [value for values in rounds for value in values]
    return statistics.median(values) if values else None


def width(rounds: list[list[float]]) -> float | None:
    """Return the largest of the rounds' medians less the smallest; None if there is none."""
    medians = [statistics.median(values) for values in rounds]
    return max(medians) - min(medians) if medians else None


def row(server, found, a0, errors) -> Row:
    mine = found[server]

    def median(key: str) -> float:
        return statistics.median(p[key] for p in mine.values())

    floor, protocol = found.get(FLOOR, {}), found.get(PROTOCOL, {})
    cpu = [cpu_us(p) for p in mine.values()]
    to_floor = beside(mine, floor, cpu_us, operator.truediv)
    alone = {n: a0[server, n] for n in mine if (server, n) in a0}
    idle = all("rss_per_idle" in p for p in mine.values())
    return Row(
        server=server,
        rounds=len(mine),
        cpu=middle(cpu),
        spread=width(cpu) / middle(cpu),
        to_floor=middle(to_floor),
        to_floor_spread=None if server == FLOOR else width(to_floor),
        to_protocol=middle(beside(mine, protocol, cpu_us, operator.truediv)),
        over_floor=middle(beside(mine, floor, cpu_us, operator.sub)),
        per_second=middle([per_second(p) for p in mine.values()]),
        p50=median("p50_us"),
        p99=median("p99_us"),
        p999=median("p99.9_us"),
        rss=median("rss_end"),
        rss_per_idle=median("rss_per_idle") if idle else None,
        kept=middle(beside(mine, alone, per_second, operator.truediv)) if idle else None,
        errors=tuple(errors),
    )
