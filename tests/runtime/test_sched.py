"""run and go: what is started and returned, what is refused, and who gets a turn.

Go: runtime/proc.go. What becomes of errors and of goroutines that are left stands in test_end.py.
"""

import asyncio
import errno
import re
import socket
import threading

import pytest

import gopoll
from gopoll import Canceled
from helpers.child import run_python
from helpers.fds import adopt, half_pair
from plugins.guard import wait_parked
from runtime.tools import ONE, Foreign, Value, fails, in_thread, value

# -- run -------------------------------------------------------------------------------------------


def test_run_returns_the_result_of_an_async_function_with_arguments():
    assert gopoll.run(value, 1, "two") == (1, "two")


@pytest.mark.parametrize("procs", [None, 1])
@pytest.mark.parametrize("handoff", [True, False])
def test_run_takes_a_coroutine(procs, handoff):
    assert gopoll.run(value(3), procs=procs, handoff=handoff) == (3,)


def test_run_takes_any_awaitable():
    assert gopoll.run(Value(4)) == 4


def test_run_raises_the_error_of_main():
    error = ValueError("from main")
    with pytest.raises(ValueError, match="from main") as caught:
        gopoll.run(fails, error)
    assert caught.value is error


def test_a_canceled_main_raises_canceled():
    async def main():
        gopoll.current().cancel("enough")
        await gopoll.gosched()

    with pytest.raises(Canceled) as caught:
        gopoll.run(main)
    assert caught.value.cause == "enough"


def test_run_may_be_called_again_after_it_failed():
    for _ in range(3):
        with pytest.raises(KeyError):
            gopoll.run(fails, KeyError("again"))
        assert gopoll.run(value, 1) == (1,)


def test_run_in_a_plain_thread():
    async def main():
        await gopoll.sleep(0.0001)
        return threading.get_ident() != threading.main_thread().ident

    assert in_thread(gopoll.run, main) is True


def test_two_runs_in_two_threads_at_once_know_nothing_of_each_other():
    meet = threading.Barrier(2, timeout=60)

    async def main():
        await gopoll.blocking(meet.wait)  # both are inside run()
        g = gopoll.go(gopoll.sleep, 0)
        seen = g.id, gopoll.current().id, gopoll.stats().goroutines
        await gopoll.blocking(meet.wait)  # neither has left it
        await g
        return seen

    results = []
    other = threading.Thread(target=lambda: results.append(gopoll.run(main, **ONE)))
    other.start()
    results.append(gopoll.run(main, **ONE))
    other.join(60)
    assert results == [(2, 1, 2), (2, 1, 2)]


def test_a_goroutine_of_another_run_can_be_awaited_and_canceled():
    async def other(handles, ready, go_on):
        handles += [gopoll.go(value, "theirs"), gopoll.go(gopoll.sleep, 3600)]
        ready.set()
        await gopoll.blocking(go_on.wait, 60)

    async def main(handles):
        assert await handles[0] == ("theirs",)
        handles[1].cancel("from here")
        with pytest.raises(Canceled) as caught:
            await handles[1]
        return caught.value.cause

    handles, ready, go_on = [], threading.Event(), threading.Event()
    thread = threading.Thread(target=gopoll.run, args=(other, handles, ready, go_on))
    thread.start()
    try:
        assert ready.wait(60)
        assert gopoll.run(main, handles) == "from here"
    finally:
        go_on.set()
        thread.join(60)


def test_run_is_not_nested_in_one_thread_and_the_outer_one_goes_on(run):
    async def main():
        nested = value()
        with pytest.raises(RuntimeError, match=r"^gopoll\.run\(\) cannot be nested in one thread"):
            gopoll.run(nested)
        nested.close()
        g = gopoll.go(value, 1)
        await gopoll.sleep(0)
        return await g

    assert run(main) == (1,)


@pytest.mark.parametrize("start", ["run", "go"])
def test_a_plain_function_may_return_an_op(start):
    """run() called it outside the scheduler, where there is no op to be had."""

    async def main():
        return await gopoll.go(gopoll.sleep, 0), await gopoll.go(lambda: value(1))

    if start == "go":
        assert gopoll.run(main) == (None, (1,))
    else:
        assert gopoll.run(gopoll.sleep, 0) is None
        assert gopoll.run(lambda: value(1)) == (1,)


@pytest.mark.parametrize("start", ["run", "go"])
@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((42,), "{}() takes an async function or an awaitable, not int"),
        ((None,), "{}() takes an async function or an awaitable, not NoneType"),
        ((len, "abc"), "{}() takes an async function or an awaitable; len returned int"),
        ((Value(1), 2), "{}() takes arguments only with a function, not with an awaitable"),
    ],
)
def test_bad_arguments_are_told_by_text(run, start, args, text):
    async def main():
        gopoll.go(*args)

    with pytest.raises(TypeError, match=f"^{re.escape(text.format(start))}$"):
        run(main) if start == "go" else gopoll.run(*args)


def test_an_option_of_the_function_is_told_where_it_goes(run):
    async def main():
        with pytest.raises(TypeError) as caught:
            gopoll.go(value, 1, limit=3)
        assert str(caught.value) == (
            "go() takes no limit=: if that is for value(), call it: go(value(..., limit=...))"
        )

    run(main)


@pytest.mark.parametrize("procs", [0, -1])
def test_a_number_of_ps_below_one_is_refused(procs):
    with pytest.raises(ValueError, match=f"^procs={procs}: "):
        gopoll.run(Value(1), procs=procs)


