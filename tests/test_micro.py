"""bench/micro: rounds are taken in turn, ratios are of one round, a run leaves tables and a JSON.

The figures themselves are nothing for a test. That every bench runs is in test_bench.py.
"""

import functools
import json
import os

import pytest

from helpers import bench
from helpers.bench import ROOT

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ROOT)
    from bench.macro.build import Missing
    from bench.micro import contest, rivals, summary
    from bench.micro.contest import CONTROL, FLOOR, OURS, Group, Side

run = functools.partial(bench.run, bench.RELEASE + bench.PYTEST, ROOT / "bench")

# One group of each file, and what makes the C library, the Go program and the Cython module needed.
CHOSEN = ("netpoll-64-0", "park", "spawn", "trip-unix")


def test_a_run_measures_prints_and_keeps(tmp_path):
    kept = tmp_path / "new" / "kept.json"
    options = ["--benchmark-only", "--micro-rounds", 2, "--micro-scale", 0.002]
    out, _ = run(*options, "--micro-json", kept, "-k", " or ".join(CHOSEN))
    result = json.loads(kept.read_text())
    assert (result["suite"], result["format"]) == ("micro", summary.FORMAT)
    assert {"cpu", "cpus", "virtual", "memory_mib", "kernel"} <= result["machine"].keys()
    assert {"python", "gopoll"} <= result["versions"].keys()
    assert {"taken", "commit", "changed", "load_average"} <= result.keys()
    assert result["options"] == {"rounds": 2, "scale": 0.002}
    assert set(result["groups"]) == set(CHOSEN)
    tables = out.partition("all sides, medians of ns per operation")[2]
    for group in result["groups"].values():
        assert group["errors"] == {}
        assert group["ns"].keys() | group["skipped"].keys() == group["kinds"].keys()
        assert {"gopoll", "asyncio", "asyncio-sock", "epoll", "epoll-dict"} & group["ns"].keys()
        assert all(len(ns) == 2 and min(ns) > 0 for ns in group["ns"].values())
        assert group["kinds"]["gopoll"] == OURS
        assert tables.count(group["title"]) == 1 + list(group["kinds"].values()).count(OURS)
        for name in group["ns"]:
            assert f"\n{name} " in tables
    assert str(ROOT) not in kept.read_text()


def test_only_what_is_selected_is_measured(tmp_path):
    kept = tmp_path / "kept.json"
    options = ["--benchmark-only", "--micro-rounds", 1, "--micro-scale", 0.001]
    run(*options, "--micro-json", kept, "-k", "park-gopoll or park-selectors or asyncio_sleep")
    result = json.loads(kept.read_text())
    (group,) = result["groups"].values()
    assert group["kinds"] == {"gopoll": "ours", "selectors": "rival"}
    assert sorted(group["ns"]) == ["gopoll", "selectors"]
    (other,) = result["others"].values()
    assert other.keys() == {"bytes_per_goroutine"}
    assert other["bytes_per_goroutine"] > 100


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--micro-rounds", "0"], "invalid positive int value: '0'"),
        (["--micro-scale", "-1"], "invalid positive float value: '-1'"),
        (["--micro-json", "/dev/null/kept.json"], "File exists: '/dev/null'"),
    ],
)
def test_options_that_make_no_sense_are_refused(words, error):
    out, err = run(*words, status=None)
    assert error in out + err
    assert "passed" not in out


# -- a contest -------------------------------------------------------------------------------------


def playing(log, name, answers, kind="rival"):
    """Return a side that notes its turns; an answer that is an exception is raised."""

    def enter(stack, count):
        log.append((name, "enter", count))
        stack.callback(log.append, (name, "left"))
        left = iter(answers)

        def measure():
            log.append((name, "round"))
            answer = next(left)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return measure

    return Side(name, enter, kind)


def test_all_sides_have_their_turn_in_each_round():
    log = []
    sides = [playing(log, name, range(10)) for name in "abc"]
    outcome = contest.hold(Group("g", "", "", 1000, tuple(sides)), sides, rounds=4, scale=0.01)
    assert log[:3] == [(name, "enter", 10) for name in "abc"]
    turns = [name for name, what, *_ in log if what == "round"]
    rounds = ["".join(turns[i : i + 3]) for i in range(0, len(turns), 3)]
    assert len(rounds) == 5  # one warms up
    assert {"".join(sorted(r)) for r in rounds} == {"abc"}
    assert len(set(rounds)) > 1  # not always in the same order
    assert outcome.ns == {name: [1, 2, 3, 4] for name in "abc"}
    assert log[-3:] == [(name, "left") for name in "cba"]


def test_who_fails_is_out_and_the_others_go_on():
    def absent(stack, count):
        raise Missing("no such thing (pip install it)")

    def broken(stack, count):
        raise ValueError("cannot begin")

    log, bad = [], OSError(5, "in the second")
    sides = [playing(log, "good", range(9)), playing(log, "bad", [1, 2, bad])]
    sides += [Side("absent", absent), Side("broken", broken)]
    outcome = contest.hold(Group("g", "", "", 1, tuple(sides)), sides, rounds=3, scale=1)
    assert outcome.ns == {"good": [1, 2, 3]}
    assert outcome.skipped == {"absent": "no such thing (pip install it)"}
    assert outcome.errors.keys() == {"bad", "broken"}
    outcome.tell("good")
    with pytest.raises(OSError, match="in the second"):
        outcome.tell("bad")


