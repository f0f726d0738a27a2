"""GroupBase: the children of a Group. See _group.pyx."""

from gopoll.runtime._g cimport GBase


cdef class GroupBase:
    cdef readonly set _children
    cdef bint in_body
    cdef object all_ended      # a WaitCounter: 1 until the group is over
    cdef bint over(self) noexcept
    cdef int leave(self, GBase g) except -1

cdef class Member:
    cdef GroupBase group
    cdef GBase g
