"""Who tells of a deadlock, and what is on no list meanwhile, as _find and _sysmon do, step by step.

Called by test_interleavings_dead.py. S8: who takes goroutines or calls off their list without a P
counts itself in `handing` until they are on another; who looks sees every P idle, then the slices
(A4), then handing, then the lists, then that no P has been taken meanwhile. `mutate` names the
mistake that a function is to make.

A goroutine's script says what each of its slices ends with: N it waits in the network, whose event
comes at any moment; F for what nothing but a call can wake; L before one of them: it has lost its P
meanwhile; . the end. A word in the network above 0 is a goroutine, one below a call that wakes that
goroutine, made by who takes it out.
"""

from types import SimpleNamespace

from model.checker import ViolationError


def shared(scripts, *, ms=2, ps=1, busy=1, calls=(), waits=False, mutate="", handoff=True):
    """Return a scheduler. M 1 to *busy* have a P, the others sleep; all goroutines are queued, or
    all of them wait in the network.

    calls: which goroutines a timer's call will wake.
    """
    every = list(range(1, len(scripts) + 1))
    return SimpleNamespace(
        mutate=mutate, handoff=handoff, scripts=scripts, pc=[0] * len(scripts),
        at=["in the network" if waits else "queued"] * len(scripts), token=[0] * len(scripts),
        globq=[] if waits else every, net=[-g for g in calls] + (every if waits else []), nprocs=ps,
        npidle=ps - busy, taken=[1] * (ms + 1), lastpoll=1, handing=0, broken=0, told=0,
        p=[0] + [int(m <= busy) for m in range(1, ms + 1)], run=[0] * (ms + 1),
        settling=[0] * (ms + 1), midle=list(range(busy + 1, ms + 1)), calls=len(calls),
        loses=int(any("L" in script for script in scripts)),
    )  # fmt: skip


# -- Ps --------------------------------------------------------------------------------------------


def acquirep(s, m):
    """SchedBase.acquirep, pidleget."""
    yield
    if s.npidle:
        s.npidle -= 1
        s.taken[:] = [1] * len(s.taken)
        s.p[m] = 1


def pidleput(s, m):
    """SchedBase.pidleput."""
    yield
    s.p[m] = 0
    s.npidle += 1


def startm(s):
    """SchedBase.wakep, startm: an idle P for an idle M."""
    yield
    if s.handoff and s.npidle and s.midle:
        s.npidle -= 1
        s.taken[:] = [1] * len(s.taken)
        s.p[s.midle.pop(0)] = 1


def wake_net_poller(s):
    """SchedBase.wake_net_poller."""
    yield
    if s.lastpoll == 0:
        s.broken = 1


def kick(s):
    """SchedBase.kick."""
    yield
    if s.lastpoll == 0:
        yield from wake_net_poller(s)
    else:
        yield from startm(s)


def queue(s, g):
    """Put *g* where all look."""
    yield
    s.at[g - 1] = "queued"
    s.globq.append(g)
    yield from kick(s)


# -- _find -----------------------------------------------------------------------------------------


def machine(s, m):
    """The thread of an M."""
    if not s.p[m]:
        yield lambda: s.p[m]
    while not s.told:
        if not s.p[m]:
            yield from stopm(s, m)
            continue
        yield
        g = s.globq.pop(0) if s.globq else 0
        if g:
            yield from resume(s, m, g)
        else:
            yield from idle(s, m)
        g = 0  # what has been forgotten is not part of the state


def idle(s, m):
    """FindBase.idle."""
    yield from pidleput(s, m)
    yield
    if s.globq:
        yield from acquirep(s, m)
        return
    yield
    last, s.lastpoll = s.lastpoll, 0
    if last:
        yield from block(s, m)
    else:
        yield from stopm(s, m)


def stopm(s, m):
    """FindBase.stopm."""
    yield
    s.midle.append(m)
    if (yield from quiet(s, m)):
        yield from wake_net_poller(s)
    yield lambda: s.p[m] or s.told


