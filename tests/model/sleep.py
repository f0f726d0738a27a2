"""Who sleeps in netpoll and who wakes it, as _netpoll.pyx and netpollwake do, step by step.

Called by test_interleavings.py. P5: a sleeper counts itself, looks, then waits; whoever adds work
adds it, then reads the count. P6: the break is taken back before the lists are looked at.
"""

from types import SimpleNamespace


def shared():
    """Return a poller without descriptors. ready: words on the ready list. armed: whether a
    deadline stands in the heap. eventfd: whether it is readable."""
    return SimpleNamespace(ready=0, armed=0, blocked=0, wakesig=0, eventfd=0)


def sleeper(s, mutate=""):
    """netpoll(-1), again and again."""
    while True:
        if mutate == "look before count":
            yield
            work, knows = s.ready, s.armed
            yield
            s.blocked += 1
        else:
            yield
            s.blocked += 1
            yield
            work = s.ready
            yield
            knows = s.armed
        # epoll_wait: returns for a break, at once if there is work, in time for a deadline
        if not work and not knows:
            yield lambda: s.eventfd
        else:
            yield
        broken = s.eventfd
        yield
        s.blocked -= 1
        if broken:
            yield
            if mutate == "clear before read":
                s.wakesig = 0
                yield
                s.eventfd = 0
            else:
                s.eventfd = 0
                yield
                s.wakesig = 0
        work = knows = broken = 0  # what has been forgotten is not part of the state
        yield from look(s)


def look(s):
    """ready_take and the due timers: each a section under its lock."""
    yield
    s.ready = 0
    yield
    s.armed = 0


def wake(s):
    """netpollwake, netpollBreak."""
    yield
    if s.blocked:
        yield
        if not s.wakesig:
            s.wakesig = 1
            yield
            s.eventfd = 1


def push(s, mutate=""):
    """ready_push."""
    if mutate == "wake before push":
        yield from wake(s)
        yield
        s.ready += 1
        return
    yield
    s.ready += 1
    yield from wake(s)


def arm(s):
    """An earlier deadline: timer_arm, then netpollwake."""
    yield
    s.armed = 1
    yield from wake(s)


def rearm(s, mutate=""):
    """netpolldeadlineimpl on a thread that polls once: the timer it popped was moved later."""
    yield
    s.armed = 0
    yield
    s.armed = 1
    if mutate != "rearm in silence":
        yield from wake(s)


def nobody_sleeps_beside_work(s, blocked):
    """In the end every sleeper sleeps, and there is nothing to do."""
    del blocked
    if s.ready:
        return "a waiter is on the ready list and everybody sleeps"
    if s.armed:
        return "a deadline is armed and nobody knows it"
    return None
