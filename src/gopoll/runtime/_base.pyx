"""WordsBase: the scheduler's words, as they are seen from outside; and calls that are made whole.

Below _sched, which changes the words. Any thread. Go: schedt, runtime/runtime2.go (go1.27).
"""

from libc.stdint cimport int64_t

from gopoll._atomic cimport add_int, cas_int, load_i64, load_int
from gopoll._pollserver cimport pollserver_forked
from gopoll.runtime._g cimport GBase

from gopoll.errors import ForkedError


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
        """How many goroutines there are, the runtime's own left out."""
        return load_i64(&self.words.live)

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
            raise ForkedError("gopoll.run() was forked: goroutines stay with the parent; call "
                              "os._exit or start a new run() in the child")
        return 0
