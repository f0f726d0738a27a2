"""Park requests: what a coroutine yields when it would block, and awaitables that yield them.

A coroutine announces a wait, yields the request, and leaves its thread; whoever drives it then
commits its waiter. So nobody can resume a coroutine that is still running. Any thread.
Go: gopark and its unlock function, runtime/proc.go (go1.27).

K1: commit_word is given one reference to the waiter. True: it is parked, and the reference
    travels with the word until netpoll hands it out or abort_word gives it back. False: it never
    left, go on. After True the caller touches neither waiter nor request (P3 decides who may).
K2: an operation belongs to who steps it first: a goroutine, an await in a task of a host or, where
    neither is, a thread. One swap of `awaiter` decides that; a step looks at nothing else of the
    operation before. Who is refused has not been in it, and what the first has seen stays its own.
    An await that goes gives back what it has: whoever is next finds out how far the operation is.
"""

import sys
import warnings

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uintptr_t

from gopoll._atomic cimport add_int, load_word, store_word


cdef extern from *:
    """
    #include <stdint.h>
    /* Within the 64 bytes that a C library keeps for such modules as ours: no call to find it. */
    #ifdef __GLIBC__
    #define GOPOLL_TLS __attribute__((tls_model("initial-exec")))
    #else
    #define GOPOLL_TLS
    #endif
    static __thread GOPOLL_TLS struct {
      PyObject *current, *owner, *m, *poller, *hosts, *host, *awaiting;
      int spent;
      int64_t spent_bytes; } gopoll_thread;

    /* Awaitables hand their value over without a traceback: Cython's `raise StopIteration(v)`
       costs 187 ns on 3.11 and 301 on 3.13, this 58 and 113. */
    typedef int (*gopoll_step)(PyObject *, PyObject **);

    /* What a function or a signal handler of the program's has raised in a step: a StopIteration
       would be taken for a value, so it becomes the cause of another, as in a coroutine. */
    static PyObject *gopoll_failed(void) {
      PyObject *type, *stop, *tb, *error;
      if (!PyErr_ExceptionMatches(PyExc_StopIteration)) return NULL;
      PyErr_Fetch(&type, &stop, &tb);
      PyErr_NormalizeException(&type, &stop, &tb);
      if (tb) PyException_SetTraceback(stop, tb);
      Py_XDECREF(type);
      Py_XDECREF(tb);
      error = PyObject_CallFunction(PyExc_RuntimeError, "s", "operation raised StopIteration");
      if (error) {
        PyErr_SetObject(PyExc_RuntimeError, error);
        PyException_SetContext(error, Py_NewRef(stop));
        PyException_SetCause(error, Py_NewRef(stop));
        Py_DECREF(error);
      }
      Py_DECREF(stop);
      return NULL;
    }
    /* Raise StopIteration(v), whose reference it takes. From 3.12 on the interpreter makes an
       object of each, by a call of the type, and looks for a context: this makes the object, and
       for what an echo has, a few bytes or a number, it takes the last one again (K5). From 3.15
       on an await asks for no exception, as in 3.11: only who steps by hand gets one. */
    #if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030F0000 && !defined(Py_GIL_DISABLED)
    #define GOPOLL_STOP_AGAIN
    #endif
    #if PY_VERSION_HEX >= 0x030C0000
    static PyObject *gopoll_new_stop(PyObject *v) {
      PyTypeObject *type = (PyTypeObject *)PyExc_StopIteration;
      PyObject *args = PyTuple_Pack(1, v);
      PyObject *stop = args ? type->tp_new(type, args, NULL) : NULL;
      Py_XDECREF(args);
      if (stop) Py_XSETREF(((PyStopIterationObject *)stop)->value, Py_NewRef(v));
      return stop;
    }
    #ifdef GOPOLL_STOP_AGAIN
    #define GOPOLL_SMALL_VALUE 4096
    static PyStopIterationObject *gopoll_last_stop;
    static int gopoll_stop_again(PyObject *v) {
      PyStopIterationObject *s = gopoll_last_stop;
      PyObject *was, *in_args;
      if (Py_REFCNT(s) != 1 || Py_REFCNT(s->args) != 1 || PyTuple_GET_SIZE(s->args) != 1
          || s->dict || s->notes || s->traceback || s->context || s->cause
          || s->suppress_context) return 0;
      was = s->value;
      in_args = PyTuple_GET_ITEM(s->args, 0);
      s->value = Py_NewRef(v);
      PyTuple_SET_ITEM(s->args, 0, v);
      PyErr_SetRaisedException(Py_NewRef(s));
    #if PY_VERSION_HEX >= 0x030E0000
      ((PyTupleObject *)s->args)->ob_hash = -1;
    #endif
      Py_DECREF(in_args);                    /* bytes or a number: runs nobody's code */
      Py_XDECREF(was);
      return 1;
    }
    #endif
    static void gopoll_stop(PyObject *v) {
      PyObject *stop;
    #ifdef GOPOLL_STOP_AGAIN
      int small = gopoll_thread.current != NULL
                  && (PyBytes_CheckExact(v) ? PyBytes_GET_SIZE(v) <= GOPOLL_SMALL_VALUE
                                            : PyLong_CheckExact(v));
      if (small && gopoll_last_stop && gopoll_stop_again(v)) return;
    #endif
      stop = gopoll_new_stop(v);
      Py_DECREF(v);
      if (!stop) return;
    #ifdef GOPOLL_STOP_AGAIN
      if (small) Py_XSETREF(gopoll_last_stop, (PyStopIterationObject *)Py_NewRef(stop));
    #endif
      PyErr_SetRaisedException(stop);
    }
    #else
    static void gopoll_stop(PyObject *v) {
      if (PyTuple_Check(v) || PyExceptionInstance_Check(v)) {
        PyObject *stop = PyObject_CallFunctionObjArgs(PyExc_StopIteration, v, NULL);
        if (stop) { PyErr_SetObject(PyExc_StopIteration, stop); Py_DECREF(stop); }
      } else
        PyErr_SetObject(PyExc_StopIteration, v);
      Py_DECREF(v);
    }
    #endif
    static PyObject *gopoll_next(PyObject *self, gopoll_step step) {
      PyObject *v = NULL;
      int rc = step(self, &v);
      if (rc == 0) return v;
      if (rc < 0 || v == NULL) return gopoll_failed();
      if (v == Py_None) { Py_DECREF(v); return NULL; }
      if (rc == 2) {
        PyErr_SetObject(PyExc_StopIteration, v);
        Py_DECREF(v);
      } else
        gopoll_stop(v);
      return NULL;
    }
    /* A function that has stepped by hand is in the traceback of what it caught, with all that it
       held: not after the end of its run. */
    static void gopoll_forget_stop(void) {
    #ifdef GOPOLL_STOP_AGAIN
      Py_CLEAR(gopoll_last_stop);
    #endif
    }
    /* Who steps is attached: with a GIL nobody comes between the look and the store. */
    static int gopoll_seize(uintptr_t *word, uintptr_t me) {
      uintptr_t was = __atomic_load_n(word, __ATOMIC_RELAXED);
      if (was != 0) return was == me;
    #ifdef Py_GIL_DISABLED
      return __atomic_compare_exchange_n(word, &was, me, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    #else
      *word = me;
      return 1;
    #endif
    }
    /* The same without an exception, where the interpreter asks for that in an await: 3.11 does,
       and 3.15. */
    typedef int (*gopoll_take)(PyObject *, PyObject *);
    static PySendResult gopoll_give(PyObject *self, PyObject *arg, gopoll_take take,
                                    gopoll_step step, PyObject **out) {
      PyObject *v = NULL;
      int rc;
      *out = NULL;
      if (arg != Py_None && take(self, arg) < 0) return PYGEN_ERROR;
      rc = step(self, &v);
      if (rc < 0 || v == NULL) {
        gopoll_failed();
        return PYGEN_ERROR;
      }
      if (rc == 2) {
        *out = Py_NewRef(((PyStopIterationObject *)v)->value);
        Py_DECREF(v);
      } else
        *out = v;
      return rc == 0 ? PYGEN_NEXT : PYGEN_RETURN;
    }
    /* An operation is its own iterator, but in a task of a host: a thread that has one counts in
       links. In C since it is done for each await of each goroutine. */
    static int gopoll_links;
    static unaryfunc gopoll_await_any;
    static PyObject *gopoll_await(PyObject *self) {
      if (__atomic_load_n(&gopoll_links, __ATOMIC_RELAXED) == 0) return Py_NewRef(self);
      return gopoll_await_any(self);
    }
    typedef PyObject *(*gopoll_iternext)(PyObject *);
    static void gopoll_set_iternext(PyObject *t, gopoll_iternext f, sendfunc give) {
      PyTypeObject *type = (PyTypeObject *)t;
      type->tp_iternext = f;
      if (type->tp_as_async) {
        type->tp_as_async->am_send = give;
        if (!gopoll_await_any) gopoll_await_any = type->tp_as_async->am_await;
        if (type->tp_as_async->am_await == gopoll_await_any)
          type->tp_as_async->am_await = gopoll_await;
      }
      PyType_Modified(type);
    }
    """
    ThreadWords gopoll_thread
    ctypedef int (*gopoll_step)(PyObject *, PyObject **) noexcept
    ctypedef PyObject *(*gopoll_iternext)(PyObject *) noexcept
    bint gopoll_seize(uintptr_t *word, uintptr_t me) noexcept
    PyObject *gopoll_next(PyObject *self, gopoll_step step) noexcept
    void gopoll_forget_stop() noexcept
    ctypedef enum PySendResult:
        pass
    ctypedef PySendResult (*sendfunc)(PyObject *, PyObject *, PyObject **) noexcept
    ctypedef int (*gopoll_take)(PyObject *, PyObject *) noexcept
    PySendResult gopoll_give(PyObject *self, PyObject *arg, gopoll_take take,
                             gopoll_step step, PyObject **out) noexcept
    int gopoll_links
    void gopoll_set_iternext(object cls, gopoll_iternext f, sendfunc give) noexcept


