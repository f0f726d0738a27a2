"""Cancellation of a goroutine: wherever it is parked, from any thread, and as a state (G1).

Go has no twin: there a goroutine that blocks in the network ends by a deadline or a close.
"""

import threading

import pytest

import gopoll
from gopoll import Canceled, DeadlineExceeded
from helpers.fds import MORE_THAN_FITS, half_pair, pair
from plugins.guard import wait_parked, wait_until
from runtime.tools import ONE, Foreign

PAST = -1.0


async def forever():
    await gopoll.sleep(3600)


class Parks:
    """Goroutines parked in each way there is, and what lets them go."""

    def __init__(self, a, b):
        self.release = threading.Event()
        self.gate, self.open = gopoll.with_cancel(gopoll.background())
        self.other = gopoll.go(forever)
        self.ways = {
            "sleep": forever,
            "join": lambda: self.other,
            "note": self.gate.wait,
            "read": lambda: a.read(1),
            "queued for a read": lambda: a.read(1),
            "write": lambda: b.write(MORE_THAN_FITS),
            "blocking": lambda: gopoll.blocking(self.release.wait, 60),
        }

    async def start(self, body):
        gs = {}
        for name, way in self.ways.items():
            gs[name] = gopoll.go(body, way, name=name)
            await wait_parked(gs[name])
        return gs

    async def end(self):
        self.release.set()
        self.other.cancel()
        with pytest.raises(Canceled):
            await self.other


@pytest.mark.parametrize("thread", [False, True], ids=["here", "from a thread"])
def test_cancel_reaches_a_goroutine_wherever_it_is_parked(run, thread):
    async def body(way):
        await way()

    async def main():
        with pair() as (a, _), pair() as (b, _):
            parks = Parks(a, b)
            gs = await parks.start(body)
            for name, g in gs.items():
                if thread:
                    await gopoll.blocking(g.cancel, name)
                else:
                    g.cancel(name)
            for name, g in gs.items():
                with pytest.raises(Canceled) as caught:
                    await g
                assert caught.value.cause == name
            await parks.end()

    run(main)


@pytest.mark.parametrize("thread", [False, True], ids=["here", "from a thread"])
def test_the_end_of_a_context_reaches_a_goroutine_wherever_it_is_parked(run, thread):
    async def body(way):
        await way()

    async def start(scope, parks):
        """Have the goroutines inherit the context, which is over then; wait for them outside."""
        gs = await parks.start(body)
        async with gopoll.shield():
            if thread:
                await gopoll.blocking(scope.reschedule, PAST)
            else:
                scope.reschedule(PAST)
            for g in gs.values():
                with pytest.raises(Canceled) as caught:
                    await g
                assert isinstance(caught.value.cause, DeadlineExceeded)

    async def main():
        with pair() as (a, _), pair() as (b, _):
            parks = Parks(a, b)
            async with gopoll.timeout(None) as scope:
                await start(scope, parks)
            await parks.end()

    run(main)


def test_a_cancelled_goroutine_raises_at_every_later_park(run):
    async def main():
        raised = []

        async def stubborn(fd):
            for way in (forever, gopoll.gosched, lambda: fd.read(1), lambda: gopoll.sleep(0)):
                try:
                    await way()
                except Canceled as exc:
                    raised.append(exc.cause)

        with half_pair() as (fd, _):
            g = gopoll.go(stubborn, fd)
            await wait_parked(g)
            g.cancel("why")
            await g
        assert raised == ["why"] * 4

    run(main)


def test_operations_that_complete_on_the_spot_do_not_look(run):
    async def main():
        async def ended():
            return "result"

        async def worker(fd, peer, done):
            gopoll.current().cancel()
            peer.send(b"ab")
            assert await fd.read(1) == b"a"
            assert await fd.write(b"c") == 1
            assert await fd.read(1) == b"b"
            assert await done == "result"
            await fd.read(1)

        with half_pair() as (fd, peer):
            done = gopoll.go(ended)
            await wait_until(lambda: done.done)
            with pytest.raises(Canceled):
                await gopoll.go(worker, fd, peer, done)

    run(main)


