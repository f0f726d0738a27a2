"""Signals while run() is on the main thread: Ctrl-C interrupts the main goroutine, at once if it
waits; one that does not is interrupted by the second.

Used by Scheduler.run. Python's handlers run on the main thread only, which may be asleep in the
network: the wake-up descriptor ends that sleep whatever the moment the signal came at.
Go: runtime/sigqueue.go and os/signal (go1.27).
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Generator
from types import FrameType
from typing import Any

from gopoll._polldesc import PollDesc
from gopoll._poller import READ
from gopoll.errors import Canceled, op_error
from gopoll.runtime._base import do_all, give_back, keep
from gopoll.runtime._sched import current_g, interrupt
from gopoll.runtime.context import background
from gopoll.runtime.debug import dump
from gopoll.runtime.notify import end_of_run

TURNS = 16  # so often may a handler of the program's raise in one step of the end

_set_wakeup_fd = functools.partial(signal.set_wakeup_fd, warn_on_full_buffer=False)


class Signals:
    """What is installed around the scheduler's loop; does nothing off the main thread.

    A pipe is the wake-up descriptor (an eventfd cannot be: Python writes one byte), read by a
    goroutine of our own. A host's wake-up descriptor gets the bytes too.
    """

    def __init__(self, sched: Any) -> None:
        self._sched = sched  # the Scheduler, which imports us
        self._pipe: tuple[int, int] | None = None  # reader, writer
        self._outer: int | None = None  # the host's, -1 if it has none
        self._pd: PollDesc | None = None
        self._own = self._quits = False
        self._keeps = True  # a Ctrl-C, while there is no main yet or all is being undone
        self._kept = False

    def hold(self) -> None:
        """Have Ctrl-C come to us, before anything that it must not interrupt."""
        # Only Python's own handler is replaced: a program that has one of its own keeps it.
        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGINT)
            self._own = handler is signal.default_int_handler or _is_parents(handler)
            if self._own:
                signal.signal(signal.SIGINT, self._on_sigint)

    def install(self) -> None:
        """Have signals wake the poller, and SIGQUIT come to us."""
        if threading.current_thread() is not threading.main_thread():
            return
        try:
            keep(self, "_pipe", os.pipe2, os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as exc:
            raise op_error("pipe", "", None, None, exc) from None
        assert self._pipe is not None
        keep(self, "_outer", _set_wakeup_fd, self._pipe[1])
        self._quits = signal.getsignal(signal.SIGQUIT) is signal.SIG_DFL
        if self._quits:
            signal.signal(signal.SIGQUIT, self._on_sigquit)

    def start(self) -> None:
        """Start the goroutine that reads the wake-up descriptor; give main what was kept for it."""
        if self._pipe is not None:
            self._pd = self._sched.poller.open(self._pipe[0])
            g = self._sched.make_g(self._loop(self._pd), background(), "signals", system=True)
            self._sched.start_g(g, wake=False)
            self._sched.add_syswaiter(1)
        self._keeps = False  # then look: what comes now is main's at once
        if self._kept:
            self._kept = False
            self._sched.main.set_pending(KeyboardInterrupt())

    async def _loop(self, pd: PollDesc) -> None:
        """Take the bytes, so that the next signal wakes the poller again; pass them on."""
        while True:
            try:
                await self._take(pd)
            except (Canceled, GeneratorExit):
                raise
            except BaseException as err:  # of a handler of the program's, which may come just here
                if self._sched.is_finished:
                    return  # what is read here may be closed by now
                self._sched.die(err)

    async def _take(self, pd: PollDesc) -> None:
        pd.reset(READ)
        try:
            data = os.read(self._pipe[0], 4096)  # type: ignore[index]
        except BlockingIOError:
            await _Readable(pd)
            return
        self._sched.poke(self._sched.m0)  # the thread that runs Python's handlers may sleep
        self._pass_on(data)

    def _pass_on(self, data: bytes) -> None:
        """Give the bytes to the host's own wake-up descriptor."""
        if self._outer is not None and self._outer != -1:
            try:
                os.write(self._outer, data)
            except OSError:
                pass  # as Python does: a full or closed wake-up descriptor loses bytes

    def _on_sigint(self, signum: int, frame: FrameType | None) -> None:
        """Leave a Ctrl-C to the main goroutine; raise in place if it has not come to the last yet.

        In place is where a goroutine runs on this thread; else it ends run() as any error does.
        While run() begins or undoes things the first is kept until that is done.
        """
        main = self._sched.main
        if self._sched.is_forked:
            signal.default_int_handler(signum, frame)  # the run is the parent's
        if self._keeps and (main is None or not self._kept):
            self._kept = True
        elif self._keeps:
            raise KeyboardInterrupt
        elif main is not None and not main.done and not main.has_pending:
            main.set_pending(KeyboardInterrupt())  # G1: the state, then the park
            interrupt(main)
        elif current_g() is not None:
            raise KeyboardInterrupt
        else:
            self._sched.die(KeyboardInterrupt())

    def _on_sigquit(self, signum: int, frame: FrameType | None) -> None:
        """Print every goroutine, and go on, also where nothing can be printed."""
        try:
            dump()
        except (OSError, ValueError, RuntimeError):
            pass  # stderr is closed, broken, or in the midst of a write

    def stop(self) -> None:
        """Put back what was there, but for the handlers: what follows is not to be interrupted."""
        self._keeps = True
        do_all(
            TURNS,
            lambda: end_of_run(self._sched),
            self._restore_wakeup,
            lambda: give_back(self, "_pd", self._close_pd),
            lambda: give_back(self, "_pipe", self._close_pipe),
        )

    def restore(self) -> None:
        """Put the handlers back, when all is done; raise KeyboardInterrupt if one was kept."""
        if self._own and signal.getsignal(signal.SIGINT) == self._on_sigint:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._quits and signal.getsignal(signal.SIGQUIT) == self._on_sigquit:
            signal.signal(signal.SIGQUIT, signal.SIG_DFL)
        if self._kept:
            self._kept = False
            raise KeyboardInterrupt

    def _restore_wakeup(self) -> None:
        if self._outer is not None:
            signal.set_wakeup_fd(self._outer)

    def _close_pd(self, pd: PollDesc) -> None:
        if not self._sched.is_forked:
            pd.evict()
            pd.close()

    def _close_pipe(self, pipe: tuple[int, int]) -> None:
        """Close both ends; what came after the loop's last look goes to the host."""
        reader, writer = pipe
        try:
            os.close(writer)
            self._pass_on(os.read(reader, 4096))
        except BlockingIOError:
            pass
        finally:
            os.close(reader)


def _is_parents(handler: object) -> bool:
    """Report whether *handler* is that of a run which stayed in the parent at a fork."""
    signals = getattr(handler, "__self__", None)
    return isinstance(signals, Signals) and bool(signals._sched.is_forked)


class _Readable:
    """Parks until a PollDesc is readable."""

    def __init__(self, pd: PollDesc) -> None:
        self._pd = pd

    def __await__(self) -> Generator[Any, None, None]:
        yield self._pd.wait(READ)
