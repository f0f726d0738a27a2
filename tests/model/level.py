"""Arming and silencing of level-triggered and one-shot descriptors, step by step (L1).

Called by test_interleavings.py. A waiter stores pdWait, then looks at what is armed, under pd.lock
(pollRearm); after an event netpoll looks at rg and wg under the same lock, and silences what nobody
waits for (pollsettle). `mutate` names the mistakes that they can make. Sets of directions are sums
of READ and WRITE: the checker sees numbers.
"""

from types import SimpleNamespace

from model.checker import ViolationError

NIL, READY, WAIT, WORD = range(4)
READ, WRITE = WAYS = 1, 2


def shared(mode, mutate=""):
    """Return a descriptor without waiters. g: the semaphores. As sets of directions: data, what the
    kernel has ready; interest, what we have armed; armed, what the kernel knows of that; delivered.

    idle: how many events in a row have found pdReady where they came: nobody looks any more.
    """
    return SimpleNamespace(
        mode=mode, mutate=mutate, lock=0, closing=0, g={READ: NIL, WRITE: NIL}, data=0, interest=0,
        armed=0, delivered=0, idle=0,
    )  # fmt: skip


def acquire(s):
    """Take pd.lock."""
    yield lambda: not s.lock
    s.lock = 1


def swap(s, way, was, now):
    """Compare and swap of a semaphore."""
    if s.g[way] != was:
        return False
    s.g[way] = now
    return True


def rearm(s, way):
    """pollRearm; if the descriptor is closing the waiter finds out by itself."""
    yield from acquire(s)
    if not s.closing and (s.mode == "oneshot" or not s.interest & way):
        s.interest |= way
        s.armed = s.interest
    yield
    s.lock = 0


def waiter(s, way, reads=True):
    """Op.step: try, announce, arm, commit, until there is data; *reads*: and take it."""
    while True:
        yield
        if s.data & way or s.closing:
            if reads:
                s.data &= ~way
            return
        if s.mutate == "arm before announce":
            yield from rearm(s, way)
        yield
        if swap(s, way, READY, NIL):
            continue
        if not swap(s, way, NIL, WAIT):
            raise ViolationError("double wait")
        yield
        if s.closing:  # P1
            s.g[way] = NIL
            continue
        if s.mutate != "arm before announce":
            yield from rearm(s, way)
        yield
        if swap(s, way, WAIT, WORD):
            yield lambda: s.delivered & way
            s.delivered &= ~way
        yield
        s.g[way] = NIL


def poller(s):
    """netpoll(-1), again and again: one event, netpollready, pollsettle, and the woken go."""
    while True:
        yield lambda: s.armed & s.data
        event = s.armed & s.data
        if s.mode == "oneshot":
            s.armed = 0
        woken = news = 0
        for way in WAYS:
            if event & way:
                yield
                news |= s.g[way] != READY
                woken |= way if s.g[way] == WORD else 0
                s.g[way] = READY
        s.idle = 0 if news else s.idle + 1
        yield from settle(s, event & ~woken)
        s.delivered |= woken
        event = woken = news = way = 0  # what has been forgotten is not part of the state


def settle(s, nobody):
    """pollsettle, after an event that has woken *nobody* in those directions."""
    if s.mutate != "settle without lock":
        yield from acquire(s)
    yield
    waited = sum(way for way in WAYS if s.g[way] > READY)
    if s.mutate == "silence unseen":
        waited = 0
    yield
    if s.closing or s.mutate == "never silence":
        pass
    elif s.mode == "oneshot":
        s.interest = waited
        if waited and s.mutate != "forget the other":
            s.armed = waited
    elif s.interest & nobody & ~waited:
        s.interest &= ~nobody | waited
        s.armed = s.interest
    yield
    if s.mutate != "settle without lock":
        s.lock = 0


def send(s, way):
    """The kernel has something: bytes, or room."""
    yield
    s.data |= way


def steal(s, way):
    """Somebody else takes what the kernel had ready: the event was for nothing."""
    yield
    s.data &= ~way


def evict(s):
    """poll_runtime_pollUnblock: closing is published, both are woken, the kernel is silenced."""
    yield from acquire(s)
    s.closing = 1
    woken = 0
    for way in WAYS:
        yield
        if s.g[way] != READY:
            woken |= way if s.g[way] == WORD else 0
            s.g[way] = NIL
    if s.mode == "level" and s.mutate != "close it armed":
        s.interest = s.armed = 0
    yield
    s.lock = 0
    s.delivered |= woken


def no_spin(s):
    """What nobody reads is reported again only while it is being silenced: not for ever."""
    return "an unread descriptor spins" if s.idle > 5 else None


def nobody_forgotten(s, blocked):
    """In the end who waits is armed, and waits for something that has not come."""
    del blocked
    for way in WAYS:
        if s.g[way] == WORD and (s.closing or s.data & way or not s.armed & way):
            return "a waiter was left unarmed"
    return None
