"""What the scheduler costs: switch, spawn and join, a trip over channels, timers, memory, two Ps.

Run by `pytest bench/ --benchmark-only`, with the extra [bench]; uvloop, rloop and trio stand beside
where they are installed. Each side of a group does the same in one run. A round starts a whole
scheduler or loop; what it does there is long enough for that not to show.
"""

import asyncio
import gc
import importlib.util
import os
import statistics
import subprocess
import sys
import threading
import time

import pytest

import gopoll

pytestmark = [
    pytest.mark.benchmark(disable_gc=True),
    # rloop leaves its sockets to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

TASKS = 100
SWITCHES = 200
SPAWNS = 5000
TRIPS = 5000
TIMERS = 10_000
MOVES = 100
PARKED = 100_000


def there(name):
    """Report whether a rival is installed."""
    return importlib.util.find_spec(name) is not None


def on_asyncio(main):
    """Run main() on asyncio's own loop."""
    asyncio.run(main())


def on_uvloop(main):
    """Run main() on uvloop."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def on_rloop(main):
    """Run main() on rloop."""
    import rloop

    with asyncio.Runner(loop_factory=rloop.new_event_loop) as runner:
        runner.run(main())


def name_of(side):
    """Return the name of a side, for the table."""
    return side if isinstance(side, str) else "gopoll" if side is None else side.__name__[3:]


LOOPS = [on_asyncio] + [on_uvloop] * there("uvloop") + [on_rloop] * there("rloop")


# -- a switch --------------------------------------------------------------------------------------


def gopoll_switches():
    """Have TASKS goroutines yield SWITCHES times each."""

    async def turns():
        for _ in range(SWITCHES):
            await gopoll.gosched()

    async def main():
        for g in [gopoll.go(turns) for _ in range(TASKS)]:
            await g

    gopoll.run(main, procs=1)


async def asyncio_switches():
    """The same with asyncio.sleep(0)."""

    async def turns():
        for _ in range(SWITCHES):
            await asyncio.sleep(0)

    for task in [asyncio.create_task(turns()) for _ in range(TASKS)]:
        await task


def trio_switches():
    """The same with trio's cheapest checkpoint."""
    import trio

    async def turns():
        for _ in range(SWITCHES):
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def main():
        async with trio.open_nursery() as nursery:
            for _ in range(TASKS):
                nursery.start_soon(turns)

    trio.run(main)


@pytest.mark.parametrize("side", [None, *LOOPS, *["trio"] * there("trio")], ids=name_of)
def test_sched_ns_per_switch(side, measure, benchmark):
    benchmark.group = f"a switch, {TASKS} of them: ns"
    if side is None:
        function = gopoll_switches
    elif side == "trio":
        function = trio_switches
    else:

        def function():
            side(asyncio_switches)

    measure(function, per_round=TASKS * SWITCHES, unit="switch", rounds=15)


# -- spawn and join --------------------------------------------------------------------------------


async def nothing():
    """End at once."""


def gopoll_spawns():
    """Start a goroutine and await it, SPAWNS times."""

    async def main():
        for _ in range(SPAWNS):
            await gopoll.go(nothing)

    gopoll.run(main, procs=1)


async def asyncio_spawns():
    """Start a task and await it."""
    for _ in range(SPAWNS):
        await asyncio.create_task(nothing())


@pytest.mark.parametrize("side", [None, *LOOPS], ids=name_of)
def test_sched_ns_per_spawn_and_join(side, measure, benchmark):
    benchmark.group = "spawn and join: ns"
    function = gopoll_spawns if side is None else lambda: side(asyncio_spawns)
    measure(function, per_round=SPAWNS, unit="spawn", rounds=15)


# -- a trip over channels --------------------------------------------------------------------------


def gopoll_trips():
    """Send a value to a goroutine that waits for it and wait for the answer, TRIPS times."""

    async def answer(there, back):
        async for value in there:
            await back.send(value)

    async def main():
        out, back = gopoll.Chan(), gopoll.Chan()
        g = gopoll.go(answer, out, back)
        for i in range(TRIPS):
            await out.send(i)
            await back.recv()
        out.close()
        await g

    gopoll.run(main, procs=1)


async def asyncio_trips():
    """The same with futures, asyncio's cheapest way."""
    loop = asyncio.get_running_loop()
    box = [loop.create_future(), loop.create_future()]

    async def answer():
        for _ in range(TRIPS):
            await box[0]
            box[0] = loop.create_future()
            box[1].set_result(None)

    task = loop.create_task(answer())
    await asyncio.sleep(0)
    for _ in range(TRIPS):
        box[0].set_result(None)
        await box[1]
        box[1] = loop.create_future()
    await task


@pytest.mark.parametrize("side", [None, *LOOPS], ids=name_of)
def test_sched_ns_per_round_trip(side, measure, benchmark):
    benchmark.group = "wake another and wait for it: ns"
    function = gopoll_trips if side is None else lambda: side(asyncio_trips)
    measure(function, per_round=TRIPS, unit="trip", rounds=15)


# -- timers ----------------------------------------------------------------------------------------


def gopoll_timers():
    """Make TIMERS timers and move each MOVES times to later."""
    poller = gopoll.Poller()
    begin = time.monotonic_ns() + 3600 * 10**9
    timers = [poller.call_at_ns(begin, None) for _ in range(TIMERS)]
    for i in range(MOVES):
        when = begin + i * 10**6
        for timer in timers:
            timer.move(when)
    for timer in timers:
        timer.stop()
    poller.close()


async def asyncio_timers():
    """The same with call_later: cancel and make anew."""
    loop = asyncio.get_running_loop()

    def ring():
        pass

    timers = [loop.call_later(3600, ring) for _ in range(TIMERS)]
    for i in range(MOVES):
        for k, timer in enumerate(timers):
            timer.cancel()
            timers[k] = loop.call_later(3600 + i / 1000, ring)
    for timer in timers:
        timer.cancel()


@pytest.mark.parametrize("side", [None, *LOOPS[:2]], ids=name_of)
def test_sched_ns_per_timer_move(side, measure, benchmark):
    benchmark.group = f"{TIMERS} timers, each moved {MOVES} times: ns a move"
    function = gopoll_timers if side is None else lambda: side(asyncio_timers)
    measure(function, per_round=TIMERS * MOVES, unit="move", rounds=3)


# -- memory ----------------------------------------------------------------------------------------

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
