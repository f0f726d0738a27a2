"""Socket addresses: what a sockaddr of each family is to Python, against the socket module."""

import os
import socket
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
