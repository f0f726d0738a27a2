"""The epoll instance: what is asked of the kernel, and what happens when it refuses."""

import errno
import fcntl
import os
import socket
import threading
import time

import pytest

from gopoll._poller import Poller
from gopoll.errors import InternalError
from helpers.child import eventfd_count, open_fds, registrations, run_python
from helpers.seccomp import CALLS

IN, OUT, ERR, HUP, RDHUP, ET = 0x1, 0x4, 0x8, 0x10, 0x2000, 0x80000000
ALWAYS = ERR | HUP  # the kernel adds them to every registration

needs_filter = pytest.mark.skipif(not CALLS, reason="no system call numbers for this machine")


def is_cloexec(fd):
    return bool(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC)


# -- what is registered ----------------------------------------------------------------------------


def test_a_descriptor_is_registered_once_for_everything_edge_triggered(server):
    with socket.socket() as sock:
        rc, desc = server.open(sock.fileno())
        assert rc == 0
        events, data = registrations(server.epfd)[sock.fileno()]
        assert events == IN | OUT | RDHUP | ET | ALWAYS
        assert data == desc.data
        assert desc.discard() == 0
        assert sock.fileno() not in registrations(server.epfd)


def test_an_edge_registration_is_never_modified(server):
    """Park, deadline and wake-up leave the registration as pollOpen made it."""
    a, b = socket.socketpair()
    with a, b:
        _, desc = server.open(a.fileno())
        before = registrations(server.epfd)
        for _ in range(3):
            assert desc.reset(1) == 0
            assert desc.wait(1) == -1
            assert desc.commit(1, 4096)
            b.send(b"x")
            assert server.netpoll() == [4096]
            assert desc.set_deadline(server.timeout(0) + 10**18, 3) == 0
        assert registrations(server.epfd) == before
        desc.discard()


def test_the_break_is_level_triggered_and_carries_the_null_pointer(server):
    assert registrations(server.epfd) == {server.eventfd: (IN | ALWAYS, 0)}


def test_our_own_descriptors_are_closed_on_exec(server):
    assert is_cloexec(server.epfd)
    assert is_cloexec(server.eventfd)
    assert os.get_blocking(server.eventfd) is False


def test_own_descriptors_are_recognised(server):
    assert server.is_descriptor(server.epfd)
    assert server.is_descriptor(server.eventfd)
    assert not server.is_descriptor(0)
    assert not server.is_descriptor(-1)


def test_a_new_server_knows_no_descriptor(probe):
    """-1 means "not there": a question about descriptor -1 must not match it."""
    assert not probe.Server().is_descriptor(-1)


# -- break -----------------------------------------------------------------------------------------


def test_breaks_are_coalesced(server):
    """P2: at most one break is under way."""
    for _ in range(5):
        assert server.brk() == 0
    assert eventfd_count(server.eventfd) == 1
    assert server.wakesig == 1


def test_a_drained_break_can_be_sent_again(server):
    """P2: who has taken it back makes room for the next."""
    server.brk()
    server.drain()
    assert (eventfd_count(server.eventfd), server.wakesig) == (0, 0)
    server.brk()
    assert eventfd_count(server.eventfd) == 1


def test_draining_twice_does_not_block(server):
    server.drain()
    server.drain()
    assert server.wakesig == 0


def test_a_poll_that_does_not_block_leaves_the_break_for_the_one_that_does(server):
    server.brk()
    assert server.netpoll(0) == []
    assert (eventfd_count(server.eventfd), server.wakesig) == (1, 1)
    assert server.netpoll(-1) == []
    assert (eventfd_count(server.eventfd), server.wakesig) == (0, 0)


def test_a_full_eventfd_is_as_good_as_a_break(server):
    os.eventfd_write(server.eventfd, 2**64 - 2)
    assert server.brk() == 0
    assert server.netpoll(-1) == []


def test_a_break_that_cannot_be_written_throws(probe):
    code = """
        import os, sys
        from gopoll._poller import Poller
        poller = Poller()
        epfd = poller.fileno()
        poller.netpoll(0)
        [efd] = [n for n in range(epfd + 1, epfd + 9) if poller.is_poll_descriptor(n)]
        os.close(efd)
        poller.netpoll_break()
    """
    assert "InternalError: runtime: netpollBreak write failed" in run_python(code).stderr


# -- waiting ---------------------------------------------------------------------------------------

DELAYS = (1, 999, 200_000, 999_999, 1_000_000, 1_500_000, 2_000_001)


@pytest.mark.parametrize("delay_ns", DELAYS)
def test_a_delay_never_ends_early(delay_ns):
    poller = Poller()
    for _ in range(3):
        start = time.monotonic_ns()
        assert poller.netpoll(delay_ns) == []
        assert time.monotonic_ns() - start >= delay_ns
    poller.close()


WAIT = """
    import errno, sys, time
    from gopoll._poller import Poller
    from helpers.seccomp import deny
    poller = Poller()
    poller.fileno()
    poller.netpoll(0)
    {deny}
    for delay in {delays}:
        start = time.monotonic_ns()
        assert poller.netpoll(delay) == []
        assert time.monotonic_ns() - start >= delay, delay
    print("never early")
"""


