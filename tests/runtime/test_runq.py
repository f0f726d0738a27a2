"""RunQ: first in first out, whole batches, and every reference given back. Go: runq, proc.go."""

import threading
import weakref

import pytest

from gopoll.runtime._runq import RunQ

OUT_CAP = 256  # the most that one move takes


class Thing:
    pass


def filled(things):
    q = RunQ()
    for thing in things:
        q.put(thing)
    return q


def drained(q):
    out = []
    while (thing := q.get()) is not None:
        out.append(thing)
    return out


def test_an_empty_queue_gives_none():
    q = RunQ()
    assert (len(q), q.get(), q.get()) == (0, None, None)


def test_first_in_first_out():
    q = filled(range(10))
    assert len(q) == 10
    assert drained(q) == list(range(10))
    assert len(q) == 0


@pytest.mark.parametrize("n", [63, 64, 65, 128, 129, 10_000])
def test_it_grows_as_needed_and_keeps_the_order(n):
    assert drained(filled(range(n))) == list(range(n))


@pytest.mark.parametrize("start", [1, 31, 63, 64, 100])
def test_it_grows_with_its_head_anywhere_in_the_ring(start):
    q = filled(range(start))
    taken = [q.get() for _ in range(start // 2)]
    for i in range(start, start + 200):
        q.put(i)
    assert taken + drained(q) == list(range(start + 200))


def test_one_in_one_out_for_ever_does_not_lose_its_place():
    q = filled(range(3))
    for i in range(3, 1000):
        q.put(i)
        assert q.get() == i - 3
    assert len(q) == 3


@pytest.mark.parametrize(
    ("has", "most", "moved"),
    [(0, 5, 0), (5, 0, 0), (5, 3, 3), (5, 5, 5), (5, 99, 5), (1000, 1000, OUT_CAP)],
)
def test_a_move_takes_the_first_to_the_end_of_the_other(has, most, moved):
    q, to = filled(range(has)), filled(["before"])
    assert q.move_to(to, most) == moved
    assert drained(to) == ["before", *range(moved)]
    assert drained(q) == list(range(moved, has))


def test_a_move_to_itself_rotates():
    q = filled(range(5))
    assert q.move_to(q, 2) == 2
    assert drained(q) == [2, 3, 4, 0, 1]


def test_a_move_needs_another_queue():
    with pytest.raises(TypeError):
        RunQ().move_to(None, 1)


def test_what_is_queued_is_kept_and_what_is_taken_is_let_go():
    thing = Thing()
    ref = weakref.ref(thing)
    q, other = filled([thing]), RunQ()
    del thing
    assert ref() is not None
    q.move_to(other, 1)
    assert ref() is not None
    assert other.get() is ref()
    assert ref() is None


def test_a_queue_that_goes_away_lets_go_of_what_is_in_it():
    things = [Thing() for _ in range(100)]
    refs = [weakref.ref(thing) for thing in things]
    q = filled(things)
    for _ in range(40):
        q.get()
    del things, q
    assert [ref() for ref in refs] == [None] * 100


def test_threads_neither_lose_nor_double_anything():
    q, other = RunQ(), RunQ()
    each, out, meet = 3000, [], threading.Barrier(6, timeout=60)

    def put(first):
        meet.wait()
        for i in range(first, first + each):
            q.put(i)

    def move():
        meet.wait()
        for _ in range(each):
            q.move_to(other, 7)

    def get(source):
        got = []
        meet.wait()
        for _ in range(2 * each):
            thing = source.get()
            if thing is not None:
                got.append(thing)
        out.append(got)

    jobs = [(put, 0), (put, each), (move,), (get, q), (get, other), (get, other)]
    threads = [threading.Thread(target=fn, args=args) for fn, *args in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    out += [drained(q), drained(other)]
    assert sorted(i for got in out for i in got) == list(range(2 * each))
    for got in out[:1]:
        assert [i for i in got if i < each] == sorted(i for i in got if i < each)
