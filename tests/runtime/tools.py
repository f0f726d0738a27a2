"""What the tests of the runtime share: things to run, threads that watch, and programs that fork.

Called by tests; the functions of the second half on plain threads, the others anywhere.
"""

import os
import sys
import textwrap
import threading
import time

from gopoll.runtime._exec import ExecBase
from gopoll.runtime._sched import current_sched
from helpers.child import run_python
from plugins.probe import load

ONE = {"procs": 1, "handoff": False}  # where the order of goroutines is part of the promise


class Value:
    """An awaitable that is no coroutine: its value, at once."""

    def __init__(self, value):
        self.value = value

    def __await__(self):
        return self.value
        yield


class Foreign:
    """An awaitable that yields what no scheduler of ours knows."""

    def __init__(self, thing):
        self.thing = thing

    def __await__(self):
        yield self.thing


async def value(*args):
    """Return the arguments."""
    return args


async def fails(error):
    """Raise *error*."""
    raise error


def in_thread(fn, *args):
    """Run fn(*args) on a plain thread to its end; return its result or raise its error."""
    box = []

    def call():
        try:
            box.append((fn(*args), None))
        except BaseException as exc:
            box.append((None, exc))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    result, error = box[0]
    if error is not None:
        raise error
    return result


def until(condition, seconds=60):
    """Wait on a plain thread until condition() is true; return what it gave."""
    end = time.monotonic() + seconds
    while not (got := condition()):
        assert time.monotonic() < end, "it has not come to that"
        time.sleep(0.001)
    return got


def when(condition, act):
    """Start a thread that calls act() once condition() is true; return it."""

    def wait():
        until(condition)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def voluntary_switches(thread):
    """Return how often the kernel has put *thread* to sleep."""
    with open(f"/proc/self/task/{thread.native_id}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("voluntary_ctxt_switches:"):
                return int(line.split()[1])
    raise ValueError(f"no count for {os.getpid()}/{thread.native_id}")


# The thread that forks is all that the child has; if that is not run()'s, there is no run() to
# raise in it. A main that awaits something before it forks locks itself to run()'s thread first.
FORKS = """
import os, socket, sys, threading, time, warnings
warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
import gopoll

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def fork():
    "Fork; in the parent wait for the child, which must end well, and return False."
    pid = os.fork()
    if pid == 0:
        return True
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    say("child ended with", status)
    return False

async def parked(*gs):
    while any(g.state != "waiting" for g in gs):
        await gopoll.gosched()
"""


def said(code):
    """Run FORKS and *code* in a process of its own; the lines it and its children have written."""
    done = run_python(FORKS + textwrap.dedent(code))
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr, done.stderr
    return done.stdout.splitlines()


class Bare(ExecBase):
    """A scheduler with one P and no threads, whose policy is the test."""

    def __init__(self):
        super().__init__(True)
        self.set_nprocs(1)
        self.callables = []

    def start_thread(self, m):
        return False

    def check_dead(self):
        pass

    def run_callable(self, fn):
        self.callables.append(fn)

    def block(self):
        """Be an M that has nothing to run: wait in the network until something happens."""
        m = self.first_m()
        assert self.take_p(m)
        (sys.modules.get("_probe") or load()).idle(self, m)
        return m


def current_p():
    """Return the P that the running goroutine's M holds, or None if it has just been taken."""
    sched = current_sched()
    me = sched.this_m().id
    held = (p for p in sched.allp if p.status[0] in (1, 2) and p.status[1] == me)
    return next(held, None)
