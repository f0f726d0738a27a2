"""Arguments that make no sense: refused where they are given, by name."""

import io
import socket
import ssl

import pytest

import gopoll
from gopoll import tls
from gopoll.net.checks import INT_MAX, check_control, check_has, check_int, check_seconds
from net.tools import option, pair


@pytest.mark.parametrize(
    ("value", "bounds", "kind", "text"),
    [
        ("5", (), TypeError, "n must be an int, not str"),
        (True, (), TypeError, "n must be an int, not bool"),
        (1.0, (), TypeError, "n must be an int, not float"),
        (-1, (), ValueError, "n must not be negative, not -1"),
        (0, (1,), ValueError, "n must be above 0, not 0"),
        (-1, (0, INT_MAX), ValueError, "n must be 0 to 2147483647, not -1"),
        (1 << 40, (0, INT_MAX), ValueError, "n must be 0 to 2147483647, not 1099511627776"),
        (1 << 64, (0, INT_MAX), ValueError, "n must be 0 to 2147483647, not of over 64 bits"),
    ],
)
def test_an_int_has_its_bounds(value, bounds, kind, text):
    with pytest.raises(kind) as caught:
        check_int("n", value, *bounds)
    assert str(caught.value) == text


def test_what_is_within_bounds_passes():
    check_int("n", 0)
    check_int("n", 1 << 80)
    check_int("n", INT_MAX, 0, INT_MAX)
    check_int("n", -5, None)
    check_seconds("s", -1)
    check_seconds("s", float("inf"))


def test_methods_are_looked_for_on_an_object_and_not_on_its_class():
    check_has("file", open, ("__call__",), "a function")
    with pytest.raises(TypeError, match="listener must be a listener, not Listener itself"):
        check_has("listener", gopoll.Listener, ("accept",), "a listener")


class Hook:
    """A control hook that is an object."""

    def __call__(self, network, address, raw):
        pass


class AsyncHook:
    """One that would have to be awaited."""

    async def __call__(self, network, address, raw):
        pass


async def hook(network, address, raw):
    pass


def test_a_control_hook_is_any_callable_that_is_not_async():
    for control in (None, print, Hook(), lambda *args: None):
        check_control(control)
    for control in (hook, AsyncHook()):
        with pytest.raises(TypeError, match="control must be a plain function, not an async one"):
            check_control(control)


class Named:
    """A resolver of a kind."""

    lookup_addr = "10.0.0.1"


NO_LOOKUP = r"resolver must be an object with lookup_addr\(host, port, family\), not "


@pytest.mark.parametrize(
    ("make", "options", "kind", "text"),
    [
        (gopoll.Dialer, {"resolver": 5}, TypeError, NO_LOOKUP + "int"),
        (gopoll.Dialer, {"resolver": Named()}, TypeError, NO_LOOKUP + "Named"),
        (gopoll.Dialer, {"resolver": gopoll.Resolver}, TypeError, NO_LOOKUP + "Resolver itself"),
        (gopoll.Dialer, {"control": 5}, TypeError, "control must be a function, not int"),
        (gopoll.Dialer, {"control": hook}, TypeError, "control must be a plain function"),
        (gopoll.Dialer, {"timeout": "3"}, TypeError, "timeout must be seconds, not str"),
        (gopoll.Dialer, {"deadline": True}, TypeError, "deadline must be seconds, not bool"),
        (gopoll.Dialer, {"fallback_delay": None}, TypeError, "fallback_delay must be seconds"),
        (
            gopoll.Dialer,
            {"local_addr": 80},
            TypeError,
            "local_addr must be 'host:port', .* not int",
        ),
        (gopoll.ListenConfig, {"backlog": True}, TypeError, "backlog must be an int, not bool"),
        (gopoll.ListenConfig, {"backlog": "5"}, TypeError, "backlog must be an int, not str"),
        (gopoll.ListenConfig, {"backlog": 1 << 40}, ValueError, "backlog must be 0 to 2147483647"),
        (gopoll.ListenConfig, {"control": hook}, TypeError, "control must be a plain function"),
        (gopoll.ListenConfig, {"resolver": "dns"}, TypeError, NO_LOOKUP + "str"),
    ],
)
def test_settings_are_looked_at_when_they_are_given(make, options, kind, text):
    with pytest.raises(kind, match=f"^{text}"):
        make(**options)


def context():
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def look_up(method, *args):
    return getattr(gopoll.Resolver(), method)(*args)


