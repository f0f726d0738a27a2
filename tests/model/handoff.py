"""Ps that change hands, idle Ps and Ms, and the network: the scheduler's protocols, step by step.

Called by test_interleavings_handoff.py. A function here has the name of the one it follows in
_p, _sched, _find, _exec or _sysmon, and a step wherever that touches what others touch: an atomic,
or all that is done under one lock. No step of its own is given to a look that the swap after it
repeats, nor to a store that nobody can see before the next one. `s.mutate` names the mistake that
a function is to make.

Ms are numbered from 1, Ps from 0, goroutines from 1. Who owns a P is noted beside what the code
knows of it (`owner`), and so is where a goroutine is (`at`); whoever acts on a P that is not its
own, or runs or queues a goroutine that runs or is queued already, has broken the protocol.

A goroutine's script is a list of slices, a slice a string of what it does:
    2   makes goroutine 2 runnable (ready_g)        (  )   syscall(): enter, exit
    b2  computes until goroutine 2 has ended        $      computes until it has lost its P
and at its end: Y gosched, P park, Q queued again by an M that has to (settle), . the end.
"""

from types import SimpleNamespace

from model.checker import ViolationError

IDLE, SCHED, RUN, RETAKEN = range(4)
NOBODY, SYSMON, OUTSIDE = 0, -1, -2  # owners of a P that are no Ms
NO_P = -1


def shared(scripts, *, ms, ps=1, busy=(), queued=(), mutate="", polls=False, spare=0):
    """Return a scheduler of *ms* Ms and *ps* Ps. busy: which Ms begin with a P, in their order.

    queued: goroutines in the global queue. The other Ms sleep on the idle list, but for the last
    *spare*, which have not begun. polls: whether Ms look at the network without blocking.
    """
    holders = list(busy)
    return SimpleNamespace(
        mutate=mutate, polls=polls, scripts=scripts, pc=[0] * (len(scripts) + 1),
        at=["-"] + ["queued" if g + 1 in queued else "parked" for g in range(len(scripts))],
        token=[0] * (len(scripts) + 1), lockedm=[0] * (len(scripts) + 1),
        globq=list(queued), net=[], runq=[[] for _ in range(ps)], runnext=[0] * ps,
        status=[word_sched(holders[p]) if p < len(holders) else IDLE for p in range(ps)],
        owner=[holders[p] if p < len(holders) else NOBODY for p in range(ps)],
        pidle=list(range(len(holders), ps)), npidle=ps - len(holders), nprocs=ps,
        midle=[m for m in range(1, ms + 1 - spare) if m not in holders],
        spare=list(range(ms + 1 - spare, ms + 1)), nmspinning=0, lastpoll=1, pollingnet=0,
        broken=0, blocked=0, p=[NO_P] + [holders.index(m) if m in holders else NO_P
                                         for m in range(1, ms + 1)],
        nextp=[NO_P] * (ms + 1), note=[0] * (ms + 1), spinning=[0] * (ms + 1),
        tick=[0] * (ms + 1), slice=[0] * ps,
        runword=[word_sched(m) for m in range(ms + 1)],
        soon=int(any(c.isdigit() for script in scripts for part in script for c in part)),
    )  # fmt: skip


def word_sched(m):
    """word_sched: the status word of a P that *m* decides about."""
    return SCHED | m << 2


def cas(words, at, was, now):
    """Compare and swap."""
    if words[at] != was:
        return False
    words[at] = now
    return True


def pass_on(s, p, was, now):
    """Note that *p* goes from one owner to another."""
    if s.owner[p] != was:
        raise ViolationError(f"{was} gives away the P of {s.owner[p]}")
    s.owner[p] = now


def enqueued(s, g):
    """Note that *g* is put on a queue."""
    if s.at[g] in ("queued", "dead"):
        raise ViolationError(f"a goroutine that is {s.at[g]} is queued")
    s.at[g] = "queued"


# -- _sched: idle lists ----------------------------------------------------------------------------


def pidleput(s, p, who):
    """SchedBase.pidleput."""
    yield
    pass_on(s, p, who, NOBODY)
    s.status[p] = IDLE
    s.pidle.insert(0, p)
    s.npidle += 1


