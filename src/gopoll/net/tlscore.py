"""TLS over a connection: ssl.SSLObject, what it takes in and what it gives out.

Called by TLSConn and by its operations (_tls), in goroutines; _kick and _notify by any thread.
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
import ssl

from gopoll._poller import READ, WRITE
from gopoll.errors import ClosedError, OpError
from gopoll.net._bufio import written_by
from gopoll.net.tlsbase import TLSBase
from gopoll.net.tlserror import is_late, unexpected_eof
from gopoll.runtime._sched import current_sched
from gopoll.runtime.context import background
from gopoll.runtime.goroutine import go

__all__ = ["CHUNK", "TLSCore"]

CHUNK = 65536  # bytes that are encrypted, or read from below, at a time: four records
_RECORD = 16384  # the most plaintext that one record has
_PILE = 3 * CHUNK  # bytes: what a write under way has made, and two reads' worth of answers
_AHEAD = 4 * CHUNK  # bytes of plaintext that a write reads ahead

_CUT = "a write below was cut, and nobody knows how much had left"


class TLSCore(TLSBase):
    """The handshake and both directions of a TLSConn."""

    __slots__ = ()

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
            await self._rlock.lock()  # which keeps the slice's account: this may never park (A13)
            try:
                got = await self._read_locked(n, view)
            finally:
                self._rlock.unlock()
            if got is not None:
                return got

    async def _read_locked(self, n: int, view: memoryview | None) -> bytes | int | None:
        """Read, or return None to let a writer read first (W4)."""
        kicks = True
        data: bytes | None = None
        while True:
            with self._lock:
                if data is not None:
                    self._take_in(data)
                self._check("read", READ)
                got = self._take_bytes(n) if view is None else self._take_into(view)
                end = self._read_end
                gives_way = self._wants_read
                answers = self._out.pending  # a KeyUpdate, an alert
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
            data = None
            if (answers or self._unsent) and self._is_piled():
                kicks = False  # what has failed once is tried again by who moves the deadline
                await self._wait_sent()
            elif kicks:
                try:
                    data = await self._conn.read(CHUNK)
                except OSError:
                    self._check("read", 0)  # what close() does to the deadline below is no timeout
                    raise
            else:
                kicks = True

    def _take_plain(self, n: int) -> bytes:
        """Return at most *n* bytes of what has been decrypted ahead. Under _lock."""
        data = bytes(self._plain[:n])
        del self._plain[:n]
        return data

    def _take_into(self, view: memoryview) -> int:
        total = min(len(view), len(self._plain))
        view[:total] = self._plain[:total]
        del self._plain[:total]
        while total < len(view) and (got := self._decrypt(len(view) - total, view[total:])):
            total += got
        return total

    def _not_decrypted(self, exc: ssl.SSLError) -> None:
        """Note what SSL_read has said instead of giving bytes. Under _lock."""
        if isinstance(exc, ssl.SSLWantReadError):
            self._look_for_end()
        elif isinstance(exc, ssl.SSLZeroReturnError):
            self._read_end = True
        else:
            self._read_end = self._error("read", exc)
            if self._write_end is None:  # OpenSSL itself would take it for an orderly end
                self._write_end = self._error("write", exc)

    def _look_for_end(self) -> None:
        """Note an end that was not announced. OpenSSL is not told: it would take no writes then."""
        if self._eof:
            self._read_end = self._error("read", unexpected_eof())

    def _decrypt_all(self) -> None:
        """Decrypt what has come, ahead of the reads."""
        while data := self._decrypt(_RECORD):
            self._plain += data

    async def _receive(self) -> None:
        """Take in what the connection below has: who shakes hands, or reads to write."""
        try:
            data = await self._conn.read(CHUNK)
        except OSError:
            self._check("read", 0)
            raise
        with self._lock:
            self._take_in(data)

    def _take_in(self, data: bytes) -> None:
        """Take what the connection below has given. Under _lock."""
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
            await self._wlock.lock()  # which keeps the slice's account of a write of nothing (A13)
        except BaseException:
            self._kick()  # W3: it may have been ours for a moment
            raise
        try:
            with self._lock:
                self._check("write", WRITE)
                self._check_open()
                left = self._unsent or self._out.pending
            if left:
                await self._flush()
        except BaseException:
            self._end_write()
            raise

    def _read_no_more(self) -> None:
        """A write ends: whatever has cut it, it no longer says that it must read (W4)."""
        if self._wants_read:
            with self._lock:
                self._wants_read = False

    def _end_write(self) -> None:
        self._read_no_more()
        self._wlock.unlock()
        self._kick()  # W3

    async def _encrypt(self, chunk: memoryview) -> None:
        """Turn *chunk* into ciphertext, all of it, where that has to wait (W4)."""
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
            self._check("write", WRITE)
            if self._write_end is not None:
                raise copy.copy(self._write_end)
            try:
                taken = self._obj.write(chunk)
                assert taken == len(chunk), "SSL_write took a part"  # there is no end to _out
                return True
            except ssl.SSLError as exc:
                self._not_encrypted(exc)
                return False

    def _not_encrypted(self, exc: ssl.SSLError) -> None:
        """Raise what SSL_write has said, unless it is that it must read first. Under _lock."""
        if not isinstance(exc, ssl.SSLWantReadError):
            self._write_end = self._error("write", exc)
            raise copy.copy(self._write_end) from exc
        if self._eof:
            raise self._error("write", unexpected_eof()) from None
        self._wants_read = True  # W4

    def _check_open(self) -> None:
        """Raise what keeps a write from beginning, but for a close or a deadline. Under _lock."""
        if self._write_end is not None:
            raise copy.copy(self._write_end)
        if self._shut:
            raise self._op_error("write", errno.EPIPE)

    async def _flush(self, once: bool = False) -> None:
        """Send what has been encrypted. Who has _wlock; in the handshake, who has _hlock.

        once: and leave what is made meanwhile to who gives _wlock up (W3).
        """
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
                self._send_failed(op, exc, data)
                raise
            self._unsent = b""
            self._send_error = None
            if once and not self._waits:
                return

    def _send_failed(self, op: object, exc: BaseException, data: bytes) -> None:
        """Keep what *op*, the write of *data* below that *exc* has ended, has not taken."""
        if (written := written_by(op, exc)) is None:
            self._write_end = self._op_error("write", _CUT)
            written = len(data)
        self._unsent = data[written:]  # W2
        if isinstance(exc, OSError) and not is_late(exc):
            known = isinstance(exc, OpError)
            self._send_error = copy.copy(exc) if known else OSError(exc.errno, str(exc))
        self._waits.wake()  # W5

    # -- what goes out by itself

    def _send_kicked(self) -> None:
        """Send what there is; whoever has _wlock looks for it when giving that up (W3)."""
        while self._wlock.try_lock():
            if not self._send_now():
                return
            with self._lock:
                if not self._has_to_send():
                    return

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
            with self._lock:
                if not self._has_to_send():
                    return
            if not self._wlock.try_lock():
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
