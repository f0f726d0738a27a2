"""A server that has no descriptor left: what it accepts meanwhile waits, and then is served.

In a child, whose limit of open files is lowered.
"""

from helpers.child import run_python

SERVER = """
import errno, os, resource
import gopoll
from gopoll import OpError
from net.tools import parked

ROOM = 20
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

async def echo(conn):
    async with conn:
        while data := await conn.read():
            await conn.write(data)

async def serve(listener, refused, retry):
    '''Accept for ever; at the limit say so and wait for the word to go on.'''
    while True:
        try:
            conn = await listener.accept()
        except gopoll.ClosedError:
            return
        except OpError as exc:
            assert exc.is_temporary
            assert not exc.is_timeout
            assert isinstance(exc, OSError)
            await refused.send(exc)
            await retry.recv()
        else:
            gopoll.go(echo, conn)
            del conn

async def say(conn, text):
    await conn.write(text)
    assert await conn.read() == text

async def main(procs):
    refused, retry = gopoll.Chan(), gopoll.Chan()
    async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
        # Two descriptors a connection: the limit is met when one more dial has been answered.
        lowest = os.dup(0)
        os.close(lowest)
        limit = lowest + 2 * ROOM + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        serving = gopoll.go(serve, listener, refused, retry)
        clients = []
        for i in range(ROOM):
            clients.append(await gopoll.dial("tcp", listener.addr))
            await say(clients[-1], b"before")
        for round in range(5):
            waiting = await gopoll.dial("tcp", listener.addr)
            error = await refused.recv()
            assert error.errno == errno.EMFILE
            said = f"accept tcp 127.0.0.1:{listener.addr[1]}: accept4: too many open files "
            assert str(error) == f"{said}(limit {limit}; raise RLIMIT_NOFILE)", error
            try:
                await gopoll.dial("tcp", listener.addr)
            except OpError as exc:
                assert exc.errno == errno.EMFILE
                assert "raise RLIMIT_NOFILE" in str(exc), exc
                assert exc.op == "dial"
            else:
                raise AssertionError("there was a descriptor left")
            for conn in clients:
                await say(conn, b"meanwhile")
            leaving = clients.pop(round)
            await waiting.write(b"x")
            leaving.close_write()
            assert await leaving.read() == b""
            await leaving.close()
            await retry.send(None)
            assert await waiting.read() == b"x"
            await say(waiting, b"after")
            clients.append(waiting)
        for conn in clients:
            await conn.close()
    await serving

for procs in (1, 2):
    gopoll.run(main, procs, procs=procs)
print("ok")
"""


def test_accept_at_the_limit_fails_for_a_while_and_recovers():
    done = run_python(SERVER)
    assert (done.stdout, done.stderr) == ("ok\n", ""), done.stderr
