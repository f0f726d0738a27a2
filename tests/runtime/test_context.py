"""Contexts: the tree of deadlines, values and ends, and the blocks that derive one.

Go: context/context_test.go; timeout() and deadline() are ours.
"""

import math
import sys
import threading
import time
from decimal import Decimal
from fractions import Fraction

import pytest

import gopoll
from gopoll import Canceled, DeadlineExceeded
from helpers.cost import assert_each_costs_the_same, cpu_of
from plugins.guard import wait_parked
from runtime.tools import in_thread, until

PAST = -1.0


async def forever():
    await gopoll.sleep(3600)


def now(seconds=0.0):
    return time.monotonic() + seconds


# -- the tree --------------------------------------------------------------------------------------


def test_the_background_is_never_done_and_has_nothing():
    root = gopoll.background()
    assert root is gopoll.background()
    assert gopoll.current_context() is root
    assert (root.done, root.cause, root.deadline, root.value("key")) == (False, None, None, None)
    assert root.after_func(print)() is True


def test_cancel_ends_a_context_once_with_the_first_cause():
    ctx, cancel = gopoll.with_cancel(gopoll.background())
    assert (ctx.done, ctx.cause) == (False, None)
    cancel("first")
    cancel("second")
    assert (ctx.done, ctx.cause) == (True, "first")


def test_cancel_without_a_cause():
    ctx, cancel = gopoll.with_cancel(gopoll.background())
    cancel()
    assert (ctx.done, ctx.cause) == (True, None)


def test_the_end_goes_down_the_tree_and_never_up():
    top, cancel_top = gopoll.with_cancel(gopoll.background())
    left, cancel_left = gopoll.with_cancel(top)
    right, _ = gopoll.with_cancel(gopoll.with_value(top, "key", 1))
    leaf, _ = gopoll.with_cancel(left)
    cancel_left("left")
    assert [c.done for c in (top, left, right, leaf)] == [False, True, False, True]
    cancel_top("top")
    assert [c.cause for c in (top, left, right, leaf)] == ["top", "left", "top", "left"]


def test_a_child_of_one_that_is_done_is_born_done():
    top, cancel = gopoll.with_cancel(gopoll.background())
    cancel("over")
    for child in (
        gopoll.with_cancel(top)[0],
        gopoll.with_timeout(top, 3600)[0],
        gopoll.with_value(top, "key", 1),
    ):
        assert (child.done, child.cause) == (True, "over")


def test_values_are_found_here_or_above_and_hidden_by_nearer_ones():
    top = gopoll.with_value(gopoll.background(), "a", 1)
    mid = gopoll.with_value(gopoll.with_cancel(top)[0], "b", 2)
    low = gopoll.with_value(mid, "a", None)
    assert [top.value(k) for k in "ab"] == [1, None]
    assert [mid.value(k) for k in "ab"] == [1, 2]
    assert [low.value(k) for k in "ab"] == [None, 2]
    assert low.value("c") is None


def test_a_value_needs_a_key():
    with pytest.raises(ValueError, match=r"^the key of a context value must not be None$"):
        gopoll.with_value(gopoll.background(), None, 1)


def test_a_deadline_is_inherited_and_only_shortened():
    when = now(3600)
    top, cancel = gopoll.with_deadline(gopoll.background(), when)
    try:
        assert top.deadline == when
        assert gopoll.with_cancel(top)[0].deadline == when
        assert gopoll.with_value(top, "key", 1).deadline == when
        later, _ = gopoll.with_deadline(top, when + 1)
        assert later.deadline == when
        sooner, cancel_sooner = gopoll.with_deadline(top, when - 1)
        assert sooner.deadline == when - 1
        cancel_sooner()
    finally:
        cancel()
    assert later.done


@pytest.mark.parametrize("seconds", [0, -1, -math.inf, Decimal(-1), Fraction(-1, 2)])
def test_a_deadline_that_has_passed_ends_at_once(seconds):
    ctx, _ = gopoll.with_timeout(gopoll.background(), seconds)
    assert ctx.done
    assert isinstance(ctx.cause, DeadlineExceeded)
    assert gopoll.timeout(seconds).when <= now()


def test_a_context_expires_on_its_own_and_not_early(run):
    async def main():
        began = now()
        ctx, _ = gopoll.with_timeout(gopoll.background(), 0.01)
        await ctx.wait()
        assert now() - began >= 0.01
        assert isinstance(ctx.cause, DeadlineExceeded)

    run(main)


def test_a_context_expires_outside_of_run_too():
    began = now()
    ctx, _ = gopoll.with_timeout(gopoll.background(), 0.01)
    until(lambda: ctx.done)
    assert now() - began >= 0.01
    assert isinstance(ctx.cause, DeadlineExceeded)


