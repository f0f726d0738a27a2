"""The benches: only of a release build, all sides of a group in turn, tables at the end.

Called by pytest, on the main thread. pytest-benchmark's own table has the same rounds, in ns per
operation; ratios, within the round, are in ours.
"""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.macro import table, where  # noqa: E402
from bench.macro.build import Missing  # noqa: E402
from bench.macro.command import Refused, keep, positive, warn  # noqa: E402
from bench.macro.measure import fd_limit  # noqa: E402
from bench.micro import summary  # noqa: E402
from bench.micro.contest import Outcome, hold, replay  # noqa: E402


def pytest_addoption(parser):
    """Add the options of the contests."""
    group = parser.getgroup("micro", "contests of bench/")
    group.addoption(
        "--micro-rounds", type=positive(int), default=15, metavar="N", help="default: 15"
    )
    group.addoption(
        "--micro-scale",
        type=positive(float),
        default=1.0,
        metavar="X",
        help="how many times the usual operations a round has (default: 1)",
    )
    group.addoption("--micro-json", metavar="FILE", help="write all rounds and their origin")


def pytest_configure(config):
    """Refuse a build that is slow on purpose; make room for thousands of descriptors."""
    try:
        refused = where.refusal()
    except Missing as missing:
        refused = str(missing)
    if refused:
        raise pytest.UsageError(refused)
    fd_limit()
    config.stash[GROUPS] = {}
    if config.option.micro_json:
        config.stash[ORIGIN] = where.origin()
        try:
            keep(config.option.micro_json, None)  # what cannot be written is found out now
        except Refused as why:
            raise pytest.UsageError(f"--micro-json: {why}") from None
    if config.getoption("benchmark_only"):
        warn()


GROUPS = pytest.StashKey[dict[str, dict]]()
ORIGIN = pytest.StashKey[dict]()


@pytest.fixture(scope="session")
def outcomes():
    """Hold what the groups have brought: {name: Outcome}."""
    return {}


@pytest.fixture
def contest(request, benchmark, outcomes):
    """Return contest(group, side): hand the rounds of a side to pytest-benchmark.

    The first test of a group takes the rounds of all its sides that were selected, in turn.
    """
    config = request.config
    if benchmark.disabled:
        rounds, scale = 1, 0.001
    else:
        rounds, scale = config.option.micro_rounds, config.option.micro_scale

    def selected(group):
        params = [item.callspec.params for item in request.session.items if has_side(item)]
        return [p["side"] for p in params if p["group"] is group]

    def contest(group, side):
        outcome = outcomes.get(group.name)
        if outcome is None:
            sides = selected(group)
            outcome = outcomes[group.name] = hold(group, sides, rounds, scale)
            config.stash[GROUPS][group.name] = told(group, sides, outcome)
        benchmark.group = f"{group.title}: time per {group.unit}"
        if side.name in outcome.skipped:
            pytest.skip(outcome.skipped[side.name])
        ns = outcome.ns.get(side.name, [])
        replay.load(ns)
        benchmark.pedantic(outcome.tell, (side.name,), rounds=max(1, len(ns)))

    return contest


@pytest.fixture
def measure(benchmark):
    """Return measure(function, per_round, unit): time rounds of *function*, one side by itself.

    A round holds *per_round* operations; the median of the rounds goes to extra_info as ns per
    *unit*, and into the table at the end.
    """

    def measure(function, *, per_round, unit, rounds=200):
        benchmark.pedantic(function, rounds=rounds, warmup_rounds=5, iterations=1)
        if benchmark.stats is not None:  # --benchmark-disable runs it once, without figures
            ns = benchmark.stats.stats.median * 1e9 / per_round
            benchmark.extra_info[f"ns_per_{unit}"] = round(ns, 1)

    return measure


def has_side(item):
    return hasattr(item, "callspec") and {"group", "side"} <= item.callspec.params.keys()


def told(group, sides, outcome: Outcome):
    """Return what the JSON keeps of a group."""
    return {
        "title": group.title,
        "unit": group.unit,
        "kinds": {side.name: side.kind for side in sides},
        "ns": {name: [round(ns, 2) for ns in rounds] for name, rounds in outcome.ns.items()},
        "preempted_per_second": round(outcome.preempted, 1),
        "skipped": outcome.skipped,
        "errors": {
            name: f"failed: {type(e).__name__}: {e}".partition("\n")[0]
            for name, e in outcome.errors.items()
        },
    }


@pytest.hookimpl(trylast=True)  # below pytest-benchmark's
def pytest_terminal_summary(terminalreporter, config):
    """Print the tables: every group with all its sides, then ours beside floor and best rival."""
    session = getattr(config, "_benchmarksession", None)
    if session is None or session.disabled:
        return
    write = terminalreporter.write_line
    result = {"suite": "micro", "format": summary.FORMAT, "groups": config.stash[GROUPS]}
    found = summary.tables(result)
    if any(t.rows for t in found):
        terminalreporter.section("all sides, medians of ns per operation")
        for t in found:
            write(table.aligned(summary.cells(t)))
            write("")
        for line in summary.missing(found):
            write(f"not measured: {line}")
        if noise := summary.disturbed(result):
            write(noise)
        terminalreporter.section("gopoll beside the floor and the best rival")
        write(table.aligned(summary.brief(found), words=summary.BRIEF_WORDS))
    others = [b for b in session.benchmarks if b.extra_info]
    if others:
        terminalreporter.section("other figures, medians")
    for bench in others:
        for name, value in bench.extra_info.items():
            digits = 0 if value >= 10 else 2
            write(f"{value:10,.{digits}f} {name:<22} {bench.name}")
    if config.option.micro_json:
        options = {"rounds": config.option.micro_rounds, "scale": config.option.micro_scale}
        kept = config.stash[ORIGIN] | {"options": options} | result
        kept["others"] = {bench.name: dict(bench.extra_info) for bench in others}
        keep(config.option.micro_json, kept)
