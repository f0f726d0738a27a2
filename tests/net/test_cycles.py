"""What a failure has held, and a context, is freed at once, not by the garbage collector.

A collection of everything is rare in a large program, and each of these holds a connection.
"""

import contextlib
import gc
import socket
import time

import pytest

import gopoll
from gopoll.net import tls
from gopoll.net.conn import Conn
from gopoll.net.dial import Dialer, dial
from gopoll.net.file import from_socket
from gopoll.net.resolve import Resolver
from gopoll.runtime.context import Context, background, with_cancel, with_deadline
from gopoll.runtime.goroutine import go
from net.certs import certs
from net.tlstools import tls_pair
from net.tools import local_listener
from plugins.guard import wait_until
from plugins.header import FREE_THREADED


class Names:
    """A resolver with one answer, a failure or none."""

    def __init__(self, *answer):
        self.answer = answer

    async def lookup_addr(self, host, port, family=0):
        if not self.answer:
            await gopoll.sleep(100)
        if isinstance(self.answer[0], BaseException):
            raise type(self.answer[0])(*self.answer[0].args)
        return list(self.answer)


REFUSED = [("127.0.0.1", 1), ("::1", 1)]


async def fail_to_dial(address=("127.0.0.1", 1), **options):
    with contextlib.suppress(OSError):
        await Dialer(**options).dial("tcp", address)


async def dial_a_name(*answer, **options):
    await fail_to_dial(("x.example", 1), resolver=Names(*answer), **options)


async def dial_in_time():
    async with local_listener() as listener:
        (await dial("tcp", listener.addr, timeout=60)).close()
        (await listener.accept()).close()


async def race():
    """The second family wins."""
    async with local_listener() as listener:
        names = Names(("::1", 1), listener.addr)
        conn = await Dialer(resolver=names, fallback_delay=0.001).dial("tcp", ("x.example", 1))
        conn.close()
        (await listener.accept()).close()


async def look_up():
    with contextlib.suppress(OSError):
        await Resolver().lookup_host("nowhere.invalid.")


async def shake_hands_with(data):
    ours, peer = socket.socketpair()
    with peer:
        peer.send(data)
        peer.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            await tls.server(from_socket(ours), certs().server_context())


async def distrust():
    a, b = map(from_socket, socket.socketpair())

    async def serve():
        with contextlib.suppress(OSError):
            await tls.server(b, certs().server_context())

    serving = go(serve)
    with contextlib.suppress(OSError):
        await tls.client(a, certs().client_context(), server_hostname="elsewhere")
    await serving


async def read_garbage():
    async with tls_pair() as (a, b):
        await a.net_conn.write(b"this is no TLS record at all" * 3)
        with contextlib.suppress(OSError):
            await b.read()
        with contextlib.suppress(OSError):
            await b.write(b"x")


async def cancel_a_context():
    _, cancel = with_cancel(background())
    cancel()
    _, cancel = with_deadline(background(), time.monotonic() + 60)
    cancel()


OPERATIONS = {
    "a failed dial": fail_to_dial,
    "a failed dial, with a timeout": lambda: fail_to_dial(timeout=60),
    "a dial that is late": lambda: fail_to_dial(timeout=-1),
    "a dial, with a timeout": dial_in_time,
    "a failed race": lambda: dial_a_name(*REFUSED),
    "a failed race, with a timeout": lambda: dial_a_name(*REFUSED, timeout=60),
    "a race": race,
    "a failed dial of a name": lambda: dial_a_name(OSError(5, "failed")),
    "a failed dial of a name, with a timeout": lambda: dial_a_name(OSError(5, "x"), timeout=60),
    "a dial of a name that is late": lambda: dial_a_name(timeout=0.001),
    "a failed look-up": look_up,
    "a handshake with somebody else": lambda: shake_hands_with(b"GET / HTTP/1.0\r\n\r\n"),
    "a handshake with nobody": lambda: shake_hands_with(b""),
    "a handshake that does not trust": distrust,
    "a broken TLS stream": read_garbage,
    "a context": cancel_a_context,
}


def is_ours(thing):
    """Report whether *thing* should have been freed by itself.

    Without a GIL what one thread has made and another drops last waits for the first one, which
    here is a thread of blocking() that waits for work.
    """
    if FREE_THREADED and isinstance(thing, socket.gaierror):
        return False
    return isinstance(thing, (BaseException, Conn, Context))


@pytest.mark.parametrize("name", OPERATIONS)
def test_nothing_is_left_to_the_collector(run, name):
    operation = OPERATIONS[name]

    async def main():
        before = gopoll.stats().goroutines
        found = []
        for turn in range(4):
            gc.collect()
            gc.disable()
            try:
                await operation()
                # Who has been left behind on the way, or begun, ends too.
                await wait_until(lambda: gopoll.stats().goroutines == before)
                await gopoll.sleep(0.001)
                gc.set_debug(gc.DEBUG_SAVEALL)
                gc.collect()
            finally:
                gc.set_debug(0)
                gc.enable()
            if turn:  # the first makes what is kept
                found += [repr(each) for each in gc.garbage if is_ours(each)]
            gc.garbage.clear()
        assert not found

    run(main, procs=1, handoff=False)
