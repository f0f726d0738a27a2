"""Seen from outside: stats(), dump(), SIGQUIT, schedtrace.

Go: GODEBUG=schedtrace and the traceback of SIGQUIT; stats() and dump() are ours.
"""

import io
import itertools
import os
import re
import socket
import threading
import time

import pytest

import gopoll
from gopoll import Chan
from helpers.child import run_python
from helpers.fds import adopt, half_pair
from plugins.guard import wait_parked, wait_until
from runtime.tools import ONE, in_thread, until, when

# -- stats(): each counter has its cause -----------------------------------------------------------


def moved(before):
    """Return the counters that are not as *before*, with the difference."""
    after = gopoll.stats()
    pairs = {name: getattr(after, name) - n for name, n in vars(before).items()}
    return {name: n for name, n in pairs.items() if n}


async def own_one_parked():
    """Wait until the runtime's own goroutine, which reads signals, has parked."""
    await wait_until(lambda: entry(dumped(), "signals")[0].startswith("waiting: "))


def test_a_switch_is_counted_and_nothing_else_moves(run):
    async def main():
        await gopoll.gosched()
        before = gopoll.stats()
        await gopoll.gosched()
        first = gopoll.stats().switches - before.switches
        for _ in range(200):
            await gopoll.gosched()
        diff = moved(before)
        # Counted by the round: the round under way is not in it yet.
        assert first <= 61
        assert 100 <= diff.pop("switches") <= 300
        diff.pop("polls", None)  # one in 61 switches, and sysmon's
        assert not diff.keys() - {"overruns", "stalls"}, diff  # on a busy machine

    run(main, **ONE)


def test_a_park_a_wake_and_an_event_are_counted(run):
    async def main():
        with half_pair() as (fd, peer):
            await own_one_parked()
            before = gopoll.stats()
            reader = gopoll.go(fd.read, 1)
            await wait_parked(reader)
            assert moved(before)["parks"] == 1
            assert "wakes" not in moved(before)
            peer.send(b"x")
            await reader
            diff = moved(before)
            assert (diff["parks"], diff["wakes"]) == (1, 1)
            assert diff["events"] >= 1
            assert diff["polls"] >= 1

    run(main, **ONE)


def test_an_event_that_nobody_waits_for_is_spurious(run):
    async def main():
        with half_pair() as (fd, peer):
            await gopoll.sleep(0.0005)  # the first event says that it is writable
            before = gopoll.stats()
            peer.send(b"x")
            await wait_until(lambda: gopoll.stats().spurious > before.spurious)
            assert await fd.read(1) == b"x"
            assert {"parks", "wakes", "stale"}.isdisjoint(moved(before))

    run(main, **ONE)


def test_an_event_of_a_descriptor_that_was_closed_is_stale(run):
    """Its registration lives on through a copy of the socket that another party has."""

    async def main():
        ours, peer = socket.socketpair()
        with peer:
            fd = adopt(ours)
            number, copy = fd.fileno(), os.dup(fd.fileno())
            await gopoll.sleep(0.0005)
            os.close(number)  # behind our back, so that the kernel keeps the registration
            fd_again = os.dup2(os.open(os.devnull, os.O_RDONLY), number)
            assert fd_again == number
            fd.close()
            before = gopoll.stats()
            peer.send(b"x")
            await wait_until(lambda: gopoll.stats().stale == before.stale + 1)
            os.close(copy)

    run(main, **ONE)


def test_a_hook_must_be_callable():
    with pytest.raises(TypeError, match=r"^on_stall\(\) wants a function, not int$"):
        gopoll.on_stall(5)


def test_a_break_is_counted_when_a_thread_wakes_the_sleeping_network(run):
    async def main():
        sched = gopoll.current()._g.sched
        chan = Chan()
        before = gopoll.stats()
        while "breaks" not in moved(before):  # it may see the value just before it sleeps (S1)
            thread = when(lambda: sched.lastpoll == 0, lambda: chan.send_sync(1))
            await chan.recv()
            thread.join()

    run(main, **ONE)


