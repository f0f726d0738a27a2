"""Operations that run out of memory: each allocation fails once; locks, descriptors and references.

In a process of its own, so that nobody else allocates meanwhile. Descriptors that are passed are in
test_fdmsg_rights.py.
"""

import pytest

from helpers.child import run_python
from test_fdmsg_rights import has_testcapi

pytestmark = pytest.mark.skipif(not has_testcapi(), reason="no _testcapi in this Python")

HEAD = """
import _testcapi, gc, os, socket, sys, tempfile
import gopoll
from gopoll import _fdcopy, _fdmsg
from gopoll._fd import FD
from helpers.child import open_fds
from helpers.fds import AnyFD, adopt, message, pair

def failing(at, op, send=None):
    "Drive *op* until it waits or ends while its allocation number *at* fails: what came of it."
    box = [None]

    async def drive():
        box[0] = await op                           # which needs no memory of its own

    coro = drive()
    _testcapi.set_nomemory(at, at + 1)
    try:
        coro.send(None)
        outcome = "waits"
    except StopIteration:
        outcome = "done"
    except MemoryError:
        outcome = "failed"
    finally:
        _testcapi.remove_mem_hooks()
    coro.close()
    return outcome, box[0]

async def is_free(fd, mode):
    "Whether nobody has the lock of *mode*: an operation that is done on the spot is not queued."
    await gopoll.gosched()                          # a slice has so many of them
    op = (fd.raw_read if mode == "r" else fd.raw_write)(lambda number: True)
    try:
        next(op)
    except StopIteration:
        return True
    op.close()
    return False

gc.disable()
"""

ACCEPT = """
async def main():
    server = socket.create_server(("127.0.0.1", 0))
    address = server.getsockname()
    fd = adopt(server, "tcp")
    outcomes = []
    for at in range(40):
        client = socket.create_connection(address)
        before = len(open_fds())
        outcome, result = failing(at, fd.accept_conn(FD))
        more = len(open_fds()) - before
        if result is not None:
            result.close()
        assert more == (result is not None), (at, outcome, more)
        assert await is_free(fd, "r")
        outcomes.append(outcome)
        client.close()
        try:
            while True:
                with fd.raw_control(lambda n: socket.socket(fileno=os.dup(n))) as copy:
                    copy.setblocking(False)
                    copy.accept()[0].close()
        except BlockingIOError:
            pass
    fd.close()
    assert outcomes.count("failed") > 1 and outcomes.count("done") > 5, outcomes

gopoll.run(main, procs=1, handoff=False)
print("ok")
"""

LOCKS = """
file = tempfile.TemporaryFile()
file.write(b"y" * 1000)
file.flush()

class number:
    "What asks for memory to say which descriptor it is."
    def __init__(self, file):
        self.file = file

    def fileno(self):
        return int(str(self.file.fileno()))

async def main():
    before = len(open_fds())
    for name, (mode, make) in {
        "read": ("r", lambda a, b: a.read(5)),
        "a large read": ("r", lambda a, b: a.read(100_000)),       # one that is cut to size
        "readinto": ("r", lambda a, b: a.readinto(bytearray(5))),
        "write": ("w", lambda a, b: a.write(b"x")),
        "sendfile": ("w", lambda a, b: a.sendfile(file)),
        "sendfile of a part": ("w", lambda a, b: a.sendfile(number(file), 10, 20)),
        "sendfile that moves": ("w", lambda a, b: a.sendfile(file, None, 20)),
        "writev": ("w", lambda a, b: a.writev([b"x"] * 3)),
        "sendmsg": ("w", lambda a, b: a.sendmsg([b"x", b"y"])),
        "recvmsg": ("r", lambda a, b: a.recvmsg(5, 100)),
        "read_from": ("r", lambda a, b: a.read_from(5)),
        "a large read_from": ("r", lambda a, b: a.read_from(100_000)),
        "a large recvmsg": ("r", lambda a, b: a.recvmsg(100_000, 100)),
        "readinto_from": ("r", lambda a, b: a.readinto_from(bytearray(5))),
        "splice, reading": ("r", lambda a, b: b.splice_from(a, 3)),
        "splice, writing": ("w", lambda a, b: a.splice_from(b, 3)),
    }.items():
        failed = 0
        for at in range(30):
            with pair() as (a, b):
                for each in (a, b):
                    await each.write(b"some data")
                file.seek(30)
                op = make(a, b)
                outcome, _ = failing(at, op)
                failed += outcome == "failed"
                assert await is_free(a, mode), (name, at, outcome)   # while op is there still
                del op
                # The pair; and a pipe, which a splice leaves for the next one if it is empty.
                assert len(open_fds()) <= before + 4, (name, at, outcome)
        print(name, failed > 0)

gopoll.run(main, procs=1, handoff=False)
file.close()
"""

NAP = """
async def main():
    failed = waited = 0
    for at in range(30):
        ours, peer = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
        peer.bind("")
        ours.bind("")
        fd, address = message(ours, "unixgram"), os.fsdecode(b"@" + peer.getsockname()[1:])
        full = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        full.setblocking(False)
        try:
            while True:
                full.sendto(b"x", peer.getsockname())
        except BlockingIOError:
            pass
        op = fd.write_to(b"y", address)
        outcome, _ = failing(at, op)                # its receiver is full: it would nap
        failed += outcome == "failed"
        waited += outcome == "waits"
        assert await is_free(fd, "w"), (at, outcome)
        del op
        fd.close()
        peer.close()
        full.close()
    assert failed and waited, (failed, waited)

gopoll.run(main, procs=1, handoff=False)
print("ok")
"""


def test_a_connection_that_nobody_gets_is_closed():
    done = run_python(HEAD + ACCEPT)
    assert (done.stdout, done.stderr) == ("ok\n", "")


def test_the_lock_is_given_back():
    done = run_python(HEAD + LOCKS)
    assert done.stderr == ""
    assert done.stdout.count("True") == 16, done.stdout


def test_the_lock_of_one_that_would_nap_is_given_back():
    done = run_python(HEAD + NAP)
    assert (done.stdout, done.stderr) == ("ok\n", "")
