"""H1 to H6, H8, H9, H11 in every interleaving; and the checker sees the mistakes it is to see."""

import functools

import pytest

from model import chan, cond
from model.checker import ViolationError, explore

explore_chan = functools.partial(explore, finally_=chan.accounted)

RECV = [(0, 0)]
SEND = [(0, 1)]
SEND_2 = [(0, 2)]
EITHER = [(0, 0), (1, 0)]  # a select that receives from two
BOTH = [(0, 1), (1, 2)]  # a select that sends to one of two


def cancel(me):
    """Return who cancels operation *me*."""
    return functools.partial(chan.cancel, me=me)


def timeout(me):
    """Return the timer of operation *me*, a select."""
    return functools.partial(chan.timeout, me=me)


def close(c):
    """Return who closes channel *c*."""
    return functools.partial(chan.close, c=c)


# Operations; who else takes part; then what shared() is asked for.
RUNS = {
    "send, receive": ([SEND, RECV], [], {}),
    "send, receive, cancel the sender": ([SEND, RECV], [cancel(0)], {}),
    "send, receive, cancel the receiver": ([SEND, RECV], [cancel(1)], {}),
    "send, receive, cancel both": ([SEND, RECV], [cancel(0), cancel(1)], {}),
    "two send, cancel one": ([SEND, SEND_2, RECV], [cancel(0)], {}),
    "buffered": ([SEND, SEND_2, RECV], [], {"caps": (1, 0)}),
    "buffered, cancel": ([SEND, SEND_2, RECV], [cancel(1)], {"caps": (1, 0)}),
    "send, receive, close": ([SEND, RECV], [close(0)], {}),
    "two receive, close": ([RECV, RECV], [close(0)], {}),
    "two send, close": ([SEND, SEND_2], [close(0)], {}),
    "receive, cancel, close": ([RECV, RECV], [cancel(0), close(0)], {}),
    "select": ([EITHER, SEND], [], {"select": [0]}),
    "select, two send": ([EITHER, SEND, [(1, 2)]], [], {"select": [0]}),
    "select, cancel": ([EITHER, SEND], [cancel(0)], {"select": [0]}),
    "select, two send, cancel": ([EITHER, SEND, [(1, 2)]], [cancel(0)], {"select": [0]}),
    "select, close": ([EITHER, SEND], [close(1)], {"select": [0]}),
    "select, timeout": ([EITHER], [timeout(0)], {"select": [0], "timed": [0]}),
    "select of nothing, timeout": ([[]], [timeout(0)], {"select": [0], "timed": [0]}),
    "select, send, timeout, cancel": (
        [EITHER, SEND],
        [timeout(0), cancel(0)],
        {"select": [0], "timed": [0]},
    ),
    "select, timeout, close": (
        [EITHER, SEND],
        [timeout(0), close(1)],
        {"select": [0], "timed": [0]},
    ),
    "two selects": ([EITHER, BOTH], [], {"select": [0, 1]}),
    "two selects, buffered": ([EITHER, BOTH], [], {"select": [0, 1], "caps": (1, 0)}),
    "two selects, cancel": ([EITHER, BOTH], [cancel(0)], {"select": [0, 1]}),
    "two selects, cancel both": ([EITHER, BOTH], [cancel(0), cancel(1)], {"select": [0, 1]}),
    "a host cuts the receiver": ([RECV, SEND], [cancel(0)], {"hosts": [0]}),
    "a host cuts one of two": ([RECV, RECV, SEND], [cancel(0)], {"hosts": [0]}),
    "a host cuts both": ([RECV, RECV, SEND], [cancel(0), cancel(1)], {"hosts": [0, 1]}),
    "a host cuts both, two send": (
        [RECV, RECV, SEND, SEND_2],
        [cancel(0), cancel(1)],
        {"hosts": [0, 1]},
    ),
    "a host cuts, full": (
        [RECV, SEND, SEND_2, RECV],
        [cancel(0)],
        {"hosts": [0], "caps": (1, 0)},
    ),
    "a host cuts, two send": ([RECV, SEND, SEND_2, RECV], [cancel(0)], {"hosts": [0]}),
    "a host cuts, close": ([RECV, RECV, SEND], [cancel(0), close(0)], {"hosts": [0]}),
    "a host cuts a select": ([EITHER, SEND, RECV], [cancel(0)], {"select": [0], "hosts": [0]}),
    "a host cuts beside a select": (
        [RECV, SEND, EITHER],
        [cancel(0)],
        {"select": [2], "hosts": [0]},
    ),
    "a host cuts the sender": ([SEND, RECV], [cancel(0)], {"hosts": [0]}),
    "two selects, timeout": ([EITHER, BOTH], [timeout(0)], {"select": [0, 1], "timed": [0]}),
}