def block(s, m):
    """FindBase.block; who is told wakes all, as die() does."""
    words = []
    if (yield from quiet(s, m)):
        if s.calls or not {"for ever", "dead"}.issuperset(s.at):
            raise ViolationError("a deadlock is told that is none")
        s.told = 1
        return
    yield
    if not s.globq:
        yield lambda: s.broken or s.net
        s.broken = 0
        words[:], s.net[:] = s.net, []
    if s.mutate not in ("nothing in hand", "lastpoll before handing"):
        yield
        s.handing += 1
    yield
    s.lastpoll = 1
    if s.mutate == "lastpoll before handing":
        yield
        s.handing += 1
    yield from acquirep(s, m)
    yield from take(s, words)
    if s.mutate != "nothing in hand":
        yield
        s.handing -= 1


def take(s, words):
    """FindBase.take: *words* are on no list."""
    while words:
        word = words.pop(0)
        if word < 0:
            word = -word
            yield
            s.calls -= 1
            if s.at[word - 1] != "for ever":
                s.token[word - 1] = 1  # it does not wait for that yet
                continue
            s.at[word - 1] = "woken"
        yield from queue(s, word)
        word = 0


def quiet(s, m):
    """FindBase.quiet; taken is a flag of who looks here, not a counter, so that states are few."""
    found = yield from looks_quiet(s, m)
    s.taken[m] = 1
    return found


def looks_quiet(s, me):
    """All that FindBase.quiet looks at."""
    late = s.mutate == "handing after the lists"
    yield
    s.taken[me] = 0
    yield
    if s.npidle != s.nprocs:
        return False
    for m in range(1, len(s.p)):
        yield
        if s.run[m]:
            return False
        if s.loses and s.mutate != "settling is not seen":
            yield
            if s.settling[m]:
                return False
    if not late:
        yield
        if s.handing:
            return False
    yield
    if s.net:
        return False
    yield
    if s.globq:
        return False
    if late:
        yield
        if s.handing:
            return False
    yield
    if s.npidle != s.nprocs:
        return False
    yield
    return not s.taken[me] or s.mutate == "taken is not seen"


# -- _exec -----------------------------------------------------------------------------------------


def resume(s, m, g):
    """ExecBase.resume: a slice, and what it ends with."""
    yield
    s.run[m] = 1
    s.at[g - 1] = "running"
    do = s.scripts[g - 1][s.pc[g - 1]]
    s.pc[g - 1] += 1
    if do == "L":
        yield from pidleput(s, m)  # sysmon has taken it, and found nothing to do with it
        if s.lastpoll and s.npidle == s.nprocs:
            yield from startm(s)  # after_idle
        yield
        s.settling[m] = 1
        do = s.scripts[g - 1][s.pc[g - 1]]
        s.pc[g - 1] += 1
    yield
    s.run[m] = 0
    if not s.p[m]:
        yield from acquirep(s, m)
    yield
    if do == ".":
        s.at[g - 1] = "dead"
    elif do == "N":
        s.at[g - 1] = "in the network"
        s.net.append(g)
    elif s.token[g - 1]:
        s.token[g - 1] = 0
        yield from queue(s, g)
    else:
        s.at[g - 1] = "for ever"
    if s.settling[m]:
        yield
        s.settling[m] = 0


# -- _sysmon ---------------------------------------------------------------------------------------


def sysmon(s, looks=1):
    """Sysmon.poll, inject and handed_over."""
    for _ in range(looks):
        yield
        last = s.lastpoll
        if last == 0:
            continue
        if s.mutate != "sysmon counts late":
            yield
            s.handing += 1
        yield
        words = []
        if s.lastpoll == last:
            s.lastpoll = 3 - last  # another time
            yield
            words[:], s.net[:] = s.net, []
        if s.mutate == "sysmon counts late":
            yield
            s.handing += 1
        ready = len(words)
        for word in words:
            yield
            if word > 0:
                s.at[word - 1] = "queued"
                s.globq.append(word)
            else:
                s.net.append(word)  # posted
        words.clear()
        for _ in range(ready):
            yield from startm(s)
        if ready:
            yield from wake_net_poller(s)
        yield
        s.handing -= 1
        if s.mutate == "sysmon leaves in silence":
            continue
        yield
        if s.lastpoll == 0 and s.npidle == s.nprocs:
            s.broken = 1
        last = ready = word = 0


def told(s, blocked):
    """Everybody waits: nothing is left to do, and if somebody waits for ever that has been told."""
    del blocked
    if s.handing:
        return "the count is wrong"
    if s.globq or s.net:
        return "a goroutine is lost"
    return None if s.told or "for ever" not in s.at else "a deadlock that nobody tells"
