"""Many threads on one poller: every waiter comes out exactly once, whatever happens to it.

P3, P4, P5, L1 and K1 on real threads; what can be enumerated is in test_interleavings.py. Three
descriptors, one of each registration, each an eventfd that its reader empties and its writer
fills: the two wake each other through the poller for ever, while other threads set deadlines,
abort, evict, close, open anew, post, arm, move and drop timers, and break. It means most on a
free-threaded build.
"""

import collections
import os
import random
import sys
import threading
import time

import pytest

from gopoll import EDGE, LEVEL, ONESHOT, READ, WRITE, ClosedError, InternalError, Poller
from helpers.polls import FAR, Running, drain, references, until

SECONDS = 3
FULL = 2**64 - 2  # what an eventfd holds; with it, a write has to wait


class Ticket:
    """One waiter: how often it has come out of netpoll, and whether it was taken back before."""

    def __init__(self):
        self.outs = []  # appending is atomic, also without a GIL
        self.aborted = 0
        self.chased = False  # the aborter has it in hand

    @property
    def ends(self):
        """How often it has come to an end: once, in the end (P3)."""
        return len(self.outs) + self.aborted


class Slot:
    """A number and the descriptor that stands for it now; whoever meets a closed one opens anew."""

    def __init__(self, poller, mode):
        self.poller, self.mode = poller, mode
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.lock = threading.Lock()
        self.desc = poller.open(self.fd, mode)
        self.rounds = 0

    def renew(self, old):
        """Replace *old*, once."""
        with self.lock:
            if self.desc is old:
                old.close()
                self.desc = self.poller.open(self.fd, self.mode)

    def attempt(self, mode):
        """Empty it or fill it; BlockingIOError if that has to wait."""
        if mode == READ:
            os.eventfd_read(self.fd)
            self.rounds += 1
        else:
            os.eventfd_write(self.fd, FULL)

    def close(self):
        """End it, evicted or not."""
        try:
            self.desc.evict()
        except InternalError:
            pass  # the last thing that befell it
        self.desc.close()
        os.close(self.fd)


