"""SysFD: copies of a descriptor, giving it up, and one that several processes share.

Go: internal/poll/fd_unix.go: FD.Dup; net.conn.File. Go has no detach and no EPOLLEXCLUSIVE.
"""

import contextlib
import errno
import gc
import os
import resource
import socket
import threading
import time
import warnings

import pytest

import gopoll
from gopoll import ClosedError, OpError
from gopoll._fd import FD
from helpers.child import registrations, run_forking
from helpers.fds import MORE_THAN_FITS, adopt, drain, half_pair, parked, registered
from helpers.polls import Running
from plugins.header import FREE_THREADED


@pytest.fixture
def pair(poller):
    """A registered FD and its peer."""
    with registered(poller) as both:
        yield both


def result(awaitable):
    """Await what does not wait, outside a goroutine."""
    with pytest.raises(StopIteration) as end:
        next(awaitable.__await__())
    return end.value.value


@contextlib.contextmanager
def no_descriptor_left():
    """Allow no descriptor beyond those there are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -- copies ----------------------------------------------------------------------------------------


def test_a_copy_is_the_caller_s_and_outlives_the_original(pair):
    fd, peer = pair
    copy = fd.dup()
    assert copy != fd.fileno()
    assert os.get_inheritable(copy) is False
    assert os.get_blocking(copy) is False, "it is the same description"
    fd.close()
    with pytest.raises(ClosedError, match=r"^file unix: use of closed network connection$"):
        fd.dup()
    os.write(copy, b"x")
    assert peer.recv(9) == b"x"
    os.close(copy)
    assert peer.recv(9) == b""


def test_a_copy_needs_a_free_descriptor(pair):
    fd, _ = pair
    with no_descriptor_left():
        with pytest.raises(
            OpError, match=r"^file unix: fcntl: too many open files \(limit 3; "
        ) as caught:
            fd.dup()
    assert caught.value.errno == errno.EMFILE
    os.close(fd.dup())


def test_copies_and_a_close_at_once_give_a_copy_of_ours_or_none(poller):
    """Row 89: never a copy of what has the number by then."""
    for _ in range(200):
        with registered(poller) as (fd, peer):
            start = threading.Barrier(3)

            def copy(fd=fd, start=start):
                start.wait()
                try:
                    return fd.dup()
                except ClosedError:
                    return None

            runs = [Running(copy) for _ in range(2)]
            start.wait()
            fd.close()
            reused = os.eventfd(0)
            copies = [number for number in (r.join() for r in runs) if number is not None]
            for number in copies:
                os.write(number, b"x")
                assert peer.recv(1) == b"x"
                os.close(number)
            os.close(reused)
            assert peer.recv(1) == b""


# -- detaching -------------------------------------------------------------------------------------


def test_what_is_detached_is_open_and_nobody_s(poller, pair):
    fd, peer = pair
    number = fd.fileno()
    fd.set_read_deadline(time.monotonic() + 1000)
    assert fd.detach() == number
    assert fd.is_closed
    assert fd.fileno() == -1
    assert number not in registrations(poller.fileno())
    assert (poller.stats()["descriptors"], poller.stats()["timers"]) == (0, 0)
    for call in (fd.detach, fd.close, fd.getsockname, fd.dup, lambda: result(fd.read(1))):
        with pytest.raises(ClosedError):
            call()
    assert result(fd.wait_closed()) is None
    again = FD(number, "unix")
    again.init(poller)
    peer.send(b"x")
    assert result(again.read(1)) == b"x"
    again.close()
    assert peer.recv(1) == b""


def test_one_that_is_not_registered_is_detached_too():
    ours, peer = socket.socketpair()
    with peer:
        number = ours.detach()
        fd = FD(number, "unix")
        assert fd.detach() == number
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del fd
            gc.collect()
        os.close(number)
        assert peer.recv(1) == b""


@pytest.mark.parametrize("raw", [False, True])
def test_one_that_a_poller_has_refused_is_detached_too(raw):
    """It was given out as a copy, and then closed: from_fd() says that it stays its owner's."""
    refusing = gopoll.Poller(raw=raw)
    if not raw:
        refusing.close()
    ours, peer = socket.socketpair()
    with peer:
        number = ours.detach()
        fd = FD(number, "unix")
        with pytest.raises((ClosedError, RuntimeError), match=r"[Pp]oller"):
            fd.init(refusing)
        assert fd.detach() == number
        del fd
        os.close(number)
    refusing.close()


def test_while_it_is_in_use_a_copy_is_detached(poller, pair):
    """D1: who is in the middle of a call never meets what the caller does with the number."""
    fd, peer = pair
    number = fd.fileno()
    given = []
    fd.raw_control(lambda n: given.append(fd.detach()))
    (copy,) = given
    assert copy != number
    assert fd.fileno() == -1, "closed with its last user"
    assert number not in registrations(poller.fileno())
    os.write(copy, b"x")
    assert peer.recv(9) == b"x"
    assert os.get_inheritable(copy) is False
    os.close(copy)
    assert peer.recv(9) == b""


def test_a_copy_that_cannot_be_had_leaves_all_as_it_was(poller, pair):
    fd, peer = pair

    def on_descriptor(number):
        with no_descriptor_left():
            with pytest.raises(
                OpError, match=r"^detach unix: fcntl: too many open files \(limit 3; "
            ):
                fd.detach()

    fd.raw_control(on_descriptor)
    assert not fd.is_closed
    assert fd.fileno() in registrations(poller.fileno())
    peer.send(b"x")
    assert result(fd.read(1)) == b"x"


