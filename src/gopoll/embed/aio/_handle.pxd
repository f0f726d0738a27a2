"""asyncio's Handle and TimerHandle, made and read without their Python methods. See _handle.pyx."""

cdef object new_handle(object callback, tuple args, object loop, object context)
cdef object new_timer(object when, object callback, tuple args, object loop, object context)
cdef bint is_cancelled(object handle) except -1
cdef double when_of(object timer) except? -1.0
cdef int unschedule(object timer) except -1
cdef bint is_ours(object handle) noexcept
cdef int call_handle(object handle) except -1
cdef int use_again(object handle) except -1
