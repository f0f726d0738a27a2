"""Names: literals that are never looked up, failures, and Go's rules for address lists."""

import errno
import socket
import threading

import pytest

import gopoll
from gopoll.errors import (
    AddrError,
    Canceled,
    DeadlineExceeded,
    DNSError,
    OpError,
    UnknownNetworkError,
)
from gopoll.net import resolve
from gopoll.net.addr import IPAddr
from gopoll.net.resolve import Resolver, resolve_addr_list, resolve_local_addr
from gopoll.runtime.context import background, current_context, with_cancel, with_timeout
from gopoll.runtime.debug import stats
from gopoll.runtime.goroutine import go
from gopoll.runtime.scope import timeout
from net.tools import parked, until

V4, V6 = socket.AF_INET, socket.AF_INET6


class Fixed:
    """A resolver that knows one answer, or one error."""

    def __init__(self, *answer):
        self.answer = answer
        self.asked = []

    async def lookup_addr(self, host, port, family=socket.AF_UNSPEC):
        self.asked.append((host, port, family))
        if isinstance(self.answer[0], BaseException):
            raise self.answer[0]
        return [(host, port) for host in self.answer]


class Never:
    """A resolver that never answers, and notes how it was left."""

    def __init__(self):
        self.ended = []

    async def lookup_addr(self, host, port, family=socket.AF_UNSPEC):
        ctx, cancel = with_cancel(background())
        try:
            await ctx.wait()
        except BaseException as exc:
            self.ended.append(type(exc))
            raise
        finally:
            cancel()


@pytest.fixture
def no_lookup(monkeypatch):
    def getaddrinfo(*args):
        raise AssertionError(f"looked up {args}")

    monkeypatch.setattr(resolve, "_getaddrinfo", getaddrinfo)


def answers(monkeypatch, *sockaddrs):
    """Have the system's getaddrinfo answer *sockaddrs*, or raise."""

    def getaddrinfo(host, port, family, kind):
        if isinstance(sockaddrs[0], BaseException):
            raise sockaddrs[0]
        return [(0, kind, 0, "", sockaddr) for sockaddr in sockaddrs]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


# -- Resolver


@pytest.mark.parametrize(
    ("literal", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%lo", "fe80::1%lo"),
    ],
)
def test_a_literal_never_leaves_the_thread(run, no_lookup, literal, host):
    async def main():
        assert await Resolver().lookup_host(literal) == [host]
        zone = (0, socket.if_nametoindex("lo")) if "%" in host else ()
        expected = (host.partition("%")[0], 80, *zone)
        assert await Resolver().lookup_addr(literal, 80) == [expected]

    run(main)


@pytest.mark.parametrize(
    ("literal", "family", "other"),
    [("127.0.0.1", V4, V6), ("::1", V6, V4), ("::ffff:10.0.0.1", V4, V6)],
)
def test_a_literal_of_another_family_is_none(run, no_lookup, literal, family, other):
    async def main():
        assert len(await Resolver().lookup_addr(literal, 80, family)) == 1
        with pytest.raises(DNSError, match="no suitable address found") as caught:
            await Resolver().lookup_addr(literal, 80, other)
        assert caught.value.is_not_found
        assert caught.value.errno == socket.EAI_ADDRFAMILY

    run(main)


def test_a_name_is_looked_up_on_another_thread(run, monkeypatch):
    threads = []
    real = resolve._getaddrinfo

    def getaddrinfo(host, family):
        threads.append(threading.current_thread())
        return real(host, family)

    async def main():
        monkeypatch.setattr(resolve, "_getaddrinfo", getaddrinfo)
        assert "127.0.0.1" in await Resolver().lookup_host("localhost")
        assert await Resolver().lookup_addr("localhost", 80, V4) == [("127.0.0.1", 80)]
        assert threading.current_thread() not in threads
        assert len(threads) == 2

    run(main)


