"""pollServer: its life, the ready list, who is told of what, and the count of waiters.

The creation of the epoll instance and its failures are in test_epoll.py.
"""

import os
import threading
from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from helpers.child import eventfd_count, open_fds
from helpers.polls import Running, until
from plugins.probe import load

OUT_OF_NOTHING = 4096  # waiters: any number above pdWait


# -- life ------------------------------------------------------------------------------------------


def test_a_server_is_initialised_once(server):
    mine = server.epfd, server.eventfd
    before = open_fds()
    assert server.init() == 0
    assert (server.epfd, server.eventfd) == mine
    assert open_fds() == before


def test_a_closed_server_has_no_descriptors(probe):
    before = open_fds()
    server = probe.Server()
    server.init()
    server.close()
    assert open_fds() == before
    assert (server.epfd, server.eventfd) == (-1, -1)
    server.close()
    assert not server.is_descriptor(-1)


def test_the_server_s_descriptors_are_its_own(server):
    assert server.is_descriptor(server.epfd)
    assert server.is_descriptor(server.eventfd)
    others = open_fds() - {server.epfd, server.eventfd}
    assert not any(server.is_descriptor(fd) for fd in others)


# -- the ready list --------------------------------------------------------------------------------


class ReadyListMachine(RuleBasedStateMachine):
    """The ring against a deque: it grows while it is wrapped, and is never out of order."""

    def __init__(self):
        super().__init__()
        self.server = load().Server()
        self.model = deque()
        self.word = OUT_OF_NOTHING

    @rule(count=st.integers(1, 150))
    def push(self, count):
        for _ in range(count):
            self.word += 8
            assert self.server.push(self.word) == 0
            self.model.append(self.word)

    @rule(cap=st.integers(0, 200))
    def take(self, cap):
        expected = [self.model.popleft() for _ in range(min(cap, len(self.model)))]
        assert self.server.take(cap) == expected

    @invariant()
    def says_whether_there_is_work(self):
        """timeout() is what a sleeper looks at before it sleeps (P5)."""
        assert self.server.timeout() == (0 if self.model else -1)


TestReadyList = ReadyListMachine.TestCase
TestReadyList.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


def test_threads_that_push_and_take_lose_no_word_and_keep_each_other_s_order(server):
    start = threading.Barrier(5)
    taken = [[], []]

    def push(base):
        start.wait()
        for n in range(5000):
            server.push(base + n)

    def take(mine):
        start.wait()
        while sum(map(len, taken)) < 15000:
            mine.extend(server.take(7))

    bases = [1 << 20, 1 << 21, 1 << 22]
    runs = [Running(push, base) for base in bases] + [Running(take, mine) for mine in taken]
    for running in runs:
        running.join()
    assert sorted(taken[0] + taken[1]) == [base + n for base in bases for n in range(5000)]
    for mine in taken:
        for base in bases:
            seen = [word for word in mine if base <= word < base + 5000]
            assert seen == sorted(seen)


# -- who is told -----------------------------------------------------------------------------------


def test_nobody_sleeps_and_nobody_watches_so_nobody_is_told(server):
    """Adding to the list is the hot path of a loop that polls anyway: no system call."""
    server.push(OUT_OF_NOTHING)
    assert server.wake() == 0
    assert (server.wakesig, eventfd_count(server.eventfd)) == (0, 0)


def test_a_host_that_watches_is_told_once(server):
    server.watched = 1
    server.push(OUT_OF_NOTHING)
    server.push(OUT_OF_NOTHING)
    assert (server.wakesig, eventfd_count(server.eventfd)) == (1, 1)
    assert server.netpoll(0) == [OUT_OF_NOTHING] * 2
    assert (server.wakesig, eventfd_count(server.eventfd)) == (0, 0)


def test_who_sleeps_is_told(server):
    wait = Running(server.netpoll, -1)
    until(lambda: server.blocked)
    server.push(OUT_OF_NOTHING)
    assert wait.join() == [OUT_OF_NOTHING]
    assert server.blocked == 0


def test_a_server_without_an_instance_takes_words_all_the_same(probe):
    server = probe.Server()
    server.watched = 1
    before = open_fds()
    assert server.push(OUT_OF_NOTHING) == 0
    assert server.wake() == 0
    assert server.netpoll(0) == [OUT_OF_NOTHING]
    assert open_fds() == before


# -- the count of waiters --------------------------------------------------------------------------


def test_waiters_are_counted_from_commit_to_wake_up(server):
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    _, desc = server.open(fd)
    server.netpoll()
    desc.reset(2)
    assert (server.waiters, server.any_waiters) == (0, False)
    for mode, word in ((1, OUT_OF_NOTHING), (2, OUT_OF_NOTHING + 8)):
        assert desc.wait(mode) == -1
        assert server.waiters == mode - 1, "announced is not parked"
        assert desc.commit(mode, word)
    assert (server.waiters, server.any_waiters) == (2, True)
    assert desc.abort(1, OUT_OF_NOTHING) == 1
    assert server.waiters == 1
    assert desc.unblock() == 0
    assert (server.waiters, server.any_waiters) == (0, False)
    assert not desc.commit(2, OUT_OF_NOTHING), "nothing was announced"
    assert server.waiters == 0
    assert server.netpoll() == [OUT_OF_NOTHING + 8]
    assert server.waiters == 0
    desc.close()
    os.close(fd)
