"""A protocol that tells, sockets and endpoints: what the tests of DatagramTransport share.

Called by test_aio_datagram.py and test_aio_same_datagram.py, in tasks of a loop.
"""

import asyncio
import contextvars
import socket
import sys

LOCAL = "127.0.0.1"
HEADER = 8 if sys.version_info >= (3, 13) else 0
var = contextvars.ContextVar("var", default="unset")


class Told(asyncio.DatagramProtocol):
    """Tell of each call, without the ports."""

    def __init__(self, say):
        self.say = say
        self.n = 0
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.say("made", var.get())

    def datagram_received(self, data, addr):
        self.n += 1
        addr = (addr[0], *addr[2:]) if isinstance(addr, tuple) else addr
        self.say("got", data if len(data) < 100 else len(data), addr)

    def error_received(self, exc):
        self.say("error", exc)

    def pause_writing(self):
        self.say("pause")

    def resume_writing(self):
        self.say("resume")

    def connection_lost(self, exc):
        self.say("lost", exc)
        self.lost.set_result(None)


def plain(family=socket.AF_INET, host=LOCAL):
    """Return a bound datagram socket that does not block."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    sock.setblocking(False)
    return sock


async def endpoint(say, protocol=Told, **kwargs):
    """Return (transport, protocol); bound to a free port if nothing is said."""
    loop = asyncio.get_running_loop()
    return await loop.create_datagram_endpoint(
        lambda: protocol(say), **(kwargs or {"local_addr": (LOCAL, 0)})
    )


async def unix_pair(say, protocol=Told):
    """Return (transport, protocol, peer) of a socket pair with little room.

    They have names, which the kernel has made: asyncio cannot send to a peer without one.
    """
    a, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    a.bind("")
    peer.bind("")
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    peer.setblocking(False)
    return *await endpoint(say, protocol, sock=a), peer


async def drain(peer, want):
    """Receive *want* datagrams of *peer*; return them."""
    loop = asyncio.get_running_loop()
    return [await loop.sock_recv(peer, 1 << 16) for _ in range(want)]
