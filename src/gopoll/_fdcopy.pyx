"""Operations that move bytes without a bytes object: writev, sendfile and splice.

The functions are methods of the net package's stream connections, by assignment: their first
argument is the FD. Called in a goroutine, on the scheduler of the connection. sendfile and splice
make the kernel write where no flag can keep SIGPIPE away: it must be ignored, as Python does.
Go: internal/poll: writev.go, sendfile.go, splice_linux.go; net/sendfile.go, net/splice_linux.go
(go1.27).
"""

from io import UnsupportedOperation

from cpython.buffer cimport PyBUF_SIMPLE, PyObject_GetBuffer
from cpython.number cimport PyNumber_Index
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EINVAL, EIO, ENOSYS, EOPNOTSUPP, EPERM, ESPIPE, errno
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from gopoll._fdop cimport (AGAIN, DONE, PARKED, SLICE, SMALL, Op, ReadOp, WriteOp, thrown)
from gopoll._fdpipe cimport PIPE_BYTES, Pipe, give_pipe, take_pipe
from gopoll._fdvec cimport Vec, VecOp, iovec
from gopoll._park cimport SLICE_BYTES, give, never_awaited, slice_spent, thread_words
from gopoll._pollcache cimport modeRead, modeWrite
from gopoll._sysfd cimport SysFD, write_some

from gopoll.errors import OpError, op_error


cdef extern from "<sys/uio.h>" nogil:
    Py_ssize_t writev_ "writev"(int fd, const iovec *iov, int n)

cdef extern from "<sys/socket.h>" nogil:
    cdef struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    Py_ssize_t sendmsg(int fd, const msghdr *msg, int flags)
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL

cdef extern from "<sys/sendfile.h>" nogil:
    ctypedef int64_t off_t
    Py_ssize_t sendfile_ "sendfile"(int out, int file, off_t *offset, size_t n)

cdef extern from "<unistd.h>" nogil:
    Py_ssize_t pread(int fd, void *buf, size_t n, off_t offset)
    Py_ssize_t read(int fd, void *buf, size_t n)
    off_t lseek(int fd, off_t offset, int whence)
    enum:
        SEEK_SET
        SEEK_CUR

cdef extern from "<fcntl.h>" nogil:
    Py_ssize_t splice(int src, void *src_at, int dst, void *dst_at, size_t n, unsigned int flags)
    enum:
        SPLICE_F_MOVE
        SPLICE_F_NONBLOCK


cdef bint is_refusal(int code) noexcept nogil:
    """Whether the kernel says that it does not do this at all: then we copy."""
    return code == EINVAL or code == ENOSYS or code == EOPNOTSUPP or code == EPERM


cdef int check_stream(SysFD fd, str op) except -1:
    if not fd.is_stream:
        raise OpError(op, fd.network, fd.local_addr, fd.remote_addr, "not a byte stream",
                      errno=EINVAL)
    return 0


# -- writev --------------------------------------------------------------------------------------

cdef class WritevOp(VecOp):
    cdef str name(self):
        return "writev"

    cdef Py_ssize_t put(self, iovec *iov, int n) noexcept nogil:
        cdef msghdr msg
        if self.fd.is_file:
            return writev_(self.fd.sysfd, iov, n)
        memset(&msg, 0, sizeof(msg))
        msg.msg_iov = iov
        msg.msg_iovlen = n
        return sendmsg(self.fd.sysfd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT)


# -- sendfile ------------------------------------------------------------------------------------

