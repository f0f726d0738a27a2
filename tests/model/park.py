"""Park, commit, wake, abort, close and deadline as _pollcache.pyx does them, step by step.

Called by test_interleavings.py. Each program mirrors one function; `mutate` names the mistakes
that it can make, so that a test can show that the checker would see them (P1, P3).
"""

from types import SimpleNamespace

from model.checker import ViolationError

NIL, READY, WAIT, WORD = range(4)
CLOSING, EXPIRED = 1, 2


def shared():
    """Return the state of one direction of one descriptor.

    g: the semaphore. info: published errors. data: bytes in the kernel. delivered: words that
    netpoll has handed out and nobody has resumed. parks, wakes, aborts: how often; came, woken,
    left: what the poller has counted of them.
    """
    return SimpleNamespace(
        g=NIL, info=0, lock=0, closing=0, deadline=0, data=0, came=0, woken=0, left=0,
        delivered=0, aborted=0, cancel=0, parks=0, wakes=0, aborts=0, result="",
    )  # fmt: skip


def cas(s, was, now):
    """Compare and swap of the semaphore."""
    if s.g != was:
        return False
    s.g = now
    return True


def acquire(s):
    """Take pd.lock."""
    yield lambda: not s.lock
    s.lock = 1


def publish(s):
    """publishInfo: one store that is seen by all."""
    yield
    s.info = (CLOSING if s.closing else 0) | (EXPIRED if s.deadline < 0 else 0)


def unblock(s, into, mutate=""):
    """netpollunblock: a load and a compare-and-swap; whether a word came off."""
    while True:
        yield
        old = s.g
        if old == READY or (old == NIL and into == NIL):
            return False
        yield
        if mutate == "unblock without cas":
            s.g = into
            return old == WORD
        if cas(s, old, into):
            return old == WORD


def deliver(s):
    """Take the word off the count, then hand it out. It is nobody else's now."""
    yield
    s.woken += 1
    yield
    s.delivered += 1
    s.wakes += 1
    if s.wakes + s.aborts > s.parks:
        raise ViolationError("a waiter came out twice")


def announce(s, mutate=""):
    """netpollblock: whether to park."""
    while True:
        yield
        old = s.g
        yield
        if old == READY:
            if cas(s, READY, NIL):
                return False
        elif old == NIL:
            if cas(s, NIL, WAIT):
                break
        else:
            raise ViolationError("double wait")
    if mutate == "check before store":
        return True
    yield
    if s.info:  # P1: after the store
        yield
        s.g = NIL
        return False
    return True


def waiter(s, mutate=""):
    """Op.step and its driver: try, wait, commit, resume, until there is data or an error."""
    while True:
        yield
        if s.data:
            s.result = "data"
            return
        yield
        if s.info:
            s.result = "error"
            return
        parked = yield from announce(s, mutate)
        if parked:
            yield
            s.came += 1
            yield
            if mutate == "commit without cas":
                s.g = WORD
                committed = True
            else:
                committed = cas(s, WAIT, WORD)
            if committed:
                s.parks += 1
                yield lambda: s.delivered or s.aborted
                if s.aborted:
                    s.result = "cancelled"
                    return
                s.delivered -= 1
            else:
                yield
                s.came -= 1
                if s.cancel:
                    s.result = "cancelled"
                    return
            yield
            old, s.g = s.g, NIL
            if old > WAIT:
                raise ViolationError("corrupted polldesc")


def event(s, data=True, mutate=""):
    """Bytes arrive (or none: a spurious edge), and netpoll hands the waiter out."""
    if data:
        yield
        s.data = 1
    if (yield from unblock(s, READY, mutate)):
        yield from deliver(s)


def evict(s, mutate=""):
    """poll_runtime_pollUnblock."""
    yield from acquire(s)
    s.closing = 1
    if mutate == "unblock before publish":
        woken = yield from unblock(s, NIL)
        yield from publish(s)
    else:
        yield from publish(s)
        woken = yield from unblock(s, NIL, mutate)
    yield
    s.lock = 0
    if woken:
        yield from deliver(s)


def set_deadline(s, when, mutate=""):
    """poll_runtime_pollSetDeadline; when < 0 has passed."""
    yield from acquire(s)
    woken = False
    if not s.closing:
        changed = (s.deadline < 0) != (when < 0)
        s.deadline = when
        if changed and mutate != "unblock before publish":
            yield from publish(s)
        if when < 0:
            woken = yield from unblock(s, NIL, mutate)
        if changed and mutate == "unblock before publish":
            yield from publish(s)
    yield
    s.lock = 0
    if woken:
        yield from deliver(s)


def abort(s, mutate=""):
    """netpollabort by somebody who cancels, at any moment."""
    yield
    if mutate == "abort without cas":
        taken = s.g == WORD
        yield
        if taken:
            s.g = NIL
    else:
        taken = cas(s, WORD, NIL)
    if taken:
        yield
        s.left += 1
        yield
        s.aborts += 1
        s.aborted = 1
        if s.wakes + s.aborts > s.parks:
            raise ViolationError("a waiter came out twice")
        return
    yield
    s.cancel = cas(s, WAIT, NIL)


def look(s, mutate=""):
    """netpollWaiters: a load each of what has come, been woken and left."""
    yield
    came = s.came
    yield
    gone = s.woken
    yield
    gone += s.left
    if mutate != "look at parks first":
        yield
        came = s.came
    if came - gone < (s.g == WORD):
        raise ViolationError("a parked waiter is not seen")


def counted(s):
    """What is counted is never below the number of parked words."""
    parked = s.g == WORD
    return "a parked waiter is not counted" if s.came - s.woken - s.left < parked else None


def settled(s, blocked):
    """Nobody sleeps beside what should have woken it, and every word has come out once (P1, P3)."""
    parked = s.g == WORD
    if blocked and not parked:
        return "a waiter is parked nowhere and will never be woken"
    if parked and (s.data or s.info):
        return "lost wake-up"
    if s.delivered:
        return "a word was handed out for nobody"
    if s.parks != s.wakes + s.aborts + parked:
        return "a word has come out twice or not at all"
    if s.came - s.woken - s.left != parked:
        return "the count of waiters is wrong"
    return None
