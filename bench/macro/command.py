"""What the commands share that run for long: their arguments, their progress, their end.

Called by the runners, bench.macro and bench.interference, and by bench/conftest.py, on their main
threads.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.macro import where
from bench.macro.build import Missing
from bench.macro.processes import Failed

QUIET_LOAD = 0.5  # load average from which the figures are others' too


class Refused(Exception):
    """The command line asks for what cannot be; the text says why."""


def chosen(text: str, there: dict[str, Any], what: str) -> list[Any]:
    """Return the values that a comma-separated list names. Raises Refused for an unknown one."""
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in there]
    if unknown or not names:
        missing = f"no {what} {', '.join(unknown)}" if names else f"no {what} is named"
        raise Refused(f"{missing}: there are {', '.join(there)}")
    return [there[name] for name in names]


def positive(kind: type) -> Any:
    """Return an argparse type: a finite *kind* above 0."""

    def parse(text: str) -> Any:
        value = kind(text)
        if not 0 < value < math.inf:
            raise ValueError(text)
        return value

    parse.__name__ = f"positive {kind.__name__}"
    return parse


def not_negative(text: str) -> float:
    """Parse a finite float of 0 or more, for argparse."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise ValueError(text)
    return value


not_negative.__name__ = "float of 0 or more"


def options(name: str, doc: str) -> argparse.ArgumentParser:
    """Return a parser for what both runners take; *doc* is the docstring of the module *name*."""
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=doc.partition("\n")[0])
    parser.add_argument("--rounds", type=positive(int), default=5)
    parser.add_argument(
        "--warmup",
        type=not_negative,
        default=0.2,
        metavar="SECONDS",
        help="before each (default: 0.2)",
    )
    parser.add_argument("--json", metavar="FILE", help="write all points and their origin")
    return parser


def status(name: str, measured: Callable[[], int]) -> int:
    """Return the exit status that measured() returns; exit with one line if it can measure nothing.

    It raises Refused, Missing or Failed then.
    """
    try:
        return measured()
    except (Refused, Missing, Failed) as why:
        sys.exit(f"{name}: {why}")


def tell_skipped(skipped: dict[str, str], **to: Any) -> None:
    """Print who is not measured, and why; *to* as for print()."""
    for name, reason in skipped.items():
        print(f"skipped: {name}: {reason}", **to)


def tell_all(*kinds: list[tuple[str, str]]) -> int:
    """Print what there is, a line for each name and title; return the exit status."""
    for name, title in (pair for kind in kinds for pair in kind):
        print(f"{name}  {title}".rstrip())
    return 0


def take(
    opts: argparse.Namespace,
    result: dict[str, Any],
    run: Callable[[], list[dict[str, Any]]],
    show: Callable[[dict[str, Any]], None],
) -> int:
    """Add origin and points to *result*, show it and keep it; return the exit status.

    run() measures the points and raises Failed if it can measure none.
    """
    if opts.json:
        keep(opts.json, None)  # what cannot be written is found out now
    warn()
    end_at_once()
    result |= where.origin()
    result["points"] = run()
    result["load_average_after"] = round(os.getloadavg()[0], 2)
    if opts.json:
        keep(opts.json, result)
    show(result)
    return 1 if any("error" in p for p in result["points"]) else 0


def keep(name: str, result: dict[str, Any] | None) -> None:
    """Write *result* to a file; None: only see whether that can be. Raises Refused."""
    path = Path(name).resolve()  # the file, where a link leads to it
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if result is None:
            new = not path.exists()
            path.open("a").close()
            if new:
                path.unlink()  # a run that is ended leaves nothing
        else:
            path.write_text(packed(result), encoding="utf-8")
    except OSError as exc:
        raise Refused(exc) from None


def packed(result: dict[str, Any]) -> str:
    """Return *result* as JSON, with a line for each point if it has points."""
    if "points" not in result:
        return json.dumps(result, indent=1) + "\n"
    head = json.dumps(result | {"points": []}, indent=1)
    points = ",\n".join(f"  {json.dumps(point)}" for point in result["points"])
    return head.replace('"points": []', f'"points": [\n{points}\n ]', 1) + "\n"


def warn() -> None:
    """Say so if gopoll is another than this tree's, or the machine busy before all has begun."""
    if name := where.other_build():
        told = f"the gopoll that is installed is not this tree's: {name} differs (pip install .)"
        print(told, file=sys.stderr)
    if os.getloadavg()[0] > QUIET_LOAD:
        print(f"the machine is not quiet: load average {os.getloadavg()[0]:.2f}", file=sys.stderr)


def end_at_once() -> None:
    """Have SIGTERM and SIGINT end the run wherever they come; the kernel ends the children.

    What is interrupted in a child's start or end may hang otherwise.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os._exit(128 + number))


class Progress:
    """What is going on, on stderr: one line a point."""

    def __init__(self, points: int) -> None:
        self._points, self._done, self._began = points, 0, time.monotonic()

    def say(self, round_: int, text: str) -> None:
        """Count a point of a round and print what was found."""
        self._done += 1
        spent = time.monotonic() - self._began
        left = spent / self._done * (self._points - self._done)
        print(
            f"[{self._done}/{self._points}, {left / 60:.0f} min left] round {round_}, {text}",
            file=sys.stderr,
            flush=True,
        )