cdef class SendFileOp(Op):
    cdef str name(self):
        return "sendfile"

    cdef object progress(self):
        return self.written

    cdef int number(self) except? -1:
        """The file's descriptor, asked for again after each wait: who closes it meanwhile is told,
        and no other file is sent in its place."""
        try:
            return self.file if isinstance(self.file, int) else self.file.fileno()
        except MemoryError:
            self.finish()
            raise
        except Exception as exc:
            self.finish()
            raise op_error("sendfile", self.fd.network, self.fd.local_addr, self.fd.remote_addr,
                           exc, written=self.written) from exc

    cdef int result(self, PyObject **out) except -1:
        cdef object count = self.written
        Py_INCREF(count)
        out[0] = <PyObject *>count
        return DONE

    cdef int attempt(self, PyObject **out) except -1:
        cdef int file = self.number()
        cdef off_t at
        cdef Py_ssize_t n, most
        self.check_phase()
        while self.left != 0:
            most = SLICE_BYTES if self.left < 0 else min(self.left, <int64_t>SLICE_BYTES)
            at = self.offset
            with nogil:                              # also for a little: the disk may be slow
                if self.copies:
                    n = copy_some(self.fd, file, at, most)
                else:
                    n = sendfile_(self.fd.sysfd, file, &at, most)
                self.err = errno
            if n < 0:
                if is_refusal(self.err) and self.written == 0 and not self.copies:
                    self.copies = True
                    continue
                return AGAIN
            if n == 0:
                break                                # the end of the file
            self.written += n                        # K4
            self.offset += n
            if self.left > 0:
                self.left -= n
            if self.moves:
                lseek(file, self.offset, SEEK_SET)
            thread_words().spent_bytes += n
            if self.left != 0 and slice_spent():
                self.err = SLICE
                return AGAIN
        return self.result(out)


cdef Py_ssize_t copy_some(SysFD fd, int file, off_t at, size_t n) noexcept nogil:
    """Send up to *n* bytes of *file* at *at* by reading them; what does not fit is read again."""
    cdef char small[SMALL]
    cdef Py_ssize_t got = pread(file, small, n if n < SMALL else SMALL, at)
    return write_some(fd, small, got) if got > 0 else got


# -- splice --------------------------------------------------------------------------------------

