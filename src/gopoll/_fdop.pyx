"""Operations that can block: the one retry loop, and read and write on top of it.

Made by FD's methods, awaited in a goroutine, on the scheduler of the connection.
Go: internal/poll/fd_unix.go (go1.27).

An Op takes its direction's lock, tries the system call, and only if that would block announces a
wait, yields itself, and is committed by whoever drives the coroutine. Op.step does that for all.

R1: after a short read the next operation that reads waits without a try, after a short write the
    same one does. Sound where all that can come is told by an edge that nobody has dropped since:
    the socket is plain, no event has said more than readable or writable (a FIN shares the edge
    of the data before it; urgent data and errors cut a read short), the buffer is Python's own
    memory (no page of it is missing), and stored readiness is kept: who uses `drained` clears it
    and does not reset; whoever else has consumed readiness makes a system call before it waits.
K4: `written` of what writes grows by what the kernel has taken before anything else can raise, and
    then only. Whoever throws into the await does so between two attempts: the count is exact,
    whatever is thrown.
"""

from cpython.buffer cimport PyBuffer_Release
from cpython.bytearray cimport PyByteArray_CheckExact
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.memoryview cimport PyMemoryView_Check, PyMemoryView_GET_BUFFER
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uintptr_t

from gopoll._atomic cimport load_int, load_word
from gopoll._bytes cimport gopoll_bytes
from gopoll._fdmutex cimport (FdWait, fdmutex_cancel, fdmutex_closed, fdmutex_rwlock,
                              fdmutex_rwlock_free, fdmutex_rwunlock_free, muClosed, muLocked,
                              muOverflow, muQueued)
from gopoll._park cimport (SLICE_END, SLICE_FOREIGN, SLICE_IS_SPENT, SLICE_MORE, Awaitable,
                           ThreadWords, give, never_awaited, slice_look, slice_spent,
                           thread_words)
from gopoll._pollcache cimport (modeRead, netpollabort, netpollblockcommit, netpollcheckerr,
                                netpollresume, pdWait, poll_runtime_pollReset,
                                poll_runtime_pollWait, pollDesc, pollErrClosing,
                                pollErrNotPollable, pollErrTimeout, pollIsQuiet, pollNoError)
from gopoll._pollserver cimport pollserver_forked
from gopoll._sysfd cimport MAX_RW, SysFD, check_fork, read_some, write_some
from gopoll._throw cimport throw

from gopoll.errors import closed_error, not_pollable_error, op_error, timeout_error


cdef extern from *:
    """
    /* How much has been written, or read into a buffer, is as a rule what the last one gave. */
    static PyObject *gopoll_count(Py_ssize_t n) {
    #ifndef Py_GIL_DISABLED
      static Py_ssize_t last = -1;
      static PyObject *kept;
      PyObject *made;
      if (n == last) return Py_NewRef(kept);
      made = PyLong_FromSsize_t(n);
      if (made) { Py_XSETREF(kept, Py_NewRef(made)); last = n; }
      return made;
    #else
      return PyLong_FromSsize_t(n);
    #endif
    }
    """
    object gopoll_count(Py_ssize_t n)
    int _PyBytes_Resize(PyObject **bytes, Py_ssize_t size) except -1

