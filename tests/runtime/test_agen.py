"""Async generators that are left half-consumed are closed, on whatever thread they are dropped.

Python leaves it to the event loop (PEP 525); Go has nothing of the kind. A12.
"""

import asyncio
import contextlib
import contextvars
import gc
import sys
import threading
import types

import pytest

import gopoll
from gopoll.runtime._sched import current_sched
from plugins.guard import wait_parked, wait_until
from runtime.tools import in_thread

PROCS = [1, 4]


async def numbers(seen, name="gen"):
    """Count; say when the end has come, before and after a park in the finally block."""
    try:
        for n in range(10):
            yield n
            await gopoll.gosched()
    finally:
        seen.append(f"{name} ends")
        await gopoll.sleep(0.0002)
        seen.append(f"{name} ended")


BOTH = ["gen ends", "gen ended"]


async def first(gen):
    return await anext(gen)


@pytest.mark.parametrize("procs", PROCS)
def test_one_that_is_dropped_is_closed_while_the_others_go_on(run, procs):
    async def main():
        seen = []
        assert await first(numbers(seen)) == 0
        await wait_until(lambda: len(seen) == 2)
        assert seen == BOTH

    run(main, procs=procs)


VAR = contextvars.ContextVar("VAR", default="unset")


async def reports(seen):
    try:
        yield VAR.get()
    finally:
        await gopoll.gosched()
        seen.append(VAR.get())


@pytest.mark.parametrize("procs", PROCS)
def test_its_clean_up_sees_the_contextvars_of_who_dropped_it(run, procs):
    """As in asyncio; it saw none that had been set."""

    async def main():
        seen = []
        VAR.set("set")
        assert await first(reports(seen)) == "set"
        await wait_until(lambda: seen)
        assert seen == ["set"]

    run(main, procs=procs)


def test_one_that_is_dropped_by_the_last_act_of_main_is_closed():
    seen = []
    gopoll.run(lambda: first(numbers(seen)))
    assert seen == BOTH


def test_one_that_is_still_being_closed_when_main_ends_is_closed_to_its_end():
    seen = []

    async def main():
        await first(numbers(seen))
        await wait_until(lambda: seen)

    gopoll.run(main)
    assert seen == BOTH


def test_those_that_are_held_are_closed_when_run_ends():
    seen, held = [], []

    async def main():
        for name in "abc":
            held.append(numbers(seen, name))
            await anext(held[-1])

    gopoll.run(main)
    assert sorted(seen) == sorted(f"{name} {what}" for name in "abc" for what in ("ends", "ended"))
    assert [gen.ag_frame for gen in held] == [None] * 3


def test_the_goroutine_that_is_cancelled_in_it_closes_it():
    """The await in the finally block raises, as every park of a cancelled goroutine does."""
    seen = []

    async def consume():
        async for _ in numbers(seen):
            await gopoll.sleep(3600)

    async def main():
        await wait_parked(gopoll.go(consume))

    gopoll.run(main)
    assert seen == BOTH


@pytest.mark.parametrize("procs", PROCS)
def test_one_that_another_thread_drops_is_closed_on_ours(run, procs):
    threads = []

    async def look():
        try:
            yield 1
        finally:
            threads.append(threading.current_thread())
            await gopoll.gosched()
            threads.append(gopoll.current())

    async def main():
        # Without a GIL an object ends on the thread that made it, once that runs Python again: ours
        # must not be left idle.
        gopoll.lock_os_thread()
        box = [look()]
        await anext(box[0])
        await gopoll.blocking(box.clear)
        await wait_until(lambda: len(threads) == 2)
        gopoll.unlock_os_thread()
        ours = {m.ident for m in current_sched().allm}
        assert threads[0].ident in ours
        assert threads[1] is None, "a goroutine of the runtime's own"

    run(main, procs=procs)


def test_one_that_began_on_another_thread_of_the_run_is_closed(run):
    """The hooks belong to threads; a goroutine that has lost its P goes on elsewhere."""
    seen = []

    async def worker():
        gopoll.lock_os_thread()
        assert threading.get_ident() != home
        await first(numbers(seen))
        gopoll.unlock_os_thread()

    async def main():
        gopoll.lock_os_thread()  # nobody else runs on this thread
        nonlocal home
        home = threading.get_ident()
        await gopoll.go(worker)
        await wait_until(lambda: len(seen) == 2)
        gopoll.unlock_os_thread()

    home = 0
    run(main, procs=2)
    assert seen == BOTH


