"""The benches as they are run by hand: in a process of their own, from the top of the tree.

Called by tests, on the main thread. A gopoll that is built for tests has to do there: nobody looks
at the figures.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 250  # seconds

RELEASE = """
import runpy, sys
import gopoll._poller
gopoll._poller.BUILD = "release"
"""

MODULE = """
sys.argv[0] = "{name}"
runpy.run_module("{name}", run_name="__main__")
"""

PYTEST = """
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


def module(name: str) -> str:
    """Return the code that runs the module *name* as `python -m` does."""
    return RELEASE + MODULE.format(name=name)


def command(code: str, *words: object) -> tuple[list[str], dict[str, Any]]:
    """Return the command that runs *code* with *words*, and options for subprocess."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    options = {"cwd": ROOT, "env": env, "text": True}
    return [sys.executable, "-c", code, *map(str, words)], options


def run(code: str, *words: object, status: int | None = 0) -> tuple[str, str]:
    """Run it to its end; return (stdout, stderr). status: that it must have, None for a failure."""
    line, options = command(code, *words)
    done = subprocess.run(
        line, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, **options
    )
    as_wanted = done.returncode != 0 if status is None else done.returncode == status
    assert as_wanted, done.stdout + done.stderr
    return done.stdout, done.stderr
