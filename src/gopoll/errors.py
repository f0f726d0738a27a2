"""Exceptions: Go's texts and questions on Python's exception classes.

Called by every layer, on any thread, always with the GIL (or attached). The core builds what it
raises with op_error and its siblings; nothing here is on a hot path.
Go: net/net.go, internal/poll/fd.go, os/error.go (go1.27).
"""

from __future__ import annotations

import builtins
import errno as _errno
import os
import resource
import socket
from typing import Any, TypeAlias, TypeVar

__all__ = [
    "AddrError",
    "Canceled",
    "ChanClosed",
    "ClosedError",
    "DNSError",
    "DeadlineExceeded",
    "DeadlockError",
    "ForkedError",
    "InternalError",
    "LimitError",
    "NotPollableError",
    "OpError",
    "UnknownNetworkError",
]

# An IP address as the socket module has it, or a Unix path ("@name" or "\0name" when abstract).
Addr: TypeAlias = str | tuple[str, int] | tuple[str, int, int, int]

TIMEOUT_TEXT = "i/o timeout"
CANCELED_TEXT = "operation was canceled"
CLOSED_TEXT = "use of closed network connection"
CLOSED_FILE_TEXT = "use of closed file"
NOT_POLLABLE_TEXT = "not pollable"
NO_SUCH_HOST_TEXT = "no such host"
UNKNOWN_PORT_TEXT = "unknown port"
REGULAR_FILE_HINT = "regular files are always ready; read them in gopoll.blocking()"
LOOKUP_AGAIN_HINT = "ask again later; do the servers in /etc/resolv.conf answer?"

# syscall.Errno.Timeout and Temporary.
_TIMEOUT_ERRNOS = frozenset({_errno.EAGAIN, _errno.EWOULDBLOCK, _errno.ETIMEDOUT})
_TEMPORARY_ERRNOS = _TIMEOUT_ERRNOS | {_errno.EINTR, _errno.EMFILE, _errno.ENFILE}

# Look-up failures that mean "there is no such name", not "ask again". Musl lacks the last two.
_NOT_FOUND_CODES = frozenset(
    code
    for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY")
    if (code := getattr(socket, name, None)) is not None
)


def format_addr(addr: object) -> str:
    """Return *addr* as Go prints it: host:port, [v6%zone]:port, a path, @abstract; "" for None.

    A scope id is shown by interface name where it has one. Never raises: this runs while an error
    is being reported.
    """
    if addr is None:
        return ""
    if isinstance(addr, bytes):
        addr = os.fsdecode(addr)
    if isinstance(addr, str):
        return _printable("@" + addr[1:] if addr.startswith("\0") else addr)
    if not isinstance(addr, tuple) or len(addr) < 2:
        return _printable(str(addr))
    host = str(addr[0])
    if len(addr) == 4 and addr[3] and "%" not in host:
        host = f"{host}%{_zone_name(addr[3])}"
    return _printable(f"[{host}]:{addr[1]}" if ":" in host else f"{host}:{addr[1]}")