@needs_filter
def test_a_wait_below_a_millisecond_is_not_rounded():
    """The kernel is asked in nanoseconds: a wait in milliseconds would be refused here."""
    deny = "deny(errno.EINVAL, 'epoll_wait', 'epoll_pwait', argument=3, equal=False, value=0)"
    done = run_python(WAIT.format(deny=deny, delays=DELAYS))
    assert (done.stdout, done.stderr) == ("never early\n", "")


@needs_filter
@pytest.mark.parametrize("code", ["ENOSYS", "EPERM"])
def test_without_epoll_pwait2_a_wait_is_rounded_up(code):
    """An old kernel says ENOSYS, a container's filter EPERM.

    A wait rounded down to 100 ms would leave a rest that is rounded down to 0, refused here.
    """
    deny = f"""
    deny(errno.{code}, 'epoll_pwait2')
    deny(errno.EINVAL, 'epoll_wait', 'epoll_pwait', argument=3, value=0)
    """
    done = run_python(WAIT.format(deny=deny.strip(), delays=[100_500_000]))
    assert (done.stdout, done.stderr) == ("never early\n", "")


@needs_filter
def test_an_error_of_the_wait_itself_throws():
    deny = "deny(errno.EBADF, 'epoll_pwait2')"
    done = run_python(WAIT.format(deny=deny, delays=DELAYS))
    assert done.stderr.endswith("InternalError: runtime: netpoll failed\n")


# -- when the kernel refuses -----------------------------------------------------------------------

CREATE = """
    import errno, fcntl, sys
    from gopoll._poller import Poller
    from helpers.seccomp import deny
    deny(errno.ENOSYS, *sys.argv[1:])
    poller = Poller()
    try:
        epfd = poller.fileno()
    except SystemError as exc:
        print(f"{type(exc).__name__}: {exc}")
    else:
        print("cloexec" if fcntl.fcntl(epfd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC else "inherited")
        poller.post("waiter")
        print(poller.netpoll(-1))
"""


@needs_filter
def test_without_epoll_create1_the_old_call_and_cloexec_serve():
    done = run_python(CREATE, "epoll_create1")
    if "epoll_create" in CALLS:
        assert (done.stdout, done.stderr) == ("cloexec\n['waiter']\n", "")
    else:  # machines younger than epoll_create1 have no other call
        assert done.stdout == "InternalError: runtime: netpollinit failed\n"
        assert done.stderr == "runtime: epollcreate failed with 38\n"


@needs_filter
def test_without_both_calls_the_errno_is_printed_and_it_throws():
    done = run_python(CREATE, "epoll_create1", "epoll_create")
    assert done.stdout == "InternalError: runtime: netpollinit failed\n"
    assert done.stderr == "runtime: epollcreate failed with 38\n"


@needs_filter
@pytest.mark.parametrize(
    ("call", "text"),
    [("eventfd2", "runtime: eventfd failed"), ("epoll_ctl", "runtime: epollctl failed")],
)
def test_a_half_made_instance_is_taken_down(call, text):
    # compared with before: a libffi may keep a descriptor, which deny() needs
    code = CREATE.replace("poller = Poller()", "before = open_fds()\n    poller = Poller()")
    code = f"    from helpers.child import open_fds{code}    print(open_fds() == before)\n"
    done = run_python(code, call)
    assert (done.stdout, done.stderr) == (f"InternalError: {text}\nTrue\n", "")


def test_a_failed_start_can_be_tried_again():
    """inited is published after success only: lack of descriptors is not for ever."""
    code = """
        import resource
        from gopoll._poller import Poller
        poller = Poller()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for limit in (3, 4, soft):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            try:
                print(poller.fileno())
            except SystemError as exc:
                print(exc)
    """
    done = run_python(code)
    assert done.stdout == "runtime: netpollinit failed\nruntime: eventfd failed\n3\n"
    assert done.stderr == f"runtime: epollcreate failed with {errno.EMFILE}\n"


def test_nothing_is_created_before_it_is_needed(probe):
    before = open_fds()
    server = probe.Server()
    assert (server.inited, server.epfd) == (0, -1)
    assert server.netpoll(0) == []
    assert server.wake() == 0
    assert open_fds() == before
    assert server.init() == 0
    assert open_fds() == before | {server.epfd, server.eventfd}


def test_threads_that_come_at_once_get_one_instance(probe):
    for _ in range(20):
        before = open_fds()
        server = probe.Server()
        start = threading.Barrier(4)

        def init(server=server, start=start):
            start.wait()
            assert server.init() == 0

        threads = [threading.Thread(target=init) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert open_fds() - before == {server.epfd, server.eventfd}
        del server, init


def test_an_event_other_than_readable_on_the_break_throws(server, probe):
    """The eventfd is writable too, but nobody asks for that."""
    assert server.arm(server.eventfd, IN | OUT, 0) == 0
    rc = server.netpoll(0)
    with pytest.raises(InternalError, match=r"^runtime: netpoll: eventfd ready for something"):
        probe.raise_throw(rc)
