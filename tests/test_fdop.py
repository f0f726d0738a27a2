"""Operations on an FD: the retry loop, its lock and its errors.

Every way to leave one: test_fdop_leave.py.
Go: internal/poll/fd_unix.go; rows 21, 29, 30, 44, 45, 53-55.
"""

import errno
import gc
import os
import signal
import socket
import sys
import threading
import time

import pytest

import gopoll
from gopoll import Canceled, ClosedError, NotPollableError, OpError
from gopoll._fd import FD
from gopoll.runtime._sched import current_poller
from helpers.fds import (
    CUTS,
    MORE_THAN_FITS,
    adopt,
    cut,
    drain,
    half_pair,
    pair,
    parked,
    pipe,
    reset,
    still_works,
    tcp_pair,
)
from plugins.guard import wait_parked, wait_until

# -- results ---------------------------------------------------------------------------------------


def test_read_gives_what_there_is_up_to_n_and_nothing_at_the_end(run):
    """Rows 21, 53."""

    async def main():
        with half_pair() as (fd, peer):
            peer.send(b"abcdef")
            assert await fd.read(4) == b"abcd"
            assert await fd.read() == b"ef"
            assert await fd.read(0) == b""
            peer.shutdown(socket.SHUT_WR)
            assert await fd.read() == b""
            assert await fd.read() == b""
            with pytest.raises(ValueError, match="-1 bytes"):
                fd.read(-1)

    run(main)


@pytest.mark.parametrize("size", [1, 65535, 65536, 65537, 1 << 20])
def test_reads_and_writes_of_any_size_carry_the_bytes(run, size):
    async def main():
        with pair() as (a, b):
            data = os.urandom(size)
            writer = gopoll.go(a.write, data)
            got = bytearray()
            while len(got) < size:
                part = await b.read(size)
                assert 0 < len(part) <= size - len(got)
                got += part
            assert got == data
            assert await writer == size

    run(main)


def test_readinto_fills_the_buffer_and_gives_it_back(run):
    async def main():
        with half_pair() as (fd, peer):
            buffer = bytearray(4)
            peer.send(b"abcdef")
            assert await fd.readinto(buffer) == 4
            assert buffer == b"abcd"
            buffer.append(0)  # no export is left
            assert await fd.readinto(memoryview(buffer)[1:4]) == 2
            assert buffer == b"aefd\0"
            assert await fd.readinto(bytearray()) == 0
            with pytest.raises(BufferError):
                fd.readinto(b"readonly")
            with pytest.raises(TypeError):
                fd.readinto(5)
            peer.close()
            assert await fd.readinto(buffer) == 0

    run(main)


def test_write_takes_any_buffer_and_keeps_it_until_the_end(run):
    async def main():
        with half_pair() as (fd, peer):
            data = bytearray(b"abc")
            assert await fd.write(data) == 3
            data.append(0)
            assert await fd.write(memoryview(b"xdefx")[1:4]) == 3
            assert await fd.write(b"") == 0
            assert peer.recv(99) == b"abcdef"
            with pytest.raises(TypeError):
                fd.write("text")
            with pytest.raises(BufferError):
                fd.write(memoryview(b"abcdef")[::2])

    run(main)


def test_accept_makes_a_connection_that_is_registered_and_has_its_addresses(run):
    class Conn(FD):
        pass

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as server:
            name = server.getsockname()
            fd = adopt(server.dup(), "tcp")
            for wrong in (int, type(gopoll)):
                with pytest.raises(TypeError, match="cls must be derived from FD, not"):
                    fd.accept_conn(wrong)
            with socket.create_connection(name) as peer:
                conn = await fd.accept_conn(Conn)
                assert type(conn) is Conn
                assert conn.network == "tcp"
                for _ in range(2):  # made when asked for, and kept
                    assert (conn.local_addr, conn.remote_addr) == (name, peer.getsockname())
                assert conn.local_addr is conn.local_addr
                assert os.get_blocking(conn.fileno()) is False
                assert os.get_inheritable(conn.fileno()) is False
                peer.send(b"x")
                assert await conn.read() == b"x"
                conn.close()
                assert conn.remote_addr == peer.getsockname()
            fd.close()
            with pytest.raises(StopAsyncIteration):
                await fd.accept_conn(Conn, iterate=True)

    run(main)


