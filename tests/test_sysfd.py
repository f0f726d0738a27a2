"""SysFD on a bare poller: registered, given deadlines, closed in any order, forked.

What goroutines do with it is in test_fd.py. Go: internal/poll/fd_unix.go, fd_poll_runtime.go.
"""

import errno
import gc
import math
import os
import socket
import sys
import threading
import time
import warnings

import pytest

import gopoll
from gopoll import ClosedError, OpError, Poller
from gopoll._fd import FD
from gopoll._sysfd import SysFD
from helpers.child import open_fds, registrations, run_forking
from helpers.fds import registered
from helpers.polls import Running


@pytest.fixture
def pair(poller):
    """A registered FD and its peer."""
    with registered(poller) as both:
        yield both


def read(fd, n=9):
    """Read what is there, now, outside a goroutine."""
    try:
        next(fd.read(n).__await__())
    except StopIteration as end:
        return end.value
    raise AssertionError("it would have waited")


def is_in_time(fd):
    """Whether an attempt is made at all: outside a goroutine it ends in a RuntimeError."""
    try:
        read(fd)
    except TimeoutError:
        return False
    except RuntimeError as exc:
        assert "outside a goroutine" in str(exc)  # noqa: PT017
    return True


# -- registration ----------------------------------------------------------------------------------


def test_it_is_registered_under_its_poller_and_gone_after_close(poller, pair):
    fd, peer = pair
    number = fd.fileno()
    assert fd.poller is poller
    assert number in registrations(poller.fileno())
    assert poller.stats()["descriptors"] == 1
    assert not fd.is_closed
    fd.close()
    assert fd.is_closed
    assert fd.fileno() == -1
    assert number not in registrations(poller.fileno())
    assert poller.stats()["descriptors"] == 0
    assert peer.recv(1) == b""


def test_one_that_is_not_registered_reads_and_closes(poller):
    ours, peer = socket.socketpair()
    with peer:
        fd = FD(ours.detach(), "unix")
        peer.send(b"x")
        assert fd.poller is None
        assert read(fd) == b"x"
        with pytest.raises(OpError, match="does not support deadline"):
            fd.set_deadline(None)
        fd.close()
        assert peer.recv(1) == b""


def test_a_failed_registration_leaves_the_descriptor_to_its_owner(poller, tmp_path):
    number = os.open(tmp_path / "plain", os.O_RDWR | os.O_CREAT)
    fd = FD(number, "file", file=True)
    with pytest.raises(gopoll.NotPollableError):
        fd.init(poller)
    assert fd.poller is None
    assert poller.stats()["descriptors"] == 0
    os.fstat(number)
    fd.close()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(number)


def test_a_closed_poller_registers_nothing():
    poller = Poller()
    poller.close()
    ours, peer = socket.socketpair()
    with peer:
        fd = FD(ours.detach(), "unix")
        with pytest.raises(ClosedError, match="poller"):
            fd.init(poller)
        with pytest.raises(TypeError):
            fd.init(None)
        fd.close()
        assert fd.fileno() == -1, "a reference is left"
        assert peer.recv(1) == b""


def test_addresses_are_noted_and_shown(pair):
    fd, _ = pair
    assert (fd.local_addr, fd.remote_addr, fd.network) == (None, None, "unix")
    fd.set_addrs(("127.0.0.1", 1), ("127.0.0.2", 2))
    assert (fd.local_addr, fd.remote_addr) == (("127.0.0.1", 1), ("127.0.0.2", 2))
    fd.set_deadline(-1)
    with pytest.raises(TimeoutError, match=r"^read unix 127\.0\.0\.1:1->127\.0\.0\.2:2: i/o timeo"):
        read(fd)
    with pytest.raises(AttributeError):
        fd.poller = None


# -- references ------------------------------------------------------------------------------------


def test_raw_control_gives_the_reference_back_whatever_happens(pair):
    fd, peer = pair
    with pytest.raises(ZeroDivisionError):
        fd.raw_control(lambda number: 1 / 0)
    assert fd.raw_control(lambda number: (number, fd.raw_control(os.fstat)))[0] == fd.fileno()
    fd.close()
    assert fd.fileno() == -1, "somebody keeps it"
    assert peer.recv(1) == b""
    for call in (fd.getsockname, fd.close_read, fd.close_write, lambda: fd.raw_control(os.fstat)):
        with pytest.raises(ClosedError, match="use of closed network connection"):
            call()


def test_shutting_down_says_what_the_kernel_says(poller):
    with socket.socket() as plain:
        fd = FD(plain.detach(), "tcp")
        for call in (fd.close_read, fd.close_write):
            with pytest.raises(OpError, match=r"^close tcp: ") as caught:
                call()
            assert caught.value.errno == errno.ENOTCONN
        fd.close()


def test_of_many_that_close_one_does(poller):
    for _ in range(100):
        with registered(poller) as (fd, peer):
            start = threading.Barrier(3)
            refused = []

            def close(fd=fd, start=start, refused=refused):
                start.wait()
                try:
                    fd.close()
                except ClosedError:
                    refused.append(1)

            runs = [Running(close) for _ in range(3)]
            for running in runs:
                running.join()
            assert len(refused) == 2
            assert fd.fileno() == -1
            assert peer.recv(1) == b""
    assert poller.stats()["descriptors"] == 0


# -- deadlines -------------------------------------------------------------------------------------

SETTERS = [
    "deadline",
    "read_deadline",
    "write_deadline",
    "timeout",
    "read_timeout",
    "write_timeout",
]


