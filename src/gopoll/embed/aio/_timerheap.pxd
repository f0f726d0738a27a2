"""asyncio's heap of timer handles, without a call of __lt__. See _timerheap.pyx."""

cdef int push(list heap, object timer) except -1
cdef object pop(list heap)
cdef int rebuild(list heap) except -1
