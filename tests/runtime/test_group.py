"""Group: goroutines that end before the block does, and what comes out of it.

What asyncio.TaskGroup, trio's nursery and errgroup promise their users, tried on ours.
"""

import gc
import sys
import time
import weakref

import pytest

import gopoll
from gopoll import Canceled, DeadlineExceeded, Group
from helpers.child import run_python
from helpers.cost import assert_each_costs_the_same, cpu_of
from plugins.guard import wait_parked, wait_until
from runtime.tools import ONE, fails, value

PROCS = [1, 4]


async def forever():
    await gopoll.sleep(3600)


async def raised_by(coro):
    """Await *coro*; return what it raises."""
    try:
        await coro
    except BaseException as exc:
        return exc
    raise AssertionError("nothing was raised")


# -- it waits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("procs", PROCS)
def test_the_block_ends_when_every_goroutine_has(run, procs):
    async def child(i):
        for _ in range(i):
            await gopoll.gosched()
        await gopoll.sleep(0.0002 * (i % 3))
        return i

    async def main():
        for _ in range(20):
            async with Group() as group:
                gs = [group.go(child, i) for i in range(10)]
            assert [g.state for g in gs] == ["dead"] * 10
            assert [await g for g in gs] == list(range(10))

    run(main, procs=procs)


def test_an_empty_group_ends_at_once(run):
    async def main():
        async with Group():
            pass

    run(main)


def test_go_takes_what_gopoll_go_takes(run):
    async def main():
        async with Group() as group:
            named = group.go(value, 1, 2, name="mine")
            plain = group.go(value(3))
            assert (named.name, plain.name) == ("mine", "value")
            with pytest.raises(TypeError, match=r"^Group.go\(\) takes an async function or an"):
                group.go(3)
        assert (await named, await plain) == ((1, 2), (3,))

    run(main)


def test_goroutines_inherit_the_groups_context(run):
    async def look():
        return gopoll.current_context()

    async def main():
        before = gopoll.current_context()
        async with gopoll.timeout(60) as limit, Group() as group:
            inside = gopoll.current_context()
            assert inside is not limit.context
            assert inside.deadline == limit.when
            theirs = await group.go(look)
            assert theirs.deadline == limit.when
            assert not inside.done
            assert not theirs.done
        assert inside.done, "it is released in the end"
        assert theirs.done
        assert gopoll.current_context() is before

    run(main)


@pytest.mark.parametrize("procs", PROCS)
def test_goroutines_may_be_added_from_anywhere_while_the_group_closes(run, procs):
    """The body has ended; its children, and one that is no child, go on adding to it."""
    ended = []

    async def child(group, depth):
        await gopoll.sleep(0.0002)
        if depth:
            group.go(child, group, depth - 1)
            group.go(child, group, depth - 1)
        ended.append(depth)

    async def outsider(group, gate):
        await gate.wait()
        return group.go(child, group, 1)

    async def main():
        gate, open_gate = gopoll.with_cancel(gopoll.background())
        other = gopoll.go(outsider, group := Group(), gate)

        async def keeps_open(me):
            await wait_parked(me)
            open_gate()
            await (await other)

        async with group:
            group.go(child, group, 4)
            group.go(keeps_open, gopoll.current())
        assert sorted(ended) == sorted([4] + [3] * 2 + [2] * 4 + [1] * 9 + [0] * 18)

    run(main, procs=procs)


@pytest.mark.parametrize("procs", PROCS)
def test_a_goroutine_that_comes_too_late_is_refused_or_waited_for(run, procs):
    """No goroutine outlives the block, whenever another one adds to it."""

    async def child():
        pass

    async def add(group, added):
        for _ in range(50):
            try:
                added.append(group.go(child))
            except RuntimeError:
                return
            await gopoll.gosched()

    async def main():
        for i in range(30):
            added, group = [], Group()
            adder = gopoll.go(add, group, added)
            async with group:
                for _ in range(i):
                    await gopoll.gosched()
            assert all(g.done for g in list(added))
            await adder
            assert all(g.done for g in added)

    run(main, procs=procs)


