"""on_stall and GOPOLL_DEBUG=stall: who keeps its thread, for how long, and in what.

Ours: Go preempts instead. Every kind is produced for real; nobody else is ever named.
"""

import os
import re
import subprocess
import sys
import threading
import time

import pytest

import gopoll
from helpers.child import run_python
from runtime.tools import ONE, until

GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
MODES = [ONE, {"procs": 1}, {"procs": 4}]


def compute_until(moment):
    n = 0
    while time.monotonic() < moment:
        n += 1
    return n


def in_python(seconds=0.2):
    compute_until(time.monotonic() + seconds)


def in_c(seconds=0.2):
    time.sleep(seconds)


def big_enough(work, seconds):
    """Return an n for which work(n) takes about so long, or longer."""
    n = 50_000
    while True:
        began = time.thread_time()
        work(n)
        if time.thread_time() - began > seconds:
            return n
        n *= 2


def sum_to(n):
    """Sum in C, which looks at nothing else."""
    return sum(range(n))


@pytest.fixture
def heard():
    """Return the list of stalls that a hook with 50 ms has heard of."""
    stalls = []
    stop = gopoll.on_stall(stalls.append)
    yield stalls
    stop()


def spots(stall):
    return [frame.name for frame in stall.stack]


@pytest.mark.parametrize("options", MODES, ids=str)
@pytest.mark.parametrize(("kind", "block"), [("python", in_python), ("c_nogil", in_c)])
def test_who_computes_and_who_sits_in_c_is_told_apart(run, heard, options, kind, block):
    async def stuck():
        end = time.monotonic() + 60
        while kind not in kinds() and time.monotonic() < end:
            block()

    async def main():
        g = gopoll.go(stuck, name="the one")
        await g
        return g.id

    def kinds():
        return {stall.kind for stall in heard}

    number = run(main, **options)
    assert kinds() == {kind}
    for stall in heard:  # one, unless it blocks again before it sees that
        assert (stall.goroutine, stall.name) == (number, "the one")
        assert 0.05 <= stall.duration < 10
        assert spots(stall)[-2 - (kind == "python") :][:2] == ["stuck", block.__name__]


@pytest.fixture
def crowded():
    """Have six processes compute on the first of our CPUs; return it."""
    all_ = os.sched_getaffinity(0)
    cpu = min(all_)
    code = f"import os, time\nos.sched_setaffinity(0, {{{cpu}}})\nprint(flush=True)\n"
    code += "end = time.monotonic() + 60\nwhile time.monotonic() < end: pass"
    command = [sys.executable, "-c", code]
    hogs = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(6)]
    for hog in hogs:
        hog.stdout.readline()
    yield cpu
    for hog in hogs:
        hog.kill()
        hog.communicate()
    os.sched_setaffinity(0, all_)


@pytest.mark.parametrize(("kind", "block"), [("python", in_python), ("c_nogil", in_c)])
def test_who_gets_no_cpu_is_not_taken_for_one_that_sleeps(run, heard, crowded, kind, block):
    async def stuck():
        os.sched_setaffinity(0, {crowded})  # of this thread, the main one; sysmon's is free
        end = time.monotonic() + 60
        while len(heard) < 5 and time.monotonic() < end:
            block()
            await gopoll.gosched()  # a slice for each

    async def main():
        await gopoll.go(stuck)

    run(main, **ONE)
    assert {stall.kind for stall in heard} == {kind}


@pytest.mark.skipif(not GIL, reason="no GIL to hold")
@pytest.mark.parametrize("options", MODES, ids=str)
def test_who_keeps_the_gil_in_c_is_told_after_it(run, heard, options):
    n = big_enough(sum_to, 0.15)

    def held():
        return [stall for stall in heard if stall.kind == "gil_held"]

    async def stuck():
        for _ in range(20):  # a busy machine may keep the CPU from who is to see it
            sum_to(n)
            if held():
                break

    async def main():
        g = gopoll.go(stuck, name="holds")
        await g
        return g.id, gopoll.stats().stalls

    number, stalls = run(main, **options)
    assert held(), heard
    for stall in held():
        assert (stall.goroutine, stall.name, stall.stack) == (number, "holds", None)
        assert stall.duration >= 0.05
    assert stalls >= 1


