"""System calls that fail as they hardly ever do: strace makes them, in a child process.

What a call is made to fail with, it has not done. `when=1..3` is the first three calls of it on a
thread: hence handoff=False, which keeps everything on one.
"""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent

HEAD = """
import errno, os, sys
import gopoll
from gopoll import OpError

def open_fds():
    return sorted(os.listdir("/proc/self/fd"))

async def session(listener):
    '''Connect, say something each way, half-close, and read the end.'''
    async with await gopoll.dial("tcp", listener.addr) as a, await listener.accept() as b:
        await a.write(b"there")
        assert await b.read() == b"there"
        await b.write(b"back")
        assert await a.read() == b"back"
        a.close_write()
        assert await b.read() == b""

async def failure(awaitable):
    try:
        result = await awaitable
    except OpError as exc:
        return exc
    raise AssertionError(f"no error but {result!r}")
"""


@pytest.fixture
def inject(tmp_path):
    """Return a function that runs a program while system calls fail; `call:error=...:when=...`."""
    if shutil.which("strace") is None:
        pytest.skip("no strace on this machine")
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-qq", "-o", str(trace)]
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("strace may not trace here")

    def run(faults, code):
        calls = ",".join(fault.split(":")[0] for fault in faults)
        command.append(f"--trace={calls}")
        command.extend(f"--inject={fault}" for fault in faults)
        done = subprocess.run(
            [*command, sys.executable, "-W", "error", "-c", HEAD + textwrap.dedent(code)],
            env={**os.environ, "PYTHONPATH": str(TESTS)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.stdout, done.stderr) == ("ok\n", ""), done.stderr
        return trace.read_text().count("(INJECTED)")

    return run


@pytest.mark.parametrize(
    ("fault", "times"),
    [
        ("accept4:error=ECONNABORTED:when=1..3", 3),
        ("accept4:error=EINTR:when=1..3", 3),
        ("recvfrom:error=EINTR:when=1..5", 5),
        ("recvfrom:error=EAGAIN:when=1", 1),
        ("sendto:error=EINTR:when=1..5", 5),
        ("epoll_wait:error=EINTR:when=1..3", 3),
    ],
)
def test_what_goes_by_itself_is_hidden(inject, fault, times):
    """Row 55: a connection that was aborted in the queue is not shown; nor is an interruption."""
    code = """
    async def main():
        async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
            for _ in range(3):
                g = gopoll.go(listener.accept)
                conn = await gopoll.dial("tcp", listener.addr)
                peer = await g
                g = gopoll.go(peer.read)
                await gopoll.gosched()
                await conn.write(b"x")
                assert await g == b"x"
                conn.close()
                peer.close()
                await session(listener)
    gopoll.run(main, handoff=False)
    print("ok")
    """
    assert inject([fault], code) >= times  # sysmon polls as well


def test_a_connection_that_cannot_be_registered_is_closed_and_the_listener_stays(inject):
    """Go issue 34392: it closed the listener."""
    code = """
    import socket
    async def main():
        async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
            with socket.create_connection(listener.addr) as client:
                before = open_fds()
                err = await failure(listener.accept())
                assert "accept tcp %s:%d: no space left" % listener.addr in str(err), err
                assert (err.source, err.addr) == (None, listener.addr)
                assert open_fds() == before
                assert client.recv(1) == b""
            await session(listener)
    gopoll.run(main, handoff=False)
    print("ok")
    """
    # After those of the eventfd, the signals' socket and the listener.
    assert inject(["epoll_ctl:error=ENOSPC:when=4"], code) == 1


@pytest.mark.parametrize("call", ["recvfrom", "recvmsg", "sendto", "sendmsg"])
def test_interrupted_messages_and_vectors_are_tried_again(inject, call):
    code = """
    async def main():
        a = await gopoll.listen_packet("udp", "127.0.0.1:0")
        b = await gopoll.listen_packet("udp", "127.0.0.1:0")
        async with a, b:
            async def send():
                await a.write_to(b"1", b.local_addr)
                await a.sendmsg([b"2", b"3"], addr=b.local_addr)

            b.set_timeout(20)
            g = gopoll.go(send)
            assert await b.read_from(9) == (b"1", a.local_addr)
            assert (await b.recvmsg(9))[0] == b"23"
            await g
            buffer = bytearray(9)
            g = gopoll.go(b.readinto_from, buffer)
            await gopoll.gosched()
            await a.write_to(b"4", b.local_addr)
            assert await g == (1, a.local_addr)
        async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
            async with await gopoll.dial("tcp", listener.addr) as c, await listener.accept() as d:
                assert await c.writev([b"here", b"after"]) == 9
                assert await d.read() == b"hereafter"
            await session(listener)
    gopoll.run(main, handoff=False)
    print("ok")
    """
    assert inject([f"{call}:error=EINTR:when=1..3"], code) == 3


@pytest.mark.parametrize(
    "fault",
    ["recvfrom:error=EAGAIN:when=1", "sendto:error=EAGAIN:when=1", "accept4:error=EAGAIN:when=1"],
)
def test_an_edge_that_was_taken_back_is_waited_for_until_the_deadline(inject, fault):
    """The kernel says that there is nothing although it has said that there is something: that is
    not an error, and who then waits still has a deadline.
    """
    code = """
    async def main():
        async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
            listener.set_deadline(0)
            listener.set_deadline(None)
            async with await gopoll.dial("tcp", listener.addr) as a:
                b = None
                while b is None:
                    listener.set_timeout(0.05)
                    try:
                        b = await listener.accept()
                    except TimeoutError as exc:
                        assert isinstance(exc, OpError)
                for conn, op in ((a, lambda: a.write(b"x")), (b, b.read)):
                    conn.set_timeout(0.05)
                    try:
                        await op()
                    except TimeoutError as exc:
                        assert isinstance(exc, OpError)
                        conn.set_timeout(20)
                        await op()
                await b.close()
    gopoll.run(main, handoff=False)
    print("ok")
    """
    assert inject([fault], code) == 1


@pytest.mark.parametrize(
    ("fault", "name", "where"),
    [
        ("socket:error=EMFILE:when=2", "EMFILE", "dial"),
        ("socket:error=ENFILE:when=2", "ENFILE", "dial"),
        ("socket:error=ENOBUFS:when=2", "ENOBUFS", "dial"),
        ("connect:error=ENETUNREACH:when=1", "ENETUNREACH", "dial"),
        ("connect:error=EACCES:when=1", "EACCES", "dial"),
        ("connect:error=EADDRNOTAVAIL:when=1..3", "EADDRNOTAVAIL", "dial"),
        ("accept4:error=EMFILE:when=1", "EMFILE", "accept"),
        ("accept4:error=ENOMEM:when=1", "ENOMEM", "accept"),
        ("accept4:error=EPERM:when=1", "EPERM", "accept"),
        ("recvfrom:error=EIO:when=1", "EIO", "read"),
        ("recvfrom:error=ETIMEDOUT:when=1", "ETIMEDOUT", "read"),
        ("sendto:error=ENOBUFS:when=1", "ENOBUFS", "write"),
        ("sendto:error=EHOSTUNREACH:when=1", "EHOSTUNREACH", "write"),
        ("shutdown:error=ENOTCONN:when=1", "ENOTCONN", "close"),
    ],
)
def test_what_fails_is_an_error_of_ours_and_the_next_call_works(inject, fault, name, where):
    code = f"""
    def check(exc):
        assert exc.errno == errno.{name}, exc
        assert isinstance(exc, type(OSError(errno.{name}, ""))), exc
        assert exc.op == "{where}", exc
        assert exc.net == "tcp", exc
        failed.append(exc)

    failed = []

    async def main():
        async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
            async def attempt(start):
                '''One that fails leaves nothing open and may be made again.'''
                before = open_fds()
                try:
                    return await start()
                except OpError as exc:
                    check(exc)
                    assert open_fds() == before
                    return await start()

            a = await attempt(lambda: gopoll.dial("tcp", listener.addr))
            b = await attempt(listener.accept)
            assert await attempt(lambda: a.write(b"x")) == 1
            assert await attempt(b.read) == b"x"
            for _ in range(2):
                try:
                    a.close_write()
                except OpError as exc:
                    check(exc)
            assert await b.read() == b""
            await a.close()
            await b.close()
            assert len(failed) == 1, failed
            await session(listener)
    gopoll.run(main, handoff=False)
    print("ok")
    """
    assert inject([fault], code) == (3 if "1..3" in fault else 1)


@pytest.mark.parametrize("network", ["udp", "unixgram"])
@pytest.mark.parametrize("call", ["sendto", "sendmsg"])
def test_a_message_without_a_buffer_for_it_is_an_error_and_the_next_one_leaves(
    inject, tmp_path, network, call
):
    """ENOBUFS is no EAGAIN: nobody says when there is room again, so nobody waits for it."""
    here, there = "127.0.0.1:0", "127.0.0.1:0"
    if network == "unixgram":
        here, there = str(tmp_path / "here"), str(tmp_path / "there")
    code = f"""
    def sendto(a, b, to_b):
        return lambda: a.write_to(b"one", b.local_addr), lambda: to_b.write(b"one")

    def sendmsg(a, b, to_b):
        return lambda: a.sendmsg([b"o", b"ne"], addr=b.local_addr), lambda: to_b.sendmsg([b"one"])

    async def main():
        a = await gopoll.listen_packet("{network}", "{here}")
        b = await gopoll.listen_packet("{network}", "{there}")
        async with a, b, await gopoll.dial("{network}", b.local_addr) as to_b:
            for conn in (a, b, to_b):
                conn.set_timeout(20)
            for message in {call}(a, b, to_b):
                exc = await failure(message())
                assert exc.errno == errno.ENOBUFS, exc
                assert (exc.op, exc.net) == ("write", "{network}"), exc
                assert await message() == 3
                assert (await b.read_from(9))[0] == b"one"
    gopoll.run(main, handoff=False)
    print("ok")
    """
    assert inject([f"{call}:error=ENOBUFS:when=1+2"], code) == 2


@pytest.mark.parametrize("nth", range(3, 6))
@pytest.mark.parametrize("error", ["ENOSPC", "ENOMEM"])
def test_a_descriptor_that_epoll_refuses_is_closed_again(inject, error, nth):
    """The first two registrations are the runtime's own."""
    code = f"""
    async def once():
        async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
            await session(listener)

    async def main():
        before, failures, registered = None, 0, gopoll.stats().descriptors
        for _ in range(4):
            try:
                await once()
            except OpError as exc:
                assert exc.errno == errno.{error}, exc
                failures += 1
            if before is not None:
                assert open_fds() == before
            before = open_fds()
        assert failures == 1, failures
        assert gopoll.stats().descriptors == registered
    gopoll.run(main, handoff=False)
    print("ok")
    """
    assert inject([f"epoll_ctl:error={error}:when={nth}"], code) == 1


@pytest.mark.parametrize("fault", ["recvfrom:error=EINTR:when=2", "sendto:error=EINTR:when=2"])
def test_interrupted_calls_of_the_asyncio_loop_are_made_again(inject, fault):
    """Its edge has been told already: who waited for the next one waited for good."""
    code = """
    import asyncio, socket
    from gopoll.embed import aio

    async def main():
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, listener.getsockname())
            peer, _ = listener.accept()
            with peer:
                reads = loop.create_task(loop.sock_recv(client, 1))
                await asyncio.sleep(0)
                peer.send(b"ab")
                assert await reads == b"a"
                assert await loop.sock_recv(client, 1) == b"b"
                transport, _ = await loop.create_connection(asyncio.Protocol, sock=client)
                for _ in range(3):
                    await asyncio.sleep(0)
                transport.write(b"back")
                peer.setblocking(False)
                assert await loop.sock_recv(peer, 9) == b"back"
                transport.close()
                await asyncio.sleep(0)

    aio.run(asyncio.wait_for(main(), 10))
    print("ok")
    """
    assert inject([fault], code) == 1
