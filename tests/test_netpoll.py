"""netpoll in C: what it returns, in which order, how long it waits, and how it fails.

What it does for a Poller is in test_poller.py; the sleeping protocol (P5, P6) in every
interleaving in test_interleavings.py. Go: netpoll, runtime/netpoll_epoll.go.
"""

import errno
import os
import signal
import time

import pytest

from helpers.child import eventfd_count, registrations
from helpers.polls import Running, park_word, until

READ, WRITE, BOTH = 1, 2, 3
LEVEL, ONESHOT = 1, 2
READY = 1
IN, PRI, OUT, ERR, HUP, RDHUP = 0x1, 0x2, 0x4, 0x8, 0x10, 0x2000
A, B = 4096, 8192
EINTR, THROW_NETPOLL, UNEXPECTED = -errno.EINTR, -10005, -10006


@pytest.fixture
def desc(server, fd):
    """An eventfd that is writable, which has been seen and forgotten."""
    rc, desc = server.open(fd)
    assert rc == 0
    assert server.netpoll() == []
    desc.reset(WRITE)
    yield desc
    desc.discard()


# -- one event -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "woken"),
    [
        (IN, [A]), (RDHUP, [A]), (IN | RDHUP, [A]), (OUT, [B]), (IN | OUT, [A, B]),
        (ERR, [A, B]), (HUP, [A, B]), (IN | HUP, [A, B]), (OUT | ERR, [A, B]), (PRI, []), (0, []),
    ],
)  # fmt: skip
@pytest.mark.parametrize("reg", [0, LEVEL, ONESHOT], ids=["edge", "level", "oneshot"])
def test_what_the_kernel_says_wakes_its_directions(server, desc, fd, reg, mask, woken):
    if reg:
        desc.discard()
        _, desc = server.open(fd, reg)
    park_word(desc, READ, A)
    park_word(desc, WRITE, B)
    assert server.event(mask, desc.data) == woken
    assert desc.rg == (READY if A in woken else A)
    assert desc.wg == (READY if B in woken else B)
    if reg:
        desc.discard()


@pytest.mark.parametrize(("mask", "told"), [(ERR, 3), (ERR | IN, -1), (ERR | HUP, -1), (IN, -1)])
def test_an_error_alone_is_told_to_readers(server, desc, mask, told):
    """After one more try (P7). To a writer it is an event like others."""
    server.event(mask, desc.data)
    assert desc.wait(READ) == 0
    assert desc.wait(READ) == told
    assert desc.wait(WRITE) == (-1 if mask == IN else 0)


def test_an_event_that_says_more_takes_an_error_alone_back(server, desc):
    server.event(ERR, desc.data)
    assert [desc.wait(READ) for _ in range(2)] == [0, 3]
    server.event(IN, desc.data)
    assert [desc.wait(READ) for _ in range(2)] == [0, -1]


def test_a_stale_event_touches_nothing(server, desc):
    park_word(desc, READ, A)
    assert server.event(IN | ERR, desc.data - 1) == -1
    assert (desc.rg, desc.check_error(READ)) == (A, 0)


# -- L1, one step after the other ------------------------------------------------------------------


def armed(server, fd):
    return registrations(server.epfd)[fd][0] & (IN | OUT | RDHUP)


@pytest.mark.parametrize("reg", [LEVEL, ONESHOT], ids=["level", "oneshot"])
def test_a_waiter_that_has_announced_itself_is_not_silenced(server, fd, reg):
    """The event meets pdWait and makes it pdReady; the next wait must find its direction armed."""
    _, desc = server.open(fd, reg)
    assert desc.wait(READ) == -1
    assert armed(server, fd) == IN | RDHUP
    assert server.event(IN, desc.data) == []
    assert desc.rg == READY
    assert not desc.commit(READ, A)
    assert desc.interest == 0
    assert desc.reset(READ) == 0
    park_word(desc, READ, A)
    assert armed(server, fd) == IN | RDHUP
    os.eventfd_write(fd, 1)
    assert server.netpoll(-1) == [A]
    desc.discard()