cdef class Op(Awaitable):
    """An operation on an FD: awaited once, by one coroutine, on the scheduler of its connection."""

    cdef int attempt(self, PyObject **out) except -1:
        """Try the system call: DONE and a result, or AGAIN and the errno in self.err."""
        raise NotImplementedError

    cdef int shortcut(self, PyObject **out) except -1:
        """Give a result that needs no system call: DONE or AGAIN. After the lock, as in Go."""
        return AGAIN

    cdef str name(self):
        raise NotImplementedError

    cdef str call(self):
        """The system call of attempt, as errors name it, but not those of files, as in Go."""
        return self.name()

    cdef object progress(self):
        """How much has left already, for the errors of writes; None where that has no meaning."""
        return None

    cdef object peer(self):
        """The remote address that errors name."""
        return self.fd.remote_addr

    cdef int step(self, PyObject **out) except -1:
        cdef ThreadWords *tw = thread_words()        # once: it is a call
        cdef bint raised
        cdef int rc
        if not self.seize_on(tw):                    # K2
            self.refuse_twice()
        if self.phase == PARKED or self.phase == SPENT:
            self.resume()
        else:
            rc = self.begin(tw, out)
            if rc != LOCKED:
                return rc == ENDED
        while True:
            raised = True
            try:                                     # finally: except would save what is handled
                rc = self.attempt(out)
                if rc != DONE and self.err == EINTR:
                    PyErr_CheckSignals()
                raised = False
            finally:
                if raised:                           # out of memory, or of a signal handler
                    self.finish()
            if rc == DONE:
                self.finish()
                tw.spent += 1
                tw.spent_bytes += self.moved
                return 1
            if self.err == EINTR:
                continue
            if self.err == SLICE:                 # A13, in the middle of a long one
                self.phase = SPENT
                give(SLICE_MORE, out)
                return 0
            elif self.err != EAGAIN:
                self.fail_errno(self.err)
            elif self.park(out) == PARKED:
                return 0

    cdef int resume(self) except -1:
        """Come back with the lock, from a wait or from the run queue; raise if it is over."""
        cdef SysFD fd = self.fd
        cdef int rc
        check_fork(fd)
        if self.phase == PARKED:
            if self.is_parked():
                self.refuse_twice()
            self.phase = LOCKED
            rc = netpollresume(fd.pd, self.mode)
            if rc < 0:
                throw(rc)
        self.phase = LOCKED
        if fd.pd != NULL:
            rc = netpollcheckerr(fd.pd, self.mode)
            if rc != pollNoError:
                self.fail(rc)
        elif fdmutex_closed(&fd.mu):                 # not registered: no pollDesc says so
            self.fail(pollErrClosing)
        return 0

    cdef int begin(self, ThreadWords *tw, PyObject **out) except -1:
        """Take the lock: LOCKED to go on, ENDED with a result, else after a request to yield."""
        cdef SysFD fd = self.fd
        cdef int rc
        if self.phase == NEW:
            rc = slice_look(tw, <PyObject *>fd.poller)
            if rc == SLICE_IS_SPENT:
                Py_INCREF(SLICE_END)
                out[0] = <PyObject *>SLICE_END
                return QUEUED
            self.phase = ENDED                       # refused here, it was awaited all the same
            check_fork(fd)
            self.phase = NEW
            if rc == SLICE_FOREIGN:
                self.check_foreign()
            rc = (muLocked if fdmutex_rwlock_free(&fd.mu, self.mode == modeRead)
                  else fdmutex_rwlock(&fd.mu, self.mode == modeRead, NULL))
            if rc == muQueued and self.queue() == QUEUED:
                Py_INCREF(self.lockwait)
                out[0] = <PyObject *>self.lockwait
                return QUEUED
            if rc == muClosed or rc == muOverflow:
                self.refuse(rc)
        elif self.phase == QUEUED:
            if load_word(&self.lockwait.state) > pdWait:
                self.refuse_twice()
            if not self.lockwait.is_set:             # a spurious wake-up: wait on
                Py_INCREF(self.lockwait)
                out[0] = <PyObject *>self.lockwait
                return QUEUED
            if not self.lockwait.node.granted:
                self.refuse(muClosed)
        else:
            self.refuse_twice()
        self.phase = LOCKED
        if self.shortcut(out) == DONE:
            self.finish()
            return ENDED
        if fd.pd == NULL:
            return LOCKED
        if self.mode == modeRead and fd.drained:
            fd.drained = False                       # R1, whatever becomes of this operation
            if load_int(&fd.plain) and pollIsQuiet(fd.pd):
                return self.park(out)
        # Every event says that there is room. Who leaves that tries twice where there is none; who
        # drops it has the next event store it again, two locked instructions a message.
        rc = (netpollcheckerr(fd.pd, self.mode) if self.hopeful
              else poll_runtime_pollReset(fd.pd, self.mode))
        if rc < 0:
            throw(rc)
        if rc != pollNoError:
            self.fail(rc)
        return LOCKED

    cdef int queue(self) except -1:
        """Queue for the lock: QUEUED, or LOCKED if it has become free."""
        cdef SysFD fd = self.fd
        cdef FdWait wait
        cdef int rc
        self.check_thread()
        wait = FdWait(<object>thread_words().poller, self.name())
        wait.node.note = <PyObject *>wait
        Py_INCREF(wait)                              # the queue's reference
        rc = fdmutex_rwlock(&fd.mu, self.mode == modeRead, &wait.node)
        if rc == muQueued:
            self.lockwait = wait
            self.phase = QUEUED
            return QUEUED
        Py_DECREF(wait)
        if rc != muLocked:
            self.refuse(rc)
        return LOCKED

    cdef int refuse(self, int rc) except -1:
        """Raise for a lock that is not to be had: closed, or too many operations."""
        self.finish()
        thread_words().spent += 1                    # A13: failures cost too
        self.fd.mutex_error(rc, self.name(), self.progress())
        return 0

    cdef bint is_parked(self) noexcept:
        """Whether somebody waits through this operation: who has been woken finds another state."""
        cdef pollDesc *pd = self.fd.pd
        return load_word(&pd.rg if self.mode == modeRead else &pd.wg) in (pdWait, self.waiter)

    cdef int refuse_twice(self) except -1:
        raise RuntimeError(f"cannot await an operation twice ({self.name()} {self.fd.network})")

    cdef int check_phase(self) except -1:
        """Raise RuntimeError if what attempt has called has ended us: the lock is gone."""
        if self.phase != LOCKED:
            raise RuntimeError(f"{self.name()} {self.fd.network} was ended by what it called")
        return 0

    cdef int check_thread(self) except -1:
        """Raise RuntimeError, and give the lock back, where nobody could wake us."""
        cdef ThreadWords *tw = thread_words()
        if tw.poller == <PyObject *>self.fd.poller or self.fd.poller is None:    # the lock alone
            if tw.current != NULL or tw.host != NULL:
                return 0
        self.finish()
        if tw.current == NULL and tw.host == NULL:
            raise RuntimeError(
                f"{self.name()} {self.fd.network} would block outside a goroutine: run it in "
                "gopoll.run(...) or start it with gopoll.go(...), or attach gopoll to the loop "
                "that runs here (gopoll.embed.aio.attach(), gopoll.embed.trio.attach())")
        raise RuntimeError(
            f"{self.name()} {self.fd.network}: the connection belongs to another scheduler "
            "(another gopoll.run or attach): use it there")

    cdef int check_foreign(self) except -1:
        """Raise RuntimeError in another run than the connection's, which could complete by chance.

        Not where it is closed, or that run has ended: then that is told.
        """
        cdef SysFD fd = self.fd
        if fd.pd != NULL and not fdmutex_closed(&fd.mu) and not fd.poller.is_closed:
            self.check_thread()
        return 0

    cdef int park(self, PyObject **out) except -1:
        """Announce a wait: PARKED and ourselves to yield, or LOCKED if readiness came first."""
        cdef SysFD fd = self.fd
        cdef int rc
        if fd.pd == NULL:
            self.fail_errno(EAGAIN)
        self.check_thread()
        rc = poll_runtime_pollWait(fd.ps, fd.pd, self.mode)
        if rc == -1:
            self.phase = PARKED
            Py_INCREF(self)
            out[0] = <PyObject *>self
            return PARKED
        if rc < 0:
            throw(rc)
        if rc != pollNoError:
            self.fail(rc)
        return LOCKED

    cdef bint commit_word(self, PyObject *waiter) noexcept:
        self.waiter = <uintptr_t>waiter
        return netpollblockcommit(self.fd.ps, self.fd.pd, self.mode, <uintptr_t>waiter)

    cdef int abort_word(self, PyObject *waiter) noexcept:
        cdef pollDesc *pd = self.fd.pd
        if pd == NULL:                               # woken, ended and closed in the meantime
            return 0
        return netpollabort(self.fd.ps, pd, self.mode, <uintptr_t>waiter)

    cdef int fail(self, int code) except -1:
        """Unlock and raise what a PollError, or an errno above those, stands for."""
        cdef SysFD fd = self.fd
        written = self.progress()
        op = self.name()
        peer = self.peer()
        self.finish()
        thread_words().spent += 1
        if code == pollErrClosing:
            raise closed_error(op, fd.network, fd.local_addr, peer, file=fd.is_file,
                               written=written, ended=not fdmutex_closed(&fd.mu))
        if code > pollErrNotPollable:
            raise op_error(op, fd.network, fd.local_addr, peer, code, written=written,
                           syscall="epoll_ctl")
        if code == pollErrTimeout:
            raise timeout_error(op, fd.network, fd.local_addr, peer, written=written)
        raise not_pollable_error(op, fd.network, fd.local_addr, peer, hint=None)

    cdef int fail_errno(self, int code) except -1:
        """Unlock and raise an errno."""
        cdef SysFD fd = self.fd
        written = self.progress()
        self.finish()
        thread_words().spent += 1
        raise op_error(self.name(), fd.network, fd.local_addr, self.peer(), code, written=written,
                       syscall=None if fd.is_file else self.call())

    cdef int finish(self) except -1:
        """End the operation: give back the lock or the place in the queue. Any phase, once."""
        cdef SysFD fd = self.fd
        cdef int phase = self.phase
        self.phase = ENDED
        if phase == PARKED:
            if (not pollserver_forked(fd.ps)                                         # A9
                    and netpollabort(fd.ps, fd.pd, self.mode, self.waiter) == 1):
                # The driver threw in without abort(): the waiter's reference is ours to drop.
                Py_DECREF(<object><PyObject *>self.waiter)
        elif phase == QUEUED:
            if fdmutex_cancel(&fd.mu, self.mode == modeRead, &self.lockwait.node):
                Py_DECREF(self.lockwait)
            elif self.lockwait.node.granted:         # M2: ours already; give it on
                phase = LOCKED
        if ((phase == LOCKED or phase == PARKED or phase == SPENT)
                and not fdmutex_rwunlock_free(&fd.mu, self.mode == modeRead)):
            fd.unlock(self.mode)
        return 0

    def throw(self, kind, value=None, traceback=None):
        """Take an exception that is thrown in at the await: clean up, then raise it.

        On a cancelled write it says how much has left, in .written.
        """
        exc = thrown(kind, value)
        written = self.progress()
        self.finish()
        if written is not None and hasattr(exc, "written"):
            exc.written = written
        raise exc

    def close(self):
        """Give the operation up, as a coroutine that is closed does with what it awaits."""
        self.finish()

    def __dealloc__(self):
        if self.fd is not None and self.phase != ENDED:
            if self.phase == NEW:
                never_awaited(f"{self.name()} {self.fd.network}", self.fd)
            else:
                self.finish()


