"""Guest and Host: a scheduler without threads, driven by hand, by poll(2) and by gevent."""

import gc
import os
import select
import subprocess
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path

import pytest

import gopoll
from embed.hosts import Recorder, Steps, in_thread, need
from gopoll.embed import Guest, Host
from gopoll.runtime._frames import have_gil
from helpers.child import run_forking

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "gevent_host.py"


@pytest.fixture
def guest():
    with Guest() as guest:
        yield guest


def is_readable(guest, timeout=0):
    poll = select.poll()
    poll.register(guest.fileno(), select.POLLIN)
    return bool(poll.poll(timeout))


def settle(guest):
    """Run until nothing is left."""
    while is_readable(guest):
        guest.run_nowait()


def drive(guest, *goroutines):
    """Be the host that has the descriptor alone, until *goroutines* have ended."""
    while not all(g.done for g in goroutines):
        assert is_readable(guest, 20_000), "the host sleeps over it"
        guest.run_nowait()
    return [g.result() for g in goroutines]


async def nap(seconds=0.0):
    await gopoll.sleep(seconds)
    return seconds


async def spin():
    while True:
        await gopoll.gosched()


def test_the_descriptor_alone_drives_timers_channels_contexts_groups_and_calls(guest):
    async def pipeline():
        chan, done = gopoll.Chan(), gopoll.Chan()

        async def produce():
            for n in range(100):
                await chan.send(n)
            chan.close()

        async def consume():
            await done.send(sum([n async for n in chan]))

        async with gopoll.Group() as group:
            group.go(produce)
            group.go(consume)
            total = await done.recv()
        with pytest.raises(gopoll.DeadlineExceeded):
            async with gopoll.timeout(0.002):
                await gopoll.sleep(3600)
        return total, await gopoll.blocking(threading.get_ident)

    begun = time.monotonic()
    g, napper = gopoll.go(pipeline), gopoll.go(nap, 0.01)
    (total, ident), _ = drive(guest, g, napper)
    assert total == 4950
    assert ident != threading.get_ident()
    assert time.monotonic() - begun >= 0.01


def test_with_nothing_left_the_descriptor_says_nothing(guest):
    """P9."""
    settle(guest)
    assert not is_readable(guest)
    guest.wake()
    assert is_readable(guest)
    assert guest.run_nowait() == 0
    assert not is_readable(guest)
    g = gopoll.go(nap, 3600)
    assert is_readable(guest)
    guest.run_nowait()
    assert g.state == "waiting"
    assert not is_readable(guest), "a timer of an hour is set, and nothing else"
    g.cancel()
    assert is_readable(guest)
    guest.run_nowait()
    assert g.done
    assert not is_readable(guest)


def test_a_batch_is_bounded_and_what_is_left_is_told(guest):
    settle(guest)
    goroutines = [gopoll.go(spin) for _ in range(10)]
    for budget in (1, 7, 64, 200):
        assert guest.run_nowait(budget) == budget
        assert is_readable(guest)
        assert guest.timeout_ns() == 0
    assert guest.run_nowait() == 64
    for g in goroutines:
        g.cancel()
    while any(not g.done for g in goroutines):
        guest.run_nowait()
    assert guest.run_nowait() == 0
    with pytest.raises(ValueError, match="budget 0 is below 1"):
        guest.run_nowait(0)


def test_goroutines_of_a_batch_take_turns(guest):
    ran = []

    async def work(name):
        while len(ran) < 60:
            ran.append(name)
            await gopoll.gosched()

    goroutines = [gopoll.go(work, n) for n in range(3)]
    drive(guest, *goroutines)
    assert [ran.count(n) for n in range(3)] == [20, 20, 20]


def test_the_network_is_looked_at_beside_goroutines_that_only_yield(guest):
    r, w = os.pipe2(os.O_NONBLOCK)
    fd = gopoll.open_fd(r)
    spinner = gopoll.go(spin)

    async def read():
        return await fd.read()

    g = gopoll.go(read)
    while g.state != "waiting":
        guest.run_nowait()
    os.write(w, b"x")
    for _ in range(10):
        guest.run_nowait()
    assert g.result() == b"x"
    spinner.cancel()
    fd.close()
    os.close(w)


