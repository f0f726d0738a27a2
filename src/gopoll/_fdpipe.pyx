"""Pipe: a place for bytes on their way between two descriptors, and the spare ones of a poller.

Called by _fdcopy with the GIL held, on any thread. Go: internal/poll/splice_linux.go: splicePipe,
getPipe, putPipe (go1.27), whose pool is the process's and is emptied by the garbage collector.

X2: a pipe is empty whenever it is nobody's. Who has bytes in one and cannot go on drops it.
"""

cimport cython

from gopoll._atomic cimport load_int
from gopoll._pollerbase cimport PollerBase


cdef extern from "<fcntl.h>" nogil:
    int fcntl(int fd, int op, int arg)
    enum:
        O_CLOEXEC
        O_NONBLOCK
        F_SETPIPE_SZ

cdef extern from "<unistd.h>" nogil:
    int pipe2(int *fds, int flags)
    int close(int fd)
    int getpid()

cdef enum:
    MOST_SPARE = 16            # of one poller; what is more is closed


cdef class Pipe:
    """Both ends of a pipe, non-blocking and closed on exec.

    Closed with the object, and by who drops it: without a GIL the object may live a little longer.
    """

    def __cinit__(self):
        self.r = self.w = -1

    cdef void close(self) noexcept:
        """Close both ends. Once or more, with nobody in them."""
        if self.r >= 0:
            close(self.r)
            close(self.w)
            self.r = self.w = -1

    def __dealloc__(self):
        self.close()


cdef Pipe take_pipe(PollerBase poller):
    """Return an empty pipe, a spare one of *poller* if there is one; None if none is to be had."""
    cdef Pipe pipe = None
    cdef int ends[2]
    if poller is not None:
        with cython.critical_section(poller):
            while poller.pipes:
                pipe = <Pipe>poller.pipes.pop()
                if pipe.pid == getpid():
                    break
                pipe.close()                         # the parent's: these are only copies
                pipe = None
    if pipe is not None:
        return pipe
    pipe = Pipe.__new__(Pipe)
    if pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0:
        return None
    pipe.r = ends[0]
    pipe.w = ends[1]
    pipe.pid = getpid()
    fcntl(pipe.w, F_SETPIPE_SZ, PIPE_BYTES)          # a smaller one works too
    return pipe


cdef int give_pipe(PollerBase poller, Pipe pipe) except -1:
    """Keep an empty pipe (X2) for the next, or drop it."""
    cdef bint kept = False
    if poller is not None:
        with cython.critical_section(poller):
            if not load_int(&poller.closed):         # else it has dropped them, or will now
                if poller.pipes is None:
                    poller.pipes = []
                if len(poller.pipes) < MOST_SPARE:
                    poller.pipes.append(pipe)
                    kept = True
    if not kept:
        pipe.close()
    return 0