def test_what_the_system_answers_is_kept_in_order_without_doubles(monkeypatch):
    answers(
        monkeypatch,
        ("fe80::2%9", 0, 0, 9),
        ("::ffff:10.0.0.1", 0, 0, 0),
        ("10.0.0.1", 0),
        ("::1", 0, 0, 0),
        ("fe80::2%9", 0, 0, 9),
    )
    found = resolve._getaddrinfo("x", socket.AF_UNSPEC)
    assert found == [IPAddr(V6, "fe80::2", 9), IPAddr(V4, "10.0.0.1"), IPAddr(V6, "::1")]
    assert [resolve._sockaddr(ip, 7) for ip in found] == [
        ("fe80::2", 7, 0, 9),
        ("10.0.0.1", 7),
        ("::1", 7),
    ]
    assert resolve._host_of(("fe80::2", 7, 0, 0x7FFFFFFF)) == f"fe80::2%{0x7FFFFFFF}"


@pytest.mark.parametrize(
    ("error", "text", "not_found", "temporary"),
    [
        (socket.gaierror(socket.EAI_NONAME, "?"), "no such host", True, False),
        (socket.gaierror(socket.EAI_AGAIN, "Try again"), "try again", False, True),
        (OSError(errno.EMFILE, "Too many open files"), "too many open files", False, True),
        (UnicodeError("label too long"), "no such host", True, False),
    ],
)
def test_a_failed_look_up_is_a_dns_error(run, monkeypatch, error, text, not_found, temporary):
    answers(monkeypatch, error)

    async def main():
        with pytest.raises(DNSError, match=f"^lookup nowhere: {text}") as caught:
            await Resolver().lookup_host("nowhere")
        assert caught.value.host == "nowhere"
        assert caught.value.is_not_found is not_found
        assert caught.value.is_temporary is temporary

    run(main)


@pytest.mark.parametrize(
    "host",
    [
        *("010.0.0.1", "127.1", "1", "0x7f.1", "0X7F000001", "127.0.0.1.", "1.2.3.4.5"),
        *("0.0.0.256", "\uff11\uff12\uff17.1", "127.1%lo"),
    ],
)
def test_numbers_that_are_no_address_are_no_host(run, no_lookup, host):
    """getaddrinfo reads octal and hexadecimal numbers, and fewer than four."""

    async def main():
        resolver = Resolver()
        for call in (resolver.lookup_host(host), resolver.lookup_addr(host, 80)):
            with pytest.raises(
                DNSError, match=r"no such host \(an IPv4 address has four"
            ) as caught:
                await call
            assert caught.value.is_not_found
            assert caught.value.host == host
        with pytest.raises(DNSError, match=r"^dial tcp: lookup 010\.0\.0\.1: no such host \("):
            await gopoll.dial("tcp", "010.0.0.1:1")

    run(main)


@pytest.mark.parametrize("host", ["3com.example", "0xcafe.example", "1-2", "a.1", "0xcafg"])
def test_a_name_with_numbers_is_a_name(run, monkeypatch, host):
    monkeypatch.setattr(resolve, "_getaddrinfo", lambda host, family: [IPAddr(V4, "10.0.0.1")])

    async def main():
        assert await Resolver().lookup_host(host) == ["10.0.0.1"]

    run(main)


@pytest.mark.parametrize("host", ["", "a\0b"])
def test_a_host_that_cannot_be_is_not_looked_up(run, no_lookup, host):
    async def main():
        with pytest.raises(DNSError, match="no such host"):
            await Resolver().lookup_host(host)

    run(main)


def test_an_empty_answer_is_no_such_host(run, monkeypatch):
    monkeypatch.setattr(resolve, "_getaddrinfo", lambda host, family: [])

    async def main():
        with pytest.raises(DNSError, match=r"^lookup nowhere: no such host$"):
            await Resolver().lookup_addr("nowhere", 1)

    run(main)


# -- resolve_addr_list


