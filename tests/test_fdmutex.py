"""fdMutex, through tests/probe/_fdprobe.pyx. Go: internal/poll/fd_mutex_test.go."""

import random
import threading

import pytest

from gopoll import InternalError
from helpers.cost import assert_each_costs_the_same, cpu_of
from plugins.probe import load

READ, WRITE = True, False
BOTH = pytest.mark.parametrize("read", [READ, WRITE], ids=["read", "write"])


@pytest.fixture(scope="module")
def mu():
    return load("_fdprobe")


@pytest.fixture
def m(mu):
    return mu.Mutex()


def queue(mu, m, read, count):
    """Lock, and queue *count* waiters behind."""
    assert m.lock(read) == mu.LOCKED
    waiters = [mu.Waiter(i) for i in range(count)]
    assert [m.lock(read, w) for w in waiters] == [mu.QUEUED] * count
    return waiters


def test_references_and_locks_of_an_open_one_are_never_the_last(mu, m):
    """Row 15."""
    assert m.incref() == mu.LOCKED
    assert m.decref() == 0
    for read in (READ, WRITE):
        assert m.lock(read) == mu.LOCKED
        assert m.references == 1
        assert m.unlock(read) == (0, None)
    assert m.state == 0


def test_readers_and_writers_do_not_hinder_each_other(mu, m):
    assert m.lock(READ) == mu.LOCKED
    assert m.lock(WRITE) == mu.LOCKED
    assert m.references == 2
    assert m.lock(READ) == mu.QUEUED
    assert m.lock(WRITE) == mu.QUEUED
    assert m.references == 2


def test_nothing_is_to_be_had_after_close(mu, m):
    """Row 16."""
    assert m.close() == (mu.LOCKED, [])
    assert m.closed
    assert m.incref() == mu.CLOSED
    assert m.lock(READ) == mu.CLOSED
    assert m.lock(WRITE, mu.Waiter()) == mu.CLOSED
    assert m.close() == (mu.CLOSED, [])
    assert m.decref() == 1, "the closer's own reference is the last"


@BOTH
def test_close_turns_out_who_waits_and_the_last_unlock_destroys(mu, m, read):
    """Row 17."""
    waiters = queue(mu, m, read, 4)
    assert m.incref() == mu.LOCKED
    assert m.close() == (mu.LOCKED, waiters)
    assert not any(w.granted or w.queued for w in waiters)
    assert (m.readers, m.writers) == (0, 0)
    assert m.decref() == 0
    assert m.decref() == 0, "the lock's own reference is left"
    assert m.unlock(read) == (1, None)
    assert m.state == 1


def test_close_turns_out_both_queues(mu, m):
    waiters = {*queue(mu, m, READ, 3), *queue(mu, m, WRITE, 2)}
    rc, out = m.close()
    assert rc == mu.LOCKED
    assert len(out) == 5
    assert set(out) == waiters


def test_an_unbalanced_release_is_told_and_leaves_the_state_usable(mu, m):
    """Row 18."""
    assert m.decref() == mu.INCONSISTENT
    assert m.unlock(READ) == (mu.INCONSISTENT, None)
    assert m.unlock(WRITE) == (mu.INCONSISTENT, None)
    with pytest.raises(InternalError, match=r"^inconsistent poll\.fdMutex$"):
        mu.raise_throw(mu.INCONSISTENT)
    assert m.state == 0
    assert m.lock(READ) == mu.LOCKED
    assert m.unlock(WRITE) == (mu.INCONSISTENT, None), "the other direction's"
    assert m.unlock(READ) == (0, None)


def test_too_many_references_are_refused_and_leave_the_state_usable(mu, m):
    """Row 19. Go panics; here it is an error that the caller can take."""
    assert m.incref(1 << 21) == mu.OVERFLOW
    assert m.references == (1 << 20) - 1
    assert (m.readers, m.writers) == (0, 0), "the count has run over into its neighbour"
    assert m.lock(READ) == mu.OVERFLOW
    assert m.close() == (mu.OVERFLOW, [])
    assert m.decref() == 0
    assert m.lock(READ) == mu.LOCKED
    assert m.unlock(READ) == (0, None)


@BOTH
def test_too_many_waiters_are_refused(mu, m, read):
    waiters = queue(mu, m, read, 1)
    full = 0xFFFFF << (23 if read else 43)
    before = m.state
    m.state = before | full
    assert m.lock(read, mu.Waiter()) == mu.OVERFLOW
    assert m.state == before | full
    m.state = before
    assert m.unlock(read) == (0, waiters[0])


@BOTH
def test_the_lock_goes_to_who_has_waited_longest(mu, m, read):
    """M2."""
    waiters = queue(mu, m, read, 5)
    for waiter in waiters:
        assert m.references == 1, "a waiter has no reference: it gets that of the lock"
        assert m.unlock(read) == (0, waiter)
        assert waiter.granted
        assert not waiter.queued
        assert m.lock(read) == mu.QUEUED, "the lock was free for a moment"
    assert m.unlock(read) == (0, None)
    assert m.state == 0


