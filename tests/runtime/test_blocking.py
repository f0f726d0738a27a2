"""blocking(): a function that blocks runs on a thread of the pool and holds nobody up.

Go: entersyscallblock and cgo's threads; the pool is ours.
"""

import contextvars
import gc
import socket
import threading
import weakref

import pytest

import gopoll
from gopoll import Canceled, DeadlineExceeded
from helpers.child import run_python
from plugins.guard import wait_parked, wait_until

VAR = contextvars.ContextVar("VAR", default="unset")
MOST = 32  # threads of one run


def test_the_result_and_keyword_arguments_come_through(run):
    async def main():
        def fn(*args, **named):
            return args, named, threading.current_thread() is not threading.main_thread()

        assert await gopoll.blocking(fn, 1, 2, key=3) == ((1, 2), {"key": 3}, True)

    run(main)


def test_it_takes_a_plain_function(run):
    async def main():
        with pytest.raises(TypeError, match=r"^blocking\(\) takes a function, not int$"):
            await gopoll.blocking(5)
        with pytest.raises(TypeError, match=r"^blocking\(\) takes a plain function, not an async"):
            await gopoll.blocking(main)

    run(main)


def test_an_exception_comes_through_as_it_is(run):
    class Odd(BaseException):
        pass

    def fails(error):
        raise error

    async def main():
        for error in (ValueError("v"), OSError(5, "o"), Odd("b"), SystemExit(3)):
            with pytest.raises(type(error)) as caught:
                await gopoll.blocking(fails, error)
            assert caught.value is error
            assert "fails" in [entry.name for entry in caught.traceback]

    run(main)


def test_the_function_sees_a_copy_of_the_callers_contextvars(run):
    async def main():
        def fn():
            seen = VAR.get()
            VAR.set("changed on the thread")
            return seen

        VAR.set("set in the goroutine")
        assert await gopoll.blocking(fn) == "set in the goroutine"
        assert VAR.get() == "set in the goroutine"

    run(main)


def test_no_goroutine_and_no_scheduler_run_on_the_thread(run):
    async def main():
        def fn():
            with pytest.raises(RuntimeError, match="no scheduler runs on this thread"):
                gopoll.go(gopoll.sleep, 0)
            return gopoll.current()

        assert await gopoll.blocking(fn) is None

    run(main)


def test_a_run_of_its_own_works_on_the_thread(run):
    async def inner():
        await gopoll.sleep(0.0001)
        return await gopoll.blocking(lambda: "from below")

    async def main():
        assert await gopoll.blocking(gopoll.run, inner) == "from below"

    run(main)


def test_the_others_go_on_while_it_blocks(run):
    async def main():
        a, b = socket.socketpair()
        with a, b:
            g = gopoll.go(gopoll.blocking(a.recv, 1))
            await wait_parked(g)
            for _ in range(10):
                await gopoll.sleep(0.0005)
            assert not g.done
            b.send(b"x")
            assert await g == b"x"

    run(main)


@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_cancellation_stops_the_waiting_and_not_the_function(run, how):
    async def main():
        begin, go_on, ended = threading.Event(), threading.Event(), threading.Event()

        def fn():
            begin.set()
            go_on.wait(60)
            ended.set()

        async def wait():
            async with gopoll.timeout(None) as scope:
                scopes.append(scope)
                await gopoll.blocking(fn)

        scopes = []
        g = gopoll.go(wait)
        await wait_until(begin.is_set)
        await wait_parked(g)
        if how == "cancel":
            g.cancel()
            with pytest.raises(Canceled):
                await g
        else:
            scopes[0].reschedule(-1.0)
            with pytest.raises(DeadlineExceeded):
                await g
        assert not ended.is_set()
        go_on.set()
        await wait_until(ended.is_set)

    run(main)


def test_at_most_so_many_run_at_once_and_the_others_queue_in_order(run):
    async def main():
        running, begun, lock = [0, 0], [], threading.Lock()
        gate = threading.Event()

        def fn(i):
            with lock:
                begun.append(i)
                running[0] += 1
                running[1] = max(running)
            gate.wait(60)
            with lock:
                running[0] -= 1
            return i

        gs = []
        for i in range(2 * MOST):
            gs.append(gopoll.go(gopoll.blocking(fn, i)))
            await wait_parked(gs[-1])
        await wait_until(lambda: len(begun) == MOST)
        queued = gs[MOST + 3]
        queued.cancel()
        with pytest.raises(Canceled):
            await queued
        gate.set()
        results = [await g for g in gs if g is not queued]
        assert results == [i for i in range(2 * MOST) if i != MOST + 3]
        assert running == [0, MOST]
        assert sorted(begun[:MOST]) == list(range(MOST)), "in the order of asking"
        assert MOST + 3 not in begun, "what is cancelled in the queue is never called"

    run(main)