def test_a_yield_for_the_sake_of_the_others_is_no_park(run):
    """A13 lets others run before an operation begins; there is nothing to cancel yet."""

    async def main():
        async def worker(fd, peer):
            gopoll.current().cancel()
            for _ in range(200):
                peer.send(b"x")
                assert await fd.read(1) == b"x"

        with half_pair() as (fd, peer):
            await gopoll.go(worker, fd, peer)

    run(main)


def test_one_that_is_cancelled_before_it_has_begun_runs_to_its_first_park(run):
    async def main():
        ran = []

        async def worker():
            ran.append("began")
            await gopoll.gosched()
            ran.append("never")

        g = gopoll.go(worker)
        g.cancel("early")
        with pytest.raises(Canceled) as caught:
            await g
        assert caught.value.cause == "early"
        assert ran == ["began"]

    run(main, **ONE)


def test_of_several_cancels_the_first_counts_and_one_after_the_end_does_nothing(run):
    async def main():
        g = gopoll.go(forever)
        await wait_parked(g)
        g.cancel("first")
        g.cancel("second")
        with pytest.raises(Canceled) as caught:
            await g
        assert caught.value.cause == "first"
        g.cancel("third")
        with pytest.raises(Canceled) as caught:
            await g
        assert caught.value.cause == "first"

    run(main)


def test_cancelling_one_goroutine_leaves_those_it_started(run):
    async def main():
        children = []

        async def child():
            await gate.wait()
            return "unharmed"

        async def parent():
            children.append(gopoll.go(child))
            await forever()

        gate, open_gate = gopoll.with_cancel(gopoll.background())
        g = gopoll.go(parent)
        await wait_until(lambda: children)
        await wait_parked(g, *children)
        g.cancel()
        with pytest.raises(Canceled):
            await g
        open_gate()
        assert await children[0] == "unharmed"

    run(main)


def test_canceled_is_not_swallowed_by_except_exception(run):
    assert issubclass(Canceled, BaseException)
    assert not issubclass(Canceled, Exception)
    assert issubclass(DeadlineExceeded, TimeoutError), "an OSError: hence Canceled inside"

    async def main():
        swallowed = []

        async def retries():
            for _ in range(3):
                try:
                    await forever()
                except OSError as exc:  # a retry loop must not go on under cancellation
                    swallowed.append(exc)
                except Exception as exc:
                    swallowed.append(exc)

        g = gopoll.go(retries)
        await wait_parked(g)
        g.cancel()
        with pytest.raises(Canceled):
            await g
        assert swallowed == []
        with pytest.raises(DeadlineExceeded):
            async with gopoll.timeout(0.0005):
                await retries()
        assert swallowed == []

    run(main)


def test_a_cancelled_read_leaves_the_bytes_to_the_next(run):
    async def main():
        with half_pair() as (fd, peer):
            g = gopoll.go(fd.read, 5)
            await wait_parked(g)
            g.cancel()
            peer.send(b"bytes")
            try:
                got = await g
            except Canceled:
                got = await fd.read(5)
            assert got == b"bytes"

    run(main)


def test_a_cancelled_write_says_how_much_has_left(run):
    async def main():
        with half_pair() as (fd, peer):
            g = gopoll.go(fd.write, MORE_THAN_FITS)
            await wait_parked(g)
            g.cancel()
            with pytest.raises(Canceled) as caught:
                await g
            assert 0 < caught.value.written < len(MORE_THAN_FITS)
            left = caught.value.written
            while left:
                left -= len(peer.recv(min(left, 1 << 20)))
            with pytest.raises(BlockingIOError):
                peer.recv(1)
            assert await fd.write(b"usable") == 6

    run(main)


