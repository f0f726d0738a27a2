"""How a run ends: by an error that nobody awaits; and what is left is run to its end.

Go: main, goexit0 and panics, runtime/proc.go and panic.go; the rule of errors is E2.
"""

import asyncio
import dataclasses
import gc
import socket
import sys
import weakref

import pytest

import gopoll
from gopoll import Canceled
from helpers.child import run_python
from helpers.fds import MORE_THAN_FITS, adopt
from plugins.guard import wait_parked, wait_until
from runtime.tools import ONE, fails

# -- an error that nobody awaits -------------------------------------------------------------------


async def forever():
    await gopoll.sleep(3600)


def test_an_error_without_a_handle_ends_the_run_with_it():
    error = ValueError("nobody looks")

    async def main():
        gopoll.go(fails, error)
        await forever()

    with pytest.raises(ValueError, match="nobody looks") as caught:
        gopoll.run(main)
    assert caught.value is error


def test_an_error_ends_the_run_when_the_last_handle_is_dropped():
    seen = []

    async def main():
        held = [gopoll.go(fails, ValueError("dropped"))]
        await wait_until(lambda: held[0].done)
        held *= 2
        await gopoll.sleep(0.001)
        seen.append("it is held twice")
        held.pop()
        await gopoll.sleep(0.001)
        seen.append("it is held once")
        held.pop()
        gc.collect()
        await forever()

    with pytest.raises(ValueError, match="dropped"):
        gopoll.run(main)
    assert seen == ["it is held twice", "it is held once"]


def test_an_error_ends_the_run_when_another_thread_drops_the_last_handle():
    async def main():
        box = [gopoll.go(fails, ValueError("dropped elsewhere"))]
        await wait_until(lambda: box[0].done)
        await gopoll.blocking(box.clear)
        await forever()

    # One P: without a GIL the handle is destroyed when the thread that made it next runs Python,
    # and with two that thread may have nothing to run.
    with pytest.raises(ValueError, match="dropped elsewhere"):
        gopoll.run(main, procs=1)


def test_an_awaited_error_does_not_end_the_run(run):
    async def main():
        g = gopoll.go(fails, KeyError("seen"))
        with pytest.raises(KeyError):
            await g
        del g
        gc.collect()
        await gopoll.sleep(0.0001)

        async def joiner(g):
            with pytest.raises(KeyError):
                await g

        await gopoll.go(joiner, gopoll.go(fails, KeyError("seen by another")))
        gc.collect()
        return "goes on"

    assert run(main) == "goes on"


def test_an_error_that_result_has_raised_does_not_end_the_run(run):
    async def main():
        g = gopoll.go(fails, KeyError("seen"))
        with pytest.raises(KeyError):
            await gopoll.blocking(g.result, 60)
        del g
        gc.collect()
        await gopoll.sleep(0.0001)

    run(main)


def test_canceled_never_counts(run):
    async def main():
        g = gopoll.go(forever)
        await wait_parked(g)
        g.cancel("no longer wanted")
        while not g.done:
            await gopoll.gosched()
        del g
        gc.collect()
        await gopoll.sleep(0.0001)
        gopoll.go(fails, Canceled("raised by hand"))
        await gopoll.sleep(0.0001)

    run(main)


def test_an_error_that_a_cancelled_goroutine_raises_instead_counts():
    async def main():
        async def worker():
            try:
                await forever()
            finally:
                raise ValueError("from its finally block")

        g = gopoll.go(worker)
        await wait_parked(g)
        g.cancel()
        del g
        await forever()

    with pytest.raises(ValueError, match="finally block") as caught:
        gopoll.run(main)
    assert isinstance(caught.value.__context__, Canceled)


def test_of_several_errors_the_first_is_raised_and_the_others_are_its_notes():
    async def main():
        first = gopoll.go(fails, ValueError("first"), name="one")
        gopoll.go(fails, KeyError("second"), name="two")
        gopoll.go(fails, OSError(5, "third"), name="three")
        del first
        await forever()

    with pytest.raises(ValueError, match="first") as caught:
        gopoll.run(main, **ONE)
    notes = "\n".join(caught.value.__notes__)
    assert "(two) ended with KeyError('second') too" in notes
    assert "(three) ended with OSError(5, 'third') too" in notes


class Unspeakable(Exception):
    def __repr__(self):
        raise ZeroDivisionError


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """One that takes no notes, nor any other attribute."""

    n: int


