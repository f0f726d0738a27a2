"""Park requests and awaitables: commit, abort, how a value comes out, what a thread knows.

K1: the caller of commit keeps its own reference; what travels with the word is another one.
"""

import inspect
import sys
import threading
import weakref

import pytest

import gopoll
from gopoll import ParkRequest
from gopoll._park import Awaitable, SliceEnd
from helpers.polls import Running, Waiter, references

YIELD, END = 0, 1


# -- requests --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ParkRequest, SliceEnd, Awaitable])
def test_a_request_without_a_wait_is_ready_at_once(kind):
    """Who drives a coroutine needs no special case: False says go on."""
    request = kind()
    waiter = Waiter()
    before = references(waiter)
    assert request.commit(waiter) is False
    assert request.abort(waiter) is False
    assert references(waiter) == before


def test_requests_are_known_by_their_class(probe):
    end, ops, size = probe.slice_end()
    assert isinstance(end, SliceEnd)
    assert issubclass(SliceEnd, ParkRequest)
    assert issubclass(Awaitable, ParkRequest)
    assert gopoll.ParkRequest is ParkRequest
    assert (ops, size) == (32, 262144), "what a slice may use (A13)"


def test_a_request_takes_any_waiter_and_exactly_one():
    request = ParkRequest()
    for waiter in (None, 1, "text", object()):
        assert request.commit(waiter) is False
    for call in (request.commit, request.abort):
        with pytest.raises(TypeError):
            call()


# -- awaitables ------------------------------------------------------------------------------------

VALUES = [
    None,
    0,
    "text",
    b"",
    (),
    (1, 2),
    ("fd", ("127.0.0.1", 80)),
    [],
    {},
    ValueError("a value"),
    StopIteration(1),
    KeyError,
    Ellipsis,
]


@pytest.fixture(params=["Scripted", "Early"])
def scripted(request, probe):
    """An awaitable with a script; Early is a subclass that existed before the slot was set."""
    return getattr(probe, request.param)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_out_whole(scripted, value):
    """The C tp_iternext. A tuple or an exception must not be unpacked on the way."""

    async def wait():
        return await scripted((END, value))

    with pytest.raises(StopIteration) as end:
        wait().send(None)
    assert end.value.value is value


def test_an_awaitable_yields_until_it_ends(scripted):
    one, two = object(), object()

    async def wait():
        return await scripted((YIELD, one), (YIELD, two), (END, "done"))

    coro = wait()
    assert coro.send(None) is one
    assert coro.send(None) is two
    with pytest.raises(StopIteration) as end:
        coro.send(None)
    assert end.value.value == "done"
    assert inspect.getcoroutinestate(coro) == "CORO_CLOSED"


def test_an_awaitable_is_sent_nothing(scripted):
    async def wait():
        await scripted((YIELD, 1), (END, 2))

    coro = wait()
    coro.send(None)
    with pytest.raises((TypeError, AttributeError)):  # am_send, where there is one, is ours
        coro.send(3)
    assert inspect.getcoroutinestate(coro) == "CORO_CLOSED"


def test_what_a_step_raises_is_raised_at_the_await(scripted):
    caught = []

    async def wait():
        try:
            await scripted((YIELD, 1), OSError(5, "five"))
        except OSError as exc:
            caught.append(exc.errno)
        return await scripted((END, "after"))

    coro = wait()
    coro.send(None)
    with pytest.raises(StopIteration, match="after"):
        coro.send(None)
    assert caught == [5]


def test_values_are_handed_over_without_a_reference_more(scripted):
    value, yielded = Waiter(), Waiter()
    before = references(value), references(yielded)
    steps = scripted((YIELD, yielded), (END, value))
    assert next(steps) is yielded
    try:
        next(steps)
    except StopIteration as end:
        assert end.value is value  # noqa: PT017
    del steps
    assert (references(value), references(yielded)) == before


