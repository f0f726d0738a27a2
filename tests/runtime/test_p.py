"""G, P, M and the scheduler's words: what sysmon reads (A1, S1), and what a thread is.

Go: runtime2.go, proc.go. Here and in test_sysmon.py alone the tests look inside of a scheduler.
"""

import threading

import pytest

import gopoll
from gopoll.runtime._g import GBase
from gopoll.runtime._p import MBase, PBase
from gopoll.runtime._runq import RunQ
from gopoll.runtime._sched import SchedBase, current_g, current_poller, current_sched, ready
from plugins.guard import wait_parked
from runtime.tools import ONE, in_thread, until, value

IDLE, SCHED, RUN, RETAKEN = range(4)  # the states of a P's status word


@pytest.fixture
def sched():
    s = SchedBase()
    yield s
    s.poller.close()


# -- a P's status word (A1) ------------------------------------------------------------------------


def test_a_fresh_p_is_idle_and_empty():
    p = PBase(3)
    assert (p.id, p.status, p.schedtick, len(p.runq)) == (3, (IDLE, 0, 0), 0, 0)
    assert MBase(5).id == 5


def test_the_status_word_says_run_in_a_goroutine_and_sched_between_two(run):
    async def main():
        p = current_sched().current_p()
        state, m, tick = p.status
        assert (state, tick) == (RUN, p.schedtick)
        between = []
        ctx, _ = gopoll.with_timeout(gopoll.background(), 0.0005)
        ctx.after_func(lambda: between.append(p.status[:2]))
        await ctx.wait()
        assert between == [(SCHED, m)]
        assert p.status[:2] == (RUN, m)

    run(main, **ONE)


def test_every_slice_has_a_tick_of_its_own(run):
    async def main():
        p = current_sched().current_p()
        ticks = []

        async def worker():
            for _ in range(5):
                ticks.append(p.status[2])
                assert p.status == p.status, "one slice, one word"
                await gopoll.gosched()

        for g in [gopoll.go(worker) for _ in range(3)]:
            await g
        assert ticks == sorted(set(ticks))

    run(main, **ONE)


def test_another_thread_reads_the_word_of_a_p_that_runs(run):
    async def main():
        p = current_sched().current_p()
        assert in_thread(lambda: p.status) == p.status

    run(main, **ONE)


# -- what a thread is ------------------------------------------------------------------------------


def test_a_plain_thread_has_neither_goroutine_nor_scheduler_nor_poller(run):
    def look():
        for ask in (current_sched, current_poller):
            with pytest.raises(RuntimeError, match=r"call gopoll\.run\(\.\.\.\)$"):
                ask()
        return current_g()

    async def main():
        assert current_g() is not None
        assert current_poller() is current_sched().poller
        return await gopoll.blocking(look)

    assert look() is None
    assert run(main) is None
    assert look() is None


def test_a_thread_is_one_schedulers_at_a_time(sched):
    def enter():
        sched.enter_thread()
        try:
            assert current_sched() is sched
            assert current_g() is None
            with pytest.raises(RuntimeError, match="cannot be nested in one thread"):
                SchedBase().enter_thread()
        finally:
            sched.leave_thread()
        with pytest.raises(RuntimeError, match="no scheduler runs"):
            current_sched()

    in_thread(enter)


# -- the network (S1) ------------------------------------------------------------------------------


def test_lastpoll_is_0_while_a_thread_blocks_and_the_time_of_the_poll_after(sched):
    before = sched.lastpoll
    assert before > 0
    q = RunQ()
    thread = threading.Thread(target=sched.block, args=(q,))
    thread.start()
    until(lambda: sched.lastpoll == 0 and sched.npidle == 1)
    sched.poller.netpoll_break()
    thread.join(60)
    assert sched.lastpoll > before
    assert (sched.npidle, len(q)) == (0, 0)
    polled = sched.lastpoll
    assert sched.poll(q) == 0
    assert sched.lastpoll > polled


