"""sysmon: polls when nobody has for 10 ms, hands over what it finds, and sleeps when all do.

Go: sysmon, runtime/proc.go. step() is one cycle under a clock of ours; the rest is the real thread.
Here and in test_p.py alone the tests look inside of a scheduler.
"""

import threading

import pytest

import gopoll
from gopoll.runtime._sched import current_sched
from gopoll.runtime._sysmon import Sysmon
from helpers.fds import half_pair
from plugins.guard import wait_parked
from runtime.tools import ONE, Bare, until, voluntary_switches

MS = 1_000_000


class Sched(Bare):
    """A scheduler that runs nothing and writes down what sysmon does to it."""

    def __init__(self):
        super().__init__()
        self.log = []

    def incidlelocked(self, v):
        super().incidlelocked(v)
        self.log.append(v)

    def inject_glist(self, glist):
        self.log.append((glist, self.nmidlelocked))


@pytest.fixture
def sched(probe):  # which takes its time to build
    s = Sched()
    yield s
    s.poller.close()


@pytest.fixture
def sysmon(sched):
    return Sysmon(sched)


# -- when it polls ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("ms", "polls"), [(0, False), (1, False), (10, False), (11, True)])
def test_it_polls_when_the_last_poll_is_more_than_10_ms_ago(sched, sysmon, ms, polls):
    last = sched.lastpoll
    assert sysmon.step(last + ms * MS) is polls
    assert sysmon.polls == polls
    assert sched.lastpoll == (last + ms * MS if polls else last)


def test_a_nanosecond_decides(sched, sysmon):
    last = sched.lastpoll
    assert sysmon.step(last + 10 * MS) is False
    assert sysmon.step(last + 10 * MS + 1) is True


def test_its_own_poll_counts_as_the_last(sched, sysmon):
    now = sched.lastpoll + 20 * MS
    assert sysmon.step(now) is True
    assert [sysmon.step(now + ms * MS) for ms in (0, 5, 10, 11)] == [False] * 3 + [True]


def test_it_does_not_poll_while_somebody_is_blocked_in_the_network(sched, sysmon):
    """lastpoll is 0 then: whatever comes wakes that thread."""
    began = sched.lastpoll
    thread = threading.Thread(target=sched.block)
    thread.start()
    until(lambda: sched.lastpoll == 0 and sched.npidle == 1)
    try:
        assert sysmon.step(began + 3600 * 1000 * MS) is False
        assert sysmon.polls == 0
        assert sched.lastpoll == 0
    finally:
        sched.poller.netpoll_break()
        thread.join(60)
    assert sched.lastpoll >= began
    assert sched.npidle == 0


def test_of_many_that_find_it_late_one_polls(sched):
    """The compare-and-swap of lastpoll decides; with a plain store all of them would poll."""
    sysmons = [Sysmon(sched) for _ in range(4)]
    for round_ in range(1, 200):
        now = sched.lastpoll + 20 * MS
        meet, polled = threading.Barrier(len(sysmons), timeout=60), []

        def step(sysmon, meet=meet, polled=polled, now=now):
            meet.wait()
            polled.append(sysmon.step(now))

        threads = [threading.Thread(target=step, args=(s,)) for s in sysmons]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(polled) == [False] * 3 + [True]
        assert sum(s.polls for s in sysmons) == round_


# -- what it hands over ----------------------------------------------------------------------------


def test_what_it_finds_is_injected_between_minus_one_and_plus_one(sched, sysmon):
    """Nobody may see a deadlock while the goroutines are on their way (Go: incidlelocked)."""
    first, second = object(), object()
    sched.poller.post(first)
    sched.poller.post(second)
    assert sysmon.step(sched.lastpoll + 20 * MS) is True
    assert sched.log == [-1, ([first, second], -1), 1]
    assert sched.nmidlelocked == 0


def test_what_it_has_in_hand_is_no_deadlock(sched, sysmon):
    """S8: it is on no list, and no P is busy with it."""
    seen = []
    sched.inject_glist = lambda glist: seen.append(sched.is_quiet)
    sched.poller.post(object())
    assert sysmon.step(sched.lastpoll + 20 * MS) is True
    assert sysmon.step(sched.lastpoll + 20 * MS) is True
    assert (seen, sched.is_quiet) == ([False], True)


def test_a_poll_that_finds_nothing_injects_nothing(sched, sysmon):
    assert sysmon.step(sched.lastpoll + 20 * MS) is True
    assert sched.log == []


def test_the_bracket_is_closed_if_the_injection_fails(sched, sysmon):
    def fail(glist):
        raise MemoryError

    sched.inject_glist = fail
    sched.poller.post(object())
    with pytest.raises(MemoryError):
        sysmon.step(sched.lastpoll + 20 * MS)
    assert sched.nmidlelocked == 0


def test_without_a_poll_nothing_is_taken(sched, sysmon):
    sched.poller.post(object())
    assert sysmon.step(sched.lastpoll + 1) is False
    assert sched.log == []
    assert len(sched.poller.netpoll(0)) == 1


