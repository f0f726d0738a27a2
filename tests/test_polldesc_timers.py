"""Timer and Note: waits without a descriptor."""

import gc
import inspect
import os
import threading
import time

import pytest

from gopoll import ClosedError, Poller, Timer
from gopoll._polldesc import Note
from helpers.child import run_forking
from helpers.polls import FAR, Running, Waiter, drain, references

# -- timers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead_ns", [1, 300_000, 1_500_000])
def test_a_timer_fires_once_and_never_early(poller, ahead_ns):
    when = time.monotonic_ns() + ahead_ns
    timer = poller.call_at_ns(when, "waiter")
    assert timer.poller is poller
    assert poller.netpoll(-1) == ["waiter"]
    assert time.monotonic_ns() >= when
    assert poller.netpoll(0) == []
    assert timer.stop() is False


@pytest.mark.parametrize("when", [0, -1, -(2**63), 1])
def test_a_time_that_has_passed_is_now(poller, when):
    poller.call_at_ns(when, "waiter")
    assert poller.netpoll(0) == ["waiter"]


def test_timers_fire_in_the_order_of_their_times(poller):
    for n in (5, 1, 4, 2, 3):
        poller.call_at_ns(n, n)
    assert poller.netpoll(0) == [1, 2, 3, 4, 5]


def test_an_armed_timer_holds_one_reference_until_it_fires_or_is_stopped(poller):
    waiter = Waiter()
    before = references(waiter)
    timer = poller.call_at_ns(FAR, waiter)
    assert references(waiter) == before + 2, "the timer's own, and the heap's"
    assert timer.stop() is True
    assert timer.stop() is False
    assert references(waiter) == before + 1
    assert timer.move(1) is False
    assert references(waiter) == before + 2
    assert poller.netpoll(0) == [waiter]
    assert references(waiter) == before + 1
    del timer
    assert references(waiter) == before


def test_a_timer_that_is_moved_while_it_is_pending_fires_once(poller):
    start = time.monotonic_ns()
    timer = poller.call_at_ns(start + 1_000_000, "waiter")
    assert timer.move(FAR) is True
    assert timer.move(start + 3_000_000) is True
    assert poller.stats()["timers"] == 1
    assert poller.netpoll(-1) == ["waiter"]
    assert time.monotonic_ns() >= start + 3_000_000
    assert drain(poller) == []


def test_a_timer_is_armed_again_after_it_has_fired(poller):
    timer = poller.call_at_ns(1, "waiter")
    for _ in range(3):
        assert poller.netpoll(0) == ["waiter"]
        assert timer.move(1) is False
    assert poller.netpoll(0) == ["waiter"]


def test_a_timer_that_has_fired_and_was_not_taken_fires_twice_when_it_is_moved(poller):
    """False says that the earlier firing happens too: it is out of the heap already."""
    timer = poller.call_at_ns(1, "waiter")
    poller.post("first")
    assert poller.netpoll(0, 1) == ["first"]
    assert timer.move(2) is True, "not out yet"
    assert poller.netpoll(0) == ["waiter"]
    assert timer.move(1) is False
    assert timer.move(2) is True
    assert drain(poller) == ["waiter"]


def test_a_timer_that_nobody_keeps_fires_all_the_same(poller):
    waiter = Waiter()
    before = references(waiter)
    poller.call_at_ns(1, waiter)
    assert references(waiter) == before + 1
    assert poller.netpoll(0) == [waiter]
    assert references(waiter) == before


@pytest.mark.parametrize("kept_by", ["a list", "a subclass", "its waiter"])
def test_a_timer_in_a_cycle_is_collected_and_fires_all_the_same(poller, kept_by):
    """Seen before: the collector took the poller out of it, its node was freed inside the heap."""

    class Own(Timer):
        pass

    count = 100
    for n in range(count):
        timer = Own(poller, FAR + n, ["waiter", n]) if kept_by == "a subclass" else None
        if kept_by == "a list":
            timer = poller.call_at_ns(FAR + n, ["waiter", n])
            cycle = [timer]
            cycle.append(cycle)
        elif kept_by == "a subclass":
            timer.me = timer
        else:
            waiter = ["waiter", n]
            timer = poller.call_at_ns(FAR + n, waiter)
            waiter.append(timer)
            timer.stop()
            poller.call_at_ns(FAR + n, ["waiter", n])
    del timer
    cycle = waiter = None
    gc.collect()
    rubble = [bytearray(48) for _ in range(2000)]  # what was freed is somebody else's now
    assert poller.stats()["timers"] == count
    poller.call_at_ns(FAR + count, "last")
    assert poller.timeout_ns() > 0
    assert len(rubble) == 2000
    poller.close()
    gc.collect()


def test_a_poller_and_its_timer_in_a_cycle_go_together():
    class Loop(Poller):
        pass

    waiter = Waiter()
    before = references(waiter)
    for _ in range(50):
        loop = Loop()
        loop.timer = loop.call_at_ns(FAR, waiter)
    del loop
    gc.collect()
    assert references(waiter) == before


def test_a_timer_that_was_never_made_says_so():
    class Forgetful(Timer):
        def __init__(self):
            pass

    timer = Forgetful()
    assert timer.stop() is False
    with pytest.raises(RuntimeError, match="never made"):
        timer.move(1)


