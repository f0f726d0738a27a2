"""Socket addresses: a sockaddr of each family as Python has it, there and back."""

import os
import socket
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopoll import AddrError
from gopoll._fd import FD

PATH_ROOM = 108  # sun_path; a path that fills it has no end mark
FLOW, SCOPE = 0x12345, 7


def inet(host, port):
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + host + bytes(8)


def inet6(host, port, flow=0, scope=0):
    head = struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, flow)
    return head + host + struct.pack("=I", scope)


def unix(path):
    return struct.pack("=H", socket.AF_UNIX) + path


ports = st.integers(0, 65535)


# -- by their bytes --------------------------------------------------------------------------------


@given(host=st.binary(min_size=4, max_size=4), port=ports)
def test_an_ipv4_address_is_a_pair(probe, host, port):
    expected = socket.inet_ntop(socket.AF_INET, host), port
    assert probe.address(inet(host, port)) == expected


@given(host=st.binary(min_size=16, max_size=16), port=ports)
def test_an_ipv6_address_is_a_pair_where_it_has_no_scope(probe, host, port):
    if host.startswith(bytes(10) + b"\xff\xff"):
        host = b"\xfe" + host[1:]
    assert probe.address(inet6(host, port)) == (socket.inet_ntop(socket.AF_INET6, host), port)


@given(host=st.binary(min_size=4, max_size=4), port=ports, flow=st.integers(0, 2**32 - 1))
def test_an_ipv4_peer_of_a_dual_stack_socket_is_an_ipv4_peer(probe, host, port, flow):
    """As in Go: ::ffff:1.2.3.4 is 1.2.3.4."""
    mapped = inet6(bytes(10) + b"\xff\xff" + host, port, flow)
    assert probe.address(mapped) == (socket.inet_ntop(socket.AF_INET, host), port)


@pytest.mark.parametrize(("flow", "scope"), [(0, SCOPE), (FLOW, 0), (FLOW, SCOPE)])
def test_a_scope_or_a_flow_makes_four(probe, flow, scope):
    """The form that the socket module takes back; the flow in the machine's order, as there."""
    host = socket.inet_pton(socket.AF_INET6, "fe80::1")
    assert probe.address(inet6(host, 80, flow, scope)) == ("fe80::1", 80, flow, scope)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"/run/x.sock\0", "/run/x.sock"),
        (b"/run/x.sock", "/run/x.sock"),  # a length without the end mark
        (b"/run/x.sock\0rubbish", "/run/x.sock"),
        (b"relative\0", "relative"),
        (b"\xff\xc3\x28\0", "\udcff\udcc3("),  # not UTF-8: it comes back through os.fsencode
        ("/ä".encode() + b"\0", "/ä"),
        (b"\0", "@"),
        (b"\0name", "@name"),
        (b"\0name\0\0", "@name\0\0"),  # an abstract name is all of its bytes
        (b"\0\xff", "@\udcff"),
        (b"", ""),  # a socket that nobody has bound
        (b"/" * PATH_ROOM, "/" * PATH_ROOM),
        (b"\0" + b"n" * (PATH_ROOM - 1), "@" + "n" * (PATH_ROOM - 1)),
    ],
)
def test_a_unix_address_is_a_path_or_an_at_sign_and_a_name(probe, raw, text):
    assert probe.address(unix(raw)) == text


@given(path=st.binary(min_size=1, max_size=PATH_ROOM).filter(lambda path: b"\0" not in path))
def test_a_path_survives_the_way_to_the_file_system_and_back(probe, path):
    assert os.fsencode(probe.address(unix(path + b"\0")[: 2 + PATH_ROOM])) == path


@pytest.mark.parametrize("size", [0, 1, 2])
def test_a_short_unix_address_has_no_path(probe, size):
    """What the kernel returns for the ends of a socketpair: the path's offset, or less."""
    assert probe.address(unix(b"/stale"), size) == (None if size == 0 else "")


@pytest.mark.parametrize("family", [0, socket.AF_NETLINK, 40, 65535])
def test_a_family_that_has_no_form_is_none(probe, family):
    assert probe.address(struct.pack("=H", family) + bytes(26)) is None


def test_no_address_at_all_is_none(probe):
    assert probe.address(b"") is None
    assert probe.address(inet(b"\x7f\0\0\1", 80), 0) is None


# -- by the kernel ---------------------------------------------------------------------------------


