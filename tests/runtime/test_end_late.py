"""What is started while a run ends, after that, and where it is cut short (J3, J2).

Go: none: what is left dies with main.
"""

import gc
import weakref

import pytest

import gopoll
from gopoll.errors import InternalError
from gopoll.runtime._sched import current_sched
from helpers.child import run_python
from runtime.tools import ONE


async def forever():
    await gopoll.sleep(3600)


def test_what_a_call_starts_that_was_posted_while_the_run_ends_is_run():
    ran = []

    async def child():
        ran.append("ran")

    async def parent():
        try:
            await forever()
        finally:
            current_sched().post(lambda: gopoll.go(child))

    async def main(turns):
        for _ in range(3):
            gopoll.go(parent)
        for _ in range(turns):
            await gopoll.gosched()

    for i in range(100):
        gopoll.run(main, i % 5, procs=3)
    assert len(ran) == 300


def test_a_posted_call_that_raises_is_told_and_ends_no_run(capsys):
    async def main():
        current_sched().post(lambda: 1 // 0)

    gopoll.run(main)
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_run_that_is_cut_short_keeps_nothing_of_what_it_had_queued():
    class Local:
        pass

    refs = []

    async def queued():
        local = Local()
        refs.append(weakref.ref(local))
        while True:
            await gopoll.gosched()

    async def main():
        gopoll.go(queued)
        await gopoll.gosched()
        refs.append(weakref.ref(current_sched()))
        current_sched().die(InternalError("as if"))

    with pytest.raises(InternalError):
        gopoll.run(main, **ONE)
    gc.collect()
    assert len(refs) == 2
    assert [ref() for ref in refs] == [None, None]


def test_what_a_run_that_is_cut_short_has_never_begun_is_closed():
    """Nobody is warned of a coroutine that "was never awaited": who waits for its end is told."""
    done = run_python(
        """
        import gc
        import gopoll
        from gopoll.errors import InternalError
        from gopoll.runtime._sched import current_sched

        gs = []

        async def never():
            print("begun")

        async def main():
            gs.append(gopoll.go(never))
            current_sched().die(InternalError("as if"))

        try:
            gopoll.run(main, procs=1, handoff=False)
        except InternalError as err:
            print(err)
        try:
            gs[0].result()
        except RuntimeError as err:
            print(err)
        gs.clear()
        gc.collect()
        """
    )
    told = "as if\ngoroutine 2 was left behind when run() ended\n"
    assert (done.stdout, done.stderr) == (told, "")


TOO_LATE = """
import threading, warnings, gopoll
from gopoll.runtime import sched

sched.PATIENCE_NS = sched.LOOK_AGAIN_NS = 10**8
warnings.simplefilter("ignore")
begun, go_on, ended, told = threading.Event(), threading.Event(), threading.Event(), []

async def nothing():
    pass

async def main():
    gopoll.lock_os_thread()  # so that it is not this thread that is stuck
    gopoll.go(stuck)
    await gopoll.blocking(begun.wait)

async def stuck():
    begun.set()
    go_on.wait()
    try:
        gopoll.go(nothing)
    except RuntimeError as err:
        told.append(str(err))
    ended.set()

gopoll.run(main)
warnings.simplefilter("always")
go_on.set()
ended.wait(50)
print(told)
"""


def test_who_is_left_behind_can_start_nothing_more():
    done = run_python(TOO_LATE)
    text = "gopoll.run() has ended: nothing can be started in it any more"
    assert (done.stdout, done.stderr) == (f"['{text}']\n", "")