@pytest.mark.parametrize("name", SETTERS)
def test_a_deadline_is_armed_for_its_directions_and_cleared(poller, pair, name):
    fd, _ = pair
    set_it = getattr(fd, f"set_{name}")
    later = time.monotonic() + 1000 if name.endswith("deadline") else 1000
    set_it(later)
    both = "read" not in name and "write" not in name
    assert poller.stats()["timers"] == 1 + both
    assert 999 * 10**9 < poller.timeout_ns() <= 1000 * 10**9
    assert is_in_time(fd)
    set_it(-5 if name.endswith("timeout") else 0.001)
    assert is_in_time(fd) == name.startswith("write")
    assert poller.stats()["timers"] == 0
    set_it(None)
    assert is_in_time(fd)
    assert poller.timeout_ns() == -1


@pytest.mark.parametrize("name", SETTERS)
def test_a_deadline_is_a_number_of_any_size(poller, pair, name):
    fd, _ = pair
    set_it = getattr(fd, f"set_{name}")
    for far in (1e10, 1e300, math.inf, 9e9, 10**18):
        set_it(far)
        assert is_in_time(fd)
        assert poller.timeout_ns() > 10**18
    for past in (0 if name.endswith("deadline") else 0.0, -1e300, -math.inf, -1):
        set_it(past)
        assert is_in_time(fd) == name.startswith("write")
    with pytest.raises(ValueError, match="is not a number"):
        set_it(math.nan)
    for wrong in ("soon", [], 1j):
        with pytest.raises(TypeError, match=r"^(deadline|timeout) must be seconds or None, not"):
            set_it(wrong)
    set_it(None)
    with pytest.raises(OverflowError):
        set_it(10**400)
    assert is_in_time(fd)


@pytest.mark.parametrize("name", SETTERS)
def test_a_closed_one_takes_no_deadline(pair, name):
    fd, _ = pair
    fd.close()
    with pytest.raises(ClosedError, match=r"^set unix: use of closed network connection$"):
        getattr(fd, f"set_{name}")(None)


# -- the poller goes first -------------------------------------------------------------------------


def test_a_closed_poller_takes_nothing_from_its_owner(poller, pair):
    fd, peer = pair
    number = fd.fileno()
    poller.close()
    os.fstat(number)
    with pytest.raises(ClosedError):
        read(fd)
    fd.close()
    assert fd.fileno() == -1
    assert peer.recv(1) == b""


def test_closing_both_at_once_closes_both_and_nothing_else():
    """The number of the epoll instance, once it is closed, may be anybody's."""
    for _ in range(200):
        before = open_fds()
        poller = Poller()
        with registered(poller) as (fd, peer):
            start = threading.Barrier(2)

            def close(poller=poller, start=start):
                start.wait()
                poller.close()

            running = Running(close)
            start.wait()
            fd.close()
            running.join()
            assert peer.recv(1) == b""
        assert open_fds() == before


# -- nobody closes it ------------------------------------------------------------------------------


def test_an_unclosed_one_leaves_its_poller_too(poller):
    ours, peer = socket.socketpair()
    with peer:
        fd = FD(ours.detach(), "unix")
        fd.init(poller)
        with pytest.warns(ResourceWarning, match="unclosed"):
            del fd
        gc.collect()
        assert poller.stats()["descriptors"] == 0
        assert peer.recv(1) == b""


def test_the_base_class_closes_what_it_owns():
    """SysFD has no close() of its own: FD adds it. It is never let go unclosed."""
    ours, peer = socket.socketpair()
    with peer:
        fd = SysFD(ours.detach(), "unix")
        with pytest.warns(ResourceWarning, match="unclosed"):
            del fd
        gc.collect()
        assert peer.recv(1) == b""


def test_one_that_was_never_made_owns_nothing():
    before = open_fds()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fd = FD.__new__(FD)
        assert fd.fileno() == -1
        assert not fd.is_closed
        del fd
        gc.collect()
    assert open_fds() == before


def test_it_keeps_its_poller_alive(poller):
    other = Poller()
    before = sys.getrefcount(other)
    ours, peer = socket.socketpair()
    with peer:
        fd = FD(ours.detach(), "unix")
        fd.init(other)
        assert sys.getrefcount(other) == before + 1
        fd.close()
        del fd
        gc.collect()
        assert sys.getrefcount(other) == before
    other.close()


# -- fork ------------------------------------------------------------------------------------------


def test_a_child_uses_none_of_the_parent_s_and_takes_none_away():
    run_forking("""
import socket
from gopoll._fd import FD

poller = Poller()
ours, peer = socket.socketpair()
ours.setblocking(False)
fd = FD(ours.detach(), "unix")
fd.init(poller)
other = FD(os.eventfd(0), "event", file=True)
other.init(poller)
kernel = registrations(poller.fileno())
peer.send(b"x")

def check():
    for call in (lambda: next(fd.read(1).__await__()), lambda: next(fd.write(b"").__await__()),
                 lambda: fd.set_deadline(1), lambda: fd.set_read_timeout(None),
                 fd.close_read, fd.close_write):
        try:
            call()
        except ForkedError as exc:
            assert "was opened in the parent process" in str(exc)
            continue
        raise AssertionError(f"{call} works in the child")
    assert fd.fileno() >= 0
    fd.close()                               # its own copy of the number
    assert fd.fileno() == -1
    again = FD(os.eventfd(0), "event", file=True)
    again.init(poller)
    again.set_deadline(1)
    again.close()

in_child(check)
assert registrations(poller.fileno()) == kernel
try:
    next(fd.read(1).__await__())
except StopIteration as end:
    assert end.value == b"x", "the child has shut the parent's connection"
fd.close()
other.close()
assert peer.recv(1) == b""
peer.close()
poller.close()
""")