def test_a_stop_that_is_used_again_is_nobody_else_s(scripted):
    """K5, from 3.12 on: a goroutine's steps by hand show the exceptions that awaits hide."""

    class Local:
        pass

    def stop_of(value):
        try:
            next(scripted((END, value)))
        except StopIteration as end:
            return end

    def step(value):
        local = Local()
        stop_of(value)
        return weakref.ref(local)

    async def main():
        first, second = stop_of(b"first"), stop_of(2)
        await scripted((END, b"third"))
        assert (first.value, first.args) == (b"first", (b"first",))
        assert (second.value, second.args) == (2, (2,))
        first.add_note("kept")
        first.kept = Local()
        gone = weakref.ref(first.kept)
        del first, second
        for value in (b"", b"x" * 4096, b"x" * 4097, 0, 1 << 70, True, None, "text", [1]):
            assert await scripted((END, value)) is value
            assert stop_of(value).args in ((value,), ()), "None is a bare end"
            assert not hasattr(stop_of(value), "__notes__")
        stop_of(b"quiet").__suppress_context__ = True
        assert stop_of(b"next").__suppress_context__ is False
        assert gone() is None
        left = [step(value) for value in (b"bytes", 1000)]
        await scripted((END, b"next"))
        await scripted((END, b"one"))
        return [ref() for ref in left]

    assert gopoll.run(main) == [None, None]


def test_a_step_by_hand_holds_nothing_after_its_run(scripted):
    """K5: the exception that it caught has its frame in a traceback."""

    class Local:
        pass

    def step():
        local = Local()
        try:
            next(scripted((END, b"bytes")))
        except StopIteration:
            return weakref.ref(local)

    async def main():
        return step()

    assert gopoll.run(main)() is None


def test_an_awaitable_is_its_own_iterator(scripted):
    op = scripted((END, None))
    assert op.__await__() is op
    with pytest.raises(StopIteration):
        next(op.__await__())


def test_a_python_subclass_is_refused_where_it_is_awaited(scripted):
    """The slot is C's: type() clears it in a class whose __next__ is in no dict. Nobody needs one,
    and it must not be silence."""

    class Own(scripted):
        pass

    async def wait():
        await Own((YIELD, 1))

    new = sys.version_info >= (3, 15)
    text = r"Own\.__await__\(\) must return an iterator" if new else "non-iterator of type 'Own'"
    with pytest.raises(TypeError, match=text):
        wait().send(None)


def test_an_awaitable_without_a_step_says_so():
    with pytest.raises(NotImplementedError):
        next(Awaitable().__await__())


# -- what a thread knows of itself -----------------------------------------------------------------


def test_each_thread_has_words_of_its_own_and_begins_with_none(probe):
    start = threading.Barrier(3)

    def look(ops):
        start.wait()
        fresh = probe.slice_words()
        probe.spend(ops, 1000 * ops)
        start.wait()  # all three are alive: no address is used twice
        return fresh, probe.slice_words()

    runs = [Running(look, n) for n in (1, 2)]
    start.wait()
    mine = probe.slice_words()
    start.wait()
    addresses = {mine[0]}
    for n, running in zip((1, 2), runs, strict=True):
        fresh, spent = running.join()
        assert fresh[1:] == (0, 0, 0, 0, 0), "no goroutine, no scheduler, nothing spent"
        assert spent[1:] == (0, 0, 0, n, 1000 * n)
        addresses.add(fresh[0])
    assert len(addresses) == 3
    assert probe.slice_words() == mine


def test_the_words_name_who_runs_here(probe):
    """Borrowed, and gone after run(): a stale one would be a dangling pointer."""

    async def main():
        words = probe.slice_words()
        g = gopoll.current()
        return words, id(g)

    before = probe.slice_words()
    words, _ = gopoll.run(main)
    assert words[0] == before[0]
    assert 0 not in words[1:4]
    assert probe.slice_words()[1:4] == (0, 0, 0)