def addr_list(run, op, network, address, hint=None, resolver=None):
    async def main():
        return await resolve_addr_list(
            background(), resolver or Fixed("10.0.0.1"), op, network, address, hint
        )

    return run(main)


@pytest.mark.parametrize(
    ("op", "network", "address", "expected"),
    [
        ("dial", "tcp", "127.0.0.1:80", [("127.0.0.1", 80)]),
        ("dial", "tcp", ("::1", 80), [("::1", 80)]),
        ("dial", "tcp", ":80", [("", 80)]),
        ("dial", "tcp6", ":80", [("", 80)]),
        ("listen", "tcp", ":http", [("", 80)]),
        ("listen", "tcp", "", [("", 0)]),
        ("dial", "tcp", "[::]:80", [("::", 80), ("0.0.0.0", 80)]),  # Go issue 18806
        ("dial", "tcp4", "[::]:80", [("0.0.0.0", 80)]),  # row 71
        ("dial", "tcp6", "[::]:80", [("::", 80)]),
        ("listen", "tcp", "[::]:80", [("::", 80)]),  # row 77
        ("dial", "tcp4", "[::ffff:10.0.0.1]:80", [("10.0.0.1", 80)]),
    ],
)
def test_what_an_address_stands_for(run, op, network, address, expected):
    resolver = Fixed(AssertionError("looked up"))
    assert addr_list(run, op, network, address, resolver=resolver) == expected


def test_a_name_is_looked_up_for_the_network_s_family(run):
    resolver = Fixed("::1", "10.0.0.1", "10.0.0.2")
    both = [("::1", 80), ("10.0.0.1", 80), ("10.0.0.2", 80)]
    assert addr_list(run, "dial", "tcp", "name:80", resolver=resolver) == both
    assert addr_list(run, "dial", "tcp4", "name:80", resolver=resolver) == both[1:]
    assert addr_list(run, "dial", "tcp6", "name:80", resolver=resolver) == both[:1]
    assert resolver.asked == [("name", 80, f) for f in (socket.AF_UNSPEC, V4, V6)]


NO_SUITABLE = "no suitable address found"


@pytest.mark.parametrize(
    ("op", "network", "address", "kind", "text"),
    [
        ("dial", "tcp", "", AddrError, "dial tcp: missing address"),
        ("dial", "tcp", "host", AddrError, "dial tcp: address host: missing port in address"),
        ("listen", "tcp", "host", AddrError, "listen tcp: address host: missing port in address"),
        ("dial", "tcp", "h:70000", AddrError, "dial tcp: address 70000: invalid port"),
        ("dial", "tcp4", "[::1]:80", AddrError, f"dial tcp4: address ::1: {NO_SUITABLE}"),
        ("dial", "tcp6", "10.0.0.1:1", AddrError, f"dial tcp6: address 10.0.0.1: {NO_SUITABLE}"),
        ("dial", "tcp6", "name:80", AddrError, f"dial tcp6: address name: {NO_SUITABLE}"),
        ("dial", "foo", "x:1", UnknownNetworkError, "dial foo: unknown network foo"),
        ("listen", "", "x:1", UnknownNetworkError, "listen : unknown network "),
    ],
)
def test_what_is_no_address_says_why(run, op, network, address, kind, text):
    with pytest.raises(kind) as caught:
        addr_list(run, op, network, address)
    assert str(caught.value) == text
    assert caught.value.errno in (errno.EINVAL, errno.EPROTONOSUPPORT)


# Row 62: hint None is no local address, ("", 0) Go's empty TCPAddr.
HINTS = (None, ("", 0), ("0.0.0.0", 0), ("::", 0), ("127.0.0.1", 0), ("::1", 0))


