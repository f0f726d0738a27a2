"""splice: from one stream to another by way of the kernel, and what an interrupted one says.

Go: net/splice_linux_test.go, internal/poll/splice_linux_test.go; rows 25, 100.
"""

import contextlib
import errno
import gc
import os
import random
import resource
import socket
import sys

import pytest

import gopoll
from gopoll import Canceled, OpError
from helpers.child import open_fds, run_forking, run_python
from helpers.fds import (
    CUTS,
    MORE_THAN_FITS,
    AnyFD,
    adopt,
    close_quietly,
    cut,
    drain,
    half_pair,
    message,
    pair,
    parked,
    pipe,
    stuck,
    tcp_pair,
)
from helpers.seccomp import CALLS
from plugins.guard import wait_until

DATA = os.urandom(3_000_001)
SPARE = 16  # pipes that a poller keeps


def end(kind):
    """Return (FD, its plain peer) of a stream."""
    if kind == "tcp":
        return tcp_pair()
    ours, peer = socket.socketpair()
    return adopt(ours), peer


@contextlib.contextmanager
def way(src_kind="unix", dst_kind="unix"):
    """Give (source's peer, source FD, destination FD, its peer); the peers do not block."""
    with contextlib.ExitStack() as stack:
        src, feeder = end(src_kind)
        dst, eater = end(dst_kind)
        for sock in (feeder, eater):
            stack.enter_context(sock)
            sock.setblocking(False)
        for fd in (src, dst):
            stack.callback(close_quietly, fd)
        yield feeder, src, dst, eater


async def feed(peer, data, close=False):
    """Send *data* from a plain socket that does not block."""
    view = memoryview(data)
    while view:
        try:
            view = view[peer.send(view) :]
        except BlockingIOError:
            await gopoll.gosched()
    if close:
        peer.shutdown(socket.SHUT_WR)


async def eat(peer, size):
    """Take *size* bytes, or all there are up to the end."""
    got = bytearray()
    while len(got) < size:
        try:
            part = peer.recv(min(size - len(got), 1 << 20))
        except BlockingIOError:
            await gopoll.gosched()
            continue
        if not part:
            break
        got += part
    return bytes(got)


def pipes():
    """Return how many pipes this process has open, in ends."""
    n = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            n += os.readlink(f"/proc/self/fd/{name}").startswith("pipe:")
    return n


@pytest.mark.parametrize("src_kind", ["tcp", "unix"])
@pytest.mark.parametrize("dst_kind", ["tcp", "unix"])
@pytest.mark.parametrize("count", [None, 0, 1, 70_000, 262_144, len(DATA), 1 << 40])
def test_what_comes_in_on_one_side_goes_out_on_the_other(run, src_kind, dst_kind, count):
    """Row 100: tcp and unix both ways, limits below, at and above what there is."""

    async def main():
        with way(src_kind, dst_kind) as (feeder, src, dst, eater):
            wanted = DATA if count is None else DATA[:count]
            feeding = gopoll.go(feed, feeder, DATA, True)
            eating = gopoll.go(eat, eater, len(wanted))
            assert await dst.splice_from(src, count) == len(wanted)
            assert await eating == wanted
            rest = DATA[len(wanted) :]
            tail = await all_of(src)
            assert tail == rest, "what is beyond the limit stays"
            await feeding

    run(main)


async def all_of(fd):
    got = bytearray()
    while part := await fd.read(1 << 20):
        got += part
    return bytes(got)


def test_the_end_is_the_end_each_time(run):
    async def main():
        with way() as (feeder, src, dst, eater):
            waiting = await parked(dst.splice_from, src)
            assert waiting.wait_reason == "splice"
            feeder.send(b"abc")
            await wait_until(lambda: drain(eater) == b"abc")
            assert not waiting.done
            feeder.shutdown(socket.SHUT_WR)
            assert await waiting == 3
            assert await dst.splice_from(src) == 0

    run(main)


