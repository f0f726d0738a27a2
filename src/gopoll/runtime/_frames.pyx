"""Whether there is a GIL, and, where there is one, the Python stacks of all threads in one go.

Called by stacks, on any thread; have_gil() by all of the runtime. Go: none.

F1: from the moment that the frames are asked for until the last has been read no bytecode runs
    and no garbage is collected: the threads stand still. Python 3.11 collects while it makes the
    object of a frame (f_back does), a finaliser lets another thread go on, and the frame in hand
    may be gone. Python's own traceback.walk_stack crashes with that.
"""

import sys

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF


cdef extern from "Python.h":
    ctypedef struct PyFrameObject:
        pass
    ctypedef struct PyCodeObject:
        pass
    PyFrameObject *PyFrame_GetBack(PyFrameObject *frame)     # a new reference, or NULL: outermost
    PyCodeObject *PyFrame_GetCode(PyFrameObject *frame)      # a new reference
    int PyFrame_GetLineNumber(PyFrameObject *frame)
    int PyGC_Disable()
    int PyGC_Enable()


_is_gil_enabled = getattr(sys, "_is_gil_enabled", None)


cpdef bint have_gil() except -1:
    """Whether threads take turns in running Python. It may be asked for late, by a module that is
    imported, and then stays. No bytecode runs in here."""
    return _is_gil_enabled is None or _is_gil_enabled()


def of_threads():
    """Return [(code, line), ...] of every thread by its identifier, innermost first."""
    cdef bint collected = PyGC_Disable()             # F1, up to PyGC_Enable
    cdef dict found = {}
    try:
        for ident, frame in sys._current_frames().items():
            found[ident] = walk(<PyFrameObject *><PyObject *>frame)
    finally:
        if collected:
            PyGC_Enable()
    return found


cdef list walk(PyFrameObject *frame):
    cdef list stack = []
    cdef object code
    cdef PyFrameObject *back
    Py_INCREF(<object><PyObject *>frame)
    while frame != NULL:
        code = <object><PyObject *>PyFrame_GetCode(frame)
        Py_DECREF(code)                              # ours is Cython's
        stack.append((code, PyFrame_GetLineNumber(frame)))
        back = PyFrame_GetBack(frame)
        Py_DECREF(<object><PyObject *>frame)         # its thread holds it
        frame = back
    return stack
