"""FD and SysFD: registration, closing, deadlines, and what becomes of one that nobody closes.

Go: internal/poll/fd_poll_runtime.go, fd_unix.go; rows 17, 26-30, 36-47, 50, 78.
"""

import contextlib
import errno
import gc
import math
import os
import socket
import sys
import threading
import time
import warnings
import weakref

import pytest

import gopoll
from gopoll import ClosedError, NotPollableError, OpError
from gopoll._fd import FD
from gopoll.runtime._sched import current_poller
from helpers.fds import MORE_THAN_FITS, adopt, half_pair, pair, pipe
from plugins.guard import wait_parked, wait_until

PAST = -1e9


async def failure(op):
    """Return the OpError that awaiting *op* raises."""
    with pytest.raises(OpError) as caught:
        await op
    return caught.value


# -- registration ----------------------------------------------------------------------------------


def test_a_regular_file_is_not_pollable_and_leaves_nothing_in_use(run, tmp_path):
    """Row 26 and the clean-up of pollDesc.init."""

    async def main():
        before = gopoll.stats().descriptors
        number = os.open(tmp_path / "plain", os.O_RDWR | os.O_CREAT)
        fd = FD(number, "file", file=True)
        with pytest.raises(NotPollableError, match="regular files are always ready"):
            fd.init(current_poller())
        assert gopoll.stats().descriptors == before
        with pytest.raises(OpError, match="file type does not support deadline"):
            fd.set_deadline(None)
        await fd.close()
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(number)

    run(main)


def test_a_bad_descriptor_fails_with_its_errno(run):
    async def main():
        r, w = os.pipe()
        os.close(r)
        os.close(w)
        before = gopoll.stats().descriptors
        fd = FD(r, "pipe", file=True)
        with pytest.raises(OpError, match=r"^open pipe: bad file descriptor$") as caught:
            fd.init(current_poller())
        assert caught.value.errno == errno.EBADF
        assert gopoll.stats().descriptors == before
        fd.close()

    run(main)


def test_a_number_that_is_registered_already_leaves_nothing_in_use(run):
    async def main():
        a, b = socket.socketpair()
        with b:
            poller = current_poller()
            pd = poller.open(a.fileno())
            before = gopoll.stats().descriptors
            fd = FD(a.detach(), "unix")
            with pytest.raises(FileExistsError, match=r"^open unix: file exists$") as caught:
                fd.init(poller)
            assert isinstance(caught.value, OpError)
            assert gopoll.stats().descriptors == before
            pd.evict()
            pd.close()
            fd.init(poller)
            b.send(b"x")
            assert await fd.read(5) == b"x"
            fd.close()

    run(main)


def test_an_fd_is_registered_once(run):
    async def main():
        with half_pair() as (fd, _):
            with pytest.raises(RuntimeError, match="registered already"):
                fd.init(current_poller())

    run(main)


def test_a_closed_fd_is_not_registered(run):
    async def main():
        a, b = socket.socketpair()
        with b:
            fd = FD(a.detach(), "unix")
            fd.close()
            with pytest.raises(ClosedError, match=r"^open unix: use of closed network"):
                fd.init(current_poller())

    run(main)


def test_a_negative_descriptor_is_refused():
    with pytest.raises(ValueError, match="-1 is negative"):
        FD(-1, "tcp")


# -- closing ---------------------------------------------------------------------------------------


def test_close_wakes_every_reader_and_writer_also_those_queued_for_the_lock(run):
    """Row 17."""

    async def main():
        with half_pair() as (fd, _):
            readers = [gopoll.go(fd.read, 1) for _ in range(4)]
            writers = [gopoll.go(fd.write, MORE_THAN_FITS) for _ in range(3)]
            await wait_parked(*readers, *writers)
            await fd.close()
            for g in readers:
                with pytest.raises(ClosedError, match=r"^read unix: use of closed network conn"):
                    await g
            for i, g in enumerate(writers):
                with pytest.raises(ClosedError, match=r"^write unix: use of closed") as caught:
                    await g
                assert (caught.value.written > 0) == (i == 0), "one was in, the others queued"

    run(main)


def test_nothing_works_after_close(run):
    """Row 50."""

    async def main():
        with half_pair() as (fd, _):
            await fd.close()
            assert fd.is_closed
            assert fd.fileno() == -1
            for op in (fd.read(1), fd.read(0), fd.readinto(bytearray(1)), fd.write(b"x")):
                assert isinstance(await failure(op), ClosedError)
            assert isinstance(await failure(fd.accept_conn(FD)), ClosedError)
            assert isinstance(await failure(fd.wait_connect()), ClosedError)
            for call in (fd.close, fd.close_read, fd.close_write, fd.getsockname, fd.getpeername):
                with pytest.raises(ClosedError):
                    call()
            with pytest.raises(ClosedError, match=r"^set unix: "):
                fd.set_deadline(None)
            with pytest.raises(ClosedError, match=r"^raw-control unix: "):
                fd.raw_control(print)

    run(main)


