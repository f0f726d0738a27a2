"""P1, P3, P5, P6, L1, R1 in every interleaving; the checker sees the mistakes it is there for."""

import functools

import pytest

from model import drained, level, park, sleep
from model.checker import ViolationError, explore

explore_park = functools.partial(explore, always=park.counted, finally_=park.settled)
explore_level = functools.partial(explore, always=level.no_spin, finally_=level.nobody_forgotten)
explore_drained = functools.partial(explore, finally_=drained.all_was_read)
explore_sleep = functools.partial(explore, finally_=sleep.nobody_sleeps_beside_work)

# Who acts beside a waiter that tries, waits and tries again.
OTHERS = {
    "event": [park.event],
    "close": [park.evict],
    "deadline": [lambda s, mutate="": park.set_deadline(s, -1, mutate)],
    "abort": [park.abort],
    "event and event": [park.event, park.event],
    "spurious event and event": [lambda s, mutate="": park.event(s, False, mutate), park.event],
    "event and close": [park.event, park.evict],
    "event and deadline": [park.event, lambda s, mutate="": park.set_deadline(s, -1, mutate)],
    "event and abort": [park.event, park.abort],
    "close and deadline": [park.evict, lambda s, mutate="": park.set_deadline(s, -1, mutate)],
    "close and abort": [park.evict, park.abort],
    "deadline and abort": [lambda s, mutate="": park.set_deadline(s, -1, mutate), park.abort],
    "event and look": [park.event, park.look],
    "spurious event, event and look": [
        lambda s, mutate="": park.event(s, False, mutate),
        park.event,
        park.look,
    ],
    "abort and look": [park.abort, park.look],
    "deadline passed and moved": [
        lambda s, mutate="": park.set_deadline(s, -1, mutate),
        lambda s, mutate="": park.set_deadline(s, 9, mutate),
    ],
}


def with_waiter(others, mutate=""):
    """Return what makes a run of a waiter and *others*."""

    def make():
        s = park.shared()
        return s, [park.waiter(s, mutate), *(program(s, mutate=mutate) for program in others)]

    return make


@pytest.mark.parametrize("others", OTHERS.values(), ids=OTHERS)
def test_no_wake_up_is_lost_and_no_waiter_comes_out_twice(others):
    states = explore_park(with_waiter(others))
    assert states > 20, "the programs have hardly met"


@pytest.mark.parametrize(
    ("mutate", "others", "text"),
    [
        ("check before store", "close", "lost wake-up"),
        ("check before store", "deadline", "lost wake-up"),
        ("unblock before publish", "close", "lost wake-up"),
        ("unblock before publish", "deadline", "lost wake-up"),
        ("commit without cas", "event", "lost wake-up"),
        ("commit without cas", "close", "lost wake-up"),
        ("unblock without cas", "event", "never be woken|lost wake-up"),
        ("unblock without cas", "event and close", "twice|never be woken|lost wake-up"),
        ("abort without cas", "event and abort", "came out twice|not counted"),
        ("look at parks first", "event and look", "is not seen"),
    ],
)
def test_the_checker_sees_a_broken_park_protocol(mutate, others, text):
    with pytest.raises(ViolationError, match=text):
        explore_park(with_waiter(OTHERS[others], mutate))


def sleepers(*programs, count=1, mutate=""):
    """Return what makes a run of *count* sleepers and *programs*."""

    def make():
        s = sleep.shared()
        return s, [*(sleep.sleeper(s, mutate) for _ in range(count)), *(p(s) for p in programs)]

    return make


@pytest.mark.parametrize(
    ("count", "programs"),
    [
        (1, [sleep.push]),
        (1, [sleep.arm]),
        (1, [sleep.push, sleep.push]),
        (1, [sleep.push, sleep.arm]),
        (1, [sleep.rearm, sleep.push]),
        (2, [sleep.push]),
        (2, [sleep.arm]),
        (2, [sleep.push, sleep.push]),
        (2, [sleep.rearm]),
    ],
)
def test_nobody_sleeps_with_work_pending(count, programs):
    assert explore_sleep(sleepers(*programs, count=count)) > 20


@pytest.mark.parametrize(
    ("mutate", "programs"),
    [
        ("look before count", [sleep.push]),
        ("look before count", [sleep.arm]),
        ("clear before read", [sleep.push, sleep.push, sleep.push]),
        ("", [functools.partial(sleep.push, mutate="wake before push")]),
        ("", [functools.partial(sleep.rearm, mutate="rearm in silence")]),
    ],
)
def test_the_checker_sees_a_broken_sleep_protocol(mutate, programs):
    with pytest.raises(ViolationError, match=r"everybody sleeps|nobody knows"):
        explore_sleep(sleepers(*programs, mutate=mutate))


# -- L1: level-triggered and one-shot descriptors --------------------------------------------------