def pidleget(s, who):
    """SchedBase.pidleget; what it does about sysmon is in deep.py."""
    yield
    if not s.pidle:
        return NO_P
    p = s.pidle.pop(0)
    s.npidle -= 1
    pass_on(s, p, NOBODY, who)
    return p


def acquirep(s, m):
    """SchedBase.acquirep."""
    p = yield from pidleget(s, m)
    if p == NO_P:
        return False
    s.status[p] = word_sched(m)
    s.p[m] = p
    return True


def give(s, m, p, spinning, who):
    """SchedBase.give."""
    if s.mutate == "note before nextp":
        yield
        s.note[m] = 1
    yield
    pass_on(s, p, who, m)
    s.spinning[m] = spinning
    s.status[p] = word_sched(m)
    s.nextp[m] = p
    if s.mutate != "note before nextp":
        s.note[m] = 1


def startm(s, p, spinning, who):
    """SchedBase.startm; an M that has not begun is one that sleeps on no list."""
    while True:
        yield
        m = 0
        if s.midle:
            m = s.midle.pop(0)
        elif s.spare:
            m = s.spare.pop(0)
        if m:
            yield from give(s, m, p, spinning, who)
            return
        if spinning:
            yield
            s.nmspinning -= 1
        spinning = 0
        yield from pidleput(s, p, who)
        if s.mutate == "at the limit and do not look":
            return
        yield from wake_net_poller(s)
        yield
        if not s.midle:
            return
        p = yield from pidleget(s, who)
        if p == NO_P:
            return


def after_idle(s, who):
    """SchedBase.after_idle."""
    if (yield from work_anywhere(s)):
        yield from kick(s, who)
        return
    yield
    if s.lastpoll == 0 or s.mutate == "nobody need poll":
        return
    yield
    if s.npidle == s.nprocs:
        p = yield from pidleget(s, who)
        if p != NO_P:
            yield from startm(s, p, 0, who)


def handoffp(s, p, who):
    """SchedBase.handoffp, but for retire(): gomaxprocs() is left alone."""
    yield
    work = s.runq[p]
    if not work and s.soon:
        yield
        work = s.runnext[p]
    if not work:
        yield
        work = s.globq
    if work:
        yield from startm(s, p, 0, who)
        return
    yield
    nobody = s.nmspinning
    yield
    nobody += s.npidle
    if nobody == 0:
        yield
        if cas_spinning(s):
            yield from startm(s, p, 1, who)
            return
    yield
    polled = s.lastpoll != 0
    yield
    if polled and s.npidle == s.nprocs - 1:
        yield from startm(s, p, 0, who)
        return
    yield from pidleput(s, p, who)
    yield from after_idle(s, who)


def cas_spinning(s):
    """Swap nmspinning from 0 to 1."""
    if s.nmspinning:
        return False
    s.nmspinning = 1
    return True


# -- _sched: waking --------------------------------------------------------------------------------


def work_anywhere(s):
    """SchedBase.work_anywhere."""
    yield
    if s.globq:
        return True
    for p in range(s.nprocs):
        yield
        if s.runq[p]:
            return True
        if s.soon:
            yield
            if s.runnext[p]:
                return True
    return False


def kick(s, who):
    """SchedBase.kick."""
    yield
    if s.npidle == 0:
        return
    yield
    if s.lastpoll == 0:
        yield from wake_net_poller(s)
        return
    yield from wakep(s, who)


def wake_net_poller(s):
    """SchedBase.wake_net_poller; the break itself is P2, in _epoll."""
    yield
    if s.lastpoll == 0:
        yield
        s.broken = 1


def wakep(s, who):
    """SchedBase.wakep."""
    while True:
        yield
        if not cas_spinning(s):
            return
        p = yield from pidleget(s, who)
        if p != NO_P:
            yield from startm(s, p, 1, who)
            return
        yield
        s.nmspinning -= 1
        if s.mutate == "wake nobody and do not look":
            return
        yield
        if s.npidle == 0:
            return
        if not (yield from work_anywhere(s)):
            return


def owns(s, p, m):
    """_p.owns."""
    return s.status[p] in (s.runword[m], word_sched(m))


def globq_push(s, g):
    """RunQ.push on the global queue."""
    yield
    enqueued(s, g)
    s.globq.append(g)