def test_pipes_are_spliced_and_stay_non_blocking(run):
    """Row 99, Pipe; and any other file that the kernel can splice."""

    async def main():
        with half_pair() as (fd, peer), pipe() as (r, w):
            g = await parked(fd.splice_from, r)
            await w.write(b"from a pipe")
            await wait_until(lambda: drain(peer) == b"from a pipe")
            w.close()
            assert await g == 11
            assert os.get_blocking(r.fileno()) is False
        with half_pair() as (fd, peer), pipe() as (r, w):
            peer.send(b"into a pipe")
            assert await w.splice_from(fd, 11) == 11
            assert await r.read(99) == b"into a pipe"
            assert os.get_blocking(w.fileno()) is False

    run(main)


def test_an_echo_splices_a_connection_into_itself(run):
    async def main():
        with half_pair() as (fd, peer):
            echo = gopoll.go(fd.splice_from, fd)
            for size in (1, 1000, 100_000):
                data = os.urandom(size)
                feeding = gopoll.go(feed, peer, data)
                assert await eat(peer, size) == data
                await feeding
            peer.shutdown(socket.SHUT_WR)
            assert await echo == 101_001

    run(main)


def test_only_streams_are_spliced(run):
    """Row 100: not unixgram, not unixpacket."""

    async def main():
        for kind in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
            ours, peer = socket.socketpair(socket.AF_UNIX, kind)
            with peer, half_pair() as (stream, _):
                fd = message(ours, "unixgram")
                for dst, src in ((fd, stream), (stream, fd)):
                    with pytest.raises(
                        OpError, match=r"^splice unixgram: not a byte stream$"
                    ) as caught:
                        dst.splice_from(src)
                    assert caught.value.errno == errno.EINVAL
                fd.close()
        with half_pair() as (fd, _):
            with pytest.raises(ValueError, match="count must not be negative"):
                fd.splice_from(fd, -1)
            for wrong in (1.5, "1"):
                with pytest.raises(TypeError):
                    fd.splice_from(fd, wrong)
            for wrong in (None, 5, socket.socket):
                with pytest.raises(TypeError):
                    fd.splice_from(wrong)

    run(main)


# -- ends in the middle ----------------------------------------------------------------------------


def lost(exc):
    """Return how many bytes a note on *exc* says had been read for nothing."""
    notes = getattr(exc, "__notes__", [])
    assert len(notes) <= 1
    return int(notes[0].split()[0]) if notes else 0


@pytest.mark.parametrize("why", ["deadline", "close", "cancel", "reset"])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_one_that_cannot_write_counts_what_it_has_read(run, kind, why):
    """X2, X3: read = written + what the note says; and the pipe is not used again."""

    async def main():
        with way("unix", kind) as (feeder, src, dst, eater):
            before = pipes()
            feeding = gopoll.go(feed, feeder, DATA * 8, True)
            g = gopoll.go(dst.splice_from, src)
            await stuck(g, feeder)
            cut(why, dst, g, eater)
            with pytest.raises(CUTS[why]) as caught:
                await g
            if why != "cancel":
                assert str(caught.value).startswith(f"splice {kind}: ")
            written, gone = caught.value.written, lost(caught.value)
            assert gone > 0
            assert pipes() == before, "a pipe with bytes in it is closed"
            rest = await all_of(src)
            await feeding
            assert (DATA * 8)[written + gone :] == rest
            if why != "reset":
                close_quietly(dst)
                assert await eat(eater, 1 << 30) == (DATA * 8)[:written]

    run(main)


@pytest.mark.parametrize("why", ["deadline", "close", "cancel", "reset"])
def test_one_that_cannot_read_says_how_much_has_left(run, why):
    async def main():
        with way("tcp", "unix") as (feeder, src, dst, eater):
            g = await parked(dst.splice_from, src)
            feeder.send(b"abc")
            await wait_until(lambda: drain(eater) == b"abc")
            cut(why, src, g, feeder)
            with pytest.raises({**CUTS, "reset": ConnectionResetError}[why]) as caught:
                await g
            assert (caught.value.written, lost(caught.value)) == (3, 0)
            if why != "cancel":
                assert str(caught.value).startswith("splice tcp: ")
            assert await dst.write(b"dst is as it was") == 16

    run(main)