def test_wake_ups_and_cancels_that_meet_lose_nothing(run):
    """G1 and P3 from outside: two threads, one parked goroutine, either of them may win."""

    async def main():
        async def worker(gate, seen):
            try:
                await gate.wait()
                seen.append("woken")
            except Canceled:
                seen.append("cancelled")

        for _ in range(200):
            gate, open_gate = gopoll.with_cancel(gopoll.background())
            seen = []
            g = gopoll.go(worker, gate, seen)
            meet = threading.Barrier(2, timeout=60)

            def at_once(act, meet=meet):
                meet.wait()
                act()

            both = [gopoll.go(gopoll.blocking(at_once, act)) for act in (open_gate, g.cancel)]
            await g
            for other in both:
                await other
            assert seen in (["woken"], ["cancelled"])

    run(main)


def test_a_cancel_from_a_thread_while_it_parks_and_runs_is_never_lost(run):
    async def main():
        async def busy():
            while True:
                await gopoll.gosched()
                await gopoll.sleep(1e-6)

        for _ in range(100):
            g = gopoll.go(busy)
            await gopoll.blocking(g.cancel, "now")
            with pytest.raises(Canceled):
                await g

    run(main)


def test_cancellation_waits_for_no_foreign_awaitable(run):
    async def main():
        async def worker():
            gopoll.current().cancel()
            with pytest.raises(TypeError, match="belongs to another event loop"):
                await Foreign(1)
            await gopoll.gosched()

        with pytest.raises(Canceled):
            await gopoll.go(worker)

    run(main)


# -- shield ----------------------------------------------------------------------------------------


def test_under_shield_a_cancelled_goroutine_may_park(run):
    async def main():
        steps = []

        async def worker():
            gopoll.current().cancel("outer")
            async with gopoll.shield():
                await gopoll.sleep(0.0001)
                await gopoll.gosched()
                steps.append("shielded")
                async with gopoll.shield():
                    await gopoll.sleep(0)
                await gopoll.sleep(0)
                steps.append("still")
            try:
                await gopoll.sleep(0)
            except Canceled as exc:
                steps.append(exc.cause)
                raise

        with pytest.raises(Canceled):
            await gopoll.go(worker)
        assert steps == ["shielded", "still", "outer"]

    run(main)


@pytest.mark.parametrize("way", ["sleep", "note", "join"])
def test_a_cancel_does_not_end_a_park_under_shield(run, way):
    async def main():
        gate, open_gate = gopoll.with_cancel(gopoll.background())
        parks = {
            "note": gate.wait,
            "join": lambda: gopoll.go(gate.wait),
            "sleep": lambda: gopoll.sleep(0.1),
        }
        seen = []

        async def worker():
            async with gopoll.shield():
                await parks[way]()
                seen.append(gopoll.current().done)
            await gopoll.gosched()

        g = gopoll.go(worker)
        await wait_parked(g)
        g.cancel("waits")
        await gopoll.sleep(0)
        open_gate()
        with pytest.raises(Canceled):
            await g
        assert seen == [False]

    run(main)


def test_shield_hides_the_end_of_the_contexts_around_it(run):
    async def body():
        async with gopoll.timeout(0) as scope:
            async with gopoll.shield():
                assert scope.context.done
                assert not gopoll.current_context().done
                assert gopoll.current_context().deadline is None
                await gopoll.sleep(0.0001)
                assert await gopoll.go(gopoll.sleep, 0.0001) is None, "a child is shielded too"
            assert gopoll.current_context() is scope.context
            await gopoll.sleep(0)

    async def main():
        with pytest.raises(DeadlineExceeded):
            await body()

    run(main)


def test_a_timeout_inside_shield_holds(run):
    async def main():
        async def worker():
            gopoll.current().cancel("outer")
            async with gopoll.shield():
                with pytest.raises(DeadlineExceeded):
                    async with gopoll.timeout(0.0005):
                        await forever()
            await gopoll.sleep(0)

        with pytest.raises(Canceled) as caught:
            await gopoll.go(worker)
        assert caught.value.cause == "outer"

    run(main)


def test_shield_outside_of_a_goroutine_is_refused():
    with pytest.raises(RuntimeError, match=r"^no goroutine runs here: use \S+ inside gopoll\.run"):
        gopoll.shield().__aenter__().send(None)