def test_a_contest_leaves_the_thread_where_it_was():
    before = os.sched_getaffinity(0), os.sched_getscheduler(0)

    def inside(stack, count):
        assert len(os.sched_getaffinity(0)) == 1
        assert os.sched_getscheduler(0) == os.SCHED_BATCH
        return lambda: 1.0

    sides = [Side("one", inside)]
    outcome = contest.hold(Group("g", "", "", 1, tuple(sides)), sides, rounds=1, scale=1)
    assert outcome.ns == {"one": [1.0]}, outcome.errors
    assert (os.sched_getaffinity(0), os.sched_getscheduler(0)) == before


def test_the_timer_repeats_what_was_measured():
    replay = contest.Replay()
    replay.load([5.0, 2e9])
    looks = [replay() for _ in range(4)]
    assert looks[1] - looks[0] == pytest.approx(5e-9)
    assert looks[2] == looks[1]
    assert looks[3] - looks[2] == pytest.approx(2.0)


def test_a_rival_that_this_python_breaks_is_missing(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for name, code in {"lacks": "import not_there_at_all", "bursts": "1 / 0"}.items():
        (tmp_path / f"micro_{name}.py").write_text(code)
    for name, why in {
        "micro_lacks": "micro_lacks does not work here: No module named 'not_there_at_all'",
        "micro_bursts": "micro_bursts does not work here: ZeroDivisionError: division by zero",
        "micro_absent": r"micro_absent is not installed \(pip install micro_absent\)",
    }.items():
        with pytest.raises(Missing, match=why):
            rivals.load(name)


def test_an_error_of_the_library_in_c_is_an_os_error():
    try:
        rivals.library()
    except Missing as missing:
        assert "no C compiler" in str(missing)  # noqa: PT017
        return
    with pytest.raises(OSError, match="floor_poll: Bad file descriptor"):
        rivals.floor("floor_poll", -1, 1)


# -- tables ----------------------------------------------------------------------------------------

# The machine is half as fast in the second round: the ratios stay.
GROUP = {
    "title": "an operation",
    "unit": "call",
    "kinds": {"c": FLOOR, "gopoll": OURS, "quick": "rival", "slow": "rival", "bare": CONTROL},
    "ns": {
        "slow": [400.0, 800.0, 420.0],
        "gopoll": [150.0, 300.0, 160.0],
        "bare": [90.0, 180.0, 92.0],
        "quick": [100.0, 200.0, 104.0],
        "c": [50.0, 100.0, 51.0],
    },
    "preempted_per_second": 1.5,
    "skipped": {"go": "no Go tool chain"},
    "errors": {"bad": "failed: OSError: out of luck"},
}


def test_ratios_are_medians_of_ratios_within_the_round():
    found = summary.table("g", GROUP)
    assert (found.floor, found.best) == ("c", "quick")
    assert [r.side for r in found.rows] == ["c", "bare", "quick", "gopoll", "slow"]
    gopoll = found.rows[3]
    assert (gopoll.ns, gopoll.to_floor, gopoll.to_best) == (160.0, 3.0, 1.5)
    assert gopoll.spread == pytest.approx(150 / 160)


def test_every_row_is_printed_whoever_wins():
    found = summary.table("g", GROUP)
    assert summary.cells(found) == [
        ["an operation", "ns/call", "spread", "x c", "x quick"],
        ["c", "51.0", "98%", "1.00", "0.50"],
        ["bare (control)", "92.0", "98%", "1.80", "0.90"],
        ["quick", "104", "96%", "2.00", "1.00"],
        ["gopoll", "160", "94%", "3.00", "1.50"],
        ["slow", "420", "95%", "8.00", "4.00"],
    ]
    assert summary.brief([found])[1:] == [
        ["an operation", "gopoll", "160", "51.0", "3.00", "quick", "104", "1.50"]
    ]
    assert summary.missing([found, found]) == [
        "go: no Go tool chain (g, g)",
        "bad: failed: OSError: out of luck (g, g)",
    ]


def test_a_group_without_floor_and_rivals_has_its_rows():
    alone = GROUP | {"ns": {"gopoll": [5.0]}, "kinds": {"gopoll": OURS}}
    found = summary.table("g", alone)
    assert summary.cells(found)[1] == ["gopoll", "5.0", "0%", "-", "-"]
    assert summary.brief([found])[1] == ["an operation", "gopoll", "5.0", "-", "-", "-", "-", "-"]
    nobody = summary.table("g", GROUP | {"ns": {}})
    assert summary.brief([nobody])[1:] == []
    assert len(summary.cells(nobody)) == 1


def test_preemptions_by_others_are_told():
    def result(*rates):
        return {"groups": {str(r): GROUP | {"preempted_per_second": r} for r in rates}}

    assert summary.disturbed(result()) is None
    assert summary.disturbed(result(0, 1, 900)) is None
    assert "preempted 90 times a second (median)" in summary.disturbed(result(1, 90, 100))