@pytest.mark.parametrize(
    ("network", "address", "suits"),
    [
        ("tcp4", "127.0.0.1:1", (1, 1, 1, 1, 1, 0)),
        ("tcp", "127.0.0.1:1", (1, 1, 1, 1, 1, 0)),
        ("tcp6", "[::1]:1", (1, 1, 1, 1, 0, 1)),
        ("tcp", "[::1]:1", (1, 1, 1, 1, 0, 1)),
        ("tcp", ":1", (1, 1, 1, 1, 1, 1)),
    ],
)
def test_the_local_address_must_be_of_the_same_family(run, network, address, suits):
    """Row 62."""
    for hint, ok in zip(HINTS, suits, strict=True):
        if ok:
            assert len(addr_list(run, "dial", network, address, hint)) == 1
        else:
            with pytest.raises(AddrError, match=NO_SUITABLE) as caught:
                addr_list(run, "dial", network, address, hint)
            assert caught.value.addr == hint


def test_the_local_address_picks_among_several(run):
    resolver = Fixed("::1", "10.0.0.1", "fe80::1", "10.0.0.2")
    found = addr_list(run, "dial", "tcp", "name:1", ("127.0.0.1", 0), resolver)
    assert found == [("10.0.0.1", 1), ("10.0.0.2", 1)]


@pytest.mark.parametrize(
    ("address", "result"),
    [
        ("", ("", 0)),
        (":80", ("", 80)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        (("::1", 5), ("::1", 5)),
        ("/run/x.sock", "address /run/x.sock: mismatched local address type"),
        ("@abstract", "address @abstract: mismatched local address type"),
        ("localhost:0", "address localhost: local address is not an IP address"),
        ("127.0.0.1", "address 127.0.0.1: missing port in address"),
    ],
)
def test_a_local_address_is_a_literal(address, result):
    if isinstance(result, tuple):
        assert resolve_local_addr("dial", "tcp", address) == result
    else:
        with pytest.raises(AddrError) as caught:
            resolve_local_addr("dial", "tcp", address)
        assert str(caught.value) == f"dial tcp: {result}"


# -- under a context


def test_a_failing_resolver_is_reported_as_the_dial_s(run):
    for error, text in (
        (DNSError("", "", "h", "no such host"), "no such host"),
        (OSError(errno.ECONNREFUSED, "Connection refused"), "connection refused"),
        (TimeoutError(errno.ETIMEDOUT, "Connection timed out"), "connection timed out"),
    ):
        with pytest.raises(DNSError, match=f"^dial tcp: lookup h: {text}$"):
            addr_list(run, "dial", "tcp", "h:1", resolver=Fixed(error))
    with pytest.raises(ZeroDivisionError):
        addr_list(run, "dial", "tcp", "h:1", resolver=Fixed(ZeroDivisionError()))


def test_an_answer_that_fails_on_the_way_is_a_failed_look_up(run):
    def answer():
        yield "127.0.0.1", 1
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    with pytest.raises(DNSError, match=r"^dial tcp: lookup h: connection reset by peer$"):
        addr_list(run, "dial", "tcp", "h:1", resolver=Answer(answer()))


class Answer:
    """A resolver that answers whatever it is told to."""

    def __init__(self, answer):
        self.answer = answer

    async def lookup_addr(self, host, port, family):
        return self.answer


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (["127.0.0.1:80"], TypeError, r"must return \(host, port\) tuples, not strs$"),
        ("127.0.0.1:80", TypeError, r"must return \(host, port\) tuples, not strs$"),
        ([["127.0.0.1", 80]], TypeError, r"must return \(host, port\) tuples, not lists$"),
        ([("127.0.0.1",)], TypeError, "not a tuple of 1"),
        ([(b"127.0.0.1", 80)], TypeError, "host must be a str, not bytes"),
        ([("localhost", 80)], AddrError, r"^dial tcp: address localhost: the resolver's answer is"),
        ([("", 80)], AddrError, "the resolver's answer is not an IP address"),
        ([("127.1", 80)], AddrError, "the resolver's answer is not an IP address"),
        ([("::1", 99999)], AddrError, "address 99999: invalid port"),
    ],
)
def test_a_resolver_answers_with_literals_or_not_at_all(run, no_lookup, answer, kind, text):
    """A name would be looked up by the socket module, on the loop."""
    with pytest.raises(kind, match=text):
        addr_list(run, "dial", "tcp", "h:1", resolver=Answer(answer))


