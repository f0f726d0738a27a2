"""At the limit of threads (MAX_MS, here fewer): goroutines share those there are, and none is lost.

Go: checkmcount, "thread exhaustion", which ends the program; debug.SetMaxThreads.
"""

import os
import random
import threading
import time
import warnings

import pytest

import gopoll
from gopoll.runtime._sched import current_sched
from plugins.guard import wait_parked
from runtime.tools import until


def warned_of(caught):
    """Return what has been said of the limit, and nothing else has been said."""
    texts = [str(w.message) for w in caught]
    assert all("threads, all at work, and starts no more" in text for text in texts), texts
    return texts


@pytest.fixture
def limited(run):
    """Return what runs fn(*args) with at most *most* threads; it gives the result and warnings."""

    def run_limited(most, fn, *args, **options):
        async def main():
            current_sched().max_ms = most
            return await fn(*args)

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = run(main, **options)
        return result, warned_of(caught)

    return run_limited


def test_goroutines_wait_for_a_thread_that_comes_back(limited):
    """All are stuck: a P is idle, and what is ready waits, until one of them returns."""
    r, w = os.pipe()
    begun, ran, seen = [], [], []

    def frees(sched):
        try:
            until(lambda: len(begun) == 2 and sched.npidle)  # a P has been taken
            seen.append((sched.nmidle, len(sched.allm), list(ran)))
        finally:
            os.write(w, b"xx")

    async def stuck():
        begun.append(True)
        return os.read(r, 1)  # keeps its thread, and not in a syscall()

    async def other():
        ran.append(True)

    async def main():
        thread = threading.Thread(target=frees, args=(current_sched(),))
        gs = [gopoll.go(stuck)]
        while not begun:
            await gopoll.sleep(0.001)
        gs.append(gopoll.go(other))
        thread.start()
        gs.append(await stuck())
        for g in gs[:2]:
            await g
        await gopoll.blocking(thread.join)
        assert gopoll.stats().threads == 2
        assert gopoll.stats().retakes

    try:
        _, warned = limited(2, main, procs=2)
    finally:
        os.close(r)
        os.close(w)
    assert ran
    assert len(warned) == 1, "once in a run"
    assert "gopoll.run() has 2 threads" in warned[0]
    assert seen == [(0, 2, [])]


def test_syscall_keeps_its_p_where_nobody_could_go_on(limited):
    async def main():
        before = gopoll.stats().handoffs
        g = gopoll.go(gopoll.gosched)
        with gopoll.syscall():
            time.sleep(0.03)
        assert gopoll.stats().handoffs == before
        assert gopoll.stats().threads == 1
        await g

    _, warned = limited(1, main, procs=1)
    assert len(warned) == 1


def test_lock_os_thread_says_that_there_is_no_thread_for_the_others(limited):
    async def main():
        for _ in range(2):
            with pytest.raises(RuntimeError, match="the other goroutines need another thread"):
                gopoll.lock_os_thread()
        await gopoll.sleep(0.001)
        return await gopoll.blocking(int, "7")  # whose threads are others

    assert limited(1, main, procs=1)[0] == 7


def test_where_warnings_are_errors_the_run_ends_with_it(run):
    """As a program of Go's does; what runs is cancelled, and all threads come back."""

    async def main():
        current_sched().max_ms = 1
        with gopoll.syscall():
            pass
        with pytest.raises(gopoll.Canceled):
            await gopoll.sleep(3600)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="starts no more"):
            run(main, procs=1)


@pytest.mark.parametrize("procs", [1, 2, 8])
@pytest.mark.parametrize("most", [1, 2, 3])
def test_nothing_is_lost_at_the_limit(limited, procs, most):
    dice = random.Random(1000 * procs + most)
    chan = gopoll.Chan(2)

    async def some(kind):
        for _ in range(5):
            if kind == 0:
                with gopoll.syscall():
                    time.sleep(0.001)
            elif kind == 1:
                time.sleep(0.012)  # it loses its P
            elif kind == 2:
                await chan.send(1)
                await chan.recv()
            elif kind == 3:
                await gopoll.sleep(0.001)
            else:
                try:
                    gopoll.lock_os_thread()
                except RuntimeError:
                    await gopoll.gosched()
                else:
                    await gopoll.sleep(0.0005)
                    gopoll.unlock_os_thread()
            assert gopoll.stats().threads <= most
        return kind

    async def main():
        kinds = [dice.randrange(5) for _ in range(60)]
        gs = [gopoll.go(some, kind) for kind in kinds]
        assert [await g for g in gs] == kinds

    limited(most, main, procs=procs)


def test_a_limit_that_has_passed_is_forgotten(limited):
    """A thread that comes back is used again; no P stays idle beside work."""

    async def main():
        with gopoll.syscall():
            time.sleep(0.001)
        current_sched().max_ms = 2048
        g = gopoll.go(gopoll.sleep, 3600)
        await wait_parked(g)
        before = gopoll.stats().handoffs
        ran = []

        async def other():
            ran.append(True)

        gopoll.go(other)
        with gopoll.syscall():
            until(lambda: ran)
        assert gopoll.stats().handoffs == before + 1
        g.cancel()

    _, warned = limited(1, main, procs=1)
    assert len(warned) == 1
