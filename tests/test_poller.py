"""Poller as a loop sees it: what comes out of netpoll, when, how often, and what the host is told.

docs/api.md, "The poller, for loops".
"""

import contextlib
import errno
import os
import signal
import socket
import time

import pytest

import gopoll
from gopoll import BOTH, EDGE, LEVEL, READ, WRITE, ClosedError, NotPollableError, OpError, Poller
from helpers.child import open_fds, registrations
from helpers.polls import (
    FAR,
    Running,
    Waiter,
    drain,
    eventfd,
    park,
    references,
    retire,
    until,
)


@pytest.fixture
def pair(poller):
    """A registered socket and its peer. The first edge, that it is writable, has been seen."""
    ours, peer = socket.socketpair()
    with ours, peer:
        desc = poller.open(ours.fileno())
        assert poller.netpoll(0) == []
        yield desc, peer
        retire(desc)


def blocked(probe, poller):
    """Return how many threads are in a blocking netpoll, or about to enter it."""
    return probe.Server.of(poller).blocked


# -- open ------------------------------------------------------------------------------------------


def test_a_regular_file_is_not_pollable_and_leaves_nothing_behind(poller, tmp_path):
    with open(tmp_path / "plain", "w") as file:
        with pytest.raises(NotPollableError, match="not pollable") as caught:
            poller.open(file.fileno())
    assert caught.value.errno == errno.EPERM
    assert isinstance(caught.value, PermissionError)
    assert poller.stats()["descriptors"] == 0


@pytest.mark.parametrize("fd", [-1, 999_999])
def test_a_bad_descriptor_fails_with_its_errno(poller, fd):
    with pytest.raises(OpError, match=f"^open fd {fd}: bad file descriptor$") as caught:
        poller.open(fd)
    assert caught.value.errno == errno.EBADF
    assert poller.stats()["descriptors"] == 0


def test_of_two_registrations_the_first_survives(poller, pair):
    desc, peer = pair
    waiter = Waiter()
    park(desc, READ, waiter)
    before = registrations(poller.fileno())
    with pytest.raises(FileExistsError) as caught:
        poller.open(desc.fd)
    assert isinstance(caught.value, OpError)
    assert registrations(poller.fileno()) == before
    assert poller.stats()["descriptors"] == 1
    peer.send(b"x")
    assert poller.netpoll(-1) == [waiter]


def test_a_descriptor_may_be_on_two_pollers(poller, pair):
    desc, peer = pair
    with eventfd() as fd:
        del fd
        other = Poller()
        second = other.open(desc.fd)
        drain(other)
        one, two = Waiter("one"), Waiter("two")
        park(desc, READ, one)
        park(second, READ, two)
        peer.send(b"x")
        assert poller.netpoll(-1) == [one]
        assert other.netpoll(-1) == [two]
        retire(second)
        other.close()


@pytest.mark.parametrize("mode", [-1, 3, 99])
def test_an_unknown_registration_is_refused(poller, mode):
    with eventfd() as fd, pytest.raises(ValueError, match=f"mode {mode} is none of EDGE"):
        poller.open(fd, mode)


INTS = {
    "fd": [
        lambda poller, desc, timer, value: poller.open(value),
        lambda poller, desc, timer, value: poller.is_poll_descriptor(value),
        lambda poller, desc, timer, value: gopoll.PollDesc(poller, value, EDGE),
    ],
    "mode": [
        lambda poller, desc, timer, value: poller.open(0, value),
        lambda poller, desc, timer, value: gopoll.PollDesc(poller, 0, value),
        lambda poller, desc, timer, value: desc.reset(value),
        lambda poller, desc, timer, value: desc.wait(value),
        lambda poller, desc, timer, value: desc.rearm(value),
        lambda poller, desc, timer, value: desc.set_deadline_ns(0, value),
    ],
    "when_ns": [
        lambda poller, desc, timer, value: desc.set_deadline_ns(value),
        lambda poller, desc, timer, value: poller.call_at_ns(value, "never"),
        lambda poller, desc, timer, value: gopoll.Timer(poller, value, "never"),
        lambda poller, desc, timer, value: timer.move(value),
    ],
    "delay_ns": [lambda poller, desc, timer, value: poller.netpoll(value)],
    "limit": [lambda poller, desc, timer, value: poller.netpoll(0, value)],
}


