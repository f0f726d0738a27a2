"""Look-ups as calls: shared by name, so many at once, and left alone when nobody waits."""

import gc
import linecache
import random
import sys
import threading
import weakref

import pytest

import gopoll
from gopoll.errors import Canceled, DNSError
from gopoll.net import resolve
from gopoll.net.addr import IPAddr
from gopoll.net.dial import Dialer
from gopoll.net.listen import ListenConfig
from gopoll.net.resolve import DEFAULT_RESOLVER, WORKERS, Resolver
from gopoll.runtime._sched import current_sched
from gopoll.runtime.blocking import MAX_THREADS
from gopoll.runtime.context import current_context, with_cancel
from gopoll.runtime.goroutine import go
from gopoll.runtime.scope import shield
from net.tools import parked, until
from plugins.guard import wait_until

V4, V6, ANY = resolve.socket.AF_INET, resolve.socket.AF_INET6, resolve.socket.AF_UNSPEC


class System:
    """A getaddrinfo whose calls end when the test says so."""

    def __init__(self):
        self.lock = threading.Lock()
        self.calls = []
        self.running = 0
        self.most = 0
        self.begun = threading.Semaphore(0)  # of each call
        self.open = threading.Event()  # lets everybody through
        self.outcome = [IPAddr(V4, "10.0.0.1")]

    def __call__(self, host, family):
        with self.lock:
            self.calls.append((host, family))
            self.running += 1
            self.most = max(self.most, self.running)
        self.begun.release()
        assert self.open.wait(60)
        with self.lock:
            self.running -= 1
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    def hosts(self):
        with self.lock:
            return [host for host, _ in self.calls]


@pytest.fixture
def system(monkeypatch):
    found = System()
    monkeypatch.setattr(resolve, "_getaddrinfo", found)
    yield found
    found.open.set()


async def nothing_left(resolver):
    """Wait until no worker is left, and see that no flight is."""
    flights = resolver._flights()
    await wait_until(lambda: not flights._workers)
    assert not flights._table
    assert not flights._queue


def test_look_ups_of_one_name_at_the_same_time_are_one_call(run, system):
    async def main():
        resolver = Resolver()
        lookups = [go(resolver.lookup_host, "one.example") for _ in range(20)]
        await parked(*lookups)
        await until(system.hosts)
        system.open.set()
        answers = [await g for g in lookups]
        assert answers == [["10.0.0.1"]] * 20
        assert system.calls == [("one.example", ANY)]
        assert await resolver.lookup_host("one.example") == ["10.0.0.1"]  # nothing is kept
        assert len(system.calls) == 2

    run(main)


def test_each_caller_has_the_answer_for_itself(run, system):
    async def main():
        resolver = Resolver()
        lookups = [go(resolver._lookup, "one.example", ANY) for _ in range(2)]
        await parked(*lookups)
        system.open.set()
        one, two = [await g for g in lookups]
        one.clear()
        assert two == [IPAddr(V4, "10.0.0.1")]
        assert len(system.calls) == 1

    run(main)


def test_another_family_is_another_call(run, system):
    async def main():
        resolver = Resolver()
        system.open.set()
        lookups = [go(resolver.lookup_addr, "one.example", 1, f) for f in (V4, V6, ANY, V4)]
        for g in lookups:
            await g
        assert {family for _, family in system.calls} == {V4, V6, ANY}

    run(main)


def test_whoever_is_cancelled_the_others_get_the_answer(run, system):
    async def main():
        resolver = Resolver()
        first = go(resolver.lookup_host, "one.example")
        await until(system.hosts)
        others = [go(resolver.lookup_host, "one.example") for _ in range(3)]
        await parked(first, *others)
        first.cancel("enough")  # it was the one that began the call
        others[1].cancel("enough")
        for g in (first, others[1]):
            with pytest.raises(Canceled, match="enough"):
                await g
        system.open.set()
        assert await others[0] == await others[2] == ["10.0.0.1"]
        assert len(system.calls) == 1

    run(main)


def test_a_call_that_nobody_waits_for_is_joined_by_the_next(run, system):
    """It cannot be stopped: to begin another beside it would cost a thread each time (N1)."""

    async def main():
        resolver = Resolver(workers=1)
        for _ in range(3):
            g = go(resolver.lookup_host, "one.example")
            await until(system.hosts)
            await parked(g)
            g.cancel()
            with pytest.raises(Canceled):
                await g
        last = go(resolver.lookup_host, "one.example")
        await parked(last)
        system.open.set()
        assert await last == ["10.0.0.1"]
        assert len(system.calls) == 1

    run(main)


