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
from test_fdmsg_rights import has_testcapi


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


NO_MEMORY = """
import _testcapi, faulthandler
import gopoll

faulthandler.dump_traceback_later(60, exit=True)

async def child(ran):
    ran.append(1)

async def main(at):
    ran = []
    coro, g = child(ran), None
    _testcapi.set_nomemory(at, at + 1)
    try:
        g = gopoll.go(coro)
        await gopoll.gosched()
        await g
    except MemoryError:
        if g is None:
            coro.close()
    finally:
        _testcapi.remove_mem_hooks()
    return bool(ran)

outcomes = []
for at in range(40):
    try:
        outcomes.append(gopoll.run(main, at, procs=1, handoff=False))
    except MemoryError:
        outcomes.append(None)
print(len(outcomes), True in outcomes, False in outcomes)
"""


@pytest.mark.skipif(not has_testcapi(), reason="no _testcapi in this Python")
def test_a_goroutine_that_memory_runs_out_for_is_not_waited_for():
    """Each allocation fails once. run() never ended: it had been counted and was on no list, or
    could not be taken off it at its end.
    """
    done = run_python(NO_MEMORY)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "40 True True\n"


HANDLE = """
import builtins, sys
import gopoll

async def child():
    {does}

async def main():
    g = gopoll.go(child)
    await gopoll.sleep({waits})
    return g

{where}.kept = gopoll.run(main)
"""


@pytest.mark.parametrize("where", ["sys", "builtins"])
def test_a_cancelled_goroutine_says_nothing_in_the_interpreters_last_moments(where):
    """Its handle goes when Python's own names, isinstance among them, have gone."""
    done = run_python(HANDLE.format(does="await gopoll.sleep(3600)", waits=0, where=where))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_error_that_nobody_has_awaited_is_told_even_then():
    done = run_python(HANDLE.format(does="raise ValueError('seen')", waits=0.01, where="builtins"))
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.endswith("ValueError: seen\n")


def test_who_is_left_behind_can_start_nothing_more():
    done = run_python(TOO_LATE)
    text = "gopoll.run() has ended: nothing can be started in it any more"
    assert (done.stdout, done.stderr) == (f"['{text}']\n", "")


ON_ITS_OWN = """
import os, threading, time, warnings
import gopoll
from gopoll.runtime import end, sched

sched.PATIENCE_NS = sched.LOOK_AGAIN_NS = 10**7
told, gs, never, begun, looks = [], [], threading.Event(), gopoll.Chan(2), []
warnings.simplefilter("always")
warnings.showwarning = lambda message, *args: told.append(str(message).splitlines()[0])
ours = threading.get_ident()
are_stuck = end.Leftovers.are_stuck

def look(*args):
    looks.append(args)
    return are_stuck(*args)

end.Leftovers.are_stuck = look

def block_until(condition):
    limit = time.monotonic() + 30
    while not condition() and time.monotonic() < limit:
        time.sleep(0.1)

async def elsewhere():
    begun.try_send("b")
    never.wait(60)

async def here(then):
    assert threading.get_ident() == ours
    begun.try_send("a")
    block_until(lambda: told)
    enough = len(looks) + 5
    block_until(lambda: len(looks) >= enough)
    return await then()

async def fails():
    raise LookupError("lost")

async def forgotten():
    gs.clear()
    raise LookupError("lost")
"""


@pytest.mark.parametrize(
    ("then", "says"),
    [
        ("lambda: gopoll.Chan(1).send(1)", "None dead None"),
        ("lambda: gopoll.sleep(9)", "None dead Canceled('the main goroutine has ended')"),
        ("fails", "None dead LookupError('lost')"),
        ("forgotten", "LookupError('lost')"),
    ],
)
def test_who_is_stuck_on_the_thread_of_run_is_waited_for_and_ends_as_any_other(then, says):
    """E10: run() cannot return before it, so nothing of it need be lost."""
    done = run_python(
        f"""{ON_ITS_OWN}
async def main():
    gs.append(gopoll.go(here, {then}))
    await begun.recv()  # the thread is lost to that one

said = []
try:
    said.append(gopoll.run(main, procs=1))
except LookupError as err:
    said.append(repr(err))
for g in gs:
    said.append(g.state)
    try:
        said.append(g.result(0))
    except BaseException as err:
        said.append(repr(err))
print(*said)
print(*told)
"""
    )
    told = "goroutine 2 (here) is stuck since main has ended: run() waits for it"
    assert done.stdout == f"{says}\n{told}\n", done.stderr


def test_main_that_is_stuck_when_an_error_ends_the_run_has_not_ended():
    done = run_python(
        f"""{ON_ITS_OWN}
async def main():
    gopoll.go(fails)
    try:
        await here(lambda: gopoll.sleep(9))
    finally:
        print("cleaned up")

try:
    gopoll.run(main, procs=1)
except LookupError as err:
    print(repr(err), *told)
"""
    )
    told = "goroutine 1 (main) is stuck since an error has ended the run: run() waits for it"
    assert done.stdout == f"cleaned up\nLookupError('lost') {told}\n", done.stderr


