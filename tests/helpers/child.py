"""Child processes and what the kernel says about our descriptors, for the tests.

Called by tests, on the main thread.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
WARNINGS = ["-W", "error"]
if sys.version_info >= (3, 15):  # which raises this in the parent; before, it was only printed
    WARNINGS += ["-W", "ignore:This process (pid=:DeprecationWarning"]


def run_python(code: str, *args: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run *code* in an interpreter like this one, which sees the same gopoll and these helpers."""
    path = [str(HERE), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, *WARNINGS, "-c", textwrap.dedent(code), *map(str, args)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


# What fails in the child must be seen: its exit status says that, and stderr says why.
FORK = """
import gc, os, signal, sys, time, traceback
import gopoll
from gopoll import READ, ClosedError, ForkedError, Poller
from helpers.child import registrations
from helpers.polls import FAR, Waiter, drain, park, references

def in_child(check):
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(50)
            check()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status == 0, f"the child failed: {status}"
"""


def run_forking(code: str, *args: object) -> None:
    """Run *code* after FORK in an interpreter that may fork: it has no other threads."""
    done = run_python(FORK + code + "\nprint('ok')\n", *args)
    assert (done.stdout, done.stderr) == ("ok\n", ""), done.stdout + done.stderr


def registrations(epfd: int) -> dict[int, tuple[int, int]]:
    """Return {descriptor: (events, data)} of an epoll instance, as the kernel has it."""
    found = {}
    for line in Path(f"/proc/self/fdinfo/{epfd}").read_text(encoding="ascii").splitlines():
        words = line.split()
        if words[0] == "tfd:":
            found[int(words[1])] = (int(words[3], 16), int(words[5], 16))
    return found


def eventfd_count(fd: int) -> int:
    """Return the counter of an eventfd without reading it."""
    for line in Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii").splitlines():
        if line.startswith("eventfd-count:"):
            return int(line.split()[1], 16)
    raise ValueError(f"{fd} is no eventfd")


def open_fds() -> set[int]:
    """Return this process's open descriptors."""
    return {int(name) for name in os.listdir("/proc/self/fd")} - {_listing()}


def _listing() -> int:
    """The number that the listing itself had: the lowest free one, so it is free again."""
    fd = os.open("/proc/self/fd", os.O_RDONLY)
    os.close(fd)
    return fd
