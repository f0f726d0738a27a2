"""The far ends: plain sockets on loopback, which nobody waits for.

Called by embed.waits, on its only thread. Each call is one that cannot block.
"""

import contextlib
import os
import socket

SEND_BUFFER, RECEIVE_BUFFER = 64 << 10, 256 << 10  # what is asked for; the kernel doubles it
BIG = bytes(2 << 20)  # more than both take while nobody reads


def pair():
    """Return the two ends of a TCP connection: the near one does not block, the far one may."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        near = socket.create_connection(listener.getsockname(), timeout=60)
        far = listener.accept()[0]
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    near.setblocking(False)
    return near, far


def listener():
    """Return a listener that does not block, and its address."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=16)
    listener.setblocking(False)
    return listener, listener.getsockname()


def connect(addr):
    """Return a connection to *addr*, or a socket alone if nobody listens there."""
    sock = socket.socket()
    sock.settimeout(60)
    try:
        sock.connect(addr)
    except ConnectionRefusedError:
        pass
    return sock


def reset(sock):
    """Close *sock* so that its peer gets a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


def shut_down(fd, how):
    """Shut down the socket *fd*, as somebody does who has a copy of it."""
    with socket.socket(fileno=os.dup(fd)) as copy:
        copy.shutdown(how)


def send(sock, data):
    """Send *data*, to who may be gone; report whether it went."""
    try:
        sock.send(data, socket.MSG_DONTWAIT)
    except OSError:
        return False
    return True


def take(sock):
    """Return what has come on *sock*, and whether its end has, in an orderly way or not."""
    got = []
    while True:
        try:
            data = sock.recv(1 << 20, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b"".join(got), False
        except ConnectionResetError:
            return b"".join(got), True
        if not data:
            return b"".join(got), True
        got.append(data)


@contextlib.contextmanager
def full_backlog():
    """Give the address of a listener whose queue is full: a dial to it hangs."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        with socket.create_connection(listener.getsockname(), timeout=60):
            yield listener.getsockname()


def closed_port():
    """Return an address that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()


def inode(sock):
    """Return what the kernel calls the socket *sock*."""
    return os.readlink(f"/proc/self/fd/{sock.fileno()}")


def is_open(name):
    """Report whether this process has the socket *name* still open."""
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{fd}") == name:
                return True
    return False
