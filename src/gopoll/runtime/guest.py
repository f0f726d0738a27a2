"""GuestScheduler: the scheduler inside somebody else's loop, on that loop's thread.

Made by embed.Guest, on the host's thread; all but die() and unwaited() is called there. It is
Scheduler with one P that never changes hands: no thread of its own, no sysmon, no signals. What
the program's host does stays the host's. Go: none; runtime/proc.go (go1.27) has its own threads.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from gopoll._host import HostLink
from gopoll._pollerbase import init_poller
from gopoll.runtime import debug
from gopoll.runtime._base import do_all
from gopoll.runtime._guest import Pump, begin_turn, check_turn, end_turn, has_work, run_turn
from gopoll.runtime.notify import end_of_run
from gopoll.runtime.sched import Scheduler

__all__ = ["GuestScheduler"]

TURNS = 16  # so often may a signal handler raise in one step of the end


class GuestScheduler(Scheduler):
    """What one Guest is. There is no main goroutine: it lasts until it is closed."""

    is_guest = True
    why_ending = "the guest has been closed, or the block of attach() left"

    def __init__(self) -> None:
        super().__init__(1, handoff=False)
        self.link: HostLink | None = None
        self.is_closed = False
        self.has_raised = False  # what ended it has been told to the host

    def enter(self, make_link: Callable[..., HostLink] | None) -> None:
        """Belong to the calling thread from now on. RuntimeError if a scheduler runs there."""
        init_poller(self.poller)
        try:
            self._enter(self.m0)
            try:
                self.poller.enable_timerfd()
                if make_link is not None:
                    self.link = make_link(self.poller)
                    self.link.enter_thread()
                debug.running[id(self)] = self  # it is not dropped while a thread points to it
                begin_turn(self, self.m0)
                end_turn(self, self.m0)
            except BaseException:
                self._leave()
                raise
        except BaseException:
            self.poller.close()
            raise

    def _leave(self) -> None:
        if self.link is not None:
            self.link.leave_thread()
        self.leave_thread()
        debug.running.pop(id(self), None)

    def turn(self, budget: int) -> int:
        """Run up to *budget* slices; how many there were. The first error that nobody awaits is
        raised here, once, when everything else has been cancelled.
        """
        n = run_turn(self, self.m0, budget, self._begin_agen, self._drop_agen)
        if self.fatal is not None:
            self.raise_fatal()
        return n

    def pump(self, budget: int, looks: Callable[[], object]) -> Callable[[], None]:
        """Return what a host is to call for a turn; once the guest is ending that calls looks()."""
        return Pump(self, self.m0, budget, self._begin_agen, self._drop_agen, looks)

    def raise_fatal(self) -> None:
        """Raise what has ended the guest, unless it has been raised before."""
        if self.fatal is not None and not self.has_raised:
            self.has_raised = True
            raise self.fatal

    @property
    def has_work(self) -> bool:
        """Whether a goroutine can run now."""
        return has_work(self)

    def check_dead(self) -> None:
        """Do nothing: the host may wake whoever waits."""

    def check_close(self) -> None:
        """RuntimeError where close() cannot be called: on another thread, and inside a turn."""
        if not self.is_forked:
            check_turn(self, self.m0, "close()")

    def close_if_idle(self) -> bool:
        """close(), if that waits for nothing and can be called here: whether it has been done.

        What holds goroutines has their `finally` blocks to run, for which nobody has called.
        """
        if self.live or self.pool.is_busy:
            return False
        try:
            self.check_close()
        except RuntimeError:
            return False
        self.close()
        return True

    def close(self) -> None:
        """Cancel what runs still, run it to its end, and give the thread back. Blocks for that."""
        if self.is_closed:
            return
        if self.is_forked:
            self.is_closed = True
            self._leave()
            return
        self.check_close()
        if not self.is_finished:
            begin_turn(self, self.m0)
            self.is_closed = True
            hooks = sys.get_asyncgen_hooks()
            sys.set_asyncgen_hooks(self._begin_agen, self._drop_agen)
            try:
                self.shut_down()
                self.mloop(self.m0)
            finally:
                sys.set_asyncgen_hooks(*hooks)
        self.is_closed = True
        steps: tuple[Callable[[], Any], ...] = (
            self.finish_all,
            lambda: end_of_run(self),
            self._leave,
            self._stop,
        )
        do_all(TURNS, *steps)
        self.has_outcome = True  # stored, then close() looks whether there is an error
