"""sendfile: what is sent from where, and what an interrupted one says. writev is in test_fdvec.py.

How it is closed, cancelled and left is in test_fdop_kinds.py, splice in test_splice.py.
Go: net/sendfile_test.go; internal/poll/sendfile.go; row 99.
"""

import errno
import gc
import io
import os
import socket
import tempfile

import pytest

import gopoll
from gopoll import Canceled, ClosedError, OpError
from helpers.child import run_python
from helpers.fds import (
    CUTS,
    MORE_THAN_FITS,
    AnyFD,
    cut,
    drain,
    half_pair,
    message,
    pair,
    parked,
    pipe,
    tcp_pair,
)
from helpers.seccomp import CALLS

SIZE = 3_000_001
DATA = os.urandom(SIZE)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("sendfile") / "file"
    path.write_bytes(DATA)
    return path


async def all_of(fd):
    """Read to the end."""
    got = bytearray()
    while part := await fd.read(1 << 20):
        got += part
    return bytes(got)


@pytest.mark.parametrize(
    ("offset", "count"),
    [
        (0, None),
        (0, SIZE),
        (0, 1),
        (1, 70_000),
        (SIZE - 1, None),
        (SIZE, None),
        (SIZE + 100, None),
        (5, SIZE),  # more than there is
        (SIZE - 5, 1 << 40),
        (7, 0),
    ],
)
@pytest.mark.parametrize("what", ["file", "descriptor"])
def test_offset_and_count_say_what_is_sent(run, path, what, offset, count):
    """Row 99: offsets are honoured, a limit may be beyond the end."""

    async def main():
        with pair() as (a, b), path.open("rb") as file:
            file.seek(11)
            receiver = gopoll.go(all_of, b)
            source = file if what == "file" else file.fileno()
            n = await a.sendfile(source, offset, count)
            a.close_write()
            wanted = DATA[offset:] if count is None else DATA[offset : offset + count]
            assert n == len(wanted)
            assert await receiver == wanted
            assert file.tell() == 11, "the file's own position does not matter and does not move"

    run(main)


def test_from_where_the_file_stands(run, path):
    """Offset None: the descriptor moves by what was sent, also when that is not all."""

    async def main():
        with pair() as (a, b), path.open("rb", buffering=0) as file:
            file.seek(1000)
            assert await a.sendfile(file, None, 500) == 500
            assert file.tell() == 1500
            assert await a.sendfile(file.fileno(), None, 500) == 500
            assert file.tell() == 2000
            assert await b.read(1000) == DATA[1000:2000]
            g = await parked(a.sendfile, file, None)
            await gopoll.gosched()
            g.cancel()
            with pytest.raises(Canceled) as caught:
                await g
            assert caught.value.written > 0
            assert file.tell() == 2000 + caught.value.written
            a.close_write()
            assert await all_of(b) == DATA[2000 : file.tell()]

    run(main)


def test_parts_of_a_file_one_after_the_other_make_it_whole(run, path):
    """Row 99, Parts and Seeked."""

    async def main():
        fd, peer = tcp_pair()
        got = gopoll.go(gopoll.blocking, read_all, peer)
        with path.open("rb", buffering=0) as file:
            at = 0
            while n := await fd.sendfile(file, None, 333_333):
                at += n
                assert file.tell() == at
        fd.close_write()
        assert await got == DATA
        fd.close()
        peer.close()

    run(main)


def read_all(peer):
    out = []
    while part := peer.recv(1 << 20):
        out.append(part)
    return b"".join(out)


def test_what_python_has_buffered_does_not_matter(run, path):
    async def main():
        with half_pair() as (fd, peer), path.open("rb") as file:
            assert file.read(3) == DATA[:3]
            assert await fd.sendfile(file, file.tell(), 5) == 5
            assert peer.recv(99) == DATA[3:8]
            assert await fd.sendfile(Named(file.fileno()), 0, 2) == 2
            assert peer.recv(99) == DATA[:2]

    run(main)


