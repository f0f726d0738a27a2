"""What a result has to say about its origin, and the builds that are refused.

Called by the runner. No names of hosts, users or folders: results are committed.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

from bench.macro.build import Missing, find_cc, find_go, first_line

ROOT = Path(__file__).resolve().parent.parent.parent
RIVALS = ("gopoll", "uvloop", "rloop", "gevent", "greenlet", "trio", "curio")


def refusal() -> str | None:
    """Say why figures of this build would mean nothing, or None. Raises Missing without gopoll."""
    try:
        from gopoll._poller import BUILD
    except ModuleNotFoundError as exc:
        raise Missing(f"{exc} (pip install '.[bench]')") from None

    if BUILD != "release":
        return (
            f"this gopoll is a {BUILD} build, its figures mean nothing: build it again without "
            "GOPOLL_TRACE and GOPOLL_SANITIZE"
        )
    if hasattr(sys, "gettotalrefcount") or sysconfig.get_config_var("Py_DEBUG"):
        return "this Python is a debug build (Py_DEBUG), its figures mean nothing: take a release"
    if "-fsanitize" in (sysconfig.get_config_var("CFLAGS") or ""):
        return "this Python is built with a sanitizer, its figures mean nothing: take a release"
    return None


def machine() -> dict[str, Any]:
    """Return the processor, the memory and the kernel."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    facts = dict(reversed([[part.strip() for part in s.split(":", 1)] for s in info if ":" in s]))
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": facts.get("model name", platform.machine()),
        "cpus": len(os.sched_getaffinity(0)),
        "virtual": "hypervisor" in facts.get("flags", "").split(),
        "memory_mib": pages * page >> 20,
        "kernel": platform.release(),
    }


def versions() -> dict[str, str]:
    """Return the versions of all that takes part and is there."""
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    threading = "" if gil else ", free-threaded"
    found = {"python": f"{platform.python_implementation()} {platform.python_version()}{threading}"}
    for name in RIVALS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    with contextlib.suppress(Missing):
        found["cc"] = first_line(*find_cc(), "--version")
    with contextlib.suppress(Missing):
        found["go"] = first_line(find_go(), "version").removeprefix("go version ")
    return found


def commit() -> dict[str, Any]:
    """Return the commit of this tree and whether something is changed in it; None outside git."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "src", "bench", "setup.py")
        other = bool(changed) or other_build() is not None
        return {"commit": git("rev-parse", "HEAD"), "changed": other}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "changed": None}


def other_build() -> str | None:
    """Name a file of the installed gopoll that is not as in this tree, or None.

    What is compiled is not looked at, only the declarations beside it.
    """
    import gopoll

    installed = Path(gopoll.__file__).parent
    for path in sorted((ROOT / "src" / "gopoll").rglob("*.p*")):
        name = path.relative_to(ROOT / "src" / "gopoll")
        if path.suffix not in (".py", ".pxd", ".pyi"):
            continue
        there = installed / name
        if not there.exists() or there.read_bytes() != path.read_bytes():
            return str(name)
    return None


def origin() -> dict[str, Any]:
    """Return all of it, with the time."""
    return {
        "taken": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "load_average": round(os.getloadavg()[0], 2),
        "machine": machine(),
        "versions": versions(),
        **commit(),
    }