# A run that waits for a context whose deadline nobody keeps would end with a DeadlockError.


@pytest.mark.parametrize("below", [False, True], ids=["itself", "a child"])
def test_a_deadline_is_kept_by_every_run_that_waits_for_it(below):
    async def make():
        top, _ = gopoll.with_timeout(gopoll.background(), 0.02)
        return gopoll.with_cancel(gopoll.with_value(top, "key", 1))[0] if below else top

    async def wait(ctx):
        await ctx.wait()
        return ctx.cause

    ctx = gopoll.run(make)
    for _ in range(2):
        assert isinstance(gopoll.run(wait, ctx), DeadlineExceeded)


def test_a_deadline_whose_run_has_ended_is_kept_without_one_too():
    async def make():
        return gopoll.with_timeout(gopoll.background(), 0.02)[0]

    asked, told = gopoll.run(make), gopoll.run(make)
    called = threading.Event()
    told.after_func(called.set)
    assert called.wait(60)
    until(lambda: asked.done)
    assert isinstance(asked.cause, DeadlineExceeded)


def test_a_run_that_waits_for_the_deadline_of_another_keeps_it_once(run):
    async def main():
        ctx, cancel = gopoll.with_timeout(gopoll.background(), 3600)
        before = gopoll.stats().timers
        for _ in range(3):
            ctx.after_func(print)()
        assert gopoll.stats().timers == before

        async def other():
            for _ in range(3):
                ctx.after_func(print)()
            return gopoll.stats().timers

        assert await gopoll.blocking(gopoll.run, other) == 1
        cancel()

    run(main)


def test_a_deadline_that_has_passed_is_seen_without_a_park(run):
    async def main():
        ctx, _ = gopoll.with_timeout(gopoll.background(), 0.001)
        child, _ = gopoll.with_cancel(ctx)
        while now() < ctx.deadline:
            pass
        assert isinstance(child.cause, DeadlineExceeded)
        assert child.done
        assert ctx.done

    run(main, procs=1, handoff=False)


def test_no_timer_is_kept_for_an_infinite_deadline(run):
    async def main():
        before = gopoll.stats().timers
        gopoll.with_timeout(gopoll.background(), math.inf)
        assert gopoll.stats().timers == before

    run(main)


def test_an_infinite_or_huge_deadline_outside_of_run(capsys):
    ctx, _ = gopoll.with_timeout(gopoll.background(), math.inf)
    cancel = gopoll.with_timeout(gopoll.background(), 1e300)[1]
    cancel()
    assert not ctx.done
    for thread in threading.enumerate():
        if thread.name == "gopoll-clock":
            thread.join(60)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda root: gopoll.with_timeout(root, None),
            TypeError,
            "timeout must be seconds, not NoneType (with_cancel() has no deadline)",
        ),
        (
            lambda root: gopoll.with_deadline(root, None),
            TypeError,
            "when must be seconds, not NoneType (with_cancel() has no deadline)",
        ),
        (
            lambda root: gopoll.with_timeout(root, "1"),
            TypeError,
            "timeout must be seconds, not str",
        ),
        (lambda root: gopoll.with_timeout(root, math.nan), ValueError, "timeout must not be nan"),
        (lambda root: gopoll.with_deadline(root, math.nan), ValueError, "when must not be nan"),
        (
            lambda root: gopoll.with_timeout(root, 10**400),
            ValueError,
            "timeout must be seconds: timeout is too large",
        ),
        (lambda root: gopoll.timeout("1"), TypeError, "timeout must be seconds, not str"),
        (lambda root: gopoll.deadline([]), TypeError, "when must be seconds, not list"),
        (
            lambda root: gopoll.timeout(1).reschedule("1"),
            TypeError,
            "when must be seconds, not str",
        ),
        (lambda root: gopoll.with_timeout(5, root), TypeError, "parent must be a Context, not int"),
        (lambda root: gopoll.with_deadline(5, 1), TypeError, "parent must be a Context, not int"),
        (
            lambda root: gopoll.with_cancel(None),
            TypeError,
            "parent must be a Context, not NoneType",
        ),
        (lambda root: gopoll.with_value("k", 1, 2), TypeError, "parent must be a Context, not str"),
    ],
)
def test_what_is_no_context_or_no_time_is_said(call, error, text):
    with pytest.raises(error) as caught:
        call(gopoll.background())
    assert str(caught.value) == text


def test_an_infinite_deadline_never_comes(run):
    async def main():
        ctx, cancel = gopoll.with_timeout(gopoll.background(), math.inf)
        g = gopoll.go(ctx.wait)
        await wait_parked(g)
        assert not ctx.done
        cancel()
        await g

    run(main)


