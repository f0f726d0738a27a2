"""Tests that are known to fail: tests/open.txt, one id a line. Each is a debt, not a pass."""

from pathlib import Path

import pytest

LIST = Path(__file__).parent.parent / "open.txt"


def pytest_collection_modifyitems(items):
    """Mark what the list names as expected to fail, not run (some of them hang)."""
    known = set(LIST.read_text().split()) if LIST.exists() else set()
    for item in items:
        name = item.nodeid.split("[")[0].removeprefix("tests/")
        if name in known:
            item.add_marker(pytest.mark.xfail(run=False, reason="open in issue 2: tests/open.txt"))
