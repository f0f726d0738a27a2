"""trio.attach(): what trio does its own way: scopes are states, and errors are sent."""

import warnings

import pytest

import gopoll
from embed.hosts import call, need, pair

trio = pytest.importorskip("trio", reason="trio is not installed (pip install trio)")

from gopoll.embed import trio as gopoll_trio  # noqa: E402

assert need("trio") is trio


def test_errors_of_the_body_come_out_in_no_group():
    async def main():
        async with gopoll_trio.attach():
            raise LookupError("the body's")

    with pytest.raises(LookupError, match="the body's"):
        trio.run(main)


def test_a_scope_that_is_cancelled_ends_the_next_operation_that_waits():
    async def main():
        async with gopoll_trio.attach():
            chan, got = gopoll.Chan(3), []
            for n in range(3):
                assert chan.try_send(n)
            with trio.CancelScope() as scope:
                scope.cancel()
                for _ in range(4):
                    got.append(await chan.recv())  # done on the spot: no checkpoint
            assert got == [0, 1, 2]
            assert scope.cancelled_caught

    trio.run(main)


def test_a_nursery_cancels_what_its_tasks_wait_in():
    async def main():
        async with gopoll_trio.attach() as guest:
            a, b = await pair()
            async with a, b:
                with trio.move_on_after(0.005) as scope:
                    async with trio.open_nursery() as nursery:
                        for op in (a.read, b.read, gopoll.Chan().recv):
                            nursery.start_soon(call, op, ())
                        nursery.start_soon(call, gopoll.sleep, (3600,))
                assert scope.cancelled_caught
                assert guest._sched.link.waiting == 0
                await b.write(b"still usable")
                assert await a.read() == b"still usable"

    trio.run(main)


def test_a_cancelled_block_cleans_up_first():
    said = []

    async def work():
        try:
            await gopoll.sleep(3600)
        finally:
            async with gopoll.shield():
                await gopoll.sleep(0.005)
            said.append("cleaned up")

    async def main():
        with trio.move_on_after(0.005) as scope:
            async with gopoll_trio.attach():
                gopoll.go(work)
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert said == ["cleaned up"]

    trio.run(main)


class Readable(trio.abc.Instrument):
    """Has the descriptor of *guest* readable each time that trio looks: the pump is woken."""

    guest = None

    def before_io_wait(self, timeout):
        if self.guest is not None:
            self.guest.wake()


@pytest.mark.parametrize("fails", [False, True])
def test_a_pump_that_is_woken_as_the_block_ends_does_nothing(fails):
    """trio shuffles what it runs: in half of the runs the block ended first, the pump after it."""

    async def bad():
        raise ZeroDivisionError("of a goroutine")

    async def main():
        async with gopoll_trio.attach() as readable.guest:
            if fails:
                gopoll.go(bad)
                await trio.sleep(60)
            await trio.lowlevel.checkpoint()

    for _ in range(20):
        readable = Readable()
        if fails:
            with pytest.raises(ZeroDivisionError, match="of a goroutine"):
                trio.run(main, instruments=[readable])
        else:
            trio.run(main, instruments=[readable])


def test_a_guest_that_ends_before_its_pump_has_begun():
    async def main():
        async with gopoll_trio.attach():
            pass

    for _ in range(20):
        trio.run(main)


def test_a_goroutine_may_not_await_what_is_trios():
    async def work():
        with pytest.raises(TypeError, match=r"goroutine awaited .*, which belongs to"):
            await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)
        return "done"

    async def main():
        async with gopoll_trio.attach():
            assert await gopoll.go(work) == "done"

    trio.run(main)


def test_channels_are_refused_before_attach():
    async def main():
        with pytest.raises(RuntimeError, match=r"outside a goroutine: .*attach gopoll to"):
            await gopoll.Chan().recv()

    trio.run(main)


def test_a_goroutine_is_in_no_task_of_trios():
    """A scope, a nursery or an event of trio's would be the pump's: that hung the host for good."""
    event = trio.Event()
    said = []

    async def in_a_scope():
        with trio.move_on_after(0.001):
            await gopoll.sleep(3600)

    async def in_a_nursery():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 0.001)

    async def in_an_event():
        await event.wait()

    async def in_a_thread():
        await trio.to_thread.run_sync(said.append, "a thread")

    async def sets(nursery):
        nursery.start_soon(trio.sleep, 0)
        event.set()
        return trio.current_time()

    async def main():
        with trio.fail_after(60):
            async with gopoll_trio.attach():
                for fn in (in_a_scope, in_a_nursery, in_an_event, in_a_thread):
                    with pytest.raises(RuntimeError, match="must be called from async context"):
                        await gopoll.go(fn)
                async with trio.open_nursery() as nursery:  # what needs no task is as ever
                    assert await gopoll.go(sets, nursery) <= trio.current_time()
                await event.wait()
                with pytest.raises(TypeError, match="awaited CancelShieldedCheckpoint, which"):
                    await gopoll.go(trio.lowlevel.cancel_shielded_checkpoint)

    trio.run(main)
    assert said == []


def test_what_is_raised_in_a_task_has_no_context_of_the_wait():
    async def work():
        await gopoll.sleep(0.001)
        raise LookupError("the goroutine's")

    async def main():
        async with gopoll_trio.attach():
            with pytest.raises(LookupError) as caught:
                await gopoll.go(work)
            assert caught.value.__context__ is None

    trio.run(main)


@pytest.mark.parametrize("where", ["system task", "generator", "dropped generator"])
def test_a_block_that_main_does_not_end_ends_with_the_run(where):
    """The pump is a system task and ends with main: the block waited for its turns for good."""
    said, kept = [], []

    async def work():
        try:
            await gopoll.sleep(3600)
        finally:
            async with gopoll.shield():
                await gopoll.sleep(0.001)
            said.append("cleaned up")

    async def begin():
        gopoll.go(work)
        await gopoll.sleep(0.001)
        said.append("begun")

    async def system():
        async with gopoll_trio.attach():
            await begin()
            begun.set()
            await gopoll.sleep(3600)

    async def generator():
        async with gopoll_trio.attach():
            yield await begin()

    async def main():
        if where == "system task":
            trio.lowlevel.spawn_system_task(system)
            await begun.wait()
        else:
            steps = generator()
            await anext(steps)
            if where == "generator":
                kept.append(steps)

    for _ in range(10):
        begun = trio.Event()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # trio's, of a generator that is left
            trio.run(main)
        kept.clear()
        assert said == ["begun", "cleaned up"]
        said.clear()