def test_a_group_is_whole_as_soon_as_others_can_see_its_context(run):
    """go() on another thread, which begins with that look, met a group without a scheduler."""
    missing = []

    class Watched(Group):
        @property
        def _ctx(self):
            return self.seen

        @_ctx.setter
        def _ctx(self, ctx):
            self.seen = ctx
            if ctx is not None:
                needed = set(Group.__slots__) - {"_body", "_g"}  # those are for the block's end
                missing.extend(name for name in needed if not hasattr(self, name))

    async def main():
        async with Watched() as group:
            group.go(value)

    run(main)
    assert missing == []


# -- where it may be used --------------------------------------------------------------------------


def test_it_is_used_once_and_only_inside_its_block(run):
    outside = r"^Group.go\(\) outside of the group's async with block$"

    async def main():
        group = Group()
        with pytest.raises(RuntimeError, match=outside):
            group.go(forever)
        async with group:
            pass
        with pytest.raises(RuntimeError, match=outside):
            group.go(forever)
        with pytest.raises(RuntimeError, match=r"^Group objects are used once$"):
            async with group:
                pass

    run(main)


def test_it_belongs_to_one_run(run):
    async def main():
        async with Group() as group:

            async def other():
                with pytest.raises(RuntimeError, match=r"in another run\(\) than the group's$"):
                    group.go(forever)

            await gopoll.blocking(gopoll.run, other)
            with pytest.raises(RuntimeError, match="no scheduler runs on this thread"):
                await gopoll.blocking(group.go, forever)

    run(main)
    with pytest.raises(RuntimeError, match=r"^no goroutine runs here: use Group inside gopoll.run"):
        Group().__aenter__().send(None)


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("procs", PROCS)
def test_the_first_error_cancels_the_others_and_the_body(run, procs):
    seen = []
    error = ValueError("first")

    async def child(i):
        try:
            await forever()
        except Canceled as exc:
            seen.append((i, exc.cause))
            raise

    async def block():
        async with Group() as group:
            await wait_parked(*[group.go(child, i) for i in range(3)])
            group.go(fails, error)
            await child("body")
            raise AssertionError("the body goes on")

    async def main():
        caught = await raised_by(block())
        assert type(caught) is ExceptionGroup
        assert caught.args == ("errors in a Group", [error])
        assert caught.exceptions == (error,)
        assert (caught.__cause__, caught.__suppress_context__) == (None, True)
        assert sorted(map(str, seen)) == sorted(str((i, error)) for i in (0, 1, 2, "body"))

    run(main, procs=procs)


def test_an_error_costs_the_same_however_many_there_are(run):
    """Each is kept once, however often it is met, without a look at all that were met before."""

    def measure(n):
        known = [KeyError(i) for i in range(n)]
        costs = []

        async def block():
            async with Group() as group:
                for _ in range(2):
                    costs.append(cpu_of(lambda: [group._fail(error) for error in known]))

        async def main():
            assert list((await raised_by(block())).exceptions) == known

        run(main, **ONE)
        return costs[0]

    assert_each_costs_the_same(measure, 100)


def test_errors_in_the_clean_up_of_the_others_are_all_told(run):
    async def child(error):
        try:
            await forever()
        finally:
            raise error

    async def block(errors):
        async with Group() as group:
            await wait_parked(*[group.go(child, error) for error in errors[1:]])
            group.go(fails, errors[0])

    async def main():
        errors = [ValueError("first"), KeyError("second"), OSError(5, "third")]
        caught = await raised_by(block(errors))
        assert caught.exceptions[0] is errors[0]
        assert set(caught.exceptions) == set(errors)
        parts = []
        try:
            raise caught
        except* ValueError as some:
            parts.append(some.exceptions)
        except* OSError as some:
            parts.append(some.exceptions)
        except* KeyError as some:
            parts.append(some.exceptions)
        assert parts == [(errors[0],), (errors[2],), (errors[1],)]

    run(main)


