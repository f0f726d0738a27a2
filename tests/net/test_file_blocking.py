"""Blocking and non-blocking: what becomes of the flag, and of us where somebody else sets it."""

import os

import pytest

from gopoll._fd import FD
from gopoll.errors import ClosedError, OpError
from gopoll.net.file import open_fd
from gopoll.runtime.goroutine import go, gosched
from helpers.child import run_python
from net.tools import parked


def test_close_does_not_wait_for_a_read_of_a_descriptor_that_was_blocking(run):
    """Row 28: open_fd has made it non-blocking; the read ends, and then it is really closed."""

    async def main():
        r, w = os.pipe()
        assert os.get_blocking(r)
        file = open_fd(r)
        assert not os.get_blocking(r)
        reader = go(file.read)
        await parked(reader)
        closing = file.close()
        with pytest.raises(ClosedError):
            await reader
        await closing
        os.close(w)

    run(main)


@pytest.mark.parametrize("op", ["read", "write"])
def test_close_ends_what_goes_on_in_a_pipe(run, op):
    """Row 29: whether it has begun or is about to."""

    async def use(file):
        while True:
            await (file.read(1) if op == "read" else file.write(b"x" * 4096))

    async def main():
        for turns in range(20):
            r, w = os.pipe()
            file, other = (open_fd(r), w) if op == "read" else (open_fd(w), r)
            users = [go(use, file) for _ in range(3)]
            for _ in range(turns):
                await gosched()
            await file.close()
            for g in users:
                with pytest.raises(ClosedError, match=rf"^{op} file pipe:.*: use of closed file$"):
                    await g
            os.close(other)

    run(main)


def test_a_descriptor_that_nobody_has_registered_says_that_there_is_nothing(run):
    """Row 31: EAGAIN, for it cannot wait."""

    async def main():
        r, w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        fd = FD(r, "pipe", file=True)
        with pytest.raises(BlockingIOError, match=r"^read pipe: resource temporarily unav") as e:
            await fd.read()
        assert isinstance(e.value, OpError)
        os.write(w, b"x")
        assert await fd.read() == b"x"
        fd.close()
        os.close(w)

    run(main)


@pytest.mark.parametrize("blocking", [True, False])
def test_nothing_that_tells_the_number_makes_it_block(run, blocking):
    """Row 32: Go's File.Fd may; here a File stays non-blocking until it is yours again."""

    async def main():
        r, w = os.pipe()
        os.set_blocking(r, blocking)
        file = open_fd(r)
        assert file.fileno() == r
        copy = file.file()
        file.raw_control(lambda fd: fd)
        assert not os.get_blocking(r)
        assert not os.get_blocking(copy)
        os.close(copy)
        assert file.detach() == r
        os.close(r)
        os.close(w)

    run(main)


def test_the_number_may_be_asked_for_while_somebody_reads(run):
    """Row 33."""

    async def main():
        r, w = os.pipe()
        file = open_fd(r)
        reader = go(file.read)
        await parked(reader)
        for _ in range(3):
            assert file.fileno() == r
            os.close(file.file())
        os.write(w, b"x")
        assert await reader == b"x"
        file.close()
        os.close(w)

    run(main)


# In a child, because what fails here holds the interpreter for ever.
SHARED = """
import os, socket
import gopoll
from net.tools import BIG, pair, parked, socket_pair

async def stream(ends):
    async with ends as (a, b):
        for conn in (a, b):
            os.set_blocking(conn.fileno(), True)  # by way of a copy, in another process, say
        for start, answer in (
            (lambda: a.read(), b"x"),
            (lambda: a.read(1 << 20), b"x"),
            (lambda: a.readinto(bytearray(9)), 1),
        ):
            g = gopoll.go(start)
            await parked(g)
            await b.write(b"x")
            assert await g == answer
        for start in (lambda: a.write(BIG), lambda: a.writev([b"x", BIG])):
            a.set_write_timeout(0.05)
            try:
                await start()
            except TimeoutError as exc:
                assert exc.written < len(BIG)
            else:
                raise AssertionError("who has taken all that?")

async def datagrams():
    a = await gopoll.listen_packet("udp", "127.0.0.1:0")
    b = await gopoll.listen_packet("udp", "127.0.0.1:0")
    async with a, b:
        os.set_blocking(a.fileno(), True)
        for start in (
            lambda: a.read_from(),
            lambda: a.read_from(1 << 20),
            lambda: a.recvmsg(9),
            lambda: a.recvmsg(1 << 20),
            lambda: a.read(),
        ):
            g = gopoll.go(start)
            await parked(g)
            await b.write_to(b"x", a.local_addr)
            got = await g
            assert b"x" in (got, got[0])
        assert await a.write_to(b"x", b.local_addr) == 1
        assert await a.sendmsg([b"x"], addr=b.local_addr) == 1

async def main():
    await stream(pair())
    await stream(socket_pair())
    await datagrams()

gopoll.run(main)
print("ok")
"""


def test_a_socket_that_somebody_else_has_made_blocking_does_not_block():
    """Lesson 11: the flag belongs to all who share the socket, and in Go the next read hangs."""
    done = run_python(SHARED)
    assert (done.stdout, done.stderr) == ("ok\n", ""), done.stderr