def test_an_error_whose_repr_fails_is_told_by_its_type():
    """The error of its repr() came out of run() in its place."""
    error = Unspeakable()

    async def alone():
        gopoll.go(fails, error)
        await forever()

    with pytest.raises(Unspeakable) as caught:
        gopoll.run(alone)
    assert caught.value is error

    async def second():
        gopoll.go(fails, ValueError("first"))
        try:
            await forever()
        finally:
            raise error

    with pytest.raises(ValueError, match="first") as first:
        gopoll.run(second)
    assert first.value.__notes__ == [
        "the main goroutine ended with Unspeakable, whose repr() fails, too"
    ]


def test_what_is_no_note_of_an_error_that_takes_none_is_told(capsys):
    """Sixteen times that failed, then the run was cut short: no finally block ran to its end."""
    cleaned = []

    async def cleans():
        try:
            await forever()
        finally:
            async with gopoll.shield():
                await gopoll.sleep(0.001)
            cleaned.append(1)

    async def main():
        await wait_parked(gopoll.go(cleans))
        gopoll.go(fails, Frozen(1))
        gopoll.go(fails, KeyError("second"))
        try:
            await forever()
        finally:
            raise OSError(5, "third")

    with pytest.raises(Frozen) as caught:
        gopoll.run(main, **ONE)
    assert caught.value.n == 1
    assert cleaned == [1]
    told = capsys.readouterr().err
    assert "KeyError: 'second'" in told
    assert "OSError: [Errno 5] third" in told


def test_system_exit_and_keyboard_interrupt_of_a_goroutine_end_the_run():
    for error in (SystemExit(3), KeyboardInterrupt()):

        async def main(error=error):
            gopoll.go(fails, error)
            await forever()

        with pytest.raises(type(error)) as caught:
            gopoll.run(main)
        assert caught.value is error


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_what_ends_a_program_ends_the_run_though_a_handle_is_held(error):
    """As os.Exit does in Go, and sys.exit() in a task of asyncio: who holds it may never look."""
    handles, cleaned_up = [], []

    async def main():
        handles.append(gopoll.go(fails, error))
        try:
            await forever()
        finally:
            cleaned_up.append(True)

    with pytest.raises(type(error)) as caught:
        gopoll.run(main)
    assert caught.value is error
    assert cleaned_up == [True]
    with pytest.raises(type(error)):
        handles[0].result()


def test_an_error_may_be_asked_for_after_the_run():
    box = []

    async def main():
        box.append(gopoll.go(fails, ValueError("late")))
        await wait_until(lambda: box[0].done)

    gopoll.run(main)
    with pytest.raises(ValueError, match="late"):
        box[0].result()


def test_a_handle_dropped_after_run_still_reports_its_error(capsys):
    box = []

    async def main():
        box.append(gopoll.go(fails, ValueError("too late to end anything")))
        await wait_until(lambda: box[0].done)

    gopoll.run(main)
    assert capsys.readouterr().err == ""
    box.clear()
    gc.collect()
    assert "ValueError: too late to end anything" in capsys.readouterr().err


def test_a_handle_of_main_that_goes_after_run_tells_nothing_again(capsys):
    box = []

    async def main():
        box.append(gopoll.current())
        raise ValueError("run() raises it")

    with pytest.raises(ValueError, match="run"):
        gopoll.run(main)
    box.clear()
    gc.collect()
    assert capsys.readouterr().err == ""


def test_an_unawaited_error_cancels_main_and_runs_its_finally_block():
    seen = []

    async def main():
        gopoll.go(fails, ValueError("the reason"))
        try:
            await forever()
        except Canceled as err:
            seen.append(err.cause)
            raise
        finally:
            async with gopoll.shield():
                await gopoll.sleep(0.0001)
            seen.append("cleaned up")

    with pytest.raises(ValueError, match="the reason"):
        gopoll.run(main)
    assert seen == ["the run ends with an error", "cleaned up"]


# -- goroutines that are left ----------------------------------------------------------------------