cdef object thrown(object kind, object value):
    """The exception that throw(kind, value) means: kind may be the class."""
    if not isinstance(kind, type):
        return kind
    exc = kind() if value is None else value
    return exc if isinstance(exc, kind) else kind(value)


# -- operations ----------------------------------------------------------------------------------

cdef class ReadOp(Op):
    cdef str name(self):
        return "read"

    cdef int shortcut(self, PyObject **out) except -1:
        if self.size > 0:
            return AGAIN
        data = b""
        Py_INCREF(data)
        out[0] = <PyObject *>data
        return DONE

    cdef int attempt(self, PyObject **out) except -1:
        cdef char small[AMPLE]                       # all that is asked for: a message would be cut
        cdef char *at
        cdef Py_ssize_t n
        cdef PyObject *data
        cdef Py_ssize_t asked = self.size
        if asked <= AMPLE and self.fd.last_read < DIRECT:
            n = read_some(self.fd, small, asked)
            if n < 0:
                self.err = errno
                return AGAIN
            small_data = gopoll_bytes(small, n)
            Py_INCREF(small_data)
            out[0] = <PyObject *>small_data
        else:
            large = PyBytes_FromStringAndSize(NULL, asked)
            at = PyBytes_AS_STRING(large)
            if asked <= AMPLE:
                n = read_some(self.fd, at, asked)
                self.err = errno
            else:
                with nogil:
                    n = read_some(self.fd, at, asked)
                    self.err = errno             # here: attaching again may change it
            if n < 0:
                return AGAIN
            data = <PyObject *>large
            Py_INCREF(large)
            large = None
            _PyBytes_Resize(&data, n)
            out[0] = data
        self.moved = n
        self.fd.last_read = <int>min(n, <Py_ssize_t>SMALL)
        self.fd.drained = 0 < n < asked < MAX_RW
        return DONE


