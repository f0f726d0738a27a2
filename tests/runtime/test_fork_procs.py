"""fork() in a program of many Ps and threads, by whatever means a Python program forks.

As test_fork.py: each program is a process of its own; parent and child write to one pipe.
"""

import pytest

from helpers.child import run_python
from runtime.tools import FORKS, said

# Several Ms are live: some run goroutines, some sleep in syscall(), one waits in the network.
BUSY = """
async def talk(name):
    async with await gopoll.listen("tcp", "127.0.0.1:0") as ln:
        async with await gopoll.dial("tcp", ln.addr) as conn, await ln.accept() as peer:
            reader = gopoll.go(peer.read, 4)
            await parked(reader)
            async with gopoll.timeout(60):
                await conn.write(b"ping")
                say(name, await reader, await gopoll.blocking(len, "abc"))

class Load:
    "Goroutines on all Ps and parked connections, which go on until the end."

    async def __aenter__(self):
        self.over, self.counts = [], [0] * 4
        self.ln = await gopoll.listen("tcp", "127.0.0.1:0")
        self.conns = [await gopoll.dial("tcp", self.ln.addr) for _ in range(3)]
        self.peers = [await self.ln.accept() for _ in range(3)]
        self.readers = [gopoll.go(peer.read, 1) for peer in self.peers]
        self.gs = [gopoll.go(self.spin, i) for i in range(4)] + [gopoll.go(self.block)]
        await parked(*self.readers)
        while not all(self.counts):
            await gopoll.sleep(0.001)

    async def spin(self, i):
        while not self.over:
            self.counts[i] += 1
            await (gopoll.sleep(0.0005) if self.counts[i] % 50 == 0 else gopoll.gosched())

    async def block(self):
        while not self.over:
            with gopoll.syscall():
                time.sleep(0.002)

    async def __aexit__(self, *exc):
        before = list(self.counts)
        while any(now == was for now, was in zip(self.counts, before)):
            await gopoll.sleep(0.001)
        self.over.append(1)
        for conn, reader in zip(self.conns, self.readers):
            await conn.write(b"x")
            assert await reader == b"x"
        for g in self.gs:
            await g
        for conn in (*self.conns, *self.peers, self.ln):
            conn.close()

def own_run():
    "What a child does: a run of its own, twice; nothing of the parent's is left in it."
    gopoll.run(talk, "child", procs=4)
    gopoll.run(talk, "child")
    say(threading.active_count(), "thread")
"""

CHILD = ["child b'ping' 3", "child b'ping' 3", "1 thread"]
PARENT = "parent b'ping' 3"


def test_in_a_goroutine_on_the_main_thread_the_child_begins_again():
    lines = said(
        BUSY
        + """
async def main():
    gopoll.lock_os_thread()  # to the main thread, where run() was called
    async with Load():
        for _ in range(3):
            if fork():
                await gopoll.sleep(0)
        await talk("parent")

try:
    gopoll.run(main, procs=4)
except gopoll.ForkedError:
    own_run()
    os._exit(0)
"""
    )
    assert lines == [*CHILD, "child ended with 0"] * 3 + [PARENT]


def test_in_a_goroutine_on_another_thread_the_child_ends_with_a_clear_error():
    """run() is not under that thread: there is nobody who could catch it."""
    done = run_python(
        FORKS
        + BUSY
        + """
async def forks():
    gopoll.lock_os_thread()
    assert threading.current_thread() is not threading.main_thread()
    if fork():
        await gopoll.sleep(0)
        say("never")
    gopoll.unlock_os_thread()

async def main():
    gopoll.lock_os_thread()
    async with Load():
        await gopoll.go(forks)
        await talk("parent")

gopoll.run(main, procs=4)
"""
    )
    assert done.stdout.splitlines() == ["child ended with 1", PARENT]
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == (
        "gopoll.errors.ForkedError: gopoll.run() was forked: goroutines stay with the parent; "
        "call os._exit or start a new run() in the child"
    )


@pytest.mark.parametrize("how", ["a plain thread", "blocking()", "syscall()"])
def test_from_a_thread_beside_it_the_child_begins_again(how):
    ways = {
        "a plain thread": "t = threading.Thread(target=forks)\n        t.start()\n"
        "        await gopoll.blocking(t.join)",
        "blocking()": "await gopoll.blocking(forks)",
        "syscall()": "with gopoll.syscall():\n            forks()",
    }
    lines = said(
        BUSY
        + f"""
def forks():
    if fork():
        own_run()
        os._exit(0)

async def main():
    async with Load():
        {ways[how]}
        await talk("parent")

gopoll.run(main, procs=4)
"""
    )
    assert lines == [*CHILD, "child ended with 0", PARENT]


@pytest.mark.parametrize("where", ["target()", "await gopoll.blocking(target)"])
def test_multiprocessing_by_fork(where):
    lines = said(
        BUSY
        + f"""
import multiprocessing

def target():
    process = multiprocessing.get_context("fork").Process(target=own_run)
    process.start()
    process.join()
    say("child ended with", process.exitcode)

async def main():
    async with Load():
        {where}
        await talk("parent")

gopoll.run(main, procs=4)
"""
    )
    assert lines == [*CHILD, "child ended with 0", PARENT]


def test_a_pool_of_processes_by_fork():
    lines = said(
        BUSY
        + """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

async def add(a, b):
    await gopoll.sleep(0.0005)
    return a + b

def in_child(n):
    return gopoll.run(add, n, 1, procs=2)

def work():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        return list(pool.map(in_child, range(4)))

async def main():
    async with Load():
        say(await gopoll.blocking(work))
        await talk("parent")

gopoll.run(main, procs=4)
"""
    )
    assert lines == ["[1, 2, 3, 4]", PARENT]


@pytest.mark.parametrize("where", ["target()", "await gopoll.blocking(target)"])
def test_a_subprocess_with_a_preexec_fn(where):
    """It runs Python in the child, between fork and exec, with all our hooks."""
    lines = said(
        BUSY
        + f"""
import subprocess

def before():
    os.setsid()
    say("before exec", gopoll.current() is None)

def target():
    code = "import os; print(os.getsid(0) == os.getpid())"
    done = subprocess.run([sys.executable, "-c", code], preexec_fn=before, stdout=-1)
    say(done.returncode, done.stdout)

async def main():
    async with Load():
        {where}
        await talk("parent")

gopoll.run(main, procs=4)
"""
    )
    here = where == "target()"  # the copy of the goroutine goes on, until its next park
    assert lines == [f"0 b'before exec {not here}\\nTrue\\n'", PARENT]


def test_a_child_that_only_exits_disturbs_nobody():
    """sys.exit in the child's goroutine, and os._exit: no clean-up of the parent's runs there."""
    lines = said(
        BUSY
        + """
async def forks(exit):
    try:
        if fork():
            exit(7)
    finally:
        say("finally in", "the parent" if os.getpid() == pid else "the child")

async def main():
    gopoll.lock_os_thread()
    async with Load():
        await forks(os._exit)
        await forks(sys.exit)
        await talk("parent")

pid = os.getpid()
try:
    gopoll.run(main, procs=4)
except gopoll.ForkedError:
    say("forked")
    os._exit(8)
"""
    )
    assert lines[:2] == ["child ended with 7", "finally in the parent"]
    assert lines[2:] == [
        "finally in the child",
        "forked",
        "child ended with 8",
        "finally in the parent",
        PARENT,
    ]