def test_what_still_runs_is_cancelled_and_its_finally_blocks_run():
    seen = []

    async def worker(name, park, *fds):
        try:
            await park()
        except Canceled as exc:
            seen.append((name, exc.cause))
            raise
        finally:
            for fd in fds:
                fd.close()
            seen.append((name, "finally"))

    async def main():
        gate, _ = gopoll.with_cancel(gopoll.background())
        (a, b), (c, d) = ([adopt(s) for s in socket.socketpair()] for _ in range(2))
        joined = gopoll.go(worker, "sleep", forever)
        gs = [
            joined,
            gopoll.go(worker, "note", gate.wait),
            gopoll.go(worker, "read", lambda: a.read(1), a, b),
            gopoll.go(worker, "write", lambda: c.write(MORE_THAN_FITS), c, d),
            gopoll.go(worker, "join", lambda: joined),
        ]
        await wait_parked(*gs)
        raise LookupError("main ends with them parked")

    with pytest.raises(LookupError):
        gopoll.run(main)
    for name in ("sleep", "note", "read", "write", "join"):
        assert (name, "finally") in seen
        assert (name, "the main goroutine has ended") in seen


def test_one_that_has_not_begun_is_run_until_its_first_park():
    seen = []

    async def worker():
        seen.append("began")
        try:
            await gopoll.gosched()
            seen.append("never")
        finally:
            seen.append("ended")

    async def main():
        gopoll.go(worker)

    gopoll.run(main, **ONE)
    assert seen == ["began", "ended"]


def test_a_finally_block_may_await_under_shield_and_only_there():
    seen = []

    async def worker(name):
        try:
            await forever()
        finally:
            try:
                await gopoll.sleep(0)
            except Canceled:
                seen.append(f"{name} cannot park")
            async with gopoll.shield():
                for _ in range(3):
                    await gopoll.sleep(0.0005)
            seen.append(f"{name} cleaned up")

    async def main():
        gs = [gopoll.go(worker, name) for name in ("a", "b")]
        await wait_parked(*gs)

    gopoll.run(main)
    assert sorted(seen) == ["a cannot park", "a cleaned up", "b cannot park", "b cleaned up"]


def test_one_that_swallows_canceled_is_told_again_at_every_park():
    counts = []

    async def stubborn():
        for n in range(10):
            try:
                await forever()
            except Canceled:
                counts.append(n)

    async def main():
        g = gopoll.go(stubborn)
        await wait_parked(g)

    gopoll.run(main)
    assert counts == list(range(10))


def test_goroutines_that_are_left_may_wait_for_each_other():
    seen = []

    async def main():
        async def inner():
            try:
                await forever()
            finally:
                seen.append("inner")

        async def outer(g):
            try:
                await g
            finally:
                async with gopoll.shield():
                    with pytest.raises(Canceled):
                        await g
                seen.append("outer")

        g = gopoll.go(inner)
        await wait_parked(g, other := gopoll.go(outer, g))
        del other

    gopoll.run(main)
    assert seen == ["inner", "outer"]


def test_an_error_of_one_that_is_left_ends_the_run_with_it():
    async def worker():
        try:
            await forever()
        finally:
            raise ValueError("clean-up failed")

    async def main():
        await wait_parked(gopoll.go(worker))
        return "lost"

    # Without a GIL the last to hold the handle may be a thread that is about to end.
    for _ in range(40):
        with pytest.raises(ValueError, match="clean-up failed"):
            gopoll.run(main)


def test_after_a_run_no_frame_of_it_is_kept():
    """Coroutines, handles and errors must not keep each other alive for ever."""

    class Local:
        pass

    refs = []

    async def worker():
        local = Local()
        refs.append(weakref.ref(local))
        await forever()

    async def failing():
        local = Local()
        refs.append(weakref.ref(local))
        raise ValueError("with a traceback")

    async def main():
        local = Local()
        refs.append(weakref.ref(local))
        await wait_parked(gopoll.go(worker))
        g = gopoll.go(failing)
        try:
            await g
        except ValueError:
            pass

    gopoll.run(main)
    gc.collect()
    assert len(refs) == 3
    assert [ref() for ref in refs] == [None] * 3


def test_asyncio_works_on_the_thread_afterwards():
    async def main():
        gopoll.go(forever)
        await gopoll.sleep(0)

    gopoll.run(main)
    assert asyncio.run(asyncio.sleep(0, "fine")) == "fine"
    assert sys.get_asyncgen_hooks() == (None, None)


