"""StallWatch: a loop that is nobody's goroutine, told apart when it hangs."""

import hashlib
import threading
import time

import pytest

import gopoll
from gopoll import StallWatch, on_stall
from runtime.tools import until, voluntary_switches

BLOCK = bytes(1 << 26)
STACK_OF = {"python": "compute", "c_nogil": "in_c"}


@pytest.fixture
def heard():
    """The stalls over 20 ms."""
    stalls = []
    stop = on_stall(stalls.append, threshold=0.02)
    yield stalls
    stop()


def compute(done):
    while not done():
        sum(range(100))


def in_c(done):
    while not done():
        hashlib.sha256(BLOCK).digest()  # one call lasts longer than the threshold


def is_told(heard, kind):
    """Whether something has been told, all of it as *kind*."""
    kinds = {stall.kind for stall in heard}
    assert kinds <= {kind}
    return bool(kinds)


def in_thread(fn):
    """Run fn() in a thread of its own."""
    errors = []

    def body():
        try:
            fn()
        except BaseException as err:
            errors.append(err)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


@pytest.mark.parametrize(("kind", "work"), [("python", compute), ("c_nogil", in_c)])
def test_a_stalled_loop_is_reported_once_with_kind_and_stack(heard, kind, work):
    with StallWatch("my loop") as watch:
        end = time.monotonic() + 60
        while not is_told(heard, kind) and time.monotonic() < end:
            told = len(heard)
            watch.tick()
            work(lambda told=told: len(heard) > told)
            watch.tick()
    assert is_told(heard, kind)
    for stall in heard:
        assert (stall.goroutine, stall.name) == (0, "my loop")
        assert stall.duration >= 0.02
        assert STACK_OF[kind] in [frame.name for frame in stall.stack]
        assert stall.stack[-1].filename == __file__
    assert watch.stalls == len(heard)


def test_only_the_thread_of_the_loop_is_looked_at(heard):
    """A bystander computes all the while, and the main thread as well."""
    over = threading.Event()
    bystander = threading.Thread(target=compute, args=(over.is_set,))
    bystander.start()

    def loop():
        with StallWatch() as watch:
            # Without a CPU the bystander may hold the GIL so long that no stack can be read.
            while not any(stall.stack for stall in heard):
                told = len(heard)
                watch.tick()
                in_c(lambda told=told: len(heard) > told)

    in_thread(loop)
    over.set()
    bystander.join()
    stall = next(stall for stall in heard if stall.stack)
    assert "loop" in [frame.name for frame in stall.stack]
    assert {frame.name for frame in stall.stack}.isdisjoint({"compute", "in_thread"})


def test_work_that_is_cut_up_by_ticks_and_idle_time_is_no_stall():
    stalls, longest = [], 0
    # Longer than a busy machine keeps a thread from its CPU between two ticks, mostly.
    stop = on_stall(stalls.append, threshold=0.4)
    with StallWatch() as watch:
        ends = (last := time.monotonic()) + 0.6
        while last < ends:
            watch.tick()
            longest = max(longest, time.monotonic() - last)
            last = time.monotonic()
        watch.idle()
        with pytest.raises(TimeoutError):
            gopoll.run(never, procs=1)  # the loop waits for long
    stop()
    if longest < 0.3:
        assert watch.stalls == 0
        assert stalls == []


async def never():
    async with gopoll.timeout(0.6):
        await gopoll.Chan(0).recv()


def test_each_piece_of_work_is_reported_anew(heard):
    with StallWatch() as watch:
        for n in (1, 2, 3):
            watch.tick()
            compute(lambda n=n: len(heard) == n)
            watch.idle()
    assert len(heard) == 3


def test_stalls_are_counted_without_a_hook():
    with StallWatch() as watch:
        watch.tick()
        compute(lambda: watch.stalls)
    assert watch.stalls == 1


def test_an_idle_loop_leaves_the_watcher_asleep():
    with StallWatch() as watch:
        watch.tick()
        watch.idle()
        thread = next(t for t in threading.enumerate() if t.name == "gopoll-stallwatch")
        seen = []

        def still():  # for 100 looks a millisecond apart
            seen.append(voluntary_switches(thread))
            return len(seen) > 100 and len(set(seen[-100:])) == 1

        until(still)


def test_a_loop_that_wakes_it_is_never_left_unwatched(heard):
    """S5: the watcher falls asleep just when the loop begins to work."""
    with StallWatch() as watch:
        for _ in range(300):
            for _ in range(50):
                watch.tick()
                watch.idle()
        watch.tick()
        compute(lambda: heard)
    assert len(heard) == 1


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
def test_a_hook_that_raises_is_shown_and_the_watch_goes_on(capsys, heard, kind):
    def fail(stall):
        raise kind("not today")

    stop = on_stall(fail, threshold=0.01)
    with StallWatch() as watch:
        for n in (1, 2):
            watch.tick()
            compute(lambda n=n: len(heard) == n)
    stop()
    assert capsys.readouterr().err.count(f"{kind.__name__}: not today") == 2


def test_a_hook_may_close_the_watch(heard):
    watch = StallWatch()
    closed = threading.Event()
    stop = on_stall(lambda stall: (watch.close(), closed.set()), threshold=0.01)
    watch.tick()
    compute(closed.is_set)
    stop()
    watch.close()


def test_another_thread_may_not_tick():
    with StallWatch("mine") as watch:
        for call in (watch.tick, watch.idle):
            with pytest.raises(RuntimeError, match=r"^stall watch 'mine': tick\(\) and idle"):
                in_thread(call)


def test_closing_again_does_nothing_and_ends_the_thread():
    watch = StallWatch()
    in_thread(watch.close)
    watch.close()
    assert "gopoll-stallwatch" not in [t.name for t in threading.enumerate()]
    for call in (watch.tick, watch.idle):
        with pytest.raises(RuntimeError, match=r"^stall watch 'loop' is closed: make another$"):
            call()


def test_the_loop_need_not_know_that_another_thread_has_closed_its_watch():
    with StallWatch() as watch:
        in_thread(watch.close)
        watch.tick()
        watch.idle()
    with pytest.raises(RuntimeError, match=r"^stall watch 'loop' is closed: make another$"):
        watch.tick()


def test_the_name_is_a_string():
    with pytest.raises(TypeError, match="name"):
        StallWatch(3)
    with pytest.raises(TypeError, match="name"):
        StallWatch(None)
