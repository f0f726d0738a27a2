"""bench/report: what README.md and docs/ show of results is what the committed results say."""

import json
import shutil
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ROOT)
    from bench import report
    from bench.interference import summary as interference
    from bench.macro import summary, table


def point(n, server, cpu_us, workload="a0", **more):
    """Return a point as the runner keeps it."""
    figures = {"p50_us": 2 * cpu_us, "p99_us": 3 * cpu_us, "p99.9_us": 4000.0}
    where = {"cpus": "one", "round": n, "workload": workload, "server": server}
    return where | {"cpu_us": cpu_us, "per_second": 1e6 / cpu_us, "rss_end": 2**20} | figures | more


# c-et is twice as slow in the second round and so are the others: the ratios stay.
POINTS = [
    *(point(n, "c-et", cpu) for n, cpu in enumerate((1.0, 2.0, 1.1), 1)),
    *(point(n, "uvloop-proto", cpu) for n, cpu in enumerate((1.5, 3.0, 1.6), 1)),
    *(point(n, "gopoll", cpu) for n, cpu in enumerate((2.0, 4.0, 2.3), 1)),
    {"cpus": "one", "round": 1, "workload": "a0", "server": "<bad>", "error": "it died & left"},
    *(point(n, "c-et", 1.0, "f0", rss_per_idle=30.0) for n in (1, 2, 3)),
    *(point(n, "gopoll", cpu, "f0", rss_per_idle=2000.4) for n, cpu in ((1, 2.5), (2, 4.0))),
    {"cpus": "one", "round": 3, "workload": "f0", "server": "gopoll", "error": "no memory"},
]

RESULT = {
    "suite": "macro",
    "format": 1,
    "taken": "2026-01-02T03:04:05Z",
    "machine": {"cpu": "A CPU", "cpus": 2, "virtual": True, "memory_mib": 1, "kernel": "6.1"},
    "versions": {"python": "CPython 3.11.7", "gopoll": "0.1.0", "cc": "cc 12"},
    "commit": "0123456789abcdef",
    "changed": False,
    "options": {"rounds": 3, "seconds": 1.0, "cpus": ["one"], "workloads": ["a0", "f0"]},
    "skipped": {"go": "no Go tool chain"},
    "points": POINTS,
}

SINGLE = {
    **{key: RESULT[key] for key in ("format", "taken", "machine", "versions", "commit", "changed")},
    "suite": "micro",
    "options": {"rounds": 2, "scale": 1.0},
    "groups": {
        "switch": {
            "title": "a switch",
            "unit": "switch",
            "kinds": {"gopoll": "ours", "c": "floor", "quick": "rival", "<bare>": "control"},
            "ns": {
                "gopoll": [20.0, 40.0],
                "c": [5.0, 10.0],
                "quick": [10.0, 20.0],
                "<bare>": [1.0, 2.0],
            },
            "preempted_per_second": 0.0,
            "skipped": {"go": "no Go tool chain"},
            "errors": {},
        }
    },
    "others": {"test_bytes[us]": {"bytes_per_goroutine": 1234}},
}


def disturbed(n, server, beside, rate, p99_ms, **more):
    """Return a point of bench.interference."""
    loop = {"p50_us": 900.0, "p99_us": p99_ms * 1e3, "p99.9_us": p99_ms * 2e3}
    closed, opened = {"per_second": rate, **loop, **more}, {**loop, "unanswered": 0}
    where = {"cpus": "two", "round": n, "beside": beside, "server": server}
    return where | {"closed": closed, "open": opened}


# As above: the second round is half as fast.
DISTURBED = [
    *(disturbed(n, "gopoll", "none", 90_000 / n, 2.0 * n) for n in (1, 2)),
    *(disturbed(n, "gopoll", "hog", 30_000 / n, 12.0 * n, hog_share=0.8) for n in (1, 2)),
    *(disturbed(n, "uvloop-sock", "hog", 10_000 / n, 100.0 * n, hog_share=0.7) for n in (1, 2)),
    disturbed(1, "go", "hog", 2000, 9.0),
    {"cpus": "two", "round": 1, "beside": "hog", "server": "trio", "error": "it died"},
    disturbed(1, "gopoll-tls", "hog", 5000, 40.0, hog_share=0.5),
    disturbed(1, "uvloop-tls-proto", "hog", 2500, 30.0, hog_share=0.5),
]


