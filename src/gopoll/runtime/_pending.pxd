"""Calls for the main thread. See _pending.pyx."""

cdef int call(void *arg) except -1
