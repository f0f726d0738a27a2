"""PollerBase: the life of a poller, closed from any side, and forked (A9).

K1 at its ends: what nobody takes out of netpoll any more is dropped, once.
"""

import contextlib
import gc
import os
import signal
import socket
import threading
import time
import weakref

import pytest

import gopoll
from gopoll import READ, WRITE, ClosedError, Poller
from helpers.child import open_fds, registrations, run_forking, run_python
from helpers.polls import FAR, Running, Waiter, eventfd, park, references, retire, until


def blocked(probe, poller):
    """Return how many threads are in a blocking netpoll, or about to enter it."""
    return probe.Server.of(poller).blocked


# -- closing ---------------------------------------------------------------------------------------


def test_a_poller_owns_nothing_before_it_is_used():
    before = open_fds()
    poller = Poller()
    assert open_fds() == before
    assert poller.netpoll(0) == []
    assert open_fds() == before
    poller.close()


def test_a_second_close_does_nothing():
    poller = Poller()
    assert not poller.is_closed
    poller.close()
    assert poller.is_closed
    poller.close()
    assert poller.is_closed


@pytest.mark.parametrize("count", [1, 2, 4])
def test_close_ends_every_netpoll_that_is_blocked(probe, count):
    """One break wakes one of them: each has to wake the next."""
    before = open_fds()
    poller = Poller()
    waits = [Running(poller.netpoll, -1) for _ in range(count)]
    until(lambda: blocked(probe, poller) == count)
    poller.close()
    assert [wait.join() for wait in waits] == [[]] * count
    assert open_fds() == before, "the last to leave has not closed it"


def test_the_epoll_instance_stays_open_while_somebody_is_inside():
    """The number must not be another's while a thread still waits in it. Here: a signal handler
    closes the poller under the netpoll that it interrupts."""
    poller = Poller()
    fd = poller.fileno()
    poller.netpoll(0)
    seen = []

    def handler(*args):
        poller.close()
        seen.append(os.readlink(f"/proc/self/fd/{fd}"))

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
    try:
        assert poller.netpoll(-1) == []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert seen[0] == "anon_inode:[eventpoll]"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_close_meets_a_netpoll_that_is_about_to_block():
    """Also the first one, which creates the instance: it must not sleep in a closed poller."""
    for _ in range(300):
        poller = Poller()
        start = threading.Barrier(2)

        def wait(poller=poller, start=start):
            start.wait()
            try:
                return poller.netpoll(-1)
            except ClosedError:
                return []

        running = Running(wait)
        start.wait()
        poller.close()
        assert running.join() == []


def test_close_meets_posts_and_drops_or_refuses_each_once():
    waiter = Waiter()
    before = references(waiter)
    over = time.monotonic() + 5
    for _ in range(100):
        if time.monotonic() > over:
            break  # each collects, which takes its time without a GIL
        poller = Poller()
        start = threading.Barrier(3)

        def post_for_ever(poller=poller, start=start):
            start.wait()
            while True:
                poller.post(waiter)

        def post(post_for_ever=post_for_ever):
            with pytest.raises(ClosedError):
                post_for_ever()

        posts = [Running(post) for _ in range(2)]
        start.wait()
        poller.close()
        for running in posts:
            running.join()
        del post_for_ever, post, posts, running, poller
        gc.collect()
        assert references(waiter) == before


def test_a_waiter_that_is_dropped_may_come_back_to_the_poller():
    """A finaliser runs while the poller is being closed: it finds it closed, or its descriptor."""
    told = []

    class Last:
        def __init__(self, poller, desc):
            self.poller, self.desc = poller, desc

        def __del__(self):
            try:
                self.poller.post(1)
            except ClosedError:
                told.append("closed")
            self.desc.evict()
            self.desc.close()
            self.poller.close()

    with eventfd() as fd:
        poller = Poller()
        desc = poller.open(fd)
        park(desc, READ, Last(poller, desc))
        poller.close()
        assert told == ["closed"]
        with pytest.raises(ClosedError):
            desc.reset(READ)


