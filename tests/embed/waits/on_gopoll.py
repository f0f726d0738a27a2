"""gopoll's connections, in goroutines and in tasks of hosts. See base.py."""

import contextlib
import time

import gopoll
from embed.hosts import KINDS
from embed.waits.base import Lib


class Gopoll(Lib):
    """Goroutines."""

    Cancelled = gopoll.Canceled

    def run(self, main, *args):
        return gopoll.run(main, *args)

    def start(self, fn, *args):
        return gopoll.go(fn, *args)

    def is_done(self, task):
        return task.done

    def cancel(self, task):
        task.cancel()

    async def turn(self):
        await gopoll.sleep(0.0005)

    async def parked(self, wait):
        await self.until(lambda: wait.done or wait.task.state == "waiting")

    @contextlib.asynccontextmanager
    async def limit(self, seconds):
        async with gopoll.timeout(seconds):
            yield

    async def wrap(self, sock):
        return gopoll.from_socket(sock)

    async def read(self, conn):
        return await conn.read()

    async def write(self, conn, data):
        return await conn.write(data)

    async def close(self, conn):
        conn.close()

    def set_deadline(self, conn, seconds):
        conn.set_deadline(None if seconds is None else time.monotonic() + seconds)
        return True

    async def listen(self, sock):
        return gopoll.from_socket(sock)

    async def accept(self, listener):
        return await listener.accept()

    def fileno(self, it):
        return it.fileno()

    async def dial(self, handle, addr, deadline):
        return await gopoll.dial("tcp", addr, **deadline)


@contextlib.asynccontextmanager
async def trio_limit(trio, seconds):
    """trio's scope of so many seconds, as an async context manager."""
    with trio.fail_after(seconds):
        yield


class InHost(Gopoll):
    """Tasks of the host *name*, see embed.hosts."""

    def __init__(self, name):
        super().__init__()
        self.host = KINDS[name](name)
        self.Cancelled = self.host.Cancelled

    def run(self, main, *args):
        async def body():
            async with self.host.attach():
                return await main(*args)

        return self.host.run(body)

    def start(self, fn, *args):
        return self.host.start(fn, *args)

    async def turn(self):
        await self.host.turn()

    async def parked(self, wait):
        await self.turns()

    def limit(self, seconds):
        if self.host.name == "trio":
            return trio_limit(self.host.trio, seconds)
        return self.host.time_limit(seconds)