cdef ThreadWords *thread_words() noexcept nogil:
    """The calling thread's own words."""
    return <ThreadWords *>&gopoll_thread


cdef void leave_words(ThreadWords *tw) noexcept:
    """No scheduler runs on the calling thread any more; *tw* is its words."""
    tw.owner = tw.m = tw.poller = tw.current = NULL
    gopoll_forget_stop()                         # K5


cdef bint slice_spent() noexcept:
    """Report whether the goroutine has used up its slice, and begin another (A13).

    Operations that complete on the spot never park: without this a goroutine that has only such
    would keep its P until sysmon takes it.
    """
    cdef ThreadWords *tw = thread_words()
    if tw.current == NULL or (tw.spent < SLICE_OPS and tw.spent_bytes < SLICE_BYTES):
        return False
    tw.spent = 0
    tw.spent_bytes = 0
    return True


cdef int slice_look(ThreadWords *tw, PyObject *poller) noexcept:
    """As slice_spent(), for an operation on *poller*: SLICE_FOREIGN in a goroutine of another."""
    if tw.current == NULL:
        return SLICE_GOES_ON
    if tw.poller != poller:
        return SLICE_FOREIGN
    if tw.spent < SLICE_OPS and tw.spent_bytes < SLICE_BYTES:
        return SLICE_GOES_ON
    tw.spent = 0
    tw.spent_bytes = 0
    return SLICE_IS_SPENT


