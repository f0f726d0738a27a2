"""Bars as SVG: a panel a workload or group, a bar a server or side. No library is needed.

Called by report.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

BAR, GAP, LEFT, RIGHT, HEAD, FOOT = 14, 4, 170, 90, 34, 12  # pixels
WIDTH = 860
OURS, CONTROL, RIVAL, BELOW = "#c2410c", "#9ca3af", "#2563eb", "#d1d5db"


@dataclass(frozen=True)
class Bar:
    """A server or side: *value* in all, of which *floor* is what the floor costs too."""

    name: str
    value: float
    floor: float
    label: str
    kind: str  # "ours", "control" or "rival"


@dataclass(frozen=True)
class Panel:
    """The servers under one workload, the sides of one group."""

    title: str
    bars: Sequence[Bar]


COLOURS = {"ours": OURS, "control": CONTROL, "rival": RIVAL}


def draw(title: str, note: str, panels: Sequence[Panel]) -> str:
    """Return an SVG document. Each panel has its own scale, from 0."""
    y, body = 58, []
    for panel in panels:
        body += panel_lines(panel, y)
        y += HEAD + len(panel.bars) * (BAR + GAP) + FOOT
    size = f'viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}"'
    name = f'role="img" aria-label={quoteattr(title)}'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" {name}>',
        f'<rect width="{WIDTH}" height="{y}" fill="#ffffff"/>',
        text(16, 24, title, size=16, weight="bold"),
        text(16, 44, note, colour="#4b5563"),
    ]
    return "\n".join([*head, *body, "</svg>", ""])


def panel_lines(panel: Panel, top: int) -> list[str]:
    """Return the elements of one panel: a title, and for each bar a name, a floor, the rest."""
    most = max((bar.value for bar in panel.bars), default=1.0)
    scale = (WIDTH - LEFT - RIGHT) / most
    lines = [text(16, top + 20, panel.title, size=13, weight="bold")]
    for n, bar in enumerate(panel.bars):
        y = top + HEAD + n * (BAR + GAP)
        floor, whole = min(bar.floor, bar.value) * scale, bar.value * scale
        weight = "bold" if bar.kind == "ours" else "normal"
        lines += [
            f'<g class="bar"><title>{escape(f"{bar.name}: {bar.label}")}</title>',
            text(LEFT - 8, y + 11, bar.name, anchor="end", weight=weight),
            rect(LEFT, y, floor, BELOW),
            rect(LEFT + floor, y, whole - floor, COLOURS[bar.kind]),
            text(LEFT + whole + 6, y + 11, bar.label, weight=weight) + "</g>",
        ]
    return lines


def rect(x: float, y: float, width: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>'


def text(
    x: float,
    y: float,
    words: str,
    *,
    size: int = 12,
    weight: str = "normal",
    anchor: str = "start",
    colour: str = "#111827",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y}" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'
    )