class Hammer:
    """The poller, its threads, and what they have to account for."""

    def __init__(self, probe):
        self.poller = Poller()
        self.probe = probe
        self.slots = [Slot(self.poller, mode) for mode in (EDGE, LEVEL, ONESHOT)]
        self.calm = False  # the saboteurs have gone home
        self.resting = False  # and so have those who wait
        self.stopped = False
        self.chase = collections.deque()  # (request, ticket) for the aborter
        self.parked, self.others = [], []  # tickets: of waits, and of posts and timers
        self.stops = 0

    # -- who polls

    def poll(self, seed):
        """What a loop does, without knowing what for. Several at once."""
        dice = random.Random(seed)
        while not self.stopped:
            delay_ns = -1 if self.calm else dice.choice((-1, 0, 100_000))
            self.take(self.poller.netpoll(delay_ns, dice.choice((1, 128))))

    def take(self, tickets):
        for ticket in tickets:
            ticket.outs.append(1)

    # -- who waits

    def drive(self, slot, mode):
        """One direction of one descriptor: try, wait, try again."""
        mine = []
        while not self.resting:
            desc = slot.desc
            try:
                desc.reset(mode)
                slot.attempt(mode)
            except BlockingIOError:
                self.wait(desc, mode, mine)
            except ClosedError:
                slot.renew(desc)
            except TimeoutError:
                self.clear(desc, mode)
        self.parked.extend(mine)

    def clear(self, desc, mode):
        try:
            desc.set_deadline_ns(0, mode)
        except ClosedError:
            pass

    def wait(self, desc, mode, mine):
        """Park a ticket and stay until it has come out; then nobody may still chase it."""
        try:
            request = desc.wait(mode)
        except (ClosedError, TimeoutError):
            return
        ticket = Ticket()
        if not request.commit(ticket):
            return
        mine.append(ticket)
        entry = (request, ticket)
        if not self.calm:
            self.chase.append(entry)
        until(lambda: ticket.ends or self.resting)
        try:
            self.chase.remove(entry)
        except ValueError:
            until(lambda: not ticket.chased)

    # -- who disturbs

    def abort(self, dice):
        try:
            entry = self.chase[0]
            entry[1].chased = True
            self.chase.remove(entry)
        except (IndexError, ValueError):
            return
        request, ticket = entry
        if dice.random() < 0.5 and request.abort(ticket):
            ticket.aborted += 1
        ticket.chased = False

    def set_deadline(self, dice):
        when = dice.choice((-1, 0, FAR, time.monotonic_ns() + dice.randrange(1_000_000)))
        dice.choice(self.slots).desc.set_deadline_ns(when, dice.choice((1, 2, 3)))

    def evict(self, dice):
        desc = dice.choice(self.slots).desc
        desc.evict()
        if dice.random() < 0.5:
            desc.close()  # under the hands of those who wait, commit and abort

    def rearm(self, dice):
        dice.choice(self.slots[1:]).desc.rearm(dice.choice((1, 2, 3)))

    def post(self, dice):
        ticket = Ticket()
        self.others.append(ticket)
        self.poller.post(ticket)

    def time(self, dice):
        """A timer that is moved, stopped, dropped, or let go."""
        ticket = Ticket()
        timer = self.poller.call_at_ns(time.monotonic_ns() + dice.randrange(500_000), ticket)
        fires = 1
        for _ in range(dice.randrange(3)):
            fires += not timer.move(time.monotonic_ns() + dice.randrange(500_000))
        if dice.random() < 0.3:
            fires -= timer.stop()
        ticket.aborted = 1 - fires  # so that it is to end once, however often it fires
        self.others.append(ticket)

    def disturb(self, what, seed):
        """Do *what* until it is calm; a descriptor may be gone when we come."""
        dice = random.Random(seed)
        while not self.calm:
            try:
                what(dice)
            except ClosedError:
                pass
            except InternalError as exc:
                if str(exc) != "runtime: unblock on closing polldesc":
                    raise  # two may evict at once, and one of them is told so
            os.sched_yield()

    def run(self):
        """Start everybody, let them go for a while, then see that all still works undisturbed."""
        pollers = [Running(self.poll, seed) for seed in range(2)]
        drivers = [Running(self.drive, slot, mode) for slot in self.slots for mode in (READ, WRITE)]
        saboteurs = [
            Running(self.disturb, what, seed)
            for seed, what in enumerate(
                (self.abort, self.set_deadline, self.evict, self.rearm, self.post, self.time,
                 self.post, self.evict, lambda dice: self.poller.netpoll_break())
            )
        ]  # fmt: skip
        end = time.monotonic() + SECONDS
        until(lambda: time.monotonic() > end or any(r.error for r in (*drivers, *saboteurs)))
        self.calm = True
        for running in saboteurs:
            running.join()
        self.go_on_alone()
        self.resting = True
        for running in drivers:
            running.join()
        self.wake_who_sleeps()
        self.stopped = True
        until(lambda: self.poller.netpoll_break() or all(running.is_done for running in pollers))
        for running in pollers:
            running.join()

    def wake_who_sleeps(self):
        """P5: both pollers sleep for ever; each post and each first deadline wakes one."""
        server = self.probe.Server.of(self.poller)
        for n in range(200):
            ticket = Ticket()
            self.others.append(ticket)
            until(lambda: server.blocked == 2)
            if n % 2:
                self.poller.post(ticket)
            else:
                self.poller.call_at_ns(1, ticket)
            until(lambda ticket=ticket: ticket.ends)

    def go_on_alone(self):
        """A waiter that was forgotten would stop the game of its descriptor: nobody helps now."""
        for slot in self.slots:
            for mode in (READ, WRITE):
                self.clear(slot.desc, mode)
        goals = [slot.rounds + 50 for slot in self.slots]
        for slot, goal in zip(self.slots, goals, strict=True):
            until(lambda slot=slot, goal=goal: slot.rounds >= goal)


@pytest.fixture
def hammer(probe):
    """The hammer, with threads that change as often as can be where there is a GIL."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    hammer = Hammer(probe)
    yield hammer
    hammer.calm = hammer.resting = hammer.stopped = True
    hammer.poller.close()
    sys.setswitchinterval(before)


def test_every_waiter_comes_out_exactly_once(hammer):
    poller = hammer.poller
    hammer.run()
    for slot in hammer.slots:
        slot.close()
    hammer.take(drain(poller))
    while poller.stats()["timers"]:
        hammer.take(poller.netpoll(1_000_000))
    parked, others = hammer.parked, hammer.others
    assert min(len(parked), len(others), *(slot.rounds for slot in hammer.slots)) > 50, "too calm"
    assert not [t for t in parked if t.ends != 1], "a wait ended twice, or not at all (P3)"
    assert not [t for t in others if t.ends != 1], "a post or a timer came twice, or not at all"

    stats = poller.stats()
    woken, aborted = sum(len(t.outs) for t in parked), sum(t.aborted for t in parked)
    assert (stats["parks"], stats["wakes"]) == (len(parked), woken)
    assert stats["parks"] - stats["wakes"] == aborted
    assert (stats["waiters"], stats["descriptors"], stats["timers"]) == (0, 0, 0)

    hammer.chase.clear()
    tickets = [*parked, *others, Ticket()]  # the last one has never been anywhere
    parked.clear()
    others.clear()
    assert len({references(t) for t in tickets}) == 1, "somebody keeps a reference (K1)"
