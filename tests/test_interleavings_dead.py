"""S8 and J3 in every interleaving; and the checker sees the mistakes it is there for."""

import functools

import pytest

from model import dead, ending
from model.checker import ViolationError, explore

# -- S8: who looks for a deadlock, beside what is on no list ---------------------------------------

explore_dead = functools.partial(explore, finally_=dead.told)

RUNS = {
    "two that wait": ([], {"scripts": ["NF"], "busy": 2, "ps": 2}),
    "a call, two Ps": ([], {"scripts": ["FF"], "calls": [1], "busy": 2, "ps": 2}),
    "without its P": ([], {"scripts": ["LNF"]}),
    "without its P, for ever": ([], {"scripts": ["LF"]}),
    "sysmon": ([dead.sysmon], {"scripts": ["N."], "waits": True}),
    "sysmon and a call": ([dead.sysmon], {"scripts": ["FF"], "calls": [1]}),
    "sysmon beside one thread": (
        [dead.sysmon],
        {"scripts": ["NFF"], "calls": [1], "ms": 1, "handoff": False},
    ),
    "sysmon beside one that waits": ([dead.sysmon], {"scripts": ["F"], "ms": 1}),
}


def scheduler(name, mutate=""):
    """Return what makes a run of the Ms and of what else takes part in RUNS[name]."""
    others, asked = RUNS[name]

    def make():
        s = dead.shared(mutate=mutate, **asked)
        machines = [dead.machine(s, m) for m in range(1, len(s.p))]
        return s, [*machines, *(program(s) for program in others)]

    return make


@pytest.mark.parametrize("name", RUNS)
def test_a_deadlock_is_told_where_there_is_one_and_nowhere_else(name):
    assert explore_dead(scheduler(name)) > 50, "the programs have hardly met"


@pytest.mark.parametrize(
    ("mutate", "name", "text"),
    [
        ("nothing in hand", "two that wait", "told that is none"),
        ("nothing in hand", "a call, two Ps", "told that is none"),
        ("lastpoll before handing", "two that wait", "told that is none"),
        ("handing after the lists", "sysmon beside one thread", "told that is none"),
        ("sysmon counts late", "sysmon", "told that is none"),
        ("settling is not seen", "without its P", "told that is none"),  # A4
        ("taken is not seen", "sysmon", "told that is none"),
        ("sysmon leaves in silence", "sysmon beside one that waits", "nobody tells"),
    ],
)
def test_the_checker_sees_a_deadlock_that_is_none_or_is_not_told(mutate, name, text):
    with pytest.raises(ViolationError, match=text):
        explore_dead(scheduler(name, mutate))


# -- J3: a run that ends, beside what is started in it ---------------------------------------------

explore_ending = functools.partial(explore, finally_=ending.ended)


def run(goroutines, *others, mutate=""):
    """Return what makes a run of two Ms, *goroutines* and what else starts some."""

    def make():
        s = ending.shared(goroutines, mutate)
        return s, [ending.machine(s), ending.machine(s), *(program(s) for program in others)]

    return make


@pytest.mark.parametrize(
    ("goroutines", "others"),
    [
        (["g"], []),
        (["p"], []),
        (["p", "g"], []),
        (["pp"], []),
        ([""], [ending.finaliser]),
        ([""], [ending.outside]),
        (["p"], [ending.finaliser]),
    ],
)
def test_what_is_started_while_a_run_ends_is_run_or_refused(goroutines, others):
    assert explore_ending(run(goroutines, *others)) > 50, "the programs have hardly met"


@pytest.mark.parametrize(
    ("mutate", "goroutines", "others", "text"),
    [
        ("post uncounted", ["p"], [], "never"),
        ("never too late", [""], [ending.finaliser], "a goroutine is never run"),
        ("look before count", [""], [ending.finaliser], "a goroutine is never run"),
        ("look, then end", [""], [ending.finaliser], "a goroutine is never run"),
        ("look, then end", [""], [ending.outside], "never"),
    ],
)
def test_the_checker_sees_a_run_that_leaves_something(mutate, goroutines, others, text):
    with pytest.raises(ViolationError, match=text):
        explore_ending(run(goroutines, *others, mutate=mutate))