def test_other_writes_come_between_and_nothing_is_lost(run):
    """As in Go, whose splice holds a lock for one turn at a time."""

    async def main():
        with way() as (feeder, src, dst, eater):
            feeding = gopoll.go(feed, feeder, b"s" * len(DATA), True)
            splicing = gopoll.go(dst.splice_from, src)
            writing = [gopoll.go(dst.write, b"w" * 1000) for _ in range(20)]
            got = await eat(eater, len(DATA) + 20_000)
            assert got.count(b"s") == len(DATA)
            assert got.count(b"w") == 20_000
            assert all(len(run) % 1000 == 0 for run in got.replace(b"s", b" ").split())
            assert await splicing == len(DATA)
            await feeding
            for g in writing:
                await g

    run(main)


def test_two_splices_of_one_source_share_it(run):
    async def main():
        with way() as (feeder, src, dst, eater), half_pair() as (second, second_eater):
            feeding = gopoll.go(feed, feeder, DATA, True)
            both = gopoll.go(dst.splice_from, src), gopoll.go(second.splice_from, src)
            got = 0
            while not all(g.done for g in both):
                got += len(drain(eater)) + len(drain(second_eater))
                await gopoll.gosched()
            got += len(drain(eater)) + len(drain(second_eater))
            assert sum([await g for g in both]) == got == len(DATA)
            await feeding

    run(main)


def test_one_that_never_waits_lets_others_run_and_can_be_ended(run):
    """A13: both ends always ready."""

    async def main():
        with half_pair() as (fd, peer):
            sink = AnyFD(os.open("/dev/null", os.O_WRONLY), "null", file=True)
            g = gopoll.go(sink.splice_from, fd)
            sent = 0
            while sent < 8 << 20:  # more than fits: it has been moved meanwhile
                with contextlib.suppress(BlockingIOError):
                    sent += peer.send(bytes(1 << 16))
                await gopoll.gosched()
            assert not g.done
            g.cancel()
            with pytest.raises(Canceled) as caught:
                await g
            assert 0 < caught.value.written <= sent
            sink.close()

    run(main)


# -- pipes -----------------------------------------------------------------------------------------


def held_by(op, name):
    """Return the object of the class *name* that *op* holds."""
    (found,) = [each for each in gc.get_referents(op) if type(each).__name__ == name]
    return found


@pytest.mark.parametrize("how", ["throw", "close"])
def test_a_pipe_with_bytes_in_it_is_closed_by_who_drops_it(run, how):
    """X2: at once, whoever holds the object still; without a GIL it lives on by itself."""

    async def main():
        with way() as (feeder, src, dst, _):
            with contextlib.suppress(BlockingIOError):
                while True:
                    dst.raw_control(lambda number: os.write(number, bytes(65536)))
            feeder.send(b"on the way")
            op = dst.splice_from(src)
            next(op)  # it has them, and waits to write
            before = pipes()
            pipe = held_by(held_by(op, "SpliceOutOp"), "Pipe")
            if how == "throw":
                with pytest.raises(KeyError):
                    op.throw(KeyError("k"))
            else:
                op.close()
            assert pipes() == before - 2
            del pipe

    run(main)


def test_who_waits_for_bytes_holds_no_pipe(run):
    async def main():
        with contextlib.ExitStack() as stack:
            before = open_fds()
            ways = [stack.enter_context(way()) for _ in range(40)]
            mine = open_fds() - before
            waiting = [await parked(dst.splice_from, src) for _, src, dst, _ in ways]
            more = open_fds() - before - mine
            assert len(more) <= 2 * 4, "40 wait, and one pipe a thread has seen them all"
            for feeder, _, _, eater in ways:
                feeder.send(b"x")
                assert await eat(eater, 1) == b"x"
                feeder.shutdown(socket.SHUT_WR)
            assert [await g for g in waiting] == [1] * 40

    run(main)


