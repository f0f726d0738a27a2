"""LoopCore: what EventLoop does for each turn, each callback and each event.

Called by EventLoop on the loop's thread; call_soon_threadsafe and _write_to_self on any.

A turn is asyncio's: poll; what was ready before runs, then what the poll has brought, then what has
become due. Watchers (transports, sockets that sock_* use) are registered edge-triggered, once, and
their events come to them without a handle; what add_reader and add_writer register is the
selector's, level-triggered, in the same epoll instance.

Y1: a registration carries its slot and a number that no other has; an event whose number is not
    the slot's is of one that is gone, and dropped. So a descriptor that was closed, or has been
    copied, never speaks for another.
Y2: a Watcher that leaves something unread puts itself into `pending`, and a turn does not sleep
    over that: an edge comes once. It has its turn after the next poll, and so has a transport that
    begins to read, or resumes, even if this poll has an event of it: what was ready until then runs
    before, such as the task that awaits the connection.
"""

import asyncio
import collections
import os

from cpython.exc cimport PyErr_CheckSignals
from cpython.tuple cimport PyTuple_GET_ITEM
from libc.errno cimport EEXIST
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from gopoll._epoll cimport (EPOLLET, EPOLLIN, EPOLLOUT, epoll_event, netpollarm, netpollBreak,
                            netpollclose, netpolldrain, netpollopen)
from gopoll._timers cimport nanotime
from gopoll.embed._selector cimport SelectorCore
from gopoll.embed.aio._handle cimport (call_handle, is_cancelled, is_ours, new_handle,
                                       new_timer, unschedule, use_again, when_of)
from gopoll.embed.aio._timerheap cimport pop, push, rebuild


cdef enum:
    BATCH = 256                        # events of one poll
    TURNS = 64                         # of one call of _run_once
    FEW_TIMERS = 100                   # as in asyncio: fewer are not worth a cleaning

cdef uint64_t OURS = 1ull << 63        # in an event: it is a Watcher's
cdef object _futures = asyncio.futures       # asked for their classes each time, as asyncio does
cdef object _tasks = asyncio.tasks
cdef object _NOT_GIVEN = object()
# Since 3.14: who cancels it waits for it where it runs.
cdef object _ThreadSafeHandle = getattr(asyncio.events, "_ThreadSafeHandle", None)
cdef object _deque = collections.deque
cdef object _append = collections.deque.append
cdef object _popleft = collections.deque.popleft


cdef int64_t _ns_until(double when, double now) noexcept:
    """Return the time from *now* to *when* in ns, rounded up: 0 if it has passed; a day at most."""
    cdef double ns = (when - now) * 1e9
    if not ns > 0:
        return 0
    if ns > 86400e9:
        return 86400 * 1000000000ll
    return <int64_t>ns + 1


cdef class Watcher:
    """A descriptor whose events come to turn(), edge-triggered."""

    def __cinit__(self, *args, **kwargs):
        self.slot = -1

    cdef int turn(self, uint32_t events) except -1:
        """Handle *events* of epoll; 0 if it is pending. Raises what is to end the loop."""
        return 0

    cdef int forsake(self, int taken) except -1:
        """Its registration is somebody else's, who waits for *taken*: READS, WRITES, both or 0."""
        return 0

    cdef bint succeed(self, Watcher other) except -1:
        """Take over what *other* knows of the same file: whether its registration will do."""
        return False