def test_one_in_a_cycle_is_closed_when_it_is_collected(run):
    seen = []

    async def main():
        async def cycle():
            me = numbers(seen)
            box = [me]
            box.append(box)
            await anext(me)

        await cycle()
        gc.collect()
        await wait_until(lambda: len(seen) == 2)

    run(main)


def test_its_clean_up_may_start_goroutines_and_generators(run):
    """Which end, and are closed, before run() returns."""
    seen = []

    async def child():
        seen.append("child")  # no park: goroutines that begin now are cancelled

    async def outer():
        try:
            yield 1
        finally:
            await gopoll.go(child)
            await first(numbers(seen))
            await gopoll.sleep(0.0002)
            seen.append("outer ended")

    held = []

    async def main():
        held.append(outer())
        await anext(held[0])

    gopoll.run(main)
    assert sorted(seen) == sorted(["child", *BOTH, "outer ended"])


def test_an_error_of_the_clean_up_is_told_and_ends_nothing(capsys):
    async def bad(text):
        try:
            yield 1
        finally:
            raise ValueError(text)

    held = []

    async def main():
        await first(bad("dropped"))
        held.append(bad("held"))
        await anext(held[0])
        await gopoll.sleep(0.001)
        return "goes on"

    assert gopoll.run(main) == "goes on"
    err = capsys.readouterr().err
    assert err.count("ValueError: dropped\n") == err.count("ValueError: held\n") == 1


def test_an_exit_in_the_clean_up_ends_the_run():
    async def leaves():
        try:
            yield 1
        finally:
            sys.exit(3)

    async def main():
        await first(leaves())
        await gopoll.sleep(3600)

    with pytest.raises(SystemExit) as caught:
        gopoll.run(main)
    assert caught.value.code == 3


def test_one_that_was_run_to_its_end_is_not_closed_again(run):
    async def main():
        seen = []
        assert [n async for n in numbers(seen)] == list(range(10))
        gc.collect()
        await gopoll.sleep(0.0005)
        assert seen == BOTH
        assert len(current_sched()._agens) == 0

    run(main)


def test_the_hosts_hooks_are_back_after_the_run():
    """A run inside a thread of asyncio's leaves asyncio's generators to asyncio."""
    seen = []

    async def asyncs():
        try:
            yield 1
        finally:
            seen.append("asyncio's")

    async def inner():
        await first(numbers(seen))

    async def host():
        before = sys.get_asyncgen_hooks()
        assert before.finalizer is not None
        gopoll.run(inner)
        assert sys.get_asyncgen_hooks() == before
        await first(asyncs())
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    in_thread(lambda: asyncio.run(host()))
    assert seen == [*BOTH, "asyncio's"]


@pytest.mark.parametrize("procs", PROCS)
def test_a_thousand_of_them_are_each_closed_once(run, procs):
    seen = []

    async def leaves(i):
        try:
            yield i
        finally:
            await gopoll.gosched()
            seen.append(i)

    async def worker(k):
        for i in range(k * 100, k * 100 + 100):
            assert await first(leaves(i)) == i

    async def main():
        for g in [gopoll.go(worker, k) for k in range(10)]:
            await g
        await wait_until(lambda: len(seen) == 1000)
        assert sorted(seen) == list(range(1000))

    run(main, procs=procs)


@types.coroutine
def pause():
    yield


@pytest.mark.parametrize("waits", [False, True])
def test_one_that_is_dropped_when_all_is_over_is_closed_on_the_spot(run, waits):
    """Without a GIL a thread may be late: weak references are gone before we hear of the drop."""
    scheds, seen = [], []

    async def main():
        scheds.append(current_sched())

    async def gen():
        try:
            yield 1
        finally:
            try:
                if waits:
                    await pause()
            finally:
                seen.append("closed")

    run(main)
    agen = gen()
    with pytest.raises(StopIteration):
        agen.asend(None).send(None)
    expected = pytest.warns(ResourceWarning, match="gen was dropped too late to wait")
    with expected if waits else contextlib.nullcontext():
        scheds[0]._drop_agen(agen)
    assert seen == ["closed"]
