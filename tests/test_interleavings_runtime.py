"""G1, S1 and S2 in every interleaving; and the checker sees the mistakes it is there for."""

import functools

import pytest

from model import cancel, deep, inject
from model.checker import ViolationError, explore

# -- G1: cancellation against park, wake-up and resume ---------------------------------------------

KINDS = {
    "note": {},
    "note, yielded again": {"same": True},
    "descriptor": {"announced": True},
    "descriptor, the same operation": {"announced": True, "same": True},
}
explore_cancel = functools.partial(explore, finally_=cancel.told)


def goroutine(kind, *, mutate="", cancels=1, events=1, cancel_mutate=""):
    """Return what makes a run of two Ms, who cancels, and readiness for the first park."""

    def make():
        s = cancel.shared(**KINDS[kind])
        programs = [cancel.machine(s, mutate) for _ in range(2)]
        programs += [cancel.cancel(s, cancel_mutate) for _ in range(cancels)]
        return s, programs + [cancel.event(s) for _ in range(events)]

    return make


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("cancels", "events"), [(1, 0), (1, 1), (2, 1)])
def test_a_cancel_is_never_lost_and_makes_nobody_run_twice(kind, cancels, events):
    states = explore_cancel(goroutine(kind, cancels=cancels, events=events))
    assert states > 50, "the programs have hardly met"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("mutate", "text"),
    [
        ("publish last", "stays parked"),
        ("queue whoever took it", "made runnable twice|resumed while it runs"),
        ("do not look at the resume", "went on"),
    ],
)
def test_the_checker_sees_a_broken_parker(kind, mutate, text):
    with pytest.raises(ViolationError, match=text):
        explore_cancel(goroutine(kind, mutate=mutate))


@pytest.mark.parametrize("kind", ["note", "note, yielded again"])
def test_the_checker_sees_a_parker_that_looks_before_it_commits(kind):
    """A descriptor's announcement would hide it: the abort makes its commit fail."""
    with pytest.raises(ViolationError, match="stays parked"):
        explore_cancel(goroutine(kind, mutate="look before commit"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("mutate", "text"),
    [
        ("abort before the state", "stays parked"),
        ("ready whoever took it", "made runnable twice|resumed while it runs"),
    ],
)
def test_the_checker_sees_a_broken_cancel(kind, mutate, text):
    with pytest.raises(ViolationError, match=text):
        explore_cancel(goroutine(kind, cancel_mutate=mutate))


# -- S1: who blocks in the network against who adds to the global queue ----------------------------

explore_inject = functools.partial(explore, finally_=inject.nobody_blocks_beside_work)


def scheduler(*programs, mutate="", inited=1):
    """Return what makes a run of the M that blocks and of *programs*."""

    def make():
        s = inject.shared(inited)
        return s, [inject.blocker(s, mutate), *(program(s) for program in programs)]

    return make


@pytest.mark.parametrize("inited", [0, 1])
@pytest.mark.parametrize(
    "programs",
    [
        [inject.injector],
        [inject.injector, inject.injector],
        [inject.sysmon],
        [inject.sysmon, inject.injector],
        [inject.sysmon, inject.sysmon],
    ],
)
def test_nobody_blocks_in_the_network_over_queued_work(programs, inited):
    assert explore_inject(scheduler(*programs, inited=inited)) > 10


@pytest.mark.parametrize(
    ("mutate", "program", "inited"),
    [
        ("look before zero", inject.injector, 1),
        ("", functools.partial(inject.injector, mutate="break before queue"), 1),
        ("", functools.partial(inject.injector, mutate="no break before the first poll"), 0),
    ],
)
def test_the_checker_sees_a_broken_hand_over(mutate, program, inited):
    with pytest.raises(ViolationError, match="everybody sleeps over queued work"):
        explore_inject(scheduler(program, mutate=mutate, inited=inited))


def test_the_checker_sees_a_sysmon_that_overwrites_lastpoll():
    """A plain store hides that somebody has blocked since: the next to add breaks nobody."""
    careless = functools.partial(inject.sysmon, mutate="store lastpoll without cas")
    with pytest.raises(ViolationError, match="everybody sleeps over queued work"):
        explore_inject(scheduler(careless, inject.injector))


# -- S2: sysmon's deep sleep against leaving idleness ----------------------------------------------

explore_deep = functools.partial(explore, finally_=deep.somebody_watches)


def watched(*programs, npidle=1, mutate=""):
    """Return what makes a run of sysmon and *programs*."""

    def make():
        s = deep.shared(npidle)
        return s, [deep.sysmon(s, mutate), *(program(s) for program in programs)]

    return make


@pytest.mark.parametrize(
    ("npidle", "programs"),
    [
        (1, [deep.leaver]),
        (1, [deep.stopper]),
        (1, [deep.leaver, deep.stopper]),
        (2, [deep.leaver, deep.leaver]),
        (2, [deep.leaver, deep.back_and_forth]),
        (2, [deep.leaver, deep.leaver, deep.stopper]),
    ],
)
def test_nobody_computes_while_sysmon_sleeps_and_it_ends_with_the_run(npidle, programs):
    assert explore_deep(watched(*programs, npidle=npidle)) > 10


@pytest.mark.parametrize(
    ("mutate", "program", "text"),
    [
        ("look before set", deep.leaver, "sleeps while a program computes"),
        ("read the note last", deep.leaver, "sleeps while a program computes"),
        ("", functools.partial(deep.leaver, mutate="check before lower"), "while a program"),
        ("", functools.partial(deep.leaver, mutate="no wake"), "while a program computes"),
        ("read the note last", deep.stopper, "outlives its run"),
        ("do not look at stop", functools.partial(deep.stopper, mutate="note before stop"), "outl"),
        ("", functools.partial(deep.stopper, mutate="note before stop"), "outlives its run"),
    ],
)
def test_the_checker_sees_a_broken_deep_sleep(mutate, program, text):
    with pytest.raises(ViolationError, match=text):
        explore_deep(watched(program, mutate=mutate))
