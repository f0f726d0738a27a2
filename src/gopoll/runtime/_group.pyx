"""GroupBase: who is in a Group, and the first to hear of the end of each.

Made by group.py; called in goroutines, on any thread. Go: golang.org/x/sync/errgroup.

E1: the group is over when its body is and no child is left. Whoever changes one of the two looks at
    both, in one critical section of C that no signal handler interrupts. Nothing is counted: a step
    in which a handler has raised may be done again.
"""

import functools

cimport cython

from gopoll.runtime._g cimport GBase, Join

from gopoll.runtime._base import do_all
from gopoll.runtime._sync import WaitCounter

cdef enum:
    TURNS = 16                 # so often may a signal handler raise in one step


cdef class GroupBase:
    """The children of a Group, its body, and who waits for them."""

    def __cinit__(self, *args, **kwargs):
        self._children = set()
        self.all_ended = WaitCounter()

    cdef bint over(self) noexcept:
        return not self.in_body and not self._children

    @property
    def _is_over(self):
        cdef bint over
        with cython.critical_section(self):
            over = self.over()
        return over

    def _open(self):
        """The body begins."""
        self.all_ended.add(1)
        self.in_body = True

    def _join(self, GBase g not None):
        """Take a child in, before it is started: whether the group is not over."""
        cdef Member member
        with cython.critical_section(self):
            if self.over():
                return False
            self._children.add(g)
        member = Member.__new__(Member)
        member.group, member.g = self, g
        Join(g).commit(member)
        return True

    def _leave(self, GBase g):
        """Take a child out, or the body (None), and see whether the group is over."""
        self.leave(g)

    def _refuse(self, GBase g not None):
        """Take a child out that has not been started, and never will be: nobody else has it."""
        cdef Join join
        if g.first != NULL:
            join = <Join>g.first
            join.forsake()             # else the two keep each other, out of the collector's sight
        self.leave(g)

    cdef int leave(self, GBase g) except -1:
        cdef bint over
        with cython.critical_section(self):
            if g is None:
                self.in_body = False
            else:
                self._children.discard(g)
            over = self.over()
        if over:
            try:
                self.all_ended.done()
            except RuntimeError:
                pass                   # told already
        return 0

    def _ended(self):
        """Wait until the group is over. An op."""
        return self.all_ended.wait()

    def _see_to(self, GBase g):
        """See to the error of a goroutine that has just ended. On its thread, between slices."""
        raise NotImplementedError


cdef class Member:
    """Called when a child has ended."""

    def __call__(self):
        try:
            if self.g.error is not None:
                do_all(TURNS, functools.partial(self.group._see_to, self.g))
        finally:
            self.group.leave(self.g)
