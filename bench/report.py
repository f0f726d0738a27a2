"""Turn the committed results into the README's table, the tables of docs/benchmarks.md and plots.

Run by hand from the top of the tree after a result has been added: python -m bench.report. With
--check it writes nothing, and its status is 1 if something is not what the results say. Every
bench/results/*.json of bench.macro, bench.interference and bench/micro has its tables, in the order
of their names, the first of bench.macro in README.md too; everybody who was measured has a row, in
the order of what it costs, whoever wins.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from bench import plot
from bench.interference import summary as interference
from bench.macro import table
from bench.macro.rivals import CONTROLS
from bench.macro.summary import Broken, Row, rows
from bench.macro.workloads import WORKLOADS
from bench.micro import summary as micro

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
CPUS = {"one": "server and load on one CPU", "two": "a CPU for each"}

Result = dict[str, Any]


def results(folder: Path, suite: str = "macro") -> dict[str, Result]:
    """Return {name: result} of one suite, in the order of the names: echo, echo-313.

    Raises ValueError for one of another format, and for what is no JSON.
    """
    found = {}
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stem):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as exc:
            raise ValueError(f"{path.name}: no result: {exc}: measure again") from None
        if not isinstance(result, dict) or "suite" not in result:
            raise ValueError(f"{path.name}: no result of a suite: measure again")
        if result["suite"] != suite:
            continue
        if result.get("format") != 1:
            raise ValueError(f"{path.name}: format {result.get('format')} is not 1: measure again")
        found[path.stem] = result
    return found


def caption(result: Result) -> str:
    """Say where the figures come from."""
    machine, versions, options = result["machine"], result["versions"], result["options"]
    kind = "virtual machine" if machine["virtual"] else "machine"
    code = f"commit {result['commit'][:12]}" if result["commit"] else "no commit"
    if result["changed"]:
        code += " with changes"
    others = ", ".join(f"{k} {v}" for k, v in versions.items() if k not in ("python", "cc"))
    length = f" of {options['seconds']:g} s" if "seconds" in options else ""
    if "slices" in options:
        length += f" in {options['slices']} slices"
    return (
        f"{machine['cpu']}, a {kind} of {machine['cpus']} CPUs, Linux {machine['kernel']}; "
        f"{versions['python']}, {others}; medians of {options['rounds']} rounds{length}, "
        f"{result['taken'][:10]}, {code}."
    )


def brief(result: Result) -> str:
    """Return the README's table: CPU per message, and how many times c-et's, by workload."""
    cpus = result["options"]["cpus"][0]
    names = result["options"]["workloads"]
    by_name = {name: {r.server: r for r in rows(result["points"], cpus, name)} for name in names}
    order = [r.server for r in rows(result["points"], cpus, names[0])]
    lines = [["server", *(f"{name}: {WORKLOADS[name].title}" for name in names), "B/idle conn"]]
    for server in order:
        mine = [by_name[name].get(server) for name in names]
        idle = [r.rss_per_idle for r in mine if isinstance(r, Row) and r.rss_per_idle is not None]
        lines.append([server, *map(brief_cell, mine), table.number(idle[0], 0) if idle else "-"])
    return table.markdown(lines)


def brief_cell(r: Row | Broken | None) -> str:
    if not isinstance(r, Row):
        return "failed" if r else "-"
    ratio = "" if r.to_floor is None else f" ({r.to_floor:.2f})"
    return f"{table.micros(r.cpu)}{ratio}"


def full(result: Result) -> str:
    """Return all tables of one result."""
    parts = []
    for cpus in result["options"]["cpus"]:
        for name in result["options"]["workloads"]:
            found = rows(result["points"], cpus, name)
            parts.append(f"**{name}: {WORKLOADS[name].title}; {CPUS[cpus]}**")
            parts.append(table.markdown(table.cells(found)))
            parts += table.failures(found)
    parts += [f"Not measured: {name}: {why}." for name, why in result["skipped"].items()]
    return "\n\n".join(parts)


def picture(result: Result) -> str:
    """Return the plot of one result: CPU per message with the floor's share in grey."""
    panels = []
    cpus = result["options"]["cpus"][0]
    for name in result["options"]["workloads"]:
        good = [r for r in rows(result["points"], cpus, name) if isinstance(r, Row)]
        bars = [
            plot.Bar(
                r.server,
                r.cpu,
                r.cpu if r.over_floor is None else max(0.0, r.cpu - r.over_floor),
                f"{table.micros(r.cpu)} us",
                kind(r.server),
            )
            for r in good
        ]
        panels.append(plot.Panel(f"{name}: {WORKLOADS[name].title}", bars))
    title = "Server CPU per echoed message (e0: per connection)"
    grey = "grey: what the C server spends too; "
    where = f"{grey}{result['versions']['python']}, {CPUS[cpus]}, {result['taken'][:10]}"
    return plot.draw(title, where, panels)


