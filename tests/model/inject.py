"""Who blocks in the network and who adds to the global queue, as _p.pyx does it, step by step.

Called by test_interleavings_runtime.py. S1: who is about to block sets lastpoll to 0, then looks at
the global queue, then blocks; who adds does so first and then, if lastpoll is 0, breaks the poller.
`mutate` names the mistakes that a program can make.
"""

from types import SimpleNamespace


def shared(inited=1):
    """Return a scheduler. globq: goroutines queued for all. inited: the poller has its epoll."""
    return SimpleNamespace(globq=0, lastpoll=1, broken=0, ran=0, inited=inited)


def blocker(s, mutate=""):
    """The last idle M: findRunnable and SchedBase.block, again and again."""
    while True:
        yield
        s.ran += s.globq
        s.globq = 0
        if mutate == "look before zero":
            yield
            queued = s.globq
            yield
            s.lastpoll = 0
        else:
            yield
            s.lastpoll = 0
            yield
            queued = s.globq
        if not queued:
            yield
            s.inited = 1
            yield lambda: s.broken
            s.broken = 0
        yield
        s.lastpoll = 1
        queued = 0  # what has been forgotten is not part of the state


def injector(s, mutate=""):
    """inject_glist, and every other that puts work where all Ms look."""
    if mutate != "break before queue":
        yield
        s.globq += 1
    yield
    if s.lastpoll == 0:
        yield
        if s.inited or mutate != "no break before the first poll":
            s.broken = 1
    if mutate == "break before queue":
        yield
        s.globq += 1


def sysmon(s, mutate=""):
    """sysmon's poll: only from a lastpoll that is not 0, and it leaves 0 alone (lastpoll's CAS)."""
    yield
    last = s.lastpoll
    if last == 0:
        return
    yield
    if mutate == "store lastpoll without cas" or s.lastpoll == last:
        s.lastpoll = 1
        yield from injector(s)


def nobody_blocks_beside_work(s, blocked):
    """Work for all is not queued while everybody sleeps (S1)."""
    return "everybody sleeps over queued work" if s.globq else None
