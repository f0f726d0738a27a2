"""G, P, M and the scheduler's words: what sysmon reads (A1, S1), and what a thread is.

Go: runtime2.go, proc.go. Here and in test_sysmon.py alone the tests look inside of a scheduler.
"""

import threading
import time

import pytest

import gopoll
from gopoll.runtime._p import MBase, PBase
from gopoll.runtime._sched import current_g, current_poller, current_sched
from helpers.child import run_python
from runtime.tools import ONE, Bare, current_p, in_thread, until

IDLE, SCHED, RUN, RETAKEN = range(4)  # the states of a P's status word


@pytest.fixture
def sched(probe):  # which takes its time to build
    s = Bare()
    yield s
    s.poller.close()


# -- a P's status word (A1) ------------------------------------------------------------------------


def test_a_fresh_p_is_idle_and_empty():
    p = PBase(3)
    assert (p.id, p.status, p.schedtick, len(p.runq)) == (3, (IDLE, 0, 0), 0, 0)
    assert MBase(5).id == 5


def test_the_status_word_says_run_in_a_goroutine_and_sched_between_two(run):
    async def main():
        p = current_p()
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
        p = current_p()
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
        p = current_p()
        assert in_thread(lambda: p.status) == p.status

    run(main, **ONE)


# -- what a thread is ------------------------------------------------------------------------------


def test_a_plain_thread_has_neither_goroutine_nor_scheduler_nor_poller(run):
    def look():
        for ask in (current_sched, current_poller):
            with pytest.raises(RuntimeError, match=r"call gopoll\.run\(\.\.\.\), or attach"):
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
        sched.enter_thread(sched.first_m())
        other = Bare()
        try:
            assert current_sched() is sched
            assert current_g() is None
            with pytest.raises(RuntimeError, match="cannot be nested in one thread"):
                other.enter_thread(other.first_m())
        finally:
            sched.leave_thread()
            other.poller.close()
        with pytest.raises(RuntimeError, match="no scheduler runs"):
            current_sched()

    in_thread(enter)


# -- the network (S1) ------------------------------------------------------------------------------


def blocked(sched, probe):
    """Start a thread that blocks in the network; return it once it has looked at every queue.

    lastpoll is 0 before that: what is queued and broken for then is found without the network, and
    the break would end the next wait at once.
    """
    server = probe.Server.of(sched.poller)
    thread = threading.Thread(target=sched.block)
    thread.start()
    until(lambda: server.blocked)
    assert (sched.lastpoll, sched.npidle) == (0, 1)
    return thread


def test_lastpoll_is_0_while_a_thread_blocks_and_the_time_of_the_poll_after(sched, probe):
    before = sched.lastpoll
    assert before > 0
    thread = blocked(sched, probe)
    sched.poller.netpoll_break()
    thread.join(60)
    polled = sched.lastpoll
    assert polled > before
    assert (sched.npidle, len(sched.globq)) == (0, 0)
    m = sched.first_m()
    assert probe.poll(sched, m) == 0
    assert sched.lastpoll > polled


def test_a_poll_that_does_not_block_never_hides_one_that_does(sched, probe):
    """The one looks at lastpoll, the other sets it to 0 and blocks, the first writes the time."""
    server, m = probe.Server.of(sched.poller), sched.first_m()
    for _ in range(300):
        thread = threading.Thread(target=sched.block)
        thread.start()
        while not server.blocked:
            probe.poll(sched, m)
            time.sleep(0)  # the GIL goes round
        hidden = sched.lastpoll != 0
        sched.poller.netpoll_break()
        thread.join(60)
        sched.handoffp(sched.allp[0])  # idle again
        assert not hidden


def test_an_m_that_finds_another_blocked_in_the_network_sleeps(sched, probe):
    first = blocked(sched, probe)
    sched.set_nprocs(2)
    second = threading.Thread(target=sched.block)
    second.start()
    until(lambda: sched.nmidle == 1)
    first.join(60)  # all Ps are idle: it is asked to look whether this is a deadlock
    assert not first.is_alive()
    assert second.is_alive()
    sched.finish_all()
    second.join(60)
    assert not second.is_alive()
    assert sched.nmidle == 0


def test_who_finds_work_in_the_global_queue_does_not_block(sched):
    sched.globq.put(object())
    assert sched.block().has_p
    assert sched.lastpoll > 0
    assert sched.npidle == 0


def test_who_finds_that_all_is_over_does_not_block(sched):
    sched.finish_all()
    sched.block()
    assert sched.lastpoll > 0


def test_work_that_is_queued_while_a_thread_blocks_wakes_it(sched, probe):
    for _ in range(100):
        thread = blocked(sched, probe)
        sched.globq.put(object())
        sched.wake_net_poller()
        thread.join(60)
        assert not thread.is_alive()
        sched.globq.get()
        sched.handoffp(sched.allp[0])  # idle again


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


# -- what is started while a run ends (J3), and what looks like nothing (S8) -----------------------


def test_a_run_is_not_over_before_a_call_that_was_posted_has_been_made(sched):
    made = []
    sched.post(lambda: made.append("made"))
    assert sched.live == 1
    assert not sched.end_if_last()
    sched.block()
    assert sched.live == 0
    for call in sched.callables:
        call()
    assert made == ["made"]
    assert sched.end_if_last()
    assert sched.end_if_last(), "it is asked again where a signal handler has come between"
    assert (sched.live, sched.is_over) == (0, True)
    with pytest.raises(gopoll.ClosedError, match=r"use of a run\(\) that has ended"):
        sched.post(print)
    assert sched.live == 0


def test_a_run_that_is_cut_short_is_over_with_what_it_has(sched):
    sched.post(print)
    sched.finish_all()
    sched.finish_all()
    assert (sched.live, sched.is_over) == (1, True)
    sched.globq.put(object())
    sched.empty_queues()
    assert len(sched.globq) == 0


def test_nothing_is_quiet_while_there_is_work_or_a_p_at_work(sched):
    assert sched.is_quiet
    sched.poller.post(object())
    assert not sched.is_quiet
    sched.poller.netpoll()
    sched.allp[0].runq.put(object())
    assert not sched.is_quiet
    sched.empty_queues()
    assert sched.is_quiet
    sched.set_nprocs(2)
    ms = [sched.first_m(), sched.first_m()]
    assert all(sched.take_p(m) for m in ms)
    sched.handoffp(sched.allp[0])
    sched.set_nprocs(1)
    assert sched.npidle == sched.nprocs, "P 1 is one too many, and its M does not know yet"
    assert not sched.is_quiet


BESIDE_WORK = """
import gc, threading
from runtime.tools import Bare

class Begun(Bare):
    def start_thread(self, m):
        return True  # but its thread does not come to run

sched = Begun()
m = sched.first_m()
assert sched.take_p(m)
sched.globq.put(object())
sched.set_nprocs(2)  # the other P is on its way to an M that will look for work
sched.globq.move_to(sched.allp[1].runq, 1)
assert (sched.npidle, sched.nmspinning) == (0, 1)
thread = threading.Thread(target=sched.mloop, args=(m,))
thread.start()
gc.collect()
sched.finish_all()
thread.join()
sched.poller.close()
print("ended")
"""


def test_who_finds_only_what_is_another_threads_lets_that_run():
    """The loop is in C: it would keep the GIL, or the world from being stopped."""
    assert run_python(BESIDE_WORK).stdout == "ended\n"
