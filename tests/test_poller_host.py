"""Poller as a host sees it: one descriptor, fileno(), that says when netpoll has something.

P9; docs/api.md, fileno and enable_timerfd. The hosts: poll(2), and an epoll that watches
ours level-triggered and edge-triggered.
"""

import os
import select
import socket
import time

import pytest

from gopoll import READ
from helpers.child import eventfd_count, run_python
from helpers.polls import FAR, drain, is_readable, park, retire, wait_readable


@pytest.fixture
def pair(poller):
    """A registered socket and its peer. The first edge, that it is writable, has been seen."""
    ours, peer = socket.socketpair()
    with ours, peer:
        desc = poller.open(ours.fileno())
        assert poller.netpoll(0) == []
        yield desc, peer
        retire(desc)


class LevelHost:
    """A host that watches with epoll, level-triggered."""

    flags = select.EPOLLIN

    def __init__(self, fd):
        self.epoll = select.epoll()
        self.epoll.register(fd, self.flags)

    def is_told(self):
        """Whether the host's wait would return, now."""
        return bool(self.epoll.poll(0))

    def close(self):
        self.epoll.close()


class EdgeHost(LevelHost):
    """A host that watches edge-triggered, as gopoll itself would."""

    flags = select.EPOLLIN | select.EPOLLET


class PollHost:
    """A host on poll(2)."""

    def __init__(self, fd):
        self.fd = fd

    def is_told(self):
        return is_readable(self.fd)

    def close(self):
        pass


@pytest.fixture(params=[PollHost, LevelHost, EdgeHost])
def host(request, poller, pair):
    """A host that has taken what fileno() announces in the beginning. After the pair."""
    host = request.param(poller.fileno())
    assert host.is_told()
    assert poller.netpoll(0) == []
    assert not host.is_told()
    yield host
    host.close()


def send(poller, desc, peer):
    park(desc, READ, 1)
    peer.send(b"x")


def evict(poller, desc, peer):
    park(desc, READ, 1)
    desc.evict()


def expire(poller, desc, peer):
    park(desc, READ, 1)
    desc.set_deadline_ns(-1, READ)


REASONS = {
    "data": (send, [1]),
    "an eviction": (evict, [1]),
    "a deadline in the past": (expire, [1]),
    "a post": (lambda poller, desc, peer: poller.post(1), [1]),
    "a timer in the past": (lambda poller, desc, peer: poller.call_at_ns(1, 1), [1]),
    "a break": (lambda poller, desc, peer: poller.netpoll_break(), []),
    "an earlier timer": (lambda poller, desc, peer: poller.call_at_ns(FAR, 1), []),
    "an earlier deadline": (lambda poller, desc, peer: desc.set_deadline_ns(FAR), []),
}


@pytest.mark.parametrize(("reason", "found"), REASONS.values(), ids=REASONS)
def test_a_host_is_told_of_every_reason_and_of_nothing_else(poller, pair, host, reason, found):
    """P9: who has taken everything is left alone, or a host would spin."""
    reason(poller, *pair)
    assert host.is_told(), "the host sleeps over it"
    assert poller.netpoll(0) == found
    assert not host.is_told(), "the host spins"


def test_a_host_is_told_again_of_what_did_not_fit(poller, host):
    for n in range(3):
        poller.post(n)
    for n in range(3):
        assert host.is_told()
        assert poller.netpoll(0, 1) == [n]
    assert not host.is_told()


def test_spurious_events_do_not_hide_what_stands_behind_them(poller, pair, host):
    """A list shorter than the limit says that nothing is left: an edge-triggered host sleeps."""
    desc, peer = pair
    fds = [os.eventfd(0, os.EFD_CLOEXEC) for _ in range(200)]
    descs = [poller.open(fd) for fd in fds]  # each is writable, and nobody waits for that
    park(desc, READ, "reader")
    peer.send(b"x")
    assert host.is_told()
    assert poller.netpoll(0) == ["reader"]
    assert not host.is_told()
    retire(*descs)
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("limit", [1, 2])
def test_a_break_takes_nobody_s_place(poller, pair, host, limit):
    desc, peer = pair
    park(desc, READ, "reader")
    poller.netpoll_break()
    peer.send(b"x")
    assert host.is_told()
    assert poller.netpoll(0, limit) == ["reader"]
    assert poller.netpoll(0, limit) == []
    assert not host.is_told()


