"""A few of the reads and writes that have ended, kept for the next: an echo needs two at a time.

Called by FD, and by the interpreter when an operation is nobody's any more; any thread. To make an
object of four classes one above the other, and to take it apart again, costs more than the retry
loop that it is for. Without a GIL nothing is kept. Go: none; its operations are calls.

K3: what is kept has ended, holds no descriptor and no buffer, and is nobody's: its last reference
    has gone. Whoever takes it has it as a new one.
"""

from cpython.object cimport PyObject

from gopoll._fdop cimport ENDED, NEW, Op, ReadIntoOp, ReadOp, WriteOp


cdef extern from *:
    """
    #define GOPOLL_KEPT 32
    typedef struct {
      PyTypeObject *type;
      destructor dealloc;                    /* the class's own */
      int n;
      PyObject *kept[GOPOLL_KEPT];
    } gopoll_shelf;

    static int gopoll_has_room(gopoll_shelf *s, PyObject *o) {
      return Py_TYPE(o) == s->type && s->n < GOPOLL_KEPT;
    }
    static PyObject *gopoll_take(gopoll_shelf *s) {
      PyObject *o = s->kept[--s->n];
      _Py_NewReference(o);
      PyObject_GC_Track(o);
      return o;
    }
    static void gopoll_keep(gopoll_shelf *s, PyObject *o) { s->kept[s->n++] = o; }

    static void gopoll_set_up(gopoll_shelf *s, PyObject *type, destructor ours) {
      s->type = (PyTypeObject *)type;
      s->dealloc = s->type->tp_dealloc;
    #ifndef Py_GIL_DISABLED
      s->type->tp_dealloc = ours;
    #endif
    }
    """
    ctypedef void (*destructor)(PyObject *) noexcept
    ctypedef struct gopoll_shelf:
        destructor dealloc
        int n
    bint gopoll_has_room(gopoll_shelf *s, PyObject *o) noexcept
    object gopoll_take(gopoll_shelf *s)
    void gopoll_keep(gopoll_shelf *s, PyObject *o) noexcept
    void gopoll_set_up(gopoll_shelf *s, object cls, destructor ours) noexcept
    void PyObject_GC_UnTrack(PyObject *o) noexcept

cdef gopoll_shelf reads, readintos, writes


cdef int end(gopoll_shelf *s, PyObject *o) noexcept:
    """Keep *o*, whose last reference has gone, or destroy it (K3)."""
    if (<Op>o).phase == ENDED and (<Op>o).lockwait is None and gopoll_has_room(s, o):
        PyObject_GC_UnTrack(o)
        (<Op>o).fd = None                    # may run a program's code, and that may fill the shelf
        if gopoll_has_room(s, o):
            gopoll_keep(s, o)
            return 0
    s.dealloc(o)
    return 0


cdef object again(gopoll_shelf *s):
    """Return one of those that are kept, as new but for its class's own fields."""
    cdef Op op = <Op>gopoll_take(s)
    op.phase = NEW
    op.err = 0
    op.waiter = op.awaiter = 0
    return op


cdef ReadOp new_read():
    """Return a ReadOp without a descriptor."""
    return <ReadOp>again(&reads) if reads.n else ReadOp.__new__(ReadOp)


cdef ReadIntoOp new_readinto():
    """Return a ReadIntoOp without a descriptor and without a buffer."""
    return <ReadIntoOp>again(&readintos) if readintos.n else ReadIntoOp.__new__(ReadIntoOp)


cdef WriteOp new_write():
    """Return a WriteOp without a descriptor and without a buffer."""
    cdef WriteOp op
    if writes.n == 0:
        return WriteOp.__new__(WriteOp)
    op = <WriteOp>again(&writes)
    op.written = 0
    return op


cdef void end_read(PyObject *o) noexcept:
    end(&reads, o)


cdef void end_readinto(PyObject *o) noexcept:
    if <PyObject *>(<ReadIntoOp>o).view.obj == NULL:
        end(&readintos, o)
    else:                                    # refused in a forked child, say
        readintos.dealloc(o)


cdef void end_write(PyObject *o) noexcept:
    if <PyObject *>(<WriteOp>o).view.obj == NULL:
        end(&writes, o)
    else:
        writes.dealloc(o)


gopoll_set_up(&reads, ReadOp, end_read)
gopoll_set_up(&readintos, ReadIntoOp, end_readinto)
gopoll_set_up(&writes, WriteOp, end_write)
