"""Addresses: taken apart as Go takes them, refused with Go's words."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopoll.errors import AddrError, UnknownNetworkError
from gopoll.net.addr import (
    IPAddr,
    format_addr,
    ip_literal,
    is_ipv4,
    is_multicast,
    is_wildcard,
    join_host_port,
    parse_network,
    parse_port,
    split_by_family,
    split_host_port,
    unix_path,
    unix_sockaddr,
)

LOOPBACK = socket.if_indextoname(1)


@pytest.mark.parametrize(
    ("address", "want"),
    [
        ("localhost:80", ("localhost", 80)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:80", ("::1", 80)),
        ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
        (":80", ("", 80)),
        ("host:", ("host", 0)),
        (":", ("", 0)),
        ("[]:80", ("", 80)),
        ("[localhost]:80", ("localhost", 80)),
        ("golang.org:http", ("golang.org", 80)),
        ("golang.org:HTTPS", ("golang.org", 443)),
        ("host:+80", ("host", 80)),
        ("host:00080", ("host", 80)),
        (("host", 80), ("host", 80)),
        (("host", "80"), ("host", 80)),
        (("host", "http"), ("host", 80)),
        (("", 80), ("", 80)),
        (("::1", 80), ("::1", 80)),
        (("::1", 80, 0, 0), ("::1", 80)),
        (("fe80::1", 80, 7, 3), ("fe80::1%3", 80)),
        (("fe80::1%eth0", 80, 0, 3), ("fe80::1%eth0", 80)),
        ("bücher.example:80", ("xn--bcher-kva.example", 80)),
        (("bücher.example", 80), ("xn--bcher-kva.example", 80)),
    ],
)
def test_an_address_splits_into_host_and_port(address: object, want: tuple[str, int]) -> None:
    assert split_host_port(address) == want


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("", "missing address"),
        ("foo", "address foo: missing port in address"),
        ("127.0.0.1", "address 127.0.0.1: missing port in address"),
        ("[::1]", "address [::1]: missing port in address"),
        ("[::1]80", "address [::1]80: missing port in address"),
        ("a:b:80", "address a:b:80: too many colons in address"),
        ("::1", "address ::1: too many colons in address"),
        ("[::1]::80", "address [::1]::80: too many colons in address"),
        ("[a]b:80", "address [a]b:80: missing port in address"),
        ("[::1:80", "address [::1:80: missing ']' in address"),
        ("a[b:80", "address a[b:80: unexpected '[' in address"),
        ("a]b:80", "address a]b:80: unexpected ']' in address"),
        ("[[::1]:80", "address [[::1]:80: unexpected '[' in address"),
        ("[a]:]80", "address [a]:]80: unexpected ']' in address"),
        (("[::1]", 80), "address [[::1]]:80: unexpected '[' in address"),
        ("host:65536", "address 65536: invalid port"),
        ("host:-1", "address -1: invalid port"),
        ("host:" + "9" * 5000, "address (over 64 bits): invalid port"),
        (("host", 10**6000), "address (over 64 bits): invalid port"),
        (("host", 65536), "address 65536: invalid port"),
        (("host", -1), "address -1: invalid port"),
        ("host:nosuchservice", "address nosuchservice: unknown port"),
        ("host: 80", "address  80: unknown port"),
        ("host:80 ", "address 80 : unknown port"),
        ("host:\u0668\u0660", "address \u0668\u0660: unknown port"),
        ("host:80\0", "address 80\\x00: unknown port"),
        ("ho\0st:80", "address ho\\x00st:80: NUL byte in host"),
        (("ho\0st", 80), "address ho\\x00st:80: NUL byte in host"),
        ("\udcff:80", "address \\udcff:80: invalid host name"),
        ("ü..example:80", "address ü..example:80: invalid host name"),
        (("fe80::1", 80, 0, -1), "address -1: invalid scope id"),
        (("fe80::1", 80, 0, 1 << 32), "address 4294967296: invalid scope id"),
    ],
)
def test_a_bad_address_is_refused_in_the_words_of_go(address: object, why: str) -> None:
    with pytest.raises(AddrError) as caught:
        split_host_port(address, op="dial", net="tcp")
    assert str(caught.value) == f"dial tcp: {why}"
    assert (caught.value.op, caught.value.net) == ("dial", "tcp")


@pytest.mark.parametrize(
    ("address", "match"),
    [
        (None, "not NoneType"),
        (80, "not int"),
        (b"host:80", "not bytes"),
        (["host", 80], "not list"),
        (("host",), "not a tuple of 1"),
        (("host", 80, 0), "not a tuple of 3"),
        ((b"host", 80), "host must be a str, not bytes"),
        ((None, 80), "host must be a str, not NoneType"),
        (("host", None), "port must be an int or a service name, not NoneType"),
        (("host", 80.0), "port must be .* not float"),
        (("host", True), "port must be .* not bool"),
        (("::1", 80, 0, "eth0"), "scope_id must be an int, not str"),
    ],
)
def test_a_bad_type_is_a_type_error_that_names_it(address: object, match: str) -> None:
    with pytest.raises(TypeError, match=match):
        split_host_port(address)


def test_well_known_services_need_no_services_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_args: object, **_kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_SERVICE, "Servname not supported for ai_socktype")

    monkeypatch.setattr(socket, "getaddrinfo", absent)
    assert parse_port("http", net="tcp") == 80
    assert parse_port("DOMAIN", net="udp4") == 53
    with pytest.raises(AddrError, match="address gopher7: unknown port"):
        parse_port("gopher7", net="tcp")


def test_a_service_is_looked_up_for_its_network(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def services(_host: str, name: str, *, type: int, flags: int) -> list[object]:  # noqa: A002
        assert flags == socket.AI_NUMERICHOST  # no host is looked up
        asked.append((name, type))
        return [(socket.AF_INET, type, 0, "", ("127.0.0.1", 6000 + type))]

    monkeypatch.setattr(socket, "getaddrinfo", services)
    assert parse_port("Syslog", net="tcp6") == 6000 + socket.SOCK_STREAM
    assert parse_port("syslog", net="udp6") == 6000 + socket.SOCK_DGRAM
    assert asked == [("syslog", socket.SOCK_STREAM), ("syslog", socket.SOCK_DGRAM)]


@given(
    st.one_of(
        st.text("abcxyz0189.-", max_size=20),
        st.ip_addresses().map(str),
        st.ip_addresses(v=6).map(lambda ip: f"{ip}%eth0"),
    ),
    st.integers(0, 65535),
)
def test_split_undoes_join(host: str, port: int) -> None:
    assert split_host_port(join_host_port(host, port)) == (host, port)
    assert split_host_port((host, port)) == (host, port)
    assert format_addr((host, port)) == join_host_port(host, port)


@given(st.text(alphabet="a:[]%1\0é ", max_size=9))
def test_any_text_splits_or_is_refused(text: str) -> None:
    try:
        host, port = split_host_port(text)
    except AddrError:
        return
    assert host.isascii() or "%" in host
    assert 0 <= port <= 65535
    assert "[" not in host
    assert "]" not in host


def test_join_puts_brackets_around_colons_only() -> None:
    assert join_host_port("h", "http") == "h:http"
    assert join_host_port("::1", 80) == "[::1]:80"
    assert join_host_port("", 80) == ":80"


@pytest.mark.parametrize(
    ("network", "base", "family"),
    [
        ("tcp", "tcp", socket.AF_UNSPEC),
        ("tcp4", "tcp", socket.AF_INET),
        ("tcp6", "tcp", socket.AF_INET6),
        ("udp", "udp", socket.AF_UNSPEC),
        ("udp4", "udp", socket.AF_INET),
        ("udp6", "udp", socket.AF_INET6),
        ("unix", "unix", socket.AF_UNIX),
        ("unixgram", "unixgram", socket.AF_UNIX),
        ("unixpacket", "unixpacket", socket.AF_UNIX),
    ],
)
def test_networks_have_a_base_and_a_family(
    network: str, base: str, family: socket.AddressFamily
) -> None:
    assert parse_network(network) == (base, family)


@pytest.mark.parametrize("network", ["foo", "TCP", "tcp5", "", "ip4:icmp", "tcp "])
def test_an_unknown_network_is_named(network: str) -> None:
    with pytest.raises(UnknownNetworkError) as caught:
        parse_network(network, op="dial")
    assert str(caught.value) == f"dial {network}: unknown network {network}"
    with pytest.raises(UnknownNetworkError, match=r"^unknown network "):
        parse_network(network)


def test_a_network_that_is_no_text_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="network must be a str such as 'tcp', not int"):
        parse_network(4)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "want"),
    [
        ("127.0.0.1", IPAddr(socket.AF_INET, "127.0.0.1")),
        ("0.0.0.0", IPAddr(socket.AF_INET, "0.0.0.0")),
        ("::1", IPAddr(socket.AF_INET6, "::1")),
        ("0:0:0:0:0:0:0:1", IPAddr(socket.AF_INET6, "::1")),
        ("FE80::A", IPAddr(socket.AF_INET6, "fe80::a")),
        ("::ffff:10.0.0.1", IPAddr(socket.AF_INET, "10.0.0.1")),
        (f"fe80::1%{LOOPBACK}", IPAddr(socket.AF_INET6, "fe80::1", 1)),
        ("fe80::1%7", IPAddr(socket.AF_INET6, "fe80::1", 7)),
        ("", None),
        ("localhost", None),
        ("127.1", None),
        ("127.0.0.01", None),
        ("0x7f.0.0.1", None),
        ("127.0.0.1%eth0", None),
        ("1.2.3.4.", None),
        ("127.0.0.1\0", None),
        ("::1\udcff", None),
        (":::", None),
    ],
)
def test_a_literal_needs_no_lookup(host: str, want: IPAddr | None) -> None:
    assert ip_literal(host) == want


@pytest.mark.parametrize("zone", ["", "nosuchif0", "99999999999", "-1", "a\0b", "\udcff"])
def test_a_zone_that_is_no_interface_is_refused(zone: str) -> None:
    with pytest.raises(AddrError, match=r"^dial tcp: address fe80::1%.*: no such zone in address"):
        ip_literal(f"fe80::1%{zone}", op="dial", net="tcp")


def test_an_ipv4_address_has_no_zone() -> None:
    with pytest.raises(AddrError, match="unexpected zone in IPv4 address"):
        ip_literal("::ffff:1.2.3.4%1")


@given(st.ip_addresses())
def test_literals_agree_with_ipaddress(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    mapped = getattr(ip, "ipv4_mapped", None) or ip
    literal = ip_literal(str(ip))
    assert literal is not None
    assert ipaddress.ip_address(literal.host) == mapped
    assert (literal.family == socket.AF_INET) == (mapped.version == 4)
    assert is_ipv4(literal.sockaddr(1)) == (mapped.version == 4)


def test_a_literal_gives_the_tuple_that_bind_takes() -> None:
    for host in ("127.0.0.1", "::1"):
        literal = ip_literal(host)
        assert literal is not None
        with socket.socket(literal.family, socket.SOCK_STREAM) as sock:
            sock.bind(literal.sockaddr(0))
            assert sock.getsockname()[0] == host
    assert IPAddr(socket.AF_INET6, "fe80::1", 3).sockaddr(80) == ("fe80::1", 80, 0, 3)


@pytest.mark.parametrize(
    ("host", "want"),
    [("", True), ("0.0.0.0", True), ("::", True), ("0::0", True), ("::ffff:0.0.0.0", True),
     ("::1", False), ("127.0.0.1", False), ("localhost", False), ("fe80::1%nosuch", False)],
)  # fmt: skip
def test_wildcards_are_told_apart(host: str, want: bool) -> None:
    assert is_wildcard(host) is want


@pytest.mark.parametrize(
    ("host", "want"),
    [("224.0.0.1", True), ("239.255.255.255", True), ("ff02::1", True), ("ff02::1%lo", True),
     ("::ffff:224.0.0.1", True), ("240.0.0.1", False), ("223.0.0.1", False), ("fe80::1", False),
     ("fe80::1%lo", False), ("", False), ("ff", False), ("224.example", False)],
)  # fmt: skip
def test_groups_are_told_apart(host: str, want: bool) -> None:
    assert is_multicast(host) is want


@pytest.mark.parametrize("path", ["/run/x", "@x", "@", "", "./@x", "@a\0b", "x" * 107, "\udcff"])
def test_a_path_is_what_it_was(path: str) -> None:
    assert unix_path(path) == path
    assert unix_path(Path("a")) == "a"


def test_an_abstract_name_begins_with_a_nul_for_the_kernel() -> None:
    assert unix_path("\0a") == "@a"
    assert unix_sockaddr("@a\udcff") == b"\0a\xff"
    assert unix_sockaddr("./@a") == b"./@a"
    assert unix_sockaddr("") == b""


def test_the_first_address_decides_who_is_primary() -> None:
    a4, b4 = ("10.0.0.1", 80), ("10.0.0.2", 80)
    a6, b6 = ("2001:db8::1", 80, 0, 0), ("fe80::2%eth0", 80)
    mapped = ("::ffff:10.0.0.3", 80, 0, 0)
    assert split_by_family([a4, a6, b4, b6, mapped]) == ([a4, b4, mapped], [a6, b6])
    assert split_by_family([a6, a4, b6]) == ([a6, b6], [a4])
    assert split_by_family(iter([a4])) == ([a4], [])
    assert split_by_family([]) == ([], [])
