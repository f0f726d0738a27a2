"""The handle of a goroutine: what it tells, whom it wakes, and what a goroutine takes along.

Go: runtime/proc.go; handles, states and results are ours.
"""

import contextvars
import math
import re
import traceback

import pytest

import gopoll
from gopoll import Canceled
from helpers.fds import half_pair
from plugins.guard import wait_parked, wait_until
from runtime.tools import ONE, Value, fails, value

VAR = contextvars.ContextVar("VAR", default="unset")


# -- go and the handle -----------------------------------------------------------------------------


def test_go_takes_a_function_a_coroutine_or_any_awaitable(run):
    async def main():
        kinds = [gopoll.go(value, 1), gopoll.go(value(2)), gopoll.go(Value(3))]
        kinds.append(gopoll.go(lambda: value(4)))
        return [await g for g in kinds]

    assert run(main) == [(1,), (2,), 3, (4,)]


def test_a_handle_may_be_awaited_often_and_by_many(run):
    async def main():
        gate, open_gate = gopoll.with_cancel(gopoll.background())

        async def worker():
            await gate.wait()
            return object()

        async def joiner(g):
            return await g

        g = gopoll.go(worker)
        joiners = [gopoll.go(joiner, g) for _ in range(20)]
        await wait_parked(g, *joiners)
        open_gate()
        results = {await j for j in joiners} | {await g, await g}
        assert len(results) == 1

    run(main)


def test_every_await_of_a_failed_goroutine_raises_its_error(run):
    async def main():
        error = ValueError("once")
        g = gopoll.go(fails, error)
        for _ in range(3):
            with pytest.raises(ValueError, match="once") as caught:
                await g
            assert caught.value is error

    run(main)


def test_an_error_that_is_raised_again_keeps_the_frames_of_nobody_who_awaited_it(run):
    """Every await left its frames in the traceback, and so all that they refer to, for ever."""

    def frames(error):
        return len(traceback.extract_tb(error.__traceback__))

    async def main():
        g = gopoll.go(fails, ValueError("once"))
        awaited, asked = [], []
        for _ in range(5):
            try:
                await g
            except ValueError as error:
                awaited.append(frames(error))
            try:
                await gopoll.blocking(g.result)
            except ValueError as error:
                asked.append(frames(error))
        assert len(set(awaited)) == 1
        assert len(set(asked)) == 1

    run(main)


@pytest.mark.parametrize("procs", [1, 4])
def test_an_error_may_be_raised_by_many_at_once(run, procs):
    """Without a GIL two threads that raise one object spoil its traceback: others get copies."""

    made = []

    class Own(Exception):
        __slots__ = ("c",)

        def __init__(self, a, *, b):
            super().__init__(f"no such user: {a}")  # not what it was called with
            self.b, self.c = b, [b]
            made.append(self)

    class OwnOS(OSError):
        def __init__(self, *, path):
            super().__init__(2, "gone", path)

    cause = KeyError("cause")

    async def failing(error):
        await gopoll.gosched()
        raise error from cause

    async def join(g):
        try:
            await g
        except BaseException as exc:
            return exc

    async def main():
        errors = [
            OSError(5, "five", "file"),
            Own(1, b=2),
            OwnOS(path="x"),
            ExceptionGroup("two", [cause]),
        ]
        errors.append(ImportError("no", name="module", path="p"))
        for error in errors:
            for _ in range(40):
                g = gopoll.go(failing, error)
                for exc in [await j for j in [gopoll.go(join, g) for _ in range(4)]]:
                    assert type(exc) is type(error)
                    assert vars(exc).items() >= vars(error).items()
                    assert (str(exc), exc.args, exc.__cause__) == (str(error), error.args, cause)
                    for name in ("errno", "filename", "c", "name", "exceptions"):
                        assert getattr(exc, name, None) == getattr(error, name, None)
                    names = [frame.name for frame in traceback.extract_tb(exc.__traceback__)]
                    assert (names[0], names[-1]) == ("join", "failing")
        assert len(made) == 1, "it is not made again"

    run(main, procs=procs)


def test_awaiting_one_that_has_ended_does_not_park(run):
    async def main():
        g = gopoll.go(value, 1)
        await wait_until(lambda: g.done)
        gopoll.current().cancel()  # a park would raise now
        assert await g == (1,)

    run(main)


def test_main_is_goroutine_1_and_ids_are_never_given_twice(run):
    async def main():
        assert gopoll.current().id == 1
        ids = []
        for _ in range(50):
            g = gopoll.go(value)
            ids.append(g.id)
            await g
        assert sorted(set(ids)) == ids, "a later goroutine has a larger number"
        assert min(ids) > 1

    run(main)


def test_a_goroutine_is_named_by_go_or_by_its_function(run):
    async def main():
        named = gopoll.go(value, name="worker 7")
        plain = gopoll.go(value)
        coro = gopoll.go(value())
        assert (named.name, plain.name, coro.name) == ("worker 7", "value", "value")
        assert re.fullmatch(rf"<Goroutine {named.id} worker 7 \w+>", repr(named))
        for g in (named, plain, coro):
            await g

    run(main)


