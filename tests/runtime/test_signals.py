"""Signals: Ctrl-C ends a run that sleeps, handlers run while it sleeps, and all is put back after.

Go: os/signal and runtime/sigqueue.go. On the main thread, as pytest is.
"""

import contextlib
import os
import select
import signal
import sys
import threading

import pytest

import gopoll
from helpers.child import run_python
from helpers.fds import half_pair
from plugins.guard import wait_until
from plugins.header import FREE_THREADED
from runtime.tools import ONE, Foreign, in_thread, until, when


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


async def forever():
    await gopoll.sleep(3600)


@contextlib.contextmanager
def handler(signum, fn):
    """Install a handler of the program's own for the length of a block."""
    before = signal.signal(signum, fn)
    try:
        yield
    finally:
        signal.signal(signum, before)


@contextlib.contextmanager
def wakeup_pipe():
    """Be a host with a wake-up descriptor; give the reading end."""
    r, w = os.pipe2(os.O_NONBLOCK)
    before = signal.set_wakeup_fd(w, warn_on_full_buffer=False)
    try:
        yield r
        assert signal.set_wakeup_fd(before) == w, "the host's descriptor is back"
    finally:
        signal.set_wakeup_fd(before)
        os.close(r)
        os.close(w)


def is_readable(fd):
    return bool(select.select([fd], [], [], 0)[0])


# -- Ctrl-C ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["sleep", "read", "note", "join", "blocking"])
def test_ctrl_c_interrupts_main_wherever_it_is_parked(where):
    seen = []

    async def main():
        handles.append(gopoll.current())
        gate, _ = gopoll.with_cancel(gopoll.background())
        with half_pair() as (fd, _):
            ways = {
                "sleep": forever,
                "read": lambda: fd.read(1),
                "note": gate.wait,
                "join": lambda: gopoll.go(forever),
                "blocking": lambda: gopoll.blocking(release.wait, 60),
            }
            try:
                await ways[where]()
            except BaseException as exc:
                seen.append(type(exc))
                raise
            finally:
                release.set()

    handles, release = [], threading.Event()
    killer = when(lambda: handles and handles[0].state == "waiting", interrupt)
    with pytest.raises(KeyboardInterrupt):
        gopoll.run(main)
    killer.join()
    assert seen == [KeyboardInterrupt], "at the await of main, not somewhere in the scheduler"


def test_ctrl_c_is_main_s_even_while_another_goroutine_runs():
    seen = []

    async def busy():
        while True:
            await gopoll.gosched()

    async def main():
        handles.append(gopoll.current())
        others = [gopoll.go(busy) for _ in range(3)]
        try:
            await forever()
        except KeyboardInterrupt:
            seen.append([g.done for g in others])
            raise

    handles = []
    killer = when(lambda: handles and handles[0].state == "waiting", interrupt)
    with pytest.raises(KeyboardInterrupt):
        gopoll.run(main)
    killer.join()
    assert seen == [[False] * 3]


def test_ctrl_c_while_main_computes_comes_at_its_next_park():
    steps = []

    async def main():
        interrupt()
        until(lambda: signal.getsignal(signal.SIGINT))  # bytecode, in which handlers run
        steps.append("goes on")
        try:
            await gopoll.gosched()
        except KeyboardInterrupt:
            steps.append("at the park")
            raise

    with pytest.raises(KeyboardInterrupt):
        gopoll.run(main, **ONE)
    assert steps == ["goes on", "at the park"]


def test_ctrl_c_while_main_is_runnable_comes_when_it_runs():
    steps = []

    async def other():
        interrupt()
        steps.append("other")

    async def main():
        gopoll.go(other)
        try:
            await gopoll.gosched()
            steps.append("never")
        except KeyboardInterrupt:
            steps.append("main")
            raise

    with pytest.raises(KeyboardInterrupt):
        gopoll.run(main, **ONE)
    assert steps == ["other", "main"]


def test_ctrl_c_that_comes_too_late_for_a_park_is_not_lost():
    async def main():
        interrupt()
        until(lambda: True)
        return "done"

    with pytest.raises(KeyboardInterrupt):
        gopoll.run(main, **ONE)


def test_main_may_catch_it_and_end_in_its_own_way():
    async def main():
        interrupt()
        try:
            await forever()
        except KeyboardInterrupt:
            async with gopoll.timeout(3600):
                await gopoll.sleep(0.0001)
        return "cleaned up"

    assert gopoll.run(main) == "cleaned up"


def test_the_goroutines_that_are_left_run_to_their_end_after_ctrl_c():
    seen = []

    async def worker():
        try:
            await forever()
        finally:
            async with gopoll.shield():
                await gopoll.sleep(0.0001)
            seen.append("cleaned up")

    async def main():
        g = gopoll.go(worker)
        await wait_until(lambda: g.state == "waiting")
        interrupt()
        await forever()

    with pytest.raises(KeyboardInterrupt):
        gopoll.run(main)
    assert seen == ["cleaned up"]