def test_a_robbed_queue_is_counted(run):
    """The goroutines behind one that keeps its P run on another."""
    ran = []

    async def mark():
        ran.append(1)

    async def main():
        before = gopoll.stats()
        for _ in range(20):
            gopoll.go(mark)
        until(lambda: gopoll.stats().steals > before.steals)  # keeps this P
        await wait_until(lambda: len(ran) == 20)

    run(main, procs=2)


def test_a_stall_is_counted_once_whether_or_not_the_p_is_taken(run):
    async def main():
        for n in range(3):
            assert gopoll.stats().stalls == n
            until(lambda n=n: gopoll.stats().stalls > n)
            time.sleep(0.08)
            assert gopoll.stats().stalls == n + 1
            await gopoll.gosched()

    run(main, **ONE)
    run(main, procs=1)


def test_what_there_is_now_is_counted(run):
    async def main():
        before = gopoll.stats()
        with half_pair() as (fd, peer):
            reader, sleeper = gopoll.go(fd.read, 1), gopoll.go(gopoll.sleep, 3600)
            await wait_parked(reader, sleeper)
            diff = moved(before)
            assert (diff["goroutines"], diff["descriptors"], diff["timers"]) == (2, 1, 1)
            peer.send(b"x")
            await reader
            sleeper.cancel()
            with pytest.raises(gopoll.Canceled):
                await sleeper
        diff = moved(before)
        assert {"goroutines", "descriptors", "timers"}.isdisjoint(diff)

    run(main, **ONE)


def test_threads_are_the_one_of_run_and_those_that_it_has_started(run):
    async def alone():
        return gopoll.stats().threads

    async def main():
        with gopoll.syscall():  # its P goes on with another thread
            until(named)
        assert gopoll.stats().threads == 1 + len(named())

    assert run(alone, **ONE) == 1
    run(main, procs=1)


# -- threads ---------------------------------------------------------------------------------------


def named(prefix="gopoll-m"):
    return [t for t in threading.enumerate() if t.name.startswith(prefix)]


@pytest.mark.parametrize("procs", [1, 4])
def test_threads_are_used_again(run, procs):
    """One after the other blocks: the threads that were made for the first serve the others."""

    async def blocks():
        with gopoll.syscall():
            time.sleep(0.001)

    async def main():
        for _ in range(procs):
            await gopoll.go(blocks)
        early = len(gopoll.current()._g.sched.allm)
        for _ in range(100):
            await gopoll.go(blocks)
        # On a busy machine many may be late to be idle again.
        assert len(gopoll.current()._g.sched.allm) < early + 50

    run(main, procs=procs)
    assert not named()


def test_threads_are_capped(run, monkeypatch):
    """No thread to be had is no error: goroutines wait for one that comes back."""
    real = threading.Thread.start
    refused = []
    one = threading.Lock()  # two at once counted one thread each, without a GIL, and made three

    def start(thread):
        with one:
            if thread.name.startswith("gopoll-m") and len(named()) >= 2:
                refused.append(thread.name)
                raise RuntimeError("can't start new thread")
            real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)

    async def blocks(i):
        with gopoll.syscall():
            time.sleep(0.002)
        return i

    async def main():
        gs = [gopoll.go(blocks, i) for i in range(20)]
        assert [await g for g in gs] == list(range(20))
        assert len(named()) <= 2
        assert len(gopoll.current()._g.sched.allm) <= 3 + 3  # one for each that may try at once

    run(main, procs=2)
    assert refused
    assert not named()


# -- dump() ----------------------------------------------------------------------------------------


def dumped():
    out = io.StringIO()
    gopoll.dump(out)
    return out.getvalue()


def test_a_dump_to_the_name_of_a_file_is_refused():
    with pytest.raises(TypeError, match=r"^file must be an open text file, not str$"):
        gopoll.dump("dump.txt")