def bound(family, address):
    """Return an FD on a socket that is bound to *address*, and what Python calls that."""
    sock = socket.socket(family)
    sock.bind(address)
    name = sock.getsockname()
    return FD(sock.detach(), "test"), name


def test_a_bound_socket_has_python_s_address():
    fd, name = bound(socket.AF_INET, ("127.0.0.1", 0))
    assert fd.getsockname() == name
    with pytest.raises(OSError, match="getpeername test: "):
        fd.getpeername()
    fd.close()


def test_a_unix_socket_has_its_path(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff"
    fd, name = bound(socket.AF_UNIX, path)
    assert fd.getsockname() == name == os.fsdecode(path)
    fd.close()


def test_an_abstract_socket_has_an_at_sign():
    name = f"\0gopoll-{os.getpid()}"
    fd, theirs = bound(socket.AF_UNIX, name)
    assert theirs == name.encode()
    assert fd.getsockname() == "@" + name[1:]
    fd.close()


def test_the_ends_of_a_pair_have_no_name():
    a, b = (FD(sock.detach(), "unix") for sock in socket.socketpair())
    assert (a.getsockname(), a.getpeername()) == ("", "")
    a.close()
    b.close()


def test_addresses_are_made_anew_and_kept_by_nobody():
    fd, name = bound(socket.AF_INET, ("127.0.0.1", 0))
    address = fd.getsockname()
    count = sys.getrefcount(address)
    assert fd.getsockname() is not address
    assert sys.getrefcount(address) == count
    assert fd.getsockname() == name
    fd.close()


# -- to the kernel ---------------------------------------------------------------------------------


@given(host=st.binary(min_size=4, max_size=4), port=ports)
@pytest.mark.parametrize("family", [0, socket.AF_INET])
def test_a_pair_is_an_ipv4_address(probe, family, host, port):
    raw = inet(host, port)
    text = socket.inet_ntop(socket.AF_INET, host)
    assert probe.sockaddr((text, port), family) == raw
    assert probe.sockaddr(f"{text}:{port}", socket.AF_INET) == raw
    assert probe.sockaddr((f"::ffff:{text}", port), socket.AF_INET) == raw


@given(host=st.binary(min_size=4, max_size=4).filter(any), port=ports)
def test_ipv4_goes_as_a_mapped_address_on_an_ipv6_socket(probe, host, port):
    """And comes back as the pair that it was."""
    address = socket.inet_ntop(socket.AF_INET, host), port
    raw = probe.sockaddr(address, socket.AF_INET6)
    assert raw == inet6(bytes(10) + b"\xff\xff" + host, port)
    assert probe.address(raw) == address


@given(
    host=st.binary(min_size=16, max_size=16),
    port=ports,
    flow=st.integers(0, 2**32 - 1),
    scope=st.integers(0, 2**32 - 1),
)
@pytest.mark.parametrize("family", [0, socket.AF_INET6])
def test_an_ipv6_address_survives_the_way_there_and_back(probe, family, host, port, flow, scope):
    if host.startswith(bytes(10) + b"\xff\xff"):
        host = b"\xfe" + host[1:]
    raw = inet6(host, port, flow, scope)
    address = probe.address(raw)
    assert probe.sockaddr(address, family) == raw
    text = f"[{address[0]}]:{port}"
    assert probe.sockaddr(text, socket.AF_INET6) == inet6(host, port)


@pytest.mark.parametrize("wild", ["", "0.0.0.0", "::"])
def test_a_wildcard_is_that_of_the_family(probe, wild):
    v6 = inet6(bytes(16), 80)
    assert probe.sockaddr((wild, 80), socket.AF_INET6) == v6
    if wild != "::":
        assert probe.sockaddr((wild, 80), socket.AF_INET) == inet(bytes(4), 80)


def test_a_zone_is_an_interface_or_a_number(probe):
    index = socket.if_nametoindex("lo")
    host = socket.inet_pton(socket.AF_INET6, "fe80::1")
    for address in [("fe80::1%lo", 80), (f"fe80::1%{index}", 80), ("fe80::1%lo", 80, 0, index)]:
        assert probe.sockaddr(address) == inet6(host, 80, 0, index)
    assert probe.sockaddr("[fe80::1%lo]:80", socket.AF_INET6) == inet6(host, 80, 0, index)
    for address in [("fe80::1%", 80), ("fe80::1%nowhere0", 80), ("fe80::1%lo", 80, 0, index + 1)]:
        with pytest.raises(AddrError, match=r"no such zone|differ"):
            probe.sockaddr(address)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (None, "missing address"),
        ("", "missing address"),
        ("127.0.0.1", "missing port in address"),
        ("::1:80", "too many colons in address"),
        ("127.0.0.1:http", "invalid port"),
        ("127.0.0.1:-1", "invalid port"),
        ("127.0.0.1:\u0661", "invalid port"),
        ("127.0.0.1:65536", "address 65536: invalid port"),
        (("127.0.0.1", -1), "address -1: invalid port"),
        (("127.0.0.1", 65536), "address 65536: invalid port"),
        (("localhost", 80), r"localhost:80: host is not an IP address; look names up first"),
        (("127.1", 80), "not an IP address"),
        (("127.0.0.1\0", 80), "not an IP address"),
        (("hörnchen", 80), "not an IP address"),
        (("1.2.3.4%lo", 80), "not an IP address"),
        (("::1", 80), "non-IPv4 address"),
        (("127.0.0.1", 80, 0), "neither"),
        ((), "neither"),
        (("127.0.0.1", 80, 0, 1), "unexpected flow or scope"),
        (("127.0.0.1", 80, -1, 0), "address -1: invalid flow"),
        (("127.0.0.1", 80, 0, 1 << 32), "invalid scope"),
    ],
)
def test_what_makes_no_sense_as_an_ip_address_is_an_address_error(probe, address, why):
    with pytest.raises(AddrError, match=f"^write net: .*{why}"):
        probe.sockaddr(address, socket.AF_INET)


