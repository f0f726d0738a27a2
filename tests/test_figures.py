"""README.md and docs/: what they say of speed in words and tables of their own is in the results.

What bench.report writes is held by test_report.py.
"""

import importlib
import re
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
BENCHMARKS = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
EMBEDDING = (ROOT / "docs" / "embedding.md").read_text("utf-8")

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ROOT)
    from bench import report
    from bench.interference import summary as interference
    from bench.macro import summary as macro
    from bench.micro import summary as micro

RESULTS = ROOT / "bench" / "results"
ECHO = report.results(RESULTS)["echo"]
BESIDE = report.results(RESULTS, "interference")["interference"]
SINGLE = report.results(RESULTS, "micro")["operations"]


def ratio(workload, one, other):
    """Return the median over the rounds of CPU / CPU within the round, of the first result."""
    cpu = {
        (p["server"], p["round"]): p["cpu_us"]
        for p in ECHO["points"]
        if p["workload"] == workload and p["cpus"] == "one" and "error" not in p
    }
    rounds = range(1, ECHO["options"]["rounds"] + 1)
    return statistics.median(cpu[one, n] / cpu[other, n] for n in rounds)


def cells(first):
    """Return the cells of the README's one row that begins with *first*."""
    (row,) = re.findall(rf"^\| {re.escape(first)}.*\|$", README, re.MULTILINE)
    return [cell.strip() for cell in row.strip("|").split("|")][1:]


def test_what_asyncio_costs_on_our_loop():
    """0.79 of uvloop's CPU: Protocols, streams, sock_*, under three workloads."""
    (said,) = re.findall(r"For a message of 1 KiB on 64 connections its .*? \(\[measured\]", README)
    styles = ("proto", "streams", "sock")
    found = [
        f"{ratio(workload, f'gopoll-aio-{style}', f'uvloop-{style}'):.2f}"
        for workload in ("a0", "b0", "e0")
        for style in styles
    ]
    assert re.findall(r"\d\.\d\d", said) == found


def test_what_a_guest_costs():
    (said,) = re.findall(r"goroutines as guests of uvloop .*? more:", EMBEDDING)
    loops = ("gopoll-guest-uvloop", "gopoll-guest-asyncio")
    found = [f"{ratio('a0', loop, 'gopoll'):.2f}" for loop in loops]
    found += [f"{ratio('b0', loop, 'gopoll') - 1:.0%}".replace("%", " %") for loop in loops]
    assert re.findall(r"\d\.\d\d|\d+ %", said) == found


BESIDE_ROWS = {
    "none": "nothing",
    "hog": "a thread that computes in Python",
    "sleep": "a task in `time.sleep(0.1)`",
    "syscall": "the same in `syscall()`",
    "compute": "a task that computes in Python for 100 ms",
}


@pytest.mark.parametrize("beside", BESIDE_ROWS)
def test_what_is_kept_beside_the_echo(beside):
    rows = {r.server: r for r in interference.rows(BESIDE["points"], "two", beside, tls=False)}
    mine = [rows[name] for name in ("gopoll", "asyncio-streams", "uvloop-streams")]

    def ms(value):
        return f"{value:.0f}" if value >= 10 else f"{value:.1f}"

    kept = [f"{r.kept:.0%}".replace("%", " %") if beside != "none" else "" for r in mine]
    wanted = [ms(mine[0].p99), ms(mine[0].p999), *(ms(r.p99) for r in mine[1:]), *kept]
    assert cells(BESIDE_ROWS[beside]) == wanted
    rounds = BESIDE["options"]["rounds"]
    assert f"medians of {rounds} rounds; asyncio and uvloop with streams" in README


SINGLE_ROWS = {
    "switch": "a switch, 100 goroutines or tasks",
    "spawn": "spawn and join",
    "channel": "wake another and wait",
    "timers": "a timer moved to later",
    "line": "a line over a socketpair",
}


@pytest.mark.parametrize("group", SINGLE_ROWS)
def test_what_single_operations_cost(group):
    found = micro.table(group, SINGLE["groups"][group])
    ns = {r.side: f"{r.ns:,.0f}" for r in found.rows}
    ns |= {"asyncio": ns.get("asyncio-streams"), "uvloop": ns.get("uvloop-streams")} | ns
    sides = ("gopoll", "asyncio", "uvloop", "go")
    assert cells(SINGLE_ROWS[group]) == [ns.get(side) or "" for side in sides]


def test_what_one_that_waits_weighs():
    others = SINGLE["others"]

    def weight(side):
        name = f"test_sched_bytes_per_parked_goroutine[{side}]"
        return f"{others[name]['bytes_per_goroutine']:,}"

    ours = f"{weight('gopoll_sleep')}, {weight('gopoll_chan')}"
    theirs = f"{weight('asyncio_sleep')}, {weight('asyncio_queue')}"
    assert cells("memory of one that sleeps") == [ours, theirs, "", ""]


def test_what_a_kept_message_costs():
    (said,) = re.findall(r"is worth (\d+) % at 64 KiB and (\d+) % with 16 messages", README)
    found = [1 - ratio(workload, "gopoll", "gopoll-keep") for workload in ("c0", "d0")]
    assert said == tuple(f"{100 * share:.0f}" for share in found)


def test_how_far_rounds_lie_apart():
    (said,) = re.findall(r"Over rounds ± is (\d+) to (\d+) % of x c-et", BENCHMARKS)
    medians = [
        statistics.median(
            50 * r.to_floor_spread / r.to_floor
            for r in macro.rows(result["points"], cpus, workload)
            if r.to_floor_spread is not None
        )
        for result in report.results(RESULTS).values()
        for cpus in result["options"]["cpus"]
        for workload in result["options"]["workloads"]
    ]
    assert said == (f"{min(medians):.0f}", f"{max(medians):.0f}")


def test_the_docs_count_the_groups(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    modules = [f"bench.{path.stem}" for path in (ROOT / "bench").glob("test_*.py")]
    groups = [len(getattr(importlib.import_module(name), "GROUPS", ())) for name in modules]
    assert f"all: {sum(groups)} groups, 15 rounds" in BENCHMARKS