@pytest.mark.parametrize("value", [1.5, 1.0, True, "1", None])
@pytest.mark.parametrize(
    ("name", "call"),
    [(name, call) for name, calls in INTS.items() for call in calls],
    ids=[f"{name}{n}" for name, calls in INTS.items() for n in range(len(calls))],
)
def test_what_is_no_int_is_refused_by_name(poller, name, call, value):
    """A float was cut short: open(1.5) registered descriptor 1."""
    with eventfd() as fd:
        desc = poller.open(fd, LEVEL)
        timer = poller.call_at_ns(time.monotonic_ns() + 10**15, "never")
        before = poller.stats()
        kind = type(value).__name__
        with pytest.raises(TypeError, match=f"^{name} must be an int, not {kind}$"):
            call(poller, desc, timer, value)
        assert poller.stats() == before
        retire(desc)


def test_an_int_of_any_class_is_taken(poller):
    class Number(int):
        pass

    assert poller.netpoll(Number(0), Number(3)) == []
    assert not poller.is_poll_descriptor(Number(0))


# -- the one door ----------------------------------------------------------------------------------


def test_whatever_makes_a_waiter_ready_it_comes_out_of_netpoll(poller, pair):
    """I/O, a deadline that passes, one that is set in the past, an eviction, a timer, a post."""
    desc, peer = pair
    w = [Waiter(str(n)) for n in range(6)]
    park(desc, READ, w[0])
    peer.send(b"x")
    assert poller.netpoll(-1) == [w[0]]
    os.read(desc.fd, 1)
    park(desc, READ, w[1])
    desc.set_deadline_ns(time.monotonic_ns() + 1_000_000, READ)
    assert poller.netpoll(-1) == [w[1]]
    desc.set_deadline_ns(0, READ)
    park(desc, READ, w[2])
    desc.set_deadline_ns(-1, READ)
    assert poller.netpoll(-1) == [w[2]]
    desc.set_deadline_ns(0, READ)
    poller.call_at_ns(time.monotonic_ns() + 1_000_000, w[3])
    assert poller.netpoll(-1) == [w[3]]
    poller.post(w[4])
    assert poller.netpoll(-1) == [w[4]]
    park(desc, READ, w[5])
    desc.evict()
    assert poller.netpoll(-1) == [w[5]]
    assert poller.netpoll(0) == []
    stats = poller.stats()
    assert (stats["parks"], stats["wakes"], stats["waiters"]) == (4, 4, 0)


def test_both_waiters_of_a_descriptor_come_out_of_one_event(poller):
    with eventfd() as fd:
        desc = poller.open(fd)
        drain(poller)
        assert desc.wait(WRITE).commit(None) is False  # it is writable: that edge has been seen
        reader, writer = Waiter("reader"), Waiter("writer")
        park(desc, READ, reader)
        park(desc, WRITE, writer)
        os.eventfd_write(fd, 1)
        assert poller.netpoll(-1) == [reader, writer]
        retire(desc)


@pytest.mark.parametrize("limit", [0, -1, 257])
def test_a_limit_out_of_bounds_is_refused(poller, limit):
    with pytest.raises(ValueError, match=rf"limit {limit} is not in 1\.\.256"):
        poller.netpoll(0, limit)


@pytest.mark.parametrize("limit", [1, 3, 128, 256])
@pytest.mark.parametrize("source", ["posts", "timers", "descriptors"])
def test_a_list_is_never_longer_than_the_limit_and_nothing_is_lost(poller, limit, source):
    waiters = [Waiter(str(n)) for n in range(300)]
    fds = []
    if source == "posts":
        for waiter in waiters:
            poller.post(waiter)
    elif source == "timers":
        for n, waiter in enumerate(waiters):
            poller.call_at_ns(1 + n, waiter)
    else:
        fds = [os.eventfd(0, os.EFD_CLOEXEC) for _ in waiters]
        descs = [poller.open(fd) for fd in fds]
        drain(poller)
        for desc, fd, waiter in zip(descs, fds, waiters, strict=True):
            park(desc, READ, waiter)
            os.eventfd_write(fd, 1)
    found = []
    while len(found) < 300:
        got = poller.netpoll(0, limit)
        assert 1 <= len(got) <= limit
        found += got
    assert poller.netpoll(0, limit) == []
    if source == "descriptors":
        assert set(found) == set(waiters)
        retire(*descs)
    else:
        assert found == waiters, "not in their order"
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("limit", [1, 16])
def test_posts_do_not_starve_the_network_nor_the_timers(poller, pair, limit):
    """A loop that posts as many as fit, each time, still hears of its sockets and deadlines."""
    desc, peer = pair
    park(desc, READ, "reader")
    peer.send(b"x")
    poller.call_at_ns(1, "timer")
    missing = {"reader", "timer"}
    for n in range(limit):
        poller.post(n)
    for _ in range(64):
        got = poller.netpoll(0, limit)
        assert got
        for waiter in got:
            if waiter in missing:
                missing.remove(waiter)
            else:
                poller.post(waiter)
    assert not missing, f"{missing} never came out"