def test_a_file_says_file(run):
    async def main():
        with pipe() as (r, _):
            r.close()
            assert str(await failure(r.read(1))) == "read pipe: use of closed file"

    run(main)


def test_close_never_blocks_and_its_awaitable_is_done_with_the_real_close(run):
    async def main():
        with half_pair() as (fd, peer):
            reader = gopoll.go(fd.read, 1)
            await wait_parked(reader)
            number = fd.fileno()
            closing = fd.close()
            os.fstat(number)  # the parked reader still holds it
            assert fd.is_closed
            await closing
            assert fd.fileno() == -1
            assert peer.recv(1) == b""
            await fd.wait_closed()
            with pytest.raises(ClosedError):
                await reader

    run(main, handoff=False)  # else the reader may let go of it at once


def test_many_may_wait_for_the_real_close(run):
    """C1: who waits has listed itself, and the real close takes the list."""

    async def main():
        with half_pair() as (fd, _):
            reader = gopoll.go(fd.read, 1)
            await wait_parked(reader)
            waiters = [gopoll.go(fd.wait_closed()) for _ in range(3)]
            await wait_parked(*waiters)
            fd.close()
            for g in waiters:
                await g
            with pytest.raises(ClosedError):
                await reader

    run(main)


def test_a_port_is_free_once_the_close_of_its_listener_is_done(run):
    """Row 78, without SO_REUSEADDR: the kernel has really let go of it."""

    async def main():
        port = 0
        for _ in range(20):
            sock = socket.socket()
            sock.bind(("127.0.0.1", port))
            sock.listen()
            port = sock.getsockname()[1]
            fd = adopt(sock, "tcp")
            acceptor = gopoll.go(fd.accept_conn, FD)
            await wait_parked(acceptor)
            await fd.close()
            with pytest.raises(ClosedError, match=r"^accept tcp: "):
                await acceptor

    run(main)


def test_the_awaitable_of_close_works_on_any_scheduler_and_says_so_without_one(run):
    """The goroutine that waits must be woken where it lives, not where the connection does."""
    opened, closed = threading.Event(), threading.Event()
    shared = []

    async def owner():
        with half_pair() as (fd, _):
            reader = gopoll.go(fd.read, 1)
            await wait_parked(reader)
            shared.append(fd)
            opened.set()
            while not fd.is_closed:
                await gopoll.sleep(0.0005)
            await gopoll.blocking(closed.wait, 60)
            with pytest.raises(ClosedError):
                await reader

    async def stranger():
        await gopoll.blocking(opened.wait, 60)
        (fd,) = shared
        waiter = gopoll.go(fd.wait_closed())
        await wait_parked(waiter)
        await fd.close()
        await waiter
        closed.set()

    thread = threading.Thread(target=gopoll.run, args=(owner,))
    thread.start()
    run(stranger)
    thread.join()

    a, b = socket.socketpair()
    with b:
        fd = FD(a.detach(), "unix")
        fd.raw_control(lambda n: outside(fd))
        assert fd.fileno() == -1


def outside(fd):
    """Await the end of *fd* where no scheduler runs."""
    closing = fd.close()
    with pytest.raises(RuntimeError, match="outside a goroutine"):
        next(closing.__await__())


def test_a_closed_one_never_sees_the_next_owner_of_its_number_nor_the_other_way_round(run):
    """Row 27, lesson 1: events in flight belong to the generation they were made for."""

    async def main():
        for _ in range(300):
            ours, peer = socket.socketpair()
            first = adopt(ours)
            number = first.fileno()
            reader = gopoll.go(first.read, 1)
            await gopoll.gosched()
            peer.send(b"for the first")
            first.close()
            peer.close()
            ours, peer = socket.socketpair()
            with peer:
                second = adopt(ours)
                assert second.fileno() in (number, number + 1, peer.fileno() - 1)
                second.set_read_timeout(0)
                assert (await failure(second.read(1))).is_timeout
                second.set_read_deadline(None)
                late = gopoll.go(second.read, 99)
                await wait_parked(late)
                peer.send(b"for the second")
                assert await late == b"for the second"
                second.close()
            try:
                assert await reader == b"f"
            except ClosedError:
                pass

    run(main)


def test_closing_from_other_threads_wakes_the_goroutines(run):
    async def main():
        with contextlib.ExitStack() as stack:
            fds = [stack.enter_context(half_pair())[0] for _ in range(50)]
            readers = [gopoll.go(fd.read, 1) for fd in fds]
            await wait_parked(*readers)
            threads = [
                threading.Thread(target=lambda part: [fd.close() for fd in part], args=(fds[i::3],))
                for i in range(3)
            ]
            for thread in threads:
                thread.start()
            for g in readers:
                with pytest.raises(ClosedError):
                    await g
            for thread in threads:
                thread.join()

    run(main)