def test_a_tuple_and_an_exception_come_out_of_an_operation_whole(run):
    """StopIteration is peculiar about both; a join returns anything."""

    async def main():
        for value in [(1, 2), (), ValueError("a value"), None, StopIteration(3)]:

            async def give(value=value):
                return value

            assert await gopoll.go(give) is value

    run(main)


def test_accept_waits_and_goes_on_after_each_connection(run):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as server:
            name = server.getsockname()
            fd = adopt(server.dup(), "tcp")
            for burst in (1, 3):
                acceptors = [gopoll.go(fd.accept_conn, FD) for _ in range(burst)]
                await wait_parked(*acceptors)
                peers = [socket.create_connection(name) for _ in range(burst)]
                conns = [await g for g in acceptors]
                assert [c.remote_addr for c in conns] == [p.getsockname() for p in peers]
                for end in conns + peers:
                    end.close()
            fd.close()

    run(main)


def test_too_many_open_files_is_an_error_with_a_remedy(run):
    import resource

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as server:
            fd = adopt(server.dup(), "tcp")
            with socket.create_connection(server.getsockname()):
                soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
                resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
                try:
                    with pytest.raises(OpError, match=r"too many open files \(limit 3; raise"):
                        await fd.accept_conn(FD)
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                (await fd.accept_conn(FD)).close()
            fd.close()

    run(main)


def connecting(address):
    """Return a registered FD whose connect is under way."""
    sock = socket.socket()
    sock.setblocking(False)
    assert sock.connect_ex(address) in (0, errno.EINPROGRESS)
    return adopt(sock, "tcp")


def test_wait_connect_returns_the_peer_or_the_reason(run):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as server:
            name = server.getsockname()
            fd = connecting(name)
            assert await fd.wait_connect() == name
            assert await fd.wait_connect() == name, "it may be asked again"
            fd.close()
        fd = connecting(name)
        with pytest.raises(
            ConnectionRefusedError, match=r"^dial tcp: connect: connection refused$"
        ):
            await fd.wait_connect()
        fd.close()

    run(main)


def test_wait_connect_does_not_take_a_spurious_wake_up_for_a_connection(run):
    """Row 69: a socket that is not connected is writable to epoll."""

    async def main():
        fd = adopt(socket.socket(), "tcp")
        waiter = gopoll.go(fd.wait_connect)
        await wait_parked(waiter)
        fd.set_write_timeout(0.002)
        with pytest.raises(TimeoutError, match=r"^dial tcp: i/o timeout$"):
            await waiter
        fd.close()

    run(main)


# -- the lock --------------------------------------------------------------------------------------


def test_reads_are_served_in_the_order_they_were_awaited(run):
    async def main():
        with half_pair() as (fd, peer):
            readers = [await parked(fd.read, 1) for _ in range(20)]
            for i in range(20):
                peer.send(bytes([i]))
            assert [await g for g in readers] == [bytes([i]) for i in range(20)]

    run(main)


def test_a_late_read_does_not_overtake_those_that_wait(run):
    async def main():
        with half_pair() as (fd, peer):
            readers = [await parked(fd.read, 1) for _ in range(3)]
            peer.send(b"123")
            late = await parked(fd.read, 1)
            peer.send(b"4")
            assert [await g for g in (*readers, late)] == [b"1", b"2", b"3", b"4"]

    run(main)


def test_large_writes_do_not_mix(run):
    async def main():
        with pair() as (a, b):
            size = 1 << 20
            writers = [gopoll.go(a.write, bytes([i]) * size) for i in range(4)]
            got = bytearray()
            while len(got) < 4 * size:
                got += await b.read(1 << 18)
            blocks = sorted(got[at : at + size] for at in range(0, len(got), size))
            assert blocks == [bytes([i]) * size for i in range(4)]
            assert [await g for g in writers] == [size] * 4

    run(main)