def entry(text, name):
    """Return (state, stack) of the goroutine *name* in the text of a dump."""
    (found,) = re.findall(
        rf"^(?:goroutine \d+|runtime) \({name}\) \[(.*)\]:\n((?:  .*\n)*)", text, re.MULTILINE
    )
    return found


def test_every_goroutine_is_in_it_with_state_reason_age_and_stack(run):
    async def main():
        chan, mutex, gate = Chan(), gopoll.Mutex(), gopoll.WaitGroup()
        ctx, cancel = gopoll.with_cancel(gopoll.background())
        let_go = threading.Event()
        gate.add()
        await mutex.lock()

        async def through(op):
            return await op

        with half_pair() as (fd, peer):
            ops = {
                "read": fd.read(1),
                "sleep": gopoll.sleep(3600),
                "recv": chan.recv(),
                "select": gopoll.select(Chan().recv_case(), Chan().recv_case()),
                "lock": mutex.lock(),
                "waitgroup": gate.wait(),
                "context": ctx.wait(),
                "blocking": gopoll.blocking(let_go.wait),
            }
            gs = {reason: gopoll.go(through, op, name=f"in-{reason}") for reason, op in ops.items()}
            gs["join"] = gopoll.go(through, gs["sleep"], name="in-join")
            await wait_parked(*gs.values())
            fresh = gopoll.go(through, gopoll.sleep(0), name="fresh")
            text = dumped()
            assert text.startswith(f"gopoll: {len(gs) + 2} goroutines\n\n")
            for reason, g in gs.items():
                assert f"goroutine {g.id} (in-{reason}) [waiting: {reason}, " in text
                assert g.wait_reason == reason
                state, stack = entry(text, f"in-{reason}")
                assert re.fullmatch(rf"waiting: {reason}, \d+\.\d s", state)
                assert "in through\n    return await op\n" in stack
            assert re.fullmatch(r"runnable, 0\.\d s", entry(text, "fresh")[0])
            state, stack = entry(text, "_guarded")
            assert re.fullmatch(r"running, 0\.\d s", state)
            assert "in dumped\n" in stack
            assert "in main\n    text = dumped()\n" in stack
            peer.send(b"x")
            chan.try_send(1)
            mutex.unlock()
            gate.done()
            cancel()
            let_go.set()
            await fresh
            for reason in ("read", "recv", "lock", "waitgroup", "context", "blocking"):
                await gs[reason]
            for reason in ("sleep", "select", "join"):
                gs[reason].cancel()
                with pytest.raises(gopoll.Canceled):
                    await gs[reason]

    run(main, **ONE)


def test_the_stack_goes_down_to_where_it_waits(run):
    async def inner():
        await gopoll.sleep(3600)

    async def middle():
        async for _ in gen():
            pass

    async def first():
        return await anext(gen(), None)

    async def gen():
        await inner()
        yield

    async def outer(fn):
        await fn()

    async def look(fn):
        g = gopoll.go(outer, fn, name="deep")
        await wait_parked(g)
        _, stack = entry(dumped(), "deep")
        spots = re.findall(r", in (\w+)\n", stack)
        assert spots == ["outer", fn.__name__, "gen", "inner"]
        g.cancel()
        with pytest.raises(gopoll.Canceled):
            await g

    async def main():
        await look(middle)
        await look(first)

    run(main, **ONE)