def test_raw_control_keeps_the_descriptor_open(run):
    async def main():
        with half_pair() as (fd, _):

            def use(number):
                fd.close()
                os.fstat(number)
                return number

            number = fd.raw_control(use)
            assert fd.fileno() == -1
            with pytest.raises(OSError, match="Bad file"):
                os.fstat(number)

    run(main)


def test_each_direction_is_shut_by_itself(run):
    async def main():
        with pair() as (a, b):
            reader = gopoll.go(b.read, 1)
            await wait_parked(reader)
            a.close_write()
            assert await reader == b""
            await b.write(b"back")
            assert await a.read(9) == b"back"
            with pytest.raises(BrokenPipeError, match=r"^write unix: write: broken pipe$"):
                await a.write(b"x")
            a.close_write()

            mine = gopoll.go(a.read, 1)
            await wait_parked(mine)
            a.close_read()
            assert await mine == b""

    run(main)


# -- nobody closes it ------------------------------------------------------------------------------


def test_an_unclosed_one_is_closed_with_a_warning_when_it_is_collected(run):
    async def main():
        before = gopoll.stats().descriptors
        ours, peer = socket.socketpair()
        with peer:
            fd = adopt(ours, "tcp")
            ref = weakref.ref(fd)
            with pytest.warns(ResourceWarning, match=r"unclosed <helpers\.fds\.AnyFD object"):
                del fd
            gc.collect()
            # What recorded the warning may have held it for a while.
            assert peer.recv(1) == b""
            gc.collect()
            assert ref() is None
            assert gopoll.stats().descriptors == before

    run(main)


def test_it_is_closed_all_the_same_where_warnings_are_errors(run, monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda u: seen.append(u.exc_type))

    async def main():
        before = gopoll.stats().descriptors
        ours, peer = socket.socketpair()
        with peer:
            fd = adopt(ours, "tcp")
            with warnings.catch_warnings():
                warnings.simplefilter("error", ResourceWarning)
                del fd
                gc.collect()
            assert seen == [ResourceWarning]
            assert peer.recv(1) == b""
            assert gopoll.stats().descriptors == before

    run(main)


def test_a_closed_one_and_one_that_never_was_made_are_collected_in_silence(run):
    async def main():
        ours, peer = socket.socketpair()
        with peer:
            fd = adopt(ours)
            fd.close()
            del fd
            with pytest.raises(ValueError, match="negative"):
                FD(-1, "tcp")
            with pytest.raises(TypeError):
                FD("three", "tcp")
            gc.collect()

    run(main)


def test_a_connection_outlives_run_and_is_closed_there(run):
    kept = []

    async def main():
        ours, peer = socket.socketpair()
        kept.extend([adopt(ours), peer])

    gopoll.run(main)
    fd, peer = kept
    with pytest.raises(ClosedError):
        next(fd.read(1).__await__())
    fd.close()
    assert peer.recv(1) == b""
    peer.close()


# -- deadlines -------------------------------------------------------------------------------------


def test_a_past_deadline_fails_although_data_is_there(run):
    """Rows 36, 38, 40."""

    async def main():
        with half_pair() as (fd, peer):
            peer.send(b"data")
            fd.set_deadline(PAST)
            for op in (fd.read(9), fd.readinto(bytearray(9)), fd.write(b"x"), fd.accept_conn(FD)):
                exc = await failure(op)
                assert isinstance(exc, TimeoutError)
                assert exc.is_timeout
                assert exc.is_temporary
            assert str(exc) == "accept unix: i/o timeout"
            assert await fd.read(0) == b"", "Go's rule: nothing wanted, nothing looked at"
            fd.set_deadline(None)
            assert await fd.read(9) == b"data"

    run(main)


@pytest.mark.parametrize("seconds", [1e-9, 1e-6, 1e-4, 1e-3, 5e-3, 0.02])
def test_a_deadline_is_never_early(run, seconds):
    """Rows 42, 43."""

    async def main():
        with half_pair() as (fd, _):
            for relative in (True, False):
                start = time.monotonic()
                if relative:
                    fd.set_read_timeout(seconds)
                else:
                    fd.set_read_deadline(start + seconds)
                assert (await failure(fd.read(1))).is_timeout
                assert time.monotonic() - start >= seconds

    run(main)


