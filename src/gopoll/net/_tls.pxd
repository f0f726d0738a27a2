"""TLSState, what a TLS connection's operations look at, and these. See _tls.pyx."""

from cpython.object cimport PyObject

from gopoll._fd cimport FD
from gopoll.net._bufio cimport BufferedOp
from gopoll.runtime._sync cimport Mutex


cdef class TLSState:
    cdef int ready             # the handshake is complete: never goes back; atomic
    cdef int closed            # atomic
    # Set once, by TLSBase.
    cdef public object _conn, _in, _out, _lock, _waits, _ask_deadline
    cdef public Mutex _hlock
    cdef public Mutex _rlock
    cdef public Mutex _wlock
    cdef FD fd                 # _conn, if it is one
    cdef object obj            # SSLObject
    cdef object acquire, release, fill, drain, ssl_read, ssl_write, ssl_pending
    # Guarded by _lock.
    cdef public bint _eof      # the connection below has ended
    cdef public bint _wants_read           # W4
    cdef public bint _shut     # close_write() has been called
    cdef public bint _notified  # close_notify has been made
    cdef public Py_ssize_t _kicks          # how often there may have been something to send
    cdef int take(self) except -1
    cdef int drop(self) except -1
    cdef int check(self, str op, int mode) except -1
    cdef bint has_to_send(self) except -1
    cdef int kick(self) except -1
    cdef bint is_waited_for(self) except -1
    cdef object decrypt(self, Py_ssize_t n, object view)
    cdef object take_bytes(self, Py_ssize_t n)

cdef class TLSReadOp(BufferedOp):
    cdef TLSState conn
    cdef Py_ssize_t n
    cdef bint held             # _rlock is ours; else a coroutine reads
    cdef bint look(self, object data, PyObject **out) except -1
    cdef int leave(self) except -1

cdef class TLSWriteOp(BufferedOp):
    cdef TLSState conn
    cdef object data
    cdef object sent           # ciphertext: what _unsent is while that is written
    cdef object made           # the write of it
    cdef object writing        # of the coroutine that writes, or None
    cdef Py_ssize_t told
    cdef int at
    cdef bint put(self) except -1
    cdef int encrypt(self) except -1
    cdef int write_slowly(self, object coro) except -1
    cdef int leave(self) except -1