def test_a_read_does_not_wait_for_a_write_nor_the_other_way_round(run):
    async def main():
        with half_pair() as (fd, peer):
            writer = gopoll.go(fd.write, MORE_THAN_FITS)
            await wait_parked(writer)
            peer.send(b"x")
            assert await fd.read(1) == b"x"
            reader = gopoll.go(fd.read, 1)
            await wait_parked(reader)
            while not writer.done:
                drain(peer)
                await gopoll.gosched()
            assert await writer == len(MORE_THAN_FITS)
            peer.send(b"y")
            assert await reader == b"y"

    run(main)


# -- what a write leaves behind --------------------------------------------------------------------


@pytest.mark.parametrize("end", ["deadline", "close", "cancel", "reset"])
def test_an_unfinished_write_says_how_much_has_left(run, end):
    async def main():
        fd, peer = tcp_pair()
        writer = gopoll.go(fd.write, MORE_THAN_FITS)
        await wait_parked(writer)
        got = len(peer.recv(1 << 16))
        await gopoll.gosched()
        cut(end, fd, writer, peer)
        with pytest.raises(CUTS[end]) as caught:
            await writer
        written = caught.value.written
        assert got <= written < len(MORE_THAN_FITS)
        if end in ("deadline", "cancel"):
            fd.set_deadline(None)
            fd.close_write()
            while part := await gopoll.blocking(peer.recv, 1 << 20):
                got += len(part)
            assert got == written, "the connection is usable, its stream as said"
        peer.close()
        if end != "close":
            fd.close()

    run(main)


def test_a_write_that_never_began_has_written_nothing(run):
    async def main():
        with half_pair() as (fd, _):
            first = await parked(fd.write, MORE_THAN_FITS)
            queued = await parked(fd.write, b"abc")
            queued.cancel()
            with pytest.raises(Canceled) as caught:
                await queued
            assert caught.value.written == 0
            first.cancel()
            with pytest.raises(Canceled) as caught:
                await first
            assert caught.value.written > 0
            fd.set_write_timeout(-1)
            with pytest.raises(TimeoutError) as timeout:
                await fd.write(b"abc")
            assert timeout.value.written == 0

    run(main)


def test_a_write_to_a_reset_connection_fails_without_a_signal(run):
    """Row 54 and SIGPIPE."""

    async def main():
        fd, peer = tcp_pair()
        reset(peer)
        with pytest.raises(
            ConnectionResetError, match=r"^read tcp: read: connection reset by peer$"
        ):
            await fd.read(1)
        with pytest.raises(BrokenPipeError, match=r"^write tcp: write: broken pipe$"):
            await fd.write(b"x")
        fd.close()

    run(main)


def test_an_error_alone_does_not_hide_what_the_system_call_says(run, probe):
    """P7: tcp_poll shows an error and nothing else while a reset is half done (it looks unlocked).

    Seen as "not pollable" from a connection that was reset on another CPU.
    """

    async def main():
        for waits in (False, True):
            fd, peer = tcp_pair()
            reader = await parked(fd.read(1)) if waits else None
            reset(peer)
            probe.error_alone(fd)
            with pytest.raises(ConnectionResetError):
                await (reader or fd.read(1))
            fd.close()

    run(main)


def test_an_error_alone_with_nothing_to_say_is_not_waited_for(run, probe):
    """Go: ErrNotPollable. No other event would come."""

    async def main():
        with half_pair() as (fd, peer):
            reader = await parked(fd.read(1))
            probe.error_alone(fd)
            with pytest.raises(NotPollableError, match=r"^read unix: not pollable$"):
                await reader
            with pytest.raises(NotPollableError):
                await fd.read(1)
            peer.sendall(b"x")
            assert await fd.read(1) == b"x"
            await still_works(fd, peer)

    run(main)


# -- where it may be used --------------------------------------------------------------------------