@pytest.mark.parametrize("options", ["procs=1", "procs=2", "handoff=False"])
@pytest.mark.parametrize("ended", [False, True])
def test_what_waits_for_ever_under_a_shield_is_left_behind_with_a_warning(options, ended):
    """E10: it cannot be cancelled, and nothing is left that could wake it."""
    done = run_python(
        f"""
        import warnings
        import gopoll
        from gopoll.runtime import sched

        warnings.simplefilter("default")
        sched.PATIENCE_NS = sched.LOOK_AGAIN_NS = 10**7

        async def waits():
            async with gopoll.shield():
                await gopoll.Chan().recv()

        async def main():
            g = gopoll.go(waits)
            await gopoll.gosched()
            if {ended}:
                return "main has ended"
            await g

        try:
            print(gopoll.run(main, {options}))
        except gopoll.DeadlockError:
            print("deadlock")
        """
    )
    assert done.stdout == ("main has ended\n" if ended else "deadlock\n"), done.stderr
    assert "(waits) waits for ever since main has ended: it is left behind\n" in done.stderr
    assert ", in waits\n" in done.stderr


def test_many_errors_at_the_end_do_not_cut_short_who_cleans_up():
    """E2: each is told, and none of them is an error of the scheduler's own."""
    seen = []

    async def cleans():
        try:
            await forever()
        finally:
            async with gopoll.shield():
                await gopoll.sleep(0.02)
                seen.append("clean")

    async def fails_with(number):
        try:
            await forever()
        finally:
            raise ValueError(number)

    async def main():
        gs = [gopoll.go(cleans), *(gopoll.go(fails_with, i) for i in range(50))]
        await wait_parked(*gs)
        del gs

    with pytest.raises(ValueError, match=r"^[0-9]+\n") as caught:
        gopoll.run(main)
    assert seen == ["clean"]
    numbers = {caught.value.args[0]}
    for note in caught.value.__notes__:
        numbers.add(int(note.partition("ValueError(")[2].partition(")")[0]))
    assert numbers == set(range(50))


LEFT_BEHIND = """
import threading, time, warnings, gopoll
from gopoll.runtime import sched

sched.PATIENCE_NS = sched.LOOK_AGAIN_NS = 10**8
warnings.simplefilter("ignore")
begun, go_on, handles, told = threading.Event(), threading.Event(), [], []

async def main():
    gopoll.lock_os_thread()  # so that it is not this thread that is stuck
    handles.append(gopoll.go(stuck))
    await gopoll.blocking(begun.wait)

async def stuck():
    begun.set()
    go_on.wait()

def ask():
    while not handles:
        time.sleep(0.01)
    try:
        handles[0].result()
    except RuntimeError as err:
        told.append(str(err))

thread = threading.Thread(target=ask)
thread.start()
gopoll.run(main)
thread.join(40)
go_on.set()
print(told)
"""


def test_whoever_asks_for_the_result_of_one_that_is_left_behind_is_told():
    done = run_python(LEFT_BEHIND)
    assert done.stdout == "['goroutine 2 was left behind when run() ended']\n", done.stderr


@pytest.mark.parametrize("options", ["procs=1", "procs=2", "handoff=False"])
def test_nothing_is_handed_to_what_has_been_left_behind(options):
    """H10: it stands in no queue any more, and a lock that it has been handed is free."""
    done = run_python(
        f"""
        import warnings
        import gopoll
        from gopoll.runtime import sched

        warnings.simplefilter("ignore")
        sched.PATIENCE_NS = sched.LOOK_AGAIN_NS = 10**7
        a, b, full = gopoll.Chan(), gopoll.Chan(), gopoll.Chan()
        mutex, rw, other = gopoll.Mutex(), gopoll.RWMutex(), gopoll.Mutex()
        cond, way_back = gopoll.Cond(other), gopoll.Cond(mutex)
        selects = lambda: gopoll.select(b.recv_case(), b.recv_case())

        async def shielded(op):
            async with gopoll.shield():
                await op()

        async def waits():
            await other.lock()
            async with gopoll.shield():
                while True:
                    await cond.wait()  # returns for nothing when main ends

        async def main():
            await mutex.lock()
            back = gopoll.go(shielded, way_back.wait)
            await mutex.lock()  # when that waits
            way_back.signal()  # from now on it wants the mutex
            await rw.rlock()
            gs = [gopoll.go(shielded, op) for op in
                  (a.recv, selects, lambda: full.send("from the dead"), mutex.lock, rw.lock)]
            gs += [gopoll.go(waits), back]
            while any(g.state != "waiting" for g in gs):
                await gopoll.gosched()

        async def after():
            assert not a.try_send(1)
            assert not b.try_send(2)
            assert full.try_recv() == (None, False)
            if not mutex.try_lock():
                mutex.unlock()
                assert mutex.try_lock()
            assert rw.try_rlock()  # no writer waits
            receiver = gopoll.go(a.recv)
            await a.send("precious")
            assert await receiver == "precious"
            async with other:
                g = gopoll.go(other.lock)
            await g
            cond.signal()
            return "clean"

        gopoll.run(main, {options})
        print(gopoll.run(after, {options}))
        """
    )
    assert done.stdout == "clean\n", done.stderr