@pytest.mark.parametrize("how", ["go", "ready", "thread", "gosched"])
def test_the_age_of_what_runs_and_of_what_is_ready_is_that_of_its_state(run, how):
    """By the time that sysmon tells, some ms behind at most; the wait before does not count."""
    turns = []

    async def other(chan):
        if how == "gosched":
            await gopoll.sleep(0.3)
            turns.append(1)
            await gopoll.gosched()
        elif how != "go":
            await chan.recv()

    async def main():
        chan = gopoll.Chan()
        g = gopoll.go(other, chan, name="other")
        if how == "gosched":
            while not turns:
                await gopoll.gosched()
        elif how != "go":
            await gopoll.sleep(0.3)
            await wait_parked(g)
        before = time.monotonic()
        if how == "ready":
            assert chan.try_send(1)
        elif how == "thread":
            in_thread(chan.send_sync, 1)
        time.sleep(0.2)
        text = dumped()
        most = time.monotonic() - before + 0.1
        found = re.findall(r"\((\S+)\) \[(\w+), ([\d.]+) s\]", text)
        ages = {state: float(age) for name, state, age in found if name in {"other", "_guarded"}}
        assert ages.keys() == {"running", "runnable"}, text
        assert 0.2 <= ages["running"] <= most, text
        assert 0.2 <= ages["runnable"] <= most, text
        await g

    run(main, **ONE)


def test_the_age_is_that_of_the_wait(run):
    async def main():
        g = gopoll.go(gopoll.sleep, 3600)
        await wait_parked(g)
        time.sleep(0.2)
        age = float(re.search(r"waiting: sleep, ([\d.]+) s", dumped())[1])
        assert 0.2 <= age < 60
        g.cancel()
        with pytest.raises(gopoll.Canceled):
            await g

    run(main, **ONE)


def test_it_says_who_is_locked_and_what_is_the_runtimes(run):
    async def main():
        await own_one_parked()
        gopoll.lock_os_thread()
        text = dumped()
        assert re.search(
            r"^goroutine 1 \(.*\) \[running, [\d.]+ s, locked to thread\]:$", text, re.MULTILINE
        )
        assert entry(text, "signals")[0].startswith("waiting: ")
        assert text.index("\nruntime (signals) [") > text.index("goroutine 1 "), "ours comes last"
        assert text.startswith("gopoll: 1 goroutines\n"), "the runtime's own are not counted"
        gopoll.unlock_os_thread()

    run(main, procs=1)


def test_a_plain_thread_sees_every_run_and_who_computes_where(run):
    """The stack of a goroutine that runs is that of its thread, not of the one that asks."""
    begun, release = threading.Semaphore(0), threading.Event()

    async def computes():
        begun.release()
        release.wait(60)

    threads = [
        threading.Thread(target=gopoll.run, args=(computes,), kwargs={"procs": procs})
        for procs in (1, 4)
    ]
    for thread in threads:
        thread.start()
    try:
        assert begun.acquire(timeout=60)
        assert begun.acquire(timeout=60)
        text = dumped()
        assert text.count("gopoll: 1 goroutines\n") == 2
        assert text.count("in computes\n    release.wait(60)\n") == 2
        assert "in dumped" not in text
    finally:
        release.set()
        for thread in threads:
            thread.join(60)
    assert dumped() == ""


@pytest.mark.parametrize("options", ["procs=1", "procs=4", "handoff=False"])
@pytest.mark.parametrize("doing", ["await gopoll.sleep(0.001)", "time.sleep(0.001)", "pass"])
def test_sigquit_prints_it_and_the_program_goes_on(doing, options):
    """Also while the main thread sleeps in C or computes in Python: what one wants to see then."""
    done = run_python(
        f"""
        import os, signal, sys, threading, time
        import gopoll

        class Stderr:
            def write(self, text):
                os.write(2, text.encode())
                written.append(text)

            def flush(self):
                pass

        def quits():
            while not begun:
                time.sleep(0.001)
            sys.stderr = Stderr()
            os.kill(os.getpid(), signal.SIGQUIT)
            while not written or "other" not in written[0]:
                time.sleep(0.001)
            over.append(1)

        async def other():
            await gopoll.sleep(3600)

        async def main():
            g = gopoll.go(other)
            while g.state != "waiting":
                await gopoll.gosched()
            begun.append(1)
            while not over:
                {doing}
            print("goes on")

        begun, written, over = [], [], []
        thread = threading.Thread(target=quits)

        async def starts():
            thread.start()
            await main()

        gopoll.run(starts, {options})
        thread.join()
        assert signal.getsignal(signal.SIGQUIT) is signal.SIG_DFL
        """
    )
    assert (done.stdout, done.returncode) == ("goes on\n", 0)
    text = done.stderr
    assert text.startswith("gopoll: 2 goroutines\n\n")
    assert entry(text, "other")[0].startswith("waiting: sleep, ")
    state, stack = entry(text, "starts")
    assert state.startswith(("running", "waiting: sleep", "runnable"))
    assert "in main\n" in stack


