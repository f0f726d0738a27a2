"""LEVEL and ONESHOT registrations: armed for who waits, silent for who does not (L1).

What the kernel has is read from /proc/self/fdinfo. The interleavings are in test_interleavings.py.
"""

import os
import socket

import pytest

from gopoll import BOTH, EDGE, LEVEL, ONESHOT, READ, WRITE, ClosedError, OpError, Poller
from helpers.child import registrations
from helpers.polls import drain, eventfd, is_readable, park, retire

IN, OUT, ERR, HUP, RDHUP = 0x1, 0x4, 0x8, 0x10, 0x2000
ONCE, ET = 0x40000000, 0x80000000
ALWAYS = ERR | HUP
READING, WRITING = IN | RDHUP, OUT


@pytest.fixture
def poller():
    poller = Poller()
    poller.fileno()
    poller.netpoll(0)
    yield poller
    poller.close()


@pytest.fixture(params=[LEVEL, ONESHOT], ids=["level", "oneshot"])
def mode(request):
    return request.param


@pytest.fixture
def pair(poller, mode):
    ours, peer = socket.socketpair()
    with ours, peer:
        desc = poller.open(ours.fileno(), mode)
        yield desc, peer
        retire(desc)


def armed(desc):
    """What the kernel has *desc* armed for; a one-shot that has fired is armed for nothing."""
    return registrations(desc.poller.fileno())[desc.fd][0] & (IN | OUT | RDHUP)


def is_quiet(poller):
    """Whether a host would be left alone: an armed descriptor that is ready would spin it."""
    poller.netpoll(0)  # fileno() announces itself
    return not is_readable(poller.fileno())


def test_nobody_waits_and_nothing_is_armed(poller, pair):
    desc, peer = pair
    peer.send(b"x")
    assert armed(desc) == 0
    assert poller.netpoll(0) == []
    assert is_quiet(poller)


def test_a_wait_arms_its_direction_and_finds_what_is_there_already(poller, pair, mode):
    desc, peer = pair
    peer.send(b"x")
    park(desc, READ, 1)
    assert armed(desc) == READING
    assert registrations(poller.fileno())[desc.fd][0] & ONCE == (ONCE if mode == ONESHOT else 0)
    assert poller.netpoll(-1) == [1]
    os.read(desc.fd, 1)
    park(desc, WRITE, 2)
    assert armed(desc) & OUT
    assert poller.netpoll(-1) == [2]


def test_bytes_that_stay_unread_come_again_for_the_next_wait(poller, pair):
    """Where an edge would be gone. This is what these modes are for."""
    desc, peer = pair
    peer.send(b"x")
    for n in range(5):
        desc.reset(READ)
        if desc.wait(READ).commit(n):
            assert poller.netpoll(-1) == [n]
    assert drain(poller) == []


def test_an_unread_descriptor_falls_silent(poller, pair):
    """L1: nobody waits any more, so the kernel is asked for nothing, or a host would spin."""
    desc, peer = pair
    park(desc, READ, 1)
    peer.send(b"xx")
    assert poller.netpoll(-1) == [1]
    assert drain(poller) == []
    assert armed(desc) == 0
    assert is_quiet(poller)
    peer.send(b"x")
    assert is_quiet(poller)
    desc.reset(READ)
    park(desc, READ, 2)
    assert poller.netpoll(-1) == [2]


def test_a_writable_descriptor_that_nobody_writes_to_falls_silent(poller, pair):
    desc, _ = pair
    park(desc, WRITE, 1)
    assert poller.netpoll(-1) == [1]
    assert drain(poller) == []
    assert armed(desc) & OUT == 0
    assert is_quiet(poller)


def test_a_hang_up_that_nobody_waits_for_is_reported_once(poller, pair):
    """The kernel cannot be told to keep a hang-up to itself."""
    desc, peer = pair
    park(desc, READ, 1)
    peer.close()
    assert poller.netpoll(-1) == [1]
    assert drain(poller) == []
    assert is_quiet(poller)
    desc.reset(READ)
    assert desc.wait(READ).commit(2) is False or poller.netpoll(-1) == [2]


