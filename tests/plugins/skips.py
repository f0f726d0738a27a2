"""The skip ledger: a test may be skipped only if tests/skips.txt says so; else it fails.

Called by pytest, on the main thread, for each report of a test or a collected file.
An expected failure (xfail) is not a skip and passes through.
"""

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

LEDGER = Path(__file__).resolve().parent.parent / "skips.txt"


def read_ledger(text: str) -> list[tuple[str, re.Pattern[str]]]:
    """Return (node id pattern, reason pattern) for each line; raise ValueError for a bad one."""
    rows = []
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        if not line:
            continue
        nodes, bar, reason = (part.strip() for part in line.partition(" | "))
        if not (nodes and bar and reason):
            raise ValueError(f"skips.txt: want 'node id | reason', have {line!r}")
        rows.append((nodes, re.compile(reason)))
    return rows


def is_listed(ledger: list[tuple[str, re.Pattern[str]]], nodeid: str, reason: str) -> bool:
    """Report whether a line of *ledger* allows *nodeid* to be skipped for *reason*."""
    return any(fnmatchcase(nodeid, nodes) and why.search(reason) for nodes, why in ledger)


def judge(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip that is not listed into a failure that names the file to mend."""
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not is_listed(read_ledger(LEDGER.read_text(encoding="utf-8")), report.nodeid, reason):
        report.outcome = "failed"
        report.longrepr = f"skipped, but not listed in tests/skips.txt: {report.nodeid} | {reason}"


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_makereport(item, call):
    """Judge each phase of each test."""
    report = yield
    judge(report)
    return report


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_make_collect_report(collector):
    """Judge a file that skips itself while it is collected."""
    report = yield
    judge(report)
    return report