@pytest.mark.skipif(not GIL, reason="no GIL to hold")
@pytest.mark.parametrize("options", MODES[:2], ids=str)
def test_who_runs_when_the_gil_is_free_again_is_not_blamed(run, heard, options):
    """S7: the slice of the one that had it is over by then; that of another has begun."""
    big = 7 ** big_enough(lambda n: 7**n, 0.04)

    async def holds():
        return (big * big) and None  # an operator: the interpreter does not look up after it

    async def bystander():
        for _ in range(20):
            await gopoll.gosched()

    async def main():
        gs = [gopoll.go(bystander, name="bystander") for _ in range(3)]
        for _ in range(3):
            await gopoll.go(holds, name="holds")
        for g in gs:
            await g
        return gopoll.stats().stalls

    stalls = run(main, **options)
    assert {stall.name for stall in heard} <= {"holds", "main"}  # one that has ended keeps its name
    assert len(heard) <= stalls


@pytest.mark.skipif(not GIL, reason="no GIL to wait for")
def test_who_waits_for_the_gil_is_told_apart(run):
    """Plain threads have it, for long; the goroutine gets its turn and loses it again."""
    over = threading.Event()
    heard = []
    stop = gopoll.on_stall(heard.append, 0.02)

    def hog():
        while not over.is_set():
            sum(range(1_000_000))

    def starved():
        return [stall for stall in heard if stall.kind == "gil_starved"]

    async def victim(end):
        told = len(heard)
        while len(heard) == told and time.monotonic() < end:
            compute_until(time.monotonic() + 0.001)  # sysmon has to wait for the GIL too

    async def main():
        threads = [threading.Thread(target=hog) for _ in range(4)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 30
        while not starved() and time.monotonic() < end:
            await gopoll.go(victim, end, name="victim")
        over.set()
        for thread in threads:
            thread.join()

    try:
        run(main, **ONE)
    finally:
        over.set()
        stop()
    assert starved(), {stall.kind for stall in heard}
    assert "gil_held" not in {stall.kind for stall in heard}
    assert "hog" not in {name for stall in starved() for name in spots(stall)}


@pytest.mark.skipif(not GIL, reason="no GIL to wait for")
def test_a_p_is_left_alone_while_the_gil_is_not_to_be_had(run):
    """A7: another thread would have to wait for the GIL as well."""
    over = threading.Event()

    def hog():
        while not over.is_set():
            sum(range(3_000_000))

    async def victim():
        compute_until(time.monotonic() + 0.1)

    async def main():
        threads = [threading.Thread(target=hog) for _ in range(3)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 30
        while gopoll.stats().starved == 0 and time.monotonic() < end:
            await gopoll.go(victim)
        over.set()
        for thread in threads:
            thread.join()
        return gopoll.stats().starved

    try:
        assert run(main, procs=1) > 0
    finally:
        over.set()


# -- nobody else -----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", MODES, ids=str)
def test_a_thread_that_is_not_the_schedulers_is_never_named(run, heard, options):
    """It computes all the while, and so does one of blocking(); the goroutines do not."""
    over = threading.Event()

    def bystander():
        while not over.is_set():
            compute_until(time.monotonic() + 0.01)

    async def idle():
        async with gopoll.timeout(60):
            for _ in range(25):
                await gopoll.sleep(0.002)
        over.set()

    async def main():
        thread = threading.Thread(target=bystander)
        thread.start()
        g = gopoll.go(idle)
        await gopoll.blocking(bystander)
        thread.join()
        await g
        return gopoll.stats().stalls

    try:
        run(main, **options)
    finally:
        over.set()
    for stall in heard:  # a goroutine that had to wait for the GIL, on a busy machine
        assert "bystander" not in (spots(stall) if stall.stack else [])


@pytest.mark.parametrize("block", [in_python, in_c])
def test_beside_a_busy_thread_and_quick_goroutines_the_one_is_named(run, heard, block):
    over = []

    def bystander():
        while not over:
            compute_until(time.monotonic() + 0.01)

    async def quick():
        while not over:
            await gopoll.gosched()

    async def stuck():
        end = time.monotonic() + 20  # sysmon has to get its turn on a busy machine
        while "the one" not in [stall.name for stall in heard] and time.monotonic() < end:
            block(0.1)

    async def main():
        thread = threading.Thread(target=bystander)
        thread.start()
        gs = [gopoll.go(quick, name="quick") for _ in range(3)]
        await gopoll.go(stuck, name="the one")
        over.append(1)
        for g in gs:
            await g
        thread.join()

    run(main, procs=2)
    assert [stall.name for stall in heard].count("the one") == 1
    (stall,) = [stall for stall in heard if stall.name == "the one"]
    if stall.stack is not None:
        assert "stuck" in spots(stall)
    assert all("bystander" not in spots(stall) for stall in heard if stall.stack)


def test_a_goroutine_in_syscall_and_a_parked_one_are_no_stalls(run, heard):
    async def main():
        g = gopoll.go(gopoll.sleep, 0.2)
        with gopoll.syscall():
            time.sleep(0.2)
        await g
        assert gopoll.stats().stalls == 0

    run(main, procs=1)
    assert heard == []


def test_nor_is_one_in_syscall_that_had_lost_its_p_before(run):
    heard = []
    stop = gopoll.on_stall(heard.append, 0.5)

    async def main():
        until(lambda: gopoll.stats().retakes)
        with gopoll.syscall():
            time.sleep(0.6)
        assert gopoll.stats().stalls == 0

    try:
        run(main, procs=1)
    finally:
        stop()
    assert heard == []


# -- hooks and thresholds --------------------------------------------------------------------------


@pytest.mark.parametrize("options", MODES, ids=str)
def test_each_hook_hears_of_a_slice_once_at_its_own_threshold(run, options):
    heard = {0.03: [], 0.12: [], 0.2: [], 30: []}
    stops = [gopoll.on_stall(stalls.append, limit) for limit, stalls in heard.items()]

    async def main():
        until(lambda: all(stalls for limit, stalls in heard.items() if limit < 30))
        return {limit: len(stalls) for limit, stalls in heard.items()}  # of this slice alone

    try:
        told = run(main, **options)
    finally:
        for stop in stops:
            stop()
    assert told == {0.03: 1, 0.12: 1, 0.2: 1, 30: 0}
    for limit, stalls in heard.items():
        assert all(stall.duration >= limit for stall in stalls)


def test_a_hook_that_was_ended_hears_nothing(run):
    first, second = [], []
    stops = [gopoll.on_stall(first.append), gopoll.on_stall(second.append)]
    stops[0]()
    stops[0]()

    async def main():
        until(lambda: second)

    try:
        run(main, **ONE)
    finally:
        stops[1]()
    assert not first


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
def test_a_hook_that_fails_is_told_and_stops_nobody(run, capsys, heard, kind):
    def bad(stall):
        raise kind("in the hook")

    stop = gopoll.on_stall(bad)

    async def main():
        for _ in range(2):
            told = len(heard)
            until(lambda told=told: len(heard) > told)
            await gopoll.gosched()

    try:
        run(main, **ONE)
    finally:
        stop()
    assert len(heard) >= 2
    assert capsys.readouterr().err.count(f"{kind.__name__}: in the hook\n") == len(heard)


@pytest.mark.parametrize("ages", [1e300, 10**400, float("inf")])
def test_a_threshold_of_ages_never_comes(run, heard, ages):
    """Nor does it disturb the others."""
    stop = gopoll.on_stall(pytest.fail, ages)

    async def main():
        until(lambda: heard)

    try:
        run(main, **ONE)
    finally:
        stop()
    assert len(heard) == 1


@pytest.mark.parametrize("threshold", [0, -1, float("nan")])
def test_a_threshold_of_nothing_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold must be above 0 seconds, not"):
        gopoll.on_stall(print, threshold)


@pytest.mark.parametrize("threshold", ["50ms", None])
def test_a_threshold_that_is_no_number_is_told_by_name(threshold):
    text = f"^threshold must be seconds, not {type(threshold).__name__}$"
    with pytest.raises(TypeError, match=text):
        gopoll.on_stall(print, threshold)


@pytest.mark.parametrize(
    ("setting", "prints"),
    [("stall=50ms", 1), ("stall=0.05s", 1), ("stall=50", 1), ("schedtrace=0,stall=50ms", 1),
     ("stall=20s", 0), ("stall=0", 0), ("", 0)],
)  # fmt: skip
def test_the_environment_has_stalls_printed(monkeypatch, setting, prints):
    monkeypatch.setenv("GOPOLL_DEBUG", setting)
    done = run_python(
        """
        import sys, threading, time
        import gopoll

        class Stderr:
            def write(self, text):
                sys.__stderr__.write(text)
                told.set()

        async def stuck():
            if sys.argv[1] == "told":
                told.wait(50)
            while sys.argv[1] == "counted" and not gopoll.stats().stalls:
                time.sleep(0.001)
            if sys.argv[1] == "nothing":
                time.sleep(0.15)

        async def main():
            await gopoll.go(stuck)
            print(gopoll.stats().stalls)

        told = threading.Event()
        sys.stderr = Stderr()
        gopoll.run(main)
        """,
        "told" if prints else "nothing" if setting == "stall=20s" else "counted",
    )
    assert done.stdout == ("0\n" if setting == "stall=20s" else "1\n")
    first = re.findall(
        r"^gopoll: goroutine 2 \(stuck\) stalls for \d+ ms \(c_nogil\)$", done.stderr, re.MULTILINE
    )
    assert len(first) == prints
    assert done.stderr.count(", in stuck\n") == prints
    assert bool(done.stderr) == bool(prints)


def test_until_somebody_asks_nothing_is_printed_and_all_is_counted(run, capfd):
    async def main():
        until(lambda: gopoll.stats().stalls == 1)

    run(main, **ONE)
    assert capfd.readouterr().err == ""


HOOKS_COME_AND_GO = {
    "finaliser": """
class Watch:
    def __init__(self):
        self.me = self
        self.stop = gopoll.on_stall(print, 1.0)
    def __del__(self):
        self.stop()

gc.set_threshold(1)
for _ in range(500):
    Watch()
""",
    "signal": """
def handler(*_):
    global busy
    if not busy:
        busy = True
        gopoll.on_stall(print, 1.0)()
        busy = False

busy = False
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
end = time.monotonic() + 1
while time.monotonic() < end:
    gopoll.on_stall(print, 1.0)()
signal.setitimer(signal.ITIMER_REAL, 0)
""",
    "fork": """
def churn():
    while not over:
        gopoll.on_stall(print, 1.0)()

over = False
thread = threading.Thread(target=churn)
thread.start()
for _ in range(30):
    pid = os.fork()
    if pid == 0:
        gopoll.on_stall(print, 1.0)()
        os._exit(0)
    os.waitpid(pid, 0)
over = True
thread.join()
""",
}


@pytest.mark.parametrize("amid", HOOKS_COME_AND_GO)
def test_hooks_come_and_go_amid_the_like(amid):
    """A finaliser, a handler, a child of a fork: each met the lock of the hooks taken."""
    head = "import gc, os, signal, sys, threading, time, warnings, gopoll\n"
    head += "warnings.simplefilter('ignore')\n"
    done = run_python(head + HOOKS_COME_AND_GO[amid] + "print('through')", timeout=60)
    assert (done.returncode, done.stdout) == (0, "through\n"), done.stderr


NOWHERE_TO_WRITE = """
import os, time, gopoll

reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, 2)

async def main():
    for _ in range(3):
        time.sleep(0.1)
        await gopoll.sleep(0.01)
    return "fine"

print(gopoll.run(main), flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("ask", ["stall=30ms", "schedtrace=20"])
def test_a_broken_stderr_does_not_end_the_run(monkeypatch, ask):
    monkeypatch.setenv("GOPOLL_DEBUG", ask)
    assert run_python(NOWHERE_TO_WRITE).stdout == "fine\n"


NO_DESCRIPTOR_LEFT = """
import os, resource, time, gopoll

async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), 4096))
    kept = []
    try:
        while True:
            kept.append(os.dup(0))
    except OSError:
        pass
    while not heard:
        time.sleep(0.01)
    for fd in kept:
        os.close(fd)

heard = []
gopoll.on_stall(heard.append, 0.02)
gopoll.run(main)
print(len(heard))
"""


def test_a_stall_without_a_descriptor_for_its_stack_is_told_all_the_same():
    assert run_python(NO_DESCRIPTOR_LEFT).stdout == "1\n"
