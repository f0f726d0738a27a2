"""A1, A2, A7, S3 and S4 in every interleaving; and the checker sees the mistakes it is to see."""

import functools

import pytest

from model import handoff
from model.checker import ViolationError, explore

explore_sched = functools.partial(explore, always=handoff.one_owner, finally_=handoff.nothing_left)

SYSMON = handoff.sysmon


def outside(g):
    """Return a plain thread that makes *g* runnable."""
    return functools.partial(handoff.outside, g=g)


def event(g):
    """Return a network that has something for *g*."""
    return functools.partial(handoff.event, g=g)


# What else takes part; then what shared() is asked for.
RUNS = {
    "retake": ([SYSMON], {"scripts": [["Y", "."]], "ms": 2, "busy": [1], "queued": [1]}),
    "retake and queue again": (
        [SYSMON],
        {"scripts": [["Q", "."]], "ms": 2, "busy": [1], "queued": [1]},
    ),
    "retake at the limit": (
        [SYSMON],
        {"scripts": [["Y", "."]], "ms": 1, "busy": [1], "queued": [1]},
    ),
    "retake from one that readies": (
        [SYSMON],
        {"scripts": [["2."], ["."]], "ms": 2, "busy": [1], "queued": [1]},
    ),
    "syscall": ([], {"scripts": [["()."]], "ms": 2, "busy": [1], "queued": [1]}),
    "syscall beside work": (
        [],
        {"scripts": [["()."], ["."]], "ms": 2, "busy": [1], "queued": [1, 2]},
    ),
    "syscall beside the network": (
        [event(2)],
        {"scripts": [["()."], ["."]], "ms": 2, "busy": [1], "queued": [1]},
    ),
    "retake from one that readies and computes on": (
        [SYSMON],
        {"scripts": [["2b2."], ["."]], "ms": 2, "busy": [1], "queued": [1]},
    ),
    "one that looks and one that computes": (
        [],
        {"scripts": [["2b2."], ["."]], "ms": 2, "ps": 2, "busy": [1, 2], "queued": [1]},
    ),
    "from outside": ([outside(1)], {"scripts": [["."]], "ms": 2, "busy": [1]}),
    "from outside, two Ps": ([outside(1)], {"scripts": [["."]], "ms": 2, "ps": 2, "busy": [1]}),
    "two that poll": ([], {"scripts": [], "ms": 2, "ps": 2, "busy": [1, 2], "polls": True}),
    "two that steal": (
        [],
        {"scripts": [["2b2."], ["."]], "ms": 2, "ps": 2, "busy": [1], "queued": [1]},
    ),
    "from outside, beside one that computes": (
        [outside(2)],
        {"scripts": [["b2."], ["."]], "ms": 2, "ps": 2, "busy": [1], "queued": [1]},
    ),
}
# Too large to be seen through in a quick run; mistakes are found in it soon.
RUNS_MUTATED = {
    **RUNS,
    "syscall and retake": (
        [SYSMON],
        {"scripts": [["()."]], "ms": 2, "busy": [1], "queued": [1]},
    ),
}


def scheduler(name, mutate=""):
    """Return what makes a run of the Ms and of what else takes part in RUNS_MUTATED[name]."""
    others, asked = RUNS_MUTATED[name]

    def make():
        s = handoff.shared(mutate=mutate, **asked)
        machines = [handoff.machine(s, m) for m in range(1, asked["ms"] + 1)]
        return s, [*machines, *(program(s) for program in others)]

    return make


@pytest.mark.parametrize("name", RUNS)
def test_a_p_has_one_owner_and_no_goroutine_is_lost_or_run_twice(name):
    assert explore_sched(scheduler(name)) > 400, "the programs have hardly met"


@pytest.mark.parametrize(
    ("mutate", "name", "text"),
    [
        ("leave without cas", "retake", "own one P|gives away"),
        ("leave without cas", "retake from one that readies", "own one P|gives away"),
        ("retake without cas", "retake", "own one P|gives away"),
        ("no tick", "retake", "a slice is retaken that has just begun"),  # A7
        ("keep the lost P", "retake", "gives away"),
        ("enter without cas", "syscall and retake", "gives away"),
        (
            "no look after the push",
            "retake from one that readies and computes on",
            "beside an idle",
        ),
        ("kick before the push", "from outside", "beside an idle P"),
        ("look before npidle", "one that looks and one that computes", "beside an idle P"),
        ("look before lower", "one that looks and one that computes", "beside an idle P"),
        ("stop without a look", "retake", "beside an idle P"),
        ("at the limit and do not look", "retake at the limit", "beside an idle P"),
        ("at the limit and do not look", "syscall", "is lost"),
        ("note before nextp", "retake", "a P is lost"),
        ("block without a look", "syscall", "is lost"),
        ("wait for a P in silence", "syscall", "is lost"),
        ("nobody need poll", "retake at the limit", "nobody watches the network"),
        ("poll stores lastpoll", "two that poll", "two Ms block"),
    ],
)
def test_the_checker_sees_a_broken_scheduler(mutate, name, text):
    with pytest.raises(ViolationError, match=text):
        explore_sched(scheduler(name, mutate))


# -- S3: an M that has counted itself in nmspinning and has found no P -----------------------------


def wakes(s):
    """Whoever has seen an idle P: stop_spinning, kick."""
    yield
    if s.npidle:
        yield from handoff.wakep(s, handoff.OUTSIDE)


def readies(s):
    """M 1, on P 0, makes goroutine 1 runnable, and computes on."""
    yield from handoff.ready_g(s, 1, 1)


def comes_and_goes(s, m=2):
    """M 2 finds nothing, is woken in the network for nothing, and finds nothing again."""
    for turn in range(2):
        p, s.p[m] = s.p[m], handoff.NO_P
        yield from handoff.pidleput(s, p, m)
        found = yield from handoff.work_anywhere(s)
        if not (found or turn == 0) or not (yield from handoff.acquirep(s, m)):
            return


def not_beside(s, blocked):
    """Everybody waits: no work beside an idle P."""
    del blocked
    return "a goroutine is queued beside an idle P" if "queued" in s.at and s.npidle else None


def three(mutate=""):
    """Return what makes a run of the three, with one more M to be started."""

    def make():
        s = handoff.shared([["."]], ms=3, ps=2, busy=(1, 2), spare=1, mutate=mutate)
        s.soon = 1  # the queues have a runnext, as no script says
        return s, [wakes(s), readies(s), comes_and_goes(s)]

    return make


def test_who_finds_no_p_looks_again_after_it_has_counted():
    explored = explore(three(), always=handoff.one_owner, finally_=not_beside)
    assert explored > 400, "the programs have hardly met"


def test_the_checker_sees_one_that_finds_no_p_and_does_not_look():
    with pytest.raises(ViolationError, match="beside an idle P"):
        explore(three("wake nobody and do not look"), always=handoff.one_owner, finally_=not_beside)
