"""The leak guard: after every test, descriptors, threads, timers and goroutines are back."""

import gc
import os
import sys
import threading
import warnings

import pytest

import gopoll
from plugins.hang import WATCH

FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()


def open_fds():
    """Return {descriptor: what it is} of this process."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass  # the one that listdir itself had open
    return found


def pytest_collection_finish():
    """Set aside what is there before the first test: the full collection after each is for its own
    garbage, not for 50,000 objects of the test runner (they took a third of the whole run).
    """
    gc.collect()
    gc.freeze()


def collect():
    """Collect, and set aside what lives on: reports and caches, with no descriptor or thread."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def leak_guard(request):
    """Fail a test that leaves a descriptor or a thread behind (marker `leaks` lifts it)."""
    if request.node.get_closest_marker("leaks"):
        yield
        gc.collect()  # not in the next one
        return
    fds, threads = open_fds(), set(threading.enumerate())
    yield
    # Without a GIL the collector goes through all there is, set aside or not: 5,000 times that was
    # half of the whole run. There it is for those alone who have left something.
    if not FREE_THREADED or open_fds().keys() - fds or set(threading.enumerate()) - threads:
        collect()
    for thread in set(threading.enumerate()) - threads:
        thread.join(30)
    left = [t.name for t in threading.enumerate() if t not in threads]
    assert not left, f"threads left behind: {left}"
    more = {fd: what for fd, what in open_fds().items() if fd not in fds}
    assert not more, f"descriptors left behind: {more}"


async def _guarded(main, args):
    before = gopoll.stats()
    with WATCH.watched():
        result = await main(*args)
    for _ in range(2000):  # with many Ps, others may still be in their last slice
        after = gopoll.stats()
        if after.goroutines == before.goroutines and after.timers == before.timers:
            break
        await gopoll.sleep(0.001)
    after = gopoll.stats()
    assert after.goroutines == before.goroutines, "goroutines left behind"
    assert after.descriptors == before.descriptors, "registered descriptors left behind"
    assert after.timers == before.timers, "timers left behind"
    return result


@pytest.fixture
def run():
    """Return gopoll.run that also sees whether main leaves goroutines, pollDescs or timers."""

    def run(main, *args, **options):
        return gopoll.run(_guarded(main, args), **options)

    return run


async def wait_until(condition, *, seconds=40):
    """Let the others run until condition() is true. For what no event tells."""
    async with gopoll.timeout(seconds):
        while not condition():
            await gopoll.sleep(0.0005)


async def wait_parked(*goroutines, seconds=40):
    """Let the others run until each of *goroutines* is parked in something."""
    await wait_until(lambda: all(g.state == "waiting" for g in goroutines), seconds=seconds)
