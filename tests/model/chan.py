"""Channels and select: send, receive, close, cancel and time out, as _chan and _select do it.

Called by test_interleavings_chan.py. A function here has the name of the one it follows in _waitq,
_chan or _select; what those do under one lock is one step (select locks all of its channels, in an
order, before it looks at any), but for the places where something without the lock can come
between. `s.mutate` names the mistake that a function is to make.

An operation is (channel, value) for each of its cases; value 0 receives. With `select` its waiters
share a claim (H2). A waiter's number is ten times its operation's and its case's. `held` is who
may touch an operation's memory: it is gone once the operation has ended. What is cancelled of
`hosts` waits in a task of a host whose exceptions do not come again: it ends with that, whatever it
has been handed (H11).
"""

from types import SimpleNamespace

from model.checker import ViolationError

OFF, QUEUED, DONE, CLOSED = "off", "queued", "done", "closed"
IDLE, WAITING, TAKEN, BACK, TIMEOUT = "idle", "waiting", "taken", "back", "timeout"


def shared(ops, *, caps=(0, 0), select=(), timed=(), hosts=(), mutate=""):
    """Return channels of *caps* and operations; select, timed and hosts: which of them are that."""
    waiters = [10 * me + i for me, arms in enumerate(ops) for i in range(len(arms))]
    n = len(ops)
    return SimpleNamespace(
        mutate=mutate, ops=ops, caps=caps, select=select, timeouts=timed, hosts=hosts,
        buf=[[] for _ in caps], back=[[] for _ in caps], handed=[0] * len(caps),
        nth=dict.fromkeys(waiters, 0),
        closed=[0] * len(caps), lock=[0] * (len(caps) + n), recvq=[[] for _ in caps],
        sendq=[[] for _ in caps], state=dict.fromkeys(waiters, OFF),
        val={w: ops[w // 10][w % 10][1] for w in waiters}, claim=[IDLE] * n, parked=[0] * n,
        published=[0] * n, canceled=[0] * n, runnable=[0] * n, timer=[0] * n, out=[""] * n,
        got=[0] * n, case=[-1] * n,
    )  # fmt: skip


def touch(s, w):
    """Note that waiter *w* is read or written by somebody else."""
    if s.out[w // 10]:
        raise ViolationError("a waiter is touched whose operation has ended")


def queue_of(s, w):
    """Return the queue in which *w* would stand."""
    chan, value = s.ops[w // 10][w % 10]
    return (s.sendq if value else s.recvq)[chan]


def unlink(s, w, state):
    """_waitq.unlink."""
    queue_of(s, w).remove(w)
    s.state[w] = state


def claimed(s, w, now):
    """Swap the claim of *w* from WAITING; without one it is always to be had (H2)."""
    me = w // 10
    if me not in s.select:
        return True
    if s.claim[me] != WAITING and s.mutate != "take without the claim":
        return False
    s.claim[me] = now
    return True


def dequeue(s, queue, state):
    """_waitq.dequeue; 0 if nobody is to be had."""
    while queue:
        w = queue[0]
        touch(s, w)
        if claimed(s, w, TAKEN):
            unlink(s, w, state)
            return w
        unlink(s, w, OFF)
    return -1


def live(s, queue):
    """_select.live."""
    while queue and queue[0] // 10 in s.select and s.claim[queue[0] // 10] != WAITING:
        touch(s, queue[0])
        unlink(s, queue[0], OFF)
    return queue


def chansend(s, c, value):
    """_chan.chansend: its answer, and who is to be woken."""
    if s.closed[c]:
        return "closed", -1
    w = dequeue(s, s.recvq[c], DONE)
    if w >= 0:
        s.handed[c] += 1
        s.nth[w], s.val[w] = s.handed[c], value
        return "done", w
    if len(s.buf[c]) + len(s.back[c]) >= s.caps[c]:
        return "blocked", -1
    s.buf[c].append(value)
    return "done", -1


def chanunrecv(s, c, w):
    """_chan.chanunrecv: who is to be woken."""
    to = -1 if s.mutate == "give back past who waits" else dequeue(s, s.recvq[c], DONE)
    if to >= 0:
        s.nth[to], s.val[to] = s.nth[w], s.val[w]
        return to
    s.back[c].append((s.nth[w], s.val[w]))
    if s.mutate != "give back in any order":
        s.back[c].sort()
    return -1


def take_given_back(s, c):
    """_chan.take_given_back."""
    (_, value), *s.back[c] = s.back[c]
    w = -1
    if len(s.buf[c]) + len(s.back[c]) < s.caps[c] or s.mutate == "take in past the capacity":
        w = -1 if s.mutate == "leave the sender" else dequeue(s, s.sendq[c], DONE)
    if w >= 0:
        s.buf[c].append(s.val[w])
        if len(s.buf[c]) + len(s.back[c]) > s.caps[c]:
            raise ViolationError("a sender is done where there is no room")
    return "done", value, w


def chanrecv(s, c):
    """_chan.chanrecv: its answer, the value, and who is to be woken."""
    if s.back[c]:
        return take_given_back(s, c)
    if s.buf[c]:
        value = s.buf[c].pop(0)
        w = -1 if s.mutate == "leave the sender" else dequeue(s, s.sendq[c], DONE)
        if w >= 0:
            s.buf[c].append(s.val[w])
        return "done", value, w
    w = dequeue(s, s.sendq[c], DONE)
    if w >= 0:
        return "done", s.val[w], w
    return ("closed" if s.closed[c] else "blocked"), 0, -1


def is_ready(s, c, value):
    """SelectOp.is_ready; of a plain operation not must_wait()."""
    if s.closed[c]:
        return True
    if value:
        return len(s.buf[c]) + len(s.back[c]) < s.caps[c] or live(s, s.recvq[c])
    return s.buf[c] or s.back[c] or live(s, s.sendq[c])


def wake(s, w):
    """_waitq.wake, outside every lock, by who has taken *w* out (H1)."""
    yield
    touch(s, w)
    make_runnable(s, w // 10)


def make_runnable(s, me):
    """Its park is over: once."""
    if not s.parked[me] or s.runnable[me]:
        raise ViolationError("a goroutine that is not parked is made runnable")
    s.runnable[me] = 1


def free(s, me):
    """Whether nobody holds a lock that *me* takes; it takes and gives them back in one step."""
    return lambda: not any(s.lock[at] for at in locks(s, me))


def locks(s, me):
    """SelectOp.sort_locks: those of its channels, else one of its own."""
    if s.ops[me]:
        return [c for c, _ in s.ops[me]]
    return [] if s.mutate == "no lock of its own" else [len(s.caps) + me]


def attempt(s, me):
    """ChanOp.attempt or SelectOp.attempt and pick: whether it has ended."""
    again = True
    while again:
        yield free(s, me)
        case = next((i for i, arm in enumerate(s.ops[me]) if is_ready(s, *arm)), -1)
        if case < 0:
            return False
        c, value = s.ops[me][case]
        if me in s.select:  # what is without a lock may come between the look and the deed
            hold(s, me, 1)
            yield
            hold(s, me, 0)
        if value:
            answer, w = chansend(s, c, value)
        else:
            answer, s.got[me], w = chanrecv(s, c)
        again = answer == "blocked"
    if w >= 0:
        yield from wake(s, w)
    end(s, me, answer, case)
    return True


def hold(s, me, value):
    """Lock or unlock the channels of *me*."""
    for at in locks(s, me):
        s.lock[at] = value


def end(s, me, how, case=-1):
    """The operation returns or raises: nobody may know of it any more."""
    if any(w // 10 == me for c in range(len(s.caps)) for w in (*s.recvq[c], *s.sendq[c])):
        raise ViolationError("an operation ends in a queue")
    s.out[me], s.case[me] = how, case


def goroutine(s, me):
    """Await one operation: WaitOp.step, then settle, until it has ended."""
    while not (yield from attempt(s, me)):
        yield
        s.published[me] = 1  # G1: published, committed, looked at
        if not (yield from commit(s, me)):
            s.published[me] = 0
            continue
        yield
        if s.canceled[me]:
            yield from abort(s, me)
        yield lambda: s.runnable[me]
        s.parked[me] = s.runnable[me] = s.published[me] = 0
        canceled = s.canceled[me]
        yield from take_back(s, me)
        if canceled and me in s.hosts:
            yield from drop(s, me)
            return
        if complete(s, me):
            return
        if canceled:
            end(s, me, "canceled")
            return
        s.claim[me] = IDLE
        canceled = 0  # what has been forgotten is not part of the state


def commit(s, me):
    """WaitOp.commit_word and SelectOp.commit_word."""
    yield free(s, me)
    if s.mutate != "commit without a look" and any(is_ready(s, *arm) for arm in s.ops[me]):
        return False
    s.parked[me] = 1
    if me in s.timeouts:
        hold(s, me, 1)
        s.timer[me] = 1
        yield
    for i in range(len(s.ops[me])):
        if i and s.mutate == "enqueue one by one":
            hold(s, me, 0)
            s.claim[me] = WAITING
            yield
        queue_of(s, 10 * me + i).append(10 * me + i)
        s.state[10 * me + i] = QUEUED
    s.claim[me] = WAITING
    hold(s, me, 0)
    return True


def abort(s, me):
    """GBase.abort, WaitOp.abort_word and SelectOp.abort_word."""
    if me in s.select:
        yield
        ours = claimed(s, 10 * me, BACK) and s.published[me]
    else:
        yield free(s, me)
        ours = s.published[me] and s.state[10 * me] == QUEUED
        if ours:
            unlink(s, 10 * me, OFF)
        elif s.mutate == "abort what is done":
            ours = s.published[me]
    if ours:
        make_runnable(s, me)


def take_back(s, me):
    """SelectOp.clear: leave every queue (H2), and the timer."""
    if me not in s.select:
        return
    yield free(s, me)
    s.timer[me] = 0
    for i in range(len(s.ops[me])):
        if s.state[10 * me + i] == QUEUED and s.mutate != "leave the losers":
            unlink(s, 10 * me + i, OFF)


def complete(s, me):
    """WaitOp.complete: what has been handed over has happened, cancelled or not (H4)."""
    for i, (_, value) in enumerate(s.ops[me]):
        w = 10 * me + i
        if s.state[w] == CLOSED:
            end(s, me, "closed", i)
            return True
        if s.state[w] == DONE and not (s.canceled[me] and s.mutate == "drop what is handed over"):
            if not value:
                s.got[me] = s.val[w]
            end(s, me, "done", i)
            return True
    if s.claim[me] == TIMEOUT:
        end(s, me, "timeout")
        return True
    return False


def drop(s, me):
    """WaitOp.interrupted where put_off raises, and drop: what is in hand is given back (H11)."""
    for i, (c, value) in enumerate(s.ops[me]):
        w = 10 * me + i
        if s.state[w] != DONE:
            continue
        if value:
            end(s, me, "done", i)  # sent
            return
        if s.mutate != "keep what is handed over":
            yield lambda c=c: not s.lock[c]
            to = chanunrecv(s, c, w)
            if to >= 0:
                yield from wake(s, to)
    end(s, me, "canceled")


# -- who else takes part ---------------------------------------------------------------------------


def cancel(s, me):
    """Scheduler.cancel: the state, then the park (G1)."""
    yield
    s.canceled[me] = 1
    yield
    if s.published[me]:
        yield from abort(s, me)


def timeout(s, me):
    """netpoll takes the timer, then SelectOp.__call__ runs: under the locks, as commit arms it."""
    yield lambda: s.timer[me]
    s.timer[me] = 0
    yield None if s.mutate == "time out without the locks" else free(s, me)
    if s.out[me] or s.claim[me] != WAITING:
        return
    s.claim[me] = TIMEOUT
    yield from wake(s, 10 * me)


def close(s, c):
    """Chan.close."""
    yield lambda: not s.lock[c]
    s.closed[c] = 1
    woken = ""
    for queue in (s.recvq[c], s.sendq[c]):
        while (w := dequeue(s, queue, CLOSED)) >= 0:
            woken += f"{w} "
            if s.mutate == "close wakes one":
                break
    w = 0
    for w in map(int, woken.split()):
        yield from wake(s, w)


# -- what must hold --------------------------------------------------------------------------------


def accounted(s, blocked):
    """Everybody waits: no value is lost or doubled, and nobody waits for what is there."""
    for me, arms in enumerate(s.ops):
        if not s.out[me]:
            if any(is_ready(s, *arm) for arm in arms):
                return "a wake-up is lost"
            if s.canceled[me]:
                return "a cancelled operation waits on"
            if me in s.timeouts:
                return "a timeout is lost"
    sent = [s.ops[me][s.case[me]][1] for me, how in enumerate(s.out) if how == "done"]
    sent = sorted(value for value in sent if value)
    got = [s.got[me] for me, how in enumerate(s.out) if how == "done" and
           not s.ops[me][s.case[me]][1]]  # fmt: skip
    back = [value for back in s.back for _, value in back]
    if sent != sorted(got + back + [value for buf in s.buf for value in buf]):
        return "a value is lost or doubled"
    if any(back != sorted(back) for back in s.back):
        return "what was given back is out of order"
    return None