def test_timeout_ns_is_the_time_to_the_next_deadline(guest):
    settle(guest)
    assert guest.timeout_ns() == -1
    g = gopoll.go(nap, 60)
    assert guest.timeout_ns() == 0
    settle(guest)
    assert 50e9 < guest.timeout_ns() <= 60e9
    g.cancel()
    settle(guest)
    assert guest.timeout_ns() == -1


def test_an_earlier_deadline_from_another_thread_is_seen(guest):
    """P8: the timerfd is set by the host's next turn, of which it is told."""
    settle(guest)
    ctx, cancel = gopoll.with_timeout(gopoll.background(), 3600)

    async def wait(ctx):
        await ctx.wait()

    g = gopoll.go(wait, ctx)
    settle(guest)

    def earlier():
        poller.call_at_ns(time.monotonic_ns() + 5_000_000, cancel)

    poller = guest._sched.poller
    thread = in_thread(earlier)
    drive(guest, g)
    thread.join()


def test_many_deadlines_at_once_are_all_kept(guest):
    """More than one poll hands out; the timerfd's edge comes once."""
    when = time.monotonic() + 0.005

    async def until():
        await gopoll.sleep(when - time.monotonic())

    drive(guest, *[gopoll.go(until) for _ in range(600)])


def test_wake_from_threads_and_signals_of_the_scheduler_are_coalesced(guest):
    settle(guest)
    threads = [in_thread(guest.wake) for _ in range(10)]
    for thread in threads:
        thread.join()
    assert is_readable(guest)
    guest.run_nowait()
    assert not is_readable(guest)


def test_plain_threads_wake_goroutines(guest):
    chan = gopoll.Chan()

    async def total():
        return sum([n async for n in chan])

    def send(n):
        for _ in range(200):
            chan.send_sync(n, timeout=20)

    g = gopoll.go(total)
    threads = [in_thread(send, n) for n in range(1, 4)]
    while any(t.is_alive() for t in threads):
        if is_readable(guest, 20):
            guest.run_nowait()
    chan.close()
    assert drive(guest, g) == [1200]
    for thread in threads:
        thread.join()


def test_it_belongs_to_its_thread_and_has_one_turn_at_a_time(guest):
    errors = []

    def elsewhere():
        for fn in (guest.run_nowait, guest.close, lambda: gopoll.go(nap)):
            try:
                fn()
            except RuntimeError as exc:
                errors.append(str(exc))

    in_thread(elsewhere).join()
    assert errors[0] == "a Guest belongs to the thread that made it: call run_nowait() there"
    assert errors[1] == "a Guest belongs to the thread that made it: call close() there"
    assert errors[2].startswith("no scheduler runs on this thread")
    with pytest.raises(RuntimeError, match="a guest is attached to this thread already"):
        Guest()
    with pytest.raises(RuntimeError, match="a guest is attached to this thread already"):
        gopoll.run(nap())

    async def inside(fn):
        with pytest.raises(RuntimeError, match="the guest is in a turn already"):
            fn()

    drive(guest, gopoll.go(inside, guest.run_nowait), gopoll.go(inside, guest.close))
    assert not guest.is_closed


def test_a_guest_beside_run_is_refused():
    async def main():
        with pytest.raises(RuntimeError, match=r"^gopoll\.run\(\) runs on this thread already"):
            Guest()

    gopoll.run(main)


@pytest.mark.parametrize("budget", ["x", 1.5, None, True])
def test_a_budget_is_an_int(guest, budget):
    with pytest.raises(TypeError, match=f"an int, and not {budget!r}$"):
        guest.run_nowait(budget)


def test_what_would_block_the_thread_is_refused(guest):
    g = gopoll.go(nap)
    with pytest.raises(RuntimeError, match=r"result\(\) would block the goroutines"):
        g.result()
    with pytest.raises(RuntimeError, match=r"recv_sync\(\) and send_sync\(\) would block"):
        gopoll.Chan().recv_sync()
    drive(guest, g)
    assert g.result() == 0.0


def test_without_a_host_nothing_can_be_awaited_outside_a_goroutine(guest):
    op = gopoll.Chan().recv()
    with pytest.raises(RuntimeError, match="would block outside a goroutine"):
        next(op.__await__())


