"""Raw access: system calls of one's own, with the connection's waiting and deadlines."""

import errno
import os
import socket

import pytest

import gopoll
from gopoll.errors import ClosedError, OpError
from gopoll.net.file import open_fd
from gopoll.runtime.goroutine import go
from net.tools import local_listener, pair, parked, unix_pair


@pytest.fixture(params=["tcp", "unix"])
def ends(request):
    return {"tcp": pair, "unix": unix_pair}[request.param]


def receiver(into):
    """Return a function for raw_read that reads once into a list."""

    def receive(fd):
        try:
            into.append(os.read(fd, 100))
        except BlockingIOError:
            return False
        return True

    return receive


def test_a_raw_read_waits_until_the_function_is_content(run, ends):
    """Row 86."""

    async def main():
        async with ends() as (a, b):
            got = []
            g = go(b.raw_read, receiver(got))
            await parked(g, reason="raw-read")
            assert got == []
            await a.raw_write(lambda fd: os.write(fd, b"raw"))
            await g
            assert got == [b"raw"]
            await a.write(b"cooked")
            assert await b.read() == b"cooked"

    run(main)


def test_raw_access_keeps_the_deadlines(run, ends):
    """Row 86: one that has passed is told before the function is called."""

    async def main():
        async with ends() as (a, _):
            calls = []
            a.set_deadline(0)
            for op, call in (("raw-read", a.raw_read), ("raw-write", a.raw_write)):
                with pytest.raises(TimeoutError, match=rf"^{op} {a.network} .*: i/o timeout$"):
                    await call(calls.append)
            assert calls == []
            a.set_read_timeout(0.01)
            with pytest.raises(TimeoutError):
                await a.raw_read(calls.append)
            assert calls  # and None is not content

    run(main)


def test_raw_access_ends_with_the_connection(run, ends):
    """Rows 86 and 87."""

    async def main():
        async with ends() as (a, _):
            g = go(a.raw_read, lambda fd: False)
            await parked(g, reason="raw-read")
            a.close()
            with pytest.raises(ClosedError, match=rf"^raw-read {a.network}.*: use of closed netw"):
                await g
            for call in (a.raw_read, a.raw_write):
                with pytest.raises(ClosedError):
                    await call(lambda fd: True)
            with pytest.raises(ClosedError, match=r"^raw-control"):
                a.raw_control(print)

    run(main)


def test_what_the_function_raises_comes_out(run, ends):
    async def main():
        async with ends() as (a, b):
            with pytest.raises(ZeroDivisionError):
                await a.raw_read(lambda fd: 1 / 0)
            await b.write(b"x")
            assert await a.read() == b"x"  # the lock is free again

    run(main)


def test_a_listener_has_nothing_to_read_or_write(run):
    """Row 86: the function is not called; raw_control works."""

    async def main():
        async with local_listener() as ln:
            calls = []
            for op, call in (("raw-read", ln.raw_read), ("raw-write", ln.raw_write)):
                with pytest.raises(OpError) as caught:
                    await call(calls.append)
                assert caught.value.errno == errno.EINVAL
                assert str(caught.value) == f"{op} tcp 127.0.0.1:{ln.addr[1]}: invalid argument"
            assert calls == []
            ln.raw_control(calls.append)
            assert calls == [ln.fileno()]

    run(main)


def test_a_connection_can_be_looked_at_without_reading(run):
    """What pools ask: is there data, or the end?"""

    async def main():
        def peek(fd):
            with socket.socket(fileno=os.dup(fd)) as s:
                try:
                    seen.append(s.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
                except BlockingIOError:
                    return False
            return True

        seen = []
        async with pair() as (a, b):
            g = go(b.raw_read, peek)
            await parked(g, reason="raw-read")
            await a.write(b"data")
            await g
            assert seen == [b"d"]
            assert await b.read() == b"data"
            a.close()
            await b.raw_read(peek)
            assert seen == [b"d", b""]

    run(main)


def test_a_pipe_has_raw_access_too(run):
    async def main():
        r, w = os.pipe()
        async with open_fd(r) as reader, open_fd(w) as writer:
            got = []
            g = go(reader.raw_read, receiver(got))
            await parked(g, reason="raw-read")
            await writer.raw_write(lambda fd: os.write(fd, b"x"))
            await g
            assert got == [b"x"]
            assert isinstance(reader, gopoll.Conn)

    run(main)
