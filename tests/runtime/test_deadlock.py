"""All goroutines are asleep: told where nothing can wake one, and nowhere else.

Go: TestSimpleDeadlock, TestInitDeadlock, TestLockedDeadlock, TestGoexitDeadlock and relatives,
runtime/crash_test.go. Each program is a process of its own: a thread of the suite could wake it.
"""

import re

import pytest

from helpers.child import run_python

PRELUDE = """
import os, signal, socket, threading, time
import gopoll

async def nothing():
    pass

async def parked(*gs):
    while any(g.state != "waiting" for g in gs):
        await gopoll.sleep(0.0005)

def until(condition):
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)

def asleep(g):
    "Wait on a plain thread, or in a slice, until *g* is parked."
    until(lambda: g.state == "waiting")

def keep_it():
    "Keep a P for as long as makes a slice too long."
    before = gopoll.stats().overruns
    until(lambda: gopoll.stats().overruns > before)
"""

OPTIONS = ["procs=1", "procs=4", "handoff=False"]


def program(body, options, more=""):
    """Run a program whose main is *body*, after what *more* defines at its top."""
    lines = "".join(f"    {line}\n" for line in body.strip("\n").splitlines())
    text = f"{PRELUDE}{more}\nasync def main():\n{lines}\nprint(gopoll.run(main, {options}))\n"
    return run_python(text)


ASLEEP = {
    "a channel without a partner": ("await gopoll.Chan().recv()", "recv"),
    "a full channel": ("chan = gopoll.Chan(1)\nawait chan.send(1)\nawait chan.send(2)", "send"),
    "a select": ("await gopoll.select(gopoll.Chan().recv_case())", "select"),
    "a select of nothing": ("await gopoll.select()", "select"),
    "a mutex of its own": ("m = gopoll.Mutex()\nawait m.lock()\nawait m.lock()", "lock"),
    "a join of itself": ("await gopoll.current()", "join"),
    "a counter that nobody counts down": (
        "wg = gopoll.WaitGroup()\nwg.add()\nawait wg.wait()", "waitgroup"),
    "a context that nobody cancels": (
        "ctx, cancel = gopoll.with_cancel(gopoll.background())\nawait ctx.wait()", "context"),
    "a locked thread": ("gopoll.lock_os_thread()\nawait gopoll.Chan().recv()", "recv"),
    "after a sleep": ("await gopoll.sleep(0.01)\nawait gopoll.Chan().recv()", "recv"),
    "after a blocking call": ("await gopoll.blocking(nothing().close)\nawait gopoll.Chan().recv()",
                              "recv"),
    "after a syscall": ("with gopoll.syscall():\n    time.sleep(0)\nawait gopoll.Chan().recv()",
                        "recv"),
    "after a slice without a P": ("keep_it()\nawait gopoll.Chan().recv()", "recv"),
    "after a thread": (
        ("t = threading.Thread(target=len, args=('',))\nt.start()\nt.join()\n"
         "await gopoll.Chan().recv()"), "recv"),
    "after a thread that ends later": (
        ("threading.Thread(target=asleep, args=(gopoll.current(),)).start()\n"
         "await gopoll.Chan().recv()"), "recv"),
    "beside a watch over a loop": (
        "watch = gopoll.StallWatch()\nwatch.idle()\nawait gopoll.Chan().recv()", "recv"),
    "after a timeout that was left": (
        "async with gopoll.timeout(60):\n    pass\nawait gopoll.Chan().recv()", "recv"),
    "beside a socket nobody waits for": (
        ("a, b = socket.socketpair()\nln = await gopoll.listen('tcp', '127.0.0.1:0')\n"
         "await gopoll.Chan().recv()"), "recv"),
    "after a signal channel": (
        "gopoll.signal_stop(gopoll.signal_notify(signal.SIGUSR1))\nawait gopoll.Chan().recv()",
        "recv"),
}  # fmt: skip


