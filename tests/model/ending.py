"""A run that ends, and what is started in it meanwhile, as _base, _exec and sched do, step by step.

Called by test_interleavings_dead.py. J3: who starts a goroutine counts it in `live` before it is
queued, and who posts a call counts that until it has been made; the run is over by one swap of a
live that is 0. `mutate` names the mistake that a function is to make.

A goroutine is the string of what it does: g starts one that does nothing, p posts a call that
starts one.
"""

from types import SimpleNamespace

OVER = -1000


def shared(goroutines, mutate=""):
    """Return a run with *goroutines*, all queued, whose main has ended."""
    return SimpleNamespace(
        mutate=mutate, live=len(goroutines), over=0, finished=0, globq=list(goroutines), ready=[],
        lock=0, refused=0,
    )  # fmt: skip


def register(s, what):
    """ExecBase.register, and what start_g makes of its answer."""
    if s.mutate == "look before count":
        yield
        late = s.live < 0
        yield
        s.live += not late
    else:
        yield
        s.live += 1
        yield
        late = s.live < 0
        if late and s.mutate != "never too late":
            yield
            s.live -= 1
    if late and s.mutate != "never too late":
        s.refused += 1
        return
    yield
    s.globq.append(what)


def post(s):
    """FindBase.post: of a call that starts a goroutine."""
    if s.mutate != "post uncounted":
        yield
        s.live += 1
        yield
        if s.live < 0:
            yield
            s.live -= 1
            s.refused += 1
            return
    yield
    s.ready.append("g")


def machine(s):
    """An M: what is queued, and what is posted."""
    while True:
        yield lambda: s.globq or s.ready or s.finished
        if s.finished:
            return
        call = bool(s.ready)
        what = s.ready.pop(0) if call else s.globq.pop(0)
        for do in what:
            if do == "g":
                yield from register(s, "")
            else:
                yield from post(s)
        if not call or s.mutate != "post uncounted":
            yield
            s.live -= 1
        yield from check_end(s)
        what, call = "", False


def check_end(s):
    """Scheduler.check_end, once the runtime's own have ended."""
    yield lambda: not s.lock
    s.lock = 1
    if s.mutate == "look, then end":
        yield
        over = s.live <= 0
        yield
        if over and s.live >= 0:
            s.live += OVER
    else:
        yield
        if s.live == 0:
            s.live += OVER
        over = s.live < 0
    yield
    s.lock = 0
    if over:
        yield
        s.finished = 1


def finaliser(s):
    """What runs on an M between two goroutines and is not counted: it starts one."""
    yield from register(s, "")


def outside(s):
    """A plain thread that posts."""
    yield from post(s)


def ended(s, blocked):
    """The run has ended, and nothing is left in it."""
    del blocked
    if s.globq:
        return "a goroutine is never run"
    if s.ready:
        return "a call is never made"
    return None if s.finished and s.live == OVER else "it does not end"
