"""gevent's own waits: gevent.socket, without a patch of the standard library. See base.py.

A greenlet runs a coroutine that never suspends: what it calls switches to the hub instead.
"""

import contextlib
import importlib

from embed.waits.base import Lib

gevent = importlib.import_module("gevent")  # not in the extra: who lacks it skips
importlib.import_module("gevent.socket")


def drive(coroutine):
    """Run *coroutine* to its end in this greenlet."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise RuntimeError("it waits for something that is not gevent's")


class Gevent(Lib):
    """gevent.socket."""

    Cancelled = gevent.GreenletExit
    dial_closes = True

    def run(self, main, *args):
        return drive(main(*args))

    def start(self, fn, *args):
        return gevent.spawn(drive, fn(*args))

    def is_done(self, greenlet):
        return greenlet.ready()

    def cancel(self, greenlet):
        greenlet.kill(block=False)

    async def turn(self):
        gevent.sleep(0.0005)  # a turn of the hub, where sleep(0) may be none

    @contextlib.asynccontextmanager
    async def limit(self, seconds):
        with gevent.Timeout(seconds):
            yield

    async def wrap(self, sock):
        return gevent.socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach())

    async def read(self, sock):
        return sock.recv(1 << 16)

    async def write(self, sock, data):
        return sock.sendall(data)

    async def close(self, sock):
        sock.close()

    def set_deadline(self, sock, seconds):
        sock.settimeout(seconds)
        return True

    listen = wrap

    async def accept(self, listener):
        return listener.accept()[0]

    def fileno(self, it):
        return it.fileno()

    def dialler(self):
        return gevent.socket.socket()

    async def dial(self, sock, addr, deadline):
        sock.settimeout(deadline.get("timeout"))
        sock.connect(addr)
        return sock
