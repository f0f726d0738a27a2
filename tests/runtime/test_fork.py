"""fork(): goroutines stay with the parent, the child may begin again, and neither harms the other.

Ours (A9); a Go program cannot fork. Each test forks in a process of its own, which has said
what it saw before this one looks; parent and child write to one pipe.
"""

import os

import pytest

from runtime.tools import said

TEXT = (
    "gopoll.run() was forked: goroutines stay with the parent; call os._exit or start a new run() "
    "in the child"
)


@pytest.mark.parametrize(
    "park", ["gopoll.sleep(0)", "gopoll.sleep(60)", "sleeper", "gopoll.blocking(b.recv, 1)"]
)
def test_in_the_child_the_next_park_raises_forked_error_out_of_run(park):
    lines = said(
        f"""
        async def main():
            sleeper = gopoll.go(gopoll.sleep, 3600)
            a, b = socket.socketpair()
            if fork():
                say("child goes on")
                try:
                    await {park}
                    say("never")
                except Exception as exc:
                    say("not at the await:", exc)
            return "parent's result"

        pid = os.getpid()
        try:
            say(gopoll.run(main))
        except gopoll.ForkedError as exc:
            say(os.getpid() != pid, exc)
            os._exit(0)
        """
    )
    assert lines == ["child goes on", f"True {TEXT}", "child ended with 0", "parent's result"]


@pytest.mark.parametrize(
    "op",
    [
        'await gopoll.dial("unix", "@gopoll-test-fork")',  # there is room in the queue: at once
        'await gopoll.listen("tcp", "127.0.0.1:0")',
        "gopoll.from_fd(socket.socket().detach())",
    ],
)
def test_what_would_be_done_on_the_spot_in_the_child_is_refused(op):
    """As what waits is: else it would work by chance."""
    lines = said(
        f"""
        async def main():
            unix = socket.socket(socket.AF_UNIX)
            unix.bind(chr(0) + "gopoll-test-fork")
            unix.listen()
            if fork():
                try:
                    {op}
                except gopoll.ForkedError as exc:
                    say(exc)
                    raise
                say("done")
            return "parent's result"

        try:
            say(gopoll.run(main))
        except gopoll.ForkedError:
            os._exit(0)
        """
    )
    assert lines == [TEXT, "child ended with 0", "parent's result"]


def test_a_main_that_returns_in_the_child_raises_forked_error_too():
    lines = said(
        """
        async def main():
            return "child" if fork() else "parent"

        try:
            say(gopoll.run(main))
        except gopoll.ForkedError:
            say("forked")
            os._exit(0)
        """
    )
    assert lines == ["forked", "child ended with 0", "parent"]


def test_a_new_run_works_in_the_child_and_the_parents_goes_on():
    lines = said(
        """
        async def talk(name):
            async with await gopoll.listen("tcp", "127.0.0.1:0") as ln:
                async with await gopoll.dial("tcp", ln.addr) as conn, await ln.accept() as peer:
                    reader = gopoll.go(peer.read, 4)
                    await parked(reader)
                    async with gopoll.timeout(60):
                        await conn.write(b"ping")
                        say(name, await reader, await gopoll.blocking(len, "abc"))
                        await gopoll.sleep(0.001)
                    return len(threading.enumerate())

        async def main():
            gopoll.lock_os_thread()  # see FORKS
            sleepers = [gopoll.go(gopoll.sleep, 3600) for _ in range(10)]
            await parked(*sleepers)
            await talk("before")
            if fork():
                await gopoll.gosched()
            await talk("parent")

        try:
            gopoll.run(main)
        except gopoll.ForkedError:
            gopoll.run(talk, "child")
            gopoll.run(talk, "child")
            say(threading.active_count(), "thread")
            os._exit(0)
        """
    )
    assert lines == [
        "before b'ping' 3",
        "child b'ping' 3",
        "child b'ping' 3",
        "1 thread",
        "child ended with 0",
        "parent b'ping' 3",
    ]


