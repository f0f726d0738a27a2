"""A guest's turns and who wakes its host, as _guest.pyx, _netpoll.pyx and kick do, step by step.

Called by test_interleavings_guest.py. P8: the host sets `watched` back, then looks at the poller's
lists. Q4: it puts its P on the idle list and sets lastpoll to 0, then looks at the queue (S1).
"""

from types import SimpleNamespace


def shared():
    """Return a guest between two turns. ready: words on the poller's list. queue: goroutines for
    all. armed: whether a deadline stands in the heap; timer: whether the timerfd knows it.
    """
    return SimpleNamespace(
        ready=0, queue=0, armed=0, timer=0, watched=1, npidle=1, lastpoll=0, wakesig=0, eventfd=0
    )


def host(s, mutate=""):
    """The host's loop: it sleeps until the descriptor is readable, then has the guest take a turn.

    The timerfd, once it is set, wakes it in time: that needs no step.
    """
    while True:
        yield lambda: s.eventfd
        yield
        s.watched = 2
        yield
        s.lastpoll = 1
        yield
        s.npidle = 0
        yield from poll(s)
        yield
        s.queue = 0  # execute()
        yield from rest(s, mutate)


def poll(s):
    """netpoll(0) of one who watches: takes the break back, by wakesig or by its event."""
    yield
    if s.wakesig:
        yield from drain(s)
    yield
    s.ready = 0
    yield
    if s.eventfd:
        yield from drain(s)
    yield
    s.ready = 0


def drain(s):
    """netpolldrain."""
    s.eventfd = 0
    yield
    s.wakesig = 0


def rest(s, mutate=""):
    """end_turn, netpollrest, netpolltell."""
    more = 0
    if mutate == "look before lastpoll":
        yield
        more = s.queue
    yield
    s.npidle = 1
    yield
    s.lastpoll = 0
    if mutate != "look before lastpoll":
        yield
        more = s.queue
    ready = knows = 0
    if mutate == "look before watched":
        yield
        ready = s.ready
        yield
        knows = s.armed
    yield
    s.watched = 1
    if more:
        yield from wake(s)
    if mutate != "look before watched":
        yield
        ready = s.ready
    if ready:
        yield from wake(s)
    if mutate != "look before watched":
        yield
        knows = s.armed
    yield
    s.timer = knows


def wake(s):
    """netpollBreak."""
    yield
    if not s.wakesig:
        s.wakesig = 1
        yield
        s.eventfd = 1


def tell(s):
    """netpollwake."""
    yield
    if s.watched == 1:
        yield from wake(s)


def push(s, mutate=""):
    """ready_push on another thread."""
    if mutate == "tell before push":
        yield from tell(s)
    yield
    s.ready += 1
    if mutate != "tell before push":
        yield from tell(s)


def queue(s, mutate=""):
    """ready_g on another thread: the global queue, then kick()."""
    if mutate == "kick before queue":
        yield from kick(s)
    yield
    s.queue += 1
    if mutate != "kick before queue":
        yield from kick(s)


def kick(s):
    """Break the poller if the last M blocks in it."""
    yield
    if s.npidle:
        yield
        if s.lastpoll == 0:
            yield from wake(s)


def arm(s):
    """An earlier deadline, from another thread: timer_arm, netpollwake."""
    yield
    s.armed = 1
    yield from tell(s)


def host_is_told(s, blocked):
    """In the end the host sleeps, and there is nothing to do."""
    del blocked
    if s.ready:
        return "a waiter is on the ready list and the host sleeps"
    if s.queue:
        return "a goroutine can run and the host sleeps"
    if s.armed and not s.timer:
        return "a deadline is armed and the timerfd is not"
    return None
