"""NetpollSelector: what CPython's suite leaves out. See test_cpython_selectors.py for the rest."""

import asyncio
import contextlib
import math
import os
import select
import selectors
import signal
import socket
import threading
import time

import pytest

from gopoll.embed.selector import NetpollSelector

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
BOTH = READ | WRITE


@pytest.fixture
def sel():
    with NetpollSelector() as selector:
        yield selector


@pytest.fixture
def pair():
    a, b = socket.socketpair()
    with a, b:
        yield a, b


def same_error(call):
    """Call *call* with each kind of selector; both must raise alike. Return the error."""
    errors = []
    for kind in (NetpollSelector, selectors.EpollSelector):
        with kind() as selector, pytest.raises(Exception) as caught:  # noqa: PT011
            call(selector)
        errors.append(caught.value)
    ours, theirs = errors
    assert (type(ours), ours.args) == (type(theirs), theirs.args)
    return ours


def closed_fd():
    """Return a number that is no descriptor."""
    fd = os.dup(0)
    os.close(fd)
    return fd


EPOLL_PWAIT2 = "441"  # on every machine


def asleep(thread):
    """Return when *thread* waits in the kernel for events; give up where that cannot be seen."""
    end = time.monotonic() + 5
    with contextlib.suppress(OSError):
        while time.monotonic() < end:
            with open(f"/proc/self/task/{thread.native_id}/syscall") as file:
                if file.read().split()[0] == EPOLL_PWAIT2:
                    return
            time.sleep(0.001)


class NoFile:
    """Has no fileno, and a repr that does not change."""

    def __repr__(self):
        return "<no file>"


CALLS = {
    "events 0": lambda s: s.register(0, 0),
    "events 4": lambda s: s.register(0, 4),
    "events huge": lambda s: s.register(0, 1 << 70),
    "events text": lambda s: s.register(0, "r"),
    "no file": lambda s: s.register(NoFile(), READ),
    "negative": lambda s: s.register(-1, READ),
    "bad fd": lambda s: s.register(1000, READ),
    "itself": lambda s: s.register(s.fileno(), READ),
    "not there": lambda s: s.unregister(77),
    "not there to modify": lambda s: s.modify(77, READ),
    "no file to unregister": lambda s: s.unregister(NoFile()),
    "no key": lambda s: s.get_key(77),
    "not in the map": lambda s: s.get_map()[77],
    "no file in the map": lambda s: NoFile() in s.get_map(),
    "negative in the map": lambda s: -1 in s.get_map(),
    "no file for the map": lambda s: s.get_map().get(NoFile()),
    "timeout text": lambda s: s.select("1"),
    "timeout nan": lambda s: s.select(math.nan),
    "timeout inf": lambda s: s.select(math.inf),
    "select after close": lambda s: (s.close(), s.select(0)),
    "register after close": lambda s: (s.close(), s.register(0, READ)),
    "unregister after close": lambda s: (s.close(), s.unregister(0)),
    "modify after close": lambda s: (s.close(), s.modify(0, READ)),
    "get_key after close": lambda s: (s.close(), s.get_key(0)),
    "fileno after close": lambda s: (s.close(), s.fileno()),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_errors_are_epoll_selectors(call):
    same_error(call)


def test_a_timeout_beyond_the_clock_is_an_overflow_error(sel):
    """EpollSelector has three texts for it, and gives up at 24 days; we wait for centuries."""
    with pytest.raises(OverflowError, match="timeout is too large"):
        sel.select(1e15)


def test_registered_twice_is_a_key_error(pair):
    same_error(lambda s: (s.register(pair[0], READ), s.register(pair[0], WRITE)))
    same_error(lambda s: (s.register(pair[0], READ), s.register(pair[0].fileno(), WRITE)))


def test_a_regular_file_is_refused_and_not_kept(tmp_path):
    """Z1: where epoll refuses it, its key is taken out again."""
    with open(tmp_path / "file", "w") as file:
        error = same_error(lambda s: s.register(file, READ))
        assert isinstance(error, PermissionError)
        with NetpollSelector() as sel:
            for _ in range(2):  # the second time it is not "registered already"
                with pytest.raises(PermissionError):
                    sel.register(file, READ)
            assert len(sel.get_map()) == 0


def test_ready_stays_ready(sel, pair):
    """Level-triggered: what has not been read is told again, by one selector and by select()."""
    a, b = pair
    key = sel.register(a, READ, "data")
    b.send(b"xy")
    for _ in range(3):
        assert sel.select(0) == [(key, READ)]
        assert select.select([sel], [], [], 0)[0] == [sel]
    a.recv(1)
    assert sel.select(0) == [(key, READ)]
    a.recv(1)
    assert sel.select(0) == []


def test_hang_up_is_both(sel, pair):
    a, b = pair
    key = sel.register(a, BOTH)
    b.close()
    assert sel.select(0) == [(key, BOTH)]


def test_a_copy_keeps_epoll_going_as_in_epoll_selector(pair):
    """A number that is closed while a copy is open: its events have no key and are left out."""
    a, b = pair
    for kind in (NetpollSelector, selectors.EpollSelector):
        with kind() as sel, socket.socket(fileno=os.dup(a.fileno())) as one:
            copy = one.dup()
            sel.register(one, READ)
            b.send(b"x")
            one.close()
            sel.unregister(one)
            assert sel.select(0) == []
            copy.close()
            a.recv(1)


def test_copies_are_registered_beside_each_other(sel, pair):
    a, b = pair
    with a.dup() as copy:
        keys = {sel.register(a, READ), sel.register(copy, READ)}
        b.send(b"x")
        assert {key for key, _ in sel.select(0)} == keys


def test_a_number_is_registered_again_after_its_file_was_closed(sel):
    for _ in range(3):
        a, b = socket.socketpair()
        with b:
            key = sel.register(a, READ)
            b.send(b"x")
            assert sel.select(0) == [(key, READ)]
            a.close()
            assert sel.unregister(a) == key
            assert sel.select(0) == []


def test_modify_changes_events_and_data(sel, pair):
    a, _ = pair
    key = sel.register(a, READ, "one")
    assert sel.select(0) == []
    assert sel.modify(a, READ, "one") is key
    assert sel.modify(a, READ, "two") == (a, a.fileno(), READ, "two")
    new = sel.modify(a, BOTH, "two")
    assert sel.select(0) == [(new, WRITE)]
    assert sel.get_key(a) is new
    assert isinstance(new, selectors.SelectorKey)
    assert sel.modify(a, READ).data is None
    assert sel.select(0) == []


def test_a_modify_that_fails_unregisters(sel):
    a, b = socket.socketpair()
    with b:
        fd = a.fileno()
        sel.register(fd, READ)
        a.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            sel.modify(fd, BOTH)
        assert fd not in sel.get_map()


@pytest.mark.parametrize("number", [1, 128, 129, 300])
def test_all_that_is_ready_comes_at_once(sel, number):
    with_pipes = [os.pipe() for _ in range(number)]
    try:
        keys = {sel.register(w, WRITE) for _, w in with_pipes}
        assert {key for key, _ in sel.select(0)} == keys
    finally:
        for fds in with_pipes:
            list(map(os.close, fds))


@pytest.mark.parametrize("seconds", [0.0001, 0.0015, 0.02])
def test_a_timeout_never_ends_early(sel, seconds):
    for _ in range(5):
        before = time.monotonic()
        assert sel.select(seconds) == []
        assert time.monotonic() - before >= seconds


def test_a_signal_is_handled_and_the_wait_goes_on(sel):
    seen = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(time.monotonic()))
    try:
        start = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert sel.select(0.4) == []
        assert time.monotonic() - start >= 0.4
        assert len(seen) == 1
        assert seen[0] - start < 0.4
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_signal_handler_may_close(sel):
    def closes():
        asleep(threading.main_thread())
        os.kill(os.getpid(), signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, lambda *_: sel.close())
    thread = threading.Thread(target=closes)
    try:
        thread.start()
        assert sel.select() == []
    finally:
        thread.join()
        signal.signal(signal.SIGALRM, before)


