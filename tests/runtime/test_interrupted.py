"""Signal handlers that raise anywhere in the scheduler, and threads that cannot be had: run() ends.

E1 in sched.py, U1 and U2 in _sched.pyx. Go has neither; it throws where no thread can be made.
"""

import contextlib
import threading

import pytest

import gopoll
from gopoll.runtime import sched
from gopoll.runtime._sched import current_sched
from helpers.child import run_python
from plugins.guard import wait_until
from runtime.tools import ONE, in_thread


@pytest.fixture
def no_threads(monkeypatch):
    """Have no thread of an M start, once the list is not empty."""
    switch = []
    real = threading.Thread.start

    def start(thread):
        if switch and thread.name.startswith("gopoll-m"):
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    return switch


# -- U1: no thread is to be had --------------------------------------------------------------------


def test_locking_the_only_thread_fails_if_no_other_can_be_had(no_threads):
    async def main():
        no_threads.append(True)
        with pytest.raises(RuntimeError, match=r"^lock_os_thread\(\).*none can be started"):
            gopoll.lock_os_thread()
        assert not gopoll.current()._g.is_locked
        assert await gopoll.go(gopoll.sleep, 0.001) is None
        no_threads.clear()
        gopoll.lock_os_thread()
        assert await gopoll.go(gopoll.sleep, 0.001) is None
        gopoll.unlock_os_thread()

    gopoll.run(main, procs=1)


def test_one_thread_is_left_for_the_others_however_many_are_locked(no_threads):
    """And a syscall() that nobody could go on beside keeps its P."""
    refused = []

    async def locks():
        try:
            gopoll.lock_os_thread()
        except RuntimeError:
            refused.append(True)
        with gopoll.syscall():
            pass
        await gopoll.sleep(0.001)

    async def main():
        await gopoll.blocking(lambda: None)
        gopoll.lock_os_thread()
        no_threads.append(True)
        for g in [gopoll.go(locks) for _ in range(4)]:
            await g

    gopoll.run(main, procs=2)
    assert len(refused) >= 1


def test_a_thread_that_cannot_be_had_is_not_looked_to_for_work(monkeypatch):
    """S3: what begins meanwhile gives its M a P to look for work with. That was counted as one that
    looks, for ever: nobody else looked any more, nor at the network, and the program stood still.
    """
    real, refuses, gs = threading.Thread.start, [], []

    def start(thread):
        if refuses and thread.name.startswith("gopoll-m"):
            if not gs:
                gs.append(gopoll.go(gopoll.gosched))
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)

    async def main():
        refuses.append(True)
        with pytest.raises(RuntimeError, match=r"^lock_os_thread\(\).*none can be started"):
            gopoll.lock_os_thread()
        assert current_sched().nmspinning == 0
        refuses.clear()
        await gs[0]

    gopoll.run(main, procs=2)


def test_a_syscall_of_the_only_thread_keeps_its_p(no_threads):
    async def main():
        no_threads.append(True)
        g = gopoll.go(gopoll.gosched)
        with gopoll.syscall():
            assert current_sched().npidle == 0
        await g

    gopoll.run(main, procs=1)


def test_threads_that_end_leave_no_more_than_one_m():
    async def locked():
        gopoll.lock_os_thread()
        return threading.get_ident()

    async def parks(chan):
        await chan.recv()

    async def starts(chan):
        gopoll.lock_os_thread()
        gopoll.go(parks, chan)

    async def main():
        gopoll.lock_os_thread()  # so that none of the others runs on the thread of run()
        chan = gopoll.Chan()
        await gopoll.go(starts, chan)
        for _ in range(60):
            assert await gopoll.go(locked) != threading.get_ident()
        s = current_sched()
        await wait_until(lambda: len(s.allm) < 12)
        names = [g.name for g in s.goroutines() if not g.system]
        assert sum("parks" in name for name in names) == 1, "also after the thread that began it"
        chan.close()

    with contextlib.suppress(gopoll.ChanClosed):
        gopoll.run(main, procs=1)


# -- async generators that take for ever -----------------------------------------------------------


@pytest.mark.parametrize("held", [True, False])
def test_a_generator_that_does_not_end_is_cancelled_at_the_end(monkeypatch, held):
    monkeypatch.setattr(sched, "PATIENCE_NS", 10**7)
    monkeypatch.setattr(sched, "LOOK_AGAIN_NS", 10**7)
    seen, kept = [], []

    async def numbers():
        try:
            yield 1
        finally:
            try:
                await gopoll.Chan().recv()
            except gopoll.Canceled:
                seen.append("cancelled")
                raise

    async def main():
        gen = numbers()
        if held:
            kept.append(gen)
        await anext(gen)

    in_thread(gopoll.run, main)
    assert seen == ["cancelled"]


def test_a_generator_gets_the_time_that_it_needs(monkeypatch):
    """Patience begins when it begins to be closed, after the goroutines have ended."""
    monkeypatch.setattr(sched, "PATIENCE_NS", 10**10)
    monkeypatch.setattr(sched, "LOOK_AGAIN_NS", 10**6)
    seen, kept = [], []

    async def numbers():
        try:
            yield 1
        finally:
            current_sched()._abandon()  # as if it had come
            for _ in range(10):
                await gopoll.sleep(0.002)
            seen.append("closed")

    async def main():
        kept.append(numbers())
        await anext(kept[0])

    gopoll.run(main, **ONE)
    assert seen == ["closed"]


