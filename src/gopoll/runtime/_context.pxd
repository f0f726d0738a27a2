"""Context, a node of the tree. See _context.pyx."""

from libc.stdint cimport uintptr_t

from gopoll.runtime._g cimport ContextBase, GBase


cdef class Context(ContextBase):
    cdef object __weakref__
    cdef int off               # of a Shielded: its block has been left; changed by its goroutine
    cdef Context parent        # whose end ends this; guarded by the lock
    cdef Context up            # where values are looked for next; likewise
    cdef Context view_of       # constant
    cdef object key            # constant
    cdef object carried        # its value; constant
    cdef double when           # its own end, nan for none; guarded by the lock, as is all below
    cdef object cause_
    cdef set children          # or None, as the others
    cdef set views             # weak references
    cdef set goroutines
    cdef dict funcs            # its keys, in their order
    cdef tuple timers          # who ends it at its deadline, and how to stop them
    cdef GBase entered         # whose block it is; touched by that alone
    cdef uintptr_t entered_by  # the same, for others to compare; atomic
    cdef Context scope(self)
    cdef int adopt(self, Context child) except -1
    cdef int enter(self, GBase g) except -1
    cdef int leave(self, GBase g) except -1
    cdef int gone(self, GBase g) except -1
    cdef bint is_entered_by(self, GBase g) noexcept
    cdef int set_entered_by(self, GBase g) except -1
    cdef int finish(self, object cause, double when) except -1
    cdef int move_end(self, double when) except -1
    cdef int arm_or_end(self, double when) except -1
    cdef int arm(self, double when) except -1
    cdef int look(self) except -1
    cdef int forget(self, object call) except -1
    cpdef _over(self, GBase g)

cdef class Shielded(Context):
    pass

cdef Context parent_of(Context node)
cdef Context up_of(Context node)
cdef Context ambient_of(GBase g)
cdef Context step_over_block(Context ctx, GBase g)