def test_close_runs_goroutines_to_their_end():
    said = []

    async def work():
        try:
            await gopoll.sleep(3600)
        finally:
            async with gopoll.shield():
                await gopoll.sleep(0.005)
            said.append("cleaned up")

    async def generate():
        try:
            yield
        finally:
            await gopoll.sleep(0)
            said.append("generator closed")

    async def half():
        kept.append(generate())
        await anext(kept[0])

    kept = []
    guest = Guest()
    gopoll.go(work)
    gopoll.go(half)
    never = gopoll.go(work)
    guest.run_nowait(2)
    guest.close()
    assert guest.is_closed
    assert sorted(said) == ["cleaned up", "cleaned up", "generator closed"]
    assert never.done, "it has begun, and its first wait was its last"
    guest.close()
    with pytest.raises(RuntimeError, match="the guest is closed"):
        guest.run_nowait()
    assert gopoll.run(nap()) == 0.0, "the thread is free again"


def test_an_error_that_nobody_awaits_is_raised_by_run_nowait_once():
    async def bad():
        raise ValueError("unseen")

    guest = Guest()
    other = gopoll.go(nap, 3600)
    gopoll.go(bad)
    with pytest.raises(ValueError, match="unseen") as caught:
        guest.run_nowait()
    assert traceback.extract_tb(caught.tb)[-1].name == "bad"
    while not other.done:
        guest.run_nowait()
    guest.close()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_is_raised_though_a_handle_is_held(kind):
    async def leave():
        raise kind(3)

    guest = Guest()
    other, g = gopoll.go(nap, 3600), gopoll.go(leave)
    with pytest.raises(kind):
        guest.run_nowait()
    while not other.done:
        guest.run_nowait()
    guest.close()
    with pytest.raises(kind):
        g.result()


def test_what_ends_a_program_goes_to_who_awaits_it(guest):
    async def leave():
        await gopoll.gosched()
        raise SystemExit(3)

    async def wait():
        with pytest.raises(SystemExit):
            await gopoll.go(leave)
        return "seen"

    assert drive(guest, gopoll.go(wait)) == ["seen"]


def test_an_error_whose_last_handle_goes_after_close_is_told(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, traceback: told.append(error))

    async def bad():
        raise ValueError("unseen")

    with Guest() as guest:
        g = gopoll.go(bad)
        guest.run_nowait()
    assert told == []
    del g
    gc.collect()
    assert [str(error) for error in told] == ["unseen"]


def test_close_raises_an_error_that_run_nowait_has_not():
    async def bad():
        try:
            await gopoll.sleep(3600)
        finally:
            raise ValueError("in the end")

    guest = Guest()
    gopoll.go(bad)
    guest.run_nowait()
    with pytest.raises(ValueError, match="in the end"):
        guest.close()


def drop(held):
    held.clear()
    gc.collect()


def test_a_guest_that_is_dropped_gives_its_thread_back_and_warns():
    held = [Guest()]
    drive(held[0], gopoll.go(nap))
    with pytest.warns(ResourceWarning, match=r"dropped without close\(\): it is closed now"):
        drop(held)
    with Guest():
        pass


def test_a_guest_that_is_dropped_with_goroutines_is_kept_by_its_thread():
    """The thread points to it; the leak guard sees that close() gives all back."""
    held = [Guest()]
    kept = held[0]._sched
    g = gopoll.go(nap)
    with pytest.warns(ResourceWarning, match="its thread is taken for good"):
        drop(held)
    while not g.done:
        kept.turn(10)
    kept.close()


def test_a_guest_that_is_dropped_on_another_thread_is_not_closed_there():
    held = [Guest()]
    kept = held[0]._sched

    def drop_elsewhere():
        in_thread(drop, held).join()
        gc.collect()

    with pytest.warns(ResourceWarning, match="a Guest was dropped without close") as told:
        drop_elsewhere()
    # Without a GIL it may be the thread that has made it which drops it in the end.
    assert kept.is_closed == ("it is closed now" in str(told[0].message))
    assert not (kept.is_closed and have_gil())
    kept.close()
    with Guest():
        pass


def test_a_guest_that_was_refused_or_closed_is_dropped_without_a_word():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with Guest():
            with pytest.raises(RuntimeError, match="attached to this thread already"):
                Guest()
            with pytest.raises(TypeError, match="a host is a Host"):
                Guest(5)
            gc.collect()
        gc.collect()
    assert said == []


