"""What only Cython reaches: the cache of pollDescs, and netpoll without the GIL.

Called by bench/, on the main thread; tests/plugins/probe.py compiles it against the installed
gopoll.
"""

from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.object cimport PyObject
from libc.stdint cimport uintptr_t

from gopoll._netpoll cimport NETPOLL_CAP, netpoll
from gopoll._pollcache cimport pollDesc, pollDescSize, pollcache_alloc, pollcache_free
from gopoll._poller cimport Poller

DESC_BYTES = pollDescSize


def alloc_and_free(Poller poller, int count):
    """Take a pollDesc out of the cache and put it back, *count* times."""
    cdef pollDesc *pd = NULL
    cdef int _i
    poller.enter()
    try:
        with nogil:
            for _i in range(count):
                if pollcache_alloc(&poller.ps.cache, &pd) != 0:
                    break
                pollcache_free(&poller.ps.cache, pd)
    finally:
        poller.leave()


def netpoll_nogil(Poller poller):
    """Return what poller.netpoll(0, 128) returns, with the GIL released meanwhile."""
    cdef uintptr_t words[NETPOLL_CAP]
    cdef list out
    cdef int i, n
    poller.enter()
    try:
        with nogil:
            n = netpoll(poller.ps, 0, words, 128)
        if n < 0:
            raise OSError(-n, "netpoll")
        out = PyList_New(n)
        for i in range(n):
            PyList_SET_ITEM(out, i, <object><PyObject *>words[i])
        return out
    finally:
        poller.leave()