@pytest.mark.parametrize("what", ASLEEP)
def test_where_nothing_can_wake_run_ends_with_the_dump(what):
    body, reason = ASLEEP[what]
    options = "procs=4" if "locked" in what else OPTIONS[list(ASLEEP).index(what) % 3]
    done = program(body, options)
    assert (done.stdout, done.returncode) == ("", 1)
    head = "gopoll.errors.DeadlockError: all goroutines are asleep - deadlock!\n\n"
    assert done.stderr.count(head) == 1
    dump = done.stderr.split(head)[1]
    locked = ", locked to thread" if what == "a locked thread" else ""
    main = rf"goroutine 1 \(main\) \[waiting: {reason}, [0-9.]+ s{locked}\]:\n"
    assert re.search(main, dump)
    assert ", in main\n" in dump


@pytest.mark.parametrize("options", OPTIONS)
def test_many_that_wait_for_each_other_are_all_in_the_dump(options):
    done = program(
        """
        a, b = gopoll.Chan(), gopoll.Chan()
        first = gopoll.go(one, a, b, name="first")
        second = gopoll.go(one, b, a, name="second")
        box.append(gopoll.go(join, name="cycle"))
        box.append(gopoll.go(join, name="cycle too"))
        await first
        """.replace("        ", ""),
        options,
        """
box = []

async def one(a, b):
    await b.send(await a.recv())

async def join():
    while len(box) < 2:  # both, with many Ps
        await gopoll.gosched()
    await box[-1 if gopoll.current() == box[0] else 0]
""",
    )
    dump = done.stderr.split("all goroutines are asleep - deadlock!\n")[1]
    for name, reason in [
        ("main", "join"), ("first", "recv"), ("second", "recv"), ("cycle", "join"),
        ("cycle too", "join"),
    ]:  # fmt: skip
        assert f" ({name}) [waiting: {reason}, " in dump
    assert len([line for line in dump.splitlines() if line.startswith("goroutine ")]) == 5


def test_finally_blocks_run_and_it_may_be_caught_outside():
    done = program(
        """
        try:
            await gopoll.Chan().recv()
        finally:
            async with gopoll.shield():
                await gopoll.sleep(0.001)
            print("cleaned up")
        """.replace("\n        ", "\n"),
        "procs=1",
        """
real = gopoll.run
def run(*args, **options):
    try:
        real(*args, **options)
    except gopoll.DeadlockError as exc:
        assert isinstance(exc, RuntimeError)
        assert "goroutine 1 (main)" in exc.dump
        return real(nothing)
gopoll.run = run
""",
    )
    assert (done.stdout, done.stderr) == ("cleaned up\nNone\n", "")