def test_inherited_connections_raise_forked_error_and_can_only_be_closed():
    lines = said(
        """
        async def main():
            gopoll.lock_os_thread()  # see FORKS
            async with await gopoll.listen("tcp", "127.0.0.1:0") as ln:
                conn, peer = await gopoll.dial("tcp", ln.addr), await ln.accept()
                kept.extend((ln, conn, peer))
                if fork():
                    await gopoll.gosched()
                await peer.write(b"to the parent")
                say(await conn.read())
                await conn.close()
                await peer.close()

        async def child():
            warnings.simplefilter("ignore", RuntimeWarning)  # "never awaited": see test_bugs.py
            ln, conn, peer = kept
            for what in (
                lambda: conn.read(1), lambda: conn.write(b"x"), lambda: ln.accept(),
                lambda: conn.readinto(bytearray(1)),
            ):
                try:
                    await what()
                    say("no error")
                except gopoll.ForkedError as exc:
                    say("forked")
            for call in (lambda: conn.set_deadline(None), lambda: conn.close_read()):
                try:
                    call()
                    say("no error")
                except gopoll.ForkedError as exc:
                    say("forked")
            for thing in (conn, peer):
                number = thing.fileno()
                os.fstat(number)
                thing.close()
                thing.close()
                try:
                    os.fstat(number)
                    say("still open")
                except OSError:
                    say("closed", thing.is_closed)

        kept = []
        try:
            gopoll.run(main)
        except gopoll.ForkedError:
            gopoll.run(child)
            os._exit(0)
        """
    )
    assert lines == ["forked"] * 6 + [
        "closed True",
        "closed True",
        "child ended with 0",
        "b'to the parent'",
    ]


def test_a_fork_in_a_plain_thread_leaves_the_run_of_another_thread_to_the_parent():
    lines = said(
        """
        async def in_child():
            await gopoll.sleep(0.001)
            return "child runs"

        async def main():
            def in_thread():
                if fork():
                    say(gopoll.current(), gopoll.run(in_child))
                    os._exit(0)

            await gopoll.blocking(in_thread)
            await gopoll.sleep(0.001)
            return "parent runs"

        say(gopoll.run(main))
        """
    )
    assert lines == ["None child runs", "child ended with 0", "parent runs"]


def test_what_is_parked_in_the_parent_never_wakes_in_the_child():
    lines = said(
        """
        async def reader(fd, name):
            try:
                say(name, "got", await fd.read(1))
            finally:
                say(name, "finally", os.getpid() == pid)

        async def main():
            gopoll.lock_os_thread()  # see FORKS
            async with await gopoll.listen("tcp", "127.0.0.1:0") as ln:
                conn, peer = await gopoll.dial("tcp", ln.addr), await ln.accept()
                async with conn, peer:
                    g = gopoll.go(reader, conn, "parked")
                    await parked(g)
                    if fork():
                        await gopoll.gosched()
                    await peer.write(b"x")
                    await g

        pid = os.getpid()
        try:
            gopoll.run(main)
        except gopoll.ForkedError:
            async def other():
                await gopoll.sleep(0.01)
            gopoll.run(other)
            os._exit(0)
        """
    )
    assert lines == ["child ended with 0", "parked got b'x'", "parked finally True"]


def test_goroutines_that_were_runnable_at_the_fork_are_not_run_in_the_child():
    """A9: what belongs to the parent is leaked in the child, not run, finally blocks included."""
    lines = said(
        """
        async def worker():
            try:
                while True:
                    await gopoll.gosched()
            finally:
                say("finally in the parent:", os.getpid() == pid)

        async def main():
            gopoll.lock_os_thread()  # see FORKS
            gopoll.go(worker)
            gopoll.go(worker)
            await gopoll.gosched()
            if fork():
                await gopoll.gosched()

        def child():
            try:
                gopoll.run(main, procs=1)
            except gopoll.ForkedError:
                return True

        pid = os.getpid()
        if child():
            import gc
            gc.collect()
            os._exit(0)
        """
    )
    assert lines == ["child ended with 0", *["finally in the parent: True"] * 2]


def test_signal_handling_is_the_childs_own_after_forked_error():
    lines = said(
        """
        import signal

        async def main():
            if fork():
                await gopoll.gosched()
            os.kill(os.getpid(), signal.SIGINT)
            await gopoll.sleep(60)

        async def in_child():
            os.kill(os.getpid(), signal.SIGINT)
            await gopoll.sleep(60)

        try:
            gopoll.run(main)
        except gopoll.ForkedError:
            say(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
            try:
                gopoll.run(in_child)
            except KeyboardInterrupt:
                say("child interrupted")
            os._exit(0)
        except KeyboardInterrupt:
            say("parent interrupted")
        """
    )
    assert lines == ["True", "child interrupted", "child ended with 0", "parent interrupted"]


def test_subprocesses_are_not_concerned():
    lines = said(
        """
        import subprocess

        async def main():
            reader = gopoll.go(gopoll.sleep, 3600)
            await parked(reader)
            for _ in range(3):
                out = await gopoll.blocking(
                    subprocess.run, [sys.executable, "-c", "print(1)"], 0, None, None,
                    subprocess.PIPE)
                say(out.stdout)
            os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
            await gopoll.sleep(0.001)

        gopoll.run(main)
        """
    )
    assert lines == ["b'1\\n'"] * 3