def test_an_error_in_the_body_cancels_the_goroutines_and_is_in_the_group(run):
    seen = []
    error = ValueError("of the body")

    async def child():
        try:
            await forever()
        finally:
            async with gopoll.shield():
                await gopoll.sleep(0.0002)
            seen.append("cleaned up")

    async def block():
        async with Group() as group:
            await wait_parked(group.go(child))
            raise error

    async def main():
        caught = await raised_by(block())
        assert (type(caught), caught.exceptions) == (ExceptionGroup, (error,))
        assert seen == ["cleaned up"]

    run(main)


@pytest.mark.parametrize("procs", PROCS)
def test_an_error_that_several_have_met_is_told_once(run, procs):
    error = ValueError("shared")

    async def join(g):
        async with gopoll.shield():
            await g

    async def block():
        async with Group() as group:
            failing = group.go(fails, error)
            for _ in range(3):
                group.go(join, failing)
            await join(failing)

    async def main():
        for _ in range(20):
            assert (await raised_by(block())).exceptions == (error,)

    run(main, procs=procs)


def test_awaiting_a_handle_raises_its_error_too(run):
    error = ValueError("seen by the body")

    handles = []

    async def block():
        async with Group() as group:
            handles.append(group.go(fails, error))
            async with gopoll.shield():
                with pytest.raises(ValueError, match="seen by the body"):
                    await handles[0]

    async def main():
        assert (await raised_by(block())).exceptions == (error,)
        (g,) = handles
        with pytest.raises(ValueError, match="seen by the body"):
            await g

    run(main)


def test_the_error_of_a_group_does_not_end_run_as_well(run):
    """Whoever awaits the block has it: no handle need be held."""

    async def block():
        async with Group() as group:
            group.go(fails, ValueError("told once"))

    async def main():
        assert type(await raised_by(block())) is ExceptionGroup
        await gopoll.sleep(0.0002)
        return "goes on"

    assert run(main) == "goes on"


def test_a_group_that_has_failed_still_takes_goroutines_and_cancels_them(run):
    steps = []

    async def late():
        steps.append("began")
        await gopoll.sleep(0)
        steps.append("never")

    async def block():
        async with Group() as group:
            g = group.go(fails, ValueError("fails"))
            await wait_until_done(g)
            group.go(late)

    async def wait_until_done(g):
        async with gopoll.shield():
            await wait_until(lambda: g.done)

    async def main():
        assert len((await raised_by(block())).exceptions) == 1
        assert steps == ["began"]

    run(main, **ONE)


def test_nested_groups_nest_their_errors(run):
    inner, outer = ValueError("inner"), KeyError("outer")

    async def nested():
        async with Group() as group:
            group.go(fails, inner)

    async def late():
        try:
            await forever()
        finally:
            raise outer

    async def block():
        async with Group() as group:
            await wait_parked(group.go(late))
            group.go(nested)

    async def main():
        caught = await raised_by(block())
        assert type(caught.exceptions[0]) is ExceptionGroup
        assert caught.exceptions[0].exceptions == (inner,)
        assert caught.exceptions[1] is outer
        assert caught.subgroup(ValueError).exceptions[0].exceptions == (inner,)

    run(main)


def test_an_error_of_the_outer_group_ends_the_inner_one_without_an_error(run):
    seen = []

    async def nested():
        try:
            async with Group() as group:
                group.go(forever)
                await forever()
        except BaseException as exc:
            seen.append(exc)
            raise

    async def block(error):
        async with Group() as group:
            await wait_parked(group.go(nested))
            raise error

    async def main():
        error = ValueError("outer")
        assert (await raised_by(block(error))).exceptions == (error,)
        assert [(type(exc), exc.cause) for exc in seen] == [(Canceled, error)]

    run(main)