def test_what_else_is_stuck_is_left_behind_when_the_thread_of_run_has_come_back():
    done = run_python(
        f"""{ON_ITS_OWN}
async def main():
    gopoll.go(here, fails, name="a")
    assert await begun.recv() == "a"
    gopoll.go(elsewhere, name="b")
    assert await begun.recv() == "b"

try:
    gopoll.run(main, procs=1)
except LookupError as err:
    print(repr(err), *told, sep="\\n", flush=True)
os._exit(0)
"""
    )
    since = "is stuck since main has ended:"
    assert done.stdout.splitlines() == [
        "LookupError('lost')",
        f"goroutine 2 (a) {since} run() waits for it",
        f"goroutine 3 (b) {since} it is left behind",
    ], done.stderr


# Globals die when the interpreter is about to be no more: no thread gets the GIL after that.
AT_THE_END = """
import os, sys, threading, time, warnings
import gopoll
from gopoll.runtime import blocking, sched

class Last:
    def __init__(self, fn):
        self.fn = fn
    def __del__(self, sleep=time.sleep, say=sys.stderr.write):
        try:
            self.fn()
            sleep(0.05)
        except BaseException as err:
            say(repr(err))
"""


@pytest.mark.parametrize("procs", [1, 3])
def test_calls_that_come_back_while_the_interpreter_ends_do_no_harm(procs):
    """E10: stuck threads keep neither run() nor the interpreter from ending. They are daemons: what
    they come back to, if they do, is an interpreter that lets nobody in.
    """
    done = run_python(
        f"""{AT_THE_END}
blocking.JOIN_SECONDS = 0.1
sched.PATIENCE_NS = sched.LOOK_AGAIN_NS = 10**8
r, w = os.pipe()
begun = []

def stuck():
    begun.append(True)
    return os.read(r, 1)

async def stuck_itself():
    stuck()

async def stuck_in_syscall():
    with gopoll.syscall():
        stuck()

async def main():
    gopoll.lock_os_thread()  # so that it is not run()'s own thread that is stuck
    for fn in stuck_itself, stuck_in_syscall, stuck_itself, stuck_in_syscall:
        gopoll.go(fn)
        gopoll.go(gopoll.blocking(stuck))
    while len(begun) < 8:
        await gopoll.sleep(0.001)

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    gopoll.run(main, procs={procs})
print(sum("it is left behind" in str(c.message) for c in caught),
      sum("is still in a blocking() call" in str(c.message) for c in caught), flush=True)
last = Last(lambda write=os.write, w=w: write(w, b"x" * 8))
"""
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "4 4\n"


@pytest.mark.parametrize("procs", [1, 3])
def test_a_run_on_a_daemon_thread_does_no_harm_while_the_interpreter_ends(procs):
    """The program does not wait for that thread: all of the run's own go on till then."""
    done = run_python(
        f"""{AT_THE_END}
async def again(fn):
    while True:
        await fn()

async def computes():
    sum(range(100_000))
    await gopoll.gosched()

async def calls():
    with gopoll.syscall():
        time.sleep(0.0004)
    await gopoll.gosched()

async def main():
    listener = await gopoll.listen("tcp", "127.0.0.1:0")
    gopoll.go(listener.accept())
    for fn in (gopoll.gosched, computes, calls, lambda: gopoll.sleep(0.0005),
               lambda: gopoll.blocking(time.sleep, 0.0003)):
        gopoll.go(again(fn))
    up.set()
    await gopoll.sleep(3600)

up = threading.Event()
threading.Thread(target=gopoll.run, args=(main,), kwargs=dict(procs={procs}), daemon=True).start()
up.wait()
ctx, cancel = gopoll.with_timeout(gopoll.background(), 30)
ctx.after_func(int)
watch = gopoll.StallWatch()
watch.tick()
time.sleep(0.05)
last = Last(int)
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


KEPT = """
import sys, warnings
import gopoll
warnings.simplefilter("ignore")

class Source:
    async def read(self, n):
        return b""

async def main():
    listener = await gopoll.listen("tcp", "127.0.0.1:0")
    conn = await gopoll.dial("tcp", listener.addr)
    waits = [conn.read(), gopoll.Reader(Source()).read_line(), gopoll.sleep(1)]
    return [listener, conn, *waits, gopoll.Chan().send(1)]

sys.kept = gopoll.run(main)
"""


def test_what_is_kept_to_the_interpreter_s_very_end_is_no_noise_there():
    """Names of modules had gone, and each of them was told of as an error without a text."""
    done = run_python(KEPT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