cpdef object running_loop():
    """The event loop of asyncio on this thread, or None."""
    # Without the function it is being imported, by another thread: nothing runs there yet.
    find = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    return None if find is None else find()


cdef bint hosts_asyncio() except -1:
    """Whether the goroutine, which has run a loop of asyncio, is in one now: that drives us."""
    if running_loop() is not None:
        return True
    thread_words().hosts = NULL
    return False


cdef class ParkRequest:
    """One wait that has been announced. Whoever drives the coroutine commits its waiter."""

    cdef bint commit_word(self, PyObject *waiter) noexcept:
        return False

    cdef int abort_word(self, PyObject *waiter) noexcept:
        """0: it is being woken. 1: taken back, with its reference. 2: it was never committed."""
        return 0

    def commit(self, waiter):
        """Park *waiter*: False if it is ready already and should go on at once."""
        Py_INCREF(waiter)
        if self.commit_word(<PyObject *>waiter):
            return True
        Py_DECREF(waiter)
        return False

    def abort(self, waiter):
        """Take back *waiter*, the very object that was committed, if nothing wakes it yet.

        False if it is being woken and will come out of netpoll. Of one that has come out already it
        knows nothing: once the next wait is announced, that one is taken back.
        """
        cdef int rc = self.abort_word(<PyObject *>waiter)
        if rc == 1:
            Py_DECREF(waiter)
        return rc != 0

    cdef int forsake(self) except -1:
        """Leave it, for a goroutine whose run is over, where others would meet its waiter."""
        return 0

    # -- yielded in a task of asyncio that runs in a goroutine: taken for a future

    cdef object refuse_task(self):
        """None where it can begin again, in the task; else the error that the task gets."""
        return RuntimeError(
            f"{type(self).__name__} would wait in a task of asyncio, whose loop cannot wake it: "
            "await it in a goroutine, outside asyncio.run(), and talk to that over a Chan")

    @property
    def _asyncio_future_blocking(self):
        """Asked by asyncio, of what a task has yielded."""
        return True

    @_asyncio_future_blocking.setter
    def _asyncio_future_blocking(self, blocking):
        pass

    def get_loop(self):
        """Return the loop that asks."""
        return running_loop()

    def add_done_callback(self, fn, *, context=None):
        """Let the task go on at once: it begins again, for a future this time, or is refused."""
        cdef ThreadWords *tw = thread_words()
        error = self.refuse_task()
        future = running_loop().create_future()
        tw.hosts = tw.current
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
        future.add_done_callback(fn, context=context)

    def cancel(self, msg=None):
        """Return False: the task is about to go on, and is told then."""
        return False


