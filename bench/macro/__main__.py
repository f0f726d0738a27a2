"""Echo servers of gopoll and of its rivals, measured beside each other: python -m bench.macro.

Run by hand from the top of the tree, on a quiet machine, with the extra [bench]. Server and load
share one CPU under SCHED_BATCH (--cpus two: one each), each point has a fresh server, and within a
round all servers take turns. What the figures mean: docs/benchmarks.md. The status is 1 if a point
failed or nothing could be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from bench.macro import measure, rivals, table, where
from bench.macro.build import Missing, compile_c
from bench.macro.processes import Failed
from bench.macro.summary import Point, rows
from bench.macro.workloads import WORKLOADS

FORMAT = 1  # of the JSON: bench/report.py reads it


def chosen(text: str, there: dict[str, Any], what: str) -> list[Any]:
    """Return the values that a comma-separated list names; end the run for an unknown one."""
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in there]
    if unknown or not names:
        sys.exit(f"bench.macro: no {what} {', '.join(unknown)}: there are {', '.join(there)}")
    return [there[name] for name in names]


def positive(kind: type) -> Any:
    """Return an argparse type: *kind* above 0."""

    def parse(text: str) -> Any:
        value = kind(text)
        if not value > 0:
            raise ValueError(text)
        return value

    parse.__name__ = f"positive {kind.__name__}"
    return parse


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.macro", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--workloads", default=",".join(WORKLOADS), metavar="A,B", help="default: %(default)s"
    )
    parser.add_argument(
        "--servers",
        default=",".join(rivals.ALL),
        metavar="A,B",
        help="default: all; --list names them",
    )
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="a server of your own: a command that prints its port and listens on 127.0.0.1",
    )
    parser.add_argument("--rounds", type=positive(int), default=5)
    parser.add_argument(
        "--seconds",
        type=positive(float),
        default=1.0,
        help="that are measured, for each point (default: 1)",
    )
    parser.add_argument(
        "--warmup", type=float, default=0.2, metavar="SECONDS", help="before that (default: 0.2)"
    )
    parser.add_argument(
        "--cpus",
        choices=("one", "two", "both"),
        default="one",
        help="for server and load together (default: one)",
    )
    parser.add_argument(
        "--patience",
        type=positive(float),
        default=measure.PATIENCE_SECONDS,
        metavar="SECONDS",
        help="for one answer (default: 10)",
    )
    parser.add_argument("--json", metavar="FILE", help="write all points and their origin")
    parser.add_argument(
        "--list", action="store_true", help="list workloads and servers, and what is missing"
    )
    return parser.parse_args()


QUIET_LOAD = 0.5  # load average from which the figures are others' too
QUIET_PREEMPTIONS = 100  # a second: on one CPU neither server nor load preempts the other


def disturbed(points: list[Point]) -> str | None:
    """Say so if servers on one CPU were preempted by others, or None."""
    rates = [
        p["preemptions"] / p["seconds"] for p in points if p["cpus"] == "one" and "error" not in p
    ]
    if not rates or statistics.median(rates) < QUIET_PREEMPTIONS:
        return None
    return (
        f"the machine was not quiet: servers were preempted {statistics.median(rates):,.0f} times "
        "a second (median); measure again"
    )


class Progress:
    """What is going on, on stderr: one line a point."""

    def __init__(self, points: int) -> None:
        self._points, self._done, self._began = points, 0, time.monotonic()

    def say(self, point: Point) -> None:
        self._done += 1
        spent = time.monotonic() - self._began
        left = spent / self._done * (self._points - self._done)
        if "error" in point:
            found = f"failed: {point['error']}"
        else:
            found = f"{point['cpu_us']:.2f} us, {point['per_second']:,.0f}/s"
        print(
            f"[{self._done}/{self._points}, {left / 60:.0f} min left] round {point['round']}, "
            f"{point['cpus']} cpu, {point['workload']}, {point['server']}: {found}",
            file=sys.stderr,
            flush=True,
        )


def run(opts, workloads, commands, load) -> list[Point]:
    """Measure all points: in each round, each workload, each server; another one first each time.

    Raises Failed if the machine has no two CPUs for --cpus two.
    """
    limit = measure.fd_limit()
    settings = {name: measure.places(name) for name in cpus_of(opts)}
    names = list(commands)
    points: list[Point] = []
    progress = Progress(opts.rounds * len(settings) * len(workloads) * len(names))
    for n in range(opts.rounds):
        for cpus, place in settings.items():
            for workload in workloads:
                for server in names[n % len(names) :] + names[: n % len(names)]:
                    what = {"cpus": cpus, "round": n + 1, "workload": workload.name}
                    what["server"] = server
                    try:
                        what |= measure.point(
                            commands[server],
                            workload,
                            place,
                            load,
                            seconds=opts.seconds,
                            warmup=opts.warmup,
                            limit=limit,
                            patience=opts.patience,
                        )
                    except Failed as failed:
                        what["error"] = str(failed)
                    points.append(what)
                    progress.say(what)
    return points


def cpus_of(opts) -> tuple[str, ...]:
    return ("one", "two") if opts.cpus == "both" else (opts.cpus,)


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    settings = result["options"]
    for cpus in settings["cpus"]:
        for name in settings["workloads"]:
            found = rows(result["points"], cpus, name)
            where_ = "one CPU, SCHED_BATCH" if cpus == "one" else "two CPUs"
            print(f"\n{name}: {WORKLOADS[name].title}; {where_}; {settings['rounds']} rounds")
            print(table.text(found))
            for line in table.failures(found):
                print(line)
    for name, reason in result["skipped"].items():
        print(f"skipped: {name}: {reason}")
    if noise := disturbed(result["points"]):
        print(noise)


def keep(name: str, result: dict[str, Any] | None) -> None:
    """Write *result* to a file; None: only make its folder, and end the run where that fails."""
    path = Path(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if result is None:
            path.open("a").close()
        else:
            path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    except OSError as exc:
        sys.exit(f"bench.macro: {exc}")


def main() -> int:
    """Measure, print, write; return the exit status."""
    opts = options()
    workloads = chosen(opts.workloads, WORKLOADS, "workload")
    servers = chosen(opts.servers, rivals.ALL, "server")
    try:
        servers += [rivals.own(text) for text in opts.also]
    except ValueError as exc:
        sys.exit(f"bench.macro: --also: {exc}")
    refused = where.refusal()
    if refused:
        sys.exit(f"bench.macro: {refused}")
    try:
        load = str(compile_c("load"))
    except Missing as missing:
        sys.exit(f"bench.macro: {missing}")
    commands, skipped = rivals.ready(servers)
    limit = measure.fd_limit()
    skipped |= {w.name: why for w in workloads if (why := measure.why_not(w, limit))}
    workloads = [w for w in workloads if w.name not in skipped]
    for name, reason in skipped.items():
        print(f"skipped: {name}: {reason}", file=sys.stderr)
    if opts.list:
        for name, title in [(w.name, w.title) for w in workloads] + [(c, "") for c in commands]:
            print(f"{name}  {title}".rstrip())
        return 0
    if not workloads or not commands:
        sys.exit("bench.macro: nothing is left to be measured")
    if opts.json:
        keep(opts.json, None)  # what cannot be written is found out now
    if os.getloadavg()[0] > QUIET_LOAD:
        print(f"the machine is not quiet: load average {os.getloadavg()[0]:.2f}", file=sys.stderr)
    # At once, wherever it comes: what is interrupted in a child's start or end may hang. The kernel
    # ends the children.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os._exit(128 + number))
    result = {"suite": "macro", "format": FORMAT, **where.origin()}
    result["options"] = {
        "rounds": opts.rounds,
        "seconds": opts.seconds,
        "warmup": opts.warmup,
        "cpus": list(cpus_of(opts)),
        "workloads": [w.name for w in workloads],
        "servers": list(commands),
    }
    result["skipped"] = skipped
    try:
        result["points"] = run(opts, workloads, commands, load)
    except Failed as failed:
        sys.exit(f"bench.macro: {failed}")
    result["load_average_after"] = round(os.getloadavg()[0], 2)
    show(result)
    if opts.json:
        keep(opts.json, result)
    return 1 if any("error" in p for p in result["points"]) else 0


if __name__ == "__main__":
    sys.exit(main())