def test_asynchronous_generators_of_the_host_are_left_to_the_host(guest):
    """A12: the hooks are the guest's in its turns alone."""
    firsts = []
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firsts.append, None)
    try:

        async def generate():
            yield 1

        async def inside():
            async for _ in generate():
                pass

        drive(guest, gopoll.go(inside))
        assert firsts == []
        agen = generate()
        with pytest.raises(StopIteration):
            agen.asend(None).send(None)
        assert firsts == [agen]
    finally:
        sys.set_asyncgen_hooks(*hooks)


@pytest.mark.parametrize("turn", ["run_nowait", "the host's callback"])
def test_hooks_for_asynchronous_generators_are_put_back_with_their_references(turn):
    def first(agen):
        pass

    async def set_others():
        sys.set_asyncgen_hooks(print, print)

    host = Recorder()
    before = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(first, None)
    try:
        with Guest(host) as guest:
            run = guest.run_nowait if turn == "run_nowait" else host.callback
            run()
            held = sys.getrefcount(first)
            for _ in range(1000):
                run()
            g = gopoll.go(set_others)
            while not g.done:
                run()
            assert sys.get_asyncgen_hooks() == (first, None)
            assert sys.getrefcount(first) == held
    finally:
        sys.set_asyncgen_hooks(*before)


def test_what_ends_a_guest_is_raised_in_the_callback_of_its_host():
    async def bad():
        raise ValueError("unseen")

    host = Recorder()
    with Guest(host) as guest:
        other = gopoll.go(nap, 3600)
        gopoll.go(bad)
        with pytest.raises(ValueError, match="unseen"):
            host.callback()
        while not other.done:
            host.callback()
    assert guest.is_closed
    host.callback()


def test_a_host_whose_future_fails_is_told_and_the_guest_goes_on(monkeypatch):
    class Broken(Recorder):
        def make_future(self):
            def fail(value):
                raise ValueError("of the host")

            return Steps([]), fail, fail

    async def sleeps():
        await gopoll.sleep(0)
        await gopoll.sleep(0.001)

    told = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, traceback: told.append(error))
    host = Broken()
    with Guest(host) as guest:
        task = sleeps()
        assert task.send(None) == "the host's own"
        while not told:
            host.callback()
        task.close()
        assert drive(guest, gopoll.go(nap)) == [0.0]
    assert [str(error) for error in told] == ["of the host"]


def test_in_a_forked_child_it_is_refused_and_the_parent_goes_on():
    run_forking(
        """
from gopoll.embed import Guest
guest = Guest()

async def nap():
    await gopoll.sleep(0.001)
    return "slept"

g = gopoll.go(nap)

def child():
    try:
        guest.run_nowait()
    except ForkedError:
        pass
    else:
        raise AssertionError("not refused")
    guest.close()
    assert gopoll.run(nap()) == "slept"
    with Guest() as other:
        g = gopoll.go(nap)
        while not g.done:
            other.run_nowait()

in_child(child)
while not g.done:
    guest.run_nowait()
assert g.result() == "slept"
guest.close()
"""
    )


def test_a_stall_watch_round_its_turns_tells_of_a_goroutine_that_blocks():
    """A guest has no sysmon: whose loop it is watches the turns, as any other work of it."""
    stalls = []

    async def blocks():
        until = time.monotonic() + 60
        while not stalls and time.monotonic() < until:
            time.sleep(0.001)

    stop = gopoll.on_stall(stalls.append, threshold=0.01)
    try:
        with Guest() as guest, gopoll.StallWatch("my loop") as watch:
            g = gopoll.go(blocks)
            while not g.done:
                watch.tick()
                guest.run_nowait()
                watch.idle()
    finally:
        stop()
    assert [(stall.goroutine, stall.name) for stall in stalls] == [(0, "my loop")]
    assert "blocks" in [frame.name for frame in stalls[0].stack]


# -- hosts -----------------------------------------------------------------------------------------


def test_a_host_watches_the_descriptor_until_close():
    host = Recorder()
    with Guest(host) as guest:
        fd = guest.fileno()
        g = gopoll.go(nap)
        while not g.done:
            host.callback()
    assert host.calls == [("watch", fd), ("unwatch", fd)]


def test_a_host_that_cannot_watch_leaves_nothing_behind():
    class Bad(Recorder):
        def watch(self, fd, callback):
            raise OSError("cannot watch")

    with pytest.raises(OSError, match="cannot watch"):
        Guest(Bad())
    with Guest():
        pass


