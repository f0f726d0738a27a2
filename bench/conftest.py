"""The benches: only of a release build, and with the figures in ns per operation at the end.

Called by pytest, on the main thread. pytest-benchmark's own table has the time of a whole round.
"""

import resource

import pytest

from gopoll._poller import BUILD

WANTED_FDS = 4096


def pytest_configure():
    """Refuse a build that is slow on purpose; make room for a thousand socket pairs."""
    if BUILD != "release":
        raise pytest.UsageError(
            f"this gopoll is a {BUILD} build, its figures mean nothing: build it again without "
            "GOPOLL_TRACE and GOPOLL_SANITIZE"
        )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < WANTED_FDS:
        most = WANTED_FDS if hard == resource.RLIM_INFINITY else min(WANTED_FDS, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@pytest.fixture
def measure(benchmark):
    """Return measure(function, setup, per_round, unit): time rounds of *function*.

    setup() runs before every round and is not timed. A round holds *per_round* operations; the
    median of the rounds goes to extra_info as ns per *unit*, and into the table at the end.
    """

    def measure(function, *, per_round, unit, setup=None, rounds=200):
        options = {} if setup is None else {"setup": setup}
        benchmark.pedantic(function, rounds=rounds, warmup_rounds=5, iterations=1, **options)
        benchmark.extra_info["operations_per_round"] = per_round
        if benchmark.stats is not None:  # --benchmark-disable runs it once, without figures
            ns = benchmark.stats.stats.median * 1e9 / per_round
            benchmark.extra_info[f"ns_per_{unit}"] = round(ns, 1)

    return measure


def pytest_terminal_summary(terminalreporter, config):
    """Print ns per operation of every bench, group by group."""
    session = getattr(config, "_benchmarksession", None)
    benchmarks = [b for b in getattr(session, "benchmarks", []) if b.extra_info]
    if not benchmarks:
        return
    terminalreporter.section("ns per operation, medians")
    for bench in benchmarks:
        for name, value in bench.extra_info.items():
            if "_per_" in name and not name.startswith("operations"):
                digits = 0 if value >= 10 else 2
                terminalreporter.line(f"{value:10,.{digits}f} {name:<22} {bench.name}")
