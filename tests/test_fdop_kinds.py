"""Every kind of operation in every phase: cancelled, closed, past its deadline, shared, dropped.

What test_fdop.py asserts of read and write, for those of _fdmsg, _fdcopy and _fdraw.
Go: internal/poll/fd_unix.go, whose loops are the same; rows 41, 47, 86, 99.
"""

import contextlib
import os
import signal
import threading

import pytest

import gopoll
from gopoll import Canceled, ClosedError
from helpers.fds import MORE_THAN_FITS, drain, half_pair, parked

READS = {
    "read_from": (lambda fd: fd.read_from(1), "read"),
    "readinto_from": (lambda fd: fd.readinto_from(bytearray(1)), "read"),
    "recvmsg": (lambda fd: fd.recvmsg(1, 100), "read"),
    "raw_read": (lambda fd: fd.raw_read(receive), "raw-read"),
    "splice in": (lambda fd: OTHER[0].splice_from(fd, 1), "splice"),
}
WRITES = {
    "sendmsg": (lambda fd: fd.sendmsg([MORE_THAN_FITS]), "write"),
    "writev": (lambda fd: fd.writev([MORE_THAN_FITS, b"x"]), "writev"),
    "sendfile": (lambda fd: fd.sendfile(FILE[0]), "sendfile"),
    "raw_write": (lambda fd: fd.raw_write(send), "raw-write"),
}
KINDS = {**READS, **WRITES}
FILE = []  # a descriptor of a file in memory with MORE_THAN_FITS in it
OTHER = []  # where a splice goes


def receive(number):
    """Read a byte as a program does that has its own system call."""
    try:
        return os.read(number, 1)
    except BlockingIOError:
        return b""


def send(number):
    """Write more than fits: true never comes."""
    with contextlib.suppress(BlockingIOError):
        os.write(number, MORE_THAN_FITS)
    return False


@pytest.fixture(autouse=True)
def a_file():
    number = os.memfd_create("gopoll-test")
    os.write(number, MORE_THAN_FITS)
    FILE[:] = [number]
    yield
    os.close(number)


@pytest.fixture
def world(run):
    """Return a runner of main(fd, peer) with somewhere to splice to."""

    def start(main):
        async def within():
            with half_pair() as (fd, peer), half_pair() as (other, other_peer):
                OTHER[:] = [other]
                try:
                    await main(fd, peer)
                finally:
                    OTHER.clear()
                    drain(other_peer)

        run(within)

    return start


async def still_works(fd, peer):
    """The locks of both directions are free and nothing is stuck."""
    drain(peer)
    peer.send(b"z")
    assert await fd.read(1) == b"z"
    assert await fd.write(b"z") == 1
    assert drain(peer).endswith(b"z")


