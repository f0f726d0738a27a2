"""What echo servers keep of their rate and latency while something disturbs them.

Run by hand from the top of the tree, on a quiet machine, with the extra [bench]: python -m
bench.interference. Servers, load and origin of a result are those of bench.macro. Each point has a
fresh server, loaded by a closed loop, for the rate, and then by an open one, for latencies that
count from the time at which a message was due. Within a round all servers take turns, undisturbed
ones too. What the figures mean: docs/benchmarks.md. The status is 1 if a point failed or nothing
could be measured.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from bench.interference import summary
from bench.interference.point import ALL, DISTURBANCES, applies, point
from bench.macro import command, measure, rivals, table, where
from bench.macro.build import Missing, certificate, compile_c
from bench.macro.command import Refused, chosen, positive
from bench.macro.processes import Failed

FORMAT = 1  # of the JSON: bench/report.py reads it


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = command.options("bench.interference", __doc__)
    names = {"metavar": "A,B"}
    parser.add_argument(
        "--beside", default=",".join(DISTURBANCES), help="default: %(default)s", **names
    )
    parser.add_argument("--servers", default=",".join(ALL), help="default: %(default)s", **names)
    seconds = {"type": positive(float), "metavar": "SECONDS"}
    parser.add_argument(
        "--seconds", default=1.0, help="of the closed loop, for each point (default: 1)", **seconds
    )
    parser.add_argument(
        "--open-seconds", default=3.0, help="of the open loop (default: 3)", **seconds
    )
    parser.add_argument(
        "--cpus",
        choices=("one", "two"),
        default="two",
        help="for server and load together (default: two)",
    )
    parser.add_argument(
        "--patience",
        default=5.0,
        help="for one answer, and for all of the open loop's after its end (default: 5)",
        **seconds,
    )
    parser.add_argument(
        "--list", action="store_true", help="list servers and disturbances, and what is missing"
    )
    return parser.parse_args()


def found(what: dict[str, Any]) -> str:
    """Say what a point has found, for the progress."""
    who = f"{what['beside']}, {what['server']}"
    if "error" in what:
        return f"{who}: failed: {what['error']}"
    rate, p99 = what["closed"]["per_second"], what["open"]["p99_us"]
    return f"{who}: {rate:,.0f}/s, p99 {p99 / 1e3:,.2f} ms"


def run(opts, besides, commands, load) -> list[summary.Point]:
    """Measure all points, in rounds; another server is the first each time.

    Raises Failed if the machine has no two CPUs for --cpus two.
    """
    measure.fd_limit()
    place = measure.places(opts.cpus)
    pairs = [(d, server) for d in besides for server in commands if applies(server, d.name)]
    if not pairs:
        raise Refused("nothing is left to be measured")
    progress = command.Progress(opts.rounds * len(pairs))
    points = []
    for n in range(opts.rounds):
        for d in besides:
            servers = [server for disturbance, server in pairs if disturbance is d]
            at = n % max(1, len(servers))
            for server in servers[at:] + servers[:at]:
                what = {"cpus": opts.cpus, "round": n + 1, "beside": d.name, "server": server}
                try:
                    what |= point(
                        server,
                        commands[server],
                        d,
                        place,
                        load,
                        seconds=opts.seconds,
                        open_seconds=opts.open_seconds,
                        warmup=opts.warmup,
                        patience=opts.patience,
                    )
                except Failed as failed:
                    what["error"] = str(failed)
                points.append(what)
                progress.say(n + 1, found(what))
    return points


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    for title, rows in summary.tables(result):
        print(f"\n{title}; {result['options']['rounds']} rounds")
        print(table.aligned(summary.cells(rows)))
        for line in table.failures(rows):
            print(line)
    command.tell_skipped(result["skipped"])


def ready(servers) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return what rivals.ready() does; without a certificate nobody speaks TLS."""
    commands, skipped = rivals.ready(servers)
    try:
        if any(server.tls for server in servers):
            certificate()
    except Missing as missing:
        for name in [name for name in commands if ALL[name].tls]:
            del commands[name]
            skipped[name] = str(missing)
    return commands, skipped


def measured(opts) -> int:
    """Do as the command line says. Raises Refused, Missing or Failed if nothing can be measured."""
    besides = chosen(opts.beside, DISTURBANCES, "disturbance")
    servers = chosen(opts.servers, ALL, "server")
    if refused := where.refusal():
        raise Refused(refused)
    load = str(compile_c("load"))
    commands, skipped = ready(servers)
    command.tell_skipped(skipped, file=sys.stderr)
    if opts.list:
        return command.tell_all([(d.name, d.title) for d in besides], [(c, "") for c in commands])
    result: dict[str, Any] = {"suite": "interference", "format": FORMAT, "skipped": skipped}
    result["options"] = {
        "rounds": opts.rounds,
        "seconds": opts.seconds,
        "open_seconds": opts.open_seconds,
        "warmup": opts.warmup,
        "patience": opts.patience,
        "cpus": [opts.cpus],
        "beside": [d.name for d in besides],
        "servers": list(commands),
    }
    return command.take(opts, result, lambda: run(opts, besides, commands, load), show)


def main() -> int:
    """Measure, print, write; return the exit status."""
    opts = options()
    return command.status("bench.interference", lambda: measured(opts))


if __name__ == "__main__":
    sys.exit(main())
