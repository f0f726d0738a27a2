"""Have a function called on the main thread, which alone may change Python's signal handlers.

Called by notify.py, on any thread. The main thread gets to it between two bytecodes, or when it is
woken out of the scheduler's sleep (sleep_m). Go: none, its signal handlers belong to no thread.
"""

from cpython.ref cimport Py_DECREF, Py_INCREF


cdef extern from "Python.h":
    int Py_AddPendingCall(int (*func)(void *) except -1, void *arg)


cdef int call(void *arg) except -1:
    fn = <object>arg
    Py_DECREF(fn)
    fn()
    return 0


def add_pending_call(fn):
    """Have fn() called on the main thread, soon. RuntimeError if too much is pending."""
    Py_INCREF(fn)
    if Py_AddPendingCall(call, <void *>fn) < 0:
        Py_DECREF(fn)
        raise RuntimeError("the main thread has too many pending calls")
