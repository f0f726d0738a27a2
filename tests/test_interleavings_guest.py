"""P8 and Q4 in every interleaving: a guest's host never sleeps over work."""

import functools

import pytest

from model import turn
from model.checker import ViolationError, explore

explore_turn = functools.partial(explore, finally_=turn.host_is_told)


def guest(*programs, mutate=""):
    """Return what makes a run of a host and *programs*."""

    def make():
        s = turn.shared()
        return s, [turn.host(s, mutate), *(program(s) for program in programs)]

    return make


@pytest.mark.parametrize(
    "programs",
    [
        [turn.push],
        [turn.queue],
        [turn.arm],
        [turn.push, turn.push],
        [turn.push, turn.queue],
        [turn.queue, turn.queue],
        [turn.queue, turn.arm],
        [turn.push, turn.arm],
        [turn.push, turn.queue, turn.arm],
    ],
    ids=lambda programs: "+".join(p.__name__ for p in programs),
)
def test_the_host_is_told_of_all_work(programs):
    assert explore_turn(guest(*programs)) > 20


@pytest.mark.parametrize(
    ("mutate", "programs"),
    [
        ("look before watched", [turn.push, turn.push]),
        ("look before watched", [turn.push, turn.arm]),
        ("look before lastpoll", [turn.push, turn.queue]),
    ],
)
def test_a_host_that_looks_too_early_sleeps_over_work(mutate, programs):
    with pytest.raises(ViolationError):
        explore_turn(guest(*programs, mutate=mutate))


@pytest.mark.parametrize(
    ("program", "mutate"),
    [(turn.push, "tell before push"), (turn.queue, "kick before queue")],
)
def test_who_tells_before_there_is_work_is_found(program, mutate):
    with pytest.raises(ViolationError):
        explore_turn(guest(functools.partial(program, mutate=mutate)))