# -- E1: handlers that raise -----------------------------------------------------------------------

STORM = """
import contextlib, faulthandler, random, signal, sys, threading, time
import gopoll
from gopoll.runtime import sched

procs, seed, rounds = map(int, sys.argv[1:])
faulthandler.dump_traceback_later(100, exit=True)
sched.PATIENCE_NS = sched.LOOK_AGAIN_NS = 2 * 10**7
sys.unraisablehook = lambda info: None  # a handler that raises in a finaliser
threading.excepthook = lambda info: None
rng = random.Random(seed)

class Bang(BaseException):
    pass

class Oops(Exception):
    pass

def handler(signum, frame):
    while frame is not None:
        # Since 3.14 a handler that raises can leave threading's own lock locked.
        if sys.version_info >= (3, 14) and frame.f_code.co_filename == threading.__file__:
            return
        if frame.f_code is gopoll.run.__code__:
            raise rng.choice((Bang, Oops))
        frame = frame.f_back

async def numbers():
    try:
        yield 1
        yield 2
    finally:
        await gopoll.gosched()

async def child(n):
    async for _ in numbers():
        break
    await gopoll.sleep(0.0001 * (n % 3))

async def locked():
    gopoll.lock_os_thread()
    with gopoll.syscall():
        pass
    await gopoll.gosched()

async def main():
    chan = gopoll.Chan()
    gopoll.go(chan.recv)
    with gopoll.syscall():
        pass
    gs = [gopoll.go(child, n) for n in range(3)] + [gopoll.go(locked)]
    async with gopoll.Group() as group:
        for n in range(3):
            group.go(child, n)
    await gopoll.blocking(int, "5")
    for g in gs:
        await g

signal.signal(signal.SIGALRM, handler)
interrupted = 0
for turn in range(rounds):
    every = rng.uniform(0.00005, 0.002)
    first = rng.uniform(0.00005, 0.004)
    signal.setitimer(signal.ITIMER_REAL, first, every if turn % 2 else 0)
    try:
        gopoll.run(main, procs=procs)
    except BaseException as error:
        while not isinstance(error, (Bang, Oops)):  # or what the standard library makes of one
            group = isinstance(error, BaseExceptionGroup)
            error = error.exceptions[0] if group else error.__context__
        interrupted += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert signal.set_wakeup_fd(-1) == -1, turn
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
gopoll.run(gopoll.gosched())
print(interrupted > 0)
"""


@pytest.mark.parametrize("procs", [1, 2])
def test_a_handler_that_raises_anywhere_never_hangs_run(procs):
    done = run_python(STORM, procs, procs, 100)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr[-3000:]


# -- Ctrl-C at every line --------------------------------------------------------------------------

EVERY_LINE = """
import os, signal, sys, threading, time
import gopoll

async def main():
    await gopoll.gosched()
    await gopoll.blocking(int)

def fds():
    return sorted(os.listdir("/proc/self/fd"))

def attempt(n, procs):
    "Call run() with a Ctrl-C at its n-th line on this thread; how it ends, and where that was."
    count, where = 0, []

    def trace(frame, event, arg):
        nonlocal count
        if frame.f_code is attempt.__code__ or "weakref" in frame.f_code.co_filename:
            return None  # what is raised in a weakref's callback Python itself loses
        count += event == "line"
        if event == "line" and count == n:
            sys.settrace(None)
            where.append((os.path.basename(frame.f_code.co_filename), frame.f_lineno))
            signal.raise_signal(signal.SIGINT)
        return trace

    sys.settrace(trace)
    try:
        gopoll.run(main, procs=procs)
        how = "returned"
    except BaseException as exc:
        how = repr(exc)
    sys.settrace(None)
    return how, where

procs = int(sys.argv[1])
gopoll.run(main, procs=procs)
before, n, where = fds(), 0, [True]
while where:
    n += 1
    how, where = attempt(n, procs)
    end = time.monotonic() + 40
    while threading.active_count() > 1 and time.monotonic() < end:
        time.sleep(0.001)
    after = (
        how, [t.name for t in threading.enumerate()][1:], fds() == before,
        signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        signal.getsignal(signal.SIGQUIT) is signal.SIG_DFL,
        signal.set_wakeup_fd(-1), sys.get_asyncgen_hooks() == (None, None),
    )
    if where:
        assert after == ("KeyboardInterrupt()", [], True, True, True, -1, True), (where, after)
assert how == "returned" and n > 500, (how, n)
print("ok")
"""


@pytest.mark.parametrize("procs", [1, 2])
def test_ctrl_c_at_any_line_comes_out_of_run_with_everything_undone(procs):
    """Its start and its end included, where it came amid the standard library's threads."""
    done = run_python(EVERY_LINE, procs)
    assert (done.stdout, done.returncode) == ("ok\n", 0), done.stderr[-3000:]