class Named:
    """Anything with fileno()."""

    def __init__(self, number):
        self.number = number

    def fileno(self):
        return self.number


def test_a_file_that_ends_the_operation_is_not_sent(run, path):
    """Whose lock it is by then is somebody else's business."""

    class Ending(Named):
        def fileno(self):
            if op is not None:
                op.close()
            return self.number

    async def main():
        nonlocal op
        with half_pair() as (fd, peer), path.open("rb") as file:
            op = fd.sendfile(Ending(file.fileno()), 0, 5)
            with pytest.raises(RuntimeError, match="sendfile unix was ended by what it called"):
                await op
            assert drain(peer) == b""
            op = None
            assert await fd.sendfile(file, 0, 5) == 5

    op = None
    run(main)


def test_a_file_that_grows_is_sent_up_to_where_it_ends_by_then(run):
    async def main():
        with tempfile.TemporaryFile(buffering=0) as file, pair() as (a, b):
            file.write(MORE_THAN_FITS)
            g = await parked(a.sendfile, file)
            file.seek(0, os.SEEK_END)
            file.write(b"more")
            receiver = gopoll.go(all_of, b)
            assert await g == len(MORE_THAN_FITS) + 4
            a.close_write()
            assert (await receiver)[-5:] == b"\0more"

    run(main)


def test_a_file_in_proc_has_no_size_and_is_sent(run):
    async def main():
        with half_pair() as (fd, peer), open("/proc/self/cmdline", "rb") as file:
            text = file.read()
            assert await fd.sendfile(file) == len(text)
            assert drain(peer) == text

    run(main)


def test_to_a_pipe_and_from_an_empty_file(run, path):
    async def main():
        with pipe() as (r, w), path.open("rb") as file, tempfile.TemporaryFile() as empty:
            assert await w.sendfile(empty) == 0
            assert await w.sendfile(file, 0, 10) == 10
            assert await r.read(99) == DATA[:10]

    run(main)


# -- what is refused -------------------------------------------------------------------------------


def test_what_has_no_position_is_refused_and_left_as_it_was(run):
    """Row 99, Pipe: it stays non-blocking. Its bytes go by splice."""

    async def main():
        with half_pair() as (fd, _), pipe() as (r, w):
            await w.write(b"x")
            for offset in (0, None):
                text = r"^sendfile unix: illegal seek \(.*: see splice_from"
                with pytest.raises(OpError, match=text):
                    fd.sendfile(r, offset)
            assert os.get_blocking(r.fileno()) is False
            assert await r.read(9) == b"x"

    run(main)


def test_arguments_that_make_no_sense_are_refused_at_once(run, path):
    async def main():
        with half_pair() as (fd, _), path.open("rb") as file:
            for wrong in ({"offset": -1}, {"count": -1}, {"offset": -1, "count": -1}):
                with pytest.raises(ValueError, match="negative"):
                    fd.sendfile(file, **wrong)
            for wrong in ({"offset": "0"}, {"count": 1.5}):
                with pytest.raises(TypeError):
                    fd.sendfile(file, **wrong)
            with pytest.raises(OverflowError):
                fd.sendfile(file, 1 << 63)
            for wrong in ("path", None, 1.5, io.StringIO, io.BytesIO(b"x")):
                with pytest.raises(TypeError, match=r"^file must "):
                    fd.sendfile(wrong)
            for wrong in (1 << 20, -1):
                with pytest.raises(OpError, match=r"^sendfile unix: bad file descriptor$"):
                    fd.sendfile(wrong)
        ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with peer, path.open("rb") as file:
            fd = message(ours, "unixgram")
            with pytest.raises(OpError, match=r"^sendfile unixgram: not a byte stream$") as caught:
                fd.sendfile(file)
            assert caught.value.errno == errno.EINVAL
            fd.close()

    run(main)