def test_what_another_thread_registers_wakes_a_select(sel, pair):
    a, b = pair
    b.send(b"x")
    got = []
    thread = threading.Thread(target=lambda: got.extend(sel.select(30)))
    thread.start()
    asleep(thread)
    key = sel.register(a, READ)
    thread.join()
    assert got == [(key, READ)]


@pytest.mark.parametrize("number", [1, 3])
def test_close_wakes_every_select(number):
    """Z2: each sleeper hands the break on, the last one closes the descriptor."""
    sel = NetpollSelector()
    fd = sel.fileno()
    ends = []

    def wait():
        try:
            ends.append(sel.select(60))
        except ValueError:  # it came after close()
            ends.append([])

    threads = [threading.Thread(target=wait) for _ in range(number)]
    for thread in threads:
        thread.start()
        asleep(thread)
    sel.close()
    for thread in threads:
        thread.join(30)
    assert ends == [[]] * number
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_close_twice_and_what_is_left(sel, pair):
    sel.register(pair[0], READ)
    there = sel.get_map()
    sel.close()
    sel.close()
    assert sel.get_map() is None
    assert len(there) == 0


def test_the_map_is_live_and_a_mapping(sel, pair):
    a, b = pair
    there = sel.get_map()
    key = sel.register(a, READ)
    assert there is sel.get_map()
    assert there[a] is there[a.fileno()] is there.get(a) is key
    assert b not in there
    assert there.get(b, 5) == 5
    assert list(there) == [a.fileno()]
    assert list(there.values()) == [key]
    assert there == {a.fileno(): key}
    with pytest.raises(TypeError):
        there[a] = key


def test_asyncio_runs_on_it():
    async def echo(reader, writer):
        writer.write(await reader.read(100))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main():
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            for _ in range(20):
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                writer.write(b"hello")
                assert await reader.read() == b"hello"
                writer.close()
                await writer.wait_closed()

    with asyncio.Runner(
        loop_factory=lambda: asyncio.SelectorEventLoop(NetpollSelector())
    ) as runner:
        runner.run(main())