def kind(server: str) -> str:
    if server.startswith("gopoll"):
        return "ours"
    return "control" if server in CONTROLS or server.startswith("c-") else "rival"


def operations(result: Result) -> str:
    """Return all tables of a result of the micro suite."""
    found = micro.tables(result)
    parts = [table.markdown(micro.brief(found), words=micro.BRIEF_WORDS)]
    parts += [table.markdown(micro.cells(t)) for t in found]
    if others := [
        (b, *f) for b, figures in result.get("others", {}).items() for f in figures.items()
    ]:
        lines = [[bench, figure, f"{value:,}"] for bench, figure, value in others]
        parts.append(table.markdown([["other figures", "", "median"], *lines], words=(0, 1)))
    parts += [f"Not measured: {line}." for line in micro.missing(found)]
    return "\n\n".join(parts)


def operations_picture(result: Result) -> str:
    """Return its plot: a panel a group, the floor's share in grey."""
    panels = []
    for t in micro.tables(result):
        floor = next((r.ns for r in t.rows if r.side == t.floor), 0.0)
        kinds = {"ours": "ours", "rival": "rival"}
        bars = [
            plot.Bar(r.side, r.ns, floor, f"{micro.nanos(r.ns)} ns", kinds.get(r.kind, "control"))
            for r in t.rows
        ]
        panels.append(plot.Panel(f"{t.title}: ns per {t.unit}", bars))
    where = f"grey: what C spends too; {result['versions']['python']}, {result['taken'][:10]}"
    return plot.draw("Single operations", where, panels)


def between(text: str, inner: str) -> str:
    """Return *text* with *inner* between its two markers. Raises ValueError without them."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"want one {BEGIN} and one {END}")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{inner}\n{END}{after}" if inner else f"{before}{BEGIN}\n{END}{after}"


def readme_part(found: dict[str, Result]) -> str:
    """Return what stands between the README's markers: of the first result, by name."""
    head = (
        "Microseconds of server CPU per echoed message (e0: per connection), and in brackets how "
        "many times that of an edge-triggered server in C; all servers in turn, in one run. "
        "What it means, and all figures: [docs/benchmarks.md](docs/benchmarks.md)."
    )
    first = list(found.values())[:1]
    return "\n\n".join(f"{head}\n\n{brief(r)}\n\n{caption(r)}" for r in first)


def beside(result: Result) -> str:
    """Return all tables of one result of bench.interference."""
    parts = []
    for title, found in interference.tables(result):
        parts.append(f"**{title}**")
        parts.append(table.markdown(interference.cells(found)))
        parts += table.failures(found)
    parts += [f"Not measured: {name}: {why}." for name, why in result["skipped"].items()]
    return "\n\n".join(parts)


def docs_part(
    found: dict[str, Result], disturbed: dict[str, Result], single: dict[str, Result]
) -> str:
    """Return what stands between the markers of docs/benchmarks.md."""
    parts = [
        f"### {name}\n\n{caption(r)}\n\n![CPU per message]({name}.svg)\n\n{full(r)}"
        for name, r in found.items()
    ]
    parts += [f"### {name}\n\n{caption(r)}\n\n{beside(r)}" for name, r in disturbed.items()]
    parts += [
        f"### {name}: single operations\n\n{caption(r)}\n\n![ns per operation]({name}.svg)\n\n"
        f"{operations(r)}"
        for name, r in single.items()
    ]
    return "\n\n".join(parts)


def files(root: Path) -> dict[Path, str]:
    """Return what each file that shows results has to hold now."""
    found = results(root / "bench" / "results")
    disturbed = results(root / "bench" / "results", "interference")
    single = results(root / "bench" / "results", "micro")
    parts = {root / "README.md": readme_part(found)}
    parts[root / "docs" / "benchmarks.md"] = docs_part(found, disturbed, single)
    wanted = {path: between(path.read_text("utf-8"), part) for path, part in parts.items()}
    plots = {name: picture(r) for name, r in found.items()}
    plots |= {name: operations_picture(r) for name, r in single.items()}
    return wanted | {root / "docs" / f"{name}.svg": text for name, text in plots.items()}


def main(root: Path = ROOT) -> int:
    """Write, or check; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.report", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--check", action="store_true", help="only say what is out of date")
    options = parser.parse_args()
    try:
        wanted = files(root)
    except ValueError as why:
        sys.exit(f"bench.report: {why}")
    stale = {
        path: text
        for path, text in wanted.items()
        if not path.exists() or path.read_text("utf-8") != text
    }
    for path, text in stale.items():
        print(f"{path.relative_to(root)} {'is out of date' if options.check else 'written'}")
        if not options.check:
            path.write_text(text, "utf-8")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