cdef class SliceEnd(ParkRequest):
    """Yielded by an operation whose goroutine has used up its slice: run the others first."""

    cdef object refuse_task(self):
        return None


cdef class SliceMore(SliceEnd):
    """The same in the middle of a long operation, which may be cancelled there."""


SLICE_END = SliceEnd()
SLICE_MORE = SliceMore()


cdef class Awaitable(ParkRequest):
    """An operation: step() says how it goes on. Awaited once, by one coroutine.

    step returns 0 and a request to yield, or 1 and the result, each as a new reference; or 2 and a
    StopIteration with the result in it, where nothing may be lost for want of memory. One with a
    state that a second coroutine could spoil begins with seize().
    """

    cdef bint seize(self) noexcept:
        """Take it for who is calling: False if it is another's (K2)."""
        return self.seize_on(thread_words())

    cdef bint seize_on(self, ThreadWords *tw) noexcept:
        cdef PyObject *me = tw.current if tw.current != NULL else tw.awaiting
        return gopoll_seize(&self.awaiter, <uintptr_t>(me if me != NULL else <PyObject *>tw))

    cdef void let_go_of(self, PyObject *me) noexcept:
        """*me*, which may have it, is going: it is whoever's steps it next (K2)."""
        if load_word(&self.awaiter) == <uintptr_t>me:
            store_word(&self.awaiter, 0)

    cdef int step(self, PyObject **out) except -1:
        raise NotImplementedError

    cdef int take(self, PyObject *value) except -1:
        """Be sent a value, before the step."""
        raise TypeError("an operation takes no value: send(None)")

    @property
    def _asyncio_future_blocking(self):
        """As of a ParkRequest; None, as of no future, before somebody has awaited it."""
        return True if self.awaiter else None

    @_asyncio_future_blocking.setter
    def _asyncio_future_blocking(self, blocking):
        pass

    def __await__(self):
        cdef ThreadWords *tw = thread_words()
        if tw.current == NULL and tw.host != NULL:
            return (<HostBase>tw.host).awaiting(self)    # in a task of the host
        return self

    def __iter__(self):
        return self                          # asyncio says `yield from op.__await__()`


cdef object warnings_warn = warnings.warn    # kept: names go before the interpreter has ended


cdef int warn(str text, object category, object source) except -1:
    """Warn of *source*, which is going. From __del__ or __dealloc__, or wherever it is given up."""
    warnings_warn(text, category, source=source)
    return 0


cdef int never_awaited(str name, object source) except -1:
    """Warn of an operation (on *source*, or None) that nobody has awaited. From __dealloc__."""
    return warn(f"{name} was never awaited", RuntimeWarning, source)


cdef int count_links(int by) noexcept:
    """A thread has a host from now on (1), or has none any more (-1)."""
    return add_int(&gopoll_links, by)


cdef class HostBase:
    """What a guest knows of its host. See _host."""

    cdef object awaiting(self, Awaitable op):
        """The iterator of an await of *op* in a task of the host."""
        raise NotImplementedError


cdef PyObject *_iternext(PyObject *self) noexcept:
    return gopoll_next(self, <gopoll_step>(<Awaitable>self).step)


cdef PySendResult _send(PyObject *self, PyObject *arg, PyObject **out) noexcept:
    return gopoll_give(self, arg, <gopoll_take>(<Awaitable>self).take,
                       <gopoll_step>(<Awaitable>self).step, out)


cdef int set_iternext(type cls) except -1:
    """Give *cls* the C tp_iternext and am_send. Compiled subclasses made later inherit them; those
    of its own module exist already and need the call too. A Python subclass cannot be awaited."""
    gopoll_set_iternext(cls, _iternext, _send)
    return 0


set_iternext(Awaitable)