@pytest.mark.parametrize(
    "call",
    [
        lambda: gopoll.go(value),
        lambda: gopoll.sleep(1),
        gopoll.stats,
        lambda: gopoll.blocking(print).send(None),
        lambda: gopoll.background().wait().send(None),
    ],
    ids=["go", "sleep", "stats", "blocking", "wait"],
)
def test_outside_of_run_the_error_names_the_remedy(call):
    with pytest.raises(RuntimeError, match=r"no scheduler runs on this thread: call gopoll\.run"):
        call()


@pytest.mark.parametrize("main_thread", [True, False])
def test_a_run_without_descriptors_is_an_os_error_that_says_what_for(main_thread):
    """They used to be corrupted state: runtime: netpollinit failed."""
    done = run_python(
        """
        import resource, sys, threading
        import gopoll

        async def main():
            return "ran"

        def start():
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            for limit in (3, 4, 6, soft):
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
                try:
                    print(gopoll.run(main))
                except OSError as exc:
                    print(exc.errno, exc)

        if sys.argv[1] == "True":
            start()
        else:
            thread = threading.Thread(target=start)
            thread.start()
            thread.join()
        """,
        main_thread,
    )
    text = "{} {}: too many open files (limit {}; raise RLIMIT_NOFILE)"
    whats = ["epoll_create", "eventfd", "pipe"]
    lines = [text.format(errno.EMFILE, what, n) for what, n in zip(whats, (3, 4, 6), strict=True)]
    if not main_thread:
        lines[2] = "ran"  # it needs no pipe for signals
    assert done.stdout.splitlines() == [*lines, "ran"]
    assert done.stderr == f"runtime: epollcreate failed with {errno.EMFILE}\n"


def test_after_run_the_thread_is_outside_again():
    gopoll.run(value)
    assert gopoll.current() is None
    with pytest.raises(RuntimeError, match="no scheduler runs"):
        gopoll.stats()


# -- whose turn it is ------------------------------------------------------------------------------


def test_goroutines_start_in_order_and_gosched_goes_to_the_tail(run):
    async def main():
        order = []

        async def worker(name):
            for turn in range(3):
                order.append(f"{name}{turn}")
                await gopoll.gosched()

        for g in [gopoll.go(worker, name) for name in "abc"]:
            await g
        assert order == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]

    run(main, **ONE)


def test_nobody_runs_between_two_awaits_without_handoff(run):
    async def main():
        inside = []

        async def worker(name):
            for _ in range(50):
                inside.append(name)
                sum(range(200))
                assert inside == [name]
                inside.pop()
                await gopoll.gosched()

        for g in [gopoll.go(worker, name) for name in "abcd"]:
            await g

    run(main, **ONE)


@pytest.mark.parametrize("handoff", [True, False])
def test_operations_that_complete_on_the_spot_do_not_keep_the_others_waiting(run, handoff):
    """A13: after so many of them the goroutine yields, though it never parks."""

    async def main():
        ours, peer = socket.socketpair()
        with peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
            peer.sendall(bytes(5000))
            fd = adopt(ours)
            ran = []

            async def other():
                ran.append(True)

            g = gopoll.go(other)
            reads = 0
            while not ran and reads < 5000:
                assert await fd.read(1) == b"\0"
                reads += 1
            assert reads < 5000, "5000 reads and nobody else had a turn"
            await g
            await fd.close()

    run(main, procs=1, handoff=handoff)


def test_a_due_sleeper_and_ready_input_come_between_goroutines_that_only_yield(run):
    """Go: every so many ticks findRunnable looks elsewhere; else a busy queue starves the rest."""

    async def main():
        with half_pair() as (fd, peer):
            waiters = [gopoll.go(gopoll.sleep, 0.05), gopoll.go(fd.read, 1)]
            await wait_parked(*waiters)
            stop = []

            async def spin():
                while not stop:
                    await gopoll.gosched()

            spinners = [gopoll.go(spin) for _ in range(3)]
            peer.send(b"x")
            for g in waiters:
                await g
            assert not stop, "they came while the others were spinning"
            stop.append(True)
            for g in spinners:
                await g

    run(main, procs=1)


def test_ten_thousand_goroutines_all_get_their_turn(run):
    async def main():
        async def worker(i):
            await gopoll.gosched()
            return i

        handles = [gopoll.go(worker, i) for i in range(10_000)]
        assert gopoll.stats().goroutines == 10_001
        return sum([await g for g in handles])

    assert run(main, **ONE) == sum(range(10_000))


# -- what a coroutine must not await ---------------------------------------------------------------


def make_future():
    loop = asyncio.new_event_loop()
    try:
        return asyncio.Future(loop=loop)
    finally:
        loop.close()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (make_future, "Future"),
        (lambda: Foreign(None), r"a bare yield, as asyncio.sleep\(0\) is"),
        (lambda: Foreign(42), "int"),
        (lambda: Foreign(gopoll.gosched), r"\w+"),
    ],
)
def test_a_foreign_awaitable_gets_a_type_error_at_that_await(run, make, name):
    async def main():
        text = rf"^goroutine awaited {name}, which belongs to another event loop: run it there"
        for _ in range(2):
            with pytest.raises(TypeError, match=text):
                await make()
        await gopoll.sleep(0.0001)
        return "goes on"

    assert run(main) == "goes on"


def test_an_async_generator_that_yields_rubbish_gets_it_too(run):
    async def numbers():
        try:
            yield 1
            await Foreign("rubbish")
        except TypeError as exc:
            yield str(exc)

    async def main():
        return [item async for item in numbers()]

    got = run(main)
    assert got[0] == 1
    assert "goroutine awaited str" in got[1]
