"""Poller.fileno() inside the loops people have: nothing is lost, and an idle one does not spin.

P9; docs/embedding.md, the table of hosts. Each host watches the descriptor and nothing
else: no timer of its own, so that the last wake-up can only come from the timerfd.
"""

import asyncio
import importlib
import random
import select
import socket
import threading
import time

import pytest

from gopoll import READ
from helpers.polls import retire

SOCKETS = 50
MESSAGES = 5000
LIMIT = 8  # waiters a poll: small, so that what does not fit is seen often
TURNS = 100


class Guest:
    """Readers on many sockets, and a timer for after the last message."""

    def __init__(self, poller, pairs, *, to_the_end):
        self.poller = poller
        self.pairs = pairs
        self.to_the_end = to_the_end  # poll until nothing is left, as an edge-triggered host must
        self.descs = [poller.open(ours.fileno()) for ours, _ in pairs]
        self.seen = []
        self.when_ns = 0
        self.is_done = False
        self.idle_wakes = 0  # times told after everything was done
        for n in range(len(pairs)):
            self.read(n)

    def read(self, n):
        """Read all there is, and park."""
        while True:
            self.descs[n].reset(READ)
            try:
                self.seen.append(int(self.pairs[n][0].recv(100)))
            except BlockingIOError:
                if self.descs[n].wait(READ).commit(n):
                    return

    def on_ready(self):
        """Do what the host has been told to do."""
        self.idle_wakes += self.is_done
        while True:
            woken = self.poller.netpoll(0, LIMIT)
            for n in woken:
                if n == "timer":
                    assert time.monotonic_ns() >= self.when_ns
                    self.is_done = True
                else:
                    self.read(n)
            if not self.when_ns and len(self.seen) >= MESSAGES:
                self.when_ns = time.monotonic_ns() + 2_000_000
                self.poller.call_at_ns(self.when_ns, "timer")
            if not (self.to_the_end and len(woken) == LIMIT):
                return


def in_select(fd, guest):
    while not guest.is_done:
        assert select.select([fd], [], [], 20)[0], "the host sleeps over it"
        guest.on_ready()
    for _ in range(TURNS):
        if select.select([fd], [], [], 0)[0]:
            guest.on_ready()


def in_poll(fd, guest):
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while not guest.is_done:
        assert poll.poll(20_000), "the host sleeps over it"
        guest.on_ready()
    for _ in range(TURNS):
        if poll.poll(0):
            guest.on_ready()


def in_epoll(fd, guest, flags=select.EPOLLIN):
    with select.epoll() as epoll:
        epoll.register(fd, flags)
        while not guest.is_done:
            assert epoll.poll(20), "the host sleeps over it"
            guest.on_ready()
        for _ in range(TURNS):
            if epoll.poll(0):
                guest.on_ready()


def in_edge_epoll(fd, guest):
    in_epoll(fd, guest, select.EPOLLIN | select.EPOLLET)


async def watch(fd, guest):
    """Watch *fd* with add_reader, and give the loop some idle turns afterwards."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def on_readable():
        guest.on_ready()
        if guest.is_done and not done.done():
            done.set_result(None)

    loop.add_reader(fd, on_readable)
    await asyncio.wait_for(done, 40)
    for _ in range(TURNS):
        await asyncio.sleep(0)
    loop.remove_reader(fd)


def in_asyncio(fd, guest):
    asyncio.run(watch(fd, guest))


def needs(name):
    """Return the module; skip with the remedy where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError:
        pytest.skip(f"{name} is not installed (pip install {name})")


def in_uvloop(fd, guest):
    uvloop = needs("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(watch(fd, guest))


def in_trio(fd, guest):
    trio = needs("trio")

    async def watcher():
        while True:
            await trio.lowlevel.wait_readable(fd)
            guest.on_ready()
            if guest.is_done:
                done.set()

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watcher)
            with trio.fail_after(40):
                await done.wait()
            for _ in range(TURNS):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

    done = trio.Event()
    trio.run(main)


NEEDS = {in_uvloop: "uvloop", in_trio: "trio"}
HOSTS = [in_select, in_poll, in_epoll, in_edge_epoll, in_asyncio, in_uvloop, in_trio]


@pytest.fixture(scope="module", autouse=True)
def signal_pipe():
    """Have libuv make the pipe for signals that it keeps as long as the process lives."""
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        return
    uvloop.new_event_loop().close()


@pytest.fixture
def pairs():
    """Sockets that keep messages apart, ours first."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(SOCKETS)]
    for ours, _ in pairs:
        ours.setblocking(False)
    yield pairs
    for pair in pairs:
        for sock in pair:
            sock.close()


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.__name__)
def test_a_loop_loses_nothing_and_does_not_spin(poller, pairs, host):
    """P9. A level-triggered host polls once for each time it is told, an edge one to the end."""

    if host in NEEDS:
        needs(NEEDS[host])

    def send():
        order = random.Random(7)
        for n in range(MESSAGES):
            pairs[order.randrange(SOCKETS)][1].send(b"%d" % n)

    poller.enable_timerfd()
    guest = Guest(poller, pairs, to_the_end=host is in_edge_epoll)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        host(poller.fileno(), guest)
    finally:
        for ours, _ in pairs:
            ours.shutdown(socket.SHUT_RDWR)  # a sender that stands at a full one goes on
        sender.join()
    assert sorted(guest.seen) == list(range(MESSAGES))
    assert guest.idle_wakes <= 2, "the host spins"
    retire(*guest.descs)