def test_each_ctrl_c_that_main_gets_over_is_followed_by_the_next():
    caught = []

    async def interrupted():
        interrupt()
        await gopoll.sleep(60)

    async def main():
        for n in range(3):
            with pytest.raises(KeyboardInterrupt):
                await interrupted()
            caught.append(n)

    gopoll.run(main, **ONE)
    assert caught == [0, 1, 2]


def test_a_second_ctrl_c_raises_in_place():
    steps = []

    def interrupt_and_compute():
        interrupt()
        until(lambda: False)

    async def main():
        interrupt()
        until(lambda: True)
        steps.append("the first is recorded")
        with pytest.raises(KeyboardInterrupt):
            interrupt_and_compute()
        steps.append("the second is raised here")
        with pytest.raises(KeyboardInterrupt):
            await gopoll.gosched()
        steps.append("and the first at the park")

    gopoll.run(main, **ONE)
    assert len(steps) == 3


def test_a_second_ctrl_c_gets_a_program_out_that_never_parks():
    done = run_python(
        """
        import os, signal, threading
        import gopoll

        computing = threading.Event()

        def twice():
            computing.wait(60)
            os.kill(os.getpid(), signal.SIGINT)
            while gopoll_pending[0] == 0:
                pass
            os.kill(os.getpid(), signal.SIGINT)

        gopoll_pending = [0]
        real = None

        async def main():
            global real
            real = signal.getsignal(signal.SIGINT)
            def counting(signum, frame):
                try:
                    real(signum, frame)
                finally:
                    gopoll_pending[0] += 1  # the first has been recorded
            signal.signal(signal.SIGINT, counting)
            computing.set()
            while True:
                pass

        thread = threading.Thread(target=twice)
        thread.start()
        try:
            gopoll.run(main, procs=1)
        except KeyboardInterrupt:
            print("interrupted", gopoll_pending)
        """
    )
    assert done.stdout == "interrupted [2]\n", done.stderr


def test_ctrl_c_from_outside_ends_a_program_as_it_ends_any_python_program():
    done = run_python(
        """
        import os, signal, subprocess, sys
        child = subprocess.Popen(
            [sys.executable, "-c", '''
        import gopoll
        async def main():
            print("up", flush=True)
            await gopoll.sleep(3600)
        gopoll.run(main)
        '''.replace("\\n        ", "\\n")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "up\\n"
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
        print(child.returncode, err.splitlines()[-1])
        """
    )
    assert done.stdout == f"{-signal.SIGINT} KeyboardInterrupt\n", done.stderr


# -- handlers of the program's own -----------------------------------------------------------------


def test_a_sigint_handler_of_the_programs_own_is_kept():
    calls = []

    async def main():
        assert signal.getsignal(signal.SIGINT) is own
        interrupt()
        await wait_until(lambda: calls)
        return "not interrupted"

    def own(signum, frame):
        calls.append(signum)

    with handler(signal.SIGINT, own):
        assert gopoll.run(main) == "not interrupted"
        assert signal.getsignal(signal.SIGINT) is own
    assert calls == [signal.SIGINT]


def test_an_ignored_sigint_stays_ignored():
    async def main():
        interrupt()
        await gopoll.sleep(0.001)
        return "not interrupted"

    with handler(signal.SIGINT, signal.SIG_IGN):
        assert gopoll.run(main) == "not interrupted"
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_handler_installed_inside_the_run_is_not_taken_away_after_it():
    def own(signum, frame):
        pass

    async def main():
        signal.signal(signal.SIGINT, own)

    before = signal.getsignal(signal.SIGINT)
    try:
        gopoll.run(main)
        assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("fails", [False, True])
def test_pythons_own_handler_is_back_after_the_run(fails):
    async def main():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        if fails:
            raise LookupError

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(LookupError) if fails else contextlib.nullcontext():
        gopoll.run(main)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("to", ["the process", "another thread"])
def test_a_handler_runs_while_all_goroutines_sleep_in_the_network(to):
    """Also if the kernel gives the signal to another thread, which ends no system call of ours."""
    stop, idle = threading.Event(), threading.Thread(target=lambda: stop.wait(60))

    async def main():
        ctx, cancel = gopoll.with_cancel(gopoll.background())
        cancels.append(cancel)
        handles.append(gopoll.current())
        await ctx.wait()
        return ctx.cause

    def own(signum, frame):
        assert threading.current_thread() is threading.main_thread()
        cancels[0](signum)

    def kill():
        if to == "the process":
            os.kill(os.getpid(), signal.SIGUSR1)
        else:
            signal.pthread_kill(idle.ident, signal.SIGUSR1)

    cancels, handles = [], []
    idle.start()
    with handler(signal.SIGUSR1, own):
        killer = when(lambda: handles and handles[0].state == "waiting", kill)
        try:
            assert gopoll.run(main) == signal.SIGUSR1
        finally:
            killer.join()
            stop.set()
            idle.join()