def push(s, p, g):
    """PBase.runq.push; a goroutine may be queued on a P that is lost, if somebody is told (A2)."""
    yield
    enqueued(s, g)
    s.runq[p].append(g)


def ready(s, p, g):
    """PBase.ready: to run next; the one that was goes to the tail."""
    yield
    enqueued(s, g)
    old = s.runnext[p]
    s.runnext[p] = g
    if old:
        yield
        s.runq[p].append(old)


def ready_g(s, g, m=0):
    """_sched.ready_g, on the thread of *m* or on one that is no M (0)."""
    if not m:
        if s.mutate == "kick before the push":
            yield from kick(s, OUTSIDE)
            yield from globq_push(s, g)
            return
        yield from globq_push(s, g)
        yield from kick(s, OUTSIDE)
        return
    p = s.p[m]
    if p != NO_P:
        yield
        if owns(s, p, m):
            yield from ready(s, p, g)
            if s.mutate == "no look after the push":
                return
            yield
            if not owns(s, p, m):
                yield from kick(s, m)
            else:
                yield
                if s.npidle:
                    yield from wakep(s, m)
            return
    yield from globq_push(s, g)
    yield from kick(s, m)


def unpark(s, g, m=0):
    """Make *g* runnable, or have its next commit fail: what takes its word out does (P3)."""
    yield
    if s.at[g] != "parked":
        s.token[g] = 1
        return
    s.at[g] = "woken"
    yield from ready_g(s, g, m)


# -- _find -----------------------------------------------------------------------------------------


def machine(s, m):
    """MBase's thread: Scheduler.schedule, for ever."""
    if m in s.spare or m in s.midle:
        yield from sleep_m(s, m)
    while True:
        if s.p[m] == NO_P:
            yield from stopm(s, m)
        else:
            yield from execute(s, m)
            yield from find_runnable(s, m)


def mine(s, m):
    """Return the P of *m*, which acts as its owner (A2)."""
    p = s.p[m]
    pass_on(s, p, m, m)
    return p


def find_runnable(s, m):
    """Scheduler.find_runnable, from where execute() has just looked: what is local, and for all."""
    if s.p[m] == NO_P:
        return
    if s.polls and (yield from poll(s, m)):
        return
    if not (yield from steal(s, m)):
        yield from idle(s, m)


def poll(s, m):
    """FindBase.poll."""
    yield
    last = s.lastpoll
    if last == 0:
        return 0
    yield
    if s.pollingnet:
        return 0
    s.pollingnet = 1
    yield
    found = len(s.net)
    taken, s.net[:] = list(s.net), []
    for g in taken:
        s.at[g] = "woken"
    yield
    if s.lastpoll == last or s.mutate == "poll stores lastpoll":
        s.lastpoll = last % 2 + 1  # another time
    yield
    s.pollingnet = 0
    yield from take(s, m, taken)
    return found


def take(s, m, taken):
    """FindBase.take."""
    if taken and s.p[m] != NO_P:
        yield
        p = mine(s, m)
        for g in taken:
            enqueued(s, g)
            s.runq[p].append(g)
        if len(taken) > 1:
            yield
            if s.npidle:
                yield from wakep(s, m)
    elif taken:
        yield
        for g in taken:
            enqueued(s, g)
            s.globq.append(g)
        yield from kick(s, m)


def steal(s, m):
    """FindBase.steal, with one turn of its four and the others in their order."""
    if s.nprocs < 2:
        return False
    if not s.spinning[m]:
        yield
        spinning = s.nmspinning
        yield
        if 2 * spinning >= s.nprocs - s.npidle:
            return False
        yield
        s.spinning[m] = 1
        s.nmspinning += 1
    for p in range(s.nprocs):
        if p == s.p[m]:
            continue
        yield
        half = (len(s.runq[p]) + 1) // 2
        if half:
            words = ",".join(map(str, s.runq[p][:half]))  # in nobody's queue until the next step
            del s.runq[p][:half]
            yield
            s.runq[mine(s, m)] += map(int, words.split(","))
            return True
        if not s.soon:
            continue
        yield
        word, s.runnext[p] = s.runnext[p], 0
        if word:
            yield
            s.runq[mine(s, m)].append(word)
            return True
    return False