def test_a_registration_that_nobody_can_silence_does_not_keep_a_poll(poller):
    """Level-triggered, closed behind our back, alive through a dup: the kernel repeats it."""
    with eventfd() as fd, eventfd(1) as dup:
        desc = poller.open(fd, LEVEL)
        desc.rearm(READ)
        os.dup2(fd, dup)
        os.close(fd)
        retire(desc)
        os.eventfd_write(dup, 1)
        assert poller.netpoll(0, 1) == []
        assert poller.stats()["stale"] >= 1
        os.dup2(dup, fd)


# -- waiting ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay_ns", [1, 700_000, 5_000_000])
def test_an_empty_list_is_never_early(poller, delay_ns):
    start = time.monotonic_ns()
    assert poller.netpoll(delay_ns) == []
    assert time.monotonic_ns() - start >= delay_ns


def test_a_wait_ends_with_the_first_waiter(poller, probe):
    waiter = Waiter()
    wait = Running(poller.netpoll, -1)
    until(lambda: blocked(probe, poller))
    poller.post(waiter)
    assert wait.join() == [waiter]
    assert blocked(probe, poller) == 0


@pytest.mark.parametrize("delay_ns", [2**63 - 1, 2**62])
def test_a_wait_may_be_as_long_as_the_clock_goes(poller, probe, delay_ns):
    wait = Running(poller.netpoll, delay_ns)
    until(lambda: blocked(probe, poller))
    poller.netpoll_break()
    assert wait.join() == []


def test_events_that_wake_nobody_do_not_end_a_wait(poller, probe):
    """A fresh descriptor is writable, and nobody waits: the list would be empty."""
    wait = Running(poller.netpoll, -1)
    with eventfd() as fd:
        until(lambda: blocked(probe, poller))
        desc = poller.open(fd)
        until(lambda: probe.Desc.of(desc).wg == 1)  # that edge has been seen: pdReady
        assert not wait.is_done
        poller.post(7)
        assert wait.join() == [7]
        retire(desc)


def test_of_many_that_sleep_nobody_sleeps_over_a_post(probe):
    """P5 with several sleepers that take one waiter at a time; close() then wakes all of them."""
    poller = Poller()
    found = []

    def loop():
        with contextlib.suppress(ClosedError):  # it may be closed right after the look
            while not poller.is_closed:
                found.extend(poller.netpoll(-1, 1))

    loops = [Running(loop) for _ in range(3)]
    for n in range(300):
        if n % 10 == 0:
            until(lambda: blocked(probe, poller) == 3)
        poller.post(n)
    until(lambda: len(found) == 300)
    poller.close()
    for running in loops:
        running.join()
    assert sorted(found) == list(range(300))


def test_a_deadline_that_comes_first_ends_the_sleep_that_does_not_know_it(poller, probe):
    """P5: the sleeper has looked at the deadlines before; it is told, or it would be late."""
    timer = poller.call_at_ns(FAR, "far")
    wait = Running(poller.netpoll, -1)
    until(lambda: blocked(probe, poller))
    timer.move(time.monotonic_ns() + 1_000_000)
    found = wait.join() or poller.netpoll(-1)
    assert found == ["far"]


# -- break -----------------------------------------------------------------------------------------


def test_breaks_are_coalesced_and_one_poll_takes_them_back(poller):
    for _ in range(5):
        poller.netpoll_break()
    assert poller.netpoll(-1) == []
    assert poller.stats()["breaks"] == 1
    start = time.monotonic_ns()
    assert poller.netpoll(1_000_000) == []
    assert time.monotonic_ns() - start >= 1_000_000, "the break came twice"


