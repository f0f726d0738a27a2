"""asyncio's own Handle and TimerHandle objects, made and called without their Python methods.

Called by _loop on the loop's thread; new_handle also by call_soon_threadsafe, on any. The objects
are asyncio's: isinstance, repr, cancel and the task machinery see nothing new. What their __init__
and _run do costs a third of a callback, so it is done here: their __slots__ are written where the
type's own descriptors say that they are. Where those are not what we know, __init__ and the
attributes are used instead. A timer is of a subclass, for its cancel(): most end so, uncalled.

A handle that is done with, and that nobody else has, is kept and used again: as an object of the
collector's that it does not see, without a reference to anything of the program's.

Without a GIL another thread may cancel a handle that is about to be called: what it takes away is
read through the descriptors there, which hold on to it; and none is used again. Timers are
asyncio's own then.
"""

import asyncio

from cpython.contextvars cimport PyContext_CheckExact, PyContext_CopyCurrent
from cpython.object cimport PyObject


cdef extern from *:
    """
    #include <structmember.h>
    #ifdef Py_GIL_DISABLED
    #define GOPOLL_SHARED 1
    #else
    #define GOPOLL_SHARED 0
    #endif
    /* Where instances of *type* have slot *name*; -1 if that is no plain object slot. */
    static Py_ssize_t gopoll_slot_offset(PyObject *type, PyObject *name) {
      PyObject *d = PyDict_GetItemWithError(((PyTypeObject *)type)->tp_dict, name);
      if (d == NULL || !Py_IS_TYPE(d, &PyMemberDescr_Type)) return -1;
      PyMemberDef *m = ((PyMemberDescrObject *)d)->d_member;
      return m->type == T_OBJECT_EX && !m->flags ? m->offset : -1;
    }
    #define GOPOLL_SLOT(o, at) (*(PyObject **)((char *)(o) + (at)))
    static inline void gopoll_put(PyObject *o, Py_ssize_t at, PyObject *v) {
      Py_INCREF(v);
      Py_XSETREF(GOPOLL_SLOT(o, at), v);
    }
    /* Handles of one type that nobody has. */
    typedef struct { int n; PyObject *kept[128]; } gopoll_spares;
    static PyObject *gopoll_alloc(gopoll_spares *spares, PyObject *type) {
      PyObject *o;
      if (spares->n == 0) return PyType_GenericAlloc((PyTypeObject *)type, 0);
      o = spares->kept[--spares->n];
      PyObject_GC_Track(o);
      return o;
    }
    /* Whether *o*, of which the caller has a reference, is nobody else's; out of the collector's
       sight then, for the caller to empty and to put away. */
    static int gopoll_hide(PyObject *o) {
      PyTypeObject *type = Py_TYPE(o);
      if (GOPOLL_SHARED || Py_REFCNT(o) != 1 || type->tp_finalize != NULL) return 0;
      if (GOPOLL_SLOT(o, type->tp_weaklistoffset) != NULL) return 0;
      PyObject_GC_UnTrack(o);
      return 1;
    }
    static void gopoll_drop(PyObject *o, Py_ssize_t at) { Py_CLEAR(GOPOLL_SLOT(o, at)); }
    static void gopoll_put_away(gopoll_spares *spares, PyObject *o) {
      if (spares->n == (int)Py_ARRAY_LENGTH(spares->kept)) return;
      Py_INCREF(o);
      spares->kept[spares->n++] = o;
    }
    /* Call *callback* with the tuple *args* in *context*; NULL with the error set. */
    static PyObject *gopoll_call_in(PyObject *context, PyObject *callback, PyObject *args) {
      PyObject *result;
      if (PyContext_Enter(context) < 0) return NULL;
      result = PyObject_Vectorcall(callback, ((PyTupleObject *)args)->ob_item,
                                   (size_t)PyTuple_GET_SIZE(args), NULL);
      if (PyContext_Exit(context) < 0) Py_CLEAR(result);
      return result;
    }
    """
    const bint SHARED "GOPOLL_SHARED"
    Py_ssize_t gopoll_slot_offset(object type, object name) except? -1
    PyObject *SLOT "GOPOLL_SLOT"(object o, Py_ssize_t at)
    void put "gopoll_put"(object o, Py_ssize_t at, object v)
    ctypedef struct Spares "gopoll_spares":
        pass
    object gopoll_alloc(Spares *spares, object type)
    bint gopoll_hide(object o)
    void gopoll_drop(object o, Py_ssize_t at)
    void gopoll_put_away(Spares *spares, object o)
    object gopoll_call_in(object context, object callback, object args)


cdef object Handle = asyncio.Handle
cdef Py_ssize_t CALLBACK, ARGS, CANCELLED, LOOP, TRACEBACK, REPR, CONTEXT, SCHEDULED, WHEN
cdef bint known = True                 # the slots are where and what we think
cdef Spares handles, timers


cdef Py_ssize_t _find(cls, str name):
    global known
    cdef Py_ssize_t at = gopoll_slot_offset(cls, name)
    known = known and at > 0
    return at


