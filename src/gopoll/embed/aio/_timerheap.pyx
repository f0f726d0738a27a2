"""asyncio's heap of timer handles: heapq's order in the same list, without a call of __lt__.

Called by _loop, on the loop's thread.
"""

from gopoll.embed.aio._handle cimport when_of


cdef int push(list heap, timer) except -1:
    """Add *timer* to *heap*."""
    heap.append(timer)
    return _up(heap, len(heap) - 1)


cdef object pop(list heap):
    """Take the earliest timer out of *heap*, which is not empty."""
    cdef object last = heap.pop(), first
    if not heap:
        return last
    first = heap[0]
    heap[0] = last
    _down(heap, 0)
    return first


cdef int rebuild(list heap) except -1:
    """Put *heap* in order."""
    cdef Py_ssize_t at
    for at in range(len(heap) // 2 - 1, -1, -1):
        _down(heap, at)
    return 0


cdef int _up(list heap, Py_ssize_t at) except -1:
    """Let the timer at *at* rise to its place."""
    cdef Py_ssize_t above
    cdef object timer = heap[at]
    cdef double when = when_of(timer)
    while at > 0:
        above = (at - 1) >> 1
        if when_of(heap[above]) <= when:
            break
        heap[at] = heap[above]
        at = above
    heap[at] = timer
    return 0


cdef int _down(list heap, Py_ssize_t at) except -1:
    """Let the timer at *at* sink to its place."""
    cdef Py_ssize_t below, n = len(heap)
    cdef object timer = heap[at]
    cdef double when = when_of(timer)
    while True:
        below = 2 * at + 1
        if below >= n:
            break
        if below + 1 < n and when_of(heap[below + 1]) < when_of(heap[below]):
            below += 1
        if when <= when_of(heap[below]):
            break
        heap[at] = heap[below]
        at = below
    heap[at] = timer
    return 0
