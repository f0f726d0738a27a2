"""WordsBase: the scheduler's words, as they are seen from outside; and calls that are made whole.

Below _sched, which changes the words. Any thread. Go: schedt, runtime/runtime2.go (go1.27).

J3: who starts a goroutine counts it in `live` before it is queued, and who posts a call counts that
    until it has been made. A run is over by one swap, of a `live` that is 0 to one below 0; who
    then counts sees that it is too late, and starts nothing. So nothing is left in a queue, unless
    the run is cut short (finish_all): its queues are emptied at last.
"""

from libc.stdint cimport int64_t

from gopoll._atomic cimport add_int, cas_i64, cas_int, futex_wake, load_i64, load_int, poke_i64
from gopoll._pollserver cimport pollserver_forked
from gopoll._timers cimport coarsetime
from gopoll.runtime._g cimport GBase

from gopoll._host import FORKED as _FORKED
from gopoll.errors import ForkedError

cdef int64_t OVER = -0x4000000000000000  # added to `live` when the run is over (J3)


# What has to be whole where a signal handler may raise: here none runs between two calls (E1).

def do_all(int turns, *steps):
    """Call each of *steps*, up to *turns* times while it raises; at last raise the first error."""
    error = None
    for step in steps:
        for _ in range(turns):
            try:
                step()
                break
            except BaseException as err:
                if error is None:
                    error = err
    if error is not None:
        raise error


def keep(obj, str name, fn, *args):
    """Set an attribute to what *fn* returns, which is in C as well."""
    setattr(obj, name, fn(*args))


def give_back(obj, str name, fn):
    """Call *fn* with an attribute that is set, and set it to None."""
    value = getattr(obj, name)
    setattr(obj, name, None)
    if value is not None:
        fn(value)


cdef void wake_sysmon(SchedWords *words) noexcept nogil:
    """Wake sysmon, whatever it sleeps in, and say what time it is until it does."""
    poke_i64(&words.now, coarsetime())
    add_int(&words.note, 1)
    futex_wake(&words.note, 1)


cdef int64_t *count_of(SchedWords *words, GBase g) noexcept:
    """Where *g* is counted while it lives."""
    return &words.live if g.id else &words.closing if g.closes else &words.system


cdef class WordsBase:
    """The words of a scheduler, and its poller."""

    @property
    def lastpoll(self):
        """Monotonic ns of the last network poll; 0 while a thread is blocked in it."""
        return load_i64(&self.words.lastpoll)

    @property
    def nprocs(self):
        """How many Ps there are."""
        return load_int(&self.words.nprocs)

    @property
    def npidle(self):
        """How many Ps are idle."""
        return load_int(&self.words.npidle)

    @property
    def nmidle(self):
        """How many Ms sleep without a P."""
        return load_int(&self.words.nmidle)

    @property
    def nmspinning(self):
        """How many Ms look for work to steal."""
        return load_int(&self.words.nmspinning)

    @property
    def nmidlelocked(self):
        """Idle Ms that are locked to a goroutine; -1 while sysmon injects (incidlelocked)."""
        return load_int(&self.words.nmidlelocked)

    @property
    def live(self):
        """How many goroutines there are, the runtime's own left out, and calls posted (J3)."""
        cdef int64_t n = load_i64(&self.words.live)
        return n if n >= 0 else n - OVER

    @property
    def system_live(self):
        """How many goroutines of the runtime's own there are."""
        return load_i64(&self.words.system)

    @property
    def closing(self):
        """How many of those close an async generator; system_live leaves them out."""
        return load_i64(&self.words.closing)

    @property
    def is_ending(self):
        """Whether main has ended, or something fatal has happened."""
        return bool(load_int(&self.words.ending))

    def begin_ending(self):
        """Mark the beginning of the end; False if it has begun."""
        return bool(cas_int(&self.words.ending, 0, 1))

    cdef bint seal(self, bint cut_short) noexcept:
        """Let nothing more be started, if nothing is left or it is *cut_short*: whether it is over.

        Again if interrupted. J3.
        """
        cdef int64_t n = load_i64(&self.words.live)
        while n == 0 or (n > 0 and cut_short):
            if cas_i64(&self.words.live, n, n + OVER):
                return True
            n = load_i64(&self.words.live)
        return n < 0

    def end_if_last(self):
        """Let nothing more be started, if nothing is left: whether that is so (J3)."""
        return self.seal(False)

    @property
    def is_over(self):
        """Whether nothing can be started any more (J3)."""
        return load_i64(&self.words.live) < 0

    @property
    def is_finished(self):
        """Whether the last goroutine has ended and the Ms are leaving."""
        return bool(load_int(&self.words.finished))

    @property
    def is_forked(self):
        """Whether this is a copy in a forked child, to be left alone (A9)."""
        return pollserver_forked(self.ps)

    def incidlelocked(self, int v):
        """Adjust nmidlelocked. Go: incidlelocked."""
        add_int(&self.words.nmidlelocked, v)

    def add_syswaiter(self, int v):
        """Count the runtime's own waits in the network, which keep no program alive."""
        add_int(&self.words.syswaiters, v)

    cdef int refuse_fork(self) except -1:
        """ForkedError in a forked child (A9)."""
        if pollserver_forked(self.ps):
            if getattr(self, "is_guest", False):
                raise ForkedError(_FORKED)
            raise ForkedError("gopoll.run() was forked: goroutines stay with the parent; call "
                              "os._exit or start a new run() in the child")
        return 0

    def usable_poller(self):
        """Return the poller, for what is to be opened on it. ForkedError in a forked child: there
        what is done on the spot would succeed, by chance, and nobody could wait (A9).
        """
        self.refuse_fork()
        return self.poller


cdef str nested(owner, other):
    """Why *other* cannot begin on a thread of *owner*."""
    if getattr(owner, "is_guest", False):
        return ("a guest is attached to this thread already, by attach() or Guest(), and there can "
                "be no other and no gopoll.run() beside it: use gopoll.go()")
    if getattr(other, "is_guest", False):
        return ("gopoll.run() runs on this thread already, and there can be no guest beside it: "
                "use gopoll.go()")
    return ("gopoll.run() cannot be nested in one thread: a scheduler runs here already; use "
            "gopoll.go()")
