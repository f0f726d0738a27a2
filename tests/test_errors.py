"""Errors: Go's texts, Python's classes, and a round trip through pickle and copy."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import resource
import socket
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopoll import errors
from gopoll.errors import (
    AddrError,
    Canceled,
    ChanClosed,
    ClosedError,
    DeadlineExceeded,
    DeadlockError,
    DNSError,
    ForkedError,
    InternalError,
    LimitError,
    NotPollableError,
    OpError,
    UnknownNetworkError,
    op_error,
)

HERE = ("127.0.0.1", 9)
THERE = ("127.0.0.1", 51200)


class WrappedError(OpError):
    """A subclass as a user would write one, with a constructor of its own."""

    def __init__(self, note: str) -> None:
        super().__init__("read", "tcp", HERE, THERE, errno.ECONNRESET)
        self.note = note


ALL = [
    op_error("dial", "tcp", None, ("127.0.0.1", 1), errno.ECONNREFUSED),
    op_error("write", "tcp", HERE, THERE, errno.EPIPE, written=4096),
    op_error("accept", "tcp", None, ("::", 80, 0, 0), errno.EMFILE),
    op_error("read", "tcp", HERE, THERE, "made up", hint="do something"),
    op_error("read", "tcp", HERE, THERE, OSError(errno.EIO, "Input/output error")),
    errors.timeout_error("read", "tcp", HERE, THERE),
    errors.deadline_error("dial", "tcp", None, THERE),
    errors.canceled_error("dial", "tcp", None, THERE),
    errors.closed_error("read", "tcp", HERE, THERE),
    errors.not_pollable_error("open"),
    errors.dns_error("dial", "tcp", "nowhere.example", errors.NO_SUCH_HOST_TEXT),
    errors.dns_error("dial", "tcp", "nowhere.example", DeadlineExceeded()),
    errors.dns_error("dial", "tcp", "h.example", socket.gaierror(socket.EAI_AGAIN, "Try again")),
    AddrError("dial", "tcp", "foo", "missing port in address"),
    UnknownNetworkError("dial", "foo"),
    WrappedError("kept"),
    DeadlineExceeded(),
    DeadlineExceeded("timeout of 3 s passed"),
    Canceled(),
    Canceled("stop"),
    LimitError("line longer than the limit"),
    ChanClosed("send on closed channel"),
    ForkedError("used in a forked child"),
    DeadlockError("goroutine 1 [chan receive]:"),
    InternalError("runtime: double wait"),
]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            op_error("dial", "tcp", None, ("127.0.0.1", 1), errno.ECONNREFUSED),
            "dial tcp 127.0.0.1:1: connection refused",
        ),
        (
            op_error("read", "tcp", HERE, THERE, errno.ECONNRESET),
            "read tcp 127.0.0.1:9->127.0.0.1:51200: connection reset by peer",
        ),
        (
            errors.closed_error("read", "tcp", HERE, THERE),
            "read tcp 127.0.0.1:9->127.0.0.1:51200: use of closed network connection",
        ),
        (
            errors.closed_error("read", "", None, "/dev/tty", file=True),
            "read /dev/tty: use of closed file",
        ),
        (
            op_error("dial", "tcp", ("10.0.0.1", 0), ("::1", 80, 0, 0), errno.ENETUNREACH),
            "dial tcp 10.0.0.1:0->[::1]:80: network is unreachable",
        ),
        (
            op_error("dial", "unix", None, "/run/x.sock", errno.ENOENT),
            "dial unix /run/x.sock: no such file or directory",
        ),
        (
            op_error("dial", "unix", "", "\0hidden", errno.EACCES),
            "dial unix @hidden: permission denied",
        ),
        (
            op_error("read", "tcp", HERE, THERE, errno.ECONNRESET, syscall="read"),
            "read tcp 127.0.0.1:9->127.0.0.1:51200: read: connection reset by peer",
        ),
        (
            op_error("listen", "unix", None, "/s", errno.EADDRINUSE, syscall="bind", hint="go"),
            "listen unix /s: bind: address already in use (go)",
        ),
        (
            op_error("dial", "unix", None, "/a\n\x1b[2J", errno.ENOENT),
            "dial unix /a\\n\\x1b[2J: no such file or directory",
        ),
        (op_error("close", "", None, None, errno.EIO), "close: input/output error"),
        (op_error("", "", None, None, "not pollable"), "not pollable"),
        (
            errors.timeout_error("read", "tcp", HERE, THERE),
            "read tcp 127.0.0.1:9->127.0.0.1:51200: i/o timeout",
        ),
        (errors.deadline_error("dial", "tcp", None, HERE), "dial tcp 127.0.0.1:9: i/o timeout"),
        (
            errors.canceled_error("dial", "tcp", None, HERE),
            "dial tcp 127.0.0.1:9: operation was canceled",
        ),
        (
            errors.not_pollable_error("open", "", None, "/etc/hosts"),
            f"open /etc/hosts: not pollable ({errors.REGULAR_FILE_HINT})",
        ),
        (errors.not_pollable_error(hint=None), "not pollable"),
        (AddrError("dial", "tcp", "foo", "no port"), "dial tcp: address foo: no port"),
        (AddrError("", "", "foo", "no port"), "address foo: no port"),
        (AddrError("dial", "tcp", None, "missing address"), "dial tcp: missing address"),
        (AddrError("dial", "tcp", ("h", 7), "odd"), "dial tcp: address h:7: odd"),
        (AddrError("", "", "a\n\0b", "odd"), "address a\\n\\x00b: odd"),
        (AddrError("dial", "tcp", "\0:80", "odd"), "dial tcp: address \\x00:80: odd"),
        (AddrError("dial", "unix", "\0x", "odd"), "dial unix: address @x: odd"),
        (DNSError("", "", "a\nb", "no such host"), "lookup a\\nb: no such host"),
        (UnknownNetworkError("dial", "foo"), "dial foo: unknown network foo"),
        (UnknownNetworkError("", "foo"), "unknown network foo"),
        (
            errors.dns_error("dial", "tcp", "nowhere.example", "no such host"),
            "dial tcp: lookup nowhere.example: no such host",
        ),
        (
            errors.dns_error("dial", "tcp", "slow.example", DeadlineExceeded()),
            "dial tcp: lookup slow.example: i/o timeout",
        ),
        (Canceled(), "context canceled"),
        (Canceled("stop"), "context canceled: stop"),
        (DeadlineExceeded(), "context deadline exceeded"),
        (DeadlockError(), "all goroutines are asleep - deadlock!"),
        (DeadlockError("goroutine 1"), "all goroutines are asleep - deadlock!\n\ngoroutine 1"),
        (InternalError("runtime: double wait"), "runtime: double wait"),
    ],
)
def test_texts_are_those_of_go(error: BaseException, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize(
    ("addr", "text"),
    [
        (None, ""),
        (("127.0.0.1", 80), "127.0.0.1:80"),
        (("", 80), ":80"),
        (("::1", 80), "[::1]:80"),
        (("::1", 80, 0, 0), "[::1]:80"),
        (("fe80::1", 1, 0, 1), f"[fe80::1%{socket.if_indextoname(1)}]:1"),
        (("fe80::1%eth0", 1, 0, 7), "[fe80::1%eth0]:1"),
        (("fe80::1", 1, 0, 999999), "[fe80::1%999999]:1"),
        ("/run/x.sock", "/run/x.sock"),
        ("@abstract", "@abstract"),
        ("\0abstract", "@abstract"),
        (b"\0abstract", "@abstract"),
        ((1,), "(1,)"),
    ],
)
def test_addresses_print_as_in_go(addr: object, text: str) -> None:
    assert errors.format_addr(addr) == text


@pytest.mark.parametrize("code", sorted(errno.errorcode), ids=lambda c: errno.errorcode[c])
def test_an_errno_gives_the_class_that_python_uses_for_it(code: int) -> None:
    error = op_error("read", "tcp", HERE, THERE, code)
    assert isinstance(error, OpError)
    assert isinstance(error, type(OSError(code, "")))
    assert (error.errno, error.strerror) == (code, error.err)
    assert type(error) is type(op_error("write", "udp", None, None, code))


def test_every_builtin_is_caught_by_its_name() -> None:
    for code, builtin in [
        (errno.ECONNREFUSED, ConnectionRefusedError),
        (errno.EPIPE, BrokenPipeError),
        (errno.ECONNRESET, ConnectionResetError),
        (errno.ECONNABORTED, ConnectionAbortedError),
        (errno.ETIMEDOUT, TimeoutError),
        (errno.EACCES, PermissionError),
        (errno.ENOENT, FileNotFoundError),
        (errno.EAGAIN, BlockingIOError),
        (errno.EINTR, InterruptedError),
    ]:
        with pytest.raises(builtin):
            raise op_error("read", "tcp", HERE, THERE, code)


def test_attributes_are_those_of_the_operation() -> None:
    error = op_error("write", "tcp", HERE, THERE, errno.EPIPE, written=17)
    assert (error.op, error.net, error.source, error.addr) == ("write", "tcp", HERE, THERE)
    assert (error.err, error.errno, error.written) == ("broken pipe", errno.EPIPE, 17)
    assert op_error("read", "tcp", HERE, THERE, errno.EIO).written is None
    assert error.syscall is None
    error = op_error("write", "tcp", HERE, THERE, errno.EPIPE, syscall="write")
    assert (error.syscall, error.strerror) == ("write", "broken pipe")


def test_a_cause_that_is_an_exception_lends_text_class_and_errno() -> None:
    cause = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    error = op_error("dial", "tcp", None, HERE, cause)
    assert isinstance(error, ConnectionRefusedError)
    assert error.errno == errno.ECONNREFUSED
    assert error.err is cause
    assert str(error) == "dial tcp 127.0.0.1:9: connection refused"
    plain = op_error("dial", "tcp", None, HERE, ValueError("bad record"))
    assert (plain.errno, str(plain)) == (None, "dial tcp 127.0.0.1:9: bad record")


def test_a_deadline_as_cause_stays_a_deadline() -> None:
    error = op_error("dial", "tcp", None, HERE, DeadlineExceeded())
    assert isinstance(error, DeadlineExceeded)
    assert error.is_timeout
    assert error.is_temporary


def test_raise_from_keeps_the_cause() -> None:
    cause = ValueError("bad record")
    with pytest.raises(OpError) as caught:
        raise op_error("read", "tcp", HERE, THERE, cause) from cause
    assert caught.value.__cause__ is cause


@pytest.mark.parametrize(
    ("code", "is_timeout", "is_temporary"),
    [
        (errno.EAGAIN, True, True),
        (errno.ETIMEDOUT, True, True),
        (errno.EINTR, False, True),
        (errno.EMFILE, False, True),
        (errno.ENFILE, False, True),
        (errno.ECONNRESET, False, False),
        (errno.ECONNABORTED, False, False),
        (errno.EBADF, False, False),
    ],
)
def test_timeout_and_temporary_are_those_of_syscall_errno(
    code: int, is_timeout: bool, is_temporary: bool
) -> None:
    bare = op_error("read", "tcp", HERE, THERE, code)
    nested = op_error("read", "tls", None, None, bare)
    wrapped = op_error("read", "tcp", HERE, THERE, OSError(code, os.strerror(code)))
    for error in (bare, nested, wrapped):
        assert (error.is_timeout, error.is_temporary) == (is_timeout, is_temporary)


def test_every_error_of_an_operation_says_whether_to_wait() -> None:
    """Row 57: all have both answers; what is too late may be tried again."""
    asked = [error for error in ALL if isinstance(error, (OpError, DeadlineExceeded))]
    assert len(asked) > 15
    for error in asked:
        assert error.is_timeout in (True, False)
        assert error.is_temporary in (True, False)
        assert error.is_timeout <= error.is_temporary
        assert error.is_timeout == isinstance(error, TimeoutError)


def test_timeout_and_temporary_are_those_of_the_error_inside() -> None:
    lookup = DNSError("", "", "h.example", "server misbehaving", is_temporary=True)
    assert op_error("dial", "tcp", None, None, lookup).is_temporary
    assert not op_error("dial", "tcp", None, None, lookup).is_timeout
    late = DNSError("", "", "h.example", "i/o timeout", is_timeout=True)
    assert op_error("dial", "tcp", None, None, late).is_timeout
    assert op_error("dial", "tcp", None, None, late).is_temporary


EVERY_KIND = [
    op_error("read", "tcp", HERE, THERE, errno.ECONNRESET),
    op_error("read", "tcp", HERE, THERE, "text"),
    errors.timeout_error("read", "tcp", HERE, THERE),
    errors.deadline_error("dial", "tcp", None, HERE),
    errors.canceled_error("dial", "tcp", None, HERE),
    errors.closed_error("read", "tcp", HERE, THERE),
    errors.not_pollable_error("open"),
    errors.dns_error("dial", "tcp", "h.example", "server misbehaving"),
    AddrError("dial", "tcp", "x", "missing port in address"),
    UnknownNetworkError("dial", "foo"),
    DeadlineExceeded(),
]


@pytest.mark.parametrize("error", EVERY_KIND, ids=str)
def test_every_error_says_whether_time_ran_out_and_whether_to_try_again(error: OpError) -> None:
    """Row 57."""
    assert isinstance(error, OSError)
    assert isinstance(error.is_timeout, bool)
    assert isinstance(error.is_temporary, bool)
    assert error.is_timeout == isinstance(error, TimeoutError)
    assert error.is_temporary or not error.is_timeout


def test_a_connection_deadline_is_a_timeout_but_not_the_contexts() -> None:
    error = errors.timeout_error("write", "tcp", HERE, THERE, written=5)
    assert issubclass(type(error), TimeoutError)
    assert not isinstance(error, DeadlineExceeded)
    assert (error.errno, error.written) == (errno.ETIMEDOUT, 5)
    assert error.is_timeout
    assert error.is_temporary


def test_a_dial_deadline_is_the_contexts_too() -> None:
    """Row 57."""
    error = errors.deadline_error("dial", "tcp", None, HERE)
    assert isinstance(error, DeadlineExceeded)
    assert isinstance(error, OpError)
    assert (error.op, error.errno) == ("dial", errno.ETIMEDOUT)
    assert error.is_timeout
    assert error.is_temporary
    assert DeadlineExceeded().errno == errno.ETIMEDOUT
    assert DeadlineExceeded().is_timeout


def test_a_cancelled_dial_is_neither_timeout_nor_canceled() -> None:
    """Row 57; Go's errCanceled is the context's own: here that is no OSError, for good reason."""
    error = errors.canceled_error("dial", "tcp", None, HERE)
    assert error.errno == errno.ECANCELED
    assert not error.is_timeout
    assert not error.is_temporary
    assert not isinstance(error, (TimeoutError, Canceled))


def test_closing_is_ebadf_and_keeps_what_was_written() -> None:
    error = errors.closed_error("write", "tcp", HERE, THERE, written=3)
    assert type(error) is ClosedError
    assert (error.errno, error.written) == (errno.EBADF, 3)
    assert not error.is_temporary


def test_not_pollable_is_what_select_epoll_raises_as_well() -> None:
    error = errors.not_pollable_error("open")
    assert isinstance(error, NotPollableError)
    assert isinstance(error, PermissionError)
    assert error.errno == errno.EPERM
    assert str(error) == (
        "open: not pollable (regular files are always ready; read them in gopoll.blocking())"
    )


def test_too_many_open_files_names_the_limit_and_the_remedy() -> None:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    error = op_error("accept", "tcp", None, ("::", 80, 0, 0), errno.EMFILE)
    assert str(error) == (
        f"accept tcp [::]:80: too many open files (limit {soft}; raise RLIMIT_NOFILE)"
    )
    system = str(op_error("socket", "tcp", None, None, errno.ENFILE))
    assert system.startswith("socket tcp: too many open files in system (")
    assert system.endswith("raise fs.file-max)")
    own = op_error("socket", "tcp", None, None, errno.EMFILE, hint="close some")
    assert str(own) == "socket tcp: too many open files (close some)"


def test_the_remedy_is_there_when_no_descriptor_is_left() -> None:
    spare: list[int] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    try:
        with pytest.raises(OSError, match="Too many open files") as caught:  # noqa: PT012
            while True:
                spare.append(os.dup(0))
        text = str(op_error("accept", "tcp", None, ("fe80::1", 80, 0, 1), caught.value))
        system = str(op_error("accept", "tcp", None, None, errno.ENFILE))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in spare:
            os.close(fd)
    assert f"(limit {highest + 1}; raise RLIMIT_NOFILE)" in text
    assert system == "accept tcp: too many open files in system (raise fs.file-max)"


def test_bad_addresses_are_value_errors_with_an_errno() -> None:
    for error in (AddrError("dial", "tcp", "foo", "x"), UnknownNetworkError("dial", "foo")):
        assert isinstance(error, ValueError)
        assert isinstance(error, OpError)
        assert error.errno == errno.EINVAL
        assert not error.is_temporary


@pytest.mark.parametrize(
    ("code", "text", "not_found", "temporary"),
    [
        (socket.EAI_NONAME, "no such host", True, False),
        (socket.EAI_NODATA, "no such host", True, False),
        (socket.EAI_AGAIN, "temporary failure in name resolution", False, True),
        (socket.EAI_SERVICE, "unknown port", True, False),
        (socket.EAI_FAIL, "non-recoverable failure in name resolution", False, False),
    ],
)
def test_lookup_failures_say_whether_to_ask_again(
    code: int, text: str, not_found: bool, temporary: bool
) -> None:
    given_text = text[0].upper() + text[1:]
    error = errors.dns_error("dial", "tcp", "h.example", socket.gaierror(code, given_text))
    hint = f" ({errors.LOOKUP_AGAIN_HINT})" if temporary else ""
    assert str(error) == f"dial tcp: lookup h.example: {text}{hint}"
    assert (error.host, error.errno) == ("h.example", code)
    assert (error.is_not_found, error.is_temporary) == (not_found, temporary)
    assert not error.is_timeout
    assert isinstance(error, socket.gaierror)


def test_lookup_failures_for_other_reasons() -> None:
    late = errors.dns_error("dial", "tcp", "h", DeadlineExceeded())
    assert isinstance(late, DNSError)
    assert isinstance(late, DeadlineExceeded)
    assert (late.is_timeout, late.is_temporary, late.is_not_found) == (True, True, False)
    odd = errors.dns_error("dial", "tcp", "a..b", UnicodeError("label empty or too long"))
    assert (odd.is_not_found, odd.errno) == (True, socket.EAI_NONAME)
    full = errors.dns_error("dial", "tcp", "h", OSError(errno.EMFILE, "Too many open files"))
    assert (full.errno, full.is_temporary) == (errno.EMFILE, True)
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    remedy = f"limit {soft}; raise RLIMIT_NOFILE"
    assert str(full) == f"dial tcp: lookup h: too many open files ({remedy})"
    assert not errors.dns_error("dial", "tcp", "h", "server misbehaving").is_not_found


def test_canceled_passes_by_except_exception() -> None:
    error = Canceled("stop")
    assert not isinstance(error, Exception)
    assert (error.cause, error.written) == ("stop", None)


def test_bases_are_those_of_the_manual() -> None:
    assert issubclass(DeadlineExceeded, TimeoutError)
    assert issubclass(DNSError, OpError)
    assert issubclass(LimitError, ValueError)
    assert issubclass(ForkedError, RuntimeError)
    assert issubclass(DeadlockError, RuntimeError)
    assert issubclass(InternalError, SystemError)
    assert ChanClosed.__base__ is Exception
    assert sorted(errors.__all__) == sorted(set(errors.__all__))


@pytest.mark.parametrize("error", ALL, ids=repr)
@pytest.mark.parametrize(
    "again",
    [
        copy.copy,
        copy.deepcopy,
        *[
            lambda e, p=protocol: pickle.loads(pickle.dumps(e, p))
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        ],
    ],
)
def test_errors_survive_pickle_and_copy(
    error: BaseException, again: Callable[[BaseException], BaseException]
) -> None:
    error.extra = [1]  # type: ignore[attr-defined]
    other = again(error)
    assert type(other) is type(error)
    assert (str(other), repr(other)) == (str(error), repr(error))
    assert vars(other).keys() == vars(error).keys()
    # An exception inside (the cause) has no equality of its own.
    assert list(map(repr, vars(other).values())) == list(map(repr, vars(error).values()))
    if isinstance(error, OSError):
        assert isinstance(other, OSError)
        assert (other.errno, other.strerror) == (error.errno, error.strerror)
        assert other.args == error.args


@pytest.mark.parametrize("error", ALL, ids=repr)
def test_repr_names_class_and_text(error: BaseException) -> None:
    assert repr(error).startswith(type(error).__name__ + "(")
    if isinstance(error, OpError) and error.errno is not None and error.errno > 0:
        assert errno.errorcode[error.errno] in repr(error)


def test_repr_shows_how_much_was_written() -> None:
    error = op_error("write", "tcp", None, HERE, errno.EPIPE, written=4096)
    assert repr(error) == (
        "OpError[BrokenPipeError]('write tcp 127.0.0.1:9: broken pipe', errno=EPIPE, written=4096)"
    )


# By name and not by category: for those Hypothesis goes through all of Unicode, which on a build
# without a GIL takes a minute where the machine has other work.
LETTERS = "aZ09-.:%[]'\"\\\xe4\u20ac\u0301\u4e2d\U0001f600"
WORDS = st.text(LETTERS, max_size=5)  # without white space
TEXTS = st.text(LETTERS + " \t\n\0\x1b\x7f\xa0\u200b\u2028\ud800", max_size=8).map(str.strip)


@given(
    WORDS,
    WORDS,
    st.one_of(st.none(), st.tuples(TEXTS, st.integers())),
    st.one_of(st.none(), TEXTS),
    st.one_of(st.integers(0, 200), TEXTS),
)
def test_any_error_has_a_text_and_a_round_trip(
    op: str, net: str, source: tuple[str, int] | None, addr: str | None, err: int | str
) -> None:
    error = op_error(op, net, source, addr, err)
    other = pickle.loads(pickle.dumps(error))
    assert type(other) is type(error)
    assert str(other) == str(error)
    begins = {str(part)[:1] for part in (source and source[0], addr, err)}
    assert not str(error).startswith(" ") or " " in begins
