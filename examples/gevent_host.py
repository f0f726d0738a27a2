"""A host for gopoll: gevent. Goroutines run in its hub, greenlets wait for them. Try it: run it."""

import sys

import gevent
from gevent.event import AsyncResult
from gevent.hub import get_hub

import gopoll
from gopoll.embed import Guest, Host


class Gevent(Host):
    def watch(self, fd, callback):
        self.watcher = get_hub().loop.io(fd, 1)  # 1: for reading
        self.watcher.start(callback)

    def unwatch(self, fd):
        self.watcher.stop()
        self.watcher.close()

    def make_future(self):
        result = AsyncResult()
        return Future(result), result.set, result.set_exception


class Future:
    """What a greenlet waits in. The protocol between this and wait() is our own."""

    def __init__(self, result):
        self.result = result

    def __await__(self):
        return (yield self.result)


def wait(awaitable):
    """Wait in a greenlet for whatever gopoll has to await; the other greenlets go on."""
    steps = awaitable.__await__()
    try:
        result = next(steps)
        while True:
            try:
                value = result.get()
            except BaseException as error:  # a kill or a gevent.Timeout too: it is taken back
                result = steps.throw(error)
            else:
                result = steps.send(value)
    except StopIteration as stop:
        return stop.value


async def echo(conn):
    async with conn:
        while data := await conn.read():
            await conn.write(data)


async def serve(listener):
    async for conn in listener:
        gopoll.go(echo, conn)


def client(address, n):
    conn = wait(gopoll.dial("tcp", address))
    wait(conn.write(b"hello from greenlet %d" % n))
    print(wait(conn.read()).decode())
    wait(conn.close())


def main(clients=3):
    with Guest(Gevent()):
        listener = wait(gopoll.listen("tcp", "127.0.0.1:0"))
        server = gopoll.go(serve, listener)
        gevent.joinall([gevent.spawn(client, listener.addr, n) for n in range(clients)])
        listener.close()
        wait(server)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