def test_a_poller_that_is_not_closed_goes_with_its_last_reference():
    before = open_fds()
    waiters = [Waiter() for _ in range(3)]
    counts = [references(waiter) for waiter in waiters]
    with eventfd() as fd:
        poller = Poller()
        desc = poller.open(fd)
        park(desc, READ, waiters[0])
        poller.post(waiters[1])
        poller.call_at_ns(FAR, waiters[2])
        gone = weakref.ref(poller)
        del poller
        assert gone() is not None, "its descriptor keeps it"
        del desc
        gc.collect()
        assert gone() is None
        assert [references(waiter) for waiter in waiters] == counts
        del fd
    assert open_fds() == before


# -- posting ---------------------------------------------------------------------------------------


def test_posts_come_out_in_order_and_each_as_often_as_it_was_posted():
    poller = Poller()
    waiter = Waiter()
    before = references(waiter)
    for n in range(200):
        poller.post(n)
        poller.post(waiter)
    assert references(waiter) == before + 200
    out = poller.netpoll(0, 256) + poller.netpoll(0, 256)
    assert out[::2] == list(range(200))
    assert set(out[1::2]) == {waiter}
    del out
    assert references(waiter) == before
    poller.close()


def test_a_refused_post_keeps_no_reference():
    poller = Poller()
    poller.close()
    waiter = Waiter()
    before = references(waiter)
    with pytest.raises(ClosedError, match="use of closed poller"):
        poller.post(waiter)
    assert references(waiter) == before


@pytest.fixture
def unbreakable(poller):
    """A watched poller whose eventfd somebody has closed: its number is /dev/null's, read only."""
    epfd = poller.fileno()
    assert poller.netpoll(0) == []
    [efd] = [n for n in range(epfd + 1, epfd + 9) if poller.is_poll_descriptor(n)]
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, efd)
    os.close(null)
    return poller


def test_a_post_that_tells_nobody_is_listed_and_keeps_one_reference(unbreakable):
    """K1: both the list and who had posted dropped the waiter, which crashed."""
    waiter = Waiter()
    before = references(waiter)
    for _ in range(2):  # the first has not been told of, so the second says so too
        with pytest.raises(gopoll.InternalError, match="netpollBreak write failed"):
            unbreakable.post(waiter)
    assert references(waiter) == before + 2
    assert unbreakable.netpoll(0) == [waiter, waiter]
    assert references(waiter) == before


def test_an_evict_that_tells_nobody_wakes_both_sides(unbreakable):
    ours, peer = socket.socketpair()
    with ours, peer:
        ours.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send(bytes(65536))
        desc = unbreakable.open(ours.fileno())
        unbreakable.netpoll(0)
        for mode in (READ, WRITE):
            park(desc, mode, mode)
        with pytest.raises(gopoll.InternalError, match="netpollBreak write failed"):
            desc.evict()
        assert sorted(unbreakable.netpoll(0)) == [READ, WRITE]
        retire(desc)


def test_posts_from_many_threads_all_come_out_in_their_thread_s_order():
    poller = Poller()
    posts = [
        Running(lambda n=n: [poller.post((n, k)) for k in range(2000)] and None) for n in range(3)
    ]
    found = []
    while len(found) < 6000:
        found += poller.netpoll(-1)
    for running in posts:
        running.join()
    for n in range(3):
        assert [k for m, k in found if m == n] == list(range(2000))
    assert poller.netpoll(0) == []
    poller.close()


# -- fork ------------------------------------------------------------------------------------------