# -- cancellation ----------------------------------------------------------------------------------


async def reports(seen):
    try:
        await forever()
    except Canceled as exc:
        seen.append(exc.cause)
        raise
    finally:
        async with gopoll.shield():
            await gopoll.sleep(0.0002)


@pytest.mark.parametrize("where", ["in the body", "in the wait for the others"])
@pytest.mark.parametrize("procs", PROCS)
def test_a_cancel_of_the_goroutine_with_the_block_cancels_the_group(run, procs, where):
    seen = []

    async def block():
        try:
            async with Group() as group:
                gs = [group.go(reports, seen) for _ in range(2)]
                if where == "in the body":
                    await forever()
        finally:
            assert all(g.done for g in gs)

    async def main():
        g = gopoll.go(block)
        await wait_parked(g)
        await wait_until(lambda: gopoll.stats().timers >= 2)
        g.cancel("enough")
        with pytest.raises(Canceled) as caught:
            await g
        assert caught.value.cause == "enough"
        assert seen == ["enough"] * 2

    run(main, procs=procs)


@pytest.mark.parametrize("where", ["in the body", "in the wait for the others"])
def test_a_timeout_around_a_group_is_told(run, where):
    seen = []

    async def block():
        async with gopoll.timeout(None) as bound, Group() as group:
            await wait_parked(group.go(reports, seen))
            bound.reschedule(time.monotonic() + 0.001)
            if where == "in the body":
                await forever()

    async def main():
        with pytest.raises(DeadlineExceeded):
            await block()
        assert len(seen) == 1

    run(main)


def test_a_timeout_that_ends_the_wait_does_not_hide_the_errors(run):
    async def child():
        try:
            await forever()
        finally:
            raise ValueError("in the clean-up")

    async def block():
        async with gopoll.timeout(0.001), Group() as group:
            group.go(child)

    async def main():
        caught = await raised_by(block())
        assert type(caught) is ExceptionGroup
        assert [str(exc) for exc in caught.exceptions] == ["in the clean-up"]
        await gopoll.sleep(0)  # the timeout's scope has been left

    run(main)


def test_a_cancel_that_meets_an_error_is_raised_at_the_next_park(run):
    async def child(error):
        try:
            await forever()
        finally:
            raise error

    async def block():
        try:
            async with Group() as group:
                group.go(child, ValueError("in the clean-up"))
        except* ValueError:
            pass
        await gopoll.sleep(0)
        raise AssertionError("the cancellation is lost")

    async def main():
        g = gopoll.go(block)
        await wait_parked(g)
        g.cancel("outer")
        with pytest.raises(Canceled) as caught:
            await g
        assert caught.value.cause == "outer"

    run(main)


def test_under_shield_the_wait_is_not_cancelled_either(run):
    async def block(gate):
        async with gopoll.shield(), Group() as group:
            g = group.go(gate.wait)
        assert await g is None
        await gopoll.sleep(0)

    async def main():
        gate, open_gate = gopoll.with_cancel(gopoll.background())
        g = gopoll.go(block, gate)
        await wait_parked(g)
        g.cancel()
        await gopoll.sleep(0.0002)
        open_gate()
        with pytest.raises(Canceled):
            await g

    run(main)


def test_one_goroutine_may_be_cancelled_alone(run):
    async def main():
        async with Group() as group:
            one, other = group.go(forever), group.go(gopoll.sleep, 0.005)
            await wait_parked(one)
            one.cancel("only you")
        assert await other is None
        with pytest.raises(Canceled) as caught:
            await one
        assert caught.value.cause == "only you"

    run(main)


def test_a_group_ends_with_the_run():
    seen = []

    async def left():
        async with Group() as group:
            group.go(reports, seen)
            group.go(reports, seen)

    async def main():
        await wait_parked(gopoll.go(left))
        await wait_until(lambda: gopoll.stats().timers >= 2)

    gopoll.run(main)
    assert seen == ["the main goroutine has ended"] * 2