@pytest.mark.parametrize("inside", [False, True])
def test_cancelling_a_deadline_takes_its_timer_away(run, inside):
    async def main():
        before = gopoll.stats().timers
        for _ in range(100):
            ctx, cancel = gopoll.with_timeout(gopoll.background(), 3600)
            cancel()
            assert ctx.cause is None
        assert gopoll.stats().timers == before

    if inside:
        run(main)
    else:
        for _ in range(5):
            gopoll.with_timeout(gopoll.background(), 3600)[1]()
        # the threads that would have told: the leak guard looks for them


def test_a_context_says_how_it_stands():
    ctx, cancel = gopoll.with_cancel(gopoll.background())
    assert repr(ctx) == "<Context not done>"
    cancel("why")
    assert repr(ctx) == "<Context done: 'why'>"


@pytest.mark.parametrize("views", [False, True], ids=["cancel", "values"])
def test_a_tree_may_be_deeper_than_the_stack(views):
    deep = 3 * sys.getrecursionlimit()
    top, cancel = gopoll.with_deadline(gopoll.background(), when := now(3600))
    nodes = [gopoll.with_value(top, "key", "top")]
    for n in range(deep):
        child = gopoll.with_cancel(nodes[-1])[0]
        nodes.append(gopoll.with_value(child, n, n) if views else child)
    leaf = nodes[-1]
    assert (leaf.value("key"), leaf.deadline, leaf.done) == ("top", when, False)
    ended = []
    leaf.after_func(lambda: ended.append("leaf"))
    top.after_func(lambda: ended.append("top"))
    cancel("over")
    assert ended == ["leaf", "top"]
    assert all(node.done_word for node in nodes)
    assert leaf.cause == "over"
    del leaf, child, nodes[:]  # and goes without recursion


# -- wait and after_func ---------------------------------------------------------------------------


@pytest.mark.parametrize("thread", [False, True], ids=["here", "from a thread"])
def test_wait_returns_when_the_context_is_done(run, thread):
    async def main():
        ctx, cancel = gopoll.with_cancel(gopoll.background())
        gs = [gopoll.go(ctx.wait) for _ in range(10)]
        await wait_parked(*gs)
        if thread:
            await gopoll.blocking(cancel)
        else:
            cancel()
        assert [await g for g in gs] == [None] * 10

    run(main)


def test_wait_for_one_that_is_done_does_not_park(run):
    async def main():
        ctx, cancel = gopoll.with_cancel(gopoll.background())
        cancel()
        gopoll.current().cancel()  # a park would raise now
        await ctx.wait()

    run(main)


def test_a_wait_that_is_cancelled_leaves_nothing_with_the_context(run):
    async def main():
        ctx, cancel = gopoll.with_cancel(gopoll.background())
        g = gopoll.go(ctx.wait)
        await wait_parked(g)
        g.cancel()
        with pytest.raises(Canceled):
            await g
        wakes = gopoll.stats().wakes
        cancel()
        assert gopoll.stats().wakes == wakes

    run(main)


def test_after_func_calls_once_and_in_order_where_the_context_ends():
    ctx, cancel = gopoll.with_cancel(gopoll.background())
    called = []
    for name in "abc":
        ctx.after_func(lambda name=name: called.append((name, threading.get_ident())))
    in_thread(lambda: [cancel(), called.append(("end", threading.get_ident()))])
    assert [name for name, _ in called] == ["a", "b", "c", "end"]
    assert len({thread for _, thread in called}) == 1
    assert called[0][1] != threading.get_ident()
    cancel()
    assert len(called) == 4


def test_after_func_takes_a_plain_function():
    async def never_awaited():
        pass

    ctx, cancel = gopoll.with_cancel(gopoll.background())
    with pytest.raises(TypeError, match=r"^after_func\(\) takes a function, not int$"):
        ctx.after_func(5)
    with pytest.raises(TypeError, match=r"^after_func\(\) takes a plain function, not an async"):
        ctx.after_func(never_awaited)
    cancel()


def test_after_func_of_one_that_is_done_calls_at_once():
    ctx, cancel = gopoll.with_cancel(gopoll.background())
    cancel()
    called = []
    stop = ctx.after_func(lambda: called.append(1))
    assert called == [1]
    assert stop() is False


def test_stop_says_whether_the_function_was_kept_from_being_called():
    ctx, cancel = gopoll.with_cancel(gopoll.background())
    called = []
    stop_a = ctx.after_func(lambda: called.append("a"))
    stop_b = ctx.after_func(lambda: called.append("b"))
    assert stop_a() is True
    assert stop_a() is False
    cancel()
    assert called == ["b"]
    assert stop_b() is False


