"""sysmon's deep sleep and a program that leaves idleness, as _sysmon.pyx does it, step by step.

Called by test_interleavings_runtime.py. S2: sysmon sets sysmonwait, then looks at npidle, then
sleeps without end; who leaves idleness lowers npidle first and then looks at sysmonwait. The bed
is a futex: it sleeps only if the note is still what sysmon has read before. `mutate` names the
mistakes that a program can make.
"""

from types import SimpleNamespace


def shared(npidle=1):
    """Return a scheduler with *npidle* idle Ps. busy: how many run goroutines now.
    deep: sysmon is in the futex. note: what the futex is asked about."""
    return SimpleNamespace(npidle=npidle, busy=0, sysmonwait=0, note=0, stop=0, deep=0, ended=0)


def sysmon(s, mutate=""):
    """Sysmon.loop where it has seen idleness for long: into the deep sleep and out, until stop."""
    while True:
        yield
        if s.stop:
            s.ended = 1
            return
        note = -1
        if mutate != "read the note last":
            yield
            note = s.note
        idle = 0
        if mutate == "look before set":
            yield
            idle = s.npidle
        yield
        s.sysmonwait = 1
        if mutate != "look before set":
            yield
            idle = s.npidle
        yield
        stop = s.stop
        if idle and (not stop or mutate == "do not look at stop"):
            if mutate == "read the note last":
                yield
                note = s.note
            s.deep = 1
            yield lambda note=note: s.note != note
            s.deep = 0
        yield
        s.sysmonwait = 0
        note = idle = stop = 0  # what has been forgotten is not part of the state
        # With nobody idle it sleeps for a bounded time only, which is no wait at all here.
        yield lambda: s.npidle or s.stop or not s.busy


def leaver(s, mutate=""):
    """SchedBase.block at its end, then a goroutine that computes for ever."""
    if mutate == "check before lower":
        yield
        waits = s.sysmonwait
        yield
        s.npidle -= 1
    else:
        yield
        s.npidle -= 1
        yield
        waits = s.sysmonwait
    if waits:
        yield
        s.sysmonwait = 0
        yield
        if mutate != "no wake":
            s.note += 1
    yield
    s.busy += 1


def back_and_forth(s):
    """A P that leaves idleness and comes back, as a server with little to do."""
    yield from leaver(s)
    yield
    s.busy -= 1
    yield
    s.npidle += 1


def stopper(s, mutate=""):
    """Sysmon.stop at the end of run()."""
    if mutate == "note before stop":
        yield
        s.note += 1
    yield
    s.stop = 1
    if mutate != "note before stop":
        yield
        s.note += 1


def somebody_watches(s, blocked):
    """Nobody computes unseen (S2), and a run that ends takes sysmon with it."""
    if s.stop:
        return None if s.ended else "sysmon outlives its run"
    if s.busy and s.npidle == 0 and s.deep:
        return "sysmon sleeps while a program computes"
    return None