@pytest.mark.parametrize("address", [80, [], ("127.0.0.1", "80"), (b"127.0.0.1", 80), (1, 2)])
def test_what_is_no_address_at_all_is_a_type_error(probe, address):
    with pytest.raises(TypeError):
        probe.sockaddr(address, socket.AF_INET)
    if not isinstance(address, tuple):
        with pytest.raises(TypeError):
            probe.sockaddr(address, socket.AF_UNIX)


@given(path=st.binary(min_size=1, max_size=PATH_ROOM - 1).filter(lambda p: b"\0" not in p))
@pytest.mark.parametrize("kind", [bytes, os.fsdecode, lambda p: Path(os.fsdecode(p))])
def test_a_path_may_be_text_bytes_or_a_path(probe, kind, path):
    if path.startswith(b"@"):
        path = b"/" + path[1:]
    given_as = kind(path)
    path = os.fsencode(given_as)  # a Path has its own idea of "//" and "."
    if path.startswith(b"@"):
        path = b"./" + path
    assert probe.sockaddr(given_as) == probe.sockaddr(given_as, socket.AF_UNIX)
    assert probe.sockaddr(given_as) == unix(path + b"\0")


def test_a_path_like_that_begins_with_an_at_sign_is_a_file(probe):
    """As for dial and listen: it is the file that Path("@x") is elsewhere."""
    assert probe.sockaddr(Path("@x")) == unix(b"./@x\0")
    assert probe.sockaddr("@x") == probe.sockaddr(b"@x") == unix(b"\0x")


@given(name=st.binary(max_size=PATH_ROOM - 1))
def test_an_abstract_name_is_all_of_its_bytes(probe, name):
    """It may fill the room: there is no end mark."""
    raw = unix(b"\0" + name)
    assert probe.sockaddr(b"\0" + name) == raw
    assert probe.sockaddr(probe.address(raw)) == raw


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (None, "missing address"),
        ("", "missing address"),
        (b"", "missing address"),
        ("/" * PATH_ROOM, r"path too long \(108 bytes, at most 107\)"),
        ("ä" * 54, r"path too long \(108 bytes, at most 107\)"),
        ("@" + "n" * PATH_ROOM, r"name too long \(109 bytes, at most 108\)"),
        ("/a\0b", "NUL byte in path"),
        (("127.0.0.1", 80), "not a path"),
    ],
)
def test_what_makes_no_sense_as_a_path_is_an_address_error(probe, address, why):
    with pytest.raises(AddrError, match=f"^write net: .*{why}$"):
        probe.sockaddr(address, socket.AF_UNIX)


def test_a_family_without_a_form_takes_no_address(probe):
    with pytest.raises(AddrError, match="addresses of family 16 have no form here"):
        probe.sockaddr(("127.0.0.1", 1), socket.AF_NETLINK)
