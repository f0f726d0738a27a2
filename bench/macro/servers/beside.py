"""What disturbs the echo in a server in Python, for bench.interference.

Imported by the servers that can be disturbed. The command line says by what:

    none       nothing; what it is without the word
    hog        a plain thread that computes in Python without a pause
    sleep      a task of the server's own kind calls time.sleep(0.1), over and over
    syscall    the same, as those who know that it blocks would write it: in a thread, or in
               gopoll.syscall()
    compute    such a task computes in Python for 100 ms at a time
    deadlines  nothing, but each read has a deadline

A task rests for a millisecond after it has blocked, as the user's library has it. The hog's thread
is called "hog": the runner looks how much time it was given.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

BLOCK_SECONDS = 0.1
REST_SECONDS = 0.001
DEADLINE_SECONDS = 30.0  # for each read: never over, always moved
BLOCKING = ("sleep", "syscall", "compute")  # those for which the server has a task


def what() -> str:
    """Return what disturbs."""
    return sys.argv[3] if len(sys.argv) > 3 else "none"


def certificate() -> str | None:
    """Return the file of a key and a certificate, or None."""
    return sys.argv[4] if len(sys.argv) > 4 else None


def sleep() -> None:
    """Block the calling thread."""
    time.sleep(BLOCK_SECONDS)


def compute(seconds: float = BLOCK_SECONDS) -> None:
    """Keep the calling thread busy in Python."""
    end = time.perf_counter() + seconds
    n = 0
    while time.perf_counter() < end:
        n += 1


def block() -> None:
    """Block as the command line says."""
    compute() if what() == "compute" else sleep()


def hog() -> None:
    """Start the thread that never rests, if it was asked for."""
    if what() == "hog":
        import threading  # here, since it would be seen in the memory of every server

        named = threading.Event()
        threading.Thread(target=_hog, args=(named.set,), daemon=True).start()
        named.wait()


def _hog(tell: Callable[[], None]) -> None:
    with open("/proc/thread-self/comm", "w", encoding="ascii") as name:
        name.write("hog")
    tell()
    while True:
        compute(3600)
