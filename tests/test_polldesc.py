"""PollDesc: one waiter a direction, deadlines, eviction, and what becomes of a closed one.

Registration modes are in test_polldesc_modes.py; Timer and Note in test_polldesc_timers.py.
"""

import errno
import gc
import os
import socket
import sys
import time

import pytest

import gopoll
from gopoll import BOTH, READ, WRITE, ClosedError, InternalError, OpError, PollDesc, Poller
from helpers.polls import FAR, Waiter, drain, eventfd, park, references, retire


@pytest.fixture
def pair(poller):
    """A registered socket and its peer. The first edge, that it is writable, has been seen."""
    ours, peer = socket.socketpair()
    with ours, peer:
        desc = poller.open(ours.fileno())
        assert poller.netpoll(0) == []
        desc.reset(WRITE)
        yield desc, peer
        retire(desc)


modes = pytest.mark.parametrize("mode", [READ, WRITE], ids=["read", "write"])


# -- waiting ---------------------------------------------------------------------------------------


def test_a_descriptor_knows_its_number_and_its_poller(poller, pair):
    desc, _ = pair
    assert desc.poller is poller
    assert os.fstat(desc.fd)
    with pytest.raises(AttributeError):
        desc.fd = 1


@pytest.mark.parametrize("mode", [0, BOTH, -1, 4])
def test_a_wait_has_one_direction(pair, mode):
    desc, _ = pair
    for call in (desc.wait, desc.reset):
        with pytest.raises(ValueError, match=f"mode {mode} is neither READ nor WRITE"):
            call(mode)


@modes
def test_a_second_waiter_of_one_direction_is_corruption_and_says_so(poller, pair, mode):
    desc, _ = pair
    park(desc, mode, 1)
    with pytest.raises(InternalError) as caught:
        desc.wait(mode)
    assert str(caught.value) == "runtime: double wait"
    assert poller.stats()["waiters"] == 1, "the first one must still be there"
    park(desc, READ + WRITE - mode, 2)  # the other direction is free
    desc.evict()
    assert drain(poller) == [1, 2] if mode == READ else [2, 1]


@modes
def test_a_reset_below_a_waiter_is_corruption_and_loses_nobody(poller, pair, mode):
    desc, _ = pair
    park(desc, mode, 1)
    with pytest.raises(InternalError, match=r"^runtime: double wait$"):
        desc.reset(mode)
    desc.reset(READ + WRITE - mode)
    assert poller.stats()["waiters"] == 1
    desc.evict()
    assert drain(poller) == [1]


@modes
def test_a_reset_drops_an_announcement(pair, mode):
    """That nobody has committed, as after an exception in between."""
    desc, _ = pair
    desc.wait(mode)
    desc.reset(mode)
    assert desc.wait(mode).commit(1) is True


@modes
def test_two_announcements_are_a_double_wait_too(pair, mode):
    desc, _ = pair
    request = desc.wait(mode)
    with pytest.raises(InternalError, match=r"^runtime: double wait$"):
        desc.wait(mode)
    assert request.commit(1) is True


def test_readiness_that_came_first_is_consumed_by_one_wait(poller, pair):
    desc, peer = pair
    peer.send(b"x")
    assert poller.netpoll(0) == []
    assert desc.wait(READ).commit(1) is False, "it was ready"
    assert desc.wait(READ).commit(1) is True, "and is not any more"


def test_an_event_between_wait_and_commit_is_not_lost(poller, pair):
    desc, peer = pair
    request = desc.wait(READ)
    peer.send(b"x")
    assert poller.netpoll(0) == []
    assert request.commit(1) is False
    assert poller.stats()["waiters"] == 0
    desc.reset(READ)


def test_reset_drops_the_readiness_that_the_attempt_will_find_again(poller, pair):
    desc, peer = pair
    peer.send(b"x")
    poller.netpoll(0)
    desc.reset(READ)
    park(desc, READ, 1)


@modes
def test_an_announcement_that_is_given_up_leaves_room_for_the_next(poller, pair, mode):
    desc, _ = pair
    request = desc.wait(mode)
    assert request.abort(1) is True
    assert request.abort(1) is False, "there is nothing to take back"
    assert request.commit(1) is False
    park(desc, mode, 2)
    assert poller.stats()["waiters"] == 1


def test_only_the_waiter_that_is_parked_can_be_taken_back(poller, pair):
    desc, peer = pair
    one, two = Waiter("one"), Waiter("two")
    request = park(desc, READ, one)
    before = references(two)
    assert request.abort(two) is False
    assert references(two) == before
    peer.send(b"x")
    assert poller.netpoll(-1) == [one]


