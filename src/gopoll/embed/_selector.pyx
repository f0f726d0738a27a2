"""SelectorCore: NetpollSelector's methods, none of which has a Python frame of its own.

Called by the user of the selector: select on any thread, the rest on any other meanwhile.
Descriptors are registered level-triggered in an epoll instance of the selector's own.

Z1: a key is in `keys` before its descriptor is in epoll, so no event finds it missing; where
    epoll refuses the descriptor, that very key is taken out again.
Z2: who uses the epoll instance counts itself in `active`, then looks at `closed`. close() stores
    `closed` first and counts itself too: the last one out closes the descriptor, so nobody uses a
    number that is another's by then. Who leaves others behind wakes the next.
"""

import math
import os
from collections.abc import Mapping
from selectors import SelectorKey

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.tuple cimport PyTuple_GET_ITEM
from libc.errno cimport EINTR
from libc.stdint cimport INT64_MAX, int64_t, uint32_t
from libc.stdlib cimport free, malloc

from gopoll._atomic cimport add_int, cas_int, load_int
from gopoll._epoll cimport (EPOLLIN, EPOLLOUT, EVENTS, epoll_event, netpollarm,
                            netpollBreak, netpollclose, netpolldrain, netpollfini, netpollinit,
                            netpollinit_errno, netpollopen, netpollwait)
from gopoll._timers cimport nanotime


cdef enum:
    EVENT_READ = 1                 # as in selectors
    EVENT_WRITE = 2
    BOTH = 3
    FINISHED = -(1 << 30)          # added to `active` when the epoll instance goes

cdef object _key_type = SelectorKey
cdef object _new = tuple.__new__   # what a SelectorKey(...) in Python comes to


cdef object _fd_of(fileobj):
    """Return the descriptor of *fileobj*, an int or what has a fileno(). ValueError."""
    cdef object fd
    if isinstance(fileobj, int):
        fd = fileobj
    else:
        try:
            fd = fileobj.fileno()
            if type(fd) is not int:
                fd = int(fd)
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f"Invalid file object: {fileobj!r}") from None
    if fd < 0:
        raise ValueError(f"Invalid file descriptor: {fd}")
    return fd


cdef uint32_t _mask(events) except? 0xFFFFFFFF:
    """Return epoll's events for a selector's."""
    cdef uint32_t mask = 0
    if events & EVENT_READ:
        mask |= EPOLLIN
    if events & EVENT_WRITE:
        mask |= EPOLLOUT
    return mask


cdef int64_t _delay_ns(timeout) except? -2:
    """Return *timeout* in ns, rounded up: -1 for None, 0 for what is not above zero."""
    if timeout is None:
        return -1
    if timeout <= 0:
        return 0
    ns = math.ceil(timeout * 1e9)        # nan: ValueError, inf: OverflowError
    if ns > INT64_MAX // 2:
        raise OverflowError("timeout is too large")
    return ns