@BOTH
@pytest.mark.parametrize("place", range(4))
def test_a_waiter_leaves_the_queue_from_any_place(mu, m, read, place):
    waiters = queue(mu, m, read, 4)
    gone = waiters.pop(place)
    assert m.cancel(read, gone)
    assert not m.cancel(read, gone), "twice"
    late = mu.Waiter("late")
    assert m.lock(read, late) == mu.QUEUED
    for waiter in (*waiters, late):
        assert m.unlock(read) == (0, waiter)
    assert m.unlock(read) == (0, None)
    assert m.state == 0


@BOTH
def test_leaving_costs_the_same_however_many_wait(mu, read):
    """The last to come leaves first: it need not be looked for from the front."""

    def measure(n):
        m = mu.Mutex()
        waiters = queue(mu, m, read, n)

        def leave():
            for waiter in reversed(waiters):
                m.cancel(read, waiter)

        return cpu_of(leave)

    assert_each_costs_the_same(measure, 500)


@BOTH
def test_the_only_waiter_leaves_and_another_comes(mu, m, read):
    (gone,) = queue(mu, m, read, 1)
    assert m.cancel(read, gone)
    assert m.state >> 23 == 0
    late = mu.Waiter()
    assert m.lock(read, late) == mu.QUEUED
    assert m.unlock(read) == (0, late)


@BOTH
def test_a_waiter_that_was_granted_the_lock_cannot_leave_the_queue(mu, m, read):
    first, second = queue(mu, m, read, 2)
    assert m.unlock(read) == (0, first)
    assert not m.cancel(read, first)
    assert m.unlock(read) == (0, second), "who is cancelled after the hand-over gives it on"


@BOTH
def test_close_after_the_hand_over_leaves_the_lock_with_the_heir(mu, m, read):
    (heir,) = queue(mu, m, read, 1)
    assert m.unlock(read) == (0, heir)
    assert m.close() == (mu.LOCKED, [])
    assert heir.granted
    assert m.decref() == 0
    assert m.unlock(read) == (1, None)


def test_the_queue_owns_a_reference_to_each_waiter(mu, m):
    """Nothing else need keep a waiter alive, and nothing is left over."""
    import weakref

    class Seen(mu.Waiter):
        pass

    for leave in ("unlock", "cancel", "close"):
        m = mu.Mutex()
        assert m.lock(READ) == mu.LOCKED
        waiter = Seen()
        ref = weakref.ref(waiter)
        assert m.lock(READ, waiter) == mu.QUEUED
        if leave == "cancel":
            assert m.cancel(READ, waiter)
            del waiter
        else:
            del waiter
            assert ref() is not None
            getattr(m, leave)(*([READ] if leave == "unlock" else []))
        assert ref() is None, leave


@pytest.fixture
def seconds(request):
    return 20 if request.config.getoption("--stress", default=False) else 1


def test_one_holder_a_direction_whatever_the_load(mu, m, seconds):
    """Row 20. Threads lock, queue, leave the queue and pass on; one holds, and one destroys.

    M1: without a GIL a count that changes outside of the lock leaves a waiter in its queue.
    """
    rounds = 3000 * seconds
    holders = {READ: 0, WRITE: 0}
    faults = []
    last = []

    class Waiter(mu.Waiter):
        def __init__(self):
            super().__init__()
            self.event = threading.Event()

    def wake(waiter):
        if waiter is not None:
            waiter.event.set()

    def release(read):
        rc, heir = m.unlock(read)
        if rc:
            last.append(rc)
        wake(heir)

    def work(seed):
        rng = random.Random(seed)
        for _ in range(rounds):
            read = rng.random() < 0.5
            if rng.random() < 0.2:
                if m.incref() == mu.CLOSED:
                    return
                if m.decref():
                    last.append("decref")
                continue
            waiter = Waiter()
            rc = m.lock(read, waiter)
            if rc == mu.CLOSED:
                return
            if rc == mu.QUEUED:
                if rng.random() < 0.3:
                    if m.cancel(read, waiter):
                        continue
                elif not waiter.event.wait(20):
                    faults.append("a waiter was forgotten")
                    return
                if not waiter.granted:
                    if m.closed:
                        return
                    faults.append("woken without the lock")
            holders[read] += 1
            if holders[read] != 1:
                faults.append("two hold one direction")
            holders[read] -= 1
            release(read)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads[:4]:
        thread.join()
    rc, out = m.close()
    assert rc == mu.LOCKED
    for waiter in out:
        wake(waiter)
    if m.decref():
        last.append("close")
    for thread in threads:
        thread.join()
    assert not faults, faults[:3]
    assert len(last) == 1, f"destroyed by {last}"
    assert m.state == 1