def test_of_detach_and_close_one_wins_and_no_descriptor_is_lost(poller):
    for _ in range(200):
        with registered(poller) as (fd, peer):
            start = threading.Barrier(3)

            def attempt(call, start=start):
                start.wait()
                try:
                    return call()
                except ClosedError:
                    return "refused"

            runs = [Running(attempt, call) for call in (fd.close, fd.detach, fd.detach)]
            results = [running.join() for running in runs]
            assert results.count("refused") == 2
            for number in results:
                if isinstance(number, int):
                    os.close(number)
            assert peer.recv(1) == b""
            assert fd.fileno() == -1
    assert poller.stats()["descriptors"] == 0


def test_detach_beside_calls_under_way_gives_one_working_descriptor(poller):
    """D1, raced: the number or a copy, whatever the others are in."""
    for _ in range(200):
        with registered(poller) as (fd, peer):
            start = threading.Barrier(3)

            def use(fd=fd, start=start):
                start.wait()
                try:
                    while True:
                        fd.raw_control(os.fstat)
                except ClosedError:
                    pass

            users = [Running(use) for _ in range(2)]
            start.wait()
            number = fd.detach()
            for running in users:
                running.join()
            assert fd.fileno() == -1
            os.write(number, b"x")
            assert peer.recv(9) == b"x"
            os.close(number)
            assert peer.recv(9) == b""


def test_who_comes_between_the_look_and_the_end_costs_a_copy():
    """D1: alone when detach looks, and not alone when it has closed. Without a GIL one in ten."""
    current = [None]

    def use():
        """Begin a call on each descriptor as soon as it is there."""
        last = None
        while (fd := current[0]) is not done:
            if fd is not None and fd is not last:
                last = fd
                try:
                    fd.getsockname()
                except OSError:  # closed already
                    pass

    done = object()
    user = Running(use)
    try:
        turn = copies = 0
        # So often has the other come in time, or nearly; with a GIL it hardly can.
        while turn < (20_000 if FREE_THREADED else 1000) and copies < 2000:
            turn += 1
            ours, peer = socket.socketpair()
            with peer:
                fd = FD(ours.detach(), "unix")
                at_first = fd.fileno()
                current[0] = fd
                for _ in range(turn % 100):
                    pass
                number = fd.detach()
                current[0] = None
                copies += number != at_first
                with socket.socket(fileno=number) as back:  # ValueError if it is none
                    back.send(b"x")
                    assert peer.recv(9) == b"x"
    finally:
        current[0] = done
        user.join()


def test_detach_turns_out_who_waits_and_who_queues(run):
    async def main():
        with half_pair() as (fd, peer):
            readers = [await parked(fd.read, 1) for _ in range(2)]
            writer = await parked(fd.write, MORE_THAN_FITS)
            number = fd.detach()
            # Adopted before those it has turned out have had their turn: their leaving must not
            # unregister it, nor may they take what comes in.
            again = adopt(socket.socket(fileno=number))
            peer.send(b"x")
            assert await again.read(9) == b"x"
            for g in readers:
                with pytest.raises(ClosedError, match=r"^read unix: use of closed"):
                    await g
            with pytest.raises(ClosedError, match=r"^write unix: use of closed") as caught:
                await writer
            assert caught.value.written == len(drain(peer))
            await fd.wait_closed()
            reader = await parked(again.read, 9)
            peer.send(b"y")
            assert await reader == b"y"
            again.close()
            assert peer.recv(1) == b""

    run(main)


def test_a_child_detaches_what_it_has_inherited():
    """A9: its parent's goroutines, which count as users in its copy, are none of its own."""
    run_forking("""
import socket
from gopoll._fd import FD
from gopoll.runtime._sched import current_poller

async def main():
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    fd = FD(ours.detach(), "unix")
    fd.init(current_poller())
    reader = gopoll.go(fd.read, 1)
    while reader.state != "waiting":
        await gopoll.gosched()
    kernel = registrations(current_poller().fileno())
    assert fd.fileno() in kernel

    def check():
        number = fd.fileno()
        assert fd.detach() == number
        assert fd.fileno() == -1
        os.write(number, b"x")
        os.close(number)
        try:
            fd.dup()
        except (ClosedError, ForkedError):
            pass

    in_child(check)
    assert registrations(current_poller().fileno()) == kernel
    assert peer.recv(9) == b"x"
    peer.send(b"y")
    assert await reader == b"y"
    fd.close()
    peer.close()

gopoll.run(main)
""")


# -- one of many processes -------------------------------------------------------------------------


def test_an_exclusive_one_accepts_waits_and_has_deadlines(run):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as server:
            fd = FD(server.dup().detach(), "tcp")
            os.set_blocking(fd.fileno(), False)
            fd.init(gopoll.runtime._sched.current_poller(), exclusive=True)
            for _ in range(3):
                acceptor = await parked(fd.accept_conn, FD)
                with socket.create_connection(server.getsockname()) as peer:
                    conn = await acceptor
                    assert conn.remote_addr == peer.getsockname()
                    conn.close()
            acceptor = await parked(fd.accept_conn, FD)
            fd.set_read_timeout(0.001)
            with pytest.raises(TimeoutError):
                await acceptor
            fd.set_read_timeout(None)
            acceptor = await parked(fd.accept_conn, FD)
            fd.close()
            with pytest.raises(ClosedError):
                await acceptor

    run(main)
