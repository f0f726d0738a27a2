"""From raw points to rows and tables: medians over rounds, ratios within the round.

Called by bench/conftest.py and by bench/report.py. A result is what --micro-json writes.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from bench.macro.table import number

FORMAT = 1  # of the JSON
QUIET_PREEMPTIONS = 20  # a second: on a quiet machine there are next to none
BRIEF_WORDS = (0, 1, 5)  # columns of brief() that are no numbers

Result = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One side of one group; None where there is nothing to compare with.

    A ratio is the median over the rounds of the ratio within the round, so what all sides of a
    round have met with falls out.
    """

    side: str
    kind: str  # "ours", "floor", "rival" or "control"
    ns: float  # per operation, median
    spread: float  # (largest - smallest) / median
    to_floor: float | None
    to_best: float | None  # ns / that of the best rival


@dataclass(frozen=True)
class Table:
    """One group: its rows, the quickest first; who failed or was not there, with the reason."""

    name: str
    title: str
    unit: str
    floor: str | None
    best: str | None  # the rival with the least ns
    rows: tuple[Row, ...]
    missing: tuple[tuple[str, str], ...]


def tables(result: Result) -> list[Table]:
    """Return the tables of a result, in the order in which they were measured."""
    return [table(name, group) for name, group in result["groups"].items()]


def table(name: str, group: dict[str, Any]) -> Table:
    """Return the table of one group: sides, kinds, rounds in ns."""
    rounds: dict[str, list[float]] = group["ns"]
    kinds: dict[str, str] = group["kinds"]
    medians = {side: statistics.median(ns) for side, ns in rounds.items()}
    order = sorted(rounds, key=medians.__getitem__)
    floor = next((side for side in order if kinds[side] == "floor"), None)
    best = next((side for side in order if kinds[side] == "rival"), None)

    def beside(side: str, other: str | None) -> float | None:
        if other is None:
            return None
        return statistics.median(a / b for a, b in zip(rounds[side], rounds[other], strict=True))

    rows = tuple(
        Row(
            side,
            kinds[side],
            medians[side],
            (max(rounds[side]) - min(rounds[side])) / medians[side],
            beside(side, floor),
            beside(side, best),
        )
        for side in order
    )
    missing = tuple((group["skipped"] | group["errors"]).items())
    return Table(name, group["title"], group["unit"], floor, best, rows, missing)


def nanos(value: float) -> str:
    """Format ns with three digits that say something."""
    return number(value, 1 if value < 100 else 0)


def cells(found: Table) -> list[list[str]]:
    """Return the rows of one group, whoever wins, the head first."""
    head = [found.title, f"ns/{found.unit}", "spread"]
    head += [f"x {found.floor or 'floor'}", f"x {found.best or 'rival'}"]
    lines = [head]
    for r in found.rows:
        name = f"{r.side} (control)" if r.kind == "control" else r.side
        ratios = [number(r.to_floor, 2), number(r.to_best, 2)]
        lines.append([name, nanos(r.ns), f"{r.spread:.0%}", *ratios])
    return lines


def brief(found: list[Table]) -> list[list[str]]:
    """Return one line for each side of ours: what it is of the floor and of the best rival."""
    lines = [["group", "side", "ns", "floor ns", "x floor", "best rival", "ns", "x best"]]
    for t in found:
        by_side = {r.side: r for r in t.rows}
        floor = nanos(by_side[t.floor].ns) if t.floor else "-"
        best = nanos(by_side[t.best].ns) if t.best else "-"
        for r in t.rows:
            if r.kind == "ours":
                line = [t.title, r.side, nanos(r.ns), floor, number(r.to_floor, 2)]
                lines.append([*line, t.best or "-", best, number(r.to_best, 2)])
    return lines


def disturbed(result: Result) -> str | None:
    """Say so if others took the CPU away again and again, or None."""
    rates = [group["preempted_per_second"] for group in result["groups"].values()]
    if not rates or statistics.median(rates) < QUIET_PREEMPTIONS:
        return None
    return (
        f"the machine was not quiet: the sides were preempted {statistics.median(rates):,.0f} "
        "times a second (median); measure again"
    )


def missing(found: list[Table]) -> list[str]:
    """Say who is not in the tables: {reason: groups}, one line each."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for t in found:
        for side, why in t.missing:
            reasons.setdefault((side, why), []).append(t.name)
    return [f"{side}: {why} ({', '.join(names)})" for (side, why), names in reasons.items()]
