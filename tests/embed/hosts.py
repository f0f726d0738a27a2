"""One face for asyncio, uvloop and trio, so that a test of attach() is written once.

Called by tests/embed, on the main thread. A host that is not installed skips its tests.
"""

from __future__ import annotations

import asyncio
import importlib
import threading

import pytest

import gopoll
from gopoll.embed import Host


def need(name):
    """Return the module *name*, or skip."""
    try:
        return importlib.import_module(name)
    except ImportError:
        pytest.skip(f"{name} is not installed (pip install {name})")


def _warm_up():
    """Have libuv make the pipe that it keeps for good: it is no leak of a test's."""
    try:
        importlib.import_module("uvloop").new_event_loop().close()
    except ImportError:
        pass


_warm_up()


class Recorder(Host):
    """A host that is driven by hand, and whose futures are lists."""

    def __init__(self):
        self.calls = []

    def watch(self, fd, callback):
        self.calls.append(("watch", fd))
        self.callback = callback

    def unwatch(self, fd):
        self.calls.append(("unwatch", fd))

    def make_future(self):
        how = []
        return Steps(how), how.append, how.append


class Steps:
    """What a task of a Recorder waits in: until there is something in *how*."""

    def __init__(self, how):
        self.how = how

    def __await__(self):
        while not self.how:
            yield "the host's own"
        if isinstance(self.how[0], BaseException):
            raise self.how[0]


async def call(fn, args):
    """Make a coroutine of what may return an operation only."""
    return await fn(*args)


class AioTask:
    """A task that has been started; see TrioTask."""

    def __init__(self, fn, args):
        self.task = asyncio.get_running_loop().create_task(call(fn, args))

    def cancel(self):
        self.task.cancel()

    @property
    def done(self):
        return self.task.done()

    async def outcome(self):
        """Wait for the end: the result, the exception, or "cancelled"."""
        await asyncio.wait([self.task])
        if self.task.cancelled():
            return "cancelled"
        return self.task.exception() or self.task.result()


class Aio:
    """asyncio."""

    Cancelled = asyncio.CancelledError
    foreign = r"goroutine awaited .* another event loop"  # the error of sleep() in a goroutine

    def __init__(self, name):
        self.name = name
        self.module = need(name)

    def attach(self):
        from gopoll.embed import aio

        return aio.attach()

    def run(self, main):
        with asyncio.Runner(loop_factory=self.module.new_event_loop) as runner:
            return runner.run(main())

    def start(self, fn, *args):
        return AioTask(fn, args)

    def time_limit(self, seconds):
        return asyncio.timeout(seconds)

    async def turn(self):
        await asyncio.sleep(0)

    async def sleep(self, seconds):
        await asyncio.sleep(seconds)


class TrioTask:
    """A task that has been started. Its errors do not end the others."""

    def __init__(self, trio, nursery, fn, args):
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.how = None
        nursery.start_soon(self.run, fn, args)

    async def run(self, fn, args):
        try:
            with self.scope:
                self.how = await fn(*args)
            if self.scope.cancelled_caught:
                self.how = "cancelled"
        except Exception as exc:
            self.how = exc
        finally:
            self.ended.set()

    def cancel(self):
        self.scope.cancel()

    @property
    def done(self):
        return self.ended.is_set()

    async def outcome(self):
        await self.ended.wait()
        return self.how


class TimeLimit:
    """trio.fail_after, as an async context manager that raises TimeoutError."""

    def __init__(self, trio, seconds):
        self.trio = trio
        self.block = trio.fail_after(seconds)

    async def __aenter__(self):
        self.block.__enter__()

    async def __aexit__(self, *exc):
        try:
            return self.block.__exit__(*exc)
        except self.trio.TooSlowError as error:
            raise TimeoutError from error


class Trio:
    """trio."""

    foreign = "must be called from async context"  # trio.sleep() wants to know its task

    def __init__(self, name):
        self.name = name
        self.trio = need(name)
        self.Cancelled = self.trio.Cancelled

    def attach(self):
        from gopoll.embed import trio

        return trio.attach()

    def run(self, main):
        async def outer():
            async with self.trio.open_nursery() as self.nursery:
                result = await main()
                self.nursery.cancel_scope.cancel()
            return result

        try:
            return self.trio.run(outer)
        except BaseExceptionGroup as group:
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from None
            raise

    def start(self, fn, *args):
        return TrioTask(self.trio, self.nursery, fn, args)

    def time_limit(self, seconds):
        return TimeLimit(self.trio, seconds)

    async def turn(self):
        await self.trio.lowlevel.checkpoint()

    async def sleep(self, seconds):
        await self.trio.sleep(seconds)


KINDS = {"asyncio": Aio, "uvloop": Aio, "gopoll.embed.aio": Aio, "trio": Trio}


@pytest.fixture(params=KINDS)
def host(request):
    return KINDS[request.param](request.param)


def attached(host, main):
    """Run main(guest) in *host* with gopoll attached; count the goroutines that it leaves."""

    async def body():
        async with host.attach() as guest:
            return await main(guest)

    return host.run(body)


async def until(host, condition):
    """Let the host run until *condition* holds."""
    async with host.time_limit(20):
        while not condition():
            await host.turn()


async def waiting(host, guest, n):
    """Let the host run until *n* operations wait in its tasks."""
    await until(host, lambda: guest._sched.link.waiting == n)


async def ended(host, *goroutines):
    """Let the host run until *goroutines* have ended."""
    await until(host, lambda: all(g.done for g in goroutines))


async def parked(host, *goroutines):
    """Let the host run until *goroutines* wait."""
    await until(host, lambda: all(g.state == "waiting" for g in goroutines))


async def pair():
    """Return two ends of a TCP connection."""
    async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
        a = await gopoll.dial("tcp", listener.addr)
        return a, await listener.accept()


async def echo(conn):
    """Send back what comes, to the end."""
    async with conn:
        while data := await conn.read():
            await conn.write(data)


async def echo_all(listener):
    """Serve each connection in a goroutine."""
    async for conn in listener:
        gopoll.go(echo, conn)


async def talk(addr, messages):
    """Have *messages* echoed; return how many were right."""
    right = 0
    async with await gopoll.dial("tcp", addr) as conn:
        for n in range(messages):
            await conn.write(b"%d" % n)
            right += await conn.read() == b"%d" % n
    return right


def in_thread(fn, *args):
    thread = threading.Thread(target=fn, args=args)
    thread.start()
    return thread


async def receive(chan):
    return await chan.recv()
