"""Exclusive listeners, which several processes share: who is told of a connection, and who is not.

L2: in _pollcache; L3: in _fdsock. Go has no EPOLLEXCLUSIVE.
"""

import contextlib
import os
import select
import socket
import subprocess
import sys
import textwrap
import threading

import pytest

import gopoll
from gopoll.errors import Canceled, ClosedError, OpError
from gopoll.net.dial import dial
from gopoll.net.file import from_fd
from gopoll.net.listen import listen
from gopoll.runtime.context import with_cancel
from gopoll.runtime.goroutine import go
from helpers.child import registrations
from net.tools import open_fds, parked
from plugins.guard import wait_until

EPOLLIN, EPOLLOUT, EPOLLET, EPOLLEXCLUSIVE = 0x1, 0x4, 1 << 31, 1 << 28
ALWAYS = 0x18  # ERR and HUP, which the kernel adds


def watched(fd):
    """Return the events that some epoll instance of ours has *fd* registered for; 0 if none has."""
    epolls = [number for number, what in open_fds().items() if what == "anon_inode:[eventpoll]"]
    found = [registrations(number).get(fd) for number in epolls]
    [(events, _)] = [each for each in found if each is not None] or [(0, 0)]
    return events & ~ALWAYS


@pytest.mark.parametrize("network", ["tcp", "unix"])
def test_it_is_watched_while_somebody_waits_for_a_connection(run, network):
    """L2: not for a hang-up, with which the kernel takes no EXCLUSIVE."""

    async def main():
        address = "127.0.0.1:0" if network == "tcp" else ""
        async with await listen(network, address, exclusive=True) as ln:
            fd = ln.fileno()
            for _ in range(2):
                assert not watched(fd)
                g = go(ln.accept)
                await parked(g, reason="accept")
                assert watched(fd) == EPOLLIN | EPOLLOUT | EPOLLET | EPOLLEXCLUSIVE
                async with await dial(network, ln.addr), await g:
                    assert not watched(fd)  # though we have not tried again
            async with await dial(network, ln.addr), await ln.accept():
                assert not watched(fd)

            g = go(ln.accept)
            await parked(g, reason="accept")
            ln.set_timeout(0)
            with pytest.raises(TimeoutError):
                await g
            assert not watched(fd)
            ln.set_timeout(None)

            ctx, cancel = with_cancel(gopoll.current_context())
            g = go(ln.accept, context=ctx)
            await parked(g, reason="accept")
            cancel()
            with pytest.raises(Canceled):
                await g
            assert not watched(fd)

            g = go(ln.accept)
            await parked(g, reason="accept")
            copy = socket.socket(fileno=ln.file())  # else the close alone takes it out
            with copy:
                ln.close()
                with pytest.raises(ClosedError):
                    await g
                assert not watched(fd)

    run(main)


def test_what_the_kernel_will_not_watch_is_an_error_of_accept(run):
    """The same socket is there already: the kernel refuses, and accept says what it said."""

    async def main():
        async with await listen("tcp", "127.0.0.1:0", exclusive=True) as ln:
            [epfd] = [n for n, what in open_fds().items() if what == "anon_inode:[eventpoll]"]
            with select.epoll.fromfd(os.dup(epfd)) as epoll:
                epoll.register(ln.fileno(), 0)
                try:
                    with pytest.raises(
                        OpError, match=r"accept tcp .*: epoll_ctl: file exists"
                    ) as failed:
                        await ln.accept()
                    assert isinstance(failed.value, FileExistsError)
                finally:
                    epoll.unregister(ln.fileno())
            g = go(ln.accept)
            await parked(g, reason="accept")
            async with await dial("tcp", ln.addr), await g:
                pass

    run(main)


# -- several processes -----------------------------------------------------------------------------

WORKER = """
    import os, sys
    import gopoll

    async def echo(conn):
        async with conn:
            while data := await conn.read():
                await conn.write(data)

    async def one_by_one(ln):
        async for conn in ln:  # the next is asked for when this one is done
            await echo(conn)

    async def limited(ln):
        await gopoll.serve(ln, echo, limit=1)

    async def main(fd, how):
        async with gopoll.from_fd(fd, exclusive=True) as ln:
            os.write(1, b"+")
            await how(ln)

    gopoll.run(main, int(sys.argv[1]), globals()[sys.argv[2]])
    """


@contextlib.contextmanager
def workers(shared, number, *args):
    """Start *number* processes that share a listening socket, one after the other."""
    command = [sys.executable, "-c", textwrap.dedent(WORKER), str(shared.fileno()), *args]
    with contextlib.ExitStack() as stack:
        for _ in range(number):
            worker = subprocess.Popen(command, pass_fds=[shared.fileno()], stdout=subprocess.PIPE)
            stack.callback(worker.communicate)
            stack.callback(worker.kill)
            assert worker.stdout.read(1) == b"+"
        yield


def shared_listener(network):
    """Return a listening socket to share."""
    if network == "tcp":
        return socket.create_server(("127.0.0.1", 0), backlog=100)
    s = socket.socket(socket.AF_UNIX)
    s.bind("")
    s.listen(100)
    return s


def ask(shared, text):
    """Connect and have *text* echoed: return the connection, which occupies its worker."""
    s = socket.socket(shared.family)
    try:
        s.settimeout(20)
        s.connect(shared.getsockname())
        s.sendall(text)
        assert s.recv(100) == text
    except BaseException:
        s.close()
        raise
    return s


