"""An event loop of one's own: callbacks, timers, sockets, call_soon_threadsafe. Try it: run it."""

import socket
import sys
import threading
import time
from functools import partial

import gopoll


class Loop:
    """A waiter is any object: here a callable, which the loop calls when it comes out."""

    def __init__(self):
        self.poller = gopoll.Poller()
        self.stop = self.poller.close
        self.call_soon = self.call_soon_threadsafe = self.poller.post  # any thread

    def call_later(self, seconds, fn):
        return self.poller.call_at_ns(time.monotonic_ns() + int(seconds * 1e9), fn)  # .stop()

    def attempt(self, desc, mode, operation, then):
        """Call then(operation()) once that does not block, in turn; then(None) if it fails."""
        while True:
            try:
                desc.reset(mode)  # raises: evicted, or past the deadline
                return self.call_soon(partial(then, operation()))
            except BlockingIOError:
                if desc.wait(mode).commit(partial(self.attempt, desc, mode, operation, then)):
                    return None  # parked: netpoll() hands it out; else it is ready meanwhile
            except OSError:
                return self.call_soon(partial(then, None))

    def run(self):
        while not self.poller.is_closed:
            for waiter in self.poller.netpoll(-1):
                waiter()


def echo(loop, sock, desc, data=b"", sent=0):
    def received(data):
        if data:
            return echo(loop, sock, desc, data)
        desc.evict()
        desc.close()  # before the socket
        sock.close()
        return loop.call_later(0.01, loop.stop)  # its one connection

    rest = b"" if sent is None else data[sent:]  # what send has failed of, recv says
    if rest:
        then = partial(echo, loop, sock, desc, rest)
        loop.attempt(desc, gopoll.WRITE, partial(sock.send, rest), then)
    else:
        loop.attempt(desc, gopoll.READ, partial(sock.recv, 65536), received)


if __name__ == "__main__":
    messages, loop, (ours, peer) = int([*sys.argv, 1000][1]), Loop(), socket.socketpair()
    ours.setblocking(False)
    echo(loop, ours, loop.poller.open(ours.fileno()))
    threading.Thread(target=loop.run).start()
    with peer:
        for n in range(messages):
            peer.sendall(b"%d" % n)
            assert peer.recv(100) == b"%d" % n
        loop.call_soon_threadsafe(lambda: print(f"echoed {messages} messages"))