CALLBACK = _find(Handle, "_callback")
ARGS = _find(Handle, "_args")
CANCELLED = _find(Handle, "_cancelled")
LOOP = _find(Handle, "_loop")
TRACEBACK = _find(Handle, "_source_traceback")
REPR = _find(Handle, "_repr")
CONTEXT = _find(Handle, "_context")
SCHEDULED = _find(asyncio.TimerHandle, "_scheduled")
WHEN = _find(asyncio.TimerHandle, "_when")
known = known and set(Handle.__slots__) == {
    "_callback", "_args", "_cancelled", "_loop", "_source_traceback", "_repr", "_context",
    "__weakref__"} and set(asyncio.TimerHandle.__slots__) == {"_scheduled", "_when"}


class TimerHandle(asyncio.TimerHandle):
    """asyncio's, with the same cancel() compiled; made where `known` and with a GIL only."""

    __slots__ = ()

    def cancel(self):
        """Let the callback not be called; a second time does nothing."""
        cdef object loop
        if type(self) is not Timer or SLOT(self, CANCELLED) == NULL or SLOT(self, LOOP) == NULL:
            return asyncio.TimerHandle.cancel(self)                # which tells what is wrong
        if <object>SLOT(self, CANCELLED):
            return
        loop = <object>SLOT(self, LOOP)
        loop._timer_handle_cancelled(self)
        put(self, CANCELLED, True)
        if loop.get_debug():
            put(self, REPR, repr(self))          # the callback is in it
        put(self, CALLBACK, None)
        put(self, ARGS, None)


cdef object Timer = asyncio.TimerHandle if SHARED or not known else TimerHandle


cdef object _filled(Spares *spares, cls, callback, tuple args, loop, context):
    """Return a new handle of *cls* with the slots of Handle.__init__, without debug."""
    cdef object handle = gopoll_alloc(spares, cls)
    put(handle, CALLBACK, callback)
    put(handle, ARGS, args)
    put(handle, CANCELLED, False)
    put(handle, LOOP, loop)
    put(handle, TRACEBACK, None)
    put(handle, REPR, None)
    put(handle, CONTEXT, PyContext_CopyCurrent() if context is None else context)
    return handle


cdef object new_handle(callback, tuple args, loop, context):
    """Return Handle(callback, args, loop, context), for a loop that is not in debug mode."""
    if not known:
        return Handle(callback, args, loop, context)
    return _filled(&handles, Handle, callback, args, loop, context)


cdef object new_timer(when, callback, tuple args, loop, context):
    """Return TimerHandle(when, callback, args, loop, context), as new_handle; it is scheduled."""
    cdef object timer
    if known:
        timer = _filled(&timers, Timer, callback, args, loop, context)
        put(timer, WHEN, when)
        put(timer, SCHEDULED, True)
    else:
        timer = Timer(when, callback, args, loop, context)
        timer._scheduled = True
    return timer


cdef bint is_cancelled(handle) except -1:
    """Whether *handle* has been cancelled."""
    if known and not SHARED:
        return <object>SLOT(handle, CANCELLED)
    return handle._cancelled


cdef double when_of(timer) except? -1.0:
    """The time of *timer*, which is the loop's thread's alone: nobody changes it."""
    if known:
        return <object>SLOT(timer, WHEN)
    return timer._when


cdef int unschedule(timer) except -1:
    """Say that *timer* has left the heap."""
    if known:
        put(timer, SCHEDULED, False)
    else:
        timer._scheduled = False
    return 0


cdef bint is_ours(handle) noexcept:
    """Whether call_handle() knows what *handle* is."""
    return known and (type(handle) is Handle or type(handle) is Timer)


cdef int use_again(handle) except -1:
    """Keep *handle*, which is done with, for another, if nobody but the caller has it.

    *handle* is one of is_ours().
    """
    cdef Spares *spares = &handles if type(handle) is Handle else &timers
    if not gopoll_hide(handle):
        return 0
    gopoll_drop(handle, CALLBACK)                # this and the next may run the program's code
    gopoll_drop(handle, ARGS)
    gopoll_drop(handle, LOOP)
    gopoll_drop(handle, CONTEXT)
    gopoll_put_away(spares, handle)
    return 0


cdef int call_handle(handle) except -1:
    """Call what *handle* has, unless it is cancelled; what that raises is the caller's.

    *handle* is one of is_ours().
    """
    cdef object callback, args, context
    if SHARED:
        if handle._cancelled:
            return 0
        callback, args, context = handle._callback, handle._args, handle._context
        if args is None:                                  # cancelled meanwhile
            return 0
    else:
        if <object>SLOT(handle, CANCELLED):
            return 0
        callback = <object>SLOT(handle, CALLBACK)
        args = <object>SLOT(handle, ARGS)
        context = <object>SLOT(handle, CONTEXT)
    if PyContext_CheckExact(context) and type(args) is tuple:
        gopoll_call_in(context, callback, args)
    else:
        context.run(callback, *args)
    return 0
