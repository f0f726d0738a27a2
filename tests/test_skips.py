"""tests/plugins/skips.py: a skip that nobody listed is a failure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from plugins.skips import is_listed, read_ledger

HERE = Path(__file__).resolve().parent

CONFTEST = """
import pathlib, sys
pytest_plugins = ["plugins.skips"]
def pytest_configure():
    sys.modules["plugins.skips"].LEDGER = pathlib.Path(__file__).with_name("skips.txt")
"""

SUITE = """
import pytest
def test_listed(): pytest.skip("no nc here")
def test_other_reason(): pytest.skip("not today")
@pytest.mark.skip(reason="tired")
def test_marked(): pass
@pytest.mark.xfail(strict=True)
def test_known_to_fail(): assert False
"""


def test_a_line_names_the_test_and_the_reason():
    ledger = read_ledger("# a comment\n\ntests/test_x.py::* | nc is (not|never) there  # why\n")
    assert is_listed(ledger, "tests/test_x.py::test_a", "nc is not there")
    assert not is_listed(ledger, "tests/test_x.py::test_a", "no reason")
    assert not is_listed(ledger, "tests/test_y.py::test_a", "nc is not there")


@pytest.mark.parametrize("line", ["tests/test_x.py::*", "| because", "tests/test_x.py::* | "])
def test_a_line_without_both_parts_is_refused(line):
    with pytest.raises(ValueError, match="want 'node id"):
        read_ledger(line)


def test_only_a_listed_skip_passes(tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "skips.txt").write_text("*::test_listed | no nc\n")
    (tmp_path / "test_it.py").write_text(SUITE)
    (tmp_path / "test_file.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")
    options = ["-q", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", tmp_path, tmp_path],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
    )
    assert "1 failed, 1 skipped, 1 xfailed, 2 errors in" in run.stdout, run.stdout + run.stderr
    assert (
        "skipped, but not listed in tests/skips.txt: test_it.py::test_marked | tired" in run.stdout
    )
