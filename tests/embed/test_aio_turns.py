"""EventLoop's turns: run_forever() has some of them made by one call of _run_once()."""

import asyncio
import ctypes
import functools
import signal
import threading

import pytest

from embed.loops import loop  # noqa: F401  (fixtures)
from gopoll.embed import aio

# ruff: noqa: F811


def test_who_has_a_run_once_of_its_own_is_called_for_each_turn():
    class Counting(aio.EventLoop):
        turns = 0

        def _run_once(self):
            self.turns += 1
            super()._run_once()

    async def main():
        for _ in range(100):
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=Counting) as runner:
        runner.run(main())
        assert runner.get_loop().turns > 100
    with asyncio.Runner(loop_factory=aio.new_event_loop) as runner:
        loop, turns = runner.get_loop(), []
        plain = loop._run_once
        loop._run_once = lambda: turns.append(plain())
        runner.run(main())
        assert len(turns) > 100


def test_a_turn_by_hand_is_one(loop):
    """In a callback too, as programs do that wait in a function."""
    seen = []

    def again():
        seen.append(len(seen))
        loop.call_soon(again)

    def wait():
        loop.stop()
        before = len(seen)
        loop._run_once()
        loop._run_once()
        waited.append(len(seen) - before)

    waited = []
    loop.call_soon(again)
    loop._run_once()
    assert seen == [0]
    loop.call_soon(wait)
    loop.run_forever()
    assert waited == [2]


def test_a_turn_by_who_runs_the_loop_in_his_own_way_is_one(loop):
    """As for a GUI, with the loop set up as run_forever() does it."""
    seen = []

    def again():
        seen.append(len(seen))
        loop.call_soon(again)

    loop.call_soon(again)
    loop._thread_id = threading.get_ident()
    asyncio._set_running_loop(loop)
    try:
        for _ in range(3):
            loop._run_once()
    finally:
        asyncio._set_running_loop(None)
        loop._thread_id = None
    assert len(seen) == 3


def test_a_signal_handler_that_stops_the_loop_has_no_turn_after_it(loop):
    seen = []
    raise_signal = ctypes.CDLL(None)["raise"]
    loop.call_soon(raise_signal, int(signal.SIGUSR1))
    loop.call_soon(loop.call_soon, seen.append, "later")
    before = signal.signal(signal.SIGUSR1, lambda *_: loop.stop())
    try:
        loop.run_forever()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == []


def test_stop_ends_the_turn_and_one_before_it_lets_one_run(loop):
    seen = []

    def again():
        seen.append(1)
        loop.call_soon(again)

    loop.call_soon(again)
    loop.stop()
    loop.run_forever()
    assert len(seen) == 1
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert len(seen) == 2


def test_signals_and_threads_get_their_turn_where_no_callback_is_python(loop):
    """The interpreter looks after both between the calls of _run_once."""
    again = functools.partial(print)
    again.__setstate__((loop.call_soon, (again,), {}, None))
    over = threading.Event()

    def interrupt():
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        over.set()

    thread = threading.Thread(target=interrupt)
    loop.call_soon(again)
    loop.call_soon(thread.start)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    thread.join()
    assert over.is_set()
    again.__setstate__((print, (), {}, None))  # it had itself


def test_a_signal_that_came_in_a_callback_of_c_is_handled_before_the_next_wait(loop):
    """Nothing of Python runs between the two, and the wait would not end."""
    stopped = []

    def handle(*_):
        stopped.append("signal")
        loop.stop()

    def too_late():
        stopped.append("timer")
        loop.stop()

    late = loop.call_later(5, too_late)
    loop.call_soon(ctypes.CDLL(None)["raise"], int(signal.SIGUSR1))
    before = signal.signal(signal.SIGUSR1, handle)
    try:
        loop.run_forever()
    finally:
        signal.signal(signal.SIGUSR1, before)
    late.cancel()
    assert stopped == ["signal"]
