"""Hand-off: a goroutine that blocks or computes does not stop the others."""

import sys
import threading
import time

import pytest

import gopoll
from gopoll.runtime._sched import current_sched
from gopoll.runtime.sched import Scheduler
from plugins.guard import wait_until
from runtime.tools import Bare, until

GIL = getattr(sys, "_is_gil_enabled", lambda: True)()


def compute(seconds):
    """Compute in Python."""
    end = time.perf_counter() + seconds
    n = 0
    while time.perf_counter() < end:
        n += 1
    return n


async def ticks(ticked, over):
    """Note in *ticked* each turn that a goroutine gets that sleeps 1 ms, until *over* is true."""
    while not over:
        await gopoll.sleep(0.001)
        ticked.append(1)


@pytest.mark.parametrize("block", [time.sleep, compute], ids=["in C", "in Python"])
def test_others_go_on_while_one_goroutine_is_stuck(run, block):
    ticked, over = [], []

    async def stuck():
        end = time.monotonic() + 60
        while len(ticked) < 6 and time.monotonic() < end:  # frozen, it would be 1
            block(0.05)
        over.append(1)

    async def main():
        g = gopoll.go(stuck)
        await ticks(ticked, over)
        await g
        assert len(ticked) > 5
        assert gopoll.stats().retakes >= 1

    run(main, procs=1)


def test_a_goroutine_that_comes_back_is_taken_up_where_it_was(run):
    async def stuck():
        done = []
        for i in range(4):
            time.sleep(0.03)
            await gopoll.sleep(0.001)
            done.append(i)
        return done

    async def main():
        for g in [gopoll.go(stuck) for _ in range(3)]:
            assert await g == [0, 1, 2, 3]

    run(main, procs=1)


@pytest.mark.parametrize("ending", ["returns", "raises", "is cancelled", "yields", "spawns"])
def test_every_outcome_of_a_slice_without_a_p(run, ending):
    """What the goroutine does after its P has been taken counts as if it had it (A1)."""

    async def stuck(other):
        until(lambda: gopoll.stats().retakes)
        if ending == "raises":
            raise KeyError("mine")
        if ending == "yields":
            await gopoll.gosched()
        if ending == "is cancelled":
            await gopoll.sleep(60)
        if ending == "spawns":
            return await gopoll.go(child)
        return "result"

    async def child():
        return "child's"

    async def main():
        g = gopoll.go(stuck, None)
        if ending == "is cancelled":
            await gopoll.sleep(0.02)
            g.cancel("enough")
            with pytest.raises(gopoll.Canceled):
                await g
        elif ending == "raises":
            with pytest.raises(KeyError, match="mine"):
                await g
        else:
            assert await g == ("child's" if ending == "spawns" else "result")

    run(main, procs=1)


def test_an_unawaited_error_of_a_slice_without_a_p_ends_run():
    async def stuck():
        until(lambda: gopoll.stats().retakes)
        raise KeyError("nobody waits")

    async def main():
        gopoll.go(stuck)
        await gopoll.sleep(60)

    with pytest.raises(KeyError, match="nobody waits"):
        gopoll.run(main, procs=1)


def test_main_itself_may_be_stuck(run):
    async def main():
        n = [0]

        async def count():
            while True:
                await gopoll.sleep(0.001)
                n[0] += 1

        g = gopoll.go(count)
        until(lambda: n[0] > 3)
        g.cancel()
        with pytest.raises(gopoll.Canceled):
            await g

    run(main, procs=1)


def test_syscall_gives_the_p_up_at_once(run):
    async def main():
        order = []

        async def other():
            order.append("other")
            await gopoll.gosched()
            order.append("other again")

        g = gopoll.go(other)
        with gopoll.syscall():
            await_end = time.monotonic() + 20
            while len(order) < 2 and time.monotonic() < await_end:
                time.sleep(0.0005)
            order.append("mine")
        await g
        assert order == ["other", "other again", "mine"]
        return gopoll.stats().handoffs, gopoll.stats().retakes

    # sysmon takes the P instead where a slow machine needs 10 ms to come to the call.
    assert (1, 0) in (run(main, procs=1) for _ in range(20))


