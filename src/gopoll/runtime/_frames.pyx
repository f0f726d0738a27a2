"""The Python stacks of all threads, walked in one go.

Called by stacks, where there is a GIL, on any thread. Go: none.

F1: from the moment that the frames are asked for until the last has been read no bytecode runs
    and no garbage is collected: the threads stand still. Python 3.11 collects while it makes the
    object of a frame (f_back does), a finaliser lets another thread go on, and the frame in hand
    may be gone. Python's own traceback.walk_stack crashes with that.
"""

import sys

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF


cdef extern from "Python.h":
    PyObject *PyFrame_GetBack(PyObject *frame)       # a new reference, or NULL: the outermost
    PyObject *PyFrame_GetCode(PyObject *frame)       # a new reference
    int PyFrame_GetLineNumber(PyObject *frame)
    int PyGC_Disable()
    int PyGC_Enable()


def of_threads():
    """Return [(code, line), ...] of every thread by its identifier, innermost first."""
    cdef bint collected = PyGC_Disable()             # F1, up to PyGC_Enable
    cdef dict found = {}
    try:
        for ident, frame in sys._current_frames().items():
            found[ident] = walk(<PyObject *>frame)
    finally:
        if collected:
            PyGC_Enable()
    return found


cdef list walk(PyObject *frame):
    cdef list stack = []
    cdef PyObject *code
    cdef PyObject *back
    Py_INCREF(<object>frame)
    while frame != NULL:
        code = PyFrame_GetCode(frame)
        stack.append((<object>code, PyFrame_GetLineNumber(frame)))
        Py_DECREF(<object>code)
        back = PyFrame_GetBack(frame)
        Py_DECREF(<object>frame)                     # its thread holds it
        frame = back
    return stack
