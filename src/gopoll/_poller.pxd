"""Poller: what the scheduler and embedders may call. See _poller.pyx."""

from gopoll._pollerbase cimport PollerBase

cdef extern from *:
    """
    #define GOPOLL_ABI_VERSION 1
    """
    enum:
        # Raised with every change of what __init__.pxd exports or of a struct it reaches.
        ABI_VERSION "GOPOLL_ABI_VERSION"

cdef class Poller(PollerBase):
    pass