def test_syscall_takes_a_p_back_before_python_goes_on(run):
    running = []

    async def one():
        for _ in range(30):
            with gopoll.syscall():
                time.sleep(0)
            running.append(1)
            assert len(running) == 1, "two goroutines run on one P"
            running.pop()
            await gopoll.gosched()

    async def main():
        for g in [gopoll.go(one) for _ in range(6)]:
            await g

    run(main, procs=1)


def test_an_await_inside_syscall_is_refused(run):
    async def main():
        with pytest.raises(RuntimeError, match=r"await inside gopoll.syscall\(\)"):
            with gopoll.syscall():
                await gopoll.sleep(0.001)
        with gopoll.syscall():
            pass  # and all is as before
        await gopoll.sleep(0.001)

    run(main, procs=1)
    run(main, handoff=False)


def test_syscall_nests_and_keeps_exceptions(run):
    async def main():
        def through_both():
            with gopoll.syscall(), gopoll.syscall():
                raise KeyError("through both")

        with pytest.raises(KeyError, match="through both"):
            through_both()
        call = gopoll.syscall()
        with call:
            with pytest.raises(RuntimeError, match="once at a time"):
                call.__enter__()
        await gopoll.gosched()

    run(main, procs=1)


def test_syscall_outside_a_goroutine_is_refused():
    with pytest.raises(RuntimeError, match=r"syscall\(\) outside a goroutine"):
        with gopoll.syscall():
            pass


def test_without_handoff_nothing_runs_between_two_awaits(run):
    async def main():
        n = [0]

        async def count():
            while True:
                n[0] += 1
                await gopoll.gosched()

        g = gopoll.go(count)
        await gopoll.gosched()
        before, overruns = n[0], gopoll.stats().overruns
        until(lambda: gopoll.stats().overruns > overruns)
        with gopoll.syscall():
            time.sleep(0.02)
        assert n[0] == before
        assert gopoll.stats().retakes == gopoll.stats().handoffs == 0
        g.cancel()
        with pytest.raises(gopoll.Canceled):
            await g

    run(main, handoff=False)


@pytest.mark.skipif(not GIL, reason="there is no switch interval without the GIL")
def test_the_switch_interval_is_lowered_while_a_goroutine_computes_without_a_p(run):
    usual = sys.getswitchinterval()
    seen = set()

    async def stuck():
        end = time.monotonic() + 60
        while 0.0005 not in seen and time.monotonic() < end:
            compute(0.05)

    async def main():
        began = time.monotonic_ns()
        assert (gopoll.stats().lowered, gopoll.stats().lowered_ns) == (0, 0)
        g = gopoll.go(stuck)
        while not g.done:
            seen.add(sys.getswitchinterval())
            await gopoll.sleep(0.001)
        await g
        await wait_until(lambda: sys.getswitchinterval() == usual)
        times, ns = gopoll.stats().lowered, gopoll.stats().lowered_ns
        assert times >= 1
        # For a second after, each time.
        assert times * 9 * 10**8 <= ns < time.monotonic_ns() - began
        await gopoll.sleep(0.001)
        assert gopoll.stats().lowered > times or gopoll.stats().lowered_ns == ns

    run(main, procs=1)
    assert 0.0005 in seen
    assert sys.getswitchinterval() == usual


@pytest.mark.parametrize("options", [{"handoff": False}, {"procs": 1}], ids=str)
def test_a_switch_interval_that_is_left_alone_is_not_counted(run, options):
    """With handoff=False, without a GIL, and where the program has it as low."""
    usual = sys.getswitchinterval()

    async def stuck():
        compute(0.1)

    async def main():
        await gopoll.go(stuck)
        assert gopoll.stats().overruns
        assert (gopoll.stats().lowered, gopoll.stats().lowered_ns) == (0, 0)

    sys.setswitchinterval(0.0001)
    low = sys.getswitchinterval()
    try:
        run(main, **options)
        assert sys.getswitchinterval() == low
    finally:
        sys.setswitchinterval(usual)


