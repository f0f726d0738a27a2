"""bench/: every bench runs, and only of a build that is meant to be fast."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The switch of this very build does not matter here: the child is told another.
CODE = """
import sys
import pytest
import gopoll._poller
gopoll._poller.BUILD = sys.argv[1]
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "--benchmark-disable", sys.argv[2]]))
"""


def run_benches(build):
    """Run each bench once, without taking the time, as if gopoll were a *build* build."""
    return subprocess.run(
        [sys.executable, "-c", CODE, build, str(ROOT / "bench")],
        cwd=ROOT,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=250,
    )


def test_every_bench_runs():
    done = run_benches("release")
    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr


@pytest.mark.parametrize("build", ["trace", "thread", "address", "undefined"])
def test_a_build_that_is_slow_on_purpose_is_refused(build):
    done = run_benches(build)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout + done.stderr
    assert f"this gopoll is a {build} build, its figures mean nothing" in done.stderr
    assert "passed" not in done.stdout