def test_a_child_has_a_fresh_poller_and_leaves_the_parent_s_alone():
    run_forking("""
poller = Poller()
fd, other = (os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2))
desc = poller.open(fd)
waiter = Waiter()
before = references(waiter)
request = park(desc, READ, waiter)
timer = poller.call_at_ns(FAR, "timer")
poller.post("posted")
epfd = poller.fileno()
kernel = registrations(epfd)

def check():
    assert poller.netpoll(0) == []
    assert poller.timeout_ns() == -1
    assert set(poller.stats().values()) <= {0, 1}, poller.stats()     # the one poll
    for call in (lambda: desc.reset(READ), lambda: desc.wait(READ), desc.evict, desc.rearm,
                 lambda: desc.set_deadline_ns(1), lambda: timer.move(1)):
        try:
            call()
        except ForkedError:
            continue
        raise AssertionError(f"{call} works in the child")
    assert request.commit("x") is False
    assert request.abort(waiter) is False
    assert timer.stop() is False
    desc.close()
    again = poller.open(fd)                  # the same number is registered nowhere here
    drain(poller)
    park(again, READ, "child")
    os.eventfd_write(fd, 1)
    assert poller.netpoll(-1) == ["child"]
    os.eventfd_read(fd)
    again.evict()
    again.close()
    poller.close()
    assert references(waiter) == before + 1, "the parent's waiter was given back here"

in_child(check)
assert registrations(epfd) == kernel
assert timer.stop()
assert drain(poller) == ["posted"]
os.eventfd_write(fd, 1)
assert poller.netpoll(-1) == [waiter]
desc.evict()
desc.close()
poller.close()
""")


def test_a_subclass_that_forgets_init_is_forked_like_the_others():
    run_forking("""
class Loop(Poller):
    def __init__(self):
        self.mine = []
    def __eq__(self, other):
        return True

poller, twin = Loop(), Loop()
fds = [poller.fileno(), twin.fileno()]

def check():
    for fd in fds:
        try:
            os.fstat(fd)
        except OSError:
            continue
        raise AssertionError("the child shares the parent's epoll instance")

in_child(check)
""")


def test_a_handler_may_fork_while_its_thread_is_in_netpoll():
    """The child is inside its fresh poller, and closing that one closes it."""
    run_forking("""
poller = Poller()
parent = os.getpid()
seen = []

def handler(*args):
    if not seen:
        seen.append(os.fork())

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.02)
start = time.monotonic_ns()
assert poller.netpoll(100_000_000) == []
assert time.monotonic_ns() - start >= 100_000_000
if os.getpid() != parent:
    fd = poller.fileno()
    poller.close()
    try:
        os.fstat(fd)
    except OSError:
        os._exit(0)
    os._exit(1)
assert os.waitpid(seen[0], 0)[1] == 0, "the child's poller is still open"
poller.close()
""")


def test_a_closed_poller_stays_closed_in_a_child():
    run_forking("""
poller = Poller()
poller.fileno()
poller.close()

def check():
    assert poller.is_closed
    poller.close()
    try:
        poller.netpoll(0)
    except ClosedError:
        return
    raise AssertionError("a closed poller works again")

in_child(check)
""")


def test_a_spawned_process_leaves_everything_alone():
    """subprocess runs no fork handler, and our descriptors are closed on exec."""
    poller = Poller()
    with eventfd() as fd:
        desc = poller.open(fd)
        before = registrations(poller.fileno())
        done = run_python("import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1])")
        assert done.stdout == "[0, 1, 2]\n"
        assert registrations(poller.fileno()) == before
        park(desc, READ, 1)
        os.eventfd_write(fd, 1)
        assert poller.netpoll(-1) == [1]
        desc.evict()
        desc.close()
    poller.close()


def test_the_base_class_alone_is_a_poller_without_a_door():
    """gopoll.runtime parks its goroutines on a Poller; the base has only what all of them need."""
    base = gopoll.Poller.__mro__[1]
    assert base.__name__ == "PollerBase"
    poller = base()
    poller.post(1)
    poller.close()
    assert poller.is_closed