def test_spare_pipes_are_few_and_go_with_the_run(run):
    """Row 25."""
    before = open_fds()

    async def main():
        with contextlib.ExitStack() as stack:
            ways = [stack.enter_context(way()) for _ in range(3 * SPARE)]
            at_first = pipes()
            splices = []
            for feeder, src, dst, _ in ways:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        os.write(dst.fileno(), MORE_THAN_FITS)
                feeder.send(b"x" * 100)
                splices.append(await parked(dst.splice_from, src, 100))
            # Each holds bytes for which there is no room.
            assert pipes() - at_first == 2 * len(ways)
            for g, (*_, eater) in zip(splices, ways, strict=True):
                while not g.done:
                    drain(eater)
                    await gopoll.gosched()
                assert await g == 100
            assert pipes() - at_first == 2 * SPARE

    run(main)
    assert open_fds() == before


def test_a_spare_pipe_is_used_again_and_empty(run):
    async def main():
        before = pipes()
        for _ in range(20):
            with way() as (feeder, src, dst, eater):
                data = os.urandom(random.randrange(1, 500_000))
                feeding = gopoll.go(feed, feeder, data, True)
                eating = gopoll.go(eat, eater, len(data))
                assert await dst.splice_from(src) == len(data)
                assert await eating == data
                await feeding
        assert pipes() - before <= 2 * 4, "one after the other, they need but one"

    run(main)


def test_a_child_does_not_share_its_parent_s_pipes():
    """A9: two processes with one pipe would take each other's bytes."""
    run_forking("""
import socket
from gopoll._fd import FD
from gopoll import _fdcopy
from gopoll.runtime._sched import current_poller

def pipes():
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            pass
    return {name for name in found if name.startswith("pipe:")}

def fd_pair(poller=None):
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    fd = FD(ours.detach(), "unix")
    if poller is not None:
        fd.init(poller)
    return fd, peer

async def main():
    poller = current_poller()
    others = pipes()
    src, feeder = fd_pair(poller)
    dst, eater = fd_pair(poller)
    feeder.send(b"x")
    assert await _fdcopy.splice_from(dst, src, 1) == 1
    (spare,) = pipes() - others

    def check():
        src, feeder = fd_pair(poller)
        dst, eater = fd_pair(poller)
        feeder.send(b"child")
        try:
            next(_fdcopy.splice_from(dst, src, 5).__await__())
        except StopIteration as end:
            assert end.value == 5
        assert spare not in pipes()
        assert len(pipes() - others) == 1
        assert eater.recv(9) == b"child"
        for end in (src, dst, feeder, eater):
            end.close()

    in_child(check)
    feeder.send(b"y")
    assert await _fdcopy.splice_from(dst, src, 1) == 1
    assert pipes() - others == {spare}
    assert eater.recv(9) == b"xy"
    for fd in (src, dst):
        fd.close()
    feeder.close()
    eater.close()

gopoll.run(main)
""")


def test_without_a_free_descriptor_it_copies(run):
    async def main():
        with way() as (feeder, src, dst, eater):
            feeder.send(b"by copy")
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            try:
                assert await dst.splice_from(src, 7) == 7
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert drain(eater) == b"by copy"

    run(main)


# -- where the kernel does not do it ---------------------------------------------------------------


def test_out_by_copy_where_only_the_destination_refuses(run, tmp_path):
    """A file that is open for appending: what is in the pipe by then is copied, not lost."""

    async def main():
        with half_pair() as (fd, peer):
            path = tmp_path / "log"
            number = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            log = AnyFD(number, "file", file=True)
            feeding = gopoll.go(feed, peer, DATA, True)
            assert await log.splice_from(fd) == len(DATA)
            await feeding
            assert path.read_bytes() == DATA
            log.close()

    run(main)