def test_a_sigquit_handler_of_the_programs_own_is_kept():
    done = run_python(
        """
        import os, signal
        import gopoll

        async def main():
            os.kill(os.getpid(), signal.SIGQUIT)
            await gopoll.sleep(0.001)

        signal.signal(signal.SIGQUIT, lambda *args: print("mine"))
        gopoll.run(main)
        os.kill(os.getpid(), signal.SIGQUIT)
        """
    )
    assert (done.stdout, done.stderr) == ("mine\nmine\n", "")


def test_schedtrace_prints_a_line_each_period(monkeypatch, capfd):
    monkeypatch.setenv("GOPOLL_DEBUG", "schedtrace=10")

    text = []

    def lines():
        text.append(capfd.readouterr().err)
        return "".join(text).splitlines()

    async def main():
        until(lambda: len(lines()) >= 2)
        await wait_until(lambda: len(lines()) >= 5)

    gopoll.run(main, procs=3)
    ages = []
    for line in lines():
        match = re.fullmatch(
            r"SCHED (\d+)ms: gomaxprocs=3 idleprocs=[0-3] threads=\d+ spinningthreads=\d+ "
            r"idlethreads=\d+ runqueue=\d+ \[\d+ \d+ \d+\]",
            line,
        )
        assert match, line
        ages.append(int(match[1]))
    assert ages == sorted(ages)
    assert min(b - a for a, b in itertools.pairwise(ages)) >= 9


@pytest.mark.parametrize("value", ["", "schedtrace=0", "stall=1s,schedtrace=0ms"])
def test_without_a_period_no_line_is_printed(monkeypatch, capfd, value):
    monkeypatch.setenv("GOPOLL_DEBUG", value)

    async def main():
        until(lambda: gopoll.stats().overruns)

    gopoll.run(main)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("GOPOLL_DEBUG", "stall", "GOPOLL_DEBUG: 'stall' is ignored: {} stall=50ms"),
        ("GOPOLL_DEBUG", "stall=soon", "GOPOLL_DEBUG: 'stall=soon' is ignored: {} stall=50ms"),
        (
            "GOPOLL_DEBUG",
            "stall=1s,schedtrace=1 h",
            "GOPOLL_DEBUG: 'schedtrace=1 h' is ignored: {} schedtrace=50ms",
        ),
        (
            "GOPOLL_DEBUG",
            "x=1",
            "GOPOLL_DEBUG: 'x=1' is ignored: known are stall and schedtrace",
        ),
        ("GOMAXPROCS", "0", "GOMAXPROCS='0' is ignored: it must be a number from 1 up"),
        ("GOMAXPROCS", "two", "GOMAXPROCS='two' is ignored: it must be a number from 1 up"),
    ],
)
def test_what_the_environment_asks_for_in_vain_is_told_once(monkeypatch, name, value, text):
    monkeypatch.setattr("gopoll.runtime.debug._warned", set())
    monkeypatch.setattr("gopoll.runtime.goroutine._procs", None)
    monkeypatch.setenv(name, value)

    async def main():
        return "ran"

    with pytest.warns(RuntimeWarning) as told:
        assert gopoll.run(main) == "ran"
    assert [str(w.message) for w in told] == [text.format("give a duration, such as")]
    assert told[0].filename == __file__
    assert gopoll.run(main) == "ran"  # a second warning would be an error
