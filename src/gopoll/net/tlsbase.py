"""What a TLS connection is made of: its state, its deadlines and its errors.

Base of TLSCore, whose page says what guards what (W1 to W7). Any thread.
Go: crypto/tls/conn.go: the fields of Conn.
"""

from __future__ import annotations

import functools
import ssl
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from gopoll._fd import FD
from gopoll._poller import READ, WRITE
from gopoll.errors import OpError, closed_error, op_error, timeout_error
from gopoll.net._tls import TLSState
from gopoll.net.conn import Conn
from gopoll.net.sock import send_at_once
from gopoll.net.tlserror import TLSError, tls_error
from gopoll.net.tlswait import Waits, tell_moved
from gopoll.runtime._sync import Mutex
from gopoll.runtime.goroutine import Goroutine

__all__ = ["TLSBase"]


class TLSBase(TLSState, Conn):
    """The state of a TLSConn."""

    __slots__ = (
        "__weakref__", "_announcing", "_closing", "_failed", "_plain", "_read_end", "_read_when",
        "_sched", "_send_error", "_sends_rest", "_unsent", "_watcher", "_write_end", "_write_when",
    )  # fmt: skip

    def __init__(
        self,
        conn: Conn,
        ctx: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        """Wrap *conn*; the handshake comes with handshake() or the first read or write."""
        self._conn = conn
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._obj = ctx.wrap_bio(self._in, self._out, server_side, server_hostname, session)
        # W1. A signal handler that closes may find it held by its own thread.
        self._lock = threading.RLock()
        self._hlock = Mutex()
        self._rlock = Mutex()
        self._wlock = Mutex()
        self._failed: OpError | None = None  # what the handshake has failed with
        self._closing = threading.RLock()  # held by close(), and before any other
        self._announcing: Goroutine[None] | None = None  # close() has left the end to this one
        self._sched: Any = None  # of the run() of the handshake
        # FD's or ours; a wrapper of somebody else's does not tell.
        self._ask_deadline: Callable[[int], float | None] | None = None
        self._watcher: Callable[[int], object] | None = None  # who is over us, likewise
        if isinstance(conn, (FD, TLSBase)):
            self._ask_deadline = conn._deadline
            conn._watch_deadlines(functools.partial(tell_moved, weakref.ref(self)))  # W7; no cycle
        self._read_when: float | None = None
        self._write_when: float | None = None

        # Guarded by _lock.
        self._plain = bytearray()  # decrypted ahead of the reads
        self._read_end: OpError | bool = False  # True: announced by the peer
        self._write_end: OpError | None = None

        self._waits = Waits(self._lock)  # the reader (W5), a writer (W6)

        self._unsent = b""  # guarded by _wlock (W2)
        self._sends_rest = False  # a goroutine of ours has _wlock, and no write
        self._send_error: OSError | None = None  # why that is so, unless it is the deadline
        self._begin(conn)

    def _try_send(self, data: bytes) -> int:
        """Send what the connection below takes at once: how many bytes. Any thread."""
        conn = self._conn  # a wrapper's raw_control, if it has one, would go past its write
        if not isinstance(conn, FD) or not data:
            return 0
        try:
            sent: int = conn.raw_control(lambda fd: send_at_once(fd, data))
            return sent
        except OSError:
            return 0  # no room; or closed, as whoever writes next will hear

    # -- deadlines

    def _watch_deadlines(self, watcher: Callable[[int], object]) -> None:
        """Call watcher(mode) after a deadline has been moved: for who is over us (W7)."""
        self._watcher = watcher

    def _deadline_moved(self, mode: int) -> None:
        """Look again at what waits for time, or has been stopped by it (W7). Any thread."""
        if mode & WRITE:
            self._kick()
        self._waits.wake()
        if self._watcher is not None:
            self._watcher(mode)

    def _deadline(self, mode: int) -> float | None:
        """Return the deadline of *mode*: that of the connection below, if it tells, for it may have
        been set there; else what has been set here."""
        if self._ask_deadline is not None:
            return self._ask_deadline(mode)
        return self._read_when if mode == READ else self._write_when

    # -- errors

    def _check(self, op: str, mode: int) -> None:
        """Raise if closed, or late: what is in memory would be given out all the same. mode: 0 if
        there is no deadline."""
        conn = self._conn
        if self._closed or conn.is_closed:
            ends = (conn.local_addr, conn.remote_addr) if op != "set" else (None, conn.local_addr)
            raise closed_error(op, conn.network, *ends)
        if mode == 0:
            return
        ask = self._ask_deadline
        when = self._deadline(mode) if ask is None else ask(mode)
        if when is not None and time.monotonic() >= when:
            raise timeout_error(op, conn.network, conn.local_addr, conn.remote_addr)

    def _op_error(
        self, op: str, err: int | str | BaseException, hint: str | None = None
    ) -> OpError:
        conn = self._conn
        return op_error(op, conn.network, conn.local_addr, conn.remote_addr, err, hint=hint)

    def _error(self, op: str, exc: ssl.SSLError) -> TLSError:
        conn = self._conn
        exc.__traceback__ = None  # it leads to us, who keep the error: a cycle with OpenSSL in it
        return tls_error(op, conn.network, conn.local_addr, conn.remote_addr, exc)
