"""H11: a value that was handed to a receiver that never gets it is given back to its channel.

In the tasks of a host whose exceptions do not come again; elsewhere such a receive returns (H4).
"""

import gc
import random
import threading
import weakref

import pytest

import gopoll
from embed.hosts import Recorder
from gopoll import Chan, ChanClosed
from gopoll.embed import Guest
from helpers.child import run_python
from plugins.guard import wait_parked
from test_fdmsg_rights import has_testcapi


class Thing:
    """Something whose death can be seen."""


class Waits:
    """A task of the host's that waits in *op*."""

    def __init__(self, op):
        self.steps = op.__await__()
        assert next(self.steps) == "the host's own"

    def throw(self):
        with pytest.raises(KeyError, match="cut"):
            self.steps.throw(KeyError("cut"))

    def close(self):
        self.steps.close()

    def die(self):
        del self.steps
        gc.collect()

    def result(self):
        with pytest.raises(StopIteration) as stop:
            self.steps.send(None)
        return stop.value.value


def receive(chan):
    return chan.recv()


def iterate(chan):
    return chan.__anext__()


def choose(chan):
    return gopoll.select(None, Chan().recv_case(), chan.recv_case())


@pytest.fixture
def guest():
    with Guest(Recorder()) as guest:
        yield guest


@pytest.fixture(params=[receive, iterate, choose])
def waits(request, guest):
    """Return what waits for a value of the channel that it gets."""
    return lambda chan: Waits(request.param(chan))


@pytest.fixture(params=[Waits.throw, Waits.close, Waits.die])
def cut(request):
    """Return what ends a Waits that cannot return any more."""
    return request.param


def left(chan):
    """Take all that there is."""
    values = []
    while (got := chan.try_recv())[1]:
        values.append(got[0])
    return values


# -- where it goes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [receive, choose])
@pytest.mark.parametrize("capacity", [0, 2])
def test_a_receiver_that_waits_gets_it(waits, cut, other, capacity):
    chan = Chan(capacity)
    first = waits(chan)
    second, third = Waits(other(chan)), Waits(chan.recv())
    assert chan.try_send("a")
    cut(first)
    assert len(chan) == 0
    assert second.result() == ("a" if other is receive else (2, "a"))
    assert chan.try_send("b")
    assert third.result() == "b"


def test_where_there_is_room_it_comes_first(waits, cut):
    chan = Chan(3)
    first = waits(chan)
    assert chan.try_send(1)
    assert chan.try_send(2)
    cut(first)
    assert len(chan) == 2
    assert chan.try_send(3)
    assert not chan.try_send(4)
    assert chan.try_recv() == (1, True)
    assert chan.try_send(4)
    assert left(chan) == [2, 3, 4]


def test_a_full_buffer_takes_it_past_its_capacity(waits, cut):
    chan = Chan(2)
    for turn in range(3):  # round the ring
        first = waits(chan)
        for value in (1, 2, 3):
            assert chan.try_send(value)
        sender = Waits(chan.send(4))
        cut(first)
        assert len(chan) == 3, turn
        assert not chan.try_send(5)
        assert chan.try_recv() == (1, True)
        assert len(chan) == 2, "the sender's value has been taken in: there was no room"
        assert not chan.try_send(5)
        assert chan.try_recv() == (2, True)
        assert len(chan) == 2
        assert sender.result() is None
        assert left(chan) == [3, 4]


def test_an_unbuffered_channel_holds_it_before_who_sends_next(waits, cut):
    chan = Chan()
    first = waits(chan)
    assert chan.try_send(1)
    sender = Waits(chan.send(2))
    cut(first)
    assert len(chan) == 1
    assert repr(chan) == "<Chan 1/0>"
    assert not chan.try_send(3)
    with pytest.raises(StopIteration) as stop:
        next(gopoll.select(chan.send_case(3), default=True).__await__())
    assert stop.value.value == (-1, None)
    assert chan.try_recv() == (1, True)
    assert len(chan) == 0
    assert chan.try_recv() == (2, True)
    assert sender.result() is None
    assert chan.try_recv() == (None, False)