def test_what_was_there_before_anybody_asked_is_announced(poller):
    poller.post(1)
    assert is_readable(poller.fileno())
    assert poller.netpoll(0) == [1]
    assert not is_readable(poller.fileno()) or poller.netpoll(0) == []


def test_asking_again_makes_nothing_readable(poller):
    """select.select() asks for fileno() every time: a host that used it would spin."""
    assert select.select([poller], [], [], 0)[0] == [poller]
    assert poller.netpoll(0) == []
    for _ in range(3):
        assert select.select([poller], [], [], 0)[0] == []
    poller.post(1)
    assert select.select([poller], [], [], 0)[0] == [poller]
    assert poller.netpoll(0) == [1]
    assert select.select([poller], [], [], 0)[0] == []


def test_a_later_deadline_is_not_worth_a_word(poller, pair, host):
    desc, _ = pair
    timer = poller.call_at_ns(FAR, 1)
    assert poller.netpoll(0) == []
    host.is_told()  # an edge may be seen only once
    desc.set_deadline_ns(FAR + 1)
    desc.set_deadline_ns(FAR + 2)
    assert not host.is_told()
    assert timer.stop()


def test_messages_through_a_nested_epoll_are_all_seen(poller, pair, host):
    """A thousand messages, one at a time: the host waits, the guest polls until it is dry."""
    desc, peer = pair
    for n in range(1000):
        park(desc, READ, n)
        peer.send(b"x")
        assert host.is_told(), f"message {n} is lost"
        assert drain(poller) == [n]
        os.read(desc.fd, 1)


# -- with a timerfd --------------------------------------------------------------------------------


@pytest.mark.parametrize("when_enabled", ["before", "after"])
def test_a_timerfd_tells_of_deadlines(poller, pair, when_enabled):
    desc, _ = pair
    if when_enabled == "before":
        poller.enable_timerfd()
    park(desc, READ, "reader")
    when = time.monotonic_ns() + 2_000_000
    desc.set_deadline_ns(when, READ)
    poller.call_at_ns(when + 2_000_000, "timer")
    if when_enabled == "after":
        poller.enable_timerfd()
    fd = poller.fileno()
    found = []
    while len(found) < 2:
        wait_readable(fd)
        got = drain(poller)
        assert time.monotonic_ns() >= when or not got
        found += got
    assert found == ["reader", "timer"]
    assert not is_readable(fd)


def test_a_timerfd_follows_timers_that_move(poller, host):
    poller.enable_timerfd()
    fd = poller.fileno()
    for _ in range(20):
        timer = poller.call_at_ns(FAR, "timer")
        drain(poller)
        when = time.monotonic_ns() + 300_000
        timer.move(when + 200_000)
        timer.move(when)
        found = []
        while not found:
            wait_readable(fd)
            found = drain(poller)
        assert found == ["timer"]
        assert time.monotonic_ns() >= when
    assert not is_readable(fd)


def test_a_stopped_timer_leaves_the_host_alone(poller):
    poller.enable_timerfd()
    fd = poller.fileno()
    timer = poller.call_at_ns(time.monotonic_ns() + 10**12, "timer")
    assert drain(poller) == []
    assert timer.stop()
    assert drain(poller) == []
    assert not is_readable(fd)


def test_a_timerfd_that_cannot_be_had_says_why():
    """As the poller's other descriptors do; a second call tries again."""
    done = run_python(
        """
        import resource
        import gopoll

        poller = gopoll.Poller()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (poller.fileno() + 2, hard))
        try:
            poller.enable_timerfd()
        except gopoll.OpError as exc:
            print(exc)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        poller.enable_timerfd()
        poller.close()
        """
    )
    assert done.stdout == "timerfd_create: too many open files (limit 5; raise RLIMIT_NOFILE)\n"


def test_a_break_is_one_word_of_the_kernel(poller, probe):
    """However many reasons there are, the eventfd counts one (P2)."""
    fd = poller.fileno()
    drain(poller)
    for n in range(10):
        poller.post(n)
    server = probe.Server.of(poller)
    assert eventfd_count(server.eventfd) == 1
    assert is_readable(fd)
    assert poller.netpoll(0) == list(range(10))
    assert eventfd_count(server.eventfd) == 0