# -- what ends the program -------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["a goroutine", "the body"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_exits_are_raised_as_themselves_when_all_have_ended(run, where, error):
    """As in asyncio: sys.exit(3) in a group ends the program with 3, not with a traceback."""
    seen = []

    async def block():
        async with Group() as group:
            await wait_parked(group.go(reports, seen))
            if where == "the body":
                raise error
            group.go(fails, error)

    async def main():
        assert await raised_by(block()) is error
        assert (error.__cause__, seen) == (None, [error])

    run(main)


def test_an_exit_does_not_hide_the_errors(run):
    error = ValueError("in the clean-up")

    async def child():
        try:
            await forever()
        finally:
            raise error

    async def block():
        async with Group() as group:
            await wait_parked(group.go(child))
            group.go(fails, SystemExit(3))

    async def main():
        caught = await raised_by(block())
        assert (type(caught), caught.code) == (SystemExit, 3)
        assert caught.__cause__.exceptions == (error,)

    run(main)


@pytest.mark.parametrize("where", ["in the body", "in the wait for the others"])
def test_ctrl_c_comes_out_of_a_group_as_ctrl_c(where):
    done = run_python(
        f"""
        import os, signal
        import gopoll

        async def child():
            try:
                await gopoll.sleep(3600)
            finally:
                async with gopoll.shield():
                    await gopoll.sleep(0.001)
                print("cleaned up")

        async def kill(main):
            while main.state != "waiting":
                await gopoll.sleep(0.0005)
            os.kill(os.getpid(), signal.SIGINT)

        async def main():
            gopoll.go(kill, gopoll.current())
            async with gopoll.Group() as group:
                group.go(child)
                if {where == "in the body"}:
                    await gopoll.sleep(3600)

        try:
            gopoll.run(main)
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert (done.stdout, done.stderr) == ("cleaned up\ninterrupted\n", "")


def test_other_base_exceptions_make_a_base_exception_group(run):
    class Odd(BaseException):
        pass

    error = Odd()

    async def block():
        async with Group() as group:
            group.go(fails, error)

    async def main():
        caught = await raised_by(block())
        assert (type(caught), caught.exceptions) == (BaseExceptionGroup, (error,))

    run(main)


def test_an_async_generator_that_is_closed_inside_its_group_just_ends(run):
    seen = []

    async def numbers():
        async with Group() as group:
            group.go(reports, seen)
            yield 1
            yield 2

    async def main():
        gen = numbers()
        async for n in gen:
            assert n == 1
            await gopoll.sleep(0)
            break
        await gen.aclose()
        assert [type(cause) for cause in seen] == [GeneratorExit]

    run(main)


def test_a_group_keeps_nothing_when_it_is_over(run):
    """Errors, goroutines and the group itself are not held together by cycles."""

    class Marked(Exception):
        pass

    refs = []

    async def failing():
        error = Marked()
        refs.append(weakref.ref(error))
        raise error

    async def block():
        async with Group() as group:
            refs.append(weakref.ref(group.go(failing)))

    async def main():
        gc.disable()
        try:
            with pytest.raises(ExceptionGroup):
                await block()
        finally:
            gc.enable()

    run(main)
    gc.collect()
    assert [ref() for ref in refs] == [None] * 2


def test_a_function_after_the_context_that_exits_does_not_hang_the_group(run, capsys):
    async def fail():
        raise ValueError("first")

    async def block():
        async with Group() as group:
            gopoll.current_context().after_func(lambda: sys.exit(3))
            group.go(fail)
            await forever()

    async def main():
        assert [str(e) for e in (await raised_by(block())).exceptions] == ["first"]

    run(main)
    assert "SystemExit: 3" in capsys.readouterr().err