@pytest.mark.parametrize("capacity", [0, 1])
def test_a_closed_channel_gives_it_before_it_says_so(waits, cut, capacity):
    chan = Chan(capacity)
    first = waits(chan)
    for value in range(capacity + 1):
        assert chan.try_send(value)
    chan.close()
    cut(first)
    for value in range(capacity + 1):
        assert chan.try_recv() == (value, True)
    with pytest.raises(ChanClosed):
        chan.try_recv()


@pytest.mark.parametrize("capacity", [0, 5])
@pytest.mark.parametrize("seed", range(4))
def test_several_keep_their_order_whoever_is_cut_first(waits, cut, capacity, seed):
    chan, rand, count = Chan(capacity), random.Random(seed), 20
    receivers = [waits(chan) for _ in range(count)]
    for value in range(count + capacity):
        assert chan.try_send(value)
    rand.shuffle(receivers)
    for receiver in receivers:
        cut(receiver)
    assert len(chan) == count + capacity
    assert left(chan) == list(range(count + capacity))


def test_it_keeps_its_place_when_it_is_given_back_again(waits, cut):
    chan = Chan(1)
    first, second, third = (waits(chan) for _ in range(3))
    assert chan.try_send(1)
    assert chan.try_send(2)
    cut(first)  # the third has it
    assert chan.try_send(3)
    cut(second)
    assert len(chan) == 2
    cut(third)
    assert left(chan) == [1, 2, 3]


def test_given_back_and_taken_in_turns(waits, cut):
    """The room for what is given back is used again, and grows."""
    chan, rand, expected, value = Chan(2), random.Random(6), [], 0
    for _ in range(60):
        count = rand.randrange(1, 9) if not expected else 0
        receivers = [waits(chan) for _ in range(count)]
        for _ in receivers:
            assert chan.try_send(value)
            expected.append(value)
            value += 1
        for receiver in receivers:
            cut(receiver)
        while expected and rand.random() < 0.8:
            assert chan.try_recv() == (expected.pop(0), True)
        if len(chan) < 2:
            assert chan.try_send(value)
            expected.append(value)
            value += 1
        assert len(chan) == len(expected)
    assert left(chan) == expected


def test_a_select_sees_what_was_given_back(waits, cut):
    chan = Chan()
    first = waits(chan)
    assert chan.try_send("x")
    cut(first)
    with pytest.raises(StopIteration) as stop:
        next(gopoll.select(chan.send_case("y"), chan.recv_case()).__await__())
    assert stop.value.value == (1, "x")


# -- what is not given back ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["send", "select"])
def test_what_has_been_sent_stays_sent(guest, cut, kind):
    chan = Chan()
    op = chan.send("sent") if kind == "send" else gopoll.select(chan.send_case("sent"))
    sender = Waits(op)
    assert chan.try_recv() == ("sent", True)
    cut(sender)
    assert chan.try_recv() == (None, False)


def test_where_the_exception_comes_again_the_receive_returns():
    class Again(Recorder):
        def comes_again(self, error):
            return True

    with Guest(Again()):
        chan = Chan()
        first = Waits(chan.recv())
        assert chan.try_send("x")
        with pytest.raises(StopIteration) as stop:
            first.steps.throw(KeyError("cut"))
        assert stop.value.value == "x"
        assert chan.try_recv() == (None, False)


def test_a_host_that_fails_to_say_whether_it_comes_again_loses_nothing():
    class Bad(Recorder):
        def comes_again(self, error):
            raise LookupError("cannot say")

    with Guest(Bad()):
        chan = Chan()
        first = Waits(chan.recv())
        assert chan.try_send("x")
        with pytest.raises(LookupError, match="cannot say"):
            first.steps.throw(KeyError("cut"))
        assert chan.try_recv() == ("x", True)


def test_what_a_goroutine_has_in_hand_when_its_run_is_over_is_given_back(run):
    """H10."""

    async def main():
        chan = Chan()
        g = gopoll.go(chan.recv)
        await wait_parked(g)
        assert chan.try_send("x")
        g._g.forsake()  # handoff=False: it has not run since
        assert chan.try_recv() == ("x", True)
        with pytest.raises(RuntimeError, match="twice"):
            await g

    run(main, handoff=False)


# -- memory ----------------------------------------------------------------------------------------


