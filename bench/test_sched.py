"""What the scheduler costs: switch, spawn and join, a wake-up, timers, memory, two Ps.

Run by `pytest bench --benchmark-only`, with the extra [bench]: docs/benchmarks.md.
"""

import gc
import os
import statistics
import subprocess
import sys
import threading
import time

import pytest

import gopoll
from bench.micro import tasks
from bench.micro.contest import Group, contestants

GROUPS = [
    Group("switch", f"a switch, {tasks.TASKS} tasks in turn", "switch", 20_000, tasks.SWITCH),
    Group("spawn", "spawn and join", "task", 5000, tasks.SPAWN),
    Group("channel", "wake another and wait for it", "round trip", 5000, tasks.CHANNEL),
    Group("timers", f"{tasks.TIMERS:,} timers, moved later", "move", 30_000, tasks.TIMER),
]


@contestants(GROUPS)
def test_sched(group, side, contest):
    contest(group, side)


# -- memory ----------------------------------------------------------------------------------------

PARKED = 100_000

MEMORY = """
import asyncio, gc, sys
import gopoll

N = int(sys.argv[2])

def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

def report(before):
    gc.collect()
    print((rss() - before) / N)

async def gopoll_sleep():
    before = rss()
    gs = [gopoll.go(gopoll.sleep, 3600) for _ in range(N)]
    await gopoll.sleep(0.01)
    report(before)
    for g in gs:
        g.cancel()

async def gopoll_chan():
    before = rss()
    chan = gopoll.Chan()
    async def wait():
        await chan.recv()
    gs = [gopoll.go(wait) for _ in range(N)]
    await gopoll.sleep(0.01)
    report(before)
    for g in gs:
        g.cancel()

async def asyncio_sleep():
    before = rss()
    tasks = [asyncio.create_task(asyncio.sleep(3600)) for _ in range(N)]
    await asyncio.sleep(0.01)
    report(before)
    for task in tasks:
        task.cancel()

async def asyncio_queue():
    before = rss()
    queue = asyncio.Queue()
    async def wait():
        await queue.get()
    tasks = [asyncio.create_task(wait()) for _ in range(N)]
    await asyncio.sleep(0.01)
    report(before)
    for task in tasks:
        task.cancel()

main = globals()[sys.argv[1]]
gopoll.run(main, procs=1) if sys.argv[1].startswith("gopoll") else asyncio.run(main())
"""


@pytest.mark.parametrize("side", ["gopoll_sleep", "asyncio_sleep", "gopoll_chan", "asyncio_queue"])
def test_sched_bytes_per_parked_goroutine(side, benchmark):
    """RSS per goroutine or task, of PARKED that sleep or wait for a channel or queue."""
    benchmark.group = f"{PARKED} parked: bytes each (the time means nothing)"
    found = []
    number = PARKED if benchmark.enabled else 100

    def once():
        command = [sys.executable, "-c", MEMORY, side, str(number)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(float(done.stdout))

    benchmark.pedantic(once, rounds=3)
    benchmark.extra_info["bytes_per_goroutine"] = round(sorted(found)[len(found) // 2])


# -- two Ps ----------------------------------------------------------------------------------------


def compute(n):
    """Compute something in Python."""
    total = 0
    for i in range(n):
        total += i * i % 7
    return total


@pytest.mark.skipif(
    getattr(sys, "_is_gil_enabled", lambda: True)() or len(os.sched_getaffinity(0)) < 2,
    reason="two Ps gain nothing with the GIL or on one CPU",
)
def test_sched_two_ps_finish_more_than_one(benchmark):
    """CPU-bound goroutines, no network: two Ps are to finish 1.7 times as much as one.

    One P and two take turns, and one plain thread and two, which show what the machine has to give:
    the speed of its CPUs changes by half within seconds. What counts is the ratio within a turn.
    """
    benchmark.group = "CPU-bound goroutines on two Ps"
    units = 20 if benchmark.enabled else 1
    ratios = {"ps": [], "threads": []}

    async def worker():
        for _ in range(units):
            compute(20_000)
            await gopoll.gosched()

    async def main():
        for g in [gopoll.go(worker) for _ in range(8)]:
            await g

    def on_ps(number):
        gopoll.run(main, procs=number)

    def work():
        for _ in range(8 * units // 2):
            compute(20_000)

    def on_threads(number):
        for _ in range(2 // number):
            threads = [threading.Thread(target=work) for _ in range(number)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def timed(fn, number):
        began = time.perf_counter()
        fn(number)
        return time.perf_counter() - began

    def turn():
        ratios["ps"].append(timed(on_ps, 1) / timed(on_ps, 2))
        ratios["threads"].append(timed(on_threads, 1) / timed(on_threads, 2))

    gc.collect()
    benchmark.pedantic(turn, rounds=21)
    for name, found in ratios.items():
        benchmark.extra_info[f"work_per_work_of_one_{name}"] = round(statistics.median(found), 2)