def test_a_break_ends_the_wait_under_way(poller, probe):
    wait = Running(poller.netpoll, -1)
    until(lambda: blocked(probe, poller))
    poller.netpoll_break()
    assert wait.join() == []


def test_a_poll_that_does_not_block_leaves_the_break_to_the_one_that_does(poller):
    poller.netpoll_break()
    assert poller.netpoll(0) == []
    assert poller.netpoll(-1) == []
    assert poller.stats()["breaks"] == 1


def test_a_break_and_a_waiter_come_together(poller):
    poller.post("waiter")
    poller.netpoll_break()
    assert poller.netpoll(-1) == ["waiter"]


# -- signals ---------------------------------------------------------------------------------------


@pytest.fixture
def alarms():
    """Every 3 ms a SIGALRM: the list of what the handler does, and of how often it has run."""
    ran, actions = [], []

    def handler(number, frame):
        ran.append(number)
        for action in actions:
            action()

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
    yield ran, actions
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_signal_handlers_run_during_a_wait_and_do_not_shorten_it(poller, alarms):
    ran, _ = alarms
    start = time.monotonic_ns()
    assert poller.netpoll(60_000_000) == []
    assert time.monotonic_ns() - start >= 60_000_000
    assert ran, "the handler waits for the end of the wait"


