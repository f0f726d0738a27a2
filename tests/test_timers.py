"""The heap of deadlines against a dictionary that is sorted when asked."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from plugins.probe import load

NODES = 12
nodes = st.integers(0, NODES - 1)
# Few distinct times, so that equal ones are common; some far away.
times = st.one_of(st.integers(1, 20), st.integers(1, 2**62))
seqs = st.integers(0, 2**64 - 1)


class HeapMachine(RuleBasedStateMachine):
    """Every call of the heap, in any order; `when` is all the model knows of a node.

    asleep: until when a poller that has asked next() would sleep; None if it is awake.
    """

    def __init__(self):
        super().__init__()
        self.heap = load().Heap(NODES)
        self.when = {}
        self.seq = {}
        self.asleep = None

    @rule(i=nodes, when=times, seq=seqs)
    def arm(self, i, when, seq):
        is_first = self.heap.arm(i, when, seq)
        self.when[i], self.seq[i] = when, seq
        if is_first:
            self.asleep = None
        assert self.asleep is None or when >= self.asleep, "a sleeper would not be told"

    @precondition(lambda self: self.when)
    @rule(data=st.data(), more=st.integers(0, 2**61))
    def later(self, data, more):
        i = data.draw(st.sampled_from(sorted(self.when)))
        first = self.heap.first
        self.when[i] += more
        self.heap.later(i, self.when[i])
        assert self.heap.first == first, "a move to later touched the heap"

    @rule(i=nodes, when=times)
    def move(self, i, when):
        assert self.heap.move(i, when) == (i in self.when)
        if i in self.when:
            self.when[i] = when
            self.asleep = None  # the caller always tells

    @rule(i=nodes)
    def stop(self, i):
        assert self.heap.stop(i) == (i in self.when)
        self.when.pop(i, None)

    @rule()
    def next(self):
        until = self.heap.next()
        assert until == min(self.when.values(), default=0)
        self.asleep = until or 2**63

    @rule(now=times, cap=st.integers(1, 6))
    def due(self, now, cap):
        """Never early, never late, the earliest first; equal times come in any order."""
        self.asleep = None
        got = self.heap.due(now, cap)
        expected = sorted(when for when in self.when.values() if when <= now)[:cap]
        assert [self.when[i] for _, i in got] == expected
        assert [seq for seq, _ in got] == [self.seq[i] for _, i in got]
        for _, i in got:
            del self.when[i]

    @rule()
    def pop_any(self):
        got = self.heap.pop_any()
        assert (got is None) == (not self.when)
        if got:
            assert got[0] == self.seq[got[1]]
            del self.when[got[1]]

    @invariant()
    def is_a_heap(self):
        self.heap.check()
        assert len(self.heap) == len(self.when)
        assert self.heap.first <= min(self.when.values(), default=0)


TestHeap = HeapMachine.TestCase
TestHeap.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


@given(whens=st.lists(st.integers(1, 1000), max_size=300))
@settings(deadline=None)
def test_everything_comes_out_in_order(whens):
    heap = load().Heap(len(whens))
    for i, when in enumerate(whens):
        heap.arm(i, when)
    heap.check()
    out = []
    while got := heap.due(1000):
        out += [whens[i] for _, i in got]
    assert out == sorted(whens)


def test_a_timer_is_due_at_its_time_and_not_a_nanosecond_before(probe):
    heap = probe.Heap(1)
    heap.arm(0, 1000)
    assert heap.due(999) == []
    assert heap.due(1000) == [(0, 0)]
    assert heap.due(1000) == []


def test_a_timer_moved_later_does_not_fire_at_its_old_time(probe):
    heap = probe.Heap(2)
    heap.arm(0, 10)
    heap.arm(1, 15)
    heap.later(0, 20)
    assert heap.due(15) == [(0, 1)]
    assert heap.next() == 20
    assert heap.due(20) == [(0, 0)]


def test_a_timer_moved_later_and_earlier_again_is_not_late(probe):
    """Its key is still the oldest time: an earlier arm must not be lost behind it."""
    heap = probe.Heap(2)
    heap.arm(0, 10)
    heap.arm(1, 30)
    heap.later(0, 100)
    assert heap.next() == 30
    assert heap.arm(0, 20) == 1
    assert heap.next() == 20


def test_an_earlier_timer_is_first_and_a_later_one_is_not(probe):
    """timer_arm's answer decides whether a sleeper is woken (P5)."""
    heap = probe.Heap(3)
    assert heap.arm(0, 20) == 1
    assert heap.arm(1, 30) == 0
    assert heap.arm(2, 10) == 1
    assert heap.arm(1, 5) == 1


def test_an_empty_heap_has_no_next_time(probe):
    heap = probe.Heap(1)
    assert (heap.next(), heap.first) == (0, 0)
    heap.arm(0, 5)
    heap.stop(0)
    assert (heap.next(), heap.first) == (0, 0)


def test_a_node_is_armed_again_as_soon_as_it_is_popped(probe):
    """T2: the popped copy keeps the old seq."""
    heap = probe.Heap(1)
    heap.arm(0, 5, 1)
    assert heap.due(5) == [(1, 0)]
    heap.arm(0, 6, 2)
    assert heap.due(6) == [(2, 0)]


@pytest.mark.parametrize("count", [1, 4, 5, 64, 65, 1000])
def test_a_heap_grows_and_empties(probe, count):
    heap = probe.Heap(count)
    for i in range(count):
        heap.arm(i, count - i)
    heap.check()
    for i in range(0, count, 2):
        assert heap.stop(i)
        heap.check()
    while heap.pop_any():
        heap.check()
    assert len(heap) == 0


def test_threads_that_move_timers_lose_none(probe):
    """T1 from several threads: each node is popped exactly as often as it was armed."""
    per_thread, rounds = 8, 300
    heap = probe.Heap(4 * per_thread)
    armed = [0] * (4 * per_thread)
    popped = []
    start = threading.Barrier(5)

    def owner(base):
        start.wait()
        for step in range(rounds):
            for i in range(base, base + per_thread):
                if not heap.move(i, step + 1 + i % 7):
                    armed[i] += 1
                    heap.arm(i, step + 1, step)
                heap.move(i, step + 3)

    def popper():
        start.wait()
        for now in range(rounds * 2):
            heap.next()
            popped.extend(i for _, i in heap.due(now))

    threads = [threading.Thread(target=owner, args=(n * per_thread,)) for n in range(4)]
    threads.append(threading.Thread(target=popper))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    heap.check()
    while got := heap.pop_any():
        popped.append(got[1])
    assert [popped.count(i) for i in range(4 * per_thread)] == armed
