"""Alarms for what no run() keeps the time of: one thread for all of them.

Called by contexts with a deadline that are made outside of run(), on any thread. What is due is
called on the clock's own, which is there while something is to come. Go: runtime/time.go, whose
heaps belong to the Ps.

T3: who puts an alarm into `news` does so first and then looks, under the lock, for a thread; one
    that leaves looks at news under the lock. Of the two one sees the other. The heap is the
    thread's alone: a signal handler or a finaliser that comes in the midst only adds to news.
"""

from __future__ import annotations

import heapq
import itertools
import os
import queue
import threading
import time
from collections.abc import Callable

from gopoll.runtime.report import tell


class Alarm:
    """One call at a moment, unless it is stopped before. Made by call_at()."""

    __slots__ = ("_call", "_pid", "when")

    def __init__(self, when: float, call: Callable[[], object]) -> None:
        self.when = when
        self._call: Callable[[], object] | None = call
        self._pid = os.getpid()

    def stop(self) -> None:
        """Do not call any more. Any thread."""
        if self.is_pending:
            self._call = None
            _clock.news.put(None)

    @property
    def is_pending(self) -> bool:
        """Whether it is still to come, in this process."""
        return self._call is not None and self._pid == os.getpid()

    def ring(self) -> None:
        """Call, once. On the clock's thread."""
        call, self._call = self._call, None
        if call is not None:
            try:
                call()
            except BaseException as err:  # the others' time comes all the same
                tell(err)


class _Clock:
    def __init__(self) -> None:
        self.start_afresh()

    def start_afresh(self) -> None:
        """Be without alarms and a thread, as in a forked child: those are the parent's."""
        self.news: queue.SimpleQueue[Alarm | None] = queue.SimpleQueue()  # None: one is stopped
        self.lock = threading.RLock()  # guards thread
        self.thread: threading.Thread | None = None

    def start_thread(self) -> None:
        """Start the thread if there is none. What was put into news before, it finds (T3)."""
        with self.lock:
            if self.thread is None or not self.thread.is_alive():
                # Daemon: the interpreter does not wait for deadlines.
                self.thread = threading.Thread(target=self.run, name="gopoll-clock", daemon=True)
                self.thread.start()

    def run(self) -> None:
        """Ring what is due until nothing is to come."""
        heap: list[tuple[float, int, Alarm]] = []
        numbers, stopped = itertools.count(), 0
        while True:
            while heap and heap[0][0] <= time.monotonic():  # whatever news there are
                heapq.heappop(heap)[2].ring()
            left = heap[0][0] - time.monotonic() if heap else 0.0
            try:
                alarm = self.news.get(left > 0, min(max(left, 0.0), threading.TIMEOUT_MAX))
            except queue.Empty:
                pass
            else:
                if alarm is None:
                    stopped += 1
                else:
                    heapq.heappush(heap, (alarm.when, next(numbers), alarm))
                    continue
            if 2 * stopped > len(heap):
                heap, stopped = [entry for entry in heap if entry[2].is_pending], 0
                heapq.heapify(heap)
            alarm = None  # it keeps a context
            if not heap:
                with self.lock:
                    if self.news.empty():  # T3
                        self.thread = None
                        return


_clock = _Clock()
os.register_at_fork(after_in_child=_clock.start_afresh)


def call_at(when: float, call: Callable[[], object]) -> Alarm:
    """Have call() called at *when* (time.monotonic() seconds), and not before. Any thread.

    RuntimeError if there is no thread and none can be started.
    """
    alarm = Alarm(when, call)
    _clock.news.put(alarm)
    try:
        _clock.start_thread()
    except BaseException:
        alarm.stop()
        raise
    return alarm
