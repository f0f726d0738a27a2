"""Descriptors that come in: whatever becomes of the operation, they are delivered or closed (X1).

Go: net/unixsock_linux_test.go, row 96; what memory and cancellation do to it is ours.
"""

import array
import contextlib
import importlib.util
import os
import random
import socket

import pytest

import gopoll
from gopoll import Canceled
from helpers.child import open_fds, run_python
from helpers.fds import adopt, message

INT = array.array("i").itemsize
ROOM = socket.CMSG_SPACE(4 * INT)


def passed(ancdata):
    """Return the descriptors in *ancdata*."""
    fds = array.array("i")
    for level, kind, data in ancdata:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data)
    return list(fds)


@pytest.mark.parametrize("how", ["cancel", "deadline", "close"])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_reader_that_is_cut_off_leaves_or_delivers_what_has_come(run, how, kind):
    """Raced with the message: each descriptor is the reader's, or it is still in the socket."""

    async def main():
        number = os.memfd_create("gopoll-test")
        for _ in range(150):
            ours, peer = socket.socketpair(socket.AF_UNIX, kind)
            with peer:
                fd = (adopt if kind == socket.SOCK_STREAM else message)(ours, "unix")
                before = open_fds()
                g = gopoll.go(fd.recvmsg, 9, ROOM)
                for _ in range(random.randrange(3)):
                    await gopoll.gosched()
                socket.send_fds(peer, [b"x"], [number] * 2)
                for _ in range(random.randrange(3)):
                    await gopoll.gosched()
                match how:
                    case "cancel":
                        g.cancel()
                    case "deadline":
                        fd.set_read_deadline(-1)
                    case "close":
                        fd.close()
                try:
                    data, ancdata, _, _ = await g
                    assert data == b"x"
                    assert len(passed(ancdata)) == 2
                    for more in passed(ancdata):
                        os.close(more)
                except (Canceled, TimeoutError, gopoll.ClosedError):
                    if how != "close":
                        assert open_fds() == before
                        fd.set_read_deadline(None)
                        for more in passed((await fd.recvmsg(9, ROOM))[1]):
                            os.close(more)
                if how != "close":
                    fd.close()
            assert not open_fds() - before
        os.close(number)

    run(main)


def test_many_readers_some_cancelled_get_each_descriptor_once(run):
    async def main():
        ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with peer:
            fd, peer = message(ours, "unixgram"), message(peer.dup(), "unixgram")
            number = os.memfd_create("gopoll-test")
            before = open_fds()
            got = 0
            stop = False

            async def reads():
                nonlocal got
                while not stop:
                    with contextlib.suppress(TimeoutError, Canceled):
                        _, ancdata, _, _ = await fd.recvmsg(9, ROOM)
                        fds = passed(ancdata)
                        assert len(fds) == 1
                        os.close(fds[0])
                        got += 1

            async def disturbs():
                while not stop:
                    fd.set_read_timeout(random.random() / 1000)
                    await gopoll.sleep(0)
                    fd.set_read_timeout(None)
                    await gopoll.gosched()

            readers = [gopoll.go(reads) for _ in range(5)]
            disturber = gopoll.go(disturbs)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [number]))]
            for i in range(400):
                await peer.sendmsg([str(i).encode()], rights)
            while got < 400:
                await gopoll.gosched()
            stop = True
            await disturber
            fd.set_read_deadline(-1)
            for g in readers:
                await g
            assert open_fds() == before
            os.close(number)
            fd.close()
            peer.close()

    run(main, procs=1, handoff=False)  # `got` is counted by all of them


NO_MEMORY = """
import _testcapi, gc, os, socket, sys
from gopoll import _fdmsg
from gopoll._fd import FD
from helpers.child import open_fds

number = os.memfd_create("gopoll-test")
ours, peer = socket.socketpair()
ours.setblocking(False)
fd = FD(ours.detach(), "unix")
size = int(sys.argv[1])
outcomes = []
gc.disable()
for start in range(1, 100):
    socket.send_fds(peer, [b"some data"], [number] * 3)
    before = len(open_fds())
    box = [None]

    async def receive(op):
        box[0] = await op                       # which needs no memory of its own

    op = _fdmsg.recvmsg(fd, size, socket.CMSG_SPACE(12))
    coro = receive(op)
    _testcapi.set_nomemory(start, start + 1)    # this one allocation fails
    try:
        coro.send(None)
    except (StopIteration, MemoryError):
        pass
    finally:
        _testcapi.remove_mem_hooks()
    (result,) = box
    del op, coro
    more = len(open_fds()) - before
    if result is not None:
        assert result[0] == b"some data"
        assert more == 3
        for n in memoryview(result[1][0][2]).cast("i"):
            os.close(n)
    outcomes.append("+" if result else "-" if not more else "!")
    try:
        while fd.raw_control(lambda n: os.read(n, 99)):
            pass
    except BlockingIOError:
        pass
fd.close()
peer.close()
print("".join(outcomes))
"""


def has_testcapi():
    return importlib.util.find_spec("_testcapi") is not None


@pytest.mark.skipif(not has_testcapi(), reason="no _testcapi in this Python")
@pytest.mark.parametrize("size", [9, 100_000])
def test_out_of_memory_closes_what_has_come(size):
    """Each allocation fails once, that of the StopIteration that carries the result out too."""
    done = run_python(NO_MEMORY, size)
    assert done.stderr == ""
    outcomes = done.stdout.strip()
    assert outcomes.count("-") > 2, "several allocations of its own have failed"
    assert outcomes.count("+") > 5, "and then some that are not its own"
    assert "!" not in outcomes, "descriptors are lost"