def test_what_is_kept_is_of_the_same_server_in_the_same_round():
    found = interference.rows(DISTURBED, "two", "hog", tls=False)
    assert [r.server for r in found] == ["go", "gopoll", "uvloop-sock", "trio"]
    go, gopoll, uvloop, trio = found
    assert gopoll.per_second == 22_500
    assert gopoll.kept == pytest.approx(1 / 3)
    assert gopoll.times == 6
    assert (gopoll.ours, uvloop.ours, go.ours) == (1, 3, 15)
    assert (uvloop.kept, uvloop.times, go.hog, gopoll.hog) == (None, None, None, 0.8)
    assert trio.errors == ("it died",)
    over_tls = interference.rows(DISTURBED, "two", "hog", tls=True)
    assert [(r.server, r.ours) for r in over_tls] == [("uvloop-tls-proto", 2), ("gopoll-tls", 1)]
    head, first, *_ = interference.cells(found)
    assert head[-1] == "hog's CPU"
    assert first[:4] == ["go", "2,000", "-", "15.00"]
    assert "unanswered" not in head


def test_who_does_not_answer_in_time_is_told():
    late = disturbed(1, "trio", "sleep", 10, 5000.0)
    late["open"]["unanswered"] = 1234
    head, row = interference.cells(interference.rows([late], "two", "sleep", tls=False))
    assert (head[-1], row[-1]) == ("unanswered", "1,234")


def test_what_is_shown_is_what_was_committed():
    stale = {
        path.name
        for path, text in report.files(ROOT).items()
        if not path.exists() or path.read_text("utf-8") != text
    }
    assert not stale, f"run python -m bench.report: {stale}"


def test_committed_results_name_no_folder_of_a_machine():
    for path in (ROOT / "bench" / "results").glob("*.json"):
        assert not {"/root", "/home", "/tmp"} & set(path.read_text("utf-8").split('"'))


def test_ratios_are_medians_of_ratios_within_the_round():
    found = summary.rows(POINTS, "one", "a0")
    assert [r.server for r in found] == ["c-et", "uvloop-proto", "gopoll", "<bad>"]
    gopoll = found[2]
    assert gopoll.rounds == 3
    assert gopoll.cpu == 2.3
    assert gopoll.to_floor == 2.0
    assert gopoll.to_protocol == pytest.approx(4 / 3)
    assert gopoll.over_floor == pytest.approx(1.2)
    assert gopoll.spread == pytest.approx(2 / 2.3)
    assert gopoll.to_floor_spread == pytest.approx(2.3 / 1.1 - 2)
    assert found[0].to_floor_spread is None
    assert found[3].errors == ("it died & left",)
    assert summary.rows(POINTS, "two", "a0") == []


def test_one_round_says_nothing_of_how_far_rounds_lie_apart():
    found = summary.rows([p for p in POINTS if p["round"] == 1], "one", "a0")
    assert [r.spread for r in found[:3]] == [None] * 3
    assert found[2].to_floor_spread is None
    assert table.text(found).splitlines()[3].split()[1:5] == ["2.00", "-", "2.00", "-"]


def test_idle_connections_are_compared_with_none_in_the_same_round():
    gopoll = summary.rows(POINTS, "one", "f0")[1]
    assert (gopoll.rounds, gopoll.errors) == (2, ("no memory",))
    assert gopoll.rss_per_idle == 2000.4
    assert gopoll.kept == pytest.approx((0.8 + 1.0) / 2)
    assert gopoll.to_protocol is None


def test_every_row_is_printed_whoever_wins():
    found = summary.rows(POINTS, "one", "a0")
    text = table.text(found).splitlines()
    assert [line.split()[0] for line in text] == ["server", *(r.server for r in found)]
    assert "2.30" in text[3]
    assert set(text[4].split()[1:]) == {"failed"}
    assert table.failures(found) == ["<bad>: 1 failed: it died & left"]
    brief = report.brief(RESULT).splitlines()
    assert [line.split(" | ")[0].lstrip("| ") for line in brief[2:]] == [r.server for r in found]
    assert brief[4] == "| gopoll | 2.30 (2.00) | 3.25 (3.25) | 2,000 |"
    assert brief[5] == "| <bad> | failed | - | - |"


def test_a_plot_has_a_bar_for_every_row_that_has_figures():
    root = ET.fromstring(report.picture(RESULT))
    bars = root.findall(".//{*}g[@class='bar']")
    assert [bar.find("{*}title").text for bar in bars] == [
        *("c-et: 1.10 us", "uvloop-proto: 1.60 us", "gopoll: 2.30 us"),
        *("c-et: 1.00 us", "gopoll: 3.25 us"),
    ]
    for bar in bars:
        widths = [float(rect.get("width")) for rect in bar.findall("{*}rect")]
        assert min(widths) >= 0
        assert sum(widths) <= 600.1


