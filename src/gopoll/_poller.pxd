"""Poller: what the scheduler and embedders may call. See _poller.pyx."""

from gopoll._pollerbase cimport PollerBase

cdef enum:
    ABI_VERSION = 1

cdef class Poller(PollerBase):
    pass