def test_two_threads_of_one_scheduler_do_not_block_in_the_network(sched):
    thread = threading.Thread(target=sched.block, args=(RunQ(),))
    thread.start()
    try:
        until(lambda: sched.npidle == 1)
        with pytest.raises(RuntimeError, match=r"^two threads of one scheduler block"):
            sched.block(RunQ())
        assert sched.lastpoll == 0
    finally:
        sched.poller.netpoll_break()
        thread.join(60)


@pytest.mark.parametrize("work", ["globq", "stopping"])
def test_who_finds_work_in_the_global_queue_does_not_block(sched, work):
    if work == "globq":
        sched.globq.put(object())
    else:
        sched.stopping = True
    q = RunQ()
    assert sched.block(q) == 0
    assert sched.lastpoll > 0


def test_work_that_is_queued_while_a_thread_blocks_wakes_it(sched):
    sched.poller.netpoll(1)  # it has been used; for the first use see test_bugs.py
    for _ in range(100):
        thread = threading.Thread(target=sched.block, args=(RunQ(),))
        thread.start()
        until(lambda: sched.npidle == 1)
        sched.globq.put(object())
        sched.wake_net_poller()
        thread.join(60)
        assert not thread.is_alive()
        sched.globq.get()


def test_nobody_is_broken_who_does_not_block(sched):
    sched.poller.netpoll(1)
    breaks = sched.poller.stats()["breaks"]
    sched.wake_net_poller()
    sched.poller.netpoll(1)
    assert sched.poller.stats()["breaks"] == breaks


def test_incidlelocked_counts(sched):
    sched.incidlelocked(-1)
    assert sched.nmidlelocked == -1
    sched.incidlelocked(1)
    assert sched.nmidlelocked == 0


# -- a G -------------------------------------------------------------------------------------------


def make_g(sched):
    coro = value()
    g = GBase(sched, coro, gopoll.background(), 7, "seven")
    coro.close()
    return g


def test_the_end_wakes_every_joiner_once_and_takes_no_more(sched):
    g, called = make_g(sched), []
    assert g.add_joiner(lambda: called.append("a")) is True
    assert g.add_joiner(lambda: called.append("b")) is True
    assert g.finish("result", None) is True
    assert (g.done, g.result, g.error, called) == (True, "result", None, ["a", "b"])
    assert g.add_joiner(lambda: called.append("c")) is False
    assert called == ["a", "b"]


def test_finish_says_whether_anybody_waited(sched):
    assert make_g(sched).finish(None, ValueError()) is False


def test_handles_are_counted_and_the_last_says_so(sched):
    g = make_g(sched)
    g.handle_made()
    g.handle_made()
    assert g.live_handles == 2
    assert [g.handle_dropped(), g.handle_dropped()] == [False, True]


def test_ready_from_another_thread_goes_through_the_poller(sched):
    g = make_g(sched)
    in_thread(ready, g)
    assert sched.poller.netpoll(0) == [g]


def test_ready_needs_a_goroutine():
    with pytest.raises(TypeError):
        ready(None)


def test_why_canceled_is_the_goroutines_own_cause_before_that_of_its_context(sched):
    g = make_g(sched)
    g.context, cancel = gopoll.with_cancel(gopoll.background())
    cancel("the context's")
    assert g.why_canceled().cause == "the context's"
    g.canceled, g.cancel_cause = True, "its own"
    assert g.why_canceled().cause == "its own"
    g.shielded = 1
    assert g.why_canceled().cause == "the context's"


def test_the_park_request_is_seen_while_it_waits_and_forgotten_when_it_runs(run):
    async def main():
        me = current_g()
        assert me.park_request is None
        g = gopoll.go(gopoll.sleep, 3600)
        await wait_parked(g)
        (parked,) = [x for x in current_sched().allgs.values() if x.id == g.id]
        assert isinstance(parked.park_request, gopoll.ParkRequest)
        g.cancel()
        with pytest.raises(gopoll.Canceled):
            await g
        assert parked.park_request is None
        assert parked.coro is None

    run(main, **ONE)