def test_outside_a_goroutine_it_is_tried_and_then_says_what_to_do(run):
    kept = []

    async def main():
        with half_pair() as (fd, peer):
            error = []

            def outside():
                peer.send(b"x")
                with pytest.raises(StopIteration, match="x"):
                    next(fd.read(1).__await__())
                op = fd.read(1)
                try:
                    next(op.__await__())
                except RuntimeError as err:
                    error.append(err)
                kept.append(op)  # it must not keep the lock either

            thread = threading.Thread(target=outside)
            thread.start()
            thread.join()
            assert "read unix would block outside a goroutine" in str(error[0])
            assert "gopoll.run" in str(error[0])
            await still_works(fd, peer)

            holder = gopoll.go(fd.read, 1)
            await wait_parked(holder)
            thread = threading.Thread(target=lambda: error.append(raised_by(fd.read(1))))
            thread.start()
            thread.join()
            assert "outside a goroutine" in str(error[1]), "queued for the lock"
            peer.send(b"h")
            assert await holder == b"h"

    run(main)


def raised_by(op):
    try:
        next(op.__await__())
    except Exception as err:
        return err


def test_on_another_scheduler_it_says_so(run):
    async def main():
        with half_pair() as (fd, peer):

            async def stranger():
                for op in fd.read(1), fd.write(b"y"), fd.accept_conn(FD), fd.read(1):
                    with pytest.raises(RuntimeError, match="belongs to another scheduler"):
                        await op  # whether it would wait or not

            peer.send(b"x")
            await gopoll.blocking(gopoll.run, stranger)
            assert await fd.read(1) == b"x"
            peer.setblocking(False)
            with pytest.raises(BlockingIOError):
                peer.recv(1)
            peer.setblocking(True)
            reader = gopoll.go(fd.read, 1)
            await wait_parked(reader)

            async def queues():
                with pytest.raises(RuntimeError, match="belongs to another scheduler"):
                    await fd.read(1)

            await gopoll.blocking(gopoll.run, queues)
            peer.send(b"y")
            assert await reader == b"y"
            await still_works(fd, peer)

    run(main)


def test_of_a_scheduler_that_has_ended_it_says_that_it_has(run):
    kept = []

    async def first():
        kept.append(half_pair())
        fd, peer = kept[0].__enter__()
        peer.send(b"x")
        kept.append(fd)

    async def second():
        for op in kept[1].read(1), kept[1].write(b"y"):
            with pytest.raises(
                ClosedError, match=r": its gopoll\.run\(\) or attach\(\) has ended: open"
            ):
                await op

    gopoll.run(first)
    run(second)
    kept[0].__exit__(None, None, None)


def test_never_awaited_says_so(run):
    async def main():
        with half_pair() as (fd, peer):
            for make, name in [
                (lambda: fd.read(1), "read"),
                (lambda: fd.readinto(bytearray(1)), "read"),
                (lambda: fd.write(b"x"), "write"),
                (lambda: fd.accept_conn(FD), "accept"),
                (fd.wait_connect, "dial"),
            ]:
                with pytest.warns(RuntimeWarning, match=f"^{name} unix was never awaited$"):
                    make()
            await still_works(fd, peer)

    run(main)


def test_reads_of_every_size_after_one_another(run):
    """The last one's size says whether the next is copied or goes straight into its result."""

    async def main():
        with half_pair() as (fd, peer):
            for size in (1, 8191, 1, 8192, 1, 30_000, 65_536, 0, 100_000, 8191, 8192, 8193, 1):
                data = os.urandom(size)
                sender = threading.Thread(target=peer.sendall, args=(data,))
                sender.start()
                got = []
                while sum(map(len, got)) < size:
                    got.append(await fd.read())
                    assert 0 < len(got[-1]) <= 69_632
                assert b"".join(got) == data
                sender.join()
            reader = gopoll.go(fd.read)
            await wait_parked(reader)
            peer.send(b"later")
            assert await reader == b"later"

    run(main)


def test_a_read_without_memory_gives_the_lock_back(run):
    """Also while somebody keeps the operation: the lock was free when that was dropped."""

    async def main():
        with half_pair() as (fd, peer):
            for size, kind in ((1 << 62, MemoryError), (sys.maxsize, OverflowError)):
                op = fd.read(size)
                with pytest.raises(kind):
                    await op
                peer.send(b"next")
                assert await fd.read(9) == b"next"
                with pytest.raises(RuntimeError, match="twice"):
                    await op

    run(main)