def operations(name, mutate=""):
    """Return what makes a run of RUNS[name]."""
    ops, others, asked = RUNS[name]

    def make():
        s = chan.shared(ops, mutate=mutate, **asked)
        goroutines = [chan.goroutine(s, me) for me in range(len(ops))]
        return s, [*goroutines, *(program(s) for program in others)]

    return make


@pytest.mark.parametrize("name", RUNS)
def test_no_value_and_no_wake_up_is_lost_or_doubled(name):
    assert explore_chan(operations(name)) > 10, "the programs have hardly met"


@pytest.mark.parametrize(
    ("mutate", "name", "text"),
    [
        ("abort what is done", "send, receive, cancel the sender", "made runnable"),
        ("abort what is done", "send, receive, cancel the receiver", "made runnable|has ended"),
        ("take without the claim", "select, cancel", "made runnable"),
        ("take without the claim", "two selects, cancel", "made runnable"),
        ("leave the losers", "select", "ends in a queue"),
        ("leave the losers", "select, timeout", "ends in a queue"),
        ("leave the losers", "two selects, cancel", "ends in a queue"),
        ("commit without a look", "send, receive", "a wake-up is lost"),  # H3
        ("commit without a look", "two receive, close", "a wake-up is lost"),
        ("commit without a look", "select", "a wake-up is lost"),
        ("enqueue one by one", "select, two send", "made runnable"),
        ("drop what is handed over", "send, receive, cancel the sender", "lost or doubled"),
        ("drop what is handed over", "buffered, cancel", "lost or doubled"),
        ("drop what is handed over", "select, cancel", "lost or doubled"),
        ("leave the sender", "buffered", "a wake-up is lost"),  # H5
        ("keep what is handed over", "a host cuts the receiver", "lost or doubled"),
        ("keep what is handed over", "a host cuts a select", "lost or doubled"),
        ("give back past who waits", "a host cuts one of two", "a wake-up is lost"),
        ("give back past who waits", "a host cuts beside a select", "a wake-up is lost"),
        ("give back in any order", "a host cuts both, two send", "out of order"),
        ("take in past the capacity", "a host cuts, two send", "no room"),
        ("close wakes one", "two receive, close", "a wake-up is lost"),
        ("close wakes one", "two send, close", "a wake-up is lost"),
        ("time out without the locks", "select, timeout", "a timeout is lost"),
        ("no lock of its own", "select of nothing, timeout", "a timeout is lost"),
    ],
)
def test_the_checker_sees_a_broken_channel(mutate, name, text):
    with pytest.raises(ViolationError, match=text):
        explore_chan(operations(name, mutate))


# -- Cond, in tasks of asyncio ---------------------------------------------------------------------


CONDS = {
    "broadcast": (2, [cond.broadcast]),
    "broadcast, cancel": (2, [cond.broadcast, functools.partial(cond.cancel, me=0)]),
    "broadcast, cancel both": (
        2,
        [cond.broadcast, *(functools.partial(cond.cancel, me=me) for me in range(2))],
    ),
    "signal, cancel": (2, [cond.signal_one, functools.partial(cond.cancel, me=0)]),
    "two signals, cancel": (
        2,
        [cond.signal_one, cond.signal_one, functools.partial(cond.cancel, me=0)],
    ),
}


def explore_cond(name, mutate=""):
    """Explore CONDS[name]."""
    n, others = CONDS[name]

    def make():
        s = cond.shared(n, mutate=mutate)
        return s, [*(cond.wait(s, me) for me in range(n)), *(program(s) for program in others)]

    return explore(make, finally_=cond.accounted)


@pytest.mark.parametrize("name", CONDS)
def test_no_signal_no_cancellation_and_no_mutex_is_lost(name):
    assert explore_cond(name) > 10, "the programs have hardly met"


@pytest.mark.parametrize(
    ("mutate", "name", "text"),
    [
        ("one waiter", "broadcast, cancel", "about to wake"),
        ("one waiter", "signal, cancel", "about to wake"),
        ("drop the cancellation", "signal, cancel", "a cancellation is lost"),
        ("keep the signal", "signal, cancel", "a signal is lost"),
    ],
)
def test_the_checker_sees_a_broken_cond(mutate, name, text):
    with pytest.raises(ViolationError, match=text):
        explore_cond(name, mutate)
