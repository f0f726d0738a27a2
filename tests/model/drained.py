"""A socket whose short reads are relied on, the kernel's side included, step by step (R1).

Called by test_interleavings.py. The reader reads buffers of BUFFER bytes until the end and waits
without a try after a short one; `mutate` names the mistakes that it and the poller can make. What
tcp_recvmsg does is one step, for it holds the socket's lock, as what arrives does; tcp_poll and the
call that puts the descriptor on epoll's list come without it.
"""

from types import SimpleNamespace

from model.checker import ViolationError
from model.park import NIL, READY, WAIT, WORD, announce, cas, unblock

BUFFER = 2


def shared():
    """Return a registered socket that nothing has come in on.

    lock: the socket's. queue: bytes in it. mark: how many are before urgent data, -1 for none.
    fin: the end. listed: it stands on epoll's list. more: an event has said more than readable.
    drained: the last read was short. g, info: as in park. arriving: what is still to come.
    """
    return SimpleNamespace(
        lock=0, queue=0, mark=-1, fin=0, listed=0, more=0, drained=0, g=NIL, info=0,
        delivered=0, got=0, over=0, arriving=0, taken_back=0,
    )  # fmt: skip


def arrive(s, *, bytes_=0, fin=False, urgent=False):
    """The other end sends; the kernel then lists the descriptor (sk_data_ready)."""
    yield lambda: not s.lock
    s.lock = 1
    if urgent:
        s.mark = s.queue  # what follows is behind it
    s.queue += bytes_
    yield
    s.fin |= fin
    s.listed = 1  # one call for data and a FIN that come together
    yield
    s.lock = 0
    s.arriving -= 1


def poller(s, mutate=""):
    """netpoll(-1), again and again: take the descriptor off the list, ask tcp_poll, make ready."""
    while True:
        yield lambda: s.listed or s.over
        if s.over:
            return
        s.listed = 0
        yield
        readable, more = s.queue > 0 or s.fin, s.fin or s.mark >= 0
        if mutate == "more after ready":
            yield from ready(s, readable)
        if more and mutate != "nothing of more":
            yield
            s.more = 1
        if mutate != "more after ready":
            yield from ready(s, readable)
        readable = more = 0  # what has been forgotten is not part of the state


def ready(s, readable):
    """netpollready, and the woken word on its way."""
    if readable and (yield from unblock(s, READY)):
        yield
        s.delivered += 1


def receive(s):
    """recv(2): how many bytes, 0 at the end, -1 for EAGAIN. Cut at the mark of urgent data."""
    yield lambda: not s.lock
    n = min(s.queue, BUFFER)
    if 0 < s.mark < n:
        n = s.mark
    if s.mark >= 0:
        s.mark -= n
    if s.mark < 0 or s.mark == 0 == n:
        s.mark = -1
    s.queue -= n
    if n == 0:
        return 0 if s.fin else -1
    return n


def reader(s, mutate=""):
    """One operation after another until the end."""
    while not s.over:
        yield from operation(s, mutate)


def operation(s, mutate):
    """Op.step: begin, attempt, park, until there is a result or it is cancelled."""
    yield
    drained, more = s.drained, s.more
    if mutate != "kept over a cancel" or not drained:
        s.drained = 0
    tries = not drained or more
    if tries or mutate == "dropped readiness":
        yield
        s.g = NIL  # pollReset
    while True:
        if tries:
            n = yield from receive(s)
            if n >= 0:
                s.got += n
                s.over = n == 0
                s.drained = int(0 < n < BUFFER)
                return
        tries = True
        if (yield from announce(s)):
            yield
            if cas(s, WAIT, WORD):
                yield lambda: s.delivered or s.taken_back
                if s.taken_back:
                    s.taken_back = 0
                    return
                s.delivered -= 1
            yield
            s.g = NIL  # netpollresume
            yield
            if s.info:  # the deadline: readiness is gone, and no system call was made
                s.info = 0
                return


def cancel(s):
    """netpollabort, at any moment."""
    yield
    if cas(s, WORD, NIL):
        s.taken_back = 1


def expire(s):
    """The deadline passes, and is moved as soon as the operation has been told."""
    yield
    s.info = 1
    if (yield from unblock(s, NIL)):
        yield
        s.delivered += 1


def all_was_read(s, blocked):
    """Nobody waits for what has come in."""
    if s.over:
        return None
    if s.arriving:
        raise ViolationError("the other end is stuck")
    return f"lost: {s.queue} bytes, fin {s.fin}" if s.queue or s.fin else None