def test_a_close_that_is_refused_changes_nothing():
    host = Recorder()
    with Guest(host) as guest:
        refused = []

        def close():
            try:
                guest.close()
            except RuntimeError as exc:
                refused.append(str(exc))

        async def inside():
            close()

        in_thread(close).join()
        for g in gopoll.go(inside), gopoll.go(nap):
            while not g.done:
                host.callback()
        assert len(refused) == 2
        assert [what for what, _ in host.calls] == ["watch"]
        assert not guest.is_closed
    assert [what for what, _ in host.calls] == ["watch", "unwatch"]


@pytest.mark.parametrize("fails", [False, True])
def test_a_host_that_cannot_unwatch_is_told_when_all_is_closed(fails):
    said = []

    class Bad(Recorder):
        def unwatch(self, fd):
            raise OSError("cannot unwatch")

    async def work():
        try:
            await gopoll.sleep(3600)
        finally:
            said.append("cleaned up")
            if fails:
                raise ValueError("in the end")

    host = Bad()
    guest = Guest(host)
    gopoll.go(work)
    host.callback()
    with pytest.raises(ValueError if fails else OSError) as caught:
        guest.close()
    assert "cannot unwatch" in str(caught.value.__context__ if fails else caught.value)
    assert said == ["cleaned up"]
    assert guest.is_closed
    with Guest():
        pass


def test_a_callback_that_comes_after_unwatch_does_nothing():
    """A host may have queued it before; any thread may be about to wake the guest."""
    host = Recorder()
    guest = Guest(host)
    guest.close()
    assert host.callback() is None
    in_thread(guest.wake).join()
    assert guest.wake() is None


def test_awaits_go_by_the_hosts_own_protocol():
    host = Recorder()
    with Guest(host):
        chan = gopoll.Chan()
        steps = chan.recv().__await__()
        assert next(steps) == "the host's own"
        assert steps.send(None) == "the host's own"
        assert chan.try_send("a value")
        with pytest.raises(StopIteration) as stop:
            steps.send(None)
        assert stop.value.value == "a value"


def test_a_future_is_settled_on_the_hosts_thread_alone():
    """Q1: whoever wakes its waiter elsewhere has that posted to the guest."""
    host = Recorder()
    with Guest(host) as guest:
        chan = gopoll.Chan()
        steps = chan.recv().__await__()
        assert next(steps) == "the host's own"
        in_thread(chan.send_sync, "a value", 20).join()
        assert steps.send(None) == "the host's own"
        assert is_readable(guest)
        guest.run_nowait()
        with pytest.raises(StopIteration) as stop:
            steps.send(None)
        assert stop.value.value == "a value"


def test_what_the_host_throws_in_takes_the_operation_back():
    host = Recorder()
    with Guest(host) as guest:
        chan = gopoll.Chan()
        steps = chan.recv().__await__()
        assert next(steps) == "the host's own"
        with pytest.raises(KeyError):
            steps.throw(KeyError("killed"))
        assert not chan.try_send(1)
        steps = chan.recv().__await__()
        next(steps)
        steps.close()
        assert not chan.try_send(1)
        assert guest._sched.link.waiting == 0
        unstarted = gopoll.sleep(3600).__await__()
        unstarted.close()


def test_a_host_that_cannot_make_a_future_fails_the_await():
    class Bad(Recorder):
        def make_future(self):
            raise LookupError("no task here")

    with Guest(Bad()):
        chan = gopoll.Chan()
        with pytest.raises(LookupError, match="no task here"):
            next(chan.recv().__await__())
        assert not chan.try_send(1)


def test_a_host_gives_three_methods():
    host = Host()
    for call in (lambda: host.watch(0, print), lambda: host.unwatch(0), host.make_future):
        with pytest.raises(NotImplementedError):
            call()
    assert host.comes_again(ValueError()) is False

    class Half(Host):
        def watch(self, fd, callback):
            raise AssertionError("called")

    for no_host in host, Half(), 5, Host:
        with pytest.raises(TypeError, match=r"has watch\(\), unwatch\(\) and make_future\(\), and"):
            Guest(no_host)
    with Guest():
        pass


def test_the_gevent_example():
    need("gevent")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE), "5"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [f"hello from greenlet {n}" for n in range(5)]
