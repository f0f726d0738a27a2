"""Cond in tasks of asyncio: waits that are cancelled between being taken out and being woken.

Called by test_interleavings_chan.py. A function here has the name of the one it follows in _sync or
_waitq; what those do under one lock is one step. A task that waits for a future can be thrown into
at any time, unlike a goroutine, which only goes on when it has been woken or taken back. So whoever
has taken a waiter out may still have to wake it while the task has gone on (H1).

A waiter is `c` and its task's number in the queue of the cond, `m` and the number in that of the
mutex. `word` is which of the task's futures a waiter holds, counted from 1. `s.mutate` names the
mistake that a function is to make.
"""

from types import SimpleNamespace

from model.checker import ViolationError


def shared(n, *, mutate=""):
    """Return *n* tasks, a cond and its mutex, which is free."""
    return SimpleNamespace(
        mutate=mutate, held=0, condq=[], mutexq=[], state={}, word={}, futures=[0] * n,
        woken=[0] * n, canceled=[0] * n, signals=0, out=[""] * n, pending=[],
    )  # fmt: skip


def free(s):
    """Whether the mutex can be locked."""
    return not s.held and not s.mutexq


def enqueue(s, queue, w):
    """Queue *w* with the next future of its task."""
    if w in s.condq or w in s.mutexq or w in s.pending:
        raise ViolationError("a waiter is queued that somebody is about to wake")
    me = int(w[1:])
    s.futures[me] += 1
    s.woken[me] = 0
    s.word[w] = s.futures[me]
    s.state[w] = "queued"
    queue.append(w)


def dequeue(s, queue):
    """Take out the first, for wake(); "" if nobody waits."""
    if not queue:
        return ""
    w = queue.pop(0)
    s.state[w] = "done"
    s.pending.append(w)
    return w


def wake(s, w):
    """Complete the future of *w*, outside every lock, by who has taken it out (H1)."""
    yield
    s.pending.remove(w)
    me = int(w[1:])
    if s.word[w] == s.futures[me]:
        s.woken[me] = 1


def unlock_now(s):
    """Mutex.unlock_now (H6)."""
    if not s.held:
        raise ViolationError("an unlocked mutex is unlocked")
    w = dequeue(s, s.mutexq)
    s.held = 1 if w else 0
    if w:
        yield from wake(s, w)


def signal(s):
    """Cond.signal; `signals` counts those that have met somebody, and not been given on in vain."""
    w = dequeue(s, s.condq)
    s.signals += bool(w)
    if w:
        yield from wake(s, w)


def back(s, me):
    """Return with which waiter a task stands in the queue of the mutex."""
    return f"{'c' if s.mutate == 'one waiter' else 'm'}{me}"


def wait(s, me):
    """Lock, Cond.wait() with its step and its interrupted, and unlock."""
    yield lambda: free(s)
    s.held = 1
    yield
    enqueue(s, s.condq, f"c{me}")
    yield from unlock_now(s)
    error = signalled = 0
    at, queue = f"c{me}", s.condq
    while True:
        yield lambda: s.woken[me] or s.canceled[me] == 1
        ours, thrown = False, s.canceled[me] == 1
        if thrown:
            s.canceled[me] = 2
        yield  # leave(), under the lock of the queue
        if at in queue:
            queue.remove(at)
            s.state[at] = "off"
        taken = s.state[at] == "done"
        if queue is s.mutexq:
            ours = taken
        else:
            signalled, queue, at = taken, s.mutexq, back(s, me)
        if thrown:
            if s.mutate == "drop the cancellation" and ours + signalled:
                thrown = False
            else:
                error = 1
            if error and signalled and s.mutate != "keep the signal":
                signalled = 0
                s.signals -= 1
                yield from signal(s)
        yield
        if not ours and free(s):
            s.held, ours = 1, True
        if ours:
            break
        enqueue(s, queue, at)
    yield
    s.out[me] = "canceled" if error else "returned"
    yield from unlock_now(s)


def cancel(s, me):
    """task.cancel(), once, while it waits."""
    yield lambda: s.futures[me] or s.out[me]
    if not s.out[me]:
        s.canceled[me] = 1


def broadcast(s):
    """Cond.broadcast: all are taken out under one lock, and woken one by one."""
    yield lambda: any(s.futures)
    woken = ""
    while s.condq:
        woken += f"{dequeue(s, s.condq)} "
    s.signals += len(woken.split())
    w = ""
    for w in woken.split():
        yield from wake(s, w)


def signal_one(s):
    """Cond.signal, by a thread, when all wait."""
    yield lambda: all(s.futures)
    yield from signal(s)


def accounted(s, blocked):
    """Nobody is left who was woken or cancelled; a signal has let one go for good."""
    if s.held or s.mutexq:
        return "the mutex is lost"
    for me, out in enumerate(s.out):
        if not out and (f"c{me}" not in s.condq or s.canceled[me] == 1):
            return "a wake-up is lost"
        if s.canceled[me] == 2 and out == "returned":
            return "a cancellation is lost"
    if s.condq and s.out.count("returned") < s.signals:
        return "a signal is lost"
    return None
