"""Raw access: a system call of the caller's own, tried after each readiness.

How it is closed, cancelled and left is in test_fdop_kinds.py.
Go: net/rawconn_test.go, rows 86 and 87; FD.RawRead.
"""

import os
import socket
import sys
import traceback

import pytest

import gopoll
from gopoll import ClosedError
from helpers.fds import MORE_THAN_FITS, adopt, drain, half_pair, parked, pipe


def reader(log=None):
    """Return an fn that reads a byte, and notes each call in *log*."""

    def read(number):
        if log is not None:
            log.append(number)
        try:
            return os.read(number, 1)
        except BlockingIOError:
            return None

    return read


def test_it_calls_until_something_true_comes_and_returns_that(run):
    async def main():
        with half_pair() as (fd, peer):
            log = []
            g = await parked(fd.raw_read, reader(log))
            assert g.wait_reason == "raw-read"
            assert log == [fd.fileno()]
            peer.send(b"x")
            assert await g == b"x"
            assert set(log) == {fd.fileno()}
            for true in (1, "yes", [0], (1, 2), object(), ValueError("a value")):
                assert await fd.raw_write(lambda number, true=true: true) is true

    run(main)


def test_a_stop_iteration_is_an_error_and_no_value(run):
    """As in a coroutine: `await` would take it for the end of the operation."""

    def fn(number):
        return next(iter(()))

    async def main():
        with half_pair() as (fd, _):
            with pytest.raises(RuntimeError, match=r"^operation raised StopIteration$") as caught:
                await fd.raw_read(fn)
            cause = caught.value.__cause__
            assert type(cause) is StopIteration
            assert traceback.extract_tb(cause.__traceback__)[-1].name == "fn"
            assert caught.value.__context__ is cause
            assert await fd.raw_write(lambda number: "the lock is free") == "the lock is free"

    run(main)


@pytest.mark.parametrize("false", [None, False, 0, b"", [], ()])
def test_anything_false_waits(run, false):
    async def main():
        with half_pair() as (fd, peer):
            answers = [false, b"done"]
            g = await parked(fd.raw_read, lambda number: answers.pop(0))
            peer.send(b"x")
            assert await g == b"done"

    run(main)


def test_a_raw_write_waits_for_room(run):
    async def main():
        with half_pair() as (fd, peer):
            left = [MORE_THAN_FITS]

            def write(number):
                try:
                    while left[0]:
                        left[0] = left[0][os.write(number, left[0]) :]
                except BlockingIOError:
                    return False
                return True

            g = await parked(fd.raw_write, write)
            assert g.wait_reason == "raw-write"
            got = b""
            while not g.done:
                got += drain(peer)
                await gopoll.gosched()
            assert await g is True
            assert got + drain(peer) == MORE_THAN_FITS

    run(main)


def test_what_fn_raises_comes_out_and_the_lock_is_given_back(run):
    async def main():
        with half_pair() as (fd, peer):
            for error in (ZeroDivisionError(), BlockingIOError(), KeyboardInterrupt(), OSError(5)):

                def fn(number, error=error):
                    raise error

                with pytest.raises(type(error)) as caught:
                    await fd.raw_read(fn)
                assert caught.value is error

            class Unsure:
                def __bool__(self):
                    raise ArithmeticError

            with pytest.raises(ArithmeticError):
                await fd.raw_write(lambda number: Unsure())
            peer.send(b"x")
            assert await fd.raw_read(reader()) == b"x"
            assert await fd.write(b"y") == 1
            for wrong in (None, 5, "fn"):
                with pytest.raises(TypeError, match="fn must be callable, not"):
                    fd.raw_read(wrong)
                with pytest.raises(TypeError, match="fn must be callable, not"):
                    fd.raw_control(wrong)
            with pytest.raises(TypeError):
                await fd.raw_read(lambda: True)

    run(main)


