"""IP sockets: families, addresses in the form of a family, and what the system can."""

import socket

import pytest

from gopoll.errors import AddrError
from gopoll.net import ipsock
from gopoll.net.ipsock import favorite_addr_family, to_sockaddr

V4, V6 = socket.AF_INET, socket.AF_INET6


@pytest.mark.parametrize(
    ("network", "laddr", "raddr", "mode", "family", "ipv6only"),
    [
        ("tcp4", None, ("127.0.0.1", 1), "dial", V4, False),
        ("tcp4", ("::", 0), None, "listen", V4, False),
        ("tcp6", None, ("::1", 1), "dial", V6, True),
        ("tcp6", ("", 0), None, "listen", V6, True),
        ("tcp", None, ("127.0.0.1", 1), "dial", V4, False),
        ("tcp", None, ("", 1), "dial", V4, False),
        ("tcp", None, ("::1", 1), "dial", V6, False),
        ("tcp", ("", 0), ("127.0.0.1", 1), "dial", V4, False),
        ("tcp", ("::", 0), ("127.0.0.1", 1), "dial", V6, False),
        ("tcp", ("0.0.0.0", 0), ("::1", 1), "dial", V6, False),
        ("tcp", ("127.0.0.1", 0), None, "listen", V4, False),
        ("tcp", ("::1", 0), None, "listen", V6, False),
    ],
)
def test_the_family_follows_network_and_addresses(network, laddr, raddr, mode, family, ipv6only):
    assert favorite_addr_family(network, laddr, raddr, mode) == (family, ipv6only)


@pytest.mark.parametrize(
    ("ipv4", "mapped", "laddr", "family"),
    [
        (True, True, ("", 0), V6),
        (True, True, ("0.0.0.0", 0), V6),
        (True, True, None, V6),
        (False, False, ("", 0), V6),
        (True, False, ("", 0), V4),
        (True, False, ("::", 0), V6),
        (True, False, None, V4),
    ],
)
def test_a_wildcard_listener_serves_both_families_where_the_system_can(
    monkeypatch, ipv4, mapped, laddr, family
):
    monkeypatch.setattr(ipsock, "supports_ipv4", lambda: ipv4)
    monkeypatch.setattr(ipsock, "supports_ipv4_map", lambda: mapped)
    assert favorite_addr_family("tcp", laddr, None, "listen") == (family, False)


def test_an_address_is_put_into_the_form_of_the_family():
    assert to_sockaddr(("", 1), V4) == ("0.0.0.0", 1)
    assert to_sockaddr(("10.0.0.1", 1), V4) == ("10.0.0.1", 1)
    assert to_sockaddr(("", 1), V6)[:2] == ("::", 1)
    assert to_sockaddr(("0.0.0.0", 1), V6)[:2] == ("::", 1)
    assert to_sockaddr(("10.0.0.1", 1), V6)[:2] == ("::ffff:10.0.0.1", 1)
    assert to_sockaddr(("fe80::1", 1, 0, 3), V6) == ("fe80::1", 1, 0, 3)
    with pytest.raises(AddrError, match="address ::1: non-IPv4 address"):
        to_sockaddr(("::1", 1), V4)


def test_the_probe_agrees_with_the_socket_module():
    assert ipsock.supports_ipv6() == socket.has_dualstack_ipv6() or not socket.has_ipv6
    ipsock._capabilities.cache_clear()
    assert ipsock.supports_ipv4()
    assert not ipsock._can_bind(V6, "2001:db8::77", True)


def test_a_sandbox_that_forbids_bind_says_nothing_about_addresses(monkeypatch):
    def forbidden(*args):
        raise PermissionError

    monkeypatch.setattr(socket.socket, "bind", forbidden)
    assert ipsock._can_bind(V6, "2001:db8::77", True) or not socket.has_ipv6