cdef class SpliceInOp(Op):
    """Move what has come in on the FD into a pipe, which is taken when there is something to take:
    who waits for bytes holds none. Go: spliceDrain."""
    wait_reason = "splice"

    cdef str name(self):
        return "splice"

    cdef int attempt(self, PyObject **out) except -1:
        cdef Pipe pipe = take_pipe(self.fd.poller)
        cdef Py_ssize_t n = -1
        self.err = EINVAL                            # without a pipe, as without splice
        if pipe is not None:
            with nogil:
                n = splice(self.fd.sysfd, NULL, pipe.w, NULL, self.size,
                           SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
                self.err = errno
            if n > 0:
                self.pipe = pipe
            else:
                give_pipe(self.fd.poller, pipe)      # X2
        if n < 0 and not is_refusal(self.err):       # the pipe is empty: EAGAIN is not its own
            return AGAIN
        self.got = n
        Py_INCREF(None)
        out[0] = <PyObject *>None
        return DONE


cdef class SpliceOutOp(Op):
    """Move what is in a pipe out on the FD, all of it. Go: splicePump."""
    wait_reason = "splice"

    cdef str name(self):
        return "splice"

    cdef object progress(self):
        return self.written

    cdef Py_ssize_t copy_out(self) noexcept nogil:
        """As splice, by way of a buffer that keeps what does not fit."""
        cdef Py_ssize_t n
        if self.at == self.end:
            self.at = self.end = 0
            n = read(self.pipe.r, self.copy, SMALL)
            if n <= 0:
                return n
            self.end = n
        n = write_some(self.fd, self.copy + self.at, self.end - self.at)
        if n > 0:
            self.at += n
        return n

    cdef int attempt(self, PyObject **out) except -1:
        cdef Py_ssize_t n
        while self.left > 0:
            with nogil:
                if self.copy != NULL:
                    n = self.copy_out()
                else:
                    n = splice(self.pipe.r, NULL, self.fd.sysfd, NULL, self.left,
                               SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
                self.err = errno
            if n < 0 and self.copy == NULL and is_refusal(self.err):
                self.copy = <char *>malloc(SMALL)
                if self.copy != NULL:
                    continue
            if n < 0:                                # the pipe is not empty: EAGAIN is not its own
                return AGAIN
            if n == 0:
                self.err = EIO
                return AGAIN
            self.left -= n
            self.written += n
            thread_words().spent_bytes += n
            if self.left > 0 and slice_spent():
                self.err = SLICE
                return AGAIN
        Py_INCREF(None)
        out[0] = <PyObject *>None
        return DONE

    def __dealloc__(self):
        free(self.copy)


cdef class SpliceOp(Awaitable):
    """Moves bytes from one FD to another, a pipe's worth at a time: one operation on each in turn.

    What it yields is the one that waits: it is never parked itself. Between two turns it holds no
    lock, as in Go. Go: Splice.

    X3: bytes that have been read are in part's pipe, or in data, until they have left: whoever
    ends it before that counts them.
    """

    cdef int step(self, PyObject **out) except -1:
        cdef PyObject *value = NULL
        cdef object count
        cdef bint done = False
        if not self.seize() or self.ended or (self.part is not None and self.part.phase == PARKED
                                              and self.part.is_parked()):            # K2
            raise RuntimeError(f"cannot await an operation twice (splice {self.src.network})")
        self.begun = True
        while not done:
            if self.part is None and self.left == 0:
                break
            try:
                if self.part is None:
                    self.part = self.read_more()
                if not self.part.step(&value):
                    out[0] = value
                    return 0
                done = self.turn(value)
            except BaseException as exc:
                self.give_up(exc)
                raise
        self.part = None
        self.ended = True
        count = self.written
        return give(count, out)

    cdef Op read_more(self):
        """Make the operation that reads the next bytes."""
        cdef SpliceInOp taken
        cdef ReadOp op
        cdef Py_ssize_t most = SMALL if self.copies else PIPE_BYTES
        if self.left >= 0 and self.left < most:
            most = self.left
        if self.copies:
            op = ReadOp.__new__(ReadOp)
            op.size = most
            return on_fd(op, self.src, modeRead)
        taken = SpliceInOp.__new__(SpliceInOp)
        taken.size = most
        return on_fd(taken, self.src, modeRead)

    cdef int turn(self, PyObject *value) except -1:
        """Go on after part has ended with *value*: 1 at the end of it all."""
        cdef SpliceOutOp pump
        cdef WriteOp write
        cdef Py_ssize_t n
        result = <object>value
        Py_DECREF(result)
        if isinstance(self.part, SpliceInOp):
            n = (<SpliceInOp>self.part).got
            if n > 0:
                pump = SpliceOutOp.__new__(SpliceOutOp)
                pump.pipe = (<SpliceInOp>self.part).pipe
                pump.left = n
                self.part = on_fd(pump, self.dst, modeWrite)
                return 0
            self.copies = n < 0
            self.part = None
            return n == 0
        if isinstance(self.part, ReadOp):
            self.data = result
            if not self.data:
                return 1
            write = WriteOp.__new__(WriteOp)
            PyObject_GetBuffer(self.data, &write.view, PyBUF_SIMPLE)
            self.part = on_fd(write, self.dst, modeWrite)
            return 0
        if isinstance(self.part, SpliceOutOp):
            n = (<SpliceOutOp>self.part).written
            give_pipe(self.src.poller, (<SpliceOutOp>self.part).pipe)
        else:
            n = (<WriteOp>self.part).written
            self.data = None
        self.part = None
        self.written += n
        if self.left > 0:
            self.left -= n
        return 0

    cdef int give_up(self, object exc) except -1:
        """End it; *exc*, if any, is told what has left and what never will (X3)."""
        cdef Op part = self.part
        cdef Py_ssize_t lost = 0
        cdef int64_t written = self.written
        cdef Pipe pipe = None
        if isinstance(part, SpliceOutOp):
            pipe = (<SpliceOutOp>part).pipe
            written += (<SpliceOutOp>part).written
            lost = (<SpliceOutOp>part).left
        elif isinstance(part, SpliceInOp):
            pipe = (<SpliceInOp>part).pipe
            lost = (<SpliceInOp>part).got if pipe is not None else 0
        elif self.data is not None:
            lost = len(self.data)
            if isinstance(part, WriteOp):
                written += (<WriteOp>part).written
                lost -= (<WriteOp>part).written
        self.ended = True
        self.written = written                       # K4
        self.part = None
        self.data = None
        if pipe is not None:
            pipe.close()                             # X2
        if part is not None:
            part.finish()
        if exc is not None:
            if hasattr(exc, "written"):
                exc.written = written
            if lost > 0:
                exc.add_note(f"{lost} bytes had been read and were not written")
        return 0

    def throw(self, kind, value=None, traceback=None):
        """As Op.throw; .written counts the whole of it."""
        exc = thrown(kind, value)
        self.begun = True
        self.give_up(exc)
        raise exc

    def close(self):
        """Give the operation up, as a coroutine that is closed does with what it awaits."""
        self.begun = True
        self.give_up(None)

    def __dealloc__(self):
        if not self.begun and self.src is not None:
            never_awaited(f"splice {self.src.network}", self.src)


cdef Op on_fd(Op op, SysFD fd, int mode):
    op.fd = fd
    op.mode = mode
    return op


# -- methods -------------------------------------------------------------------------------------

def writev(SysFD fd not None, buffers):
    """Write all of *buffers* in as few system calls as may be; return the number of bytes. An op.

    buffers: an iterable of bytes-like objects, kept until it ends; empty ones are skipped.
    Concurrent writes do not mix. An error says in .written how much has left. On a datagram
    socket they make one message. Raises ClosedError, TimeoutError (deadline), another OpError.
    Go: Buffers.WriteTo, FD.Writev.
    """
    cdef WritevOp op = WritevOp.__new__(WritevOp)
    op.vec = Vec()
    op.vec.fill(buffers)
    op.fd = fd
    op.mode = modeWrite
    return op


def sendfile(SysFD fd not None, file, offset=0, count=None):
    """Send *count* bytes of *file* from *offset*, without taking them into Python. An op.

    file: an object with fileno(), or a descriptor; to be kept open. What a file object has
    buffered does not matter. offset: None is where the descriptor stands, which then moves by what
    is sent. count: None is up to the end, which may come before it. Returns the number of bytes;
    an error says it in .written. Copies where the kernel cannot.
    Raises ClosedError, TimeoutError (deadline), another OpError; for a pipe or a socket at once.
    Go: TCPConn.ReadFrom, SendFile.
    """
    cdef SendFileOp op = SendFileOp.__new__(SendFileOp)
    cdef off_t at
    check_stream(fd, "sendfile")
    at = lseek(descriptor_of(file), 0, SEEK_CUR)
    if at < 0:
        raise op_error("sendfile", fd.network, fd.local_addr, fd.remote_addr, errno, written=0,
                       hint="no file with a position: see splice_from" if errno == ESPIPE else None)
    op.moves = offset is None
    op.offset = at if op.moves else PyNumber_Index(offset)
    op.left = -1 if count is None else PyNumber_Index(count)
    if op.offset < 0:
        raise ValueError(f"offset must not be negative, not {offset}")
    if count is not None and op.left < 0:
        raise ValueError(f"count must not be negative, not {count}")
    op.file = file
    op.fd = fd
    op.mode = modeWrite
    return op


def descriptor_of(file):
    """Return the descriptor of *file*, which may be one. TypeError if it has none."""
    if isinstance(file, int):
        return file
    if isinstance(file, type) or not hasattr(file, "fileno"):
        kind = f"{file.__name__} itself" if isinstance(file, type) else type(file).__name__
        raise TypeError(f"file must be an open file or a descriptor, not {kind}")
    try:
        return file.fileno()
    except UnsupportedOperation:
        raise TypeError(f"file must have a descriptor, and this {type(file).__name__} has none: "
                        "write() what it holds") from None


def splice_from(SysFD dst not None, SysFD src not None, count=None):
    """Write to *dst* what comes in on *src*, by way of the kernel. An op.

    Both are byte streams. count: the most that is moved; None is up to the end. Returns the number
    of bytes; an error says it in .written, and a note on it how much had been read from *src* and
    is gone. Copies where the kernel cannot. Other reads of *src* and writes to *dst* come in
    between, as in Go.
    Raises ClosedError, TimeoutError (deadline), another OpError: of either side, as it names.
    Go: TCPConn.ReadFrom, Splice.
    """
    cdef SpliceOp op = SpliceOp.__new__(SpliceOp)
    check_stream(dst, "splice")
    check_stream(src, "splice")
    op.left = -1 if count is None else PyNumber_Index(count)
    if count is not None and op.left < 0:
        raise ValueError(f"cannot splice {count} bytes: count must not be negative")
    op.dst = dst
    op.src = src
    return op