def test_what_a_handler_raises_comes_out_and_the_poller_goes_on(poller, alarms):
    _, actions = alarms
    actions.append(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        poller.netpoll(-1)
    actions.clear()
    poller.post(1)
    assert poller.netpoll(-1) == [1]


def test_a_handler_may_break_and_post(poller, alarms):
    _, actions = alarms
    actions.append(poller.netpoll_break)
    assert poller.netpoll(-1) == []
    actions[:] = [lambda: poller.post("from the handler")]
    assert set(poller.netpoll(-1)) == {"from the handler"}
    actions.clear()


def test_a_handler_may_close_the_poller(alarms):
    _, actions = alarms
    poller = Poller()
    actions.append(poller.close)
    assert poller.netpoll(-1) == []
    assert poller.is_closed


# -- references ------------------------------------------------------------------------------------


def test_a_waiter_has_one_reference_more_while_it_is_parked(poller, pair):
    desc, peer = pair
    waiter = Waiter()
    before = references(waiter)
    park(desc, READ, waiter)
    assert references(waiter) == before + 1
    peer.send(b"x")
    [out] = poller.netpoll(-1)
    assert out is waiter
    del out
    assert references(waiter) == before


def test_a_commit_that_fails_keeps_no_reference(poller, pair):
    desc, peer = pair
    waiter = Waiter()
    before = references(waiter)
    request = desc.wait(READ)
    peer.send(b"x")
    poller.netpoll(0)
    assert request.commit(waiter) is False
    assert references(waiter) == before


def test_an_abort_gives_the_reference_back_and_a_lost_one_does_not(poller, pair):
    desc, _ = pair
    waiter = Waiter()
    before = references(waiter)
    request = park(desc, READ, waiter)
    assert request.abort(waiter) is True
    assert references(waiter) == before
    park(desc, READ, waiter)
    desc.set_deadline_ns(-1, READ)
    assert request.abort(waiter) is False
    assert references(waiter) == before + 1, "it is on the ready list"
    assert poller.netpoll(0) == [waiter]
    assert references(waiter) == before


@pytest.mark.parametrize("where", ["posted", "timer", "parked", "stopped timer", "moved timer"])
def test_close_drops_what_nobody_has_taken(where):
    poller = Poller()
    waiter = Waiter()
    before = references(waiter)
    with eventfd() as fd:
        desc = poller.open(fd)
        if where == "posted":
            poller.post(waiter)
        elif where == "parked":
            park(desc, READ, waiter)
        else:
            timer = poller.call_at_ns(FAR, waiter)
            if where == "stopped timer":
                assert timer.stop()
            elif where == "moved timer":
                assert timer.move(FAR + 1)
            del timer
        poller.close()
        assert references(waiter) == before
        desc.close()


# -- timeout_ns ------------------------------------------------------------------------------------


def test_timeout_ns_says_when_to_come_again(poller, pair):
    desc, _ = pair
    assert poller.timeout_ns() == -1
    now = time.monotonic_ns()
    timer = poller.call_at_ns(now + 10**12, 0)
    left = poller.timeout_ns()
    assert now + 10**12 - time.monotonic_ns() <= left <= 10**12
    desc.set_deadline_ns(now + 10**11, BOTH)
    assert poller.timeout_ns() <= 10**11
    desc.set_deadline_ns(now + 10**13, BOTH)
    assert 10**11 < poller.timeout_ns() <= 10**12
    desc.set_deadline_ns(0)
    timer.stop()
    assert poller.timeout_ns() == -1
    timer.move(now)
    assert poller.timeout_ns() == 0
    assert poller.netpoll(0) == [0]
    assert poller.timeout_ns() == -1
    poller.post(1)
    assert poller.timeout_ns() == 0
    poller.netpoll(0)


# -- stats and the rest ----------------------------------------------------------------------------


def test_the_counters_count(poller, pair):
    desc, peer = pair
    first = poller.stats()
    request = park(desc, READ, 1)
    assert poller.stats()["waiters"] == 1
    assert request.abort(1)
    timer = poller.call_at_ns(FAR, 1)
    park(desc, READ, 1)
    peer.send(b"x")
    poller.netpoll(0)
    peer.send(b"x")
    poller.netpoll(0)
    poller.netpoll_break()
    poller.netpoll(-1)
    last = poller.stats()
    grown = {name: last[name] - first[name] for name in last if last[name] != first[name]}
    assert grown == {
        "polls": 3, "events": 2, "parks": 2, "wakes": 1, "spurious": 1, "breaks": 1, "timers": 1,
    }  # fmt: skip
    assert timer.stop()


def test_own_descriptors_are_recognised(poller):
    assert not poller.is_poll_descriptor(-1)
    before = open_fds()
    poller.enable_timerfd()
    mine = open_fds() - before
    assert len(mine) == 3
    assert poller.fileno() in mine
    assert all(poller.is_poll_descriptor(fd) for fd in mine)
    assert not any(poller.is_poll_descriptor(fd) for fd in [*before, -1])
    poller.enable_timerfd()
    assert open_fds() - before == mine
    poller.close()
    assert open_fds() == before
    assert not any(poller.is_poll_descriptor(fd) for fd in mine)


def test_after_close_every_method_says_so(pair):
    poller = Poller()
    timer = poller.call_at_ns(FAR, 1)
    with eventfd() as fd:
        desc = poller.open(fd)
        poller.close()
        for call in (
            poller.fileno, poller.enable_timerfd, poller.timeout_ns, poller.netpoll,
            poller.netpoll_break, lambda: poller.post(1), lambda: poller.call_at_ns(1, 1),
            lambda: poller.open(fd), lambda: timer.move(1), lambda: desc.reset(READ),
            lambda: desc.wait(WRITE), lambda: desc.set_deadline_ns(1),
        ):  # fmt: skip
            with pytest.raises(ClosedError, match="use of closed") as caught:
                call()
            assert caught.value.errno == errno.EBADF
        assert timer.stop() is False
        assert poller.stats()["timers"] == 0
        assert poller.is_closed
        assert not poller.is_poll_descriptor(fd)
        desc.evict()
        desc.close()


def test_a_raw_poller_has_no_waiters_of_pythons():
    poller = Poller(raw=True)
    with eventfd() as fd:
        for call in (
            poller.netpoll, lambda: poller.post(1), lambda: poller.call_at_ns(1, 1),
            lambda: poller.open(fd),
        ):  # fmt: skip
            with pytest.raises(RuntimeError, match=r"Poller\(raw=True\) are words of C"):
                call()
        poller.netpoll_break()
        assert poller.timeout_ns() == -1
        assert poller.fileno() >= 0
    poller.close()


def test_a_raw_poller_drops_what_c_has_left_in_it(probe):
    with eventfd() as fd:
        poller = Poller(raw=True)
        probe.leave_words(poller, fd)
        assert poller.is_closed
        del poller


def test_the_constants_are_the_core_s():
    assert (READ, WRITE, BOTH) == (1, 2, 3)
    assert (EDGE, LEVEL, gopoll.ONESHOT) == (0, 1, 2)
    assert gopoll.ABI_VERSION == 1
