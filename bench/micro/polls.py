"""Sides of netpoll(0): some descriptors ready, others idle; what comes out is who waits.

Called by bench/test_netpoll.py. Only taking events out is timed. Before, untimed for everybody, the
old byte is read and a new one is sent, which is what makes an edge; gopoll parks its waiters there.
All sides of a group watch the same sockets, with Go's mask, edge-triggered; selectors cannot and is
level-triggered. gopoll takes at most 128 events a call, as Go does.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import select
import selectors
import socket
import weakref

import gopoll
from bench.macro.build import Missing
from bench.macro.measure import fd_limit
from bench.micro.contest import FLOOR, OURS, Round, Side, clock_cost, now_ns
from bench.micro.rivals import floor, library, probe

MASK = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
SPARE_FDS = 200


class Arena:
    """What the sides of one group watch: *number* times *ready* sockets, and idle eventfds."""

    def __init__(self, stack: contextlib.ExitStack, number: int, ready: int, idle: int) -> None:
        wanted = 2 * number * ready + idle + SPARE_FDS
        if wanted > fd_limit():
            raise Missing(f"{wanted} descriptors are wanted (raise RLIMIT_NOFILE)")
        self.ready = ready
        self.shares = []
        for _ in range(number):
            share = []
            for _ in range(ready):
                ours, theirs = map(stack.enter_context, socket.socketpair())
                ours.setblocking(False)
                theirs.send(b"x")
                share.append((ours, theirs))
            self.shares.append(share)
        self.idle = []
        for _ in range(idle):
            self.idle.append(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        stack.callback(lambda: [os.close(fd) for fd in self.idle])

    def edges(self) -> None:
        """Make an edge on each socket."""
        for share in self.shares:
            for ours, theirs in share:
                ours.recv(16)
                theirs.send(b"x")


arenas: weakref.WeakKeyDictionary[contextlib.ExitStack, Arena] = weakref.WeakKeyDictionary()


class Gopoll:
    """A Poller: what comes out is the waiters."""

    def __init__(self, share, idle):
        self.poller = gopoll.Poller()
        self.descs = [self.poller.open(ours.fileno()) for ours, _ in share]
        self.others = [self.poller.open(fd) for fd in idle]
        self.most = len(self.descs)
        while self.poller.stats()["events"] < len(self.descs) + len(self.others):
            self.poller.netpoll(0)  # an eventfd can be written to: that is its first event

    def prepare(self):
        """Park a waiter on each descriptor."""
        for desc in self.descs:
            desc.reset(gopoll.READ)
            assert desc.wait(gopoll.READ).commit(desc)

    def caller(self):
        """Return what take() calls."""
        return self.poller.netpoll

    @staticmethod
    def take(polls, most):
        """Take out one waiter for each descriptor of each poller."""
        for netpoll in polls:
            left = most
            while left:
                left -= len(netpoll(0))

    def spin(self, count):
        """Poll *count* times."""
        netpoll = self.poller.netpoll
        for _ in range(count):
            netpoll(0)

    def close(self):
        for desc in self.descs + self.others:
            desc.evict()
            desc.close()
        self.poller.close()


class GopollNogil(Gopoll):
    """The same with the GIL released around netpoll, as from Cython."""

    def __init__(self, share, idle):
        self.netpoll = probe().netpoll_nogil
        super().__init__(share, idle)

    def caller(self):
        return self.netpoll, self.poller

    @staticmethod
    def take(polls, most):
        for netpoll, poller in polls:
            left = most
            while left:
                left -= len(netpoll(poller))

    def spin(self, count):
        netpoll, poller = self.netpoll, self.poller
        for _ in range(count):
            netpoll(poller)


class Epoll:
    """select.epoll: what comes out is (descriptor, events), all in one call."""

    def __init__(self, share, idle):
        self.epoll = select.epoll()
        self.waiters = {ours.fileno(): ours for ours, _ in share}
        for fd in [*self.waiters, *idle]:
            self.epoll.register(fd, MASK)
        self.most = len(self.waiters)
        while self.epoll.poll(0, 1000):
            pass

    def prepare(self):
        """Nothing: it has no waiters."""

    def caller(self):
        """Return what take() calls."""
        return self.epoll.poll

    @staticmethod
    def take(polls, most):
        """Take out one event for each descriptor of each epoll."""
        for poll in polls:
            left = most
            while left:
                left -= len(poll(0, most))

    def spin(self, count):
        poll = self.epoll.poll
        for _ in range(count):
            poll(0, 128)

    def close(self):
        self.epoll.close()


class EpollAndDict(Epoll):
    """select.epoll and the look-up that a loop adds to get at who waits."""

    def caller(self):
        return self.epoll.poll, self.waiters

    @staticmethod
    def take(polls, most):
        """Take out one waiter for each descriptor of each epoll."""
        for poll, waiters in polls:
            left = most
            while left:
                left -= len([waiters[fd] for fd, _ in poll(0, most)])

    def spin(self, count):
        poll, waiters = self.epoll.poll, self.waiters
        for _ in range(count):
            [waiters[fd] for fd, _ in poll(0, 128)]


class Selectors:
    """selectors.EpollSelector: what comes out is (key, events); key.data is who waits."""

    def __init__(self, share, idle):
        self.selector = selectors.EpollSelector()
        for ours, _ in share:
            self.selector.register(ours, selectors.EVENT_READ, ours)
        for fd in idle:
            self.selector.register(fd, selectors.EVENT_READ)
        self.most = len(share)

    def prepare(self):
        """Nothing."""

    def caller(self):
        """Return what take() calls."""
        return self.selector.select

    @staticmethod
    def take(polls, most):
        """Take out one key for each descriptor of each selector."""
        for select_ in polls:
            left = most
            while left:
                left -= len(select_(0))

    def spin(self, count):
        select_ = self.selector.select
        for _ in range(count):
            select_(0)

    def close(self):
        self.selector.close()


class InC:
    """epoll_wait alone, as called from C: what comes out is an array of events."""

    def __init__(self, share, idle):
        library()
        self.epoll = Epoll(share, idle)

    take = None  # it is the floor's

    def prepare(self):
        """Nothing."""

    def close(self):
        self.epoll.close()


def enter(kind, number, ready, idle, stack: contextlib.ExitStack, count: int) -> Round:
    """Make *number* pollers of a kind; each has *ready* sockets of its own and all idle ones."""
    arena = arenas.get(stack)
    if arena is None:
        arena = arenas[stack] = Arena(stack, number, ready, idle)
    pollers = []
    for share in arena.shares:
        pollers.append(kind(share, arena.idle))
        stack.callback(pollers[-1].close)
    if ready == 0:
        return spinning(pollers[0], count)
    return taking(arena, pollers, max(1, count // (number * ready)))


def spinning(poller, count: int) -> Round:
    """Return a round of *count* polls that find nothing."""
    if isinstance(poller, InC):
        epfd = poller.epoll.epoll.fileno()
        return lambda: floor("floor_poll", epfd, count) / count

    def measure() -> float:
        began = now_ns()
        poller.spin(count)
        return (now_ns() - began) / count

    return measure


def taking(arena: Arena, pollers, times: int) -> Round:
    """Return a round that makes all sockets ready and takes that out, *times*."""
    events = times * len(pollers) * arena.ready
    # One loop over all pollers, that no call of the measurer's own is in the time of each.
    take = pollers[0].take
    polls = [poller.caller() for poller in pollers if not isinstance(poller, InC)]
    epfds = [p.epoll.epoll.fileno() for p in pollers if isinstance(p, InC)]
    array = (ctypes.c_int * len(epfds))(*epfds)
    cost = clock_cost()

    def measure() -> float:
        ns = 0
        for _ in range(times):
            for poller in pollers:
                poller.prepare()
            arena.edges()
            if epfds:
                ns += floor("floor_take", array, len(epfds), arena.ready)
            else:
                began = now_ns()
                take(polls, arena.ready)
                ns += now_ns() - began - cost
        return ns / events

    return measure


def netpoll(number: int, ready: int, idle: int) -> tuple[Side, ...]:
    """Return the sides of a group."""

    def side(name, kind, *what):
        return Side(name, functools.partial(enter, kind, number, ready, idle), *what)

    return (
        side("c", InC, FLOOR),
        side("gopoll", Gopoll, OURS),
        side("gopoll-nogil", GopollNogil, OURS),
        side("epoll", Epoll),
        side("epoll-dict", EpollAndDict),
        side("selectors", Selectors),
    )