cdef class LoopCore:
    """The parts of an asyncio loop that run for each callback. EventLoop adds asyncio's own."""

    def __cinit__(self, *args, **kwargs):
        self.slots, self.spare, self.socks = [], [], {}
        self.pending = _deque()
        self.events = <epoll_event *>malloc(BATCH * sizeof(epoll_event))
        self.buffer = <char *>malloc(BUFFER)
        if self.events == NULL or self.buffer == NULL:
            raise MemoryError

    def __init__(self, SelectorCore selector not None):
        self.selector = selector
        super().__init__(selector)

    def __dealloc__(self):
        free(self.events)
        free(self.buffer)

    # -- watchers

    cdef int watch(self, Watcher w, uint32_t mask) except -1:
        """Register *w*'s descriptor for *mask*, or more, edge-triggered. OSError."""
        cdef int rc
        cdef uint64_t data
        cdef Watcher other
        self._check_closed()
        other = self.socks.pop(w.fd, None)
        if other is not None:
            other.forsake(0)
            if other.slot >= 0 and not mask & ~other.mask and w.succeed(other):       # Y9
                w.slot, w.sequence, w.mask = other.slot, other.sequence, other.mask
                other.slot = -1
                self.slots[w.slot] = w
                return 0
            self.unwatch(other)
        if w.fd in self.selector.keys:      # a callback of add_reader, forgotten or for a lost file
            self._remove_reader(w.fd)
            self._remove_writer(w.fd)
        if not self.spare:
            self.spare.append(len(self.slots))
            self.slots.append(None)
        w.slot = self.spare.pop()
        self.sequence = (self.sequence + 1) & 0x7fffffff
        w.sequence = self.sequence                               # Y1
        self.slots[w.slot] = w
        data = OURS | <uint64_t>w.sequence << 32 | <uint32_t>w.slot
        rc = netpollopen(&self.selector.ep, w.fd, mask | EPOLLET, data)
        if rc == EEXIST:            # somebody has closed the object, and not the descriptor
            rc = netpollarm(&self.selector.ep, w.fd, mask | EPOLLET, data)
        if rc != 0:
            self.slots[w.slot] = None
            self.spare.append(w.slot)
            w.slot = -1
            raise OSError(rc, os.strerror(rc))
        return 0

    cdef int rewatch(self, Watcher w, uint32_t mask) except -1:
        """Register *w* for *mask* instead; what is ready is told again. OSError."""
        cdef uint64_t data = OURS | <uint64_t>w.sequence << 32 | <uint32_t>w.slot
        cdef int rc
        self._check_closed()
        rc = netpollarm(&self.selector.ep, w.fd, mask | EPOLLET, data)
        if rc != 0:
            raise OSError(rc, os.strerror(rc))
        return 0

    cdef int unwatch(self, Watcher w) except -1:
        """Take *w* out, before its descriptor is closed; a second call does nothing."""
        cdef int slot = w.slot
        if slot >= 0:
            w.slot = -1
            if self.slots[slot] is w:
                self.slots[slot] = None
                self.spare.append(slot)
                netpollclose(&self.selector.ep, w.fd)
        return 0

    cdef int pend(self, Watcher w) except -1:
        """Give *w* a turn after the next poll, without an event (Y2)."""
        if not w.is_pending:
            w.is_pending = True
            _append(self.pending, w)
        return 0

    def _forget_watchers(self):
        """Let go of every Watcher, for close()."""
        cdef object w
        for w in self.slots:
            if w is not None:
                (<Watcher>w).slot = -1
                (<Watcher>w).forsake(0)
        self.slots.clear()
        self.spare.clear()
        self.socks.clear()
        self.pending.clear()
        self.n_events = self.next_event = 0

    def _give_up_sock(self, int fd, int events):
        """Let _Selector register *fd*, which sock_* may have used, for *events* of a selector."""
        cdef Watcher w = self.socks.pop(fd, None)
        if w is not None:
            self.unwatch(w)
            w.forsake(events)

    # -- callbacks

    def time(self):
        """Return the time in seconds, of time.monotonic()."""
        return nanotime() / 1e9

    def get_debug(self):
        """Whether it is in debug mode; each future and each task asks."""
        return self._debug

    def create_future(self):
        """Return a new asyncio.Future of this loop."""
        return _futures.Future(loop=self)

    def create_task(self, coro, *, name=_NOT_GIVEN, context=_NOT_GIVEN, **options):
        """Return a new asyncio.Task of *coro*, or what the task factory makes of it."""
        if options or self._debug or self._closed or self._task_factory is not None:
            if name is not _NOT_GIVEN:       # since 3.14 a factory is given what was
                options["name"] = name
            if context is not _NOT_GIVEN:
                options["context"] = context
            return super().create_task(coro, **options)
        return _tasks.Task(coro, loop=self, name=None if name is _NOT_GIVEN else name,
                           context=None if context is _NOT_GIVEN else context)

    def call_soon(self, callback, *args, context=None):
        """Arrange for *callback* to be called in the next turn; return its asyncio.Handle."""
        cdef object handle
        if self._debug or self._closed:
            return super().call_soon(callback, *args, context=context)
        handle = new_handle(callback, args, self, context)
        _append(self._ready, handle)
        return handle

    def call_soon_threadsafe(self, callback, *args, context=None):
        """The same from any thread. RuntimeError after close()."""
        cdef object handle
        if self._debug or self._closed:
            return super().call_soon_threadsafe(callback, *args, context=context)
        if _ThreadSafeHandle is None:
            handle = new_handle(callback, args, self, context)
        else:
            handle = _ThreadSafeHandle(callback, args, self, context)
        _append(self._ready, handle)
        self._write_to_self()
        return handle

    def call_at(self, when, callback, *args, context=None):
        """Arrange for *callback* to be called at *when* of time(): an asyncio.TimerHandle."""
        cdef object timer
        if self._debug or self._closed or type(when) is not float:
            return super().call_at(when, callback, *args, context=context)
        timer = new_timer(when, callback, args, self, context)
        push(self._scheduled, timer)
        return timer

    def call_later(self, delay, callback, *args, context=None):
        """The same, *delay* seconds from now."""
        cdef object timer, when
        if self._debug or self._closed or type(delay) not in (int, float):
            return super().call_later(delay, callback, *args, context=context)
        when = self.time() + delay           # which a test may have put on the loop itself
        if type(when) is not float:
            return self.call_at(when, callback, *args, context=context)
        timer = new_timer(when, callback, args, self, context)
        push(self._scheduled, timer)
        return timer

    def _timer_handle_cancelled(self, handle):
        """Count *handle*, which is about to be cancelled, if it is in the heap."""
        if handle._scheduled:
            self._timer_cancelled_count += 1

    def _write_to_self(self):
        """Wake the loop. Any thread; nothing happens after close()."""
        cdef SelectorCore selector = self.selector
        try:
            selector._enter()
        except ValueError:
            return
        netpollBreak(&selector.ep)
        selector._leave()

    # -- a turn

    def run_forever(self):
        """Run until stop() is called: asyncio's own, which has _run_once make many turns a call."""
        self.many = True
        try:
            super(LoopCore, self).run_forever()
        finally:
            self.many = False

    def _run_once(self):
        """Run some turns of run_forever(), or one where anybody else calls.

        run_forever() calls it again and again, in Python: that costs as much as a callback. Signals
        are looked after between the turns, as the interpreter does between the calls; there it also
        sees who wants the GIL. A class or a test that has a _run_once of its own when run_forever()
        calls it is called for each turn, and calls this one for it.
        """
        cdef int n = TURNS
        if not self.many or not self._has_own_turns():
            self._turn()
            return
        self.many = False                            # who calls it in a callback wants one turn
        try:
            while True:
                self._turn()
                n -= 1
                PyErr_CheckSignals()                 # a handler may have called stop()
                if n == 0 or self._stopping:
                    break
        finally:
            self.many = True

    cdef bint _has_own_turns(self) except -1:
        """Whether _run_once is ours, and nobody's who wants to see each turn."""
        return getattr(self._run_once, "__func__", None) is _run_once

    cdef int _turn(self) except -1:
        """Run one turn of the loop."""
        cdef Py_ssize_t before, n, pending
        before = len(self._ready)
        if self.next_event == self.n_events:         # else a turn was interrupted by an exception
            self._poll()
        n = len(self._ready)
        pending = len(self.pending)                  # not what is ready puts there (Y2)
        if before:
            self._run_ready(before)
        self._run_watchers(pending)
        if n > before:
            self._run_ready(n - before)
        return 0

    cdef int _poll(self) except -1:
        """Wait for events, as long as nothing is ready or due, and sort what has come."""
        cdef int64_t delay
        if self._scheduled:
            self._trim_timers()
        if self._ready or self._stopping or self.pending:        # Y2
            delay = 0
        elif self._scheduled:
            delay = _ns_until(when_of(self._scheduled[0]), self.time())
        else:
            delay = -1
        self.polls += 1
        self.next_event = self.n_events = 0          # the wait may raise: no event comes twice
        self.n_events = self.selector._wait(self.events, BATCH, delay)
        self._sort()
        if self._scheduled:
            self._due_timers()
        return 0

    cdef int _sort(self) except -1:
        """Take the break back and make the selector's events ready handles."""
        cdef int i
        cdef uint32_t have
        cdef object key, data, reader, writer
        for i in range(self.n_events):
            if self.events[i].data.u64 & OURS:
                continue
            if self.events[i].data.u64 == 0:
                netpolldrain(&self.selector.ep)
                continue
            key = self.selector.keys.get(<int>(self.events[i].data.u64 - 1))
            if key is None:
                continue
            have = self.events[i].events
            data = <object>PyTuple_GET_ITEM(key, 3)
            reader, writer = data
            if reader is not None and have & ~<uint32_t>EPOLLOUT:
                if is_cancelled(reader):
                    self._remove_reader(<object>PyTuple_GET_ITEM(key, 0))
                else:
                    _append(self._ready, reader)
            if writer is not None and have & ~<uint32_t>EPOLLIN:
                if is_cancelled(writer):
                    self._remove_writer(<object>PyTuple_GET_ITEM(key, 0))
                else:
                    _append(self._ready, writer)
        return 0

    cdef int _run_watchers(self, Py_ssize_t n) except -1:
        """Give the Watchers that have an event their turn, and the first *n* that are pending."""
        cdef uint64_t data
        cdef uint32_t slot
        cdef object found
        cdef Watcher w
        while self.next_event < self.n_events:
            data = self.events[self.next_event].data.u64
            self.next_event += 1
            if not data & OURS:
                continue
            slot = <uint32_t>data
            if slot >= <uint32_t>len(self.slots):
                continue
            found = self.slots[slot]
            if found is None:
                continue
            w = <Watcher>found
            if w.sequence == (data >> 32 & 0x7fffffff):          # Y1
                self._watcher_turn(w, self.events[self.next_event - 1].events)
        while n > 0 and self.pending:
            n -= 1
            w = <Watcher>_popleft(self.pending)
            w.is_pending = False
            if w.slot >= 0:
                self._watcher_turn(w, 0)
        return 0

    cdef int _watcher_turn(self, Watcher w, uint32_t events) except -1:
        """Give *w* its turn; in debug mode tell of one that is slow."""
        cdef double since
        if not self._debug:
            return w.turn(events)
        since = self.time()
        w.turn(events)
        self._tell_slow(w, self.time() - since)
        return 0

    cdef int _run_ready(self, Py_ssize_t n) except -1:
        """Call the first *n* handles of the queue."""
        cdef object handle
        while n > 0 and self._ready:
            n -= 1
            handle = _popleft(self._ready)
            if self._debug:
                if not is_cancelled(handle):
                    self._run_in_debug(handle)
            else:
                self._run_handle(handle)
        return 0

    cdef int _run_handle(self, handle) except -1:
        """Call *handle*; what it raises goes to the exception handler, but for what ends loops."""
        if not is_ours(handle):
            if not handle._cancelled:
                handle._run()
            return 0
        try:
            call_handle(handle)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._handle_failed(handle, exc)
        use_again(handle)
        return 0

    cdef int _trim_timers(self) except -1:
        """Take cancelled timers out: all if they are many, else those that are first."""
        cdef list timers = self._scheduled
        cdef Py_ssize_t n = len(timers)
        cdef object timer
        if n > FEW_TIMERS and 2 * self._timer_cancelled_count > n:
            self._scheduled = []
            for timer in timers:
                if is_cancelled(timer):
                    unschedule(timer)
                else:
                    self._scheduled.append(timer)
            rebuild(self._scheduled)
            self._timer_cancelled_count = 0
        else:
            while timers and is_cancelled(timers[0]):
                self._timer_cancelled_count -= 1
                timer = pop(timers)
                unschedule(timer)
                if is_ours(timer):
                    use_again(timer)
        return 0

    cdef bint is_due(self) except -1:
        """Whether the first of the timers, of which there are, has become due."""
        return when_of(self._scheduled[0]) < self.time() + self._clock_resolution

    cdef int _due_timers(self) except -1:
        """Make the timers ready that are due."""
        cdef double end = self.time() + self._clock_resolution
        while self._scheduled and when_of(self._scheduled[0]) < end:
            timer = pop(self._scheduled)
            unschedule(timer)
            _append(self._ready, timer)
        return 0


cdef object _run_once = LoopCore._run_once