STUCK = """
import os, sys, threading, time, warnings, gopoll
from gopoll.runtime import sched

warnings.simplefilter("default")
sched.PATIENCE_NS = sched.LOOK_AGAIN_NS = 10**7
never = threading.Event()
stuck = []

async def child():
    stuck.append(gopoll.current())
    never.wait(20)
    print("nobody was left behind")

async def parent():
    async with gopoll.Group() as group:
        group.go(child)

async def grandparent():
    async with gopoll.timeout(3600), gopoll.Group() as group:  # a timer that is far
        group.go(parent)

async def shielded():
    async with gopoll.shield():
        stuck.append(gopoll.current())
        await gopoll.blocking(never.wait, 20)
    print("nobody was left behind")

async def main(fn, n=1):
    gopoll.lock_os_thread()  # so that it is not run()'s own thread that is stuck
    gs = [gopoll.go(fn) for _ in range(n)]
    while len(stuck) < n:
        await gopoll.sleep(0.001)

"""


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("grandparent, procs=1", {"child", "grandparent", "parent"}),
        ("grandparent, procs=2", {"child", "grandparent", "parent"}),
        ("shielded, procs=2", {"shielded"}),
        ("shielded, handoff=False", {"shielded"}),
    ],
)
@pytest.mark.parametrize("thread", [False, True])
def test_who_waits_for_what_is_stuck_is_left_behind_with_it(what, names, thread):
    """E10: neither a far timer nor a thread of the program could wake it."""
    fn, _, options = what.partition(", ")
    done = run_python(
        f"""{STUCK}
if {thread}:
    threading.Thread(target=never.wait, daemon=True).start()
gopoll.run(lambda: main({fn}), {options})
print("over", flush=True)
os._exit(0)
"""
    )
    assert done.stdout == "over\n", done.stderr
    told = [line for line in done.stderr.splitlines() if "since main has ended" in line]
    assert {line.partition("(")[2].partition(")")[0] for line in told} == names
    assert all(line.endswith(": it is left behind") for line in told)


def test_what_is_stuck_is_left_behind_however_many_they_are():
    """Without a GIL faulthandler tells where 100 threads are, and no more."""
    done = run_python(
        f"""{STUCK}
warnings.simplefilter("ignore")
gopoll.run(main, child, 130, procs=2)
print("over", flush=True)
os._exit(0)
"""
    )
    assert done.stdout == "over\n", done.stderr


def test_what_waits_for_one_short_call_after_another_is_waited_for():
    """E10: that is another wait, and another call, each time."""
    done = run_python(
        f"""{STUCK}
sched.LOOK_AGAIN_NS = 10**9

async def tidies():
    stuck.append(gopoll.current())
    end = time.monotonic() + 2.5  # two looks find it in a call, and one after that
    async with gopoll.shield():
        while time.monotonic() < end:
            await gopoll.blocking(time.sleep, 0.005)
    print("tidied up")

gopoll.run(main, tidies, procs=2)
"""
    )
    assert (done.stdout, done.stderr) == ("tidied up\n", "")


def test_another_run_that_awaits_what_is_left_behind_is_told():
    """J2."""
    done = run_python(
        f"""{STUCK}
warnings.simplefilter("ignore")
told = []

async def other():
    while not stuck:
        await gopoll.sleep(0.001)
    try:
        await stuck[0]
    except RuntimeError as err:
        told.append(str(err))

thread = threading.Thread(target=gopoll.run, args=(other,), daemon=True)
thread.start()
gopoll.run(main, child, procs=2)
thread.join(40)
print(told, stuck[0].state, stuck[0].done, flush=True)
os._exit(0)
"""
    )
    text = "['goroutine 2 was left behind when run() ended'] left behind True\n"
    assert done.stdout == text, done.stderr