def test_a_directions_operations_queue_behind_it_and_the_other_s_do_not(run):
    async def main():
        with half_pair() as (fd, peer):
            raw = await parked(fd.raw_read, reader())
            plain = await parked(fd.read, 1)
            second = await parked(fd.raw_read, reader())
            assert await fd.raw_write(lambda number: os.write(number, b"w")) == 1
            assert peer.recv(9) == b"w"
            for byte, g in zip((b"1", b"2", b"3"), (raw, plain, second), strict=True):
                peer.send(byte)
                assert await g == byte

    run(main)


def test_the_descriptor_cannot_be_closed_while_fn_runs(run):
    async def main():
        with half_pair() as (fd, peer):

            def close_then_read(number):
                closed = fd.close()
                assert fd.is_closed
                assert os.fstat(number)
                peer.send(b"late")
                assert os.read(number, 9) == b"late"
                return closed

            await (await fd.raw_read(close_then_read))
            assert fd.fileno() == -1
            with pytest.raises(ClosedError, match=r"^raw-read unix: use of closed"):
                await fd.raw_read(reader())

    run(main)


def test_fn_that_closes_and_would_wait_is_closed(run):
    async def main():
        with half_pair() as (fd, _):
            with pytest.raises(ClosedError, match=r"^raw-read unix: use of closed"):
                await fd.raw_read(lambda number: fd.close() and None)
            assert fd.fileno() == -1

    run(main)


def test_fn_that_ends_its_own_operation_is_told(run):
    async def main():
        with half_pair() as (fd, peer):
            op = fd.raw_read(lambda number: op.close())
            with pytest.raises(RuntimeError, match=r"^raw-read unix was ended by what it called$"):
                await op
            op = fd.raw_read(lambda number: op.close() or 5)
            with pytest.raises(RuntimeError, match="was ended by what it called"):
                await op
            peer.send(b"x")
            assert await fd.read(9) == b"x"

    run(main)


@pytest.mark.parametrize("how", ["true", "false"])
def test_fn_that_never_has_to_wait_lets_the_others_run(run, how):
    """A13, also where readiness comes all the time, and where fn only says that it does not."""

    async def main():
        with half_pair() as (fd, peer):
            turns = 0

            async def other():
                nonlocal turns
                while turns < 10:
                    turns += 1
                    await gopoll.gosched()

            g = gopoll.go(other)
            rounds = 0

            def fn(number):
                nonlocal rounds
                rounds += 1
                assert rounds < 50_000, "the other goroutine is starved"
                if how == "true":
                    return True
                if rounds % 100 == 0:
                    os.read(number, 1000)
                peer.send(b"x")  # an edge, each time
                return g.done

            while not g.done:
                await fd.raw_read(fn)
            assert turns == 10

    run(main)


def test_on_pipes_and_a_socket_that_is_a_listener(run):
    async def main():
        with pipe() as (r, w):
            g = await parked(r.raw_read, reader())
            assert await w.raw_write(lambda number: os.write(number, b"x")) == 1
            assert await g == b"x"
            w.close()
            ended = []
            assert await r.raw_read(lambda number: ended.append(os.read(number, 1)) or True)
            assert ended == [b""]
        with socket.create_server(("127.0.0.1", 0)) as server:
            fd = adopt(server.dup(), "tcp")

            def accept(number):
                with socket.socket(fileno=os.dup(number)) as plain:
                    try:
                        return plain.accept()[0]
                    except BlockingIOError:
                        return None

            g = await parked(fd.raw_read, accept)
            with socket.create_connection(server.getsockname()), await g:
                pass
            fd.close()

    run(main)


def test_it_leaves_no_reference_behind(run):
    async def main():
        with half_pair() as (fd, peer):
            fn = reader()
            counts = []
            for _ in range(4):
                before = sys.getrefcount(fn), sys.getrefcount(fd)
                peer.send(b"x")
                await fd.raw_read(fn)
                g = await parked(fd.raw_read, fn)
                fd.set_read_deadline(-1)
                with pytest.raises(TimeoutError):
                    await g
                fd.set_read_deadline(None)
                del g
                counts.append((sys.getrefcount(fn), sys.getrefcount(fd)) == before)
            assert all(counts[1:]), counts

    run(main, handoff=False)  # without a GIL, what another thread drops is counted later