def test_a_timer_of_a_closed_poller_says_so():
    poller = Poller()
    waiter = Waiter()
    before = references(waiter)
    timer = poller.call_at_ns(FAR, waiter)
    poller.close()
    assert references(waiter) == before + 1
    assert timer.stop() is False
    with pytest.raises(ClosedError):
        timer.move(1)
    with pytest.raises(ClosedError):
        poller.call_at_ns(1, waiter)
    del timer
    assert references(waiter) == before


def test_stop_and_move_from_several_threads_lose_no_reference(poller):
    """Whoever takes it out of the heap gives back the heap's reference, and nobody else does."""
    waiter = Waiter()
    before = references(waiter)
    timer = poller.call_at_ns(FAR, waiter)
    start = threading.Barrier(4)
    taken = []

    def move():
        start.wait()
        for n in range(2000):
            timer.move(1 if n % 3 == 0 else FAR)

    def stop():
        start.wait()
        for _ in range(2000):
            timer.stop()

    def poll():
        start.wait()
        for _ in range(2000):
            taken.append(len(poller.netpoll(0)))

    runs = [Running(f) for f in (move, move, stop, poll)]
    for running in runs:
        running.join()
    drain(poller)
    timer.stop()
    assert references(waiter) == before + 1
    assert poller.stats()["timers"] == 0


def test_timers_are_dropped_while_they_fire(poller):
    """A node is freed by whoever is last to know it: the heap or its Timer."""
    found = []
    start = threading.Barrier(2)
    total = 3000

    def poll():
        start.wait()
        while len(found) < total:
            found.extend(poller.netpoll(-1))

    running = Running(poll)
    start.wait()
    for n in range(total):
        timer = poller.call_at_ns(time.monotonic_ns() + n % 3, n)
        del timer
    running.join()
    assert sorted(found) == list(range(total))


def test_a_fork_while_locks_are_held_does_not_hang_the_child(probe):
    """Threads that held them do not exist in the child: nothing there may ask for them."""
    run_forking(
        """
sys.path.insert(0, sys.argv[1])
import _probe
poller = Poller()
fd = os.eventfd(0)
desc = poller.open(fd)
timers = [poller.call_at_ns(FAR + n, n) for n in range(3)]
poller.enable_timerfd()
_probe.Server.of(poller).lock_timers()

def check():
    assert timers.pop().stop() is False
    timers.clear()                           # and a timer that is dropped
    desc.close()
    assert poller.timeout_ns() == -1
    poller.enable_timerfd()
    timer = poller.call_at_ns(1, "now")
    assert drain(poller) == ["now"]
    del timer
    poller.close()

in_child(check)
_probe.Server.of(poller).unlock_timers()
desc.evict()
desc.close()
""",
        os.path.dirname(probe.__file__),
    )


# -- notes -----------------------------------------------------------------------------------------


def test_a_note_wakes_who_is_parked_on_it(poller):
    note = Note(poller)
    waiter = Waiter()
    before = references(waiter)
    assert note.commit(waiter) is True
    assert not note.is_set
    assert poller.netpoll(0) == []
    note.wake()
    assert note.is_set
    assert poller.netpoll(0) == [waiter]
    assert references(waiter) == before


def test_a_note_is_set_for_ever(poller):
    note = Note(poller)
    note.wake()
    note.wake()
    waiter = Waiter()
    before = references(waiter)
    assert note.commit(waiter) is False
    assert note.abort(waiter) is False
    assert references(waiter) == before
    assert poller.netpoll(0) == []


def test_who_is_taken_back_is_not_woken(poller):
    note = Note(poller)
    waiter = Waiter()
    before = references(waiter)
    note.commit(waiter)
    assert note.abort(waiter) is True
    assert references(waiter) == before
    note.wake()
    assert poller.netpoll(0) == []


def test_a_note_has_one_waiter(poller):
    note = Note(poller)
    assert note.commit(1) is True
    assert note.commit(2) is False
    assert note.abort(2) is False
    note.wake()
    assert poller.netpoll(0) == [1]
    assert note.abort(1) is False


def test_a_note_is_awaited_by_whatever_drives_the_coroutine(poller):
    note = Note(poller)

    async def wait():
        return await note

    coro = wait()
    request = coro.send(None)
    assert request is note
    assert request.commit(coro)
    assert poller.netpoll(0) == []
    note.wake()
    [ready] = poller.netpoll(0)
    with pytest.raises(StopIteration) as end:
        ready.send(None)
    assert end.value.value is None
    assert inspect.getcoroutinestate(coro) == "CORO_CLOSED"


def test_a_spurious_resume_of_a_note_waits_on(poller):
    note = Note(poller)
    steps = note.__await__()
    assert next(steps) is note
    assert next(steps) is note
    note.wake()
    with pytest.raises(StopIteration):
        next(steps)


def test_a_note_of_a_closed_poller_drops_its_waiter():
    poller = Poller()
    note = Note(poller)
    waiter = Waiter()
    before = references(waiter)
    note.commit(waiter)
    poller.close()
    with pytest.raises(ClosedError):
        note.wake()
    assert references(waiter) == before
    assert note.is_set
    note.wake()


def test_wakes_from_many_threads_hand_a_waiter_out_once(poller):
    for n in range(300):
        note = Note(poller)
        start = threading.Barrier(3)

        def wake(note=note, start=start):
            start.wait()
            note.wake()

        wakes = [Running(wake) for _ in range(2)]
        start.wait()
        parked = note.commit(n)
        for running in wakes:
            running.join()
        assert drain(poller) == ([n] if parked else [])