def test_so_many_run_at_once_and_the_others_queue(run, system):
    async def main():
        resolver = Resolver(workers=2)
        lookups = [go(resolver.lookup_host, f"h{i}") for i in range(6)]
        await parked(*lookups)
        await until(lambda: len(system.hosts()) == 2)
        assert await gopoll.blocking(lambda: 7) == 7  # the other threads are free
        system.open.set()
        for g in lookups:
            assert await g == ["10.0.0.1"]
        assert sorted(system.hosts()) == [f"h{i}" for i in range(6)]
        assert system.most == 2

    run(main)


def test_a_look_up_in_the_queue_can_be_cancelled(run, system):
    async def main():
        resolver = Resolver(workers=1)
        held = go(resolver.lookup_host, "held")
        await until(system.hosts)
        waiting = [go(resolver.lookup_host, name) for name in ("a", "b", "b", "c")]
        await parked(held, *waiting)
        for g in (waiting[0], waiting[1]):
            g.cancel()
            with pytest.raises(Canceled):
                await g
        flights = resolver._flights()
        assert sorted(flight.key[0] for flight in flights._queue) == ["b", "c"]
        system.open.set()
        for g in (held, waiting[2], waiting[3]):
            assert await g == ["10.0.0.1"]
        assert sorted(system.hosts()) == ["b", "c", "held"]  # never "a"

    run(main)


def test_what_no_thread_has_begun_is_not_called_for_nobody(run, system):
    """The place is taken, the pool is full, and the caller goes (N2)."""

    async def main():
        resolver, other = Resolver(), threading.Event()
        full = [go(gopoll.blocking, other.wait) for _ in range(MAX_THREADS)]
        await parked(*full)
        g = go(resolver.lookup_host, "late")
        await parked(g)
        g.cancel()
        with pytest.raises(Canceled):
            await g
        other.set()
        for each in full:
            await each
        system.open.set()
        assert await resolver.lookup_host("next") == ["10.0.0.1"]
        assert system.hosts() == ["next"]

    run(main)


def test_a_failure_is_everybody_s_and_an_error_of_his_own(run, system):
    async def main():
        resolver = Resolver()
        system.outcome = resolve.socket.gaierror(resolve.socket.EAI_AGAIN, "Try again")
        lookups = [go(resolver.lookup_host, "one.example") for _ in range(3)]
        await parked(*lookups)
        system.open.set()
        errors = []
        for g in lookups:
            with pytest.raises(DNSError, match=r"lookup one\.example: try again") as caught:
                await g
            errors.append(caught.value)
        assert len({id(error) for error in errors}) == 3
        assert all(error.is_temporary for error in errors)
        assert len(system.calls) == 1
        system.outcome = ZeroDivisionError("a bug")
        with pytest.raises(ZeroDivisionError):
            await resolver.lookup_host("one.example")

    run(main)


def test_without_a_thread_everybody_hears_of_it(run, system, monkeypatch):
    async def main():
        resolver = Resolver(workers=1)
        with monkeypatch.context() as patched:

            def start(thread):
                raise RuntimeError("can't start new thread")

            patched.setattr(threading.Thread, "start", start)
            lookups = [go(resolver.lookup_host, name) for name in ("a", "a", "b")]
            for g in lookups:
                with pytest.raises(RuntimeError, match="can't start"):
                    await g
        system.open.set()
        assert await resolver.lookup_host("a") == ["10.0.0.1"]

    run(main)


def test_two_runs_have_calls_of_their_own(system):
    resolver = Resolver(workers=1)
    answers = []

    def program():
        async def main():
            answers.append(await resolver.lookup_host("one.example"))

        gopoll.run(main)

    threads = [threading.Thread(target=program) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        assert system.begun.acquire(timeout=60)
    system.open.set()
    for thread in threads:
        thread.join(60)
    assert answers == [["10.0.0.1"]] * 2
    program()  # and one after the other
    assert len(answers) == 3


def test_a_run_that_has_looked_up_is_freed(system):
    """Whoever holds the resolver: DEFAULT_RESOLVER stays as long as the process."""
    resolver = Resolver()
    system.open.set()

    async def main():
        await resolver.lookup_host("one.example")
        return weakref.ref(current_sched().pool)

    runs = [gopoll.run(main) for _ in range(3)]
    gc.collect()
    assert [run() for run in runs] == [None] * 3


def test_a_resolver_is_freed_while_the_run_goes_on(run, system):
    async def main():
        resolver = Resolver()
        system.open.set()
        await resolver.lookup_host("one.example")
        await nothing_left(resolver)
        gone = weakref.ref(resolver._flights())
        del resolver
        gc.collect()
        assert gone() is None

    run(main)


def raise_at(turn, codes):
    """Have the *turn*-th line of *codes* raise, as a signal handler may, on this thread.

    Not in a `with`: the interpreter takes no signal between a lock and its body. Returns whether
    it has raised.
    """
    raised = []
    left = turn

    def on_line(frame, event, _):
        nonlocal left
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).split()
        if event == "line" and line and line[0] != "with" and not raised:
            left -= 1
            if left < 0:
                raised.append(True)
                raise KeyboardInterrupt("of a handler")
        return on_line

    sys.settrace(lambda frame, event, _: on_line if frame.f_code in codes else None)
    return raised


