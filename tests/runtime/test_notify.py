"""signal_notify and signal_stop, on the main thread and off it."""

import os
import signal
import threading

import pytest

import gopoll
from gopoll import signal_notify, signal_stop
from gopoll.runtime import notify
from helpers.child import run_python
from plugins.guard import wait_parked

USR1, USR2 = signal.SIGUSR1, signal.SIGUSR2


@pytest.fixture(autouse=True)
def handlers():
    """See that every handler is as before, and that nothing is kept."""
    before = {s: signal.getsignal(s) for s in (USR1, USR2, signal.SIGINT, signal.SIGTERM)}
    yield
    assert {s: signal.getsignal(s) for s in before} == before
    assert notify.count() == 0
    assert (notify._chans, notify._before) == ({}, {})


def kill(signum):
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize("procs", [1, 2, 8])
def test_a_signal_comes_out_of_the_channel(run, procs):
    async def main():
        chan = signal_notify(USR1, USR2)
        assert chan.capacity == 16
        for signum in (USR1, USR2, USR1):
            g = gopoll.go(chan.recv)
            await wait_parked(g)
            kill(signum)
            got = await g
            assert got is signum
        signal_stop(chan)
        signal_stop(chan)

    run(main, procs=procs)


def test_each_channel_gets_its_signals(run):
    async def main():
        both, one = signal_notify(USR1, USR2), signal_notify(USR1, USR1)
        kill(USR1)
        kill(USR2)
        assert {await both.recv(), await both.recv()} == {USR1, USR2}
        assert await one.recv() == USR1
        assert one.try_recv() == (None, False)
        signal_stop(both)
        assert signal.getsignal(USR1) is notify._relay
        kill(USR1)
        assert await one.recv() == USR1
        assert both.try_recv() == (None, False)

    run(main)


def test_a_full_channel_misses_signals(run):
    async def main():
        chan = signal_notify(USR1)
        for _ in range(40):
            signal.raise_signal(USR1)
        assert len(chan) == 16
        chan.close()
        signal.raise_signal(USR1)  # nobody wants it

    run(main)


def test_the_end_of_the_run_brings_the_handlers_back():
    seen = []
    before = signal.signal(USR1, lambda *args: seen.append("ours"))
    try:

        async def main():
            signal_notify(USR1, signal.SIGINT, signal.SIGTERM)
            signal.raise_signal(USR1)
            signal.raise_signal(signal.SIGINT)  # no KeyboardInterrupt
            assert notify.count() == 1

        gopoll.run(main)
        assert seen == []
        signal.raise_signal(USR1)
        assert seen == ["ours"]
    finally:
        signal.signal(USR1, before)


def test_a_handler_that_the_program_has_set_meanwhile_stays(run):
    def theirs(signum, frame):
        pass

    before = signal.getsignal(USR1)
    try:

        async def main():
            chan = signal_notify(USR1)
            signal.signal(USR1, theirs)
            signal_stop(chan)

        run(main)
        assert signal.getsignal(USR1) is theirs
    finally:
        signal.signal(USR1, before)


@pytest.mark.parametrize("where", ["parked", "computing"])
def test_the_goroutine_may_be_on_any_thread(where):
    """The main thread sleeps or polls meanwhile, or runs another goroutine."""

    async def main():
        ident = threading.main_thread().ident
        start, done = gopoll.Chan(), []

        async def ask():
            await start.recv()
            while True:
                gopoll.lock_os_thread()
                if threading.get_ident() != ident:
                    break
                gopoll.unlock_os_thread()
                await gopoll.gosched()
            chan = signal_notify(USR1)
            kill(USR1)
            assert await chan.recv() == USR1
            signal_stop(chan)
            done.append(threading.get_ident() != ident)

        async def compute():
            while not done:
                sum(range(1000))
                await gopoll.gosched()

        asking = gopoll.go(ask)
        computing = [gopoll.go(compute) for _ in range(2 if where == "computing" else 0)]
        gopoll.lock_os_thread()
        await start.send(None)
        for g in [asking, *computing]:
            await g
        gopoll.unlock_os_thread()
        assert done == [True]

    gopoll.run(main, procs=2)


