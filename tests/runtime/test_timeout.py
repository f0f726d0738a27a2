"""timeout() and deadline(): what their border makes of an expiry, nested, moved, and passed.

Ours; Go's contexts have no blocks. The tree underneath is in test_context.py.
"""

import math
import time

import pytest

import gopoll
from gopoll import Canceled, DeadlineExceeded
from helpers.fds import MORE_THAN_FITS, drain, half_pair
from plugins.guard import wait_parked, wait_until

PAST = -1.0


async def forever():
    await gopoll.sleep(3600)


def now(seconds=0.0):
    return time.monotonic() + seconds


async def expires(block, body=forever):
    """Run *body* in *block*; the DeadlineExceeded it must end with."""
    with pytest.raises(DeadlineExceeded) as caught:
        async with block:
            await body()
    return caught.value


def test_a_timeout_raises_deadline_exceeded_at_its_border_and_not_early(run):
    async def main():
        inside = []

        async def body():
            try:
                await forever()
            except BaseException as exc:
                inside.append(exc)
                raise

        for make in (lambda: gopoll.timeout(0.01), lambda: gopoll.deadline(now(0.01))):
            began = now()
            block = make()
            error = await expires(block, body)
            assert now() - began >= 0.01
            assert isinstance(error, TimeoutError)
            assert str(error) == "context deadline exceeded"
            assert type(inside[-1]) is Canceled
            assert inside[-1].cause is block.context.cause
            assert error.__cause__ is inside[-1]
            assert (type(error), error.args) == (type(inside[-1].cause), inside[-1].cause.args)

    run(main)


def test_a_body_that_ends_in_time_gives_nothing_to_see(run):
    async def main():
        timers = gopoll.stats().timers
        for block in (gopoll.timeout(3600), gopoll.timeout(None), gopoll.deadline(None)):
            async with block:
                await gopoll.sleep(0.0001)
        with pytest.raises(KeyError):
            async with gopoll.timeout(3600):
                raise KeyError
        assert gopoll.stats().timers == timers

    run(main)


@pytest.mark.parametrize("seconds", [0, -1, -math.inf])
def test_a_timeout_that_has_passed_raises_at_the_first_park(run, seconds):
    async def main():
        ran = []

        async def body():
            ran.append(gopoll.current_context().done)
            await gopoll.sleep(0)
            ran.append("never")

        await expires(gopoll.timeout(seconds), body)
        await expires(gopoll.deadline(PAST), body)
        assert ran == [True, True]

    run(main)


def test_a_body_that_does_not_park_after_the_expiry_is_not_disturbed(run):
    async def main():
        async with gopoll.timeout(0):
            return "all of it"

    assert run(main) == "all of it"


def test_the_outer_expiry_passes_the_inner_border_as_canceled(run):
    async def main():
        seen = []

        async def outer():
            async with gopoll.timeout(0.001):
                try:
                    async with gopoll.timeout(3600):
                        await forever()
                except BaseException as exc:
                    seen.append(type(exc))
                    raise

        with pytest.raises(DeadlineExceeded):
            await outer()
        assert seen == [Canceled]

    run(main)


def test_the_inner_expiry_is_caught_inside_and_the_outer_goes_on(run):
    async def main():
        async with gopoll.timeout(3600) as outer:
            await expires(gopoll.timeout(0.0005))
            await gopoll.sleep(0.0001)
            assert not outer.context.done

    run(main)


def test_when_both_have_expired_each_border_raises_its_own(run):
    async def main():
        seen = []

        async def outer():
            async with gopoll.timeout(0):
                try:
                    async with gopoll.timeout(0):
                        await forever()
                except BaseException as exc:
                    seen.append(type(exc))
                    raise

        with pytest.raises(DeadlineExceeded):
            await outer()
        assert seen == [Canceled], "the outer one ended the inner one first"

    run(main)


def test_a_cancel_of_the_goroutine_is_not_turned_into_a_timeout(run):
    async def worker():
        async with gopoll.timeout(3600):
            await forever()

    async def main():
        g = gopoll.go(worker)
        await wait_parked(g)
        g.cancel("by hand")
        with pytest.raises(Canceled) as caught:
            await g
        assert caught.value.cause == "by hand"

    run(main)