cdef class ReadIntoOp(Op):
    cdef str name(self):
        return "read"

    cdef int shortcut(self, PyObject **out) except -1:
        return AGAIN if self.view.len > 0 else self.result(0, out)

    cdef int result(self, Py_ssize_t n, PyObject **out) except -1:
        count = gopoll_count(n)
        Py_INCREF(count)
        out[0] = <PyObject *>count
        return DONE

    cdef int finish(self) except -1:
        # Not only in __dealloc__: without a GIL the object may live on for a little.
        PyBuffer_Release(&self.view)
        return Op.finish(self)

    cdef int attempt(self, PyObject **out) except -1:
        cdef Py_ssize_t n
        if self.view.len <= SMALL:
            n = read_some(self.fd, self.view.buf, self.view.len)
            self.err = errno
        else:
            with nogil:
                n = read_some(self.fd, self.view.buf, self.view.len)
                self.err = errno
        if n < 0:
            return AGAIN
        self.moved = n
        self.fd.drained = 0 < n < self.view.len < MAX_RW and is_own_memory(&self.view)
        return self.result(n, out)

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


cdef class WriteOp(Op):
    cdef str name(self):
        return "write"

    cdef object progress(self):
        return self.written

    cdef int attempt(self, PyObject **out) except -1:
        cdef Py_ssize_t n, left
        while True:
            left = self.view.len - self.written
            if left <= SMALL:
                n = write_some(self.fd, <char *>self.view.buf + self.written, left)
                if n < 0:
                    self.err = errno
            else:
                with nogil:
                    n = write_some(self.fd, <char *>self.view.buf + self.written, left)
                    self.err = errno
            if n < 0:
                return AGAIN
            self.written += n                        # K4
            if self.written == self.view.len:
                self.moved = n
                break
            thread_words().spent_bytes += n
            if (0 < n < left < MAX_RW and load_int(&self.fd.plain) and pollIsQuiet(self.fd.pd)
                    and is_own_memory(&self.view)):
                self.err = EAGAIN                    # R1: the socket is full
                return AGAIN
            if n == 0:
                self.finish()
                raise op_error("write", self.fd.network, self.fd.local_addr, self.fd.remote_addr,
                               "unexpected EOF", written=self.written)
            if slice_spent():
                self.err = SLICE
                return AGAIN
        count = gopoll_count(self.written)
        Py_INCREF(count)
        out[0] = <PyObject *>count
        return DONE

    cdef int finish(self) except -1:
        PyBuffer_Release(&self.view)                 # as ReadIntoOp's
        return Op.finish(self)

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


cdef bint is_own_memory(Py_buffer *view) noexcept:
    """Whether all of the buffer is there: memory that may be mapped from a file is not (R1)."""
    cdef PyObject *owner = <PyObject *>view.obj
    if owner != NULL and PyMemoryView_Check(<object>owner):
        owner = <PyObject *>PyMemoryView_GET_BUFFER(<object>owner).obj
    return owner != NULL and (PyBytes_CheckExact(<object>owner)
                              or PyByteArray_CheckExact(<object>owner))
