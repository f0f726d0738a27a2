"""Throws: corrupted state, as a code without the GIL and as InternalError with it.

Code without the GIL returns a Throw code; whoever is attached next calls throw() with it.
Any thread that holds the GIL (or is attached, on a free-threaded build).
Go: runtime/panic.go, throw (go1.27).
"""

from gopoll.errors import InternalError

# Go's own texts, each said here and nowhere else.
cdef dict TEXTS = {
    THROW_EPOLLCREATE: "runtime: netpollinit failed",
    THROW_EVENTFD: "runtime: eventfd failed",
    THROW_EPOLLCTL: "runtime: epollctl failed",
    THROW_BREAK_WRITE: "runtime: netpollBreak write failed",
    THROW_NETPOLL: "runtime: netpoll failed",
    THROW_EVENTFD_UNEXPECTED: "runtime: netpoll: eventfd ready for something unexpected",
    THROW_TAGGED_POINTER: "taggedPointerPack",
    THROW_BLOCKED_WRITE_FREE: "runtime: blocked write on free polldesc",
    THROW_BLOCKED_READ_FREE: "runtime: blocked read on free polldesc",
    THROW_CLOSE_WITHOUT_UNBLOCK: "runtime: close polldesc w/o unblock",
    THROW_BLOCKED_WRITE_CLOSING: "runtime: blocked write on closing polldesc",
    THROW_BLOCKED_READ_CLOSING: "runtime: blocked read on closing polldesc",
    THROW_UNBLOCK_CLOSING: "runtime: unblock on closing polldesc",
    THROW_DOUBLE_WAIT: "runtime: double wait",
    THROW_CORRUPTED: "runtime: corrupted polldesc",
    THROW_READ_DEADLINE: "runtime: inconsistent read deadline",
    THROW_WRITE_DEADLINE: "runtime: inconsistent write deadline",
    THROW_OUT_OF_MEMORY: "runtime: cannot allocate memory",
    THROW_FDMUTEX: "inconsistent poll.fdMutex",
    THROW_NETPOLL_WAITERS: "runtime: netpollWaiters below zero",
}


cdef int throw(int code) except -1:
    """Raise InternalError with the text of *code*. Go: throw."""
    raise InternalError(TEXTS.get(code, f"runtime: unknown throw {code}"))


def throw_texts():
    """Return every text that a throw can carry, for the test that counts them."""
    return dict(TEXTS)