@pytest.mark.parametrize("end", ["deadline", "past", "close", "cancel"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_that_waits_is_ended_and_another_begins(world, kind, end):
    make, op = KINDS[kind]
    error = {"close": ClosedError, "cancel": Canceled}.get(end, TimeoutError)
    text = {
        "close": rf"^{op} unix: use of closed network connection$",
        "cancel": "^context canceled: enough$",
    }.get(end, rf"^{op} unix: i/o timeout$")

    async def main(fd, peer):
        first, queued = await parked(make, fd), await parked(make, fd)
        assert first.wait_reason != "note"
        match end:
            case "deadline":
                fd.set_timeout(0.001)
            case "past":
                fd.set_deadline(-1)
            case "close":
                fd.close()
            case "cancel":
                first.cancel("enough")
                queued.cancel("enough")
        for g in (first, queued):
            with pytest.raises(error, match=text) as caught:
                await g
            if kind in READS and kind != "splice in":
                assert caught.value.written is None
            elif kind in ("sendmsg", "writev", "sendfile") and g is queued:
                assert caught.value.written == 0
        if end != "close":
            fd.set_deadline(None)
            await still_works(fd, peer)

    world(main)


@pytest.mark.parametrize("kind", KINDS)
def test_close_and_a_past_deadline_come_before_what_is_ready(world, kind):
    """Row 86: fn is not called; rows 41, 99: nothing is read or written."""
    make, op = KINDS[kind]

    async def main(fd, peer):
        peer.send(b"ready")
        fd.set_deadline(-1)
        with pytest.raises(TimeoutError, match=rf"^{op} unix: i/o timeout$") as caught:
            await make(fd)
        assert not caught.value.written
        fd.set_deadline(None)
        assert await fd.read(9) == b"ready"
        assert drain(peer) == b""
        fd.close()
        with pytest.raises(ClosedError, match=rf"^{op} unix: use of closed"):
            await make(fd)

    world(main)


@pytest.mark.parametrize("how", ["throw", "close", "drop"])
@pytest.mark.parametrize("phase", ["new", "queued", "parked", "ended"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_operation_may_be_left_in_every_phase(world, kind, phase, how):
    make, op_name = KINDS[kind]

    async def main(fd, peer):
        holder = None
        if phase == "queued":
            holder = await parked(make, fd)
        op = make(fd)
        if phase == "ended":
            fd.set_deadline(-1)
            with pytest.raises(TimeoutError):
                await op
            fd.set_deadline(None)
        elif phase != "new":
            next(op.__await__())
        if how == "throw":
            with pytest.raises(KeyError):
                op.throw(KeyError("k"))
            with pytest.raises(KeyError):
                op.throw(KeyError, "k", None)
        elif how == "close":
            op.close()
            op.close()
        elif phase == "new":
            with pytest.warns(RuntimeWarning, match=f"^{op_name} unix was never awaited$"):
                del op
        else:
            del op
        if holder is not None:
            holder.cancel()
            with pytest.raises(Canceled):
                await holder
        await still_works(fd, peer)

    world(main)


@pytest.mark.parametrize("kind", KINDS)
def test_an_operation_is_one_goroutine_s_and_awaited_once(world, kind):
    make, op_name = KINDS[kind]
    text = rf"cannot await an operation twice \({op_name} unix\)"

    async def main(fd, peer):
        op = make(fd)
        first = gopoll.go(op)
        while first.state != "waiting":
            await gopoll.gosched()
        with pytest.raises(RuntimeError, match=text):
            await op
        first.cancel()
        with pytest.raises(Canceled):
            await first
        op = make(fd)
        op.close()
        with pytest.raises(RuntimeError, match=text):
            await op
        await still_works(fd, peer)

    world(main)


@pytest.mark.parametrize("kind", KINDS)
def test_outside_a_goroutine_it_is_tried_and_then_says_what_to_do(world, kind):
    make, op_name = KINDS[kind]
    errors = []

    async def main(fd, peer):
        def outside():
            op = make(fd)
            try:
                next(op.__await__())
            except RuntimeError as exc:
                errors.append(exc)

        thread = threading.Thread(target=outside)
        thread.start()
        thread.join()
        assert f"{op_name} unix would block outside a goroutine" in str(errors[0])
        await still_works(fd, peer)

    world(main)


@pytest.mark.parametrize("kind", KINDS)
def test_a_deadline_that_moves_and_races_with_the_operation_loses_nothing(world, kind):
    """Rows 44, 45, for each kind: whatever comes out, the connection goes on."""
    make, _ = KINDS[kind]

    async def main(fd, peer):
        for i in range(60):
            g = gopoll.go(make, fd)
            fd.set_timeout(0.00002 * (i % 7))
            with contextlib.suppress(TimeoutError):
                await g
            fd.set_deadline(None)
            drain(peer)
        await still_works(fd, peer)

    world(main)


def test_an_interrupted_sendfile_runs_the_handlers_and_goes_on(world):
    """EINTR, of a socket that blocks: FD leaves O_NONBLOCK to its maker.

    The others ask for no wait whatever the socket says: tests/faults interrupts them.
    """
    make, _ = KINDS["sendfile"]
    calls = []

    async def main(fd, peer):
        def on_alarm(*_):
            calls.append(1)
            if len(calls) == 3:
                raise ZeroDivisionError

        os.set_blocking(fd.fileno(), True)
        before = signal.signal(signal.SIGALRM, on_alarm)
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
        try:
            with pytest.raises(ZeroDivisionError):
                await make(fd)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert len(calls) == 3
        os.set_blocking(fd.fileno(), False)
        await still_works(fd, peer)

    world(main)


def test_a_cancelled_raw_write_has_no_count_of_its_own(world):
    async def main(fd, peer):
        g = await parked(fd.raw_write, send)
        g.cancel()
        with pytest.raises(Canceled) as caught:
            await g
        assert caught.value.written is None

    world(main)
