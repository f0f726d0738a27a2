"""A stranger's event loop: it knows gopoll from the .pxd files of the installed wheel alone.

Built and run by tests/test_packaging.py. main() returns "ok" or raises.
"""

import os

from libc.stdint cimport uintptr_t

from gopoll cimport (NETPOLL_CAP, PollDesc, Poller, blockPark, modeRead, netpoll,
                     netpollblockcommit, netpollcheckerr, netpollGenericInit, netpollresume,
                     poll_runtime_pollClose, poll_runtime_pollOpen, poll_runtime_pollReset,
                     poll_runtime_pollUnblock, poll_runtime_pollWait, pollDesc, pollErrClosing,
                     pollNoError, pollServer, ready_push, regEdge)
from gopoll cimport ABI_VERSION as ABI

import gopoll


cdef int converse(pollServer *ps, int fd, uintptr_t waiter) noexcept nogil:
    """Park *waiter* until *fd* is readable, park it again and evict it: 0, or the step missed."""
    cdef uintptr_t out[NETPOLL_CAP]
    cdef pollDesc *pd
    if poll_runtime_pollOpen(ps, fd, regEdge, &pd) != 0:
        return 1
    if poll_runtime_pollReset(pd, modeRead) != 0:
        return 2
    if poll_runtime_pollWait(ps, pd, modeRead) == -blockPark:
        if netpollblockcommit(ps, pd, modeRead, waiter):
            if netpoll(ps, -1, out, NETPOLL_CAP) != 1 or out[0] != waiter:
                return 3
        if netpollresume(pd, modeRead) != 1:
            return 4
    if poll_runtime_pollReset(pd, modeRead) != 0:
        return 5
    if poll_runtime_pollWait(ps, pd, modeRead) != -blockPark:
        return 6
    if not netpollblockcommit(ps, pd, modeRead, waiter):
        return 7
    if poll_runtime_pollUnblock(ps, pd) != 0:
        return 8
    if netpoll(ps, -1, out, NETPOLL_CAP) != 1 or out[0] != waiter:
        return 9
    if netpollresume(pd, modeRead) != 0 or netpollcheckerr(pd, modeRead) != pollErrClosing:
        return 10
    return poll_runtime_pollClose(ps, pd)


cdef object park_and_wake(int r):
    """Park an object of ours until *r* is readable; return what netpoll hands out."""
    cdef Poller poller = Poller()
    cdef PollDesc pd = poller.open(r)
    assert pd.poller is poller
    assert pd.fd == r
    pd.reset(gopoll.READ)
    assert pd.wait(gopoll.READ).commit("waiter")
    woken = poller.netpoll(-1)
    pd.evict()
    pd.close()
    poller.close()
    return woken


def leave_waiters(int r):
    """Close a raw poller with words of ours parked, on its ready list, and evicted to it."""
    cdef Poller poller = Poller(raw=True)
    cdef pollDesc *pd = NULL
    assert netpollGenericInit(poller.ps) == 0
    assert poll_runtime_pollOpen(poller.ps, r, regEdge, &pd) == 0
    assert poll_runtime_pollReset(pd, modeRead) == pollNoError
    assert poll_runtime_pollWait(poller.ps, pd, modeRead) == -blockPark
    assert netpollblockcommit(poller.ps, pd, modeRead, 0x1000)
    assert ready_push(poller.ps, 0x2000) == 0
    poller.close()


def main():
    """Use the C functions and the classes; return "ok"."""
    cdef Poller poller = Poller(raw=True)
    cdef int fd, status
    assert ABI == gopoll.ABI_VERSION
    r, w = os.pipe2(os.O_NONBLOCK)
    try:
        os.write(w, b"x")
        woken = park_and_wake(r)
        assert woken == ["waiter"], woken
        fd = r
        with nogil:
            status = converse(poller.ps, fd, 0x1000)
        assert status == 0, f"step {status}"
        leave_waiters(r)
    finally:
        poller.close()
        os.close(r)
        os.close(w)
    return "ok"