def _printable(text: str) -> str:
    """Escape what would fake a second log line, or end one: somebody has typed or sent it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _zone_name(scope_id: object) -> str:
    """Return the interface name of *scope_id*, or its number where there is none."""
    try:
        return socket.if_indextoname(scope_id)  # type: ignore[arg-type]
    except (OSError, OverflowError, TypeError, ValueError):
        return str(scope_id)


def errno_text(code: int) -> str:
    """Return the system's text for *code* in Go's spelling: the first word is not capitalised."""
    return _uncapitalise(os.strerror(code))


def _uncapitalise(text: str) -> str:
    # "RFS specific error" keeps its capitals, as in Go's table.
    return text[0].lower() + text[1:] if text[:1].isupper() and text[1:2].islower() else text


def _limit_hint(code: int | None) -> str | None:
    """Return the remedy for the two errnos that a user cures by raising a limit."""
    if code == _errno.EMFILE:
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"limit {soft}; raise RLIMIT_NOFILE"
    if code == _errno.ENFILE:
        try:
            with open("/proc/sys/fs/file-max", encoding="ascii") as file:
                return f"limit {file.read().strip()}; raise fs.file-max"
        except OSError:  # most likely this very limit
            return "raise fs.file-max"
    return None


def _cause_text(err: str | BaseException) -> str:
    """Return the text of a cause, without the "[Errno 111]" that str() of an OSError leads with."""
    if isinstance(err, str):
        return err
    if isinstance(err, OSError) and not isinstance(err, (OpError, DeadlineExceeded)):
        return _uncapitalise(err.strerror) if err.strerror else str(err)
    return str(err)


class OpError(OSError):
    """An operation failed. Its text is Go's: "op net source->addr: err", "...: syscall: err".

    op, net: the operation ("dial", "read") and the network ("tcp"); "" where there is none.
    source, addr: the local and the remote address, or None; accept, listen and set have no source.
    err: the cause, a text or an exception; errno: its number, or None.
    written: bytes that had left before a write failed; None for other operations.
    syscall: the system call that has failed, as the text names it: "connect"; or None.

    What gopoll raises is also an instance of the class Python has for the errno, such as
    ConnectionRefusedError: op_error picks it.
    """

    def __init__(
        self,
        op: str = "",
        net: str = "",
        source: Addr | None = None,
        addr: Addr | None = None,
        err: int | str | BaseException = "",
        *,
        errno: int | None = None,
        written: int | None = None,
        hint: str | None = None,
        syscall: str | None = None,
    ) -> None:
        """Describe a failure; *err* as an int is an errno; *hint* is the remedy, in brackets."""
        if errno is None:
            errno = _errno_of(err)
        self.op = op
        self.net = net
        self.source = source
        self.addr = addr
        self.err: str | BaseException = errno_text(err) if isinstance(err, int) else err
        self.written = written
        self.syscall = syscall
        self._hint = hint
        # Not super(): a sibling base (ValueError, DeadlineExceeded) has another signature.
        OSError.__init__(self, errno, _cause_text(self.err))

    @property
    def is_timeout(self) -> bool:
        """Tell whether time ran out."""
        if isinstance(self.err, OpError):
            return self.err.is_timeout
        return isinstance(self.err, TimeoutError) or self.errno in _TIMEOUT_ERRNOS

    @property
    def is_temporary(self) -> bool:
        """Tell whether the same call may work later."""
        if isinstance(self.err, OpError):
            return self.err.is_temporary
        return isinstance(self.err, TimeoutError) or self.errno in _TEMPORARY_ERRNOS

    def _where(self) -> str:
        """Return "op net source->addr" without the parts that are missing."""
        ends = [text for text in (format_addr(self.source), format_addr(self.addr)) if text]
        return " ".join(part for part in (self.op, self.net, "->".join(ends)) if part)

    def _what(self) -> str:
        """Return the cause as it stands after the colon. Go: os.SyscallError.Error."""
        text = _cause_text(self.err)
        return f"{self.syscall}: {text}" if self.syscall else text

    def __str__(self) -> str:
        what = f"{self._what()} ({self._hint})" if self._hint else self._what()
        return ": ".join(part for part in (self._where(), what) if part)

    def __repr__(self) -> str:
        text = f"{type(self).__name__}({str(self)!r}"
        if self.errno is not None:
            text += f", errno={_errno.errorcode.get(self.errno, self.errno)}"
        if self.written is not None:
            text += f", written={self.written}"
        return text + ")"

    def __reduce__(self) -> tuple[Any, ...]:
        # The class may be one that _class_for made, so name its two halves; the constructors of
        # subclasses differ, so the state goes as attributes (BaseException.__setstate__).
        base, extra = type(self).__dict__.get("_halves", (type(self), None))
        if extra is not None and extra.__module__ == "builtins":
            # By name: protocols below 3 make every one of them the OSError of Python 2.
            extra = extra.__name__
        state = {**self.__dict__, "errno": self.errno, "strerror": self.strerror, "args": self.args}
        return _rebuild, (base, extra), state


class ClosedError(OpError):
    """The connection or file was closed before or during the operation; errno EBADF."""


class NotPollableError(OpError):
    """The kernel will not poll this descriptor; errno EPERM."""


class AddrError(OpError, ValueError):
    """The address makes no sense: "dial tcp: address foo: missing port in address".

    addr is the part that is wrong, as it was given, or None; err says why; errno EINVAL.
    """

    def __init__(self, op: str = "", net: str = "", addr: Any = None, err: str = "") -> None:
        """Describe what is wrong with *addr*."""
        OpError.__init__(self, op, net, None, addr, err, errno=_errno.EINVAL)

    def _where(self) -> str:
        return " ".join(part for part in (self.op, self.net) if part)

    def _what(self) -> str:
        # "\0" stands for "@" in the name of a Unix socket only.
        if isinstance(self.addr, str) and not self.net.startswith("unix"):
            addr = _printable(self.addr)
        else:
            addr = format_addr(self.addr)
        return f"address {addr}: {self.err}" if addr else str(self.err)


class UnknownNetworkError(OpError, ValueError):
    """The network is none of those in the manual: "dial foo: unknown network foo"; EINVAL."""

    def __init__(self, op: str = "", net: str = "") -> None:
        """Describe the unknown network *net*."""
        OpError.__init__(self, op, net, err=f"unknown network {net}", errno=_errno.EINVAL)

    def _where(self) -> str:
        return f"{self.op} {self.net}" if self.op else ""


class DNSError(OpError, socket.gaierror):
    """A look-up failed: "dial tcp: lookup nowhere.example: no such host".

    host: the name that was looked up; errno: as Python's, the EAI_ code. is_not_found: there is no
    such name, asking again is no use. is_temporary: the same look-up may work later.
    """

    def __init__(
        self,
        op: str = "",
        net: str = "",
        host: str = "",
        err: str | BaseException = "",
        *,
        errno: int | None = None,
        is_not_found: bool = False,
        is_timeout: bool = False,
        is_temporary: bool = False,
        hint: str | None = None,
    ) -> None:
        """Describe a failed look-up of *host*."""
        OpError.__init__(self, op, net, err=err, errno=errno, hint=hint)
        self.host = host
        self.is_not_found = is_not_found
        self._is_timeout = is_timeout
        self._is_temporary = is_temporary

    @property
    def is_timeout(self) -> bool:
        """Tell whether time ran out."""
        return self._is_timeout

    @property
    def is_temporary(self) -> bool:
        """Tell whether the same look-up may work later."""
        return self._is_timeout or self._is_temporary

    def _what(self) -> str:
        return f"lookup {_printable(self.host)}: {_cause_text(self.err)}"


class DeadlineExceeded(TimeoutError):
    """A Context, timeout() or dial deadline passed (not a connection's own); errno ETIMEDOUT.

    written: bytes that had left if timeout() or deadline() cut a write, else None; see Canceled.
    """

    is_timeout: bool = True
    is_temporary: bool = True
    written: int | None = None

    def __init__(self, text: str = "context deadline exceeded") -> None:
        """Describe which deadline passed."""
        OSError.__init__(self, _errno.ETIMEDOUT, text)

    def __str__(self) -> str:
        return self.strerror or ""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.strerror,), self.__dict__ or None


class Canceled(BaseException):
    """The ambient context was cancelled.

    cause: what cancel() was given, or None.
    written: bytes that had left if a write was under way, else None; the connection is usable,
    its stream possibly in the middle of a message.
    """

    def __init__(self, cause: object = None) -> None:
        """Carry *cause*, what cancel() was given."""
        super().__init__(*(() if cause is None else (cause,)))
        self.cause = cause
        self.written: int | None = None

    def __str__(self) -> str:
        return "context canceled" if self.cause is None else f"context canceled: {self.cause}"


class LimitError(ValueError):
    """A line or token is longer than the limit; its bytes stay readable."""


class ChanClosed(Exception):
    """Receive on a closed empty channel, or send on a closed one.

    index: the case of the select() that met it, -1 without one.
    """

    index: int = -1


class ForkedError(RuntimeError):
    """A scheduler or connection of the parent was used in a forked child."""


class DeadlockError(RuntimeError):
    """All goroutines are asleep and nothing outside can wake one.

    dump: every goroutine with its state and stack, as gopoll.dump() writes it.
    """

    def __init__(self, dump: str = "") -> None:
        """Carry the *dump* of the goroutines."""
        super().__init__(dump)
        self.dump = dump

    def __str__(self) -> str:
        head = "all goroutines are asleep - deadlock!"
        return f"{head}\n\n{self.dump}" if self.dump else head


class InternalError(SystemError):
    """Corrupted state; the text is that of Go's throw."""


# Classes per errno. OSError.__new__ picks the builtin for an errno only for OSError itself,
# so OpError and its subclasses get one class beside each builtin.

_E = TypeVar("_E", bound=OpError)
_made: dict[tuple[type[OSError], type[OSError]], type[OSError]] = {}


def _class_for(base: type[_E], extra: type[OSError] | None) -> type[_E]:
    """Return the class that is both *base* and *extra*; the same one each time, on any thread."""
    if extra is None or issubclass(base, extra):
        return base
    made = _made.get((base, extra))
    if made is None:
        name = f"{base.__name__}[{extra.__name__}]"
        body = {"__module__": base.__module__, "__doc__": base.__doc__, "_halves": (base, extra)}
        # setdefault: of two threads that get here at once, both return the first one's class.
        made = _made.setdefault((base, extra), type(name, (base, extra), body))
    return made  # type: ignore[return-value]


def _builtin_for(code: int | None) -> type[OSError] | None:
    """Return the builtin that Python raises for errno *code*."""
    return None if code is None else type(OSError(code, ""))


def _errno_of(err: object) -> int | None:
    if isinstance(err, int):
        return err
    return err.errno if isinstance(err, OSError) else None


def _rebuild(base: type[OpError], extra: type[OSError] | str | None) -> OpError:
    """Make an empty error for pickle and copy, which set its attributes next."""
    cls = _class_for(base, getattr(builtins, extra) if isinstance(extra, str) else extra)
    return cls.__new__(cls)


def op_error(
    op: str,
    net: str,
    source: Addr | None,
    addr: Addr | None,
    err: int | str | BaseException,
    *,
    written: int | None = None,
    hint: str | None = None,
    syscall: str | None = None,
) -> OpError:
    """Return the error of a failed operation; *err* is an errno, a text or the cause itself.

    The object is an OpError and an instance of the builtin of its errno. EMFILE and ENFILE say
    what the limit is unless *hint* says something better. *syscall*: what has given the errno.
    """
    code = _errno_of(err)
    extra = DeadlineExceeded if isinstance(err, DeadlineExceeded) else _builtin_for(code)
    cls = _class_for(OpError, extra)
    hint = hint or _limit_hint(code)
    return cls(op, net, source, addr, err, written=written, hint=hint, syscall=syscall)


def timeout_error(
    op: str, net: str, source: Addr | None, addr: Addr | None, *, written: int | None = None
) -> OpError:
    """Return the error of a connection's own deadline: a TimeoutError, not a DeadlineExceeded.

    Go: os.ErrDeadlineExceeded.
    """
    cls = _class_for(OpError, TimeoutError)
    return cls(op, net, source, addr, TIMEOUT_TEXT, errno=_errno.ETIMEDOUT, written=written)


def deadline_error(op: str, net: str, source: Addr | None, addr: Addr | None) -> OpError:
    """Return the error of a dial or context deadline, which is a DeadlineExceeded too.

    Go: net.errTimeout.
    """
    cls = _class_for(OpError, DeadlineExceeded)
    return cls(op, net, source, addr, TIMEOUT_TEXT, errno=_errno.ETIMEDOUT)


def canceled_error(op: str, net: str, source: Addr | None, addr: Addr | None) -> OpError:
    """Return the error of a dial whose explicit context was cancelled. Go: net.errCanceled."""
    return OpError(op, net, source, addr, CANCELED_TEXT, errno=_errno.ECANCELED)


def closed_error(
    op: str,
    net: str,
    source: Addr | None,
    addr: Addr | None,
    *,
    file: bool = False,
    written: int | None = None,
    ended: bool = False,
) -> ClosedError:
    """Return the error of an operation on a closed connection, or *file*. Go: errClosing.

    ended: nobody has closed it, but its poller is gone.
    """
    text = CLOSED_FILE_TEXT if file else CLOSED_TEXT
    if ended:
        text = "its gopoll.run() or attach() has ended: open another where it is used"
    return ClosedError(op, net, source, addr, text, errno=_errno.EBADF, written=written)


def not_pollable_error(
    op: str = "",
    net: str = "",
    source: Addr | None = None,
    addr: Addr | None = None,
    *,
    hint: str | None = REGULAR_FILE_HINT,
) -> NotPollableError:
    """Return the error of a descriptor that epoll_ctl refused with EPERM. Go: ErrNotPollable.

    It is a PermissionError too, as it is from select.epoll.
    """
    cls = _class_for(NotPollableError, PermissionError)
    return cls(op, net, source, addr, NOT_POLLABLE_TEXT, errno=_errno.EPERM, hint=hint)


def dns_error(op: str, net: str, host: str, err: str | BaseException) -> DNSError:
    """Return the error of a failed look-up of *host*.

    err: what getaddrinfo raised, a DeadlineExceeded (the result is one too), or a text.
    """
    if isinstance(err, DeadlineExceeded):
        cls = _class_for(DNSError, DeadlineExceeded)
        return cls(op, net, host, TIMEOUT_TEXT, errno=_errno.ETIMEDOUT, is_timeout=True)
    code = _errno_of(err)
    if isinstance(err, socket.gaierror):
        if code == socket.EAI_SERVICE:
            return DNSError(op, net, host, UNKNOWN_PORT_TEXT, errno=code, is_not_found=True)
        if code not in _NOT_FOUND_CODES:
            retry = code == socket.EAI_AGAIN
            hint = LOOKUP_AGAIN_HINT if retry else None
            return DNSError(op, net, host, err, errno=code, is_temporary=retry, hint=hint)
    elif isinstance(err, OSError):  # such as EMFILE while the resolver opened its socket
        cls = _class_for(DNSError, _builtin_for(code))
        late, retry = code in _TIMEOUT_ERRNOS, code in _TEMPORARY_ERRNOS
        hint = _limit_hint(code)
        return cls(op, net, host, err, is_timeout=late, is_temporary=retry, hint=hint)
    elif isinstance(err, str) and err != NO_SUCH_HOST_TEXT:
        return DNSError(op, net, host, err)
    # No such name; a UnicodeError is a name that DNS cannot spell.
    code = code if code is not None else socket.EAI_NONAME
    return DNSError(op, net, host, NO_SUCH_HOST_TEXT, errno=code, is_not_found=True)


# Made now, so that the first error of a kind costs no class while descriptors or memory run out.
for _code in _errno.errorcode:
    _class_for(OpError, _builtin_for(_code))