def test_a_directory_or_a_file_for_writing_says_so(run, tmp_path):
    async def main():
        with half_pair() as (fd, _):
            number = os.open(tmp_path, os.O_RDONLY)
            with pytest.raises(
                IsADirectoryError, match=r"^sendfile unix: sendfile: is a directory$"
            ):
                await fd.sendfile(number)
            os.close(number)
            number = os.open(tmp_path / "new", os.O_WRONLY | os.O_CREAT)
            with pytest.raises(
                OpError, match=r"^sendfile unix: sendfile: bad file descriptor$"
            ) as caught:
                await fd.sendfile(number)
            assert caught.value.written == 0
            os.close(number)
            assert await fd.write(b"x") == 1

    run(main)


def test_a_file_that_is_closed_meanwhile_is_seen_and_no_other_one_sent(run, path):
    async def main():
        with half_pair() as (fd, peer):
            with tempfile.TemporaryFile() as file:
                file.write(MORE_THAN_FITS)
                file.flush()
                number = file.fileno()
                g = await parked(fd.sendfile, file)
            other = os.open(path, os.O_RDONLY)
            assert other == number, "the number is another's"
            got = b""
            while not g.done:
                got += drain(peer)
                await gopoll.gosched()
            with pytest.raises(OpError, match=r"^sendfile unix: I/O operation on closed file"):
                await g
            got += drain(peer)
            assert got == bytes(len(got))
            os.close(other)

    run(main)


# -- errors in the middle --------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["deadline", "close", "cancel", "reset"])
def test_an_unfinished_one_says_how_much_has_left(run, path, end):
    """Row 99, OnWriteTimeoutExceeded."""

    async def main():
        fd, peer = tcp_pair()
        with tempfile.TemporaryFile() as file:
            file.write(os.urandom(32 << 20))
            file.flush()
            g = await parked(fd.sendfile, file)
            got = len(peer.recv(1 << 16))
            cut(end, fd, g, peer)
            with pytest.raises(CUTS[end]) as caught:
                await g
            written = caught.value.written
            assert got <= written < 32 << 20
            if end == "deadline":
                with pytest.raises(TimeoutError, match=r"^sendfile tcp: i/o timeout$") as caught:
                    await fd.sendfile(file)
                assert caught.value.written == 0
            if end != "reset":
                if end != "close":
                    fd.close()
                assert got + len(await gopoll.blocking(read_all, peer)) == written
        if end == "reset":
            with path.open("rb") as file:
                with pytest.raises(BrokenPipeError, match=r"^sendfile tcp: sendfile: broken pipe$"):
                    await fd.sendfile(file)
            fd.close()
        peer.close()

    run(main)


def test_it_is_not_mixed_with_other_writes(run, path):
    async def main():
        with pair() as (a, b), path.open("rb") as file:
            jobs = [gopoll.go(a.sendfile, file), gopoll.go(a.write, b"\0" * SIZE)]
            jobs.append(gopoll.go(a.sendfile, file))
            got = bytearray()
            while len(got) < 3 * SIZE:
                got += await b.read(1 << 20)
            parts = [bytes(got[at : at + SIZE]) for at in range(0, 3 * SIZE, SIZE)]
            assert sorted(parts) == sorted([DATA, bytes(SIZE), DATA])
            assert [await g for g in jobs] == [SIZE] * 3

    run(main)


def test_one_whose_receiver_keeps_up_lets_others_run_and_can_be_ended(run):
    """A13: /dev/null takes everything, and the file is too long to be read in a lifetime."""

    async def main():
        with os.fdopen(os.memfd_create("gopoll-test"), "wb") as file:
            file.truncate(1 << 50)
            fd = AnyFD(os.open("/dev/null", os.O_WRONLY), "file", file=True)
            g = gopoll.go(fd.sendfile, file, None)
            while os.lseek(file.fileno(), 0, os.SEEK_CUR) < 100 << 20:
                await gopoll.gosched()
            g.cancel()
            with pytest.raises(Canceled) as caught:
                await g
            assert 100 << 20 <= caught.value.written < 1 << 50
            assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == caught.value.written
            g = gopoll.go(fd.sendfile, file, None)
            while os.lseek(file.fileno(), 0, os.SEEK_CUR) == caught.value.written:
                await gopoll.gosched()
            fd.close()
            with pytest.raises(ClosedError, match=r"^sendfile file: use of closed file$"):
                await g

    run(main)


