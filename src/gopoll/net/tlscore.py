"""TLS over a connection: ssl.SSLObject, what it takes in and what it gives out.

Called by TLSConn, in goroutines; _kick and _notify by any thread.
Go: crypto/tls/conn.go, halfConn (go1.27).

SSLObject works in memory: what comes from the peer is put into _in, what is for it comes in _out.

W1: _lock guards SSLObject and both of these: OpenSSL takes no two calls at once, and Python lets go
    of the GIL in them. It is held over bounded C, and nobody awaits under it.
W2: ciphertext leaves in the order in which it was made. Who takes it out of _out and hands it to
    the connection below has _wlock (before the end of the handshake: _hlock); what that one has
    not taken stays in _unsent, in front of all that follows.
W3: who puts ciphertext into _out without _wlock (a reader that has to answer a KeyUpdate,
    close_write) does so, then tries _wlock; who gives _wlock up does so, then looks at _out. One of
    the two sends it. A reader never waits for _wlock: a write that stalls does not stop reads.
W4: a writer that must read first (renegotiation) says so while it has _lock for the SSL_write that
    fails; a reader looks for that while it has _lock for the SSL_read that finds nothing, and lets
    the writer have _rlock. _wlock comes before _rlock.
W5: a reader takes nothing in while more than _PILE bytes wait to be sent: else a peer that asks for
    answers and does not read them fills the memory. It lists itself in _waits under _lock, then
    looks how much waits; who has sent, or failed to, does so and then looks there under _lock. It
    has _rlock only: a writer that waits for that (W4) has sent all before.
W6: a writer that reads first (W4) takes nothing in while more than _AHEAD bytes of plaintext wait
    to be read: it gives _rlock back, no longer says that it must read, and waits in _waits; a
    reader takes some, then looks there.
W7: who moves a deadline, here or on the connection below, does so, then kicks (W3) and wakes who
    waits (W5, W6).
"""

from __future__ import annotations

import copy
import errno
import functools
import ssl
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from gopoll._fd import FD
from gopoll._poller import READ, WRITE
from gopoll.errors import ClosedError, OpError, closed_error, op_error, timeout_error
from gopoll.net._bufio import written_by
from gopoll.net.conn import Conn
from gopoll.net.sock import send_at_once
from gopoll.net.tlserror import TLSError, is_late, tls_error, unexpected_eof
from gopoll.net.tlswait import Waits, tell_moved
from gopoll.runtime._sched import current_sched
from gopoll.runtime._sync import Mutex
from gopoll.runtime.context import background
from gopoll.runtime.goroutine import Goroutine, go

__all__ = ["CHUNK", "TLSCore"]

CHUNK = 65536  # bytes that are encrypted, or read from below, at a time: four records
_RECORD = 16384  # the most plaintext that one record has
_PILE = 3 * CHUNK  # bytes: what a write under way has made, and two reads' worth of answers
_AHEAD = 4 * CHUNK  # bytes of plaintext that a write reads ahead

_CUT = "a write below was cut, and nobody knows how much had left"