def test_state_and_wait_reason_tell_what_a_goroutine_does(run):
    async def main():
        seen = []

        async def worker():
            seen.append((gopoll.current().state, gopoll.current().wait_reason))
            await gopoll.sleep(3600)

        g = gopoll.go(worker)
        assert (g.state, g.wait_reason, g.done) == ("runnable", None, False)
        await wait_parked(g)
        assert seen == [("running", None)]
        assert (g.state, g.wait_reason) == ("waiting", "sleep")
        joiner = gopoll.go(g)
        await wait_parked(joiner)
        assert joiner.wait_reason == "join"
        g.cancel()
        with pytest.raises(Canceled):
            await joiner
        assert (g.state, g.wait_reason, g.done) == ("dead", None, True)

    run(main, **ONE)


def test_the_wait_reason_of_input_and_output_is_the_operation(run):
    async def main():
        with half_pair() as (fd, _):
            reader, writer = gopoll.go(fd.read, 1), gopoll.go(fd.write, bytes(8 << 20))
            await wait_parked(reader, writer)
            queued = gopoll.go(fd.read, 1)  # behind the other one
            await wait_parked(queued)
            reasons = [g.wait_reason for g in (reader, writer, queued)]
            assert reasons == ["read", "write", "read"]
            fd.close()
            for g in (reader, writer, queued):
                with pytest.raises(gopoll.ClosedError):
                    await g

    run(main)


def test_current_is_the_handle_of_the_goroutine_that_runs(run):
    async def main():
        async def worker():
            return gopoll.current()

        g = gopoll.go(worker)
        assert await g == g
        assert gopoll.current() == gopoll.current()
        assert gopoll.current() != g

    assert gopoll.current() is None
    run(main)
    assert gopoll.current() is None


# -- result() from plain threads -------------------------------------------------------------------


def test_a_plain_thread_may_wait_for_the_result(run):
    async def main():
        gate, open_gate = gopoll.with_cancel(gopoll.background())

        async def worker(error):
            await gate.wait()
            if error:
                raise error
            return "value"

        good, bad = gopoll.go(worker, None), gopoll.go(worker, ValueError("bad"))
        waiting = [gopoll.go(gopoll.blocking(g.result, 60)) for g in (good, bad)]
        await wait_parked(good, bad, *waiting)
        open_gate()
        assert await waiting[0] == "value"
        with pytest.raises(ValueError, match="bad"):
            await waiting[1]
        assert good.result() == "value", "one that has ended may be asked anywhere"

    run(main)


def test_result_gives_up_after_its_timeout(run):
    async def main():
        g = gopoll.go(gopoll.sleep, 3600)
        with pytest.raises(TimeoutError, match=rf"^goroutine {g.id} has not ended within 0\.01 s$"):
            await gopoll.blocking(g.result, 0.01)
        for wrong, text in (("x", "^timeout must be seconds, not str$"), (math.nan, "not be nan$")):
            with pytest.raises((TypeError, ValueError), match=text):
                await gopoll.blocking(g.result, wrong)
        g.cancel()
        with pytest.raises(Canceled):
            await g

    run(main)


def test_result_is_refused_where_it_would_block_the_goroutines(run):
    async def main():
        g = gopoll.go(gopoll.sleep, 3600)
        with pytest.raises(RuntimeError, match=r"^result\(\) would block the goroutines: await"):
            g.result()
        g.cancel()
        with pytest.raises(Canceled):
            await g

    run(main)


# -- contextvars -----------------------------------------------------------------------------------


def test_a_goroutine_gets_a_copy_of_the_contextvars_of_who_started_it(run):
    async def child(name):
        before = VAR.get()
        VAR.set(name)
        await gopoll.gosched()
        return before, VAR.get()

    async def main():
        assert VAR.get() == "outside"
        VAR.set("main")
        children = [gopoll.go(child, f"child {i}") for i in range(3)]
        VAR.set("later")
        got = [await g for g in children]
        assert got == [("main", f"child {i}") for i in range(3)]
        assert VAR.get() == "later"

    token = VAR.set("outside")
    try:
        run(main)
        assert VAR.get() == "outside"
    finally:
        VAR.reset(token)


# -- stats -----------------------------------------------------------------------------------------


def test_stats_count_and_cannot_be_changed(run):
    async def main():
        before = gopoll.stats()
        with half_pair() as (fd, peer):
            reader, sleeper = gopoll.go(fd.read, 1), gopoll.go(gopoll.sleep, 3600)
            await wait_parked(reader, sleeper)
            now = gopoll.stats()
            assert now.goroutines == before.goroutines + 2
            assert now.descriptors == before.descriptors + 1
            assert now.timers >= before.timers + 1
            assert now.parks > before.parks
            peer.send(b"x")
            await reader
            sleeper.cancel()
            with pytest.raises(Canceled):
                await sleeper
        after = gopoll.stats()
        assert after.events > before.events
        assert after.wakes > before.wakes
        assert after.polls > before.polls
        assert after.switches >= before.switches
        for name in ("spurious", "stale", "breaks", "overruns"):
            assert getattr(after, name) >= getattr(before, name)
        with pytest.raises(AttributeError):
            after.parks = 0

    run(main)