cdef class SelectorCore:
    """An epoll instance and the keys of what is registered in it."""

    def __cinit__(self):
        self.ep.epfd = -1
        self.keys = {}
        if netpollinit(&self.ep) != 0:
            rc = netpollinit_errno()
            raise OSError(rc, os.strerror(rc))

    def __dealloc__(self):
        netpollfini(&self.ep)

    cdef int _enter(self) except -1:
        """Keep the epoll instance open until _leave(). ValueError after close()."""
        add_int(&self.active, 1)
        if load_int(&self.closed):
            self._leave()
            raise ValueError("I/O operation on closed epoll object")
        return 0

    cdef void _leave(self) noexcept:
        """Undo _enter(). After close(): wake the next sleeper; the last closes the instance."""
        if load_int(&self.closed) and load_int(&self.active) > 1:
            netpolldrain(&self.ep)       # the break may have been seen by one who slept
            netpollBreak(&self.ep)
        if add_int(&self.active, -1) == 0 and load_int(&self.closed):
            if cas_int(&self.active, 0, FINISHED):
                netpollfini(&self.ep)

    cdef object _lookup(self, fileobj):
        """Return *fileobj*'s descriptor; of one that has been closed, what it was. ValueError."""
        try:
            return _fd_of(fileobj)
        except ValueError:
            for key in list(self.keys.values()):
                if key.fileobj is fileobj:
                    return key.fd
            raise

    cdef object _find(self, fd):
        """Return the key of *fd*, or None."""
        with cython.critical_section(self):
            return self.keys.get(fd)

    cdef int _forget(self, key) except -1:
        """Take *key* out, unless another has its place."""
        cdef object fd = <object>PyTuple_GET_ITEM(key, 1)
        with cython.critical_section(self):
            if self.keys.get(fd) is key:
                del self.keys[fd]
        return 0

    def register(self, fileobj, events, data=None):
        """Register *fileobj* for *events* and return its key.

        KeyError if it is registered, ValueError for events or an object that make no sense,
        OSError (PermissionError for a regular file) if epoll refuses it.
        """
        cdef int number, rc
        cdef uint32_t mask
        cdef object key, fd, there
        if not events or events & ~BOTH:
            raise ValueError(f"Invalid events: {events!r}")
        fd = self._lookup(fileobj)
        key = _new(_key_type, (fileobj, fd, events, data))
        with cython.critical_section(self):
            there = self.keys.setdefault(fd, key)                # Z1
        if there is not key:
            raise KeyError(f"{fileobj!r} (FD {fd}) is already registered")
        try:
            number = fd
            mask = _mask(events)
            self._enter()
            with nogil:
                rc = netpollopen(&self.ep, number, mask, <unsigned int>number + 1ull)
            self._leave()
            if rc != 0:
                raise OSError(rc, os.strerror(rc))
        except BaseException:
            self._forget(key)                                    # Z1
            raise
        return key

    def unregister(self, fileobj):
        """Take *fileobj* out, closed or not, and return its key. KeyError, ValueError."""
        cdef int number
        cdef object key, fd = self._lookup(fileobj)
        with cython.critical_section(self):
            key = self.keys.pop(fd, None)
        if key is None:
            raise KeyError(f"{fileobj!r} is not registered")
        number = fd
        add_int(&self.active, 1)
        if not load_int(&self.closed):
            with nogil:
                netpollclose(&self.ep, number)                   # it may have been closed
        self._leave()
        return key

    def modify(self, fileobj, events, data=None):
        """Change what *fileobj* waits for, or its data; return the key, a new one if it differs.

        KeyError if it is not registered; it is not any more after an OSError.
        """
        cdef int number, rc
        cdef uint32_t mask
        cdef object fd = self._lookup(fileobj), key = self._find(fd), new
        if key is None:
            raise KeyError(f"{fileobj!r} is not registered")
        if events != <object>PyTuple_GET_ITEM(key, 2):
            try:
                number = fd
                mask = _mask(events)
                self._enter()
                with nogil:
                    rc = netpollarm(&self.ep, number, mask, <unsigned int>number + 1ull)
                self._leave()
                if rc != 0:
                    raise OSError(rc, os.strerror(rc))
            except BaseException:
                self._forget(key)
                raise
        elif not data != <object>PyTuple_GET_ITEM(key, 3):
            return key
        new = _new(_key_type, (<object>PyTuple_GET_ITEM(key, 0), fd, events, data))
        with cython.critical_section(self):
            self.keys[fd] = new
        return new

    def select(self, timeout=None):
        """Return a list of (key, events) of what is ready, empty when *timeout* has passed.

        timeout: seconds; None waits for ever, 0 or less does not wait. Never ends early for a
        signal: its handler is run, and what it raises is raised. ValueError after close().
        """
        cdef int64_t delay = _delay_ns(timeout)
        cdef epoll_event some[EVENTS]
        cdef epoll_event *events = some
        cdef Py_ssize_t most = len(self.keys) or 1
        self._enter()
        try:
            if most > EVENTS:
                events = <epoll_event *>malloc(most * sizeof(epoll_event))
                if events == NULL:
                    raise MemoryError
            return self._ready(events, self._wait(events, <int>most, delay))
        finally:
            if events != some:
                free(events)
            self._leave()

    cdef int _wait(self, epoll_event *events, int most, int64_t delay) except -1:
        """Wait *delay* ns (-1: for ever) for up to *most* events; their number."""
        cdef int got
        cdef int64_t until = nanotime() + delay if delay > 0 else 0
        while True:
            if delay == 0:
                got = netpollwait(&self.ep, events, most, 0)     # the GIL stays (B3)
            else:
                with nogil:
                    got = netpollwait(&self.ep, events, most, delay)
            if got > 0 or (got == 0 and delay == 0):
                return got
            if got < 0:
                if got != -EINTR:
                    raise OSError(-got, os.strerror(-got))
                PyErr_CheckSignals()
                if load_int(&self.closed):                       # the handler's doing
                    return 0
            if delay > 0:
                delay = until - nanotime()
                if delay <= 0:
                    return 0

    cdef list _ready(self, epoll_event *events, int n):
        """Return what select() returns, of *n* events."""
        cdef list out = []
        cdef dict keys = self.keys
        cdef object key, wanted
        cdef int i, have
        with cython.critical_section(self):
            for i in range(n):
                if events[i].data.u64 == 0:                      # the break of close()
                    continue
                key = keys.get(<int>(events[i].data.u64 - 1))
                if key is None:                                  # gone since, or a copy is open
                    continue
                have = 0
                if events[i].events & ~<uint32_t>EPOLLIN:
                    have |= EVENT_WRITE
                if events[i].events & ~<uint32_t>EPOLLOUT:
                    have |= EVENT_READ
                wanted = <object>PyTuple_GET_ITEM(key, 2)
                if type(wanted) is int:
                    have &= <int>wanted
                    out.append((key, have))
                else:
                    out.append((key, have & wanted))
        return out

    def close(self):
        """Close the epoll instance and forget the keys; a second call does nothing."""
        if cas_int(&self.closed, 0, 1):                          # Z2
            add_int(&self.active, 1)
            self._leave()
        with cython.critical_section(self):
            self.keys.clear()
            self.map = None

    def fileno(self):
        """Return the epoll descriptor. ValueError after close()."""
        if load_int(&self.closed):
            raise ValueError("I/O operation on closed epoll object")
        return self.ep.epfd

    def get_key(self, fileobj):
        """Return the key of *fileobj*. KeyError, ValueError; RuntimeError after close()."""
        if load_int(&self.closed):
            raise RuntimeError("Selector is closed")
        key = self._find(self._lookup(fileobj))
        if key is None:
            raise KeyError(f"{fileobj!r} is not registered")
        return key

    def get_map(self):
        """Return a live mapping of file objects to keys; None after close()."""
        if load_int(&self.closed):
            return None
        with cython.critical_section(self):
            if self.map is None:
                self.map = KeyMap(self)
            return self.map


cdef class MapCore:
    """A view of a selector's keys, by file object or descriptor."""

    def __init__(self, SelectorCore selector not None):
        self.selector = selector

    def __len__(self):
        return len(self.selector.keys)

    def __iter__(self):
        return iter(self.selector.keys)

    def __getitem__(self, fileobj):
        key = self.selector._find(self.selector._lookup(fileobj))
        if key is None:
            raise KeyError(f"{fileobj!r} is not registered")
        return key

    def __contains__(self, fileobj):
        return self.selector._find(self.selector._lookup(fileobj)) is not None

    def get(self, fileobj, default=None):
        """Return the key of *fileobj*, or *default*. ValueError if it is none."""
        key = self.selector._find(self.selector._lookup(fileobj))
        return default if key is None else key


class KeyMap(MapCore, Mapping):
    """What get_map() returns: MapCore with a Mapping's other methods."""
