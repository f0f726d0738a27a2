"""Signals as values: signal_notify gives a channel, signal_stop ends it.

Called by programs on any thread, and by run() when it ends. Python runs and changes handlers on
the main thread only, so all of this happens there: a call from elsewhere is queued and the main
thread is woken for it. Go: os/signal/signal.go (go1.27).
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any

from gopoll.errors import ChanClosed
from gopoll.runtime import debug
from gopoll.runtime._chan import Chan
from gopoll.runtime._pending import add_pending_call
from gopoll.runtime._sched import current_sched

__all__ = ["signal_notify", "signal_stop"]

CAPACITY = 16

# Changed on the main thread alone, where a signal may come between any two lines: each change is
# one assignment or one item.
_chans: dict[int, tuple[Chan[Any], ...]] = {}
_before: dict[int, Any] = {}  # signal -> the handler that comes back
_owners: dict[Chan[Any], Any] = {}  # channel -> the run that made it, or None
_requests: deque[_Request] = deque()
_serving = False


class _Request:
    """A change that the main thread is to make."""

    def __init__(self, change: Callable[..., None], *args: Any) -> None:
        self.change = change
        self.args = args
        self.error: BaseException | None = None
        self.done = threading.Event()


def count() -> int:
    """Return how many channels wait for signals. While there are any, nothing is a deadlock."""
    return len(_owners)


def _serve() -> None:
    """Make the changes that are asked for. On the main thread; one within another comes later."""
    global _serving
    while _requests and not _serving:
        _serving = True
        try:
            while _requests:
                request = _requests.popleft()
                try:
                    request.change(*request.args)
                except BaseException as err:
                    request.error = err
                request.done.set()
        finally:
            _serving = False


def _forget_parent() -> None:
    """Give the signals of the parent's runs their handlers back, in a forked child."""
    global _serving
    _serving = False
    _requests.clear()
    for chan in [chan for chan, owner in list(_owners.items()) if owner is not None]:
        _remove(chan)


os.register_at_fork(after_in_child=_forget_parent)


def _on_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def _ask(change: Callable[..., None], *args: Any, wait: bool = True) -> None:
    """Have the main thread make a change, and wait until it has."""
    request = _Request(change, *args)
    _requests.append(request)
    if _on_main():
        _serve()
    else:
        add_pending_call(_serve)
        _wake_main()
        if wait:
            request.done.wait()
    if request.error is not None:
        raise request.error


def _main_run() -> Any:
    """Return the scheduler that runs on the main thread, or None."""
    ident = threading.main_thread().ident
    return next((sched for sched in list(debug.running.values()) if sched.m0.ident == ident), None)


def _wake_main() -> None:
    sched = _main_run()
    if sched is not None:  # asleep without a P, or in the network
        sched.poke(sched.m0)
        sched.wake_net_poller()


def _named(signum: int) -> int:
    try:
        return signal.Signals(signum)
    except ValueError:  # a real-time signal has no name
        return signum


def _relay(signum: int, frame: FrameType | None) -> None:
    """Give *signum* to its channels; one that is full misses it, as in Go. A signal handler."""
    for chan in _chans.get(signum, ()):
        try:
            chan.try_send(_named(signum))
        except ChanClosed:
            pass  # by the program: nobody wants it


def _add(chan: Chan[Any], signums: set[int], owner: Any) -> None:
    _owners[chan] = owner
    try:
        for signum in signums:
            first = signum not in _chans
            if first:
                _before[signum] = signal.getsignal(signum)
            _chans[signum] = (*_chans.get(signum, ()), chan)
            if first:
                signal.signal(signum, _relay)
    except BaseException:
        _remove(chan)
        raise


def _remove(chan: Chan[Any]) -> None:
    for signum, chans in list(_chans.items()):
        rest = tuple(c for c in chans if c is not chan)
        if rest:
            _chans[signum] = rest
            continue
        if signal.getsignal(signum) is _relay:  # else the program has set another: it keeps it
            # None: it was not set by Python, and Python cannot set it again
            signal.signal(signum, _before[signum] or signal.SIG_DFL)
        del _chans[signum], _before[signum]
    _owners.pop(chan, None)


def signal_notify(*signals: int) -> Chan[signal.Signals]:
    """Return a channel that gets each of *signals* when it comes, in place of its handler.

    It buffers 16; a signal that finds it full is dropped. Until signal_stop(chan) or the end of the
    run() it was made in; then the handlers are as before. Any thread: RuntimeError off the main
    thread if that runs no gopoll.run(). Go: signal.Notify.
    """
    if not signals:
        raise ValueError("signal_notify() needs at least one signal")
    for signum in signals:
        if isinstance(signum, bool) or not isinstance(signum, int):
            kind = type(signum).__name__
            raise TypeError(
                f"signals are numbers such as signal.SIGUSR1, one argument each, not {kind}"
            )
    numbers = {int(signum) for signum in signals}
    if numbers - signal.valid_signals():
        raise ValueError(f"no such signals: {sorted(numbers - signal.valid_signals())}")
    if not _on_main() and _main_run() is None:
        raise RuntimeError(
            "signal_notify() off the main thread: Python handles signals on the main thread only; "
            "call gopoll.run() or signal_notify() there"
        )
    try:
        owner: Any = current_sched()
    except RuntimeError:
        owner = None
    chan: Chan[signal.Signals] = Chan(CAPACITY)
    _ask(_add, chan, numbers, owner)
    return chan


def signal_stop(chan: Chan[Any]) -> None:
    """Send no more signals to *chan*; handlers that nobody needs are as before. Go: signal.Stop.

    What is buffered can still be received. Nothing happens if it gets none. Any thread.
    """
    if not isinstance(chan, Chan):
        raise TypeError(f"signal_stop() takes a Chan, not {type(chan).__name__}")
    if chan in _owners:
        _ask(_remove, chan)


def end_of_run(sched: Any) -> None:
    """Stop every channel that was made in the run of *sched*, which ends."""
    for chan in [chan for chan, owner in list(_owners.items()) if owner is sched]:
        _ask(_remove, chan, wait=False)
