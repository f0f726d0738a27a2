"""bench/: every bench runs, and only of a build that is meant to be fast."""

import pytest

from helpers import bench


def run_benches(build, status):
    """Run each bench once, without taking the time, as if gopoll were a *build* build."""
    code = bench.RELEASE.replace("release", build) + bench.PYTEST
    return bench.run(code, "--benchmark-disable", bench.ROOT / "bench", status=status)


def test_every_bench_runs():
    run_benches("release", pytest.ExitCode.OK)


@pytest.mark.parametrize("build", ["trace", "thread", "address", "undefined"])
def test_a_build_that_is_slow_on_purpose_is_refused(build):
    out, err = run_benches(build, pytest.ExitCode.USAGE_ERROR)
    assert f"this gopoll is a {build} build, its figures mean nothing" in err
    assert "passed" not in out