def test_single_operations_have_a_line_a_table_and_a_panel_whoever_wins():
    lines = report.operations(SINGLE).splitlines()
    assert lines[1] == "| --- | --- | ---: | ---: | ---: | --- | ---: | ---: |"
    assert lines[2] == "| a switch | gopoll | 30.0 | 7.5 | 4.00 | quick | 15.0 | 2.00 |"
    sides = [line.split(" | ")[0].lstrip("| ") for line in lines[6:10]]
    assert sides == ["<bare> (control)", "c", "quick", "gopoll"]
    assert lines[-3] == "| test_bytes[us] | bytes_per_goroutine | 1,234 |"
    assert lines[-1] == "Not measured: go: no Go tool chain (switch)."
    root = ET.fromstring(report.operations_picture(SINGLE))
    bars = root.findall(".//{*}g[@class='bar']/{*}title")
    assert [bar.text for bar in bars] == [
        *("<bare>: 1.5 ns", "c: 7.5 ns", "quick: 15.0 ns", "gopoll: 30.0 ns"),
    ]


@pytest.fixture
def tree(tmp_path):
    """Return a tree with the files that show results, and one result."""
    for name in ("README.md", "docs/benchmarks.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bench" / "results").mkdir(parents=True)
    (tmp_path / "bench" / "results" / "here.json").write_text(json.dumps(RESULT))
    other = RESULT | {"suite": "interference", "points": DISTURBED}
    other["options"] = RESULT["options"] | {"cpus": ["two"], "beside": ["none", "hog"]}
    (tmp_path / "bench" / "results" / "noise.json").write_text(json.dumps(other))
    (tmp_path / "bench" / "results" / "single.json").write_text(json.dumps(SINGLE))
    return tmp_path


def test_report_writes_what_check_wants(tree, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["report", "--check"])
    assert report.main(tree) == 1
    assert "README.md is out of date" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["report"])
    assert report.main(tree) == 0
    monkeypatch.setattr(sys, "argv", ["report", "--check"])
    assert report.main(tree) == 0
    text = (tree / "README.md").read_text()
    assert report.brief(RESULT) in text
    assert "commit 0123456789ab." in text
    docs = (tree / "docs" / "benchmarks.md").read_text()
    assert "![CPU per message](here.svg)" in docs
    assert "gopoll: 1 failed: no memory" in docs
    assert "Not measured: go: no Go tool chain." in docs
    assert "### noise" in docs
    assert "**hog: a thread computes in Python without a pause; a CPU for each**" in docs
    assert "| uvloop-sock | 7,500 | - | 3.00 | 0.90 | 150 | 300 | - | 70% |" in docs
    assert "**hog, over TLS: " in docs
    assert "trio: 1 failed: it died" in docs
    assert not (tree / "docs" / "noise.svg").exists()
    assert report.operations(SINGLE) in docs
    assert "![ns per operation](single.svg)" in docs
    assert "medians of 2 rounds, 2026-01-02, commit 0123456789ab." in docs
    assert (tree / "docs" / "single.svg").exists()
    for result in (tree / "bench" / "results").iterdir():
        result.unlink()
    monkeypatch.setattr(sys, "argv", ["report"])
    assert report.main(tree) == 0
    # nothing measured, nothing shown
    for name in ("README.md", "docs/benchmarks.md"):
        assert f"{report.BEGIN}\n{report.END}" in (tree / name).read_text()


def test_the_first_result_is_in_the_readme_and_all_are_in_the_docs(tree, monkeypatch):
    (tree / "bench" / "results" / "there.json").write_text(json.dumps(RESULT))
    monkeypatch.setattr(sys, "argv", ["report"])
    assert report.main(tree) == 0
    assert (tree / "README.md").read_text().count(report.brief(RESULT)) == 1
    docs = (tree / "docs" / "benchmarks.md").read_text()
    assert "### here\n" in docs
    assert "### there\n" in docs
    assert (tree / "docs" / "there.svg").exists()


def test_results_of_another_format_and_other_suites(tree):
    folder = tree / "bench" / "results"
    (folder / "other.json").write_text('{"suite": "another"}')
    assert list(report.results(folder)) == ["here"]
    assert list(report.results(folder, "micro")) == ["single"]
    (folder / "here-313.json").write_text(json.dumps(RESULT))
    assert list(report.results(folder)) == ["here", "here-313"]
    (folder / "old.json").write_text('{"suite": "macro", "format": 0}')
    with pytest.raises(ValueError, match=r"old\.json: format 0 is not 1"):
        report.results(folder)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no result: .*"),
        ("[]", "no result of a suite: "),
        ("{}", "no result of a suite: "),
        ('{"suite": "macro"}', "format None is not 1: "),
    ],
)
def test_a_file_that_is_no_result_is_named(tree, monkeypatch, text, told):
    (tree / "bench" / "results" / "cut.json").write_text(text)
    monkeypatch.setattr(sys, "argv", ["report"])
    with pytest.raises(SystemExit, match=rf"bench\.report: cut\.json: {told}measure again"):
        report.main(tree)


def test_markers_have_to_be_there():
    with pytest.raises(ValueError, match="want one <!-- bench: begin -->"):
        report.between("no markers", "x")