AWAKE = {
    "a timer": "ctx, _ = gopoll.with_timeout(gopoll.background(), 0.1)\nawait ctx.wait()",
    "a sleeper that sends": (
        "chan = gopoll.Chan()\n"
        "async def late():\n    await gopoll.sleep(0.1)\n    await chan.send(1)\n"
        "gopoll.go(late)\nawait chan.recv()"),
    "a select with a timeout": "await gopoll.select(gopoll.Chan().recv_case(), timeout=0.1)",
    "a descriptor": (
        "import sys\n"
        "async with await gopoll.listen('tcp', '127.0.0.1:0') as ln:\n"
        "    g = gopoll.go(ln.accept)\n    await parked(g)\n"
        "    code = f'import socket; socket.create_connection({tuple(ln.addr)[:2]!r})'\n"
        "    pid = os.posix_spawn(sys.executable, ['python', '-c', code], {})\n"
        "    await (await g).close()\n"
        "os.waitpid(pid, 0)"),
    "a thread that sends": (
        "chan, main = gopoll.Chan(), gopoll.current()\n"
        "def late():\n    asleep(main)\n    chan.send_sync(1)\n"
        "threading.Thread(target=late).start()\nawait chan.recv()"),
    "a thread that is blocked in the channel": (
        "chan, back = gopoll.Chan(), gopoll.Chan()\n"
        "def thread():\n    back.send_sync(chan.recv_sync())\n"
        "threading.Thread(target=thread).start()\n"
        "await chan.send(1)\nawait back.recv()"),
    "a blocking call": "await gopoll.blocking(time.sleep, 0.1)",
    "a blocking call that sends": (
        "chan, main = gopoll.Chan(), gopoll.current()\n"
        "def late():\n    asleep(main)\n    chan.send_sync(1)\n"
        "g = gopoll.go(gopoll.blocking, late)\nawait chan.recv()\nawait g"),
    "a syscall": (
        "chan, main = gopoll.Chan(), gopoll.current()\n"
        "async def late():\n    with gopoll.syscall():\n        asleep(main)\n"
        "    await chan.send(1)\n"
        "gopoll.go(late)\nawait chan.recv()"),
    "a slice without a P": (
        "chan = gopoll.Chan()\n"
        "async def late():\n    keep_it()\n    await chan.send(1)\n"
        "gopoll.go(late)\nawait chan.recv()"),
    "a signal": (
        "chan = gopoll.signal_notify(signal.SIGALRM)\nsignal.setitimer(signal.ITIMER_REAL, 0.1)\n"
        "await chan.recv()"),
    "a locked thread that sleeps": (
        "chan = gopoll.Chan()\n"
        "async def late():\n    gopoll.lock_os_thread()\n    await gopoll.sleep(0.1)\n"
        "    await chan.send(1)\n"
        "gopoll.go(late)\nawait chan.recv()"),
    "another run in another thread": (
        "chan = gopoll.Chan()\n"
        "async def late():\n    await gopoll.sleep(0.1)\n    await chan.send(1)\n"
        "threading.Thread(target=gopoll.run, args=(late,)).start()\nawait chan.recv()"),
}  # fmt: skip


@pytest.mark.parametrize("what", AWAKE)
def test_where_something_can_wake_it_is_waited_for(what):
    options = OPTIONS[list(AWAKE).index(what) % 3]
    done = program(AWAKE[what], options)
    assert (done.stdout, done.stderr) == ("None\n", "")


# -- where goroutines are on no list, or run on what is counted nowhere (S8) -----------------------


def test_a_call_that_a_thread_makes_without_a_p_can_wake():
    """As the function of a context, by a thread that has waited in the network."""
    done = program(
        """
        began, me, chan = [], gopoll.current(), gopoll.Chan(1)
        def late():
            began.append(current_sched().this_m().has_p)
            until(lambda: me.state == "waiting")
            time.sleep(0.1)  # long enough for who looks
            chan.try_send(1)
        for _ in range(100):
            keep_it()  # from now on another thread waits in the network
            until(lambda: current_sched().lastpoll == 0)
            await gopoll.gosched()
            current_sched().poller.call_at_ns(time.monotonic_ns(), late)  # as a context does
            until(lambda: began)
            await chan.recv()
            if not began.pop():
                return "it had none"
        """.replace("\n        ", "\n"),
        "procs=1",
        "from gopoll.runtime._sched import current_sched\n",
    )
    assert (done.stdout, done.stderr) == ("it had none\n", "")


def test_who_runs_on_a_p_too_many_is_not_dead():
    """Between two slices it is in none."""
    done = program(
        """
        for _ in range(300):
            gopoll.gomaxprocs(2)
            a, b, done = gopoll.Chan(), gopoll.Chan(), gopoll.Chan()
            gs = [gopoll.go(plays, a, b, done), gopoll.go(answers, a, b, done)]
            await gopoll.gosched()
            gopoll.gomaxprocs(1)
            await done.recv()
            await done.recv()
        """.replace("\n        ", "\n"),
        "procs=2",
        """
async def plays(a, b, done):
    for _ in range(200):
        await a.send(1)
        await b.recv()
    await done.send(1)

async def answers(a, b, done):
    for _ in range(200):
        await a.recv()
        await b.send(1)
    await done.send(1)
""",
    )
    assert (done.stdout, done.stderr) == ("None\n", "")
