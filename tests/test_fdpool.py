"""K3: an operation that is used again is as new, is nobody else's, and has kept nothing alive."""

import functools
import gc
import os
import sysconfig
import warnings
import weakref

import pytest

import gopoll
from helpers.child import run_python
from helpers.fds import AnyFD
from net.tools import BIG, pair, parked

GIL = not sysconfig.get_config_var("Py_GIL_DISABLED")  # what the C asks


class FileFD(AnyFD):
    """A pipe's end, with a place for what a test wants to happen at its end."""

    at_end = None

    def __del__(self):
        if self.at_end is not None:
            self.at_end()


def pipe(poller):
    ends = []
    for end in os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC):
        fd = FileFD(end, "pipe", file=True)
        fd.init(poller)
        ends.append(fd)
    return ends


@pytest.fixture
def poller():
    poller = gopoll.Poller()
    yield poller
    poller.close()


def made(fd, kind):
    return {
        "read": lambda: fd.read(1),
        "readinto": lambda: fd.readinto(bytearray(1)),
        "write": lambda: fd.write(b"x"),
    }[kind]()


KINDS = ["read", "readinto", "write"]


@pytest.mark.skipif(not GIL, reason="nothing is kept without a GIL")
@pytest.mark.parametrize("kind", KINDS)
def test_one_that_has_ended_is_used_again(poller, kind):
    reader, writer = pipe(poller)
    op = made(reader, kind)
    number = id(op)
    op.close()
    del op
    again = made(reader, kind)
    assert id(again) == number
    assert gc.is_tracked(again)
    again.close()
    for fd in (reader, writer):
        fd.close()


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_nobody_has_awaited_is_not(poller, kind):
    reader, writer = pipe(poller)
    for _ in range(3):
        with pytest.warns(RuntimeWarning, match="was never awaited"):
            made(reader, kind)
    op = made(reader, kind)
    op.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del op
    for fd in (reader, writer):
        fd.close()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_kept_keeps_nothing(poller, kind):
    reader, writer = pipe(poller)
    buffer = bytearray(3)
    op = reader.read(3) if kind == "read" else getattr(reader, kind)(buffer)
    op.close()
    reader.close()
    gone = weakref.ref(reader)
    del reader, op
    assert gone() is None
    buffer.extend(b"exported buffers cannot grow")
    writer.close()


@pytest.mark.parametrize("kind", ["readinto", "write"])
def test_one_that_is_refused_gives_its_buffer_back(run, kind):
    """On a closed connection, at once and out of the queue for its lock."""

    async def main():
        async with pair() as (conn, _):
            first = gopoll.go(
                conn.read if kind == "readinto" else functools.partial(conn.write, BIG)
            )
            await parked(first)
            buffers = [bytearray(3), bytearray(3)]
            queued = gopoll.go(getattr(conn, kind), buffers[0])
            await parked(queued)
            conn.close()
            for op in (first, queued, getattr(conn, kind)(buffers[1])):
                with pytest.raises(gopoll.ClosedError):
                    await op
            del op, queued
            for buffer in buffers:
                buffer.extend(b"exported buffers cannot grow")

    run(main)


FORKED = """
import os, sys
import gopoll
from net.tools import pair

async def main():
    async with pair() as (conn, _):
        buffer = bytearray(3)
        pid = os.fork()
        if pid == 0:
            try:
                next(getattr(conn, sys.argv[1])(buffer))
            except gopoll.ForkedError:
                buffer.extend(b"exported buffers cannot grow")
                os._exit(0)
            os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0

gopoll.run(main, handoff=False)
print("ok")
"""


@pytest.mark.parametrize("kind", ["readinto", "write"])
def test_one_that_is_refused_in_a_child_gives_its_buffer_back(kind):
    done = run_python(FORKED, kind)
    assert done.stdout == "ok\n", done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_program_does_while_one_is_put_away(poller, kind):
    """Its descriptor goes, and whatever a program does then may need the whole shelf."""
    reader, writer = pipe(poller)
    other = pipe(poller)

    def use_many():
        ops = [made(other[0], kind) for _ in range(100)]
        for op in ops:
            op.close()

    reader.at_end = use_many
    op = made(reader, kind)
    op.close()
    reader.close()
    del reader, op
    ops = [made(other[0], kind) for _ in range(200)]
    assert len({id(op) for op in ops}) == 200
    for op in ops:
        op.close()
    for fd in (writer, *other):
        fd.close()


@pytest.mark.parametrize("procs", [1, 4])
def test_one_goroutine_after_another_has_the_same_operation(run, procs):
    """What the first has left in it (who awaits it, its phase, its count) is gone."""

    async def main():
        async with pair() as (conn, peer):
            for n in range(1, 50):
                wrote = await gopoll.go(peer.write, bytes(n))
                assert wrote == n
                assert await gopoll.go(conn.read, 100) == bytes(n)
                assert await gopoll.go(peer.write, bytes(n)) == n
                buffer = bytearray(100)
                assert await gopoll.go(conn.readinto, buffer) == n

    run(main, procs=procs)


def test_one_that_was_cancelled_or_failed_is_as_new_again(run):
    async def main():
        async with pair() as (conn, peer):
            for _ in range(50):
                g = gopoll.go(conn.read, 1)
                await gopoll.gosched()
                g.cancel()
                with pytest.raises(gopoll.Canceled):
                    await g
                conn.set_read_timeout(0)
                with pytest.raises(TimeoutError):
                    await conn.read(1)
                conn.set_read_timeout(None)
                await peer.write(b"a")
                assert await conn.read(1) == b"a"

    run(main)