BY_COPY = """
import errno, os, socket, sys
import gopoll
from helpers import seccomp
from helpers.fds import drain, half_pair, stuck

seccomp.deny(int(sys.argv[1]), "splice")
DATA = os.urandom(2_000_001)

async def feed(peer, data):
    view = memoryview(data)
    while view:
        try:
            view = view[peer.send(view):]
        except BlockingIOError:
            await gopoll.gosched()
    peer.shutdown(socket.SHUT_WR)

async def all_of(fd):
    got = bytearray()
    while part := await fd.read(1 << 20):
        got += part
    return bytes(got)

async def main():
    for count in (None, 0, 1, 70_000, len(DATA), 1 << 40):
        with half_pair() as (src, feeder), half_pair() as (dst, eater):
            feeding = gopoll.go(feed, feeder, DATA)
            g = gopoll.go(dst.splice_from, src, count)
            got = bytearray()
            while not g.done:
                got += drain(eater)
                await gopoll.gosched()
            got += drain(eater)
            wanted = DATA if count is None else DATA[:count]
            assert await g == len(wanted), count
            assert got == wanted
            assert await all_of(src) == DATA[len(wanted):]
            await feeding
    with half_pair() as (src, feeder), half_pair() as (dst, eater):
        feeding = gopoll.go(feed, feeder, DATA)
        g = gopoll.go(dst.splice_from, src)
        await stuck(g, feeder)
        g.cancel()
        try:
            await g
        except gopoll.Canceled as exc:
            gone = int(exc.__notes__[0].split()[0])
            assert len(drain(eater)) == exc.written
            rest = await all_of(src)
            assert DATA[exc.written + gone:] == rest
        await feeding

gopoll.run(main)
print("ok")
"""


@pytest.mark.skipif("splice" not in CALLS, reason="no system call numbers for this machine")
@pytest.mark.parametrize("name", ["EINVAL", "ENOSYS", "EPERM"])
def test_it_copies_where_the_kernel_does_not(name):
    """The kernel refuses for real."""
    done = run_python(BY_COPY, getattr(errno, name))
    assert (done.stdout, done.stderr) == ("ok\n", ""), done.stderr


# -- all at once -----------------------------------------------------------------------------------


def test_many_proxied_streams_that_are_cut_at_any_moment_lose_and_leak_nothing(run):
    """Each way: what came out is the beginning of what went in, and the count is right."""

    async def proxied():
        with way(*random.choices(["tcp", "unix"], k=2)) as (feeder, src, dst, eater):
            size = random.randrange(1 << 20)
            data = DATA[:size]
            feeding = gopoll.go(feed, feeder, data, True)
            splicing = gopoll.go(dst.splice_from, src)
            received = bytearray()
            cut = random.randrange(2 * size + 1)
            why = random.choice(["cancel", "read", "write", "src", "dst", "none"])
            while not splicing.done:
                with contextlib.suppress(BlockingIOError):
                    received += eater.recv(random.randrange(1, 1 << 18))
                if len(received) >= cut and why != "none":
                    match why:
                        case "cancel":
                            splicing.cancel()
                        case "read":
                            src.set_read_deadline(-1)
                        case "write":
                            dst.set_write_deadline(-1)
                        case "src":
                            close_quietly(src)
                        case "dst":
                            close_quietly(dst)
                    why = "none"
                await gopoll.gosched()
            try:
                written, gone = await splicing, 0
                assert written == size
            except (Canceled, OpError) as exc:
                written, gone = exc.written, lost(exc)
            close_quietly(dst)
            received += await eat(eater, 1 << 30)
            assert received == data[:written]
            if not src.is_closed:
                src.set_deadline(None)
                assert await all_of(src) == data[written + gone :]
            feeding.cancel()
            with contextlib.suppress(Canceled, ConnectionError):
                await feeding

    async def main():
        for _ in range(6):
            for g in [gopoll.go(proxied) for _ in range(10)]:
                await g

    run(main)


def test_it_leaves_no_reference_behind(run):
    async def main():
        with pair() as (a, b), half_pair() as (fd, peer):
            counts = []
            for _ in range(5):
                before = sys.getrefcount(a), sys.getrefcount(fd)
                await b.write(b"x")
                assert await fd.splice_from(a, 1) == 1
                g = await parked(fd.splice_from, a)
                g.cancel()
                with pytest.raises(Canceled):
                    await g
                del g
                with pytest.warns(RuntimeWarning, match="^splice unix was never awaited$"):
                    fd.splice_from(a)
                gc.collect()
                counts.append((sys.getrefcount(a), sys.getrefcount(fd)) == before)
            assert all(counts[1:]), counts
            drain(peer)

    run(main, handoff=False)  # without a GIL, what another thread drops is counted later
