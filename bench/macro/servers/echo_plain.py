"""Plain loops in Python, the controls: what is left when there is no library. Run by measure.py.

py-selectors: `selectors`, level-triggered. py-epoll-et: `select.epoll`, edge-triggered, which stops
after a short read, as c-et does: sound because a hang-up is looked at beside it (EPOLLRDHUP).
Callbacks instead of tasks, no deadlines, no cancellation: neither is a rival.
"""

import select
import selectors

from listening import READ_BYTES, announce, listen, start

SHORT_BYTES = READ_BYTES + 4096  # as c-et: a message of 64 KiB ends a read short
ENDED = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Closed(Exception):
    """The peer has gone."""


def flush(sock, rest):
    """Send what can be sent; return what cannot."""
    while rest:
        try:
            rest = rest[sock.send(rest) :]
        except BlockingIOError:
            break
        except OSError:
            raise Closed from None
    return rest


def receive(sock, size=READ_BYTES):
    """Return what is there, None if nothing is; raise Closed at the end."""
    try:
        data = sock.recv(size)
    except BlockingIOError:
        return None
    except OSError:
        raise Closed from None
    if not data:
        raise Closed
    return data


def serve_selectors():
    """Watch for writing only while something is left to be written."""
    selector, listener = selectors.DefaultSelector(), listen()
    selector.register(listener, selectors.EVENT_READ)
    announce(listener.getsockname())

    def serve(sock, rest, mask):
        try:
            if mask & selectors.EVENT_WRITE:
                left = flush(sock, rest)
            else:
                data = receive(sock)
                left = flush(sock, memoryview(data)) if data is not None else None
        except Closed:
            selector.unregister(sock)
            sock.close()
            return
        if left or rest:
            events = selectors.EVENT_WRITE if left else selectors.EVENT_READ
            selector.modify(sock, events, left)

    while True:
        for key, mask in selector.select():
            if key.fileobj is listener:
                sock, _ = listener.accept()
                sock.setblocking(False)
                selector.register(sock, selectors.EVENT_READ)
            else:
                serve(key.fileobj, key.data, mask)


def serve_epoll():
    """Register once, for everything; after a short read wait for the next edge."""
    epoll, listener, socks, rests = select.epoll(), listen(), {}, {}
    epoll.register(listener, select.EPOLLIN)
    announce(listener.getsockname())
    events = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET

    def echo(fd, sock, ended):
        """Read and write until one of them would block, or a read was short."""
        rest = flush(sock, rests.pop(fd, b""))
        while not rest:
            data = receive(sock, SHORT_BYTES)
            if data is None:
                return
            rest = flush(sock, memoryview(data))
            if len(data) < SHORT_BYTES and not ended and not rest:
                return
        rests[fd] = rest

    while True:
        for fd, mask in epoll.poll():
            if fd == listener.fileno():
                sock, _ = listener.accept()
                sock.setblocking(False)
                socks[sock.fileno()] = sock
                epoll.register(sock, events)
                continue
            if not mask & ~select.EPOLLOUT and fd not in rests:
                continue
            try:
                echo(fd, socks[fd], mask & ENDED)
            except Closed:
                rests.pop(fd, None)
                socks.pop(fd).close()


if __name__ == "__main__":
    start({"py-selectors": serve_selectors, "py-epoll-et": serve_epoll})