READER = functools.partial(level.waiter, way=level.READ)
WRITER = functools.partial(level.waiter, way=level.WRITE)
LOOKER = functools.partial(level.waiter, way=level.READ, reads=False)  # leaves the bytes unread
BYTES = functools.partial(level.send, way=level.READ)
THIEF = functools.partial(level.steal, way=level.READ)
ROOM = functools.partial(level.send, way=level.WRITE)
L1 = {
    "a reader": [READER, BYTES],
    "bytes for nobody": [BYTES, BYTES],
    "bytes that stay": [LOOKER, BYTES, BYTES],
    "bytes that another takes": [READER, BYTES, THIEF, BYTES],
    "another takes them beside a writer": [READER, WRITER, BYTES, THIEF],
    "a reader and a writer": [READER, WRITER, BYTES, ROOM],
    "a writer that waits on": [READER, WRITER, BYTES],
    "a close": [READER, BYTES, level.evict],
    "a close with bytes that stay": [LOOKER, BYTES, level.evict],
}


def with_poller(mode, programs, mutate="", pollers=1):
    """Return what makes a run of *programs* beside *pollers* that poll a descriptor of *mode*."""

    def make():
        s = level.shared(mode, mutate)
        return s, [*(level.poller(s) for _ in range(pollers)), *(p(s) for p in programs)]

    return make


@pytest.mark.parametrize("mode", ["level", "oneshot"])
@pytest.mark.parametrize("pollers", [1, 2])
@pytest.mark.parametrize("case", L1)
def test_no_waiter_is_left_unarmed_and_nothing_spins(mode, pollers, case):
    assert explore_level(with_poller(mode, L1[case], pollers=pollers)) >= 4


@pytest.mark.parametrize(
    ("mutate", "mode", "case", "text"),
    [
        ("silence unseen", "level", "bytes that another takes", "left unarmed"),
        ("silence unseen", "oneshot", "a writer that waits on", "left unarmed"),
        ("settle without lock", "level", "bytes that another takes", "left unarmed"),
        ("settle without lock", "oneshot", "another takes them beside a writer", "left unarmed"),
        ("arm before announce", "level", "bytes that another takes", "left unarmed"),
        ("arm before announce", "oneshot", "a reader and a writer", "left unarmed"),
        ("forget the other", "oneshot", "a reader and a writer", "left unarmed"),
        ("never silence", "level", "bytes that stay", "spins"),
        ("close it armed", "level", "a close with bytes that stay", "spins"),
    ],
)
def test_the_checker_sees_a_broken_arming(mutate, mode, case, text):
    with pytest.raises(ViolationError, match=text):
        explore_level(with_poller(mode, L1[case], mutate))


# What arrives on a socket that is read in buffers of two bytes.
DATA = functools.partial(drained.arrive, bytes_=1)
MORE_DATA = functools.partial(drained.arrive, bytes_=3)
DATA_AND_FIN = functools.partial(drained.arrive, bytes_=1, fin=True)
FIN = functools.partial(drained.arrive, fin=True)
BEHIND_URGENT = functools.partial(drained.arrive, bytes_=2, urgent=True)
ARRIVALS = {
    "data": [DATA],
    "data twice": [DATA, DATA],
    "more than one buffer": [MORE_DATA],
    "data and FIN in one": [DATA_AND_FIN],
    "data, then FIN": [DATA, FIN],
    "more, then FIN": [MORE_DATA, FIN],
    "urgent data": [DATA, BEHIND_URGENT],
}


def socket_read(arrivals, beside=(), mutate=""):
    """Return what makes a run of a reader, a poller, what arrives, and *beside*."""

    def in_order(s):
        for each in arrivals:
            yield from each(s)

    def make():
        s = drained.shared()
        s.arriving = len(arrivals)
        others = [program(s) for program in beside]
        return s, [drained.reader(s, mutate), drained.poller(s, mutate), in_order(s), *others]

    return make


@pytest.mark.parametrize("beside", [(), (drained.cancel,), (drained.expire,)])
@pytest.mark.parametrize("arrivals", ARRIVALS.values(), ids=ARRIVALS)
def test_a_short_read_hides_nothing(arrivals, beside):
    """R1: what has come in is read, whatever the order of edges, reads and cancellations."""
    assert explore_drained(socket_read(arrivals, beside)) > 20


@pytest.mark.parametrize(
    ("mutate", "arrivals", "beside"),
    [
        ("nothing of more", "data and FIN in one", ()),
        ("nothing of more", "urgent data", ()),
        ("more after ready", "data and FIN in one", ()),
        ("dropped readiness", "data twice", ()),
        ("kept over a cancel", "data twice", (drained.expire,)),
    ],
)
def test_the_checker_sees_a_short_read_that_is_relied_on_wrongly(mutate, arrivals, beside):
    with pytest.raises(ViolationError, match="lost: "):
        explore_drained(socket_read(ARRIVALS[arrivals], beside, mutate))