CALLS = {
    "no seconds": (
        lambda: gopoll.dial("tcp", "127.0.0.1:1", timeout="3"),
        (TypeError, "timeout must be seconds, not str"),
    ),
    "no seconds of TLS": (
        lambda: gopoll.dial_tls("tcp", "127.0.0.1:1", timeout="3"),
        (TypeError, "timeout must be seconds, not str"),
    ),
    "no server's name": (
        lambda: gopoll.dial_tls("tcp", "127.0.0.1:1", server_hostname=5),
        (TypeError, "server_hostname must be a str, not int"),
    ),
    "a name with a dot": (
        lambda: gopoll.dial_tls("tcp", "127.0.0.1:1", server_hostname=".x"),
        (ValueError, r"server_hostname must not begin with a dot, as '\.x' does"),
    ),
    "a backlog of datagrams": (
        lambda: gopoll.listen_packet("udp", "127.0.0.1:0", backlog=5),
        (ValueError, "backlog is for listen: datagrams are not accepted"),
    ),
    "a keep-alive of datagrams": (
        lambda: gopoll.listen_packet("udp", "127.0.0.1:0", keep_alive=5),
        (ValueError, "keep_alive is for listen: datagrams are not accepted"),
    ),
    "a keep-alive of a path": (
        lambda: gopoll.listen("unix", "", keep_alive=5),
        (ValueError, "keep_alive is for tcp: nobody probes a Unix socket"),
    ),
    "no host": (lambda: look_up("lookup_host", None), (TypeError, "host must be a str, not None")),
    "bytes": (lambda: look_up("lookup_addr", b"x", 1), (TypeError, "host must be a str, not b")),
    "no such port": (
        lambda: look_up("lookup_addr", "127.0.0.1", 99999),
        (ValueError, "port must be 0 to 65535, not 99999"),
    ),
    "no port": (
        lambda: look_up("lookup_addr", "127.0.0.1", None),
        (TypeError, "port must be an int, not NoneType"),
    ),
    "no family": (
        lambda: look_up("lookup_addr", "127.0.0.1", 1, socket.AF_UNIX),
        (ValueError, "family must be AF_UNSPEC, AF_INET or AF_INET6, not "),
    ),
    "no listener": (
        lambda: gopoll.serve(None, hook),
        (TypeError, r"listener must be an object with accept\(\) and close\(\), not NoneType"),
    ),
    "no client": (
        lambda: tls.client(None, server_hostname="x"),
        (TypeError, "conn must be a Conn, not NoneType"),
    ),
    "no server": (lambda: tls.server(None, None), (TypeError, "conn must be a Conn, not NoneType")),
    "no listener of TLS": (
        lambda: tls.listener(None, context()),
        (TypeError, r"inner must be an object with accept\(\) and close\(\), not NoneType"),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_opens_nothing(run, name):
    call, (kind, text) = CALLS[name]

    async def main():
        with pytest.raises(kind, match=f"^{text}"):
            await call()

    run(main)


ON_A_CONNECTION = {
    "a negative size": ("set_read_buffer", (-1,), ValueError, "size must be 0 to 2147483647"),
    "a huge size": ("set_write_buffer", (1 << 40,), ValueError, "size must be 0 to 2147483647"),
    "a path": ("sendfile", ("/x",), TypeError, "file must be an open file or a descriptor, not s"),
    "no descriptor": (
        *("sendfile", (io.BytesIO(b"x"),), TypeError),
        r"file must have a descriptor, and this BytesIO has none: write\(\) what it holds$",
    ),
    "before it": ("sendfile", (0, -1), ValueError, "offset must not be negative, not -1"),
    "less than none": ("sendfile", (0, 0, -1), ValueError, "count must not be negative, not -1"),
    "no source": ("splice_from", (None,), TypeError, "src must be a Conn, not NoneType"),
}


@pytest.mark.parametrize("name", ON_A_CONNECTION)
def test_a_connection_stays_as_it_was(run, name):
    method, args, kind, text = ON_A_CONNECTION[name]

    async def main():
        with open("/proc/self/exe", "rb") as file:
            given = [file if arg == 0 and i == 0 else arg for i, arg in enumerate(args)]
            async with pair() as (a, b):
                with pytest.raises(kind, match=f"^{text}"):
                    await getattr(a, method)(*given)
                await a.write(b"whole")
                assert await b.read() == b"whole"

    run(main)


def test_descriptors_to_send_are_numbers_or_have_one(run):
    async def main():
        ours, theirs = socket.socketpair()
        with theirs:
            async with gopoll.from_socket(ours) as conn:
                for fds, text in (
                    ("ab", "fds must be several descriptors, such as a list, not str"),
                    (5, "fds must be several descriptors, such as a list, not int"),
                    ([None], r"fds must be numbers or objects with fileno\(\), not NoneType"),
                    ([True], r"fds must be numbers or objects with fileno\(\), not bool"),
                ):
                    with pytest.raises(TypeError, match=f"^{text}"):
                        await conn.send_fds(b"q", fds)
                assert await conn.send_fds(b"q", [theirs, theirs.fileno()]) == 1

    run(main)


def test_linger_below_zero_is_the_default_as_in_go(run):
    async def main():
        async with pair() as (a, _):
            for below in (-5, -0.5, float("-inf")):
                a.set_linger(5)
                a.set_linger(below)
                assert option(a, socket.SOL_SOCKET, socket.SO_LINGER) == 0  # its first word: off

    run(main)
