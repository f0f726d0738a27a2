"""G: its outcome, its joiners (J1), its cancellation (G1), and what is seen of it from outside."""

import contextlib
import gc
import threading

import pytest

import gopoll
from gopoll.runtime._g import GBase, Handle, Join
from gopoll.runtime._sched import current_g, current_sched, interrupt, ready
from helpers.cost import assert_each_costs_the_same, cpu_of
from helpers.polls import references
from plugins.guard import wait_parked
from runtime.tools import ONE, Bare, in_thread, value


@pytest.fixture
def sched():
    s = Bare()
    yield s
    s.poller.close()


def make_g(sched):
    coro = value()
    g = GBase(sched, coro, gopoll.background(), 7, "seven", {})
    coro.close()
    return g


def test_a_new_goroutine_is_runnable_and_nobodys(sched):
    g = make_g(sched)
    assert (g.id, g.name, g.state_name, g.done) == (7, "seven", "runnable", False)
    assert (g.is_claimed, g.live_handles, g.m_id, g.is_locked) == (False, 0, 0, False)
    assert g.park_request is None


def test_one_claims_its_outcome(sched):
    g = make_g(sched)
    assert [g.claim(), g.claim()] == [True, False]
    assert g.is_claimed


def test_handles_are_counted_and_the_last_says_so(sched):
    g = make_g(sched)
    told = []
    sched.unwaited = told.append
    handles = [Handle(g), Handle(g)]
    assert g.live_handles == 2
    handles.pop()
    assert (g.live_handles, told) == (1, [])
    sched.leave_behind(g, KeyError("lost"))
    handles.pop()
    assert (g.live_handles, told) == (0, [g])
    with pytest.raises(TypeError):
        Handle(None)


def test_who_awaits_counts_as_a_handle(sched):
    g = make_g(sched)
    join = Join(g)
    assert g.live_handles == 1
    del join
    assert g.live_handles == 0


def test_a_join_is_taken_back_once(sched):
    """J1: whoever takes the waiter off the list owns it."""
    g = make_g(sched)
    joins = [Join(g) for _ in range(3)]
    called = []
    waiter = called.append
    for join in joins:
        assert join.commit(waiter)
    assert joins[1].abort(waiter) is True
    assert joins[1].abort(waiter) is False
    assert joins[2].abort(waiter) is True
    assert joins[0].abort(waiter) is True
    assert joins[0].commit(waiter)
    assert joins[0].abort(waiter) is True
    assert called == []


async def a_join():
    return Join(make_g(current_sched())), []


async def a_sleep():
    return gopoll.sleep(60), []


async def a_select():
    return gopoll.select(gopoll.Chan().recv_case(), timeout=60), []


async def a_receive():
    return gopoll.Chan().recv(), []


async def a_read():
    listener = await gopoll.listen("tcp", "127.0.0.1:0")
    conn = await gopoll.dial("tcp", listener.addr)
    return conn.read(), [listener, conn]


async def a_write_to_a_full_unix_socket():
    there = await gopoll.listen_packet("unixgram", "")
    here = await gopoll.listen_packet("unixgram", "")
    with contextlib.suppress(gopoll.OpError):
        here.set_write_timeout(0.05)
        while True:
            await here.write_to(b"x", there.local_addr)
    here.set_write_timeout(None)
    return here.write_to(b"x", there.local_addr), [here, there]


@pytest.mark.parametrize(
    "make", [a_join, a_sleep, a_select, a_receive, a_read, a_write_to_a_full_unix_socket]
)
def test_only_the_waiter_that_was_committed_is_taken_back(run, make):
    """K1: another would lose a reference that it never gave, such as a bound method made anew."""

    async def main():
        operation, closing = await make()
        steps = operation.__await__()
        request = next(steps)
        one, other = object(), object()
        counts = references(one), references(other)
        assert request.commit(one)
        assert request.abort(other) is False
        assert references(other) == counts[1]
        assert request.abort(one) is True
        assert references(one) == counts[0]
        assert request.abort(one) is False
        if hasattr(steps, "throw"):
            with pytest.raises(KeyError):
                steps.throw(KeyError())
        for each in closing:
            each.close()

    run(main, **ONE)


def test_a_result_that_timed_out_takes_its_waiter_back(run):
    def waiters():
        release = type(threading.Lock().release)
        methods = (x for x in gc.get_objects() if type(x) is release)
        return sum(isinstance(x.__self__, type(threading.Lock())) for x in methods)

    async def main():
        g = gopoll.go(gopoll.sleep, 60)
        before = waiters()
        for _ in range(30):
            with pytest.raises(TimeoutError):
                await gopoll.blocking(g.result, 0.001)
        assert waiters() - before < 15, "it keeps one each time"  # a new thread has some, too
        g.cancel()

    run(main)


def test_taking_a_join_back_costs_the_same_however_many_wait(sched):
    """The last to come leaves first: it need not be looked for from the front."""

    def measure(n):
        g = make_g(sched)
        joins = [Join(g) for _ in range(n)]
        for join in joins:
            join.commit(None)

        def leave():
            for join in reversed(joins):
                join.abort(None)

        return cpu_of(leave)

    assert_each_costs_the_same(measure, 1000)


def test_cancelling_is_once_and_keeps_the_first_cause(sched):
    g = make_g(sched)
    assert g.set_canceled("first") is True
    assert g.set_canceled("second") is False


def test_a_pending_exception_that_nobody_threw_is_given_back(sched):
    g = make_g(sched)
    assert g.take_unthrown() is None
    first, second = KeyError(1), KeyError(2)
    g.set_pending(first)
    g.set_pending(second)
    assert g.take_unthrown() is second
    assert g.take_unthrown() is None


def test_interrupting_what_is_not_parked_does_nothing(sched):
    g = make_g(sched)
    interrupt(g)
    assert len(sched.globq) == 0


def test_ready_from_another_thread_goes_to_the_global_queue(sched):
    g = make_g(sched)
    in_thread(ready, g)
    assert sched.globq.get() is g


def test_ready_needs_a_goroutine():
    with pytest.raises(TypeError):
        ready(None)


def test_the_park_request_is_seen_while_it_waits_and_forgotten_when_it_runs(run):
    async def main():
        me = current_g()
        assert me.park_request is None
        g = gopoll.go(gopoll.sleep, 3600)
        await wait_parked(g)
        (parked,) = [x for x in current_sched().goroutines() if x.id == g.id]
        assert isinstance(parked.park_request, gopoll.ParkRequest)
        assert parked.since > 0
        g.cancel()
        with pytest.raises(gopoll.Canceled):
            await g
        assert parked.park_request is None
        assert parked.coro is None
        assert parked.state_name == "dead"

    run(main, **ONE)