def idle(s, m):
    """FindBase.idle, but for retire()."""
    spinning = s.spinning[m]
    found = False
    if s.mutate == "look before npidle":
        found = yield from work_anywhere(s)
    p, s.p[m] = s.p[m], NO_P
    yield from pidleput(s, p, m)
    if s.mutate == "look before lower":
        found = yield from work_anywhere(s)
    if spinning:
        yield
        s.spinning[m] = 0
        s.nmspinning -= 1
    if not s.mutate.startswith("look before"):
        found = yield from work_anywhere(s)
    if found:
        yield from acquirep(s, m)
        return
    yield
    last, s.lastpoll = s.lastpoll, 0
    if last:
        yield from block(s, m)
    else:
        yield from stopm(s, m)


def block(s, m):
    """FindBase.block."""
    taken = []
    yield
    work = s.globq and s.mutate != "block without a look"
    if not work and not s.mutate.startswith(("block without", "look before")):
        yield
        work = s.npidle and (yield from work_anywhere(s))
    if not work:
        if s.blocked:
            raise ViolationError("two Ms block in the network")
        s.blocked = m
        yield lambda: s.broken or s.net
        s.broken = s.blocked = 0
        taken, s.net[:] = list(s.net), []
        for g in taken:
            s.at[g] = "woken"
    yield
    s.lastpoll = 1
    yield from acquirep(s, m)
    yield from take(s, m, taken)


def stopm(s, m):
    """FindBase.stopm, without the end of the run. Whether all is dead is seen in block()."""
    yield
    s.midle.insert(0, m)
    if not s.mutate.startswith(("stop without", "look before")):
        yield
        if s.npidle:
            yield from after_idle(s, m)
    yield from sleep_m(s, m)


def sleep_m(s, m):
    """SchedBase.sleep_m and _take_nextp, until there is a P."""
    while True:
        yield lambda: s.note[m]
        s.note[m] = 0
        yield
        p = s.nextp[m]
        if p != NO_P:
            s.nextp[m] = NO_P
            s.p[m] = p
            return


# -- _exec -----------------------------------------------------------------------------------------


def execute(s, m):
    """ExecBase.execute: all that is local, then what is for all."""
    while s.p[m] != NO_P:
        g = yield from pop(s, mine(s, m))
        if not g:
            yield
            if not s.globq:
                return
            g = s.globq.pop(0)
        if s.spinning[m]:
            yield from stop_spinning(s, m)
        if s.lockedm[g] not in (0, m):
            p, s.p[m] = s.p[m], NO_P
            yield from give(s, s.lockedm[g], p, 0, m)  # start_locked
            return
        yield from resume(s, m, mine(s, m), g)
        g = p = 0  # what has been forgotten is not part of the state


def pop(s, p):
    """PBase.pop."""
    if s.soon:
        yield
        g, s.runnext[p] = s.runnext[p], 0
        if g:
            return g
    yield
    return s.runq[p].pop(0) if s.runq[p] else 0


def stop_spinning(s, m):
    """FindBase.stop_spinning."""
    s.spinning[m] = 0
    yield
    s.nmspinning -= 1
    if s.nmspinning == 0:
        yield
        if s.npidle:
            yield from wakep(s, m)


def begin_slice(s, m):
    """_exec.begin_slice."""
    if s.mutate != "no tick":
        s.tick[m] += 1
    return RUN | m << 2 | s.tick[m] << 8


def resume(s, m, p, g):
    """ExecBase.resume: a slice, then what the goroutine has yielded for."""
    if s.at[g] != "queued":
        raise ViolationError(f"a goroutine that is {s.at[g]} is resumed")
    s.at[g] = "running"
    yield
    s.runword[m] = s.status[mine(s, m)] = begin_slice(s, m)
    s.slice[p] += 1
    p = 0
    for i, do in enumerate(s.scripts[g - 1][s.pc[g]]):
        if do == "$":
            yield lambda: s.owner[s.p[m]] != m
        elif do == "b":
            other = int(s.scripts[g - 1][s.pc[g]][i + 1])
            yield lambda: s.at[other] == "dead"  # noqa: B023
            break
        elif do == "(":
            yield from syscall_enter(s, m)
        elif do == ")":
            yield from syscall_exit(s, m, g)
        elif do.isdigit():
            yield from unpark(s, int(do), m)
        other = 0
    do = s.scripts[g - 1][s.pc[g]][-1]
    s.pc[g] += 1
    yield from leave_slice(s, m)
    yield from settle(s, m, g, do)