def test_a_level_event_silences_only_what_it_was_about(server, fd):
    _, desc = server.open(fd, LEVEL)
    park_word(desc, READ, A)
    park_word(desc, WRITE, B)
    assert desc.abort(WRITE, B) == 1
    assert server.event(OUT, desc.data) == []
    assert (desc.interest, armed(server, fd)) == (READ, IN | RDHUP)
    assert server.event(IN, desc.data) == [A]
    assert desc.interest == READ, "who was woken will come again: no system call for that"
    assert server.event(IN, desc.data) == []
    assert (desc.interest, armed(server, fd)) == (0, 0)
    desc.discard()


def test_a_oneshot_event_arms_the_other_again(server, fd):
    os.eventfd_write(fd, 1)
    _, desc = server.open(fd, ONESHOT)
    park_word(desc, WRITE, B)
    park_word(desc, READ, A)
    assert server.event(IN, desc.data) == [A]
    assert (desc.interest, armed(server, fd)) == (WRITE, OUT)
    assert server.netpoll(-1) == [B]
    assert desc.interest == 0
    desc.discard()


def test_an_edge_is_never_looked_after(server, desc, fd):
    before = registrations(server.epfd)
    assert server.event(IN | OUT, desc.data) == []
    assert server.event(HUP, desc.data) == []
    assert registrations(server.epfd) == before
    assert desc.interest == 0


# -- one call --------------------------------------------------------------------------------------


def test_the_order_is_list_then_events_then_deadlines(server, desc, fd):
    park_word(desc, READ, A)
    park_word(desc, WRITE, B)
    os.eventfd_write(fd, 2**64 - 2)  # readable, and not writable any more
    desc.set_deadline(1, WRITE)
    server.push(16384)
    assert server.netpoll() == [16384, A, B]


def test_in_every_eighth_call_the_list_comes_last(server, desc, fd):
    """Or who posts as many as fit would never hear of the network."""
    found = []
    for n in range(8):
        assert desc.reset(READ) == 0
        park_word(desc, READ, A)
        os.eventfd_write(fd, 1)
        server.push(16384 + n)
        out = server.netpoll(0, 2)
        os.eventfd_read(fd)
        assert sorted(out) == [A, 16384 + n]
        found.append(out[0] == A)
    assert sum(found) == 1


@pytest.mark.parametrize("cap", [1, 2, 64, 65, 130, 256])
def test_due_deadlines_come_in_their_order_and_as_many_as_fit(server, cap):
    fds = [os.eventfd(0, os.EFD_CLOEXEC) for _ in range(150)]
    descs = [server.open(n)[1] for n in fds]
    while server.netpoll():
        pass
    words = [4096 + 8 * n for n in range(len(descs))]
    for desc, word in zip(descs, words, strict=True):
        park_word(desc, READ, word)
        desc.set_deadline(word, READ)
    assert server.netpoll(0, cap) == words[:cap]
    assert server.timers == max(150 - cap, 0)
    while len(found := server.netpoll(0, 256)) == 256:
        pass
    assert found == words[cap:]
    assert server.waiters == 0
    for desc, n in zip(descs, fds, strict=True):
        desc.discard()
        os.close(n)


def test_an_event_and_a_deadline_at_once_wake_once(server, desc, fd):
    park_word(desc, READ, A)
    desc.set_deadline(1, READ)
    os.eventfd_write(fd, 1)
    assert server.netpoll(-1) == [A]
    assert server.netpoll() == []
    assert desc.check_error(READ) == 2
    assert server.stats["wakes"] == 1


def test_a_deadline_that_was_moved_while_it_came_up_is_not_early(server, desc):
    now = time.monotonic_ns()
    park_word(desc, READ, A)
    desc.set_deadline(now + 10**6, READ)
    desc.set_deadline(now + 3 * 10**6, READ)
    assert server.netpoll(-1) == [A]
    assert time.monotonic_ns() >= now + 3 * 10**6


