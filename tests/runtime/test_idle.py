"""A program in which nothing happens makes no system call: no thread of it wakes up.

strace watches all its threads, sysmon included, for a while after they have gone to sleep.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from runtime.tools import until

WINDOW = 0.5  # seconds; sysmon at its shallowest idle sleep would wake 50 times

PROGRAM = """
import os, socket, sys, time
import gopoll

async def blocks():
    with gopoll.syscall():
        time.sleep(0.01)

async def main():
    # Every P and some threads have been busy before.
    for g in [gopoll.go(blocks) for _ in range(8)]:
        await g
    listener = await gopoll.listen("tcp", "127.0.0.1:0")
    print(os.getpid(), flush=True)
    await {park}
    print("woken", flush=True)
    await listener.close()

gopoll.run(main, {options})
"""

PARKS = {"a socket": "listener.accept()", "a far timer": "gopoll.sleep(3600)"}


def switches(pid):
    """Return {thread: how often it has gone to sleep} of a process."""
    counts = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        text = (task / "status").read_text(encoding="ascii")
        counts[task.name] = int(
            re.search(r"^voluntary_ctxt_switches:\s+(\d+)$", text, re.MULTILINE)[1]
        )
    return counts


def has_settled(pid):
    """Whether no thread of it has gone to sleep again for a while."""
    before = switches(pid)
    time.sleep(0.2)
    return switches(pid) == before


@pytest.fixture
def traced(tmp_path):
    """Return a function that starts a program under strace; give its pid and the trace's path."""
    if shutil.which("strace") is None:
        pytest.skip("no strace on this machine")
    started = []

    def start(code):
        trace = tmp_path / "trace"
        command = ["strace", "-f", "-ttt", "-o", str(trace)]
        if subprocess.run([*command, "true"], capture_output=True).returncode:
            pytest.skip("strace may not trace here")
        child = subprocess.Popen(
            [*command, sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE
        )
        pid = int(child.stdout.readline())
        started.append((child, pid))
        return child, pid, trace

    yield start
    for child, pid in started:
        if child.poll() is None:
            os.kill(pid, signal.SIGKILL)
        child.wait(60)
        child.stdout.close()


def calls(trace, since, until_):
    """Return the lines of a trace that began between two moments."""
    found = []
    for line in trace.read_text(encoding="utf-8", errors="replace").splitlines():
        match = re.match(r"\d+ +(\d+\.\d+) (?!\+\+\+|---|<\.\.\.)", line)
        if match and since <= float(match[1]) <= until_:
            found.append(line)
    return found


@pytest.mark.parametrize("options", ["procs=1", "procs=4", "handoff=False"])
@pytest.mark.parametrize("what", PARKS)
def test_an_idle_program_makes_no_system_call(traced, what, options):
    child, pid, trace = traced(PROGRAM.format(park=PARKS[what], options=options))
    until(lambda: has_settled(pid))

    def is_silent():  # on a busy machine one of its threads may still have been on its way
        began = time.time()
        time.sleep(WINDOW)
        return calls(trace, 0, began) and not calls(trace, began, time.time())

    until(is_silent)
    assert len(switches(pid)) >= 2, "sysmon and run's own thread at least"
    os.kill(pid, signal.SIGKILL)
    child.wait(60)


def test_a_program_that_does_something_is_seen(traced):
    """The counterpart: what ticks every 10 ms is in the trace."""
    child, pid, trace = traced(
        """
        import os
        import gopoll

        async def main():
            print(os.getpid(), flush=True)
            while True:
                await gopoll.sleep(0.01)

        gopoll.run(main)
        """
    )
    began = time.time()
    until(lambda: calls(trace, began, time.time()))
    os.kill(pid, signal.SIGKILL)
    child.wait(60)
