"""Socket options: keep-alive and NODELAY of both ends, and systems that refuse."""

import errno
import socket

import pytest

from gopoll.net import sockopt
from gopoll.net.dial import Dialer
from gopoll.net.sockopt import KeepAliveConfig, check_keep_alive
from net.tools import local_listener, option

V4, V6 = socket.AF_INET, socket.AF_INET6
SOL_TCP, SOL_SOCKET = socket.IPPROTO_TCP, socket.SOL_SOCKET


def keep_alive_of(conn):
    return tuple(
        option(conn, level, name)
        for level, name in (
            (SOL_SOCKET, socket.SO_KEEPALIVE),
            (SOL_TCP, socket.TCP_KEEPIDLE),
            (SOL_TCP, socket.TCP_KEEPINTVL),
            (SOL_TCP, socket.TCP_KEEPCNT),
        )
    )


def system_keep_alive():
    with socket.socket() as s:
        names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        return tuple(s.getsockopt(SOL_TCP, name) for name in names)


IDLE, INTERVAL, COUNT = system_keep_alive()


@pytest.mark.parametrize(
    ("keep_alive", "expected"),
    [
        (15.0, (1, 15, 15, 9)),
        (0, (1, 15, 15, 9)),
        (-1, (0, IDLE, INTERVAL, COUNT)),
        (7, (1, 7, 15, 9)),
        (0.2, (1, 1, 15, 9)),
        (1.001, (1, 2, 15, 9)),
        (KeepAliveConfig(), (1, 15, 15, 9)),
        (KeepAliveConfig(enable=False, idle=5), (0, IDLE, INTERVAL, COUNT)),
        (KeepAliveConfig(idle=5, interval=3, count=10), (1, 5, 3, 10)),
        (KeepAliveConfig(idle=-1, interval=-1, count=-1), (1, IDLE, INTERVAL, COUNT)),
        (KeepAliveConfig(idle=-1, interval=3, count=0), (1, IDLE, 3, 9)),
    ],
)
def test_keep_alive_and_no_delay_of_both_ends(run, keep_alive, expected):
    """Rows 64 and 65; accepted connections have the options of their listener."""

    async def main():
        async with local_listener(keep_alive=keep_alive) as ln:
            a = await Dialer(keep_alive=keep_alive).dial("tcp", ln.addr)
            async with a, await ln.accept() as b:
                for conn in (a, b):
                    assert keep_alive_of(conn) == expected
                    assert option(conn, SOL_TCP, socket.TCP_NODELAY)

    run(main)


def test_options_that_the_system_refuses_do_not_matter(run):
    async def main():
        config = KeepAliveConfig(idle=float("inf"), count=1 << 40)
        async with local_listener(keep_alive=config) as ln:
            async with await Dialer(keep_alive=config).dial("tcp", ln.addr) as conn:
                assert option(conn, SOL_TCP, socket.TCP_NODELAY)
            await (await ln.accept()).close()

    run(main)


class Refusing:
    """A socket that refuses every option, or notes them."""

    def __init__(self, refuse):
        self.refuse = refuse
        self.options = []

    def setsockopt(self, *option):
        if self.refuse:
            raise OSError(errno.ENOPROTOOPT, "refused")
        self.options.append(option)


def test_what_a_system_without_an_option_says_is_not_heard():
    sockopt.tune_tcp(Refusing(True), KeepAliveConfig())
    sockopt.set_default_sockopts(Refusing(True), V6, socket.SOCK_STREAM, True)
    with pytest.raises(OSError, match="refused"):  # without this one datagrams would fail later
        sockopt.set_default_sockopts(Refusing(True), V4, socket.SOCK_DGRAM, False)


def test_datagram_sockets_may_broadcast_and_unix_sockets_need_not():
    for family, kind, options in (
        (V4, socket.SOCK_DGRAM, [(SOL_SOCKET, socket.SO_BROADCAST, 1)]),
        (socket.AF_UNIX, socket.SOCK_DGRAM, []),
        (V4, socket.SOCK_STREAM, []),
    ):
        s = Refusing(False)
        sockopt.set_default_sockopts(s, family, kind, False)
        assert s.options == options


@pytest.mark.parametrize("value", [True, None, "15", float("nan")])
def test_a_keep_alive_that_makes_no_sense_is_refused_at_once(value):
    with pytest.raises(TypeError, match="keep_alive must be seconds or a KeepAliveConfig"):
        check_keep_alive(value)


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        (
            {"enable": 15},
            TypeError,
            "enable must be a bool, not int (seconds go to idle and interval)",
        ),
        ({"idle": "15"}, TypeError, "idle must be seconds, not str"),
        ({"interval": True}, TypeError, "interval must be seconds, not bool"),
        ({"interval": float("nan")}, ValueError, "interval must not be nan"),
        ({"count": 1.5}, TypeError, "count must be an int, not float"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused_when_it_is_made(fields, error, text):
    with pytest.raises(error) as caught:
        KeepAliveConfig(**fields)
    assert str(caught.value) == text