# -- how long --------------------------------------------------------------------------------------


def test_how_long_a_sleeper_may_wait(server, desc):
    now = time.monotonic_ns()
    assert server.timeout() == -1
    assert 0 < server.timeout(now + 10**12) <= 10**12
    assert server.timeout(now) == 0, "that moment has passed"
    desc.set_deadline(now + 10**11, READ)
    assert 0 < server.timeout() <= 10**11
    assert 0 < server.timeout(now + 10**12) <= 10**11
    assert server.timeout(0) == 0
    desc.set_deadline(now + 10**13, READ)
    assert 10**11 < server.timeout() <= 10**13
    assert server.timeout(now + 10**12) <= 10**12
    desc.set_deadline(1, WRITE)
    assert server.timeout() == 0
    server.netpoll()
    server.push(A)
    assert server.timeout() == 0
    server.take()


@pytest.mark.parametrize("delay", [1, 400_000, 3_000_000])
def test_a_delay_is_waited_for(server, delay):
    start = time.monotonic_ns()
    assert server.netpoll(delay) == []
    assert time.monotonic_ns() - start >= delay
    assert server.blocked == 0


def test_with_work_nobody_sleeps(server):
    server.push(A)
    assert server.netpoll(-1) == [A]
    server.brk()
    server.push(A)
    assert server.netpoll(-1) == [A]
    assert server.stats["breaks"] == 1, "the break was taken back on the way"


def test_a_blocking_call_creates_the_instance_and_another_does_not(probe):
    server = probe.Server()
    assert server.netpoll(0) == []
    assert server.inited == 0
    assert server.netpoll(1) == []
    assert server.inited == 1
    server.close()


def test_who_sleeps_is_counted(server):
    waits = [Running(server.netpoll, -1) for _ in range(2)]
    until(lambda: server.blocked == 2)
    while not all(wait.is_done for wait in waits):
        server.brk()
    assert [wait.join() for wait in waits] == [[], []]
    assert server.blocked == 0


def test_a_watched_server_takes_the_break_back_in_every_call(server):
    server.watched = 1
    server.brk()
    assert server.netpoll(0, 1) == []
    assert (server.wakesig, eventfd_count(server.eventfd)) == (0, 0)
    assert server.stats["breaks"] == 1


# -- failing ---------------------------------------------------------------------------------------


def test_a_signal_ends_a_sleep_with_eintr_and_nothing_else(server):
    ran = []
    before = signal.signal(signal.SIGALRM, lambda *args: ran.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        assert server.netpoll(-1) == EINTR
        assert server.netpoll(10**12) == EINTR
        assert server.netpoll(0) == []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ran
    assert server.blocked == 0


@pytest.mark.parametrize("delay", [0, -1, 10**12])
def test_an_instance_that_is_gone_throws(server, probe, delay):
    """EBADF is no answer of the network: somebody has closed our descriptor."""
    spare = os.dup(server.epfd)
    os.close(server.epfd)
    try:
        assert server.netpoll(delay) == THROW_NETPOLL
        assert server.blocked == 0
    finally:
        os.dup2(spare, server.epfd)
        os.close(spare)
    assert server.netpoll(0) == []


def test_a_throw_keeps_what_the_list_had(server):
    server.push(A)
    server.arm(server.eventfd, IN | OUT, 0)
    assert server.netpoll() == UNEXPECTED
    server.arm(server.eventfd, IN, 0)
    assert server.netpoll() == [A]


def test_one_call_does_not_look_for_ever(server, fd):
    """A level-triggered registration with a stale tag cannot be silenced."""
    _, desc = server.open(fd, LEVEL)
    desc.rearm(READ)
    server.arm(fd, IN, desc.data - 1)
    os.eventfd_write(fd, 1)
    assert server.netpoll(0, 1) == []
    assert server.stats["stale"] == 1
    desc.discard()
