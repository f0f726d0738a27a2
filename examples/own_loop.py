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
        self.running = True
        self.call_soon = self.call_soon_threadsafe = self.poller.post  # any thread

    def call_later(self, seconds, fn):
        return self.poller.call_at_ns(time.monotonic_ns() + int(seconds * 1e9), fn)  # .stop()

    def attempt(self, desc, mode, operation, then):
        """Call operation() as soon as it does not block, and then(result, error) a turn later."""
        result = error = None
        while True:
            try:
                desc.reset(mode)  # raises: evicted, or past the deadline
                result = operation()
            except BlockingIOError:
                request = desc.wait(mode)
                if request.commit(lambda: self.attempt(desc, mode, operation, then)):
                    return  # parked: netpoll() hands the callable out
                continue  # it has become ready meanwhile
            except OSError as exc:
                error = exc
            self.call_soon(partial(then, result, error))  # in turn with all the others
            return

    def run(self):
        while self.running:
            for waiter in self.poller.netpoll(-1):
                waiter()
        self.poller.close()

    def stop(self):
        self.running = False


def echo(loop, sock, desc):
    def read():
        loop.attempt(desc, gopoll.READ, lambda: sock.recv(65536), write)

    def write(data, error):
        if data:
            loop.attempt(desc, gopoll.WRITE, lambda: sock.send(data), lambda n, _: sent(data, n))
        else:
            desc.evict()
            desc.close()  # before the socket
            sock.close()

    def sent(data, n):
        if n and n < len(data):
            write(data[n:], None)
        else:
            read()  # which finds what a failed send has failed of

    read()


def main(messages=1000):
    def client():  # a plain thread that talks to the loop and then stops it
        with peer:
            for n in range(messages):
                peer.sendall(b"%d" % n)
                assert peer.recv(100) == b"%d" % n
        loop.call_soon_threadsafe(lambda: print(f"echoed {messages} messages"))
        loop.call_soon_threadsafe(lambda: loop.call_later(0.01, loop.stop))

    loop = Loop()
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    echo(loop, ours, loop.poller.open(ours.fileno()))
    threading.Thread(target=client).start()
    loop.run()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