# -- fairness and signals --------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["read", "write", "fail", "large"])
def test_operations_that_complete_on_the_spot_let_the_others_run(run, what):
    """A13: a slice has a budget of operations and bytes, and failures cost too."""

    async def main():
        with half_pair() as (fd, peer):
            turns = 0
            stop = False

            async def other():
                nonlocal turns, stop
                while turns < 10:
                    turns += 1
                    await gopoll.gosched()
                stop = True

            gopoll.go(other)
            rounds = 0
            data = bytes(100_000)
            while not stop:
                rounds += 1
                assert rounds < 5000, "the other goroutine is starved"
                if what == "fail":
                    if not fd.is_closed:
                        fd.close()
                    with pytest.raises(ClosedError):
                        await fd.read(1)
                elif what == "read":
                    peer.send(b"x")
                    await fd.read(1)
                else:
                    await fd.write(data if what == "large" else b"x")
                    drain(peer)
            assert turns == 10

    run(main)


def test_eintr_runs_the_handlers_and_goes_on(run):
    """Of a call that blocks: FD leaves O_NONBLOCK to its maker, so a pipe can be made to."""
    calls = []

    async def main():
        r, w = os.pipe()
        fd = FD(r, "pipe", file=True)
        fd.init(current_poller())

        def on_alarm(*_):
            calls.append(time.monotonic())
            if len(calls) == 3:
                os.write(w, b"x")
            elif len(calls) == 5:
                raise ZeroDivisionError

        before = signal.signal(signal.SIGALRM, on_alarm)
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
        try:
            assert await fd.read(1) == b"x"
            op = fd.read(1)
            with pytest.raises(ZeroDivisionError):
                await op
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert len(calls) == 5
        os.write(w, b"y")
        assert await fd.read(1) == b"y", "the handler's error has kept the lock"
        os.close(w)
        fd.close()

    run(main)


def test_pipes_wake_at_their_ends(run):
    """Row 30."""

    async def main():
        with pipe() as (r, w):
            reader = gopoll.go(r.read, 1)
            await wait_parked(reader)
            w.close()
            assert await reader == b""
        with pipe() as (r, w):
            writer = gopoll.go(w.write, bytes(1 << 20))
            await wait_parked(writer)
            await r.read(1)
            r.close()
            with pytest.raises(BrokenPipeError, match=r"^write pipe: broken pipe$") as caught:
                await writer
            assert caught.value.written > 0

    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as Python does by itself
    run(main)


def test_a_datagram_may_be_empty(run):
    async def main():
        ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with peer:
            fd = adopt(ours, "unixgram", stream=False, zero_read_is_eof=False)
            assert await fd.write(b"") == 0
            assert await fd.write(b"two") == 3
            assert [peer.recv(9), peer.recv(9)] == [b"", b"two"]
            peer.send(b"")
            assert await fd.read(9) == b""
            fd.close()

    run(main)


# -- references ------------------------------------------------------------------------------------


def test_operations_leave_no_reference_behind(run):
    """Ended in every way, an operation gives back the FD, its buffer and the goroutine."""

    async def main():
        with half_pair() as (fd, peer):
            buffer = bytearray(8)

            async def one(how):
                g = gopoll.go(fd.readinto, buffer)
                queued = gopoll.go(fd.read, 1)
                await wait_parked(g, queued)
                match how:
                    case "ready":
                        peer.send(b"12345678")
                    case "cancel":
                        g.cancel()
                    case "deadline":
                        fd.set_read_timeout(0)
                for h in (g, queued):
                    if how == "ready" and h is queued:
                        h.cancel()
                    if how == "cancel":
                        h.cancel()
                    try:
                        await h
                    except (Canceled, OpError):
                        pass
                fd.set_read_deadline(None)

            for how in ("ready", "cancel", "deadline"):
                counts = []
                for _ in range(4):
                    await one(how)
                    gc.collect()
                    counts.append((sys.getrefcount(fd), len(gc.get_objects())))
                refs = {c[0] for c in counts[1:]}
                assert len(refs) == 1, f"{how}: {counts}"
                buffer.append(0)
                del buffer[8:]
            await wait_until(lambda: True)

    run(main, handoff=False)  # without a GIL, what another thread drops is counted later
