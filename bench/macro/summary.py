"""From raw points to rows: medians over rounds, and ratios within the round.

Called by the runner and by bench/report.py. A point is a dict with cpus, round, workload, server,
and either the figures or "error".
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bench.macro.rivals import FLOOR, PROTOCOL

Point = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One server under one workload; None where there is nothing to compare with.

    Times are microseconds. A ratio or difference is the median over the rounds of that within the
    round, so what all servers of a round have met with falls out.
    """

    server: str
    rounds: int
    cpu: float
    spread: float | None  # (largest - smallest) / median of cpu; None of one round
    to_floor: float | None  # cpu / that of c-et
    to_floor_spread: float | None  # (largest - smallest) of to_floor; None of one round
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


def width(values: list[float]) -> float | None:
    """Return the largest less the smallest; None of fewer than two, which say nothing of it."""
    return max(values) - min(values) if len(values) > 1 else None


def row(server, found, a0, errors) -> Row:
    mine = found[server]

    def median(key: str) -> float:
        return statistics.median(p[key] for p in mine.values())

    def each(other: dict[int, Point], f: Callable[[Point, Point], float]) -> list[float]:
        return [f(p, other[n]) for n, p in mine.items() if n in other]

    def beside(other: dict[int, Point], f: Callable[[Point, Point], float]) -> float | None:
        both = each(other, f)
        return statistics.median(both) if both else None

    def cost(p: Point, q: Point) -> float:
        return p["cpu_us"] / q["cpu_us"]

    floor, protocol = found.get(FLOOR, {}), found.get(PROTOCOL, {})
    cpu = [p["cpu_us"] for p in mine.values()]
    alone = {n: a0[server, n] for n in mine if (server, n) in a0}
    idle = all("rss_per_idle" in p for p in mine.values())
    return Row(
        server=server,
        rounds=len(mine),
        cpu=median("cpu_us"),
        spread=None if width(cpu) is None else width(cpu) / statistics.median(cpu),
        to_floor=beside(floor, cost),
        to_floor_spread=None if server == FLOOR else width(each(floor, cost)),
        to_protocol=beside(protocol, cost),
        over_floor=beside(floor, lambda p, q: p["cpu_us"] - q["cpu_us"]),
        per_second=median("per_second"),
        p50=median("p50_us"),
        p99=median("p99_us"),
        p999=median("p99.9_us"),
        rss=median("rss_end"),
        rss_per_idle=median("rss_per_idle") if idle else None,
        kept=beside(alone, lambda p, q: p["per_second"] / q["per_second"]) if idle else None,
        errors=tuple(errors),
    )
