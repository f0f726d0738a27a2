"""An operation object that several coroutines await at once: one has it, others are refused (K2).

Go has nothing of the kind: there an operation is a call.
"""

import pytest

import gopoll
from gopoll.runtime._g import Join
from helpers.fds import half_pair
from plugins.guard import wait_parked
from runtime.tools import ONE

ROUNDS = 8


# Each returns an operation that waits, and what ends the wait: false if it does not wait yet.


def recv():
    chan = gopoll.Chan()
    return chan.recv(), lambda: chan.try_send("got")


def send():
    chan = gopoll.Chan()
    return chan.send("got"), lambda: chan.try_recv()[1]


def select():
    chan = gopoll.Chan()
    return gopoll.select(chan.recv_case(), timeout=3600), lambda: chan.try_send("got")


def lock():
    mutex = gopoll.Mutex()
    mutex.try_lock()
    return mutex.lock(), lambda: mutex.unlock() is None


def rlock():
    mutex = gopoll.RWMutex()
    mutex.try_lock()
    return mutex.rlock(), lambda: mutex.unlock() is None


def cond():
    mutex = gopoll.Mutex()
    cond = gopoll.Cond(mutex)
    mutex.try_lock()

    def finish():
        if not mutex.try_lock():
            return False
        cond.broadcast()
        mutex.unlock()
        return True

    return cond.wait(), finish


def group():
    group = gopoll.WaitGroup()
    group.add(1)
    return group.wait(), lambda: group.done() is None


def join():
    chan = gopoll.Chan(1)
    return Join(gopoll.go(chan.recv)._g), lambda: chan.try_send("got")


def sleep():
    return gopoll.sleep(0.002), lambda: True


KINDS = [recv, send, select, lock, rlock, cond, group, join, sleep]


async def share(op, finish, n=4):
    """Await *op* in *n* goroutines and end its wait; what they got, and why they got nothing."""
    got, refused = [], []

    async def one():
        try:
            got.append(await op)
        except RuntimeError as error:
            refused.append(str(error))

    gs = [gopoll.go(one) for _ in range(n)]
    async with gopoll.timeout(40):
        while sum(g.done for g in gs) < n - 1:
            await gopoll.gosched()
        while not finish():
            await gopoll.gosched()
        for g in gs:
            await g
    return got, refused


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_several_has_it_and_the_others_are_refused(run, kind):
    async def main():
        for _ in range(ROUNDS):
            got, refused = await share(*kind())
            assert len(got) == 1
            assert len(refused) == 3
            assert all("twice" in text for text in refused)

    run(main, procs=4)


def test_one_of_several_reads(run):
    async def main():
        with half_pair() as (fd, peer):
            for _ in range(ROUNDS):
                got, refused = await share(fd.read(1), lambda: peer.send(b"x"))
                assert (got, len(refused)) == ([b"x"], 3)

    run(main, procs=4)


def test_what_has_been_handed_over_is_not_taken_by_another(run):
    """The first has been woken and has not run yet."""
    got = []

    async def first(op):
        got.append(await op)

    async def main():
        chan = gopoll.Chan()
        op = chan.recv()
        await wait_parked(g := gopoll.go(first, op))
        chan.try_send("for the first")
        with pytest.raises(RuntimeError, match="twice"):
            await op
        await g
        assert got == ["for the first"]

    run(main, **ONE)


def test_a_gosched_belongs_to_who_awaited_it_first(run):
    async def awaits(op):
        await op
        return "yielded"

    async def main():
        op = gopoll.gosched()
        one, two = gopoll.go(awaits, op), gopoll.go(awaits, op)
        outcomes = []
        for g in (one, two):
            try:
                outcomes.append(await g)
            except RuntimeError as exc:
                outcomes.append(str(exc))
        assert sorted(outcomes) == ["cannot await the same gosched() twice", "yielded"]

    for options in ({"procs": 1, "handoff": False}, {"procs": 4}):
        run(main, **options)