def test_an_error_of_the_body_after_the_expiry_is_the_bodys(run):
    async def body():
        try:
            await gopoll.sleep(0)
        finally:
            raise KeyError("clean-up")

    async def main():
        with pytest.raises(KeyError) as caught:
            async with gopoll.timeout(0):
                await body()
        assert isinstance(caught.value.__context__, Canceled)

    run(main)


def test_a_block_is_entered_once_and_in_a_goroutine(run):
    async def main():
        block = gopoll.timeout(None)
        async with block:
            pass
        with pytest.raises(RuntimeError, match=r"^timeout\(\) and deadline\(\) objects are used"):
            await block.__aenter__()

    run(main)
    with pytest.raises(RuntimeError, match="no goroutine runs here"):
        gopoll.timeout(1).__aenter__().send(None)


# -- reschedule ------------------------------------------------------------------------------------


def test_a_deadline_may_be_moved_later_sooner_and_away(run):
    async def main():
        async with gopoll.timeout(0.05) as scope:
            when = now(3600)
            scope.reschedule(when)
            assert scope.when == scope.context.deadline == when
            await gopoll.sleep(0.06)
            scope.reschedule(None)
            assert scope.when is scope.context.deadline is None
            await gopoll.sleep(0.0001)
        scope = gopoll.timeout(3600)

        async def body():
            scope.reschedule(now(0.001))
            await forever()

        await expires(scope, body)

    run(main)


def test_a_deadline_moved_into_the_past_ends_the_block_at_once(run):
    async def main():
        scope = gopoll.timeout(None)

        async def body():
            scope.reschedule(PAST)
            await forever()

        await expires(scope, body)

    run(main)


def test_a_deadline_may_be_moved_before_the_block_begins(run):
    async def main():
        scope = gopoll.timeout(0)
        assert scope.context is None
        scope.reschedule(None)
        assert scope.when is None
        async with scope:
            await gopoll.sleep(0.0001)

    run(main)


def test_a_deadline_that_has_passed_cannot_be_moved(run):
    async def main():
        async with gopoll.timeout(0) as scope:
            with pytest.raises(RuntimeError, match=r"^the deadline has passed: it cannot be moved"):
                scope.reschedule(now(3600))
        async with gopoll.timeout(3600) as scope:
            pass
        with pytest.raises(RuntimeError, match=r"^the block has been left or cancelled: it cannot"):
            scope.reschedule(now(3600))

    run(main)


def test_an_outer_deadline_stays_the_limit_of_a_moved_one(run):
    async def main():
        async with gopoll.deadline(now(3600)) as outer, gopoll.timeout(None) as inner:
            inner.reschedule(outer.when + 1)
            assert inner.context.deadline == outer.when
            assert inner.when == outer.when + 1

    run(main)


def test_a_deadline_may_be_moved_from_another_thread(run):
    async def main():
        scope = gopoll.timeout(None)
        gs = []

        async def body():
            gs.append(gopoll.current())
            await forever()

        g = gopoll.go(expires(scope, body))
        await wait_until(lambda: gs)
        await wait_parked(g)
        await gopoll.blocking(scope.reschedule, now(0.001))
        assert isinstance(await g, DeadlineExceeded)

    run(main)


def test_a_write_that_is_cut_says_at_the_border_how_much_has_left(run):
    async def main():
        with half_pair() as (fd, peer):
            error = await expires(gopoll.timeout(0.01), lambda: fd.write(MORE_THAN_FITS))
            assert error.written == error.__cause__.written
            assert error.written == len(drain(peer)) > 0
            assert (await expires(gopoll.timeout(0.001))).written is None
            async with gopoll.timeout(3600):  # the outermost that has expired is the one to say it
                drain(peer)
                outer = gopoll.timeout(0.01)
                error = await expires(outer, lambda: within(fd.write(MORE_THAN_FITS)))
                assert error.__cause__.cause is outer.context.cause
                assert error.written == len(drain(peer)) > 0

    async def within(op):
        async with gopoll.timeout(3600):
            await op

    run(main)


def test_nan_is_no_timeout():
    with pytest.raises(ValueError, match=r"^timeout must not be nan$"):
        gopoll.timeout(math.nan)
    with pytest.raises(ValueError, match="nan"):
        gopoll.deadline(math.nan)
    with pytest.raises(ValueError, match="nan"):
        gopoll.timeout(1).reschedule(math.nan)