def test_an_idle_thread_is_used_again(run):
    async def main():
        seen = {await gopoll.blocking(threading.get_ident) for _ in range(200)}
        assert len(seen) < MOST // 2, "one after the other needs few: each may be late to be idle"

    run(main)


def test_its_threads_are_gone_after_run():
    async def main():
        for g in [gopoll.go(gopoll.blocking(threading.current_thread)) for _ in range(10)]:
            threads.add(await g)

    threads = set()
    gopoll.run(main)
    assert threads
    assert not [t for t in threads if t.is_alive()]


def test_a_thousand_calls_from_many_goroutines_all_come_back(run):
    async def main():
        async def worker(i):
            return sum([await gopoll.blocking(int, i) for _ in range(10)])

        gs = [gopoll.go(worker, i) for i in range(100)]
        assert [await g for g in gs] == [10 * i for i in range(100)]

    run(main)


def test_calls_that_still_queue_when_main_ends_are_never_made():
    begun, left, gate = [], [], threading.Event()

    def fn(i):
        begun.append(i)
        gate.wait(60)

    async def call(i):
        try:
            await gopoll.blocking(fn, i)
        finally:
            left.append(i)
            if len(left) == MOST + 5:  # all have been cancelled: now the threads may go on
                gate.set()

    async def main():
        await wait_parked(*[gopoll.go(call, i) for i in range(MOST + 5)])
        await wait_until(lambda: len(begun) == MOST)

    gopoll.run(main)
    assert len(begun) == MOST


def test_frames_of_a_call_are_let_go_without_the_collector(run):
    class Local:
        pass

    def fails():
        local = Local()
        refs.append(weakref.ref(local))
        raise ValueError("its traceback holds the frame")

    def returns():
        local = Local()
        refs.append(weakref.ref(local))
        return local

    async def call(fn):
        try:
            await gopoll.blocking(fn)
        except ValueError:
            pass

    async def main():
        for fn in (fails, returns):
            await call(fn)

    refs = []
    gc.collect()
    gc.disable()
    try:
        run(main)  # the worker's end too: a free-threaded build leaves its objects to it
        assert len(refs) == 2
        assert [ref() for ref in refs] == [None, None]
    finally:
        gc.enable()


def test_a_call_that_never_returns_is_reported_and_left():
    """E10: run() ends 5 s later with a warning that has the stack; the interpreter ends too."""
    done = run_python(
        """
        import threading, warnings
        import gopoll

        def stuck_in_here():
            begun.append(True)
            threading.Event().wait()

        async def main():
            gopoll.go(gopoll.blocking(stuck_in_here))
            while not begun:
                await gopoll.gosched()

        begun = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            gopoll.run(main)
        print(*[w.message for w in caught])
        """
    )
    assert done.returncode == 0, done.stderr
    assert "is still in a blocking() call 5 s after run():" in done.stdout
    assert "stuck_in_here" in done.stdout


def test_where_no_thread_is_to_be_had_the_call_fails_and_the_run_goes_on(run, monkeypatch):
    start = threading.Thread.start

    def none_for_us(thread):
        if thread.name.startswith("gopoll-blocking"):
            raise RuntimeError("can't start new thread")
        start(thread)

    async def main():
        monkeypatch.setattr(threading.Thread, "start", none_for_us)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await gopoll.blocking(int)
        monkeypatch.setattr(threading.Thread, "start", start)
        return await gopoll.blocking(int, "7")

    assert run(main) == 7


@pytest.mark.parametrize("where", ["blocking", "once", "go", "main", "result"])
def test_a_stop_iteration_comes_out_as_the_cause_of_an_error(run, where):
    """As PEP 479 has it for coroutines: nothing takes it for a value or an end."""

    def stops(*args):
        raise StopIteration("not a value")

    async def main():
        if where == "blocking":
            await gopoll.blocking(stops)
        elif where == "once":
            await gopoll.Once().do(stops)
        elif where == "go":
            await gopoll.go(stops)
        elif where == "result":
            await gopoll.blocking(gopoll.go(raises).result)

    async def raises():
        stops()

    with pytest.raises(RuntimeError) as caught:
        run(stops if where == "main" else main)
    assert type(caught.value.__cause__) is StopIteration