def test_a_resolver_s_answers_are_taken_as_ours(run):
    answer = (a for a in [("::ffff:10.0.0.1", 1), ("fe80::1%lo", 2), ("::1", 3, 0, 0)])
    lo = socket.if_nametoindex("lo")
    found = addr_list(run, "dial", "tcp", "h:1", resolver=Answer(answer))
    assert found == [("10.0.0.1", 1), ("fe80::1", 2, 0, lo), ("::1", 3)]


def test_a_cancellation_that_a_resolver_raises_is_not_the_dial_s_end(run):
    """Whether the dial has a context of its own or not."""

    async def main():
        resolver = Fixed(Canceled("of its own"))
        for ctx, cancel in ((current_context(), None), with_timeout(background(), 60)):
            with pytest.raises(Canceled, match="of its own"):
                await resolve_addr_list(ctx, resolver, "dial", "tcp", "h:1")
            if cancel is not None:
                cancel()

    run(main)


def test_a_look_up_ends_with_its_context(run):
    async def main():
        alone = stats().goroutines
        resolver = Never()
        ctx, cancel = with_timeout(background(), 0.01)
        with pytest.raises(DNSError, match=r"^dial tcp: lookup h: i/o timeout$") as caught:
            await resolve_addr_list(ctx, resolver, "dial", "tcp", "h:1")
        assert isinstance(caught.value, DeadlineExceeded)
        assert caught.value.is_timeout
        cancel()

        ctx, cancel = with_cancel(background())
        g = go(resolve_addr_list, ctx, resolver, "dial", "tcp", "h:1")
        await parked(g)
        cancel(LookupError())
        with pytest.raises(DNSError, match=r"lookup h: operation was canceled$") as caught:
            await g
        assert isinstance(caught.value.__cause__, LookupError)
        await until(lambda: stats().goroutines == alone)
        assert resolver.ended == [Canceled, Canceled]

    run(main)


def test_a_context_that_is_done_already_ends_the_look_up_at_once(run):
    async def main():
        alone = stats().goroutines
        ctx, cancel = with_cancel(background())
        cancel()
        with pytest.raises(DNSError, match="operation was canceled"):
            await resolve_addr_list(ctx, Never(), "dial", "tcp", "h:1")
        await until(lambda: stats().goroutines == alone)

    run(main)


def test_an_ambient_cancel_leaves_a_look_up_behind(run):
    resolver = Never()

    async def look_up_under_a_child():
        inner, _ = with_cancel(current_context())
        await resolve_addr_list(inner, resolver, "dial", "tcp", "h:1")

    async def main():
        alone = stats().goroutines
        child, cancel = with_cancel(current_context())
        for ctx in (background(), child):
            g = go(resolve_addr_list, ctx, resolver, "dial", "tcp", "h:1")
            await parked(g)
            g.cancel("enough")
            with pytest.raises(Canceled, match="enough"):
                await g
            await until(lambda: stats().goroutines == alone)
        cancel()
        with pytest.raises(DeadlineExceeded) as caught:
            async with timeout(0):
                await look_up_under_a_child()
        assert not isinstance(caught.value, OpError)
        await until(lambda: stats().goroutines == alone)

    run(main)


def test_a_literal_does_not_look_at_the_context(run):
    async def main():
        ctx, cancel = with_cancel(background())
        cancel()
        addrs = await resolve_addr_list(ctx, Never(), "dial", "tcp", "127.0.0.1:1")
        assert addrs == [("127.0.0.1", 1)]

    run(main)