def test_what_lost_threads_held_is_destroyed_without_the_locks_they_may_have_held(probe):
    """A9: the interpreter of the child does that before any fork handler has run."""
    lines = said(
        f"""
sys.path.insert(0, {os.path.dirname(probe.__file__)!r})
import _probe, signal
from gopoll.runtime._sched import current_poller

async def main():
    gopoll.lock_os_thread()
    poller, mine = current_poller(), threading.local()
    ready, over = threading.Event(), threading.Event()
    far = time.monotonic_ns() + 3600 * 10**9
    box = [poller.call_at_ns(far, print), gopoll.sleep(3600), await gopoll.listen("tcp", "")]
    box[2].set_deadline(time.time() + 3600)

    def holds():
        mine.things = [box.pop() for _ in range(3)]
        ready.set()
        over.wait()

    thread = threading.Thread(target=holds)
    thread.start()
    ready.wait()
    server = _probe.Server.of(poller)
    server.lock_timers()
    pid = os.fork()
    if pid == 0:
        say("child")
        os._exit(0)
    server.unlock_timers()
    end = time.monotonic() + 20
    while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
        await gopoll.sleep(0.001)
    say("ended with", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    over.set()
    thread.join()

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    gopoll.run(main)
"""
    )
    assert lines == ["child", "ended with 0"]


FORKS_AND_GOES_ON = {
    "a signal handler": (
        "signal.signal(signal.SIGUSR1, lambda *args: forks())\n"
        "    threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGUSR1)).start()"
    ),
    "a stall hook": "gopoll.on_stall(lambda stall: forks(), 0.03)\n    in_slice()",
    "a function given to blocking()": "await gopoll.blocking(forks)",
}


@pytest.mark.parametrize("options", ["procs=1", "procs=2", "handoff=False"])
@pytest.mark.parametrize("where", FORKS_AND_GOES_ON)
def test_a_child_that_just_goes_on_ends_with_a_clear_error(where, options):
    """Nobody there runs the goroutines, and nobody waits for them for ever."""
    lines = said(
        f"""
import signal

def forks():
    if not pids:
        pids.append(os.fork())
        if pids[0] == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

def in_slice():
    while not pids:
        time.sleep(0.01)

async def main():
    {FORKS_AND_GOES_ON[where]}
    while not pids or pids[0] == 0:
        await gopoll.sleep(0.001)
    say("ended with", os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]))

pids = []
try:
    gopoll.run(main, {options})
except gopoll.ForkedError:
    os._exit(1)
"""
    )
    assert lines == ["ended with 1"]


@pytest.mark.parametrize("options", ["procs=1", "procs=2"])
def test_a_child_that_leaves_a_system_call_gets_forked_error(options):
    """It waited for ever for a P, which somebody has taken: nobody there gives one back."""
    lines = said(
        f"""
async def busy():
    while True:
        n[0] += 1
        await gopoll.gosched()

async def main():
    busier = [gopoll.go(busy) for _ in range(2)]
    try:
        with gopoll.syscall():
            while n[0] < 10:
                time.sleep(0.001)
            pid = os.fork()
    except gopoll.ForkedError:
        os._exit(5)
    if pid == 0:
        os._exit(6)
    for g in busier:
        g.cancel()
    say("ended with", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

n = [0]
gopoll.run(main, {options})
"""
    )
    assert lines == ["ended with 5"]


@pytest.mark.parametrize("procs", [1, 2])
def test_who_wakes_a_goroutine_of_the_parent_in_the_child_wakes_nobody(procs):
    """A9: a channel, a WaitGroup and a Mutex know who waits; the child has nobody to run that."""
    lines = said(
        f"""
        async def receives(ch):
            say("got", await ch.recv(), os.getpid() == parent)

        async def waits(wg):
            await wg.wait()
            say("waited", os.getpid() == parent)

        async def locks(mutex):
            async with mutex:
                say("locked", os.getpid() == parent)

        async def main():
            gopoll.lock_os_thread()
            ch, wg, mutex = gopoll.Chan(), gopoll.WaitGroup(), gopoll.Mutex()
            wg.add(1)
            await mutex.lock()
            gs = [gopoll.go(receives, ch), gopoll.go(waits, wg), gopoll.go(locks, mutex)]
            await parked(*gs)
            if fork():
                ch.try_send(1)
                wg.done()
                mutex.unlock()
                time.sleep(0.1)  # whoever ran them would do it now
                os._exit(0)
            ch.try_send(2)
            wg.done()
            mutex.unlock()
            for g in gs:
                await g

        parent = os.getpid()
        gopoll.run(main, procs={procs})
        """
    )
    assert lines[0] == "child ended with 0"
    assert sorted(lines[1:]) == ["got 2 True", "locked True", "waited True"]
