"""Whether there is a GIL. See _frames.pyx."""

cpdef bint have_gil() except -1