class TLSCore(Conn):
    """The handshake and both directions of a TLSConn."""

    __slots__ = (
        "__weakref__", "_announcing", "_ask_deadline", "_closed", "_closing", "_conn", "_eof",
        "_failed", "_hlock", "_in", "_kicks", "_lock", "_notified", "_obj", "_out", "_plain",
        "_read_end", "_read_when", "_ready", "_rlock", "_sched", "_send_error", "_sends_rest",
        "_shut", "_unsent", "_waits", "_wants_read", "_watcher", "_wlock", "_write_end",
        "_write_when",
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
        self._ready = False  # the handshake is complete; never goes back
        self._failed: OpError | None = None  # what it has failed with
        self._closed = False
        self._closing = threading.RLock()  # held by close(), and before any other
        self._announcing: Goroutine[None] | None = None  # close() has left the end to this one
        self._sched: Any = None  # of the run() of the handshake
        # FD's or ours; a wrapper of somebody else's does not tell.
        self._ask_deadline: Callable[[int], float | None] | None = None
        self._watcher: Callable[[int], object] | None = None  # who is over us, likewise
        if isinstance(conn, (FD, TLSCore)):
            self._ask_deadline = conn._deadline
            conn._watch_deadlines(functools.partial(tell_moved, weakref.ref(self)))  # W7; no cycle
        self._read_when: float | None = None
        self._write_when: float | None = None

        # Guarded by _lock.
        self._eof = False  # the connection below has ended
        self._plain = bytearray()  # decrypted ahead of the reads
        self._read_end: OpError | bool = False  # True: announced by the peer
        self._write_end: OpError | None = None
        self._wants_read = False  # W4
        self._shut = False  # close_write() has been called
        self._notified = False  # close_notify has been made
        self._kicks = 0  # how often there may have been something to send

        self._waits = Waits(self._lock)  # the reader (W5), a writer (W6)

        self._unsent = b""  # guarded by _wlock (W2)
        self._sends_rest = False  # a goroutine of ours has _wlock, and no write
        self._send_error: OSError | None = None  # why that is so, unless it is the deadline

    # -- handshake

    async def handshake(self) -> None:
        """Shake hands, unless that has been done: reads and writes do it by themselves. An op.

        If it fails, or is cut by a deadline or a cancellation, the connection is closed. Raises
        OpError: one that is the exception of ssl too, such as ssl.SSLCertVerificationError, or
        what the connection below raises. Go: Conn.Handshake.
        """
        if not self._ready:
            async with self._hlock:
                await self._handshake_once()

    async def _handshake_once(self) -> None:
        if self._ready:
            return
        if self._failed is not None:
            raise copy.copy(self._failed)
        try:
            await self._shake_hands()
        except BaseException as exc:
            if isinstance(exc, OpError):
                exc.op = "handshake"
                self._failed = copy.copy(exc)
            self._conn.close()
            raise

    async def _shake_hands(self) -> None:
        self._sched = current_sched()
        done = False
        while not done:
            with self._lock:
                try:
                    self._obj.do_handshake()
                    done = True
                except ssl.SSLWantReadError:
                    if self._eof:
                        raise self._error("handshake", unexpected_eof()) from None
                except ssl.SSLError as exc:
                    self._try_send(self._out.read())  # the alert
                    raise self._error("handshake", exc) from exc
            await self._flush()
            if not done:
                await self._receive()
        self._ready = True

    # -- reads

    async def _read(self, n: int, view: memoryview | None) -> bytes | int:
        if not self._ready:
            await self.handshake()
        while True:
            await self._rlock.lock()
            try:
                got = await self._read_locked(n, view)
            finally:
                self._rlock.unlock()
            if got is not None:
                return got

    async def _read_locked(self, n: int, view: memoryview | None) -> bytes | int | None:
        """Read, or return None to let a writer read first (W4)."""
        kicks = True
        while True:
            with self._lock:
                self._check("read", READ)
                got = self._take_bytes(n) if view is None else self._take_into(view)
                end = self._read_end
                gives_way = self._wants_read
                answers = self._out.pending > 0  # a KeyUpdate, an alert
            if answers and kicks:
                self._kick()  # W3
            if got and self._waits:
                self._waits.wake()  # W6
            if got or n == 0:
                return got
            if end:
                if end is True:
                    return got
                raise copy.copy(end)
            if gives_way:
                return None
            if self._is_piled():
                kicks = False  # what has failed once is tried again by who moves the deadline
                await self._wait_sent()
            elif kicks:
                await self._receive()
            else:
                kicks = True

    def _take_bytes(self, n: int) -> bytes:
        if self._plain:
            data = bytes(self._plain[:n])
            del self._plain[:n]
            return data
        parts: list[bytes] = []
        while n and (data := self._decrypt(n)):  # in one piece it is cheaper than record by record
            parts.append(data)
            n -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _take_into(self, view: memoryview) -> int:
        total = min(len(view), len(self._plain))
        view[:total] = self._plain[:total]
        del self._plain[:total]
        while total < len(view) and (got := self._decrypt(len(view) - total, view[total:])):
            total += got
        return total

    def _decrypt(self, n: int, view: memoryview | None = None) -> Any:
        """Return at most a record's bytes, or their number in *view*; b"" or 0 if there is none.

        How the stream ends goes to _read_end.
        """
        nothing = b"" if view is None else 0
        if self._read_end:
            return nothing
        if not (self._in.pending or self._obj.pending()):
            self._look_for_end()
            return nothing
        try:
            if view is None:
                got: Any = self._obj.read(min(n, _RECORD))
            else:
                got = self._obj.read(min(n, _RECORD), view)
            if not got and n:
                self._read_end = True
            return got
        except ssl.SSLWantReadError:
            self._look_for_end()
        except ssl.SSLZeroReturnError:
            self._read_end = True
        except ssl.SSLError as exc:
            self._read_end = self._error("read", exc)
            if self._write_end is None:  # OpenSSL itself would take it for an orderly end
                self._write_end = self._error("write", exc)
        return nothing

    def _look_for_end(self) -> None:
        """Note an end that was not announced. OpenSSL is not told: it would take no writes then."""
        if self._eof:
            self._read_end = self._error("read", unexpected_eof())

    def _decrypt_all(self) -> None:
        """Decrypt what has come, ahead of the reads."""
        while data := self._decrypt(_RECORD):
            self._plain += data

    async def _receive(self) -> None:
        """Take in what the connection below has: who reads, or shakes hands."""
        try:
            data = await self._conn.read(CHUNK)
        except OSError:
            self._check("read", 0)  # what close() does to the deadline below is no timeout
            raise
        with self._lock:
            self._in.write(data)
            self._eof = not data

    def _is_piled(self) -> bool:
        return len(self._unsent) + self._out.pending > _PILE

    async def _wait_sent(self) -> None:
        """Wait until some of the pile has been sent, a deadline has passed, or it is closed (W5).

        Raises what the connection below has failed with. Go: handleKeyUpdate, which waits in its
        write.
        """

        def is_over() -> bool:
            if not self._is_piled() or self._closed:
                return True
            if self._send_error is not None:
                raise self._op_error("read", self._send_error)
            return False

        await self._waits.wait("read", is_over, lambda: self._deadline(READ))

    # -- writes

    async def _begin_write(self) -> None:
        """Take _wlock, and send first what a write that was cut has left behind (W2)."""
        if not self._ready:
            await self.handshake()
        try:
            await self._wlock.lock()
        except BaseException:
            self._kick()  # W3: it may have been ours for a moment
            raise
        try:
            with self._lock:
                self._check_write()
                if self._shut:
                    raise self._op_error("write", errno.EPIPE)
            await self._flush()
        except BaseException:
            self._end_write()
            raise

    def _end_write(self) -> None:
        self._wlock.unlock()
        self._kick()  # W3

    async def _encrypt(self, chunk: memoryview) -> None:
        """Turn *chunk* into ciphertext, all of it."""
        if self._try_encrypt(chunk):
            return
        # The peer wants to renegotiate, which TLS 1.3 has not: it has to be read from first.
        try:
            await self._flush()
            done = False
            while not (done or self._try_encrypt(chunk)):
                async with self._rlock:  # W4
                    done = await self._encrypt_reading(chunk)
                if not done:
                    await self._waits.wait("write", self._may_read, lambda: self._deadline(WRITE))
        finally:
            with self._lock:
                self._wants_read = False

    async def _encrypt_reading(self, chunk: memoryview) -> bool:
        """Encrypt *chunk*, reading first; False if that would be too far ahead (W6)."""
        while not self._try_encrypt(chunk):
            await self._flush()
            if len(self._plain) > _AHEAD:
                return False
            await self._receive()
            with self._lock:
                self._decrypt_all()  # SSL_write takes no data that comes in between
        return True

    def _may_read(self) -> bool:
        """Whether a writer may read, or has to end. Under _lock; else readers may (W6)."""
        self._wants_read = False
        return len(self._plain) <= _AHEAD or self._closed

    def _try_encrypt(self, chunk: memoryview) -> bool:
        """Encrypt *chunk*, all of it or, if something has to be read first, nothing."""
        with self._lock:
            self._check_write()
            try:
                taken = self._obj.write(chunk)
                assert taken == len(chunk), "SSL_write took a part"  # there is no end to _out
                return True
            except ssl.SSLWantReadError:
                if self._eof:
                    raise self._error("write", unexpected_eof()) from None
                self._wants_read = True  # W4
                return False
            except ssl.SSLError as exc:
                self._write_end = self._error("write", exc)
                raise copy.copy(self._write_end) from exc

    def _check_write(self) -> None:
        """Raise what keeps plaintext from being encrypted. Under _lock."""
        self._check("write", WRITE)
        if self._write_end is not None:
            raise copy.copy(self._write_end)

    async def _flush(self) -> None:
        """Send what has been encrypted. Who has _wlock; in the handshake, who has _hlock."""
        while True:
            if not self._unsent:
                with self._lock:
                    self._unsent = self._out.read()
                if self._waits:
                    self._waits.wake()  # W5
                if not self._unsent:
                    return
            data, op = self._unsent, None
            try:
                op = self._conn.write(data)
                await op
            except BaseException as exc:
                if (written := written_by(op, exc)) is None:
                    self._write_end = self._op_error("write", _CUT)
                    written = len(data)
                self._unsent = data[written:]  # W2
                if isinstance(exc, OSError) and not is_late(exc):
                    known = isinstance(exc, OpError)
                    self._send_error = copy.copy(exc) if known else OSError(exc.errno, str(exc))
                self._waits.wake()  # W5
                raise
            self._unsent = b""
            self._send_error = None

    # -- what goes out by itself

    def _kick(self) -> None:
        """Have what nobody is about to send be sent (W3). Any thread, without _wlock."""
        with self._lock:
            self._kicks += 1
        while self._has_to_send() and self._wlock.try_lock():
            if not self._send_now():
                return

    def _has_to_send(self) -> bool:
        with self._lock:
            if self._closed or not self._ready:
                return False
            if self._shut and not self._notified:
                return True
            return bool(self._unsent or self._out.pending)

    def _send_now(self) -> bool:
        """Send what need not wait; a goroutine sends the rest, if there is some. Gives _wlock up.

        Returns whether all is sent.
        """
        handed_on = False
        try:
            with self._lock:
                self._notify()
                self._unsent = data = self._unsent + self._out.read()
            self._unsent = data = data[self._try_send(data) :]
            self._waits.wake()  # W5
            if data:
                self._sends_rest = handed_on = True
                self._sched.post(self._start_sending)
        except ClosedError:
            # its run() has ended: nobody can wait any more
            handed_on = False
        finally:
            if not handed_on:
                self._sends_rest = False
                self._wlock.unlock()
        return not data

    def _start_sending(self) -> None:
        """Start the goroutine that sends; it has _wlock. Between two goroutines of the run()."""
        try:
            go(self._send_rest, name="tls", context=background())
        except BaseException:
            self._sends_rest = False
            self._wlock.unlock()
            raise

    async def _send_rest(self) -> None:
        """Send until nothing is left, or the connection below takes no more: a writer hears why."""
        while True:
            with self._lock:
                seen = self._kicks
            failed = False
            try:
                await self._flush()
            except OSError:
                failed = True
            finally:
                self._sends_rest = False
                self._wlock.unlock()
            # W3; but what a deadline has stopped waits until that has been moved.
            if failed and seen == self._kicks:
                return
            if not (self._has_to_send() and self._wlock.try_lock()):
                return
            self._sends_rest = True
            with self._lock:
                self._notify()

    def _notify(self) -> None:
        """Make the close_notify that close_write() has asked for. Under _lock, with _wlock."""
        if not self._shut or self._notified:
            return
        self._notified = True
        self._decrypt_all()  # what SSL_shutdown finds unread it would take for an error
        try:
            self._obj.unwrap()
        except ssl.SSLError:
            pass  # it wants to read the peer's; or is broken, which reads and writes say

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
        when = self._deadline(mode) if mode else None
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