@pytest.mark.skipif(not GIL, reason="there is no switch interval without the GIL")
@pytest.mark.parametrize("options", [{"procs": 1}, {"procs": 2}], ids=str)
def test_the_switch_interval_is_lowered_while_a_thread_keeps_the_gil_from_the_network(run, options):
    """Who has events in hand waits for as long as the interval, each time that all have waited."""
    usual = sys.getswitchinterval()
    done = threading.Event()

    def hog():
        while not done.is_set():
            pass

    async def main():
        thread = threading.Thread(target=hog)
        thread.start()
        try:
            async with gopoll.timeout(20):
                while sys.getswitchinterval() == usual:
                    await gopoll.sleep(0.001)
        finally:
            done.set()
            await gopoll.blocking(thread.join)
        await wait_until(lambda: sys.getswitchinterval() == usual)

    run(main, **options)
    assert sys.getswitchinterval() == usual


@pytest.mark.skipif(not GIL, reason="there is no switch interval without the GIL")
def test_the_switch_interval_is_low_until_the_last_wants_it_no_more():
    """The interpreter has one, whichever run has lowered it."""
    usual = sys.getswitchinterval()
    one, two = Bare(), Bare()
    lower, restore = Scheduler.lower_switch_interval, Scheduler.restore_switch_interval
    try:
        assert lower(one, 0.0005)
        assert lower(two, 0.0005)
        restore(one)
        assert sys.getswitchinterval() == 0.0005
        restore(two)
        assert sys.getswitchinterval() == usual
        lower(one, 0.0005)
        sys.setswitchinterval(0.002)  # by the program: that stays
        restore(one)
        restore(one)
        assert sys.getswitchinterval() == 0.002
    finally:
        sys.setswitchinterval(usual)
        one.poller.close()
        two.poller.close()


@pytest.mark.parametrize("procs", [1, 2])
def test_a_goroutine_that_ends_inside_syscall_is_to_blame_itself(run, procs):
    """And who runs on its thread after it is not, nor does a late exit change anything."""
    kept = []

    async def guilty():
        kept.append(gopoll.syscall())
        kept[-1].__enter__()

    async def innocent():
        await gopoll.gosched()
        with gopoll.syscall():
            kept[-1].__exit__(None, None, None)
        await gopoll.gosched()
        return 7

    async def main():
        for _ in range(20):
            with pytest.raises(
                RuntimeError, match=r"end inside gopoll.syscall\(\): leave its block"
            ):
                await gopoll.go(guilty)
            assert await gopoll.go(innocent) == 7
        assert current_sched().npidle < procs

    run(main, procs=procs)


def test_locked_goroutines_wake_on_their_own_thread(run):
    async def locked(i):
        gopoll.lock_os_thread()
        mine = threading.get_ident()
        for k in range(20):
            await (gopoll.sleep(0.0005) if k % 2 else gopoll.gosched())
            assert threading.get_ident() == mine
        gopoll.unlock_os_thread()
        return mine

    async def main():
        gs = [gopoll.go(locked, i) for i in range(4)]
        assert len({await g for g in gs}) >= 1

    run(main, procs=1)
    run(main, procs=4)


def test_a_goroutine_left_in_c_does_not_hang_the_end(monkeypatch):
    for name in ("PATIENCE_NS", "LOOK_AGAIN_NS"):
        monkeypatch.setattr(f"gopoll.runtime.sched.{name}", 10**8)
    release = threading.Event()

    async def stuck():
        with gopoll.syscall():
            release.wait(30)

    async def main():
        gopoll.lock_os_thread()  # so that it is not run()'s own thread that is stuck
        gopoll.go(stuck)
        await gopoll.sleep(0.01)

    began = time.monotonic()
    try:
        with pytest.warns(RuntimeWarning, match=r"goroutine 2 .*stuck.*left behind"):
            gopoll.run(main, procs=1)
        assert time.monotonic() - began < 20
    finally:
        release.set()


def test_an_m_that_comes_back_just_before_a_p_is_left_idle_takes_it(run):
    """S3: no thread is to be had for a P with work, and the only M has gone to sleep meanwhile."""
    blocked = threading.Event()
    refused = []

    async def other():
        return "ran"

    async def main():
        sched = current_sched()

        def start_thread(m):  # sysmon's retake: handoffp, startm
            refused.append(m.id)
            blocked.set()
            while sched.nmidle == 0:
                time.sleep(0.001)
            return False

        sched.start_thread = start_thread
        g = gopoll.go(other)
        blocked.wait(60)
        return await g

    assert run(main, procs=1) == "ran"
    assert refused