def test_many_signals_in_a_row_are_all_handled():
    calls = []

    async def main():
        async def sender():
            for _ in range(200):
                n = len(calls)
                await gopoll.blocking(os.kill, os.getpid(), signal.SIGUSR1)
                await wait_until(lambda n=n: len(calls) > n)

        await gopoll.go(sender)

    with handler(signal.SIGUSR1, lambda signum, frame: calls.append(signum)):
        gopoll.run(main)
    assert len(calls) == 200


def test_an_error_that_a_handler_raises_ends_the_run_with_it():
    class Enough(Exception):
        pass

    def own(signum, frame):
        raise Enough

    async def main():
        handles.append(gopoll.current())
        await forever()

    handles = []
    with handler(signal.SIGUSR1, own):
        kill = lambda: os.kill(os.getpid(), signal.SIGUSR1)  # noqa: E731
        killer = when(lambda: handles and handles[0].state == "waiting", kill)
        with pytest.raises(Enough):
            gopoll.run(main)
        killer.join()
    assert gopoll.run(gopoll.gosched()) is None, "and another run works"


# -- the wake-up descriptor ------------------------------------------------------------------------


def test_a_hosts_wake_up_descriptor_gets_the_bytes_too_and_is_put_back():
    async def main():
        os.kill(os.getpid(), signal.SIGUSR1)
        await wait_until(lambda: is_readable(r))
        return os.read(r, 10)

    with handler(signal.SIGUSR1, lambda *args: None), wakeup_pipe() as r:
        assert gopoll.run(main) == bytes([signal.SIGUSR1])
        os.kill(os.getpid(), signal.SIGUSR1)
        until(lambda: is_readable(r))


def test_a_full_wake_up_descriptor_of_the_host_disturbs_nothing():
    async def main():
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(signal_writer(r), bytes(4096))
        for _ in range(3):
            n = len(calls)
            os.kill(os.getpid(), signal.SIGUSR1)
            await wait_until(lambda n=n: len(calls) > n)
            await gopoll.sleep(0.001)

    def signal_writer(reader):
        return writers[reader]

    calls = []
    with handler(signal.SIGUSR1, lambda *args: calls.append(1)), wakeup_pipe() as r:
        writer = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        writers = {r: writer}
        gopoll.run(main)
    assert len(calls) == 3


# -- elsewhere -------------------------------------------------------------------------------------


def test_a_run_off_the_main_thread_leaves_signals_alone():
    async def main():
        return signal.getsignal(signal.SIGINT)

    assert in_thread(gopoll.run, main) is signal.default_int_handler


def test_ctrl_c_after_rubbish_is_not_swallowed_by_the_type_error():
    """See test_bugs.py for Ctrl-C before it."""

    async def main():
        with pytest.raises(TypeError):
            await Foreign(1)
        interrupt()
        await forever()

    with pytest.raises(KeyboardInterrupt):
        gopoll.run(main, **ONE)


CTRL_C_IN_A_CHILD = """
import os, signal, time, gopoll

async def childs_own():
    os.kill(os.getpid(), signal.SIGINT)
    await gopoll.sleep(20)

def in_child(where):
    try:
        if where == "run":
            gopoll.run(childs_own)
        else:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(20)
    except KeyboardInterrupt:
        os._exit(7)
    os._exit(1)

async def main():
    for where in ("run", "plain"):
        pid = os.fork()
        if pid == 0:
            in_child(where)
        status = await gopoll.blocking(os.waitpid, pid, 0)
        print(where, os.waitstatus_to_exitcode(status[1]), flush=True)

gopoll.run(main)
"""


def test_the_first_ctrl_c_of_a_forked_child_is_its_own():
    done = run_python(CTRL_C_IN_A_CHILD)
    assert (done.stdout, done.stderr) == ("run 7\nplain 7\n", "")


ENDS_AMID_SIGNALS = '''
import os, signal, subprocess, sys, threading, time, gopoll
from gopoll.errors import InternalError

async def main():
    for _ in range(4):
        gopoll.go(corrupted)
    await gopoll.sleep(60)

async def corrupted():
    raise InternalError("as if")

signal.signal(signal.SIGUSR1, lambda *_: None)
code = """
import os, signal, sys, time
end = time.monotonic() + 60
while time.monotonic() < end:
    os.kill(int(sys.argv[1]), signal.SIGUSR1)
"""
storm = subprocess.Popen([sys.executable, "-c", code, str(os.getpid())])
try:
    over = time.monotonic() + 6
    for _ in range(150):
        if time.monotonic() > over:
            break
        try:
            gopoll.run(main, procs=8)
        except InternalError:
            pass
        end = time.monotonic() + 40
        while threading.active_count() > 1:
            assert time.monotonic() < end, threading.enumerate()
finally:
    storm.kill()
    storm.wait()
print("alone")
'''


@pytest.mark.skipif(
    FREE_THREADED and sys.version_info < (3, 13, 14),
    reason="here a signal may have a lock of the interpreter's lose who waits (gh-148820)",
)
def test_a_run_that_ends_amid_signals_leaves_no_thread_that_reads_them():
    done = run_python(ENDS_AMID_SIGNALS)
    assert done.stdout == "alone\n", done.stderr