def test_a_plain_thread_may_ask_while_the_main_thread_runs_goroutines(run):
    async def main():
        box = gopoll.Chan(1)

        def work():
            chan = signal_notify(USR1)
            kill(USR1)
            box.send_sync(chan.recv_sync(30), 30)
            signal_stop(chan)
            box.close()

        thread = threading.Thread(target=work)
        thread.start()
        assert [value async for value in box] == [USR1]
        thread.join()

    run(main)


def test_without_a_run_the_main_thread_may_ask():
    chan = signal_notify(USR1)
    signal.raise_signal(USR1)
    assert chan.recv_sync(30) == USR1

    async def main():
        kill(USR1)
        return await chan.recv()

    assert gopoll.run(main) == USR1
    assert notify.count() == 1  # it was not made in that run
    signal_stop(chan)


def test_off_the_main_thread_without_a_run_there_it_says_so():
    said = []

    async def main():
        with pytest.raises(RuntimeError, match="off the main thread") as caught:
            signal_notify(USR1)
        said.append(caught.value)

    thread = threading.Thread(target=gopoll.run, args=(main(),))
    thread.start()
    thread.join()
    assert said


def test_what_is_no_signal_is_refused():
    with pytest.raises(ValueError, match="at least one signal"):
        signal_notify()
    for wrong in ("USR1", [USR1], True, 1.5):
        text = "signals are numbers such as signal.SIGUSR1, one argument each, not "
        with pytest.raises(TypeError, match=f"^{text}{type(wrong).__name__}$"):
            signal_notify(USR1, wrong)
    with pytest.raises(ValueError, match=r"no such signals: \[4711\]"):
        signal_notify(USR1, 4711)
    with pytest.raises(OSError, match="Invalid argument"):
        signal_notify(USR1, USR2, signal.SIGKILL)
    signal_stop(gopoll.Chan())
    for wrong in ([], 5):
        text = rf"^signal_stop\(\) takes a Chan, not {type(wrong).__name__}$"
        with pytest.raises(TypeError, match=text):
            signal_stop(wrong)


def test_a_real_time_signal_comes_as_a_number(run):
    number = signal.SIGRTMIN + 3

    async def main():
        chan = signal_notify(number)
        signal.raise_signal(number)
        assert await chan.recv() == number

    run(main)


def test_who_waits_for_a_signal_is_no_deadlock():
    done = run_python(
        """
        import os, signal, subprocess, sys
        import gopoll

        async def main():
            chan = gopoll.signal_notify(signal.SIGTERM)
            code = "import os, signal; os.kill(os.getppid(), signal.SIGTERM)"
            child = subprocess.Popen([sys.executable, "-c", code])
            print((await chan.recv()).name)
            child.wait()

        gopoll.run(main)
        """
    )
    assert (done.stdout, done.stderr) == ("SIGTERM\n", "")


@pytest.mark.parametrize("handoff", [True, False])
def test_ctrl_c_may_be_a_value_and_is_ctrl_c_again(handoff):
    done = run_python(
        f"""
        import asyncio, signal
        import gopoll

        async def main():
            chan = gopoll.signal_notify(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            print((await chan.recv()).name)
            gopoll.signal_stop(chan)
            signal.raise_signal(signal.SIGINT)
            try:
                await gopoll.sleep(60)
            except KeyboardInterrupt:
                print("interrupted")

        gopoll.run(main, handoff={handoff})
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        """
    )
    assert (done.stdout, done.stderr) == ("SIGINT\ninterrupted\n", "")


def test_a_forked_child_is_free_of_the_signals_of_its_parents_run():
    done = run_python(
        """
        import os, signal
        import gopoll

        async def nothing_comes():
            await gopoll.Chan().recv()

        async def main():
            chan = gopoll.signal_notify(signal.SIGUSR1)
            pid = os.fork()
            if pid == 0:
                assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
                try:
                    gopoll.run(nothing_comes)
                except gopoll.DeadlockError:
                    os._exit(5)
                os._exit(6)
            _, status = await gopoll.blocking(os.waitpid, pid, 0)
            os.kill(os.getpid(), signal.SIGUSR1)
            return os.waitstatus_to_exitcode(status), await chan.recv() is signal.SIGUSR1

        gopoll_fork, os.fork = os.fork, lambda: fork_quietly()

        def fork_quietly():
            import warnings
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # 3.12: of threads
                return gopoll_fork()

        print(gopoll.run(main))
        """
    )
    assert done.stdout == "(5, True)\n", done.stderr
