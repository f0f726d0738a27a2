"""asyncio's heap of timer handles: heapq's order in the same list, without a call of __lt__.

Called by _loop, on the loop's thread. heapq's order to the last swap: which of two timers of the
same time runs first is nobody's promise, but programs that run on asyncio have seen it.
"""

from gopoll.embed.aio._handle cimport when_of


cdef int push(list heap, timer) except -1:
    """Add *timer* to *heap*."""
    heap.append(timer)
    return _up(heap, 0, len(heap) - 1)


cdef object pop(list heap):
    """Take the earliest timer out of *heap*, which is not empty."""
    cdef object last = heap.pop(), first
    if not heap:
        return last
    first = heap[0]
    heap[0] = last
    _settle(heap, 0)
    return first


cdef int rebuild(list heap) except -1:
    """Put *heap* in order."""
    cdef Py_ssize_t at
    for at in range(len(heap) // 2 - 1, -1, -1):
        _settle(heap, at)
    return 0


cdef int _up(list heap, Py_ssize_t top, Py_ssize_t at) except -1:
    """Let the timer at *at* rise to its place, to *top* at most."""
    cdef Py_ssize_t above
    cdef object timer = heap[at]
    cdef double when = when_of(timer)
    while at > top:
        above = (at - 1) >> 1
        if when_of(heap[above]) <= when:
            break
        heap[at] = heap[above]
        at = above
    heap[at] = timer
    return 0


cdef int _settle(list heap, Py_ssize_t top) except -1:
    """Put the timer at *top* into its place below: down to a leaf, and up again from there.

    What comes from the end of the heap is late as a rule: that takes one comparison a level.
    """
    cdef Py_ssize_t at = top, below = 2 * top + 1, n = len(heap)
    cdef object timer = heap[top]
    while below < n:
        if below + 1 < n and not when_of(heap[below]) < when_of(heap[below + 1]):
            below += 1
        heap[at] = heap[below]
        at = below
        below = 2 * at + 1
    heap[at] = timer
    return _up(heap, top, at)