def test_stop_costs_the_same_however_many_functions_there_are():
    """As the end of a `wait()` does, of a context that every connection of a server waits for."""

    def measure(n):
        ctx, _ = gopoll.with_cancel(gopoll.background())
        stops = [ctx.after_func(int) for _ in range(n)]

        def stop_all():
            for stop in reversed(stops):
                stop()

        return cpu_of(stop_all)

    assert_each_costs_the_same(measure, 200)


def test_an_error_in_after_func_is_told_and_keeps_nobody_waiting(capsys):
    ctx, cancel = gopoll.with_cancel(gopoll.background())
    called = []
    ctx.after_func(lambda: 1 // 0)
    ctx.after_func(lambda: called.append("next"))
    cancel()
    assert called == ["next"]
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_an_error_in_after_func_of_an_expiry_does_not_end_the_run(run, capsys):
    async def main():
        ctx, _ = gopoll.with_timeout(gopoll.background(), 0.0005)
        ctx.after_func(lambda: 1 // 0)
        await ctx.wait()
        await gopoll.sleep(0.0001)
        return "goes on"

    assert run(main) == "goes on"
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_cancels_of_many_threads_call_every_function_exactly_once(run):
    async def main():
        for _ in range(50):
            ctx, cancel = gopoll.with_cancel(gopoll.background())
            called = []
            for i in range(10):
                ctx.after_func(lambda i=i, called=called: called.append(i))
            meet = threading.Barrier(3, timeout=60)

            def at_once(meet=meet, cancel=cancel):
                meet.wait()
                cancel(threading.get_ident())

            for g in [gopoll.go(gopoll.blocking(at_once)) for _ in range(3)]:
                await g
            assert ctx.cause is not None
            assert called == list(range(10))

    run(main)


# -- ambient ---------------------------------------------------------------------------------------


def test_the_ambient_context_is_inherited_by_go_and_given_back_after_a_block(run):
    async def child():
        return gopoll.current_context()

    async def main():
        root = gopoll.current_context()
        async with gopoll.timeout(3600) as scope:
            assert gopoll.current_context() is scope.context
            assert await gopoll.go(child) is scope.context
            async with gopoll.timeout(None) as inner:
                assert gopoll.current_context() is inner.context
                assert inner.context.deadline == scope.when
            assert gopoll.current_context() is scope.context
        assert gopoll.current_context() is root
        assert await gopoll.go(child) is root

    run(main)


def test_leaving_the_block_ends_its_context_and_a_goroutine_left_in_it(run):
    async def main():
        async with gopoll.timeout(None) as scope:
            g = gopoll.go(forever)
            await wait_parked(g)
        assert scope.context.done
        with pytest.raises(Canceled):
            await g
        await gopoll.sleep(0.0001)  # we have left it

    run(main)


def test_a_goroutine_may_be_given_its_ambient_context(run):
    async def value():
        return gopoll.current_context().value("request_id")

    async def main():
        ctx = gopoll.with_value(gopoll.current_context(), "request_id", 7)
        assert await gopoll.go(value, context=ctx) == 7
        assert await gopoll.go(value) is None
        below, cancel = gopoll.with_cancel(ctx)
        g = gopoll.go(gopoll.sleep, 3600, context=below)
        await wait_parked(g)
        cancel("stop")
        with pytest.raises(gopoll.Canceled, match="stop"):
            await g
        with pytest.raises(TypeError, match="context must be a Context, not int"):
            gopoll.go(value, context=1)

    run(main)


def test_stop_takes_back_its_own_registration_of_a_function_alone():
    ctx, cancel = gopoll.with_cancel(gopoll.background())
    calls = []

    def fn():
        calls.append(1)

    first = ctx.after_func(fn)
    ctx.after_func(fn)
    assert (first(), first()) == (True, False)
    cancel()
    assert calls == [1]


def test_views_that_die_while_it_is_cancelled_do_not_disturb_it():
    """Of with_value: on other threads, and without a GIL at any moment (G4)."""
    over, contexts = threading.Event(), []

    def churn():
        while not over.is_set():
            for ctx in contexts[-1:]:
                views = [gopoll.with_value(ctx, "k", i) for i in range(50)]
                del views

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(200):
            ctx, cancel = gopoll.with_cancel(gopoll.background())
            child, _ = gopoll.with_cancel(ctx)
            views = [gopoll.with_value(ctx, "k", i) for i in range(200)]
            contexts[:] = [ctx]
            cancel("why")
            assert child.done
            assert {view.cause for view in views} == {"why"}
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_chain_deeper_than_the_stack_goes():
    """G4: a field of C is let go by recursion, a slot of Python's is not."""
    ctx = gopoll.background()
    for number in range(500_000):
        ctx = gopoll.with_value(ctx, "number", number)
    assert ctx.value("number") == 499_999
    del ctx  # not by recursion
