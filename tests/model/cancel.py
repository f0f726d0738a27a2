"""Cancel a goroutine that parks, runs and parks again, as _p.pyx does it, step by step.

Called by test_interleavings_runtime.py. G1: who cancels sets the state first and then aborts the
park; the parker publishes its park, commits, and then looks at the state; what is thrown in is
decided at the resume. `mutate` names the mistakes that a program can make.

The goroutine parks twice. Two Ms run whatever is queued, so it may be resumed on the other one
before the first has done with its park (K1). Its requests hold a word each, or share one (an
operation that yields itself again): NIL, WAIT for a descriptor that has been announced, WORD.
"""

from types import SimpleNamespace

from model.checker import ViolationError

NIL, READY, WAIT, WORD = range(4)
PARKS = 2


def shared(announced=False, same=False):
    """Return one runnable goroutine.

    words: of the requests; announced: they begin at WAIT, as a pollDesc's. park: the number of the
    published request, 0 for none. parks: how often it has parked. parked: it comes from a park.
    owed: it was cancelled before one of its parks, which must raise.
    """
    return SimpleNamespace(
        words=[NIL] * (PARKS + 1), announced=announced, same=same, park=0, parks=0, parked=0,
        queued=1, running=0, canceled=0, owed=0, done=0, result="",
    )  # fmt: skip


def slot(s, number):
    """Return which word request *number* has."""
    return 1 if s.same else number


def abort(s, number):
    """abort_word, one compare-and-swap: 1 the waiter is ours, 2 never committed, 0 neither."""
    at = slot(s, number)
    if s.words[at] == WORD:
        s.words[at] = NIL
        return 1
    if s.words[at] == WAIT:
        s.words[at] = NIL
        return 2
    return 0


def commit(s, number):
    """commit_word: whether the goroutine is parked."""
    at = slot(s, number)
    if s.words[at] != (WAIT if s.announced else NIL):
        s.words[at] = NIL  # the operation takes its readiness when it goes on
        return False
    s.words[at] = WORD
    return True


def queue(s):
    """Make it runnable: who took its word does that, and nobody else."""
    s.queued += 1
    if s.queued + s.running > 1 and not s.done:
        raise ViolationError("it is made runnable twice")


def machine(s, mutate=""):
    """An M: resume, settle, again."""
    while True:
        yield lambda: s.queued or s.done
        if s.done:
            return
        s.queued -= 1
        if s.running:
            raise ViolationError("it is resumed while it runs")
        s.running = 1
        yield
        s.park = 0
        yield
        if s.parked and s.canceled and mutate != "do not look at the resume":
            s.result = "cancelled"
            s.done = 1
            return
        s.parked = 0
        s.parks += 1
        if s.parks > PARKS:
            s.result = "ended"
            s.done = 1
            return
        yield from settle(s, s.parks, mutate)


def settle(s, number, mutate=""):
    """Park the goroutine in request *number*; it has left its coroutine."""
    at = slot(s, number)
    if s.announced:
        yield
        if s.words[at] == READY:
            s.words[at] = NIL  # readiness came first: another try, then the wait
        s.words[at] = WAIT
    s.parked = 1
    s.owed |= s.canceled
    if mutate != "publish last":
        yield
        s.park = number
    saw = 0
    if mutate == "look before commit":
        yield
        saw = s.canceled
    yield
    s.running = 0  # from the commit on it may run elsewhere
    if not commit(s, number):
        queue(s)
        return
    if mutate != "look before commit":
        yield
        saw = s.canceled
    if mutate == "publish last":
        yield
        s.park = number
    if saw:
        yield
        if abort(s, number) == 1 or mutate == "queue whoever took it":
            queue(s)


def cancel(s, mutate=""):
    """Scheduler.cancel and GBase.unpark."""
    if mutate != "abort before the state":
        yield
        s.canceled = 1
    yield
    number = s.park
    if number:
        yield
        if abort(s, number) == 1 or mutate == "ready whoever took it":
            queue(s)
    if mutate == "abort before the state":
        yield
        s.canceled = 1


def event(s, number=1):
    """Readiness for request *number*, once and at any moment."""
    at = slot(s, number)
    yield
    old = s.words[at]
    if old == WORD:
        s.words[at] = NIL
        yield
        queue(s)
    else:
        s.words[at] = NIL if old == WAIT and s.same else READY


def told(s, blocked):
    """A cancelled goroutine is parked no more, and what has ended has ended once (G1)."""
    if not s.done:
        return "a cancelled goroutine stays parked" if s.canceled else None
    return "a cancelled goroutine went on" if s.result == "ended" and s.owed else None