def leave_slice(s, m):
    """ExecBase.leave_slice."""
    p = s.p[m]
    running, s.runword[m] = s.runword[m], word_sched(m)
    if p != NO_P:
        yield
        if s.mutate == "leave without cas":
            s.status[p] = word_sched(m)
            return
        if cas(s.status, p, running, word_sched(m)):
            pass_on(s, p, m, m)
            return
    if s.mutate == "keep the lost P":
        return
    s.p[m] = NO_P
    yield from acquirep(s, m)


def settle(s, m, g, do):
    """ExecBase.settle."""
    if do == ".":
        s.at[g] = "dead"
    elif do == "Y":
        yield from globq_push(s, g)
        if s.p[m] == NO_P:
            yield from kick(s, m)
    elif do == "Q":
        yield from queue(s, m, g)
    else:
        yield
        if not s.token[g]:
            s.at[g] = "parked"
            return
        s.token[g] = 0
        yield from queue(s, m, g)


def queue(s, m, g):
    """ExecBase.queue."""
    p = s.p[m]
    if p != NO_P:
        yield from push(s, p, g)
        yield
        if not owns(s, p, m):
            yield from kick(s, m)
        return
    yield from globq_push(s, g)
    yield from kick(s, m)


def syscall_enter(s, m):
    """Syscall.__enter__."""
    p, s.p[m] = s.p[m], NO_P
    yield
    if s.mutate == "enter without cas":
        s.status[p] = word_sched(m)
    elif not cas(s.status, p, s.runword[m], word_sched(m)):
        return
    pass_on(s, p, m, m)
    yield from handoffp(s, p, m)


def syscall_exit(s, m, g):
    """Syscall.__exit__ and wait_for_p."""
    if not (yield from acquirep(s, m)):
        s.lockedm[g] = m
        yield
        s.globq.append(g)
        if s.mutate != "wait for a P in silence":
            yield from kick(s, m)
        yield from sleep_m(s, m)
        s.lockedm[g] = 0
    yield
    s.runword[m] = s.status[mine(s, m)] = begin_slice(s, m)
    s.slice[s.p[m]] += 1


# -- who else takes part ---------------------------------------------------------------------------


def sysmon(s, p=0, looks=1):
    """Sysmon.look and Sysmon.retake: the word of a slice, 10 ms, the same word, the swap."""
    for _ in range(looks):
        yield lambda: s.status[p] & 3 == RUN
        seen = s.status[p]
        number = s.slice[p]
        yield
        if s.mutate == "retake without cas":
            s.status[p] = RETAKEN
        elif not cas(s.status, p, seen, RETAKEN):
            continue
        if s.slice[p] != number:
            raise ViolationError("a slice is retaken that has just begun")
        s.owner[p] = SYSMON
        seen = number = 0
        yield from handoffp(s, p, SYSMON)


def outside(s, g):
    """A plain thread, or a timer's callable, that makes *g* runnable."""
    yield from unpark(s, g)


def event(s, g):
    """The network has something for *g*."""
    yield
    if s.at[g] == "parked":
        s.at[g] = "in the network"
        s.net.append(g)
    else:
        s.token[g] = 1


# -- what must hold --------------------------------------------------------------------------------


def one_owner(s):
    """Who runs a P owns it, and who is told to (A1); nothing is counted twice."""
    if s.nmspinning < 0 or s.npidle != len(s.pidle):
        return "the counts are wrong"
    for m, p in enumerate(s.p):
        if p != NO_P and owns(s, p, m) and s.owner[p] != m:
            return f"M {m} and {s.owner[p]} own one P"
    return None


def nothing_left(s, blocked):
    """Everybody waits: no work beside an idle P (S3), every goroutine has ended, one polls (S4)."""
    del blocked
    if "queued" in s.at and s.npidle:
        return "a goroutine is queued beside an idle P"
    if any(at != "dead" for at in s.at[1:]):
        return "a goroutine is lost"
    if s.npidle < s.nprocs:
        return "a P is lost"
    return None if s.blocked else "nobody watches the network"
