"""CPython's own test_asyncio, run against EventLoop by the interpreter it comes with.

asyncio_suite.py runs it in a process of its own, with our loop in the place of asyncio's selector
loop. What it skips or does otherwise is a strict list: a case that is skipped or fails and is not
listed fails here, and so does a listed one that is run or passes.
"""

import functools
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "asyncio_suite.py"
SECONDS = 400  # for all of it; what concerns the loop takes a minute of a slow machine

# What concerns the loop: turns, callbacks, transports, sockets, signals, processes.
LOOP = [
    "test_base_events",
    "test_buffered_proto",
    "test_context",
    "test_events",
    "test_runners",
    "test_selector_events",
    "test_sendfile",
    "test_server",
    "test_server_context",
    "test_sock_lowlevel",
    "test_ssl",
    "test_sslproto",
    "test_streams",
    "test_subprocess",
    "test_taskgroups",
    "test_timeouts",
    "test_unix_events",
    "test_waitfor",
]
# What runs on a loop and knows little of it: --cpython-asyncio=all.
ABOVE = [
    "test_eager_task_factory",
    "test_free_threading",
    "test_futures",
    "test_futures2",
    "test_graph",
    "test_locks",
    "test_pep492",
    "test_protocols",
    "test_queues",
    "test_staggered",
    "test_tasks",
    "test_threads",
    "test_tools",
    "test_transports",
]
NOT_LINUX = {"test_proactor_events", "test_windows_events", "test_windows_utils"}

# Cases that CPython skips: regular expression -> why. Each has to fit one that was skipped.
SKIPPED = {}
if sys.version_info < (3, 12):
    SKIPPED[r"test_subprocess\.SubprocessMultiLoopWatcherTests\."] = (
        "CPython's own: MultiLoopChildWatcher has a race (bpo-38323)"
    )
if sys.version_info >= (3, 14):
    SKIPPED[r"test_ssl\.TestSSL\.test_create_server_ssl_(1|over_ssl)$"] = (
        "they take 2.2 GB, and are run where that is promised"
    )
SKIPPED_ABOVE = {}
if sys.version_info < (3, 15):
    SKIPPED_ABOVE[r"test_tasks\..*test_refleaks_in_task___init__"] = (
        "it wants a debug build of Python"
    )
# Cases that fail against our loop: name -> why that is as it should be.
DIVERGES: dict[str, str] = {}
CASES_AT_LEAST = 800


def package():
    """Return the folder of CPython's suite, or skip where the interpreter comes without it."""
    try:
        found = importlib.util.find_spec("test.test_asyncio")
    except ModuleNotFoundError:
        found = None
    if found is None:
        pytest.skip("this Python comes without its tests (test.test_asyncio)")
    return Path(found.origin).parent


def there(names):
    """Return those of *names* that this Python's suite has."""
    return [name for name in names if (package() / f"{name}.py").exists()]


@functools.cache
def outcome(*names):
    """Run *names* of the suite; return what asyncio_suite.py says."""
    run = subprocess.run(
        [sys.executable, str(SCRIPT), *names], capture_output=True, text=True, timeout=SECONDS
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return json.loads(run.stdout.strip().splitlines()[-1])


def unlisted(cases, patterns):
    """Return the *cases* that no pattern fits, and the patterns that fit no case."""
    odd = [name for name in cases if not any(re.match(p, name) for p in patterns)]
    idle = [p for p in patterns if not any(re.match(p, name) for name in cases)]
    return odd, idle


@pytest.mark.timeout(SECONDS + 60)
def test_cpythons_suite(request):
    names, skipped = there(LOOP), SKIPPED
    if request.config.getoption("--cpython-asyncio") == "all":
        names, skipped = names + there(ABOVE), SKIPPED | SKIPPED_ABOVE
    told = outcome(*names)
    failed = {name: text for name, text in told["failed"].items() if name not in DIVERGES}
    assert failed == {}
    assert set(DIVERGES) <= set(told["failed"]), "a listed case passes"
    assert unlisted(told["skipped"], skipped) == ([], [])
    assert told["run"] >= CASES_AT_LEAST
    print(f"{told['run']} run, {len(told['skipped'])} skipped; slowest: {told['slow']}")


def test_every_module_of_the_suite_is_known():
    names = {path.stem for path in package().glob("test_*.py")}
    assert names - set(LOOP) - set(ABOVE) == NOT_LINUX


def test_the_list_is_strict():
    patterns = {r"test_x\.A\.": "", r"test_y\.B\.c": ""}
    assert unlisted(["test_x.A.a", "test_y.B.c"], patterns) == ([], [])
    assert unlisted(["test_z.A.a", "test_y.B.c"], patterns) == (["test_z.A.a"], [r"test_x\.A\."])


def test_a_wrong_loop_is_found():
    package()
    told = outcome("--wrong", "test_events.EPollEventLoopTests.test_call_soon")
    assert told["failed"]
