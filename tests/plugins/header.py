"""What is tested and with what: the head of the report, and the GIL that must stay off.

Called by pytest, on the main thread, when a run starts and when it ends.
"""

import os
import platform
import sys
import sysconfig
from importlib.metadata import version
from importlib.util import find_spec

import pytest

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def gil_is_on() -> bool:
    """Report whether this interpreter holds a GIL now."""
    return getattr(sys, "_is_gil_enabled", lambda: True)()


def pytest_report_header() -> list[str]:
    """Name the package, the interpreter, the kernel and the state of the GIL."""
    spec = find_spec("gopoll")
    where = os.path.dirname(spec.origin) if spec and spec.origin else "not installed"
    build = "free-threaded" if FREE_THREADED else "with the GIL"
    tools = ", ".join(f"{name} {version(name)}" for name in ("Cython", "hypothesis"))
    return [
        f"gopoll: {where}",
        f"python: {platform.python_version()}, {build}, GIL {'on' if gil_is_on() else 'off'}",
        f"system: {platform.system()} {platform.release()}, {os.cpu_count()} CPUs; {tools}",
    ]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run on a free-threaded build that something has given a GIL again."""
    if FREE_THREADED and gil_is_on():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter) -> None:
    """Say why a run that passed has failed."""
    if FREE_THREADED and gil_is_on():
        terminalreporter.section("the GIL is on", red=True)
        terminalreporter.line("an imported extension is not marked as free-threading compatible")