def test_more_than_one_poll_can_give_is_found_by_the_next(sched, sysmon):
    things = [object() for _ in range(1000)]
    for thing in things:
        sched.poller.post(thing)
    while sched.poller.timeout_ns() == 0:
        assert sysmon.step(sched.lastpoll + 20 * MS) is True
    found = [thing for entry in sched.log if isinstance(entry, tuple) for thing in entry[0]]
    assert found == things


def test_a_goroutine_that_waits_for_input_is_found_while_another_keeps_the_p(run):
    async def main():
        with half_pair() as (fd, peer):
            reader = gopoll.go(fd.read, 1)
            await wait_parked(reader)
            peer.send(b"x")
            # Nobody else polls: what makes the event count is sysmon.
            events = gopoll.stats().events
            until(lambda: gopoll.stats().events > events)
            assert await reader == b"x"
        assert current_sched().nmidlelocked == 0

    run(main, **ONE)


def test_an_expiry_that_comes_while_another_keeps_the_p_is_not_lost(run):
    async def main():
        ctx, _ = gopoll.with_timeout(gopoll.background(), 0.1)
        sleeper = gopoll.go(gopoll.sleep, 0.1)
        await wait_parked(sleeper)
        until(lambda: gopoll.stats().timers == 0)  # sysmon has taken both
        await ctx.wait()
        await sleeper

    run(main, **ONE)


# -- slices that last too long ---------------------------------------------------------------------


def test_a_slice_of_10_ms_is_an_overrun_and_counted_once(run):
    async def main():
        sched = current_sched()
        sysmon = Sysmon(sched)
        now = sched.lastpoll

        def steps(*ms):
            out = []
            for t in ms:
                sysmon.step(now + t * MS)
                out.append(sysmon.overruns)
            return out

        assert steps(0, 9, 10, 11, 50) == [0, 0, 1, 1, 1]
        await gopoll.gosched()  # another slice: its time begins when it is first seen
        assert steps(60, 69, 70, 90) == [1, 1, 2, 2]

    run(main, **ONE)


def test_a_p_that_runs_nothing_is_no_overrun(sched):
    sysmon = Sysmon(sched)
    for ms in range(0, 100, 5):
        sysmon.step(sched.lastpoll + ms * MS)
    assert sysmon.overruns == 0


def test_the_thread_counts_the_overruns_of_a_goroutine_that_computes(run):
    async def main():
        for n in range(3):
            assert gopoll.stats().overruns == n
            until(lambda n=n: gopoll.stats().overruns > n)
            await gopoll.sleep(0)

    run(main, **ONE)


# -- its sleep -------------------------------------------------------------------------------------


def parked_run(body):
    """Run *body* on a thread; give that thread, sysmon's thread, and what ends the run."""
    ready, box = threading.Event(), []

    async def main():
        ctx, cancel = gopoll.with_cancel(gopoll.background())
        box.extend((cancel, current_sched()))
        ready.set()
        await ctx.wait()
        return await body()

    before = set(threading.enumerate())
    thread = threading.Thread(target=gopoll.run, args=(main,), kwargs=ONE)
    thread.start()
    assert ready.wait(60)
    (watcher,) = [t for t in threading.enumerate() if t not in before and t.name == "gopoll-sysmon"]
    return thread, watcher, *box


async def nothing():
    pass


def test_sysmon_of_an_idle_program_makes_no_wake_ups_at_all():
    thread, watcher, cancel, sched = parked_run(nothing)
    try:
        until(lambda: sched.sysmon.sleeps >= 1)  # more, where main was slow to park

        def looks():
            return voluntary_switches(watcher), sched.sysmon.sleeps

        def is_still():  # in the end: on a busy machine it may still be on its way to sleep
            seen = looks()
            threading.Event().wait(0.4)  # at its shallowest sleep it would wake 40 times
            return looks() == seen

        until(is_still)
    finally:
        cancel()
        thread.join(60)
    assert not watcher.is_alive()


def test_after_its_deep_sleep_it_watches_again():
    """S2: who leaves idleness wakes it; else a goroutine could compute for ever unseen."""

    async def compute():
        until(lambda: gopoll.stats().overruns > 0)
        done.append(True)

    done = []
    thread, _, cancel, sched = parked_run(compute)
    until(lambda: sched.sysmon.sleeps >= 1)  # more, where main was slow to park
    cancel()
    thread.join(90)
    assert done == [True]


def test_it_ends_with_the_run_from_whatever_sleep():
    for deep in (False, True):
        thread, watcher, cancel, sched = parked_run(nothing)
        if deep:
            until(lambda sched=sched: sched.sysmon.sleeps == 1)
        cancel()
        thread.join(60)
        assert not thread.is_alive()
        assert not watcher.is_alive()


def test_stop_ends_a_loop_that_has_not_begun(sched, sysmon):
    sysmon.stop()
    sysmon.loop()