def test_nothing_of_it_is_kept(waits, cut):
    chan, seen = Chan(), []

    def hand(chan):
        thing = Thing()
        seen.append(weakref.ref(thing))
        chan.try_send(thing)

    for _ in range(12):
        first = waits(chan)
        hand(chan)
        cut(first)
        del first
        chan.try_recv()
    receivers = [waits(chan) for _ in range(12)]
    for _ in range(12):
        hand(chan)
    while receivers:
        cut(receivers.pop())
    assert [ref() is not None for ref in seen] == [False] * 12 + [True] * 12
    del chan
    gc.collect()
    assert [ref() for ref in seen] == [None] * 24


def test_a_channel_that_was_given_back_to_itself_is_collected(guest):
    chan = Chan()
    first = Waits(chan.recv())
    chan.try_send([chan])
    first.close()
    del first
    gone = weakref.ref(chan)
    del chan
    gc.collect()
    assert gone() is None


NO_MEMORY = """
import sys, _testcapi
import gopoll
from embed.hosts import Recorder
from gopoll.embed import Guest

told, outcomes = [], []
sys.unraisablehook = lambda what: told.append(what.exc_type)
error = KeyError("cut")
with Guest(Recorder()):
    for at in range(60):
        chan = gopoll.Chan()
        steps = chan.recv().__await__()
        next(steps)
        assert chan.try_send("x")
        del told[:]
        raised = None
        _testcapi.set_nomemory(at, at + 1)
        try:
            steps.throw(error)
        except KeyError as err:
            raised = err
        except MemoryError:
            pass
        finally:
            _testcapi.remove_mem_hooks()
        del steps
        kept = chan.try_recv()[1]
        assert kept != bool(told), (at, kept, told)
        outcomes.append((raised is error, kept))
print(sorted(set(outcomes)))
"""


@pytest.mark.skipif(not has_testcapi(), reason="no _testcapi in this Python")
def test_what_memory_runs_out_for_is_told_and_the_hosts_exception_stays():
    """Each allocation fails once: the value is there, or its loss has been told."""
    done = run_python(NO_MEMORY)
    assert done.returncode == 0, done.stderr
    assert "(True, False)" in done.stdout, "no allocation of ours has failed"
    assert "(True, True)" in done.stdout


# -- several threads -------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [0, 1, 3])
def test_nothing_is_lost_or_doubled_in_several_threads(capacity):
    """Each with a host of its own that cuts what it waits in, beside threads that send."""
    hosts, senders, each = 3, 2, 150
    chan, got, errors = Chan(capacity), [[] for _ in range(hosts)], []

    def guarded(fn, *args):
        try:
            fn(*args)
        except BaseException as err:
            errors.append(err)
            raise

    def send(me):
        for i in range(each):
            chan.send_sync((me, i), 60)

    def host(me):
        rand = random.Random(me)
        with Guest(Recorder()) as guest:
            try:
                while True:
                    got[me].append(wait_a_little(guest, rand))
            except ChanClosed:
                pass

    def wait_a_little(guest, rand):
        while True:
            select = rand.random() < 0.5
            op = gopoll.select(chan.recv_case(), chan.recv_case()) if select else chan.recv()
            steps = op.__await__()
            try:
                next(steps)
                for _ in range(rand.randrange(4)):
                    guest.run_nowait()
                    steps.send(None)
                if rand.random() < 0.2:
                    steps.close()
                else:
                    steps.throw(KeyError("cut"))
            except StopIteration as stop:
                return stop.value[1] if select else stop.value
            except KeyError:
                pass

    threads = [threading.Thread(target=guarded, args=(send, n)) for n in range(senders)]
    receivers = [threading.Thread(target=guarded, args=(host, n)) for n in range(hosts)]
    for thread in (*threads, *receivers):
        thread.start()
    for thread in threads:
        thread.join()
    chan.close()
    for thread in receivers:
        thread.join()
    rest = [chan.try_recv()[0] for _ in range(len(chan))]
    with pytest.raises(ChanClosed):
        chan.try_recv()
    assert not errors
    assert sorted(sum(got, rest)) == [(me, i) for me in range(senders) for i in range(each)]
