"""What the poller costs: ns per event of netpoll(0), ns per park and wake, beside the stdlib.

Run by `pytest bench/ --benchmark-only`, with the extra [bench]. All sides of a group have the
same socket pairs and Go's mask (in, out, rdhup, edge-triggered), one after another in one run.

Events: only taking them out is timed. Before each round, untimed for everybody, the old byte is
read and a new one is sent, which is what makes an edge; gopoll also parks its waiters again there.
Park and wake: everything is timed, the two system calls that move the byte too; the first bench of
the group says what those cost alone. The garbage collector rests meanwhile, for everybody.
"""

import asyncio
import contextlib
import select
import socket

import pytest

import gopoll
from helpers.fds import pair

pytestmark = pytest.mark.benchmark(disable_gc=True)

MASK = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
PAIRS = 1000
POLLERS = {1: 64, 64: 4, 1000: 1}  # ready descriptors: pollers, so that a round is no mere blink
CYCLES = 1000
MESSAGES = 10_000  # a round starts a whole scheduler or loop, 0.1 to 0.2 ms: it must not show


@pytest.fixture(scope="module")
def pairs():
    """Give PAIRS connected sockets, (ours, theirs), with one byte for ours on its way."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(PAIRS):
            ours, theirs = map(stack.enter_context, socket.socketpair())
            ours.setblocking(False)
            theirs.send(b"x")
            found.append((ours, theirs))
        yield found


def edges(pairs):
    """Make an edge on each of *pairs*."""
    for ours, theirs in pairs:
        ours.recv(16)
        theirs.send(b"x")


# -- events ----------------------------------------------------------------------------------------


class Gopoll:
    """A Poller: what comes out is the waiters. At most 128 a call, as in Go."""

    def __init__(self, pairs):
        self.pairs = pairs
        self.poller = gopoll.Poller()
        self.descs = [self.poller.open(ours.fileno()) for ours, _ in pairs]

    def prepare(self):
        """Park a waiter on each descriptor, then make all of them ready."""
        for desc in self.descs:
            desc.reset(gopoll.READ)
            assert desc.wait(gopoll.READ).commit(desc)
        edges(self.pairs)

    def take(self):
        """Take out one waiter for each descriptor."""
        netpoll, left = self.poller.netpoll, len(self.descs)
        while left:
            left -= len(netpoll(0, 128))

    def close(self):
        for desc in self.descs:
            desc.evict()
            desc.close()
        self.poller.close()


class Epoll:
    """select.epoll: what comes out is (descriptor, events), all in one call."""

    def __init__(self, pairs):
        self.pairs = pairs
        self.epoll = select.epoll()
        self.waiters = {ours.fileno(): ours for ours, _ in pairs}
        for fd in self.waiters:
            self.epoll.register(fd, MASK)

    def prepare(self):
        """Make all descriptors ready."""
        edges(self.pairs)

    def take(self):
        """Take out one event for each descriptor."""
        poll, most = self.epoll.poll, len(self.waiters)
        left = most
        while left:
            left -= len(poll(0, most))

    def close(self):
        self.epoll.close()


class EpollAndDict(Epoll):
    """select.epoll and the look-up that a loop adds to get at who waits."""

    def take(self):
        """Take out one waiter for each descriptor."""
        poll, waiters, most = self.epoll.poll, self.waiters, len(self.waiters)
        left = most
        while left:
            left -= len([waiters[fd] for fd, _ in poll(0, most)])


@pytest.mark.parametrize("ready", POLLERS)
@pytest.mark.parametrize(
    "side", [Gopoll, Epoll, EpollAndDict], ids=["gopoll", "epoll", "epoll_and_dict"]
)
def test_netpoll_ns_per_event(ready, side, pairs, measure, benchmark):
    """Poll without blocking while *ready* descriptors of one poller are ready."""
    benchmark.group = f"netpoll(0), {ready} ready: ns per event"
    shares = [pairs[i * ready : (i + 1) * ready] for i in range(POLLERS[ready])]
    sides = [side(share) for share in shares]
    takes = [one.take for one in sides]

    def setup():
        for one in sides:
            one.prepare()

    def take_all():
        for take in takes:
            take()

    try:
        measure(take_all, setup=setup, per_round=ready * len(sides), unit="event")
    finally:
        for one in sides:
            one.close()


# -- park and wake ---------------------------------------------------------------------------------


def byte_alone(ours, theirs, stack):
    """Return a cycle without poller: the two system calls that all others make too."""

    def cycle():
        theirs.send(b"x")
        ours.recv(16)

    return cycle


def byte_gopoll(ours, theirs, stack):
    """Return a cycle of Poller: announce, park, a byte comes, take the waiter out, read."""
    poller = gopoll.Poller()
    desc = poller.open(ours.fileno())
    stack.callback(poller.close)
    stack.callback(desc.close)
    stack.callback(desc.evict)
    read, waiter = gopoll.READ, object()

    def cycle():
        desc.reset(read)
        desc.wait(read).commit(waiter)
        theirs.send(b"x")
        (woken,) = poller.netpoll(0)
        ours.recv(16)
        return woken

    return cycle


def byte_epoll_and_dict(ours, theirs, stack):
    """Return a cycle of select.epoll with the waiters in a dict."""
    epoll = stack.enter_context(select.epoll())
    fd, waiters, waiter = ours.fileno(), {}, object()
    epoll.register(fd, MASK)

    def cycle():
        waiters[fd] = waiter
        theirs.send(b"x")
        ((ready, _),) = epoll.poll(0, 1)
        woken = waiters.pop(ready)
        ours.recv(16)
        return woken

    return cycle


@pytest.mark.parametrize("side", [byte_alone, byte_gopoll, byte_epoll_and_dict])
def test_poller_ns_per_park_and_wake(side, pairs, measure, benchmark):
    """Park a waiter, make its descriptor ready, take it out; registered once, before."""
    benchmark.group = "poller: ns per park and wake"
    ours, theirs = pairs[0]
    ours.recv(16)
    with contextlib.ExitStack() as stack:
        cycle = side(ours, theirs, stack)

        def cycles():
            for _ in range(CYCLES):
                cycle()

        cycles()  # the first poll has the edge of the registration
        measure(cycles, per_round=CYCLES, unit="park_and_wake", rounds=50)
    theirs.send(b"x")


def goroutines():
    """Have two goroutines of one scheduler pass a byte to and fro, MESSAGES times."""

    async def answer(fd):
        for _ in range(MESSAGES // 2):
            await fd.read(16)
            await fd.write(b"x")

    async def main():
        with pair() as (a, b):
            other = gopoll.go(answer, b)
            for _ in range(MESSAGES // 2):
                await a.write(b"x")
                await a.read(16)
            await other

    gopoll.run(main)


class FutureReader:
    """A socket that asyncio watches all the time; a wait is a future."""

    def __init__(self, loop, sock):
        self.loop, self.sock, self.future = loop, sock, loop.create_future()
        loop.add_reader(sock, self.ready)

    def ready(self):
        """Read and wake; the next wait stands before the peer can answer."""
        future, self.future = self.future, self.loop.create_future()
        future.set_result(self.sock.recv(16))


def asyncio_futures():
    """Have two tasks do the same with asyncio's loop, its cheapest way: no add_reader a wait."""

    async def answer(reader):
        for _ in range(MESSAGES // 2):
            await reader.future
            reader.sock.send(b"x")

    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            a, b = FutureReader(loop, ours), FutureReader(loop, theirs)
            other = loop.create_task(answer(b))
            for _ in range(MESSAGES // 2):
                future = a.future
                ours.send(b"x")
                await future
            await other
            loop.remove_reader(ours)
            loop.remove_reader(theirs)

    asyncio.run(main())


def asyncio_sock_recv():
    """Have two tasks do the same with asyncio's own sock_recv and sock_sendall."""

    async def answer(loop, sock):
        for _ in range(MESSAGES // 2):
            await loop.sock_recv(sock, 16)
            await loop.sock_sendall(sock, b"x")

    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            other = loop.create_task(answer(loop, theirs))
            for _ in range(MESSAGES // 2):
                await loop.sock_sendall(ours, b"x")
                await loop.sock_recv(ours, 16)
            await other

    asyncio.run(main())


@pytest.mark.parametrize("side", [goroutines, asyncio_futures, asyncio_sock_recv])
def test_loop_ns_per_park_and_wake(side, measure, benchmark):
    """Pass a byte to and fro: every message parks its reader and wakes the other one."""
    benchmark.group = "scheduler: ns per park and wake"
    measure(side, per_round=MESSAGES, unit="park_and_wake", rounds=15)
