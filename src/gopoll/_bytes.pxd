"""The bytes object that a read gives. All of it is C, included by who reads.

Called with the GIL, or attached. Go: none; its callers bring their buffers.

K6: an object is written to again when ours is its last reference: nobody has it, nobody can get it,
    and its memory has been told of by nobody. It has the same length, and its hash is forgotten.
"""


cdef extern from *:
    """
    #ifndef GOPOLL_BYTES
    #define GOPOLL_BYTES
    #include <string.h>

    /* A protocol, and a coroutine that does not name a message or deletes it, has dropped it before
       the next is read. Memory for one of 1 KiB costs as much as three hundred instructions: the C
       library keeps what is smaller at hand, and takes its locks once there is sysmon's thread. So
       the last one is kept, and is used again for one of its length; of less than GOPOLL_WORTH the
       interpreter's own allocator has it. Without a GIL a count of references says less. */
    enum { GOPOLL_WORTH = 480, GOPOLL_TOO_LARGE = 1 << 16 };

    #pragma GCC diagnostic push
    #pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    static void gopoll_forget(PyObject *o) { ((PyBytesObject *)o)->ob_shash = -1; }
    #pragma GCC diagnostic pop

    static PyObject *gopoll_bytes(const char *from, Py_ssize_t n) {
    #if !defined(Py_GIL_DISABLED) && PY_VERSION_HEX < 0x030F0000
      static PyObject *kept;
      PyObject *made;
      if (n < GOPOLL_WORTH || n > GOPOLL_TOO_LARGE) return PyBytes_FromStringAndSize(from, n);
      if (kept && Py_REFCNT(kept) == 1 && Py_SIZE(kept) == n) {                      /* K6 */
        memcpy(PyBytes_AS_STRING(kept), from, n);
        gopoll_forget(kept);
        return Py_NewRef(kept);
      }
      made = PyBytes_FromStringAndSize(from, n);
      if (made) Py_XSETREF(kept, Py_NewRef(made));
      return made;
    #else
      return PyBytes_FromStringAndSize(from, n);
    #endif
    }
    #endif
    """

    # PyBytes_FromStringAndSize(), of memory that is there.
    object gopoll_bytes(const char *at, Py_ssize_t n)
