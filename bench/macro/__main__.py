"""Echo servers of gopoll and of its rivals, measured beside each other: python -m bench.macro.

Run by hand from the top of the tree, on a quiet machine, with the extra [bench]. Server and load
share one CPU under SCHED_BATCH (--cpus two: one each), each round has fresh servers, and within it
all of them take turns, some 20 ms each. What the figures mean: docs/benchmarks.md. The status is 1
if a point failed or nothing could be measured.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Any

from bench.macro import command, measure, rivals, table, where
from bench.macro.build import compile_c
from bench.macro.command import Refused, chosen, positive
from bench.macro.summary import Point, rows
from bench.macro.workloads import WORKLOADS

FORMAT = 1  # of the JSON: bench/report.py reads it


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = command.options("bench.macro", __doc__)
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
    parser.add_argument(
        "--seconds",
        type=positive(float),
        default=1.0,
        help="that are measured, for each point (default: 1)",
    )
    parser.add_argument(
        "--slices",
        type=positive(int),
        default=50,
        help="of these seconds, in which all servers take turns (default: 50)",
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
    parser.add_argument(
        "--list", action="store_true", help="list workloads and servers, and what is missing"
    )
    return parser.parse_args()


SLICE_SECONDS = 0.002  # at least: a shorter one is hardly more than its warm-up
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


def told(point: Point) -> str:
    """Say what a point has found, for the progress."""
    what = f"{point['cpus']} cpu, {point['workload']}, {point['server']}"
    if "error" in point:
        return f"{what}: failed: {point['error']}"
    return f"{what}: {point['cpu_us']:.2f} us, {point['per_second']:,.0f}/s"


def run(opts, workloads, commands, load) -> list[Point]:
    """Measure all points: in each round and workload all servers beside each other.

    Raises Failed if the machine has no two CPUs for --cpus two.
    """
    limit = measure.fd_limit()
    settings = {name: measure.places(name) for name in cpus_of(opts)}
    points: list[Point] = []
    progress = command.Progress(opts.rounds * len(settings) * len(workloads) * len(commands))
    for n in range(opts.rounds):
        for cpus, place in settings.items():
            contest = measure.Contest(
                place, load, opts.seconds, opts.warmup, opts.slices, limit, opts.patience
            )
            for workload in workloads:
                for server, found in contest.run(commands, workload).items():
                    what = {"cpus": cpus, "round": n + 1, "workload": workload.name}
                    points.append(what | {"server": server} | found)
                    progress.say(n + 1, told(points[-1]))
    return points


def cpus_of(opts) -> tuple[str, ...]:
    return ("one", "two") if opts.cpus == "both" else (opts.cpus,)


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    settings = result["options"]
    for cpus in settings["cpus"]:
        for name in settings["workloads"]:
            lines = rows(result["points"], cpus, name)
            where_ = "one CPU, SCHED_BATCH" if cpus == "one" else "two CPUs"
            print(f"\n{name}: {WORKLOADS[name].title}; {where_}; {settings['rounds']} rounds")
            print(table.text(lines))
            for line in table.failures(lines):
                print(line)
    command.tell_skipped(result["skipped"])
    if noise := disturbed(result["points"]):
        print(noise)


def main() -> int:
    """Measure, print, write; return the exit status."""
    opts = options()
    return command.status("bench.macro", lambda: measured(opts))


def measured(opts) -> int:
    """Do as the command line says. Raises Refused, Missing or Failed if nothing can be measured."""
    workloads = chosen(opts.workloads, WORKLOADS, "workload")
    if opts.seconds / opts.slices < SLICE_SECONDS:
        raise Refused(f"a slice has {SLICE_SECONDS * 1e3:g} ms at least: fewer --slices")
    servers = chosen(opts.servers, rivals.ALL, "server")
    try:
        servers += [rivals.own(text) for text in opts.also]
    except ValueError as exc:
        raise Refused(f"--also: {exc}") from None
    names = [rival.name for rival in servers]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise Refused(f"{twice} is named twice")
    if refused := where.refusal():
        raise Refused(refused)
    load = str(compile_c("load"))
    commands, skipped = rivals.ready(servers)
    limit = measure.fd_limit()
    n = len(commands)
    skipped |= {w.name: why for w in workloads if (why := measure.why_not(w, limit, n))}
    workloads = [w for w in workloads if w.name not in skipped]
    command.tell_skipped(skipped, file=sys.stderr)
    if opts.list:
        return command.tell_all([(w.name, w.title) for w in workloads], [(c, "") for c in commands])
    if not workloads or not commands:
        raise Refused("nothing is left to be measured")
    result: dict[str, Any] = {"suite": "macro", "format": FORMAT, "skipped": skipped}
    result["options"] = {
        "rounds": opts.rounds,
        "seconds": opts.seconds,
        "slices": opts.slices,
        "warmup": opts.warmup,
        "cpus": list(cpus_of(opts)),
        "workloads": [w.name for w in workloads],
        "servers": list(commands),
    }
    return command.take(opts, result, lambda: run(opts, workloads, commands, load), show)


if __name__ == "__main__":
    sys.exit(main())
