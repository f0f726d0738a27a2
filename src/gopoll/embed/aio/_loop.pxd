"""LoopCore, what EventLoop does for each turn and event, and Watcher. See _loop.pyx."""

from libc.stdint cimport uint32_t

from gopoll._epoll cimport epoll_event
from gopoll.embed._selector cimport SelectorCore

cdef enum:
    BUFFER = 262144                    # bytes that a transport reads at a time, as asyncio's

cdef class LoopCore:
    # what asyncio's base classes keep, under their names
    cdef public object _ready          # deque of handles
    cdef public list _scheduled        # heap of timer handles
    cdef public object _thread_id      # of run_forever; None while it does not run
    cdef public object _current_handle
    cdef public object _clock_resolution
    cdef public bint _debug
    cdef public bint _closed
    cdef public bint _stopping
    cdef public Py_ssize_t _timer_cancelled_count
    cdef SelectorCore selector         # the loop's; its epoll instance has the Watchers as well
    cdef list slots                    # Watcher or None, by number
    cdef list spare                    # numbers of free slots
    cdef uint32_t sequence             # of the last Watcher (Y1)
    cdef object pending                # deque of Watchers that go on without an event
    cdef epoll_event *events           # of the last poll
    cdef int n_events, next_event
    cdef bint many                     # _run_once may make several turns, for run_forever
    cdef uint32_t polls                # how many there were; it may wrap
    cdef char *buffer                  # BUFFER bytes, shared by all transports
    cdef dict socks                    # fd -> SockWatcher
    cdef int watch(self, Watcher w, uint32_t mask) except -1
    cdef int rewatch(self, Watcher w, uint32_t mask) except -1
    cdef int unwatch(self, Watcher w) except -1
    cdef int pend(self, Watcher w) except -1
    cdef bint _has_own_turns(self) except -1
    cdef int _turn(self) except -1
    cdef int _poll(self) except -1
    cdef int _sort(self) except -1
    cdef int _watcher_turn(self, Watcher w, uint32_t events) except -1
    cdef int _run_watchers(self, Py_ssize_t n) except -1
    cdef int _run_ready(self, Py_ssize_t n) except -1
    cdef int _run_handle(self, object handle) except -1
    cdef int _trim_timers(self) except -1
    cdef bint is_due(self) except -1
    cdef int _due_timers(self) except -1

cdef class Watcher:
    cdef LoopCore loop                 # None when it is done
    cdef int fd
    cdef int slot                      # in loop.slots; -1: not watched
    cdef uint32_t mask                 # registered; 0: not yet
    cdef uint32_t sequence             # tells it from who had the slot before (Y1)
    cdef bint is_pending
    cdef int turn(self, uint32_t events) except -1
    cdef int forsake(self, int taken) except -1
    cdef bint succeed(self, Watcher other) except -1