@pytest.mark.parametrize("network", ["tcp", "unix"])
@pytest.mark.parametrize("how", ["one_by_one", "limited"])
def test_who_is_busy_leaves_the_next_connection_to_the_others(network, how):
    """L2: the first worker in line would be told of every one, and take none of them."""
    with shared_listener(network) as shared, workers(shared, 3, how):
        for _ in range(10):
            with contextlib.ExitStack() as stack:
                for i in range(3):
                    stack.enter_context(ask(shared, b"%d" % i))


@pytest.mark.parametrize("how", ["one_by_one", "limited"])
def test_many_at_once_strand_nobody(how):
    """L3: who has been told of two connections and takes one passes the other on."""
    failed = []

    def client(shared, number):
        try:
            for i in range(10):
                ask(shared, b"%d.%d" % (number, i)).close()
        except BaseException as exc:
            failed.append(exc)

    with shared_listener("tcp") as shared, workers(shared, 2, how):
        threads = [threading.Thread(target=client, args=(shared, n)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []


class Other:
    """An epoll instance as another process has it, with a thread asleep in it."""

    def __init__(self, fd, events):
        self.epoll = select.epoll()
        self.epoll.register(fd, events | EPOLLET | EPOLLEXCLUSIVE)
        self.told = False
        self._end = socket.socketpair()
        self.epoll.register(self._end[0], EPOLLIN)
        self._thread = threading.Thread(target=self._sleep)
        self._thread.start()

    def _sleep(self):
        self.told = all(fd != self._end[0].fileno() for fd, _ in self.epoll.poll())

    def close(self):
        """End the sleep: nobody is told of anything later."""
        self._end[1].close()
        self._thread.join()
        self._end[0].close()
        self.epoll.close()


async def told_of_one_that_nobody_takes(ln, leave):
    """Wait at *ln* while a connection comes that another has been told of; then leave(acceptor).

    Return whether a third has been told after that; None if it did not come about: sleepers have
    to be asleep.
    """
    with contextlib.ExitStack() as stack:
        first = Other(ln.fileno(), EPOLLIN)
        stack.callback(first.close)
        g = go(ln.accept)
        await parked(g, reason="accept")
        third = Other(ln.fileno(), EPOLLIN | EPOLLOUT)
        stack.callback(third.close)
        await gopoll.sleep(0.005)
        with socket.create_connection(ln.addr):
            try:
                async with gopoll.timeout(5):
                    while not (first.told or third.told or g.done):
                        await gopoll.sleep(0.001)
            except gopoll.DeadlineExceeded:
                pass
            lucky = first.told and not third.told and not g.done
            await leave(g)
            try:
                (await g).close()
                lucky = False  # it was told as well
            except (Canceled, OpError):
                pass
            if not lucky:
                return None
            await wait_until(lambda: third.told, seconds=10)
            return True


@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_who_gives_up_passes_on_what_has_come(run, how):
    """L3: he may be the one who has been told of it."""

    async def main():
        async def leave(g):
            if how == "cancel":
                g.cancel()
            else:
                ln.set_timeout(0)

        for _ in range(200):
            async with await listen("tcp", "127.0.0.1:0", exclusive=True) as ln:
                if await told_of_one_that_nobody_takes(ln, leave):
                    return
        raise AssertionError("the first in line was never the one who was told")

    run(main)


AT_THE_LIMIT = """
    import os, resource, sys
    import gopoll

    async def main(fd):
        async with gopoll.from_fd(fd, exclusive=True) as ln:
            os.write(1, b"+")
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, 1024))
            while True:
                try:
                    async with await ln.accept():
                        os.write(1, b"accepted")
                except OSError as exc:
                    assert exc.errno == 24, exc
                    os.write(1, b"-")
                    await gopoll.sleep(3600)

    gopoll.run(main, int(sys.argv[1]))
    """


def test_who_has_no_descriptor_left_passes_the_connection_on():
    """L3: it has been told of the connection, and cannot take it."""
    with shared_listener("tcp") as shared:
        command = [sys.executable, "-c", textwrap.dedent(AT_THE_LIMIT), str(shared.fileno())]
        for _ in range(20):
            poor = subprocess.Popen(command, pass_fds=[shared.fileno()], stdout=subprocess.PIPE)
            try:
                assert poor.stdout.read(1) == b"+"
                with workers(shared, 1, "one_by_one"):
                    ask(shared, b"hello").close()
            finally:
                poor.kill()
                out, _ = poor.communicate()
            assert out in (b"", b"-")
            if out:
                return
    raise AssertionError("the poor one was never told first")


def woken_by_one_connection(exclusive):
    """Return how many of two runs that wait for one listener are told of a connection."""
    told, armed = [], threading.Semaphore(0)

    async def main(shared):
        async with from_fd(os.dup(shared.fileno()), exclusive=exclusive) as ln:
            listeners.append(ln)
            g = go(ln.accept)
            await parked(g, reason="accept")
            armed.release()
            with contextlib.suppress(ClosedError):
                (await g).close()
                done.set()
            told.append(gopoll.stats().events)

    listeners, done = [], threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as shared:
        threads = [threading.Thread(target=gopoll.run, args=(main, shared)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in threads:
            armed.acquire()
        with socket.create_connection(shared.getsockname()):
            assert done.wait(20)
            for ln in listeners:
                ln.close()
            for thread in threads:
                thread.join()
    return sum(told)


def test_of_two_that_wait_one_is_told():
    """Of those that are asleep: one that is on its way to bed is told as well."""
    for wanted, exclusive in ((2, False), (1, True)):
        for _ in range(500):
            if woken_by_one_connection(exclusive) == wanted:
                break
        else:
            raise AssertionError(f"exclusive={exclusive}: never {wanted}")