def test_a_request_serves_every_wait_of_its_direction(pair):
    desc, _ = pair
    reader, writer = park(desc, READ, 1), park(desc, WRITE, 2)
    assert reader is not writer
    assert isinstance(reader, gopoll.ParkRequest)
    assert reader.abort(1)
    assert writer.abort(2)
    assert park(desc, READ, 1) is reader
    assert park(desc, WRITE, 2) is writer


def test_any_object_may_wait(poller, pair):
    desc, peer = pair
    for waiter in (None, 7, "text", (), Poller, lambda: None):
        park(desc, READ, waiter)
        peer.send(b"x")
        [out] = poller.netpoll(-1)
        assert out is waiter
        os.read(desc.fd, 1)


def test_a_wake_up_that_stays_unread_comes_once_with_edges(poller, pair):
    """EDGE: the next event is the next arrival, not the bytes that are still there."""
    desc, peer = pair
    park(desc, READ, 1)
    peer.send(b"x")
    assert poller.netpoll(-1) == [1]
    park(desc, READ, 2)
    assert poller.netpoll(0) == []
    peer.send(b"x")
    assert poller.netpoll(-1) == [2]


# -- deadlines -------------------------------------------------------------------------------------


def fails_in_time(desc, mode):
    """Whether a wait of *mode* is past its deadline; if so, both ways to ask must say it."""
    try:
        desc.reset(mode)
    except TimeoutError:
        for call in (desc.reset, desc.wait):
            with pytest.raises(TimeoutError, match=r"^poll: i/o timeout$") as caught:
                call(mode)
            assert isinstance(caught.value, OpError)
        return True
    return False


@modes
def test_each_direction_has_its_own_deadline(poller, pair, mode):
    desc, _ = pair
    other = READ + WRITE - mode
    park(desc, mode, "expired")
    park(desc, other, "not yet")
    desc.set_deadline_ns(-1, mode)
    assert poller.netpoll(0) == ["expired"]
    assert fails_in_time(desc, mode)
    desc.set_deadline_ns(0, mode)
    assert not fails_in_time(desc, mode)
    assert poller.netpoll(0) == []


@pytest.mark.parametrize("when", [-(2**63), -1, 1])
def test_a_deadline_in_the_past_wakes_both_at_once(poller, pair, when):
    desc, _ = pair
    park(desc, READ, 1)
    park(desc, WRITE, 2)
    desc.set_deadline_ns(when)
    assert poller.netpoll(0) == [1, 2]
    assert fails_in_time(desc, READ)
    assert fails_in_time(desc, WRITE)
    assert poller.stats()["timers"] == 0


@modes
@pytest.mark.parametrize("ahead_ns", [1, 300_000, 2_000_000])
def test_a_deadline_is_never_early(poller, pair, mode, ahead_ns):
    desc, _ = pair
    when = time.monotonic_ns() + ahead_ns
    desc.set_deadline_ns(when, mode)
    try:
        park(desc, mode, 1)
    except TimeoutError:
        assert time.monotonic_ns() >= when
        return
    assert poller.netpoll(-1) == [1]
    assert time.monotonic_ns() >= when
    assert fails_in_time(desc, mode)


def test_a_deadline_may_be_moved_while_somebody_waits(poller, pair):
    desc, _ = pair
    start = time.monotonic_ns()
    park(desc, READ, 1)
    desc.set_deadline_ns(start + 1_000_000, READ)
    desc.set_deadline_ns(start + 4_000_000, READ)
    assert poller.stats()["timers"] == 1
    assert poller.netpoll(-1) == [1]
    assert time.monotonic_ns() >= start + 4_000_000
    desc.set_deadline_ns(FAR, READ)  # it may be moved after it has fired
    assert not fails_in_time(desc, READ)
    park(desc, READ, 2)
    desc.set_deadline_ns(time.monotonic_ns() + 500_000, READ)
    assert poller.netpoll(-1) == [2]


@pytest.mark.parametrize("mode", [0, 4, -1])
def test_a_deadline_is_for_read_write_or_both(pair, mode):
    with pytest.raises(ValueError, match=f"mode {mode} is none of READ, WRITE, BOTH"):
        pair[0].set_deadline_ns(1, mode)


# -- eviction and closing --------------------------------------------------------------------------


def test_an_eviction_wakes_both_and_ends_all_waiting(poller, pair):
    desc, _ = pair
    desc.set_deadline_ns(FAR)
    park(desc, READ, 1)
    park(desc, WRITE, 2)
    desc.evict()
    assert poller.netpoll(0) == [1, 2]
    for mode in (READ, WRITE):
        for call in (desc.reset, desc.wait):
            with pytest.raises(ClosedError, match=r"^poll: use of closed network connection$"):
                call(mode)
    desc.set_deadline_ns(FAR)  # no news to anybody: ignored, as in Go
    assert poller.stats()["timers"] == 0


