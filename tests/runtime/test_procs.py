"""Many Ps and Ms: Go's own scheduler tests (rows 1 to 14 of its reference) and what they leave out.

The names in brackets are Go's. Everything runs on the GIL build too, where Ps take turns.
"""

import contextlib
import sys
import threading
import time

import pytest

import gopoll
from gopoll._poller import Poller
from gopoll.runtime._runq import RunQ
from gopoll.runtime._sched import current_sched
from plugins.guard import wait_parked, wait_until
from runtime.tools import current_p, until, value

GIL = getattr(sys, "_is_gil_enabled", lambda: True)()


def spin(seconds):
    """Keep the CPU busy in Python."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


async def echo_session():
    """Dial, accept, say something both ways."""
    async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
        server = gopoll.go(listener.accept)
        async with await gopoll.dial("tcp", listener.addr) as conn, await server as peer:
            reader = gopoll.go(peer.read)
            await wait_parked(reader)
            await conn.write(b"there")
            assert await reader == b"there"


# -- rows 1 to 4: the poller under the scheduler ---------------------------------------------------


def test_row_1_a_break_ends_a_poll(run):
    """[TestNetpollBreak]"""
    poller = Poller()
    done = threading.Event()

    def poll():
        assert poller.netpoll(10 * 10**9) == []
        done.set()

    thread = threading.Thread(target=poll)
    thread.start()
    while not done.is_set():  # the first may come before the poll does
        poller.netpoll_break()
        done.wait(0.001)
    thread.join()
    poller.close()


def test_row_2_the_count_of_waiters_returns_to_what_it_was(run):
    """[TestNetpollWaiters]"""

    async def main():
        await echo_session()  # the runtime's own waiter is parked by now
        before = current_sched().poller.stats()["waiters"]
        for _ in range(5):
            await echo_session()
        assert current_sched().poller.stats()["waiters"] == before

    run(main, procs=2)


def test_row_3_waiting_for_the_network_is_no_deadlock(run):
    """[TestNetpollDeadlock]"""

    async def main():
        async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
            listener.set_deadline(time.monotonic() + 0.05)
            with pytest.raises(TimeoutError):
                await listener.accept()

    run(main)


def test_row_4_breaks_from_many_threads_are_one(run):
    """[BenchmarkNetpollBreak]"""

    async def main():
        sched = current_sched()
        threads = [
            threading.Thread(target=lambda: [sched.wake_net_poller() for _ in range(200)])
            for _ in range(10)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            await gopoll.sleep(0.0005)

    run(main, procs=2)


# -- rows 5 to 9: parallelism and fairness ---------------------------------------------------------


@pytest.mark.parametrize("listening", [False, True])
@pytest.mark.parametrize("loaded", [False, True])
def test_row_5_every_p_runs_a_goroutine_at_the_same_time(run, loaded, listening):
    """[TestGoroutineParallelism2]: each waits, in a loop, for all the others to have begun."""
    procs = 4
    begun = [0] * procs

    async def one(i):
        begun[i] = 1
        while sum(begun) < procs:
            if GIL:
                time.sleep(0)  # the GIL goes round; the P stays

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            if listening:
                await stack.enter_async_context(await gopoll.listen("tcp", "127.0.0.1:0"))
            if loaded:
                for _ in range(10):
                    await gopoll.gosched()
            async with gopoll.timeout(30):
                for g in [gopoll.go(one, i) for i in range(procs)]:
                    await g

    run(main, procs=procs)


def test_row_6_a_locked_goroutine_plays_ping_pong_with_another(run):
    """[TestBlockLocked]"""

    async def main():
        turns = []

        async def other():
            for i in range(10):
                while len(turns) != 2 * i + 1:
                    await gopoll.gosched()
                turns.append("other")

        gopoll.lock_os_thread()
        mine = threading.get_ident()
        g = gopoll.go(other)
        for i in range(10):
            turns.append("locked")
            while len(turns) != 2 * i + 2:
                await gopoll.gosched()
            assert threading.get_ident() == mine
        await g
        gopoll.unlock_os_thread()
        assert turns == ["locked", "other"] * 10

    run(main, procs=2)


@pytest.mark.parametrize("with_syscalls", [False, True])
def test_row_7_a_timer_fires_while_goroutines_keep_the_queue_busy(run, with_syscalls):
    """[TestTimerFairness, TestTimerFairness2]"""
    over = []

    async def busy():
        while not over:
            if with_syscalls:
                with gopoll.syscall():
                    pass
            await gopoll.gosched()

    async def main():
        gs = [gopoll.go(busy) for _ in range(4)]
        async with gopoll.timeout(20):
            await gopoll.sleep(0.02)
        over.append(1)
        for g in gs:
            await g

    run(main, procs=2)


def test_row_8_pairs_that_wake_each_other_do_not_starve_the_others(run):
    """[TestPingPongHog]: whoever is in the global queue gets one of 61 slices at the least."""
    counts = {"hog": 0, "light": 0}
    over = []

    async def hog():
        while not over:
            counts["hog"] += 1
            await gopoll.gosched()

    async def light(n):
        for _ in range(n):
            counts["light"] += 1
            await gopoll.go(nothing)  # a join: its end makes us run next

    async def nothing():
        pass

    async def main():
        g = gopoll.go(hog)
        for one in [gopoll.go(light, 500) for _ in range(2)]:
            await one
        over.append(1)
        await g
        assert 3 * counts["light"] <= 2 * 61 * counts["hog"], counts  # three slices a light one

    run(main, procs=1)


@pytest.mark.parametrize("micros", [10, 100, 1000])
def test_row_9_loops_of_syscalls_do_not_keep_others_from_running(run, micros):
    """[TestPreemptionAfterSyscall]"""

    async def loop():
        for _ in range(20):
            with gopoll.syscall():
                time.sleep(micros / 1e6)

    async def main():
        async with gopoll.timeout(30):
            for g in [gopoll.go(loop) for _ in range(8)]:
                await g

    run(main, procs=2)


# -- rows 10 to 12: goroutines and their threads ---------------------------------------------------


def test_row_10_locking_is_counted(run):
    """[TestLockOSThreadNesting]"""

    async def main():
        handle = gopoll.current()
        assert not handle._g.is_locked
        gopoll.unlock_os_thread()  # without a lock: nothing
        gopoll.lock_os_thread()
        gopoll.lock_os_thread()
        gopoll.unlock_os_thread()
        assert handle._g.is_locked
        gopoll.unlock_os_thread()
        assert not handle._g.is_locked

    run(main)


@pytest.mark.parametrize("procs", [1, 2])
def test_row_11_a_thread_ends_with_the_goroutine_that_ends_locked(run, procs):
    """[TestLockOSThreadExit] and gives its P on (S6): with one, nobody could go on."""
    seen = []

    async def locked():
        gopoll.lock_os_thread()
        seen.append(threading.current_thread())

    async def main():
        gopoll.lock_os_thread()  # run()'s own thread cannot end with a goroutine
        await gopoll.go(locked)
        await wait_until(lambda: not seen[0].is_alive())

    run(main, procs=procs)


@pytest.mark.parametrize("procs", [1, 4])
def test_row_11_on_runs_own_thread_it_may_end_unseen_and_the_thread_goes_on(run, procs):
    """Nobody else has the goroutine by then: its thread looks at it once more."""
    ended = []

    async def locked():
        gopoll.lock_os_thread()
        ended.append(threading.current_thread())

    async def main():
        for n in range(20):
            gopoll.go(locked)
            await wait_until(lambda n=n: len(ended) > n)
        async with gopoll.Group() as group:
            group.go(locked)

    run(main, procs=procs)


def test_row_12_other_goroutines_never_run_on_a_locked_thread(run):
    """[TestLockOSThreadAvoidsStatePropagation]: what one sets in its thread stays there."""
    local = threading.local()

    async def main():
        gopoll.lock_os_thread()
        local.mark = True
        marks = []

        async def look():
            for _ in range(20):
                marks.append(getattr(local, "mark", False))
                await gopoll.gosched()

        gs = [gopoll.go(look) for _ in range(8)]
        for g in gs:
            await g
            assert local.mark
        gopoll.unlock_os_thread()
        assert marks == [False] * 160

    run(main, procs=4)


# -- rows 13 and 14: queues ------------------------------------------------------------------------


def test_row_13_queues_are_fifo_and_a_theft_takes_half(run):
    """[TestSchedLocalQueue, -Steal, -Empty]"""
    for n in range(1, 300):
        mine, other = RunQ(), RunQ()
        for i in range(n):
            other.put(i)
        assert len(other) == n
        stolen = other.steal_to(mine)
        assert stolen == min((n + 1) // 2, 256)
        assert len(other) + len(mine) == n
        left = [mine.get() for _ in range(len(mine))] + [other.get() for _ in range(len(other))]
        assert left == list(range(n))
        assert mine.get() is other.get() is None


def test_row_13_nothing_is_lost_or_doubled_by_thieves():
    mine, thief, taken = RunQ(), RunQ(), []
    lock = threading.Lock()

    def steal():
        while len(taken) < 20_000:
            mine.steal_to(thief)
            while (got := thief.get()) is not None:
                with lock:
                    taken.append(got)

    thread = threading.Thread(target=steal)
    thread.start()
    for i in range(20_000):
        mine.put(i)
        if i % 3 == 0 and (got := mine.get()) is not None:
            with lock:
                taken.append(got)
    thread.join()
    assert sorted(taken) == list(range(20_000))


def test_row_14_a_thief_looks_at_every_p(run):
    """[TestStealOrder]: work of any single P is found, whichever it is."""

    async def main():
        ran = []

        async def mark(i):
            ran.append(i)

        for i in range(64):
            gopoll.go(mark, i)
        with gopoll.syscall():  # others take our P, or steal from its queue
            end = time.monotonic() + 20
            while len(ran) < 64 and time.monotonic() < end:
                time.sleep(0.001)
        assert sorted(ran) == list(range(64))

    run(main, procs=8)


# -- what Go's tests leave out ---------------------------------------------------------------------


@pytest.mark.parametrize("procs", [1, 2, 8])
def test_everything_spawned_ends_once(run, procs):
    counts = [0] * 2000

    async def leaf(i):
        await gopoll.gosched()
        counts[i] += 1
        await gopoll.sleep(0.0001 * (i % 3))

    async def branch(k):
        for g in [gopoll.go(leaf, k * 100 + i) for i in range(100)]:
            await g

    async def main():
        for g in [gopoll.go(branch, k) for k in range(20)]:
            await g

    run(main, procs=procs)
    assert counts == [1] * 2000


def test_threads_are_gone_when_run_returns(run):
    async def main():
        async def blocks():
            with gopoll.syscall():
                time.sleep(0.05)

        for g in [gopoll.go(blocks) for _ in range(5)]:
            await g
        assert gopoll.stats().threads > 1

    run(main)
    assert not [t for t in threading.enumerate() if t.name.startswith("gopoll-")]


def test_gomaxprocs_reads_and_sets(run):
    async def main():
        assert gopoll.gomaxprocs() == 2
        assert gopoll.gomaxprocs(5) == 2
        assert gopoll.gomaxprocs() == 5
        gs = [gopoll.go(spin_and_yield) for _ in range(10)]
        assert gopoll.gomaxprocs(1) == 5
        for g in gs:
            await g
        await wait_until(lambda: sum(p.status == (0, 0, 1) for p in current_sched().allp) == 4)
        assert gopoll.gomaxprocs(3) == 1
        for g in [gopoll.go(spin_and_yield) for _ in range(10)]:
            await g

    async def spin_and_yield():
        for _ in range(5):
            spin(0.0005)
            await gopoll.gosched()

    run(main, procs=2)


def test_gomaxprocs_outside_is_for_the_runs_to_come(monkeypatch):
    monkeypatch.setattr("gopoll.runtime.goroutine._procs", None)
    monkeypatch.setenv("GOMAXPROCS", "3")

    async def main():
        return gopoll.gomaxprocs()

    assert gopoll.run(main) == 3
    assert gopoll.gomaxprocs(2) == 3
    assert gopoll.run(main) == 2
    assert gopoll.run(main, procs=4) == 4


@pytest.mark.parametrize(("text", "procs"), [("9" * 5000, 1024), ("0" * 5000 + "7", 7)])
def test_a_number_of_ps_may_have_any_number_of_digits(monkeypatch, text, procs):
    """int() refuses more than 4300 of them."""
    monkeypatch.setattr("gopoll.runtime.goroutine._procs", None)
    monkeypatch.setenv("GOMAXPROCS", text)
    assert gopoll.gomaxprocs() == procs


def test_wrong_numbers_of_ps_are_refused():
    async def main():
        pass

    for procs, kind, text in [
        (0, ValueError, "procs=0: must be from 1 to 1024"),
        (1025, ValueError, "procs=1025: must be from 1 to 1024"),
        (True, TypeError, "procs must be an int, not bool"),
        ("2", TypeError, "procs must be an int, not str"),
    ]:
        with pytest.raises(kind, match=text):
            gopoll.run(main, procs=procs)
    with pytest.raises(ValueError, match=r"procs=2 with handoff=False: .* need one P"):
        gopoll.run(main, procs=2, handoff=False)
    with pytest.raises(ValueError, match=r"gomaxprocs\(2000\): at most 1024"):
        gopoll.gomaxprocs(2000)
    for n in ("2", True, 1.5):
        with pytest.raises(TypeError, match=f"^n must be an int, not {type(n).__name__}$"):
            gopoll.gomaxprocs(n)


def test_with_one_p_and_no_handoff_everything_runs_on_one_thread(run):
    seen = set()

    async def one():
        for _ in range(5):
            seen.add(threading.get_ident())
            time.sleep(0.012)
            await gopoll.gosched()

    async def main():
        assert gopoll.gomaxprocs() == 1
        with pytest.raises(RuntimeError, match=r"cannot change the one P of run\(handoff=False\)"):
            gopoll.gomaxprocs(2)
        for g in [gopoll.go(one) for _ in range(4)]:
            await g
        assert gopoll.stats().retakes == 0

    run(main, handoff=False)
    assert seen == {threading.get_ident()}


def test_work_that_is_queued_to_a_p_too_many_is_not_forgotten(run):
    """A2: the thread of a goroutine that has lost its P queues to it all the same. Who had the last
    P was never out of work, so it robbed nobody, and what a dead P had queued was never run."""
    made = []

    async def stuck():
        p = current_p()
        if p is None or p.id == 0:
            return
        gopoll.gomaxprocs(1)
        until(lambda: p.status == (0, 0, 1))  # taken, and dead
        made.append(gopoll.go(value, "found"))

    async def main():
        async with gopoll.timeout(30):
            while not made or not made[0].done:
                g = gopoll.go(stuck)
                while not g.done or (made and not made[0].done):
                    await gopoll.gosched()  # the P that is left is never out of work
        return await made[0]

    assert run(main, procs=2) == ("found",)
