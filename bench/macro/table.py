"""Rows as text, for a terminal and for Markdown.

Called by the runners, by bench/report.py and by bench/conftest.py; cells() is for rows of
bench.macro.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.macro.summary import Broken, Row


def number(value: float | None, digits: int) -> str:
    """Format a figure; "-" where there is none."""
    return "-" if value is None else f"{value:,.{digits}f}"


def micros(value: float) -> str:
    """Format microseconds with three digits that say something."""
    return number(value, 2 if value < 100 else 0)


COLUMNS: list[tuple[str, Callable[[Row], str]]] = [
    ("CPU us", lambda r: micros(r.cpu)),
    ("spread", lambda r: "-" if r.spread is None else f"{r.spread:.0%}"),
    ("x c-et", lambda r: number(r.to_floor, 2)),
    ("±", lambda r: "-" if r.to_floor_spread is None else f"{r.to_floor_spread / 2:.2f}"),
    ("x uvloop", lambda r: number(r.to_protocol, 2)),
    ("+us c-et", lambda r: "-" if r.over_floor is None else f"{r.over_floor:+.2f}"),
    ("msgs/s", lambda r: number(r.per_second, 0)),
    ("p50 us", lambda r: micros(r.p50)),
    ("p99 us", lambda r: micros(r.p99)),
    ("p99.9 us", lambda r: micros(r.p999)),
    ("RSS MiB", lambda r: number(r.rss / 2**20, 1)),
]

IDLE_COLUMNS: list[tuple[str, Callable[[Row], str]]] = [
    ("B/idle conn", lambda r: number(r.rss_per_idle, 0)),
    ("rate kept", lambda r: number(r.kept, 2)),
]


def cells(rows: Sequence[Row | Broken]) -> list[list[str]]:
    """Return the head and the body of a table; who failed in all rounds has no figures."""
    columns = list(COLUMNS)
    if any(isinstance(r, Row) and r.rss_per_idle is not None for r in rows):
        columns += IDLE_COLUMNS
    body = [
        [r.server, *(("failed" if isinstance(r, Broken) else f(r)) for _, f in columns)]
        for r in rows
    ]
    return [["server", *(name for name, _ in columns)], *body]


def failures(rows: Sequence[Row | Broken]) -> list[str]:
    """Say who failed, how often, and the first reason."""
    return [f"{r.server}: {len(r.errors)} failed: {r.errors[0]}" for r in rows if r.errors]


def text(rows: Sequence[Row | Broken]) -> str:
    """Return a table for a terminal."""
    return aligned(cells(rows))


def aligned(lines: Sequence[Sequence[str]], words: Sequence[int] = (0,)) -> str:
    """Return a head and a body of cells in columns, *words* to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if n in words else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown(lines: Sequence[Sequence[str]], words: Sequence[int] = (0,)) -> str:
    """Return a table in Markdown: a head and a body of cells, *words* left, numbers right."""
    head, *body = lines
    rule = ["---" if n in words else "---:" for n in range(len(head))]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *body])