def test_a_wait_that_was_announced_before_the_eviction_does_not_park(pair):
    desc, _ = pair
    request = desc.wait(READ)
    desc.evict()
    assert request.commit(1) is False
    with pytest.raises(ClosedError):
        desc.reset(READ)


def test_the_order_of_ends_is_go_s_and_its_breach_has_go_s_text(poller, pair):
    desc, _ = pair
    with pytest.raises(InternalError) as caught:
        desc.close()
    assert str(caught.value) == "runtime: close polldesc w/o unblock"
    park(desc, READ, 1)  # it is as it was
    desc.evict()
    with pytest.raises(InternalError) as caught:
        desc.evict()
    assert str(caught.value) == "runtime: unblock on closing polldesc"
    assert poller.netpoll(0) == [1]
    desc.close()
    desc.close()
    assert poller.stats()["descriptors"] == 0


def test_a_closed_one_says_so_in_every_method(pair):
    desc, _ = pair
    retire(desc)
    for call in (
        lambda: desc.reset(READ), lambda: desc.wait(WRITE), lambda: desc.set_deadline_ns(1),
        desc.evict, desc.rearm,
    ):  # fmt: skip
        with pytest.raises(ClosedError, match=r"^poll: use of closed network") as caught:
            call()
        assert caught.value.errno == errno.EBADF
    assert desc.close() is None


def test_one_that_was_never_opened_is_as_good_as_closed():
    desc = PollDesc.__new__(PollDesc)
    for call in (lambda: desc.reset(READ), lambda: desc.set_deadline_ns(1), desc.evict, desc.rearm):
        with pytest.raises(ClosedError):
            call()
    desc.close()


def test_a_request_never_reaches_the_next_owner_of_its_memory(poller, probe, pair):
    """P4: a closed pollDesc is the next one to be used."""
    desc, _ = pair
    address = probe.Desc.of(desc).address
    old = desc.wait(READ)
    retire(desc)
    with eventfd() as fd:
        following = poller.open(fd)
        assert probe.Desc.of(following).address == address, "the test is about nothing"
        drain(poller)
        new = following.wait(READ)
        assert old.commit("old") is False
        assert old.abort("old") is False
        assert new.commit("new") is True
        assert old.abort("new") is False
        os.eventfd_write(fd, 1)
        assert poller.netpoll(-1) == ["new"]
        retire(following)


def test_an_event_of_an_earlier_generation_wakes_nobody(poller, probe):
    """The registration outlives its descriptor through a dup: what it reports is stale (P4)."""
    with eventfd() as first, eventfd() as second:
        desc = poller.open(first)
        assert drain(poller) == []
        address = probe.Desc.of(desc).address
        dup = os.dup(first)
        os.close(first)  # before pollClose, as must not be: DEL finds nothing
        retire(desc)
        following = poller.open(second)
        assert probe.Desc.of(following).address == address
        drain(poller)
        park(following, READ, 1)
        os.eventfd_write(dup, 1)
        assert poller.netpoll(0) == []
        assert poller.stats()["stale"] == 1
        os.eventfd_write(second, 1)
        assert poller.netpoll(-1) == [1]
        retire(following)
        os.dup2(dup, first)
        os.close(dup)


def test_a_closed_descriptor_needs_no_collector(poller):
    """One a connection: cycles would pile up until the collector comes."""
    before = sys.getrefcount(poller)
    gc.disable()
    try:
        with eventfd() as fd:
            desc = poller.open(fd)
            drain(poller)
            park(desc, READ, 1)
            desc.wait(WRITE)  # makes the other request
            desc.evict()
            drain(poller)
            desc.close()
            del desc
        assert sys.getrefcount(poller) == before
    finally:
        gc.enable()


def test_a_number_may_be_opened_again_and_again(poller):
    with eventfd(1) as fd:
        for n in range(300):
            desc = poller.open(fd)
            assert poller.netpoll(0) == []
            assert desc.wait(READ).commit(n) is False
            park(desc, READ, n)
            retire(desc)
            assert poller.netpoll(0) == [n]
    assert poller.stats()["descriptors"] == 0


def test_closing_the_poller_first_is_survived(poller):
    with eventfd() as fd:
        desc = poller.open(fd)
        poller.close()
        desc.evict()
        desc.evict()
        desc.close()
        with pytest.raises(ClosedError, match="poller"):
            poller.open(fd)
