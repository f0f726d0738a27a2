"""The processes of a measurement: where they run, what they print, that they end.

Called by measure.py, on the main thread of the runner.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator

PR_SET_PDEATHSIG = 1
START_SECONDS = 30  # that a server may take to listen

_prctl = ctypes.CDLL(None).prctl

# What makes a runtime slow or talkative has no place in a server that is measured.
_DROPPED = ("PYTHON", "GOPOLL_", "GODEBUG", "GOGC", "GOMEMLIMIT", "LD_PRELOAD")
_KEPT = ("PYTHONPATH", "PYTHONHOME", "PYTHON_GIL")

# A block of 64 KiB or more that comes and goes has glibc give memory back to the kernel and take it
# again, page by page: for each message, for some, or for none, as the heap happens to lie. Here it
# keeps what it has, for everybody; rivals.py has servers "as shipped" without.
KEEP_BLOCKS = {"MALLOC_MMAP_THRESHOLD_": "4194304", "MALLOC_TRIM_THRESHOLD_": "16777216"}


class Failed(Exception):
    """A point could not be measured; the text says why."""


def environment() -> dict[str, str]:
    """Return the environment of servers and load: one P for Go and for gopoll, no debug modes."""
    kept = {k: v for k, v in os.environ.items() if k in _KEPT or not k.startswith(_DROPPED)}
    return kept | {"GOMAXPROCS": "1", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}


def end_with_us() -> None:
    """Ask the kernel to kill this child when the runner is gone, however that happens."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A child on one CPU, under SCHED_BATCH if so wanted. Ended by kill(), its threads with it."""

    def __init__(self, command: list[str], cpu: int, *, batch: bool) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (kill() closes it)
        before = os.sched_getaffinity(0), os.sched_getscheduler(0)
        try:
            os.sched_setaffinity(0, {cpu})  # a child inherits both
            os.sched_setscheduler(0, os.SCHED_BATCH if batch else os.SCHED_OTHER, _NO_PRIORITY)
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment() | KEEP_BLOCKS,
                preexec_fn=end_with_us,
            )
        except OSError as exc:
            self._errors.close()
            raise Failed(f"{command[0]} cannot be started: {exc}") from None
        finally:
            os.sched_setaffinity(0, before[0])
            os.sched_setscheduler(0, before[1], _NO_PRIORITY)
        self._pending = b""

    @property
    def pid(self) -> int:
        return self._child.pid

    def line(self, seconds: float) -> str:
        """Return the next line of stdout; raise Failed at its end, or after so long."""
        end = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._child.stdout, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                if not selector.select(max(0.0, end - time.monotonic())):
                    raise Failed(f"nothing from {self.what()} in {seconds:g} s")
                data = os.read(self._child.stdout.fileno(), 65536)
                if not data:
                    raise Failed(self.obituary())
                self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode()

    def tell(self, text: str) -> None:
        """Write a line to stdin; who has ended is found out when its answer is read."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._child.stdin.fileno(), text.encode() + b"\n")

    def has_ended(self, seconds: float = 0) -> bool:
        """Report whether it has ended, or does so within *seconds*."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(seconds)
        return self._child.returncode is not None

    def what(self) -> str:
        """Return a name for messages."""
        return os.path.basename(self._child.args[0])

    def obituary(self) -> str:
        """Say how it ended, with the last line of stderr. It has ended, or is about to."""
        status = self._child.returncode if self.has_ended(5) else None
        how = "has closed its stdout" if status is None else f"ended with status {status}"
        return f"{self.what()} {how}: {self.last_words()}"

    def last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing on stderr"

    def kill(self) -> None:
        """End it and wait for it."""
        self._child.kill()
        self._child.wait()
        for file in (self._child.stdin, self._child.stdout, self._errors):
            file.close()


_NO_PRIORITY = os.sched_param(0)


@contextlib.contextmanager
def running(command: list[str], cpu: int, *, batch: bool) -> Iterator[Process]:
    """Give a Process that is killed in the end."""
    process = Process(command, cpu, batch=batch)
    try:
        yield process
    finally:
        process.kill()


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process, exactly: VmRSS is a sum that lags behind."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            for line in file:
                if line.startswith("Rss:"):
                    return int(line.split()[1]) * 1024
    except OSError as exc:
        raise Failed(f"the server's memory cannot be read: {exc}") from None
    raise Failed("the server's memory cannot be read: no Rss in smaps_rollup")