def test_who_still_waits_stays_armed_when_the_other_is_woken(poller, pair):
    """A one-shot event disarms both directions in the kernel."""
    desc, peer = pair
    while True:  # until nothing fits: the writer has to wait
        try:
            os.set_blocking(desc.fd, False)
            os.write(desc.fd, bytes(65536))
        except BlockingIOError:
            break
    park(desc, WRITE, "writer")
    park(desc, READ, "reader")
    peer.send(b"x")
    assert poller.netpoll(-1) == ["reader"]
    assert drain(poller) == []
    assert armed(desc) & OUT, "the writer was forgotten"
    while True:
        try:
            peer.recv(1 << 20, socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
    assert poller.netpoll(-1) == ["writer"]


def test_an_aborted_waiter_leaves_a_descriptor_that_falls_silent(poller, pair):
    desc, peer = pair
    request = park(desc, READ, 1)
    assert request.abort(1)
    peer.send(b"x")
    assert drain(poller) == []
    assert armed(desc) == 0
    assert is_quiet(poller)
    assert desc.wait(READ).commit(2) is False, "that event is stored for the next wait"


def test_rearm_arms_for_nobody_yet(poller, pair):
    desc, peer = pair
    desc.rearm(READ)
    assert armed(desc) == READING
    desc.rearm(WRITE)
    assert armed(desc) == READING | WRITING
    peer.send(b"x")
    assert drain(poller) == []
    assert is_quiet(poller)
    assert desc.wait(READ).commit(1) is False
    desc.rearm()
    assert armed(desc) == READING | WRITING


@pytest.mark.parametrize("bad", [0, 4, -1])
def test_rearm_is_for_read_write_or_both(pair, bad):
    with pytest.raises(ValueError, match=f"mode {bad} is none of READ, WRITE, BOTH"):
        pair[0].rearm(bad)


def test_an_edge_is_never_armed_again(poller):
    with eventfd() as fd:
        desc = poller.open(fd, EDGE)
        with pytest.raises(ValueError, match="edge-triggered"):
            desc.rearm()
        assert armed(desc) == READING | WRITING
        retire(desc)


def test_a_number_that_was_closed_behind_our_back_is_an_error(poller, mode):
    fd = os.eventfd(0, os.EFD_CLOEXEC)
    desc = poller.open(fd, mode)
    os.close(fd)
    with pytest.raises(ClosedError):
        desc.wait(READ)
    with pytest.raises(OpError, match=r"^rearm fd \d+: "):
        desc.rearm(BOTH)
    assert poller.stats()["waiters"] == 0
    retire(desc)


def test_all_three_modes_live_on_one_poller(poller):
    fds = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(3)]
    descs = [poller.open(fd, mode) for fd, mode in zip(fds, (EDGE, LEVEL, ONESHOT), strict=True)]
    drain(poller)
    for n in range(3):
        for desc in descs:
            park(desc, READ, (n, desc.fd))
        for fd in fds:
            os.eventfd_write(fd, 1)
        assert sorted(drain(poller)) == sorted((n, fd) for fd in fds)
        for fd in fds:
            os.eventfd_read(fd)
    retire(*descs)
    for fd in fds:
        os.close(fd)


def test_closing_wakes_who_waits_in_any_mode(poller, pair):
    desc, _ = pair
    park(desc, READ, 1)
    park(desc, WRITE, 2)
    desc.evict()
    assert sorted(drain(poller)) == [1, 2]
    desc.rearm()  # no news to a closing descriptor
    with pytest.raises(ClosedError):
        desc.wait(READ)


def test_an_evicted_one_is_silent_until_it_is_closed(poller, pair):
    """L1: nobody will ever wait for it again, and its owner may take his time."""
    desc, peer = pair
    peer.send(b"x")
    desc.rearm(READ)
    park(desc, WRITE, 1)
    desc.evict()
    assert drain(poller) == [1]
    assert is_quiet(poller)
    peer.send(b"x")
    assert drain(poller) == []
    assert is_quiet(poller)