def test_a_deadline_that_passes_wakes_the_one_who_waits(run):
    """Rows 37, 38, 47: and leaves the connection as it was."""

    async def main():
        with half_pair() as (fd, peer):
            reader = gopoll.go(fd.read, 9)
            await wait_parked(reader)
            fd.set_read_timeout(0.002)
            with pytest.raises(TimeoutError, match=r"^read unix: i/o timeout$"):
                await reader
            assert (await failure(fd.read(9))).is_timeout, "it stays"
            fd.set_read_timeout(60)
            peer.send(b"data")
            assert await fd.read(9) == b"data", "moved after it had fired"

    run(main)


def test_setting_a_past_deadline_wakes_at_once_whoever_waits_or_queues(run):
    """Row 47."""

    async def main():
        with half_pair() as (fd, _):
            readers = [gopoll.go(fd.read, 1) for _ in range(3)]
            await wait_parked(*readers)
            fd.set_read_deadline(PAST)
            for g in readers:
                with pytest.raises(TimeoutError):
                    await g

    run(main)


def test_each_direction_has_its_own_deadline(run):
    """Row 39."""

    async def main():
        with half_pair() as (fd, peer):
            fd.set_write_deadline(PAST)
            reader = gopoll.go(fd.read, 9)
            await wait_parked(reader)
            peer.send(b"one")
            assert await reader == b"one"
            assert (await failure(fd.write(b"x"))).is_timeout
            fd.set_write_deadline(None)
            fd.set_read_timeout(0)
            assert await fd.write(b"x") == 1
            assert (await failure(fd.read(1))).is_timeout

    run(main)


def test_a_deadline_may_be_moved_and_cleared_while_somebody_waits(run):
    """Rows 37, 44."""

    async def main():
        with half_pair() as (fd, peer):
            reader = gopoll.go(fd.read, 9)
            await wait_parked(reader)
            fd.set_read_timeout(0.1)  # so long no busy machine is between this call and the next
            fd.set_read_timeout(60)
            await gopoll.sleep(0.12)
            assert not reader.done, "the old deadline has fired"
            fd.set_read_timeout(0.1)
            fd.set_read_deadline(None)
            await gopoll.sleep(0.12)
            assert not reader.done, "a cleared deadline has fired"
            fd.set_read_timeout(0.001)
            with pytest.raises(TimeoutError):
                await reader
            peer.send(b"x")

    run(main)


def test_deadlines_of_any_size_are_taken(run):
    """Row 35: nothing overflows; None is none, the past is now."""

    async def main():
        with half_pair() as (fd, peer):
            for far in (1e300, math.inf, 9.3e9, 9e9, 2**62):
                fd.set_deadline(far)
                fd.set_timeout(far)
                peer.send(b"x")
                assert await fd.read(1) == b"x"
            for gone in (0, 0.0, -0.0, -math.inf, -1e300, time.monotonic()):
                fd.set_read_deadline(gone)
                assert (await failure(fd.read(1))).is_timeout
            for gone in (0, -1, -math.inf):
                fd.set_read_timeout(gone)
                assert (await failure(fd.read(1))).is_timeout
            for setter in (fd.set_deadline, fd.set_timeout):
                with pytest.raises(ValueError, match="not a number"):
                    setter(math.nan)
                with pytest.raises(TypeError):
                    setter("soon")

    run(main)


def test_deadlines_moved_from_many_threads_race_with_reads(run):
    """Rows 44-46."""

    async def main():
        with half_pair() as (fd, peer):
            stop = threading.Event()

            def meddle(seed):
                while not stop.is_set():
                    fd.set_read_timeout(seed * 2e-6)
                    fd.set_deadline(time.monotonic() + 60)
                    fd.set_read_deadline(None)

            threads = [threading.Thread(target=meddle, args=(i,)) for i in range(4)]
            for thread in threads:
                thread.start()
            got = 0
            while got < 300:
                peer.send(b"x")
                try:
                    got += len(await fd.read(1))
                except TimeoutError:
                    fd.set_read_deadline(None)
            stop.set()
            await wait_until(lambda: not any(t.is_alive() for t in threads))

    run(main)


# -- addresses and errno ---------------------------------------------------------------------------


def test_addresses_are_those_of_the_kernel_and_stand_in_the_errors(run):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as server:
            sock = socket.create_connection(server.getsockname())
            names = sock.getsockname(), sock.getpeername()
            fd = adopt(sock, "tcp")
            assert (fd.getsockname(), fd.getpeername()) == names
            fd.set_addrs(*names)
            assert (fd.local_addr, fd.remote_addr) == names
            assert fd.network == "tcp"
            fd.close()
            where = "{}:{}->{}:{}".format(*names[0], *names[1])
            assert str(await failure(fd.read(1))) == (
                f"read tcp {where}: use of closed network connection"
            )
            lonely = adopt(socket.socket(), "tcp")
            with pytest.raises(OpError, match=r"^getpeername tcp: transport endpoint is not conn"):
                lonely.getpeername()
            lonely.close()

    run(main)
