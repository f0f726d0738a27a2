"""The compiled state machine against the table of tests/model/table.py, after every step."""

import os

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from model.table import BOTH, NIL, PARKED, READ, READY, WAIT, WRITE, Descriptor
from plugins.probe import load

DOUBLE_WAIT, UNBLOCK_CLOSING, WITHOUT_UNBLOCK = -10014, -10013, -10010
CORRUPTED = -10015

modes = st.sampled_from([READ, WRITE])
pick = st.integers(0, 3)
# What Linux delivers for our registration, and PRI, which concerns nobody.
masks = st.sampled_from(
    [0x1, 0x2, 0x4, 0x5, 0x8, 0x10, 0x11, 0x14, 0x2001, 0x2005, 0x2015, 0x201D, 0xC, 0xD]
)


class PollDescMachine(RuleBasedStateMachine):
    """Four descriptors in random hands. A waiter is a number above pdWait, never used twice.

    requests: the waits that were announced and are neither committed nor given up.
    handed: waiters that came straight to us; netpoll, not called here, takes them off the count.
    free: where closed descriptors went; the next open takes the last one (type stability).
    """

    def __init__(self):
        super().__init__()
        self.server = load().Server()
        assert self.server.init() == 0
        self.fds = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(4)]
        self.open = {}
        self.requests = set()
        self.now = 0
        self.word = 4096
        self.popped = []
        self.queue = []
        self.free = []
        self.stale = set()
        self.handed = 0

    def teardown(self):
        for desc, _ in self.open.values():
            desc.discard()
        for fd in self.fds:
            os.close(fd)
        self.server.close()

    # -- opening and closing

    @rule(n=pick)
    def open_one(self, n):
        if n in self.open:
            return
        rc, desc = self.server.open(self.fds[n])
        assert rc == 0
        if self.free:
            assert desc.address == self.free.pop(), "the free list is not last in, first out"
        self.open[n] = desc, Descriptor()

    @rule(n=pick)
    def evict(self, n):
        if n not in self.open:
            return
        desc, model = self.open[n]
        if model.closing:
            assert desc.unblock() == UNBLOCK_CLOSING
            return
        assert desc.unblock() == 0
        self.queue += model.evict()

    @rule(n=pick)
    def close(self, n):
        if n not in self.open:
            return
        desc, model = self.open[n]
        if not model.closing:
            assert desc.close() == WITHOUT_UNBLOCK
            return
        self.stale.add((desc.address, desc.data))
        assert desc.close() == 0
        self.free.append(desc.address)
        self.requests -= {(n, READ), (n, WRITE)}
        self.popped = [(None if m == n else m, mode, due) for m, mode, due in self.popped]
        del self.open[n]

    # -- waiting

    @rule(n=pick, mode=modes)
    def reset(self, n, mode):
        if n not in self.open or self.open[n][1].sides[mode].state in (WAIT, PARKED):
            return
        desc, model = self.open[n]
        assert desc.reset(mode) == model.error(mode)
        if not model.error(mode):
            model.sides[mode].step("reset")

    @rule(n=pick, mode=modes)
    def wait(self, n, mode):
        if n not in self.open:
            return
        desc, model = self.open[n]
        rc = desc.wait(mode)
        if model.error(mode):
            assert rc == model.error(mode)
            return
        scanned = model.scan(mode)
        if scanned is not None:
            assert rc == scanned
            return
        answer, _ = model.sides[mode].step("announce")
        assert rc == {"park": -1, "go on": 0, "double wait": DOUBLE_WAIT}[answer]
        if answer == "park":
            self.requests.add((n, mode))

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def commit(self, data):
        n, mode = data.draw(st.sampled_from(sorted(self.requests)))
        self.requests.remove((n, mode))
        desc, model = self.open[n]
        self.word += 8
        parked, _ = model.sides[mode].step("commit")
        assert desc.commit(mode, self.word) == parked
        if parked:
            model.sides[mode].waiter = self.word

    @rule(n=pick, mode=modes)
    def abort(self, n, mode):
        if n not in self.open:
            return
        desc, model = self.open[n]
        self.requests.discard((n, mode))
        answer, _ = model.sides[mode].step("abort")
        assert desc.abort(mode, model.sides[mode].waiter) == answer

    @rule(n=pick, mode=modes)
    def abort_what_has_been_woken(self, n, mode):
        """P3: a waiter that another one has taken the place of cannot be taken back."""
        if n not in self.open or self.open[n][1].sides[mode].state == WAIT:
            return
        assert self.open[n][0].abort(mode, 8) == 0

    @rule(n=pick, mode=modes)
    def resume(self, n, mode):
        if n not in self.open or self.open[n][1].sides[mode].state == PARKED:
            return
        desc, model = self.open[n]
        self.requests.discard((n, mode))
        answer, _ = model.sides[mode].step("resume")
        assert desc.resume(mode) == answer

    # -- events

    @rule(n=pick, mask=masks)
    def event(self, n, mask):
        if n not in self.open:
            return
        desc, model = self.open[n]
        expected = model.event(mask)
        assert self.server.event(mask, desc.data) == expected
        self.handed += len(expected)

    @precondition(lambda self: self.stale)
    @rule(data=st.data(), mask=masks)
    def stale_event(self, data, mask):
        """P4: an event of an earlier generation touches nothing (the invariant sees to that)."""
        _, word = data.draw(st.sampled_from(sorted(self.stale)))
        assert self.server.event(mask, word) == -1

    # -- deadlines

    @rule(n=pick, mode=st.sampled_from([READ, WRITE, BOTH]), ahead=st.integers(1, 20))
    def deadline_ahead(self, n, mode, ahead):
        self.set_deadline(n, mode, self.now + ahead)

    @rule(n=pick, mode=st.sampled_from([READ, WRITE, BOTH]), when=st.sampled_from([-1, -50]))
    def deadline_past(self, n, mode, when):
        self.set_deadline(n, mode, when)

    @rule(n=pick, mode=st.sampled_from([READ, WRITE, BOTH]))
    def deadline_cleared(self, n, mode):
        self.set_deadline(n, mode, 0)

    def set_deadline(self, n, mode, when):
        if n not in self.open:
            return
        desc, model = self.open[n]
        assert desc.set_deadline(when, mode) == 0
        if not model.closing:
            for side in (READ, WRITE):
                if mode & side:
                    self.queue += model.sides[side].set_deadline(when)

    @rule(step=st.integers(0, 8), cap=st.integers(1, 8))
    def pop_due(self, step, cap):
        """Time passes, and the due timers leave the heap. Nothing has happened to anybody yet."""
        self.now += step
        due = [
            side.deadline
            for _, model in self.open.values()
            for side in model.sides.values()
            if side.in_heap and side.deadline <= self.now
        ]
        got = self.server.due(self.now, cap)
        assert len(got) == min(len(due), cap)
        by_address = {desc.address: n for n, (desc, _) in self.open.items()}
        for kind, seq, address in got:
            n, mode = by_address[address], (READ, WRITE)[kind]
            side = self.open[n][1].sides[mode]
            assert side.in_heap
            assert side.deadline <= self.now, "a timer came early"
            side.in_heap, side.popped = False, True
            self.popped.append((n, mode, (kind, seq, address)))

    @precondition(lambda self: self.popped)
    @rule()
    def fire(self):
        """T2: a popped timer acts, unless its deadline was changed or closed in between."""
        n, mode, entry = self.popped.pop(0)
        # Of two entries for one side only the newer can be current.
        if n is None or any((a, b) == (n, mode) for a, b, _ in self.popped):
            expected = []
        else:
            expected = self.open[n][1].sides[mode].fire(self.now)
        assert self.server.deadline_impl(entry, self.now) == expected
        self.handed += len(expected)

    # -- what must be true after every step

    @invariant()
    def the_same_states(self):
        for desc, model in self.open.values():
            for mode, word in ((READ, desc.rg), (WRITE, desc.wg)):
                side = model.sides[mode]
                states = {NIL: 0, READY: 1, WAIT: 2, PARKED: side.waiter}
                assert word == states[side.state], f"{side.state} is {word}"
                assert desc.check_error(mode) == model.error(mode)
            assert desc.armed == tuple(side.in_heap for side in model.sides.values())
            if not model.closing:
                assert (desc.rd, desc.wd) == tuple(s.deadline for s in model.sides.values())

    @invariant()
    def every_waiter_is_accounted_for(self):
        assert self.server.take() == self.queue
        self.queue.clear()
        models = [model for _, model in self.open.values()]
        assert self.server.waiters == self.handed + sum(model.parked for model in models)
        assert self.server.in_use == len(models)
        assert self.server.timers == sum(model.timers for model in models)


TestPollDesc = PollDescMachine.TestCase
TestPollDesc.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