# -- where the kernel does not do it ---------------------------------------------------------------

BY_COPY = """
import errno, os, sys, tempfile
import gopoll
from helpers import seccomp
from helpers.fds import MORE_THAN_FITS, AnyFD, drain, half_pair, pair, parked

seccomp.deny(int(sys.argv[1]), "sendfile")
DATA = os.urandom(3_000_001)

async def all_of(fd):
    got = bytearray()
    while part := await fd.read(1 << 20):
        got += part
    return bytes(got)

async def main():
    with tempfile.TemporaryFile(buffering=0) as file:
        try:
            os.sendfile(1, file.fileno(), 0, 1)
        except OSError as exc:
            assert exc.errno == int(sys.argv[1])
        file.write(DATA)
        for offset, count in [(0, None), (10, 1_000_000), (5, 1 << 40), (len(DATA), None)]:
            with pair() as (a, b):
                receiver = gopoll.go(all_of, b)
                n = await a.sendfile(file, offset, count)
                a.close_write()
                wanted = DATA[offset:] if count is None else DATA[offset : offset + count]
                assert await receiver == wanted
                assert n == len(wanted)
        with half_pair() as (fd, peer):
            file.seek(7)
            g = await parked(fd.sendfile, file, None)
            g.cancel()
            try:
                await g
            except gopoll.Canceled as exc:
                got = drain(peer)
                assert got == DATA[7 : 7 + exc.written] and got
                assert file.tell() == 7 + exc.written
    os.close(0)
    number = os.open("/", os.O_RDONLY)
    with half_pair() as (fd, peer):
        try:
            await fd.sendfile(number)
        except IsADirectoryError as exc:
            assert str(exc) == "sendfile unix: sendfile: is a directory"
        else:
            raise AssertionError

gopoll.run(main)
print("ok")
"""


@pytest.mark.skipif("sendfile" not in CALLS, reason="no system call numbers for this machine")
@pytest.mark.parametrize("name", ["EINVAL", "ENOSYS", "EOPNOTSUPP", "EPERM"])
def test_it_copies_where_the_kernel_does_not(name):
    """The kernel refuses for real."""
    done = run_python(BY_COPY, getattr(errno, name))
    assert (done.stdout, done.stderr) == ("ok\n", ""), done.stderr


@pytest.mark.skipif("sendfile" not in CALLS, reason="no system call numbers for this machine")
def test_another_refusal_is_an_error(run):
    code = """
import errno, tempfile
import gopoll
from helpers import seccomp
from helpers.fds import half_pair

seccomp.deny(errno.EIO, "sendfile")

async def main():
    with half_pair() as (fd, peer), tempfile.TemporaryFile() as file:
        try:
            await fd.sendfile(file)
        except OSError as exc:
            print(exc, exc.written)

gopoll.run(main)
"""
    done = run_python(code)
    assert (done.stdout, done.stderr) == ("sendfile unix: sendfile: input/output error 0\n", "")


class Closing:
    """A file that is closed with its last reference, as Python's are."""

    closed = 0

    def __init__(self):
        self.number = os.memfd_create("gopoll-test")
        os.write(self.number, MORE_THAN_FITS)

    def fileno(self):
        return self.number

    def __del__(self):
        os.close(self.number)
        Closing.closed += 1


def test_a_file_stays_open_while_it_is_sent(run):
    """The operation keeps the file object, whoever else drops it."""

    async def main():
        with half_pair() as (fd, peer):
            g = await parked(fd.sendfile, Closing())
            got = 0
            while not g.done:
                got += len(drain(peer))
                await gopoll.gosched()
            assert await g == got + len(drain(peer)) == len(MORE_THAN_FITS)
        del g

    run(main)
    gc.collect()
    assert Closing.closed == 1
