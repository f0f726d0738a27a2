"""P1, P3, P5 and P6 in every interleaving; and the checker sees the mistakes it is there for."""

import functools

import pytest

from model import park, sleep
from model.checker import ViolationError, explore

explore_park = functools.partial(explore, always=park.counted, finally_=park.settled)
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
