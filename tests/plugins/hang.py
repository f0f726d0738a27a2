"""Tell what hangs: a run() that lasts too long has its goroutines printed, once.

One thread for the whole session looks every few seconds; pytest-timeout ends the test later, and
the print stands among what the test wrote. Used by the `run` fixture (guard.py).
"""

import contextlib
import sys
import threading
import time

from gopoll.runtime import stacks
from gopoll.runtime._sched import current_sched

TOO_LONG = 50  # seconds
EVERY = 5


class Watch:
    """What the session's thread looks at."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = {}  # scheduler -> when it has to be done

    @contextlib.contextmanager
    def watched(self):
        """Watch the scheduler of this thread for the length of a block."""
        sched = current_sched()
        with self._lock:
            self._running[sched] = time.monotonic() + TOO_LONG
        try:
            yield
        finally:
            with self._lock:
                self._running.pop(sched, None)

    def look(self, now):
        """Print the schedulers that should have been done by *now*."""
        with self._lock:
            late = [sched for sched, when in self._running.items() if when < now]
            for sched in late:
                del self._running[sched]
        for sched in late:
            print(describe(sched), file=sys.stderr, flush=True)

    def loop(self):
        while True:
            time.sleep(EVERY)
            self.look(time.monotonic())


def describe(sched):
    """Say what each goroutine of *sched* waits in, and what the kernel has for its sockets."""
    lines = [
        f"run() lasts for over {TOO_LONG} s: {sched.poller.stats()}",
        f"lastpoll {sched.lastpoll}, npidle {sched.npidle}, queued {len(sched.globq)}",
    ]
    for g in list(sched.goroutines()):
        lines.append(f"goroutine {g.id} {g.name} {g.state_name} in {g.park_request!r}")
        lines += [f"  {line}" for line in stacks.of_goroutine(g) or ["it runs\n"]]
    for name in ("tcp", "tcp6"):
        with open(f"/proc/self/net/{name}", encoding="ascii") as table:
            lines += table.read().splitlines()[:200]
    return "\n".join(lines)


WATCH = Watch()


def pytest_configure():
    threading.Thread(target=WATCH.loop, name="hang-watch", daemon=True).start()
