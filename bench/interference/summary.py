"""From raw points to the rows of tables: medians over rounds, and ratios within the round.

Called by the runner and by bench/report.py. A point is a dict with cpus, round, beside, server, and
either the figures of both loops or "error".
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.interference.point import DISTURBANCES
from bench.macro.rivals import TLS
from bench.macro.summary import Broken
from bench.macro.table import number

Point = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One server beside one disturbance; None where there is nothing to compare with.

    Times are milliseconds, of the open loop. A ratio is the median over the rounds of that within
    the round.
    """

    server: str
    per_second: float  # of the closed loop
    kept: float | None  # of the rate of the same server undisturbed
    ours: float | None  # the rate of gopoll / this one
    p50: float
    p99: float
    p999: float
    times: float | None  # p99 / that of the same server undisturbed
    unanswered: float  # messages of the open loop, patience seconds after its end; latencies are
    # lower bounds then
    hog: float | None  # the share of a CPU that the hog was given beside the closed loop
    errors: tuple[str, ...]  # of the rounds that failed


def rows(points: Iterable[Point], cpus: str, beside: str, *, tls: bool) -> list[Row | Broken]:
    """Return the rows of one table, the least p99 first, what failed last."""
    here = [p for p in points if p["cpus"] == cpus and (p["server"] in TLS) is tls]
    errors: dict[str, list[str]] = {}
    found: dict[tuple[str, str], dict[int, Point]] = {}
    for p in here:
        if p["beside"] == beside:
            errors.setdefault(p["server"], []).extend([p["error"]] if "error" in p else [])
        if "error" not in p:
            found.setdefault((p["server"], p["beside"]), {})[p["round"]] = p
    good = [row(s, beside, found, errors[s]) for s in errors if (s, beside) in found]
    bad = [Broken(s, tuple(said)) for s, said in errors.items() if (s, beside) not in found]
    return [*sorted(good, key=lambda r: r.p99), *bad]


def row(server, beside, found, errors) -> Row:
    mine = found[server, beside]
    alone = found.get((server, "none"), {})
    ours = found.get(("gopoll-tls" if server in TLS else "gopoll", beside), {})

    def median(loop: str, key: str) -> float:
        return statistics.median(p[loop][key] for p in mine.values())

    def ratio(
        loop: str, key: str, other: dict[int, Point], f: Callable[[float, float], float]
    ) -> float | None:
        both = [f(p[loop][key], other[n][loop][key]) for n, p in mine.items() if n in other]
        return statistics.median(both) if both else None

    hog = all("hog_share" in p["closed"] for p in mine.values())
    return Row(
        server=server,
        per_second=median("closed", "per_second"),
        kept=ratio("closed", "per_second", alone, lambda a, b: a / b),
        ours=ratio("closed", "per_second", ours, lambda a, b: b / a),
        p50=median("open", "p50_us") / 1e3,
        p99=median("open", "p99_us") / 1e3,
        p999=median("open", "p99.9_us") / 1e3,
        times=ratio("open", "p99_us", alone, lambda a, b: a / b),
        unanswered=median("open", "unanswered"),
        hog=median("closed", "hog_share") if hog else None,
        errors=tuple(errors),
    )


def ms(value: float) -> str:
    """Format milliseconds."""
    return number(value, 2 if value < 10 else 1 if value < 100 else 0)


COLUMNS: list[tuple[str, Callable[[Row], str]]] = [
    ("msgs/s", lambda r: number(r.per_second, 0)),
    ("kept", lambda r: number(r.kept, 2)),
    ("gopoll x", lambda r: number(r.ours, 2)),
    ("p50 ms", lambda r: ms(r.p50)),
    ("p99 ms", lambda r: ms(r.p99)),
    ("p99.9 ms", lambda r: ms(r.p999)),
    ("p99 x none", lambda r: number(r.times, 1)),
]
UNANSWERED = ("unanswered", lambda r: number(r.unanswered, 0))
HOG = ("hog's CPU", lambda r: "-" if r.hog is None else f"{r.hog:.0%}")


def cells(found: Sequence[Row | Broken]) -> list[list[str]]:
    """Return the head and the body of a table; who failed in all rounds has no figures."""
    good = [r for r in found if isinstance(r, Row)]
    columns = list(COLUMNS)
    if any(r.unanswered for r in good):
        columns.append(UNANSWERED)
    if any(r.hog is not None for r in good):
        columns.append(HOG)
    body = [
        [r.server, *("failed" if isinstance(r, Broken) else f(r) for _, f in columns)]
        for r in found
    ]
    return [["server", *(name for name, _ in columns)], *body]


def tables(result: dict[str, Any]) -> list[tuple[str, list[Row | Broken]]]:
    """Return (title, rows) of every table of a result that has rows."""
    made = []
    for cpus in result["options"]["cpus"]:
        where = "server and load on one CPU" if cpus == "one" else "a CPU for each"
        for name in result["options"]["beside"]:
            for tls in (False, True):
                if found := rows(result["points"], cpus, name, tls=tls):
                    over = ", over TLS" if tls else ""
                    made.append((f"{name}{over}: {DISTURBANCES[name].title}; {where}", found))
    return made