def test_a_signal_handler_that_raises_strands_nobody(run, system):
    """N3: wherever it raises, the next look-up of the name is begun or joined, and ends."""
    names = ("join", "_start_worker", "_leave", "_forget")
    codes = [getattr(resolve._Flights, name).__code__ for name in names]
    system.open.set()

    async def main():
        turn, raised = 0, True
        while raised:
            resolver = Resolver(workers=1)
            raised = raise_at(turn, codes)
            try:
                await resolver.lookup_host("one.example")
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(None)
            async with gopoll.timeout(20):
                assert await resolver.lookup_host("one.example") == ["10.0.0.1"]
            await nothing_left(resolver)
            turn += 1
        assert turn > 15

    run(main, procs=1, handoff=False)  # the trace is this thread's


@pytest.mark.parametrize("begun", [False, True])
def test_who_has_relied_on_a_worker_gets_another(run, system, monkeypatch, begun):
    """N3: the start is interrupted, before or after a thread has begun; another has queued."""

    async def main():
        resolver = Resolver(workers=1)
        flights = resolver._flights()
        other = flights.join("b", lambda: resolve._getaddrinfo("b", ANY))
        start = flights._pool.start

        def interrupted(call):
            monkeypatch.setattr(flights._pool, "start", start)
            assert other.send(None) is not None  # it waits, for the worker that starts here
            if begun:
                start(call)
            raise KeyboardInterrupt("of a handler")

        monkeypatch.setattr(flights._pool, "start", interrupted)
        system.open.set()
        with pytest.raises(KeyboardInterrupt):
            await resolver.lookup_host("a")
        await nothing_left(resolver)
        with pytest.raises(StopIteration) as ended:
            other.send(None)
        assert ended.value.value.found == [IPAddr(V4, "10.0.0.1")]

    run(main)


def test_who_has_relied_on_a_worker_hears_that_there_is_none(run, system, monkeypatch):
    async def main():
        resolver = Resolver(workers=1)
        flights = resolver._flights()
        other = flights.join("b", lambda: resolve._getaddrinfo("b", ANY))
        waits = []

        def start(call):
            waits.extend([] if waits else [other.send(None)])
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(flights._pool, "start", start)
        with pytest.raises(RuntimeError, match="can't start"):
            await resolver.lookup_host("a")
        with pytest.raises(StopIteration) as ended:
            other.send(None)
        assert isinstance(ended.value.value.error, RuntimeError)
        await nothing_left(resolver)

    run(main)


def test_a_look_up_under_a_shield_works_while_the_run_ends(system):
    answers = []

    async def clean_up():
        try:
            await current_context().wait()
        finally:
            async with shield():
                answers.append(await Resolver().lookup_host("one.example"))

    async def main():
        await parked(go(clean_up))
        system.open.set()

    gopoll.run(main)
    assert answers == [["10.0.0.1"]]


def test_workers_must_make_sense():
    with pytest.raises(TypeError, match="workers must be an int, not str"):
        Resolver(workers="4")
    with pytest.raises(TypeError, match="workers must be an int, not bool"):
        Resolver(workers=True)
    with pytest.raises(ValueError, match="workers must be above 0, not 0"):
        Resolver(workers=0)
    assert 0 < WORKERS < MAX_THREADS


def test_many_callers_come_and_go(run, system):
    """From several Ps where there are some: each gets its answer or its own cancellation."""
    rng = random.Random(7)
    system.open.set()

    async def caller(resolver, name):
        ctx, cancel = with_cancel(current_context())
        try:
            assert await resolver.lookup_host(name) == ["10.0.0.1"]
            return "found"
        except Canceled:
            return "canceled"
        finally:
            cancel()
            assert ctx.done

    async def main():
        resolver = Resolver(workers=3)
        for _ in range(40):
            callers = [go(caller, resolver, f"h{rng.randrange(6)}") for _ in range(25)]
            for g in rng.sample(callers, 10):
                g.cancel()
            outcomes = [await g for g in callers]
            assert outcomes.count("found") >= 15
        assert system.most <= 3
        await nothing_left(resolver)

    run(main)


def test_dial_and_listen_share_one_resolver():
    assert Dialer().resolver is ListenConfig().resolver is DEFAULT_RESOLVER
