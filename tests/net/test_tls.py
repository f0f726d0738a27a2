"""tls.client, tls.server, dial_tls and the listener: handshakes, also those that fail."""

import errno
import ssl
import subprocess
import sys
import time

import pytest

import gopoll
import gopoll.tls
from gopoll.errors import (
    Canceled,
    ClosedError,
    DeadlineExceeded,
    OpError,
    UnknownNetworkError,
)
from gopoll.net import tls
from gopoll.net.dial import dial
from gopoll.net.listen import listen
from gopoll.net.serve import serve
from gopoll.net.tlsconn import TLSConn
from gopoll.runtime.goroutine import go
from gopoll.runtime.scope import timeout
from net.certs import certs
from net.tlstools import tls_pair
from net.tools import local_listener, pair, parked, short_folder

V1_2, V1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


async def echo(conn):
    while data := await conn.read():
        await conn.write(data)


async def ask(conn, data=b"hello"):
    await conn.write(data)
    assert await conn.read() == data


async def outcome(awaitable):
    """Return what it returns or raises."""
    try:
        return await awaitable
    except Exception as exc:
        return exc


# -- what is agreed on


@pytest.mark.parametrize("version", [V1_2, V1_3])
def test_both_ends_say_what_has_been_agreed_on(run, version):
    async def main():
        server = certs().server_context(maximum_version=version)
        async with tls_pair(server) as (a, b):
            for end in (a, b):
                assert end.version == version.name.replace("_", ".")
                name, protocol, bits = end.cipher
                assert name
                assert protocol.startswith("TLSv1.")
                assert bits >= 128
                assert end.network == "tcp"
                assert end.selected_alpn is None
                assert end.session_reused is False
            assert a.cipher == b.cipher
            assert (a.server_hostname, b.server_hostname) == ("localhost", None)
            assert a.local_addr == b.remote_addr
            assert a.net_conn.remote_addr == b.local_addr
            assert repr(a).startswith("<TLSConn tcp 127.0.0.1:")
            der = a.peer_certificate(binary=True)
            assert der == ssl.PEM_cert_to_DER_cert(certs().server.read_text())
            assert ("DNS", "www.example") in a.peer_certificate()["subjectAltName"]
            assert b.peer_certificate() is None
            unique = a.channel_binding()
            assert unique == b.channel_binding("tls-unique")
            assert (unique is None) == (version == V1_3)

    run(main)


def test_alpn_is_the_server_s_choice_among_the_client_s(run):
    async def main():
        for ours, theirs, chosen in (
            (["h2", "http/1.1"], ["http/1.1", "x"], "http/1.1"),
            (["h2"], (), None),
            (("a", "b"), ["b", "a"], "a"),
        ):
            async with pair() as (a, b):
                accepting = go(server_with(b, ours))
                async with await tls.client(
                    a, certs().client_context(), server_hostname="localhost", alpn=theirs
                ) as one:
                    async with await accepting as two:
                        assert one.selected_alpn == two.selected_alpn == chosen

    async def server_with(conn, alpn):
        return await tls.server(conn, certs().server_context(), alpn=alpn)

    run(main)


def test_a_server_may_ask_for_a_certificate(run):
    async def main():
        asking = certs().server_context(verify_mode=ssl.CERT_REQUIRED)
        asking.load_verify_locations(certs().ca)
        known = certs().client_context()
        known.load_cert_chain(certs().client, certs().key("client"))
        async with tls_pair(asking, known) as (a, b):
            assert ("DNS", "c") in b.peer_certificate()["subjectAltName"]
            await ask_both(a, b)
        async with pair() as (a, b):
            accepting = go(outcome, tls.server(b, asking))
            # With TLS 1.3 the client has done its part before the server looks.
            one = await tls.client(a, certs().client_context(), server_hostname="localhost")
            error = await accepting
            assert isinstance(error, ssl.SSLError)
            assert str(error).endswith("peer did not return a certificate")
            assert str(error).startswith("handshake tcp 127.0.0.1:")
            with pytest.raises(ssl.SSLError, match=r"^read tcp .*alert certificate required"):
                await one.read()
            for _ in range(2):  # the reason stays, for writes as well
                with pytest.raises(ssl.SSLError, match=r"^write tcp .*alert certificate") as caught:
                    await one.write(b"x")
                assert not isinstance(caught.value, ssl.SSLZeroReturnError)
                assert caught.value.written == 0
            one.close()

    run(main)


async def ask_both(a, b):
    await a.write(b"x")
    assert await b.read() == b"x"
    await b.write(b"y")
    assert await a.read() == b"y"


@pytest.mark.parametrize("version", [V1_2, V1_3])
def test_a_session_is_resumed(run, version):
    async def main():
        server = certs().server_context(maximum_version=version)
        client = certs().client_context()
        async with tls_pair(server, client) as (a, b):
            await ask_both(a, b)
            session = a.session
            assert isinstance(session, ssl.SSLSession)
        async with tls_pair(server, client, session=session) as (a, b):
            assert a.session_reused
            assert b.session_reused
            await ask_both(a, b)
        async with pair() as (a, b):
            with pytest.raises(ValueError, match="different SSLContext"):
                await tls.client(
                    a, certs().client_context(), server_hostname="localhost", session=session
                )
            assert a.is_closed

    run(main)


def test_sni_chooses_the_certificate(run):
    async def main():
        asked = []

        def choose(obj, name, ctx):
            asked.append(name)
            obj.context = certs().server_context()

        stranger = certs().server_context("stranger", sni_callback=choose)
        async with tls_pair(stranger, server_hostname="www.example") as (a, b):
            await ask_both(a, b)
        assert asked == ["www.example"]

    run(main)


def test_before_the_handshake_there_is_nothing_to_tell(run):
    async def main():
        async with pair() as (_, b):
            conn = TLSConn(b, certs().server_context(), server_side=True)
            assert (conn.version, conn.cipher, conn.session, conn.selected_alpn) == (None,) * 4
            with pytest.raises(OpError) as caught:
                conn.peer_certificate()
            assert caught.value.errno == errno.ENOTCONN
            with pytest.raises(OpError) as caught:
                conn.close_write()
            assert caught.value.errno == errno.ENOTCONN
            conn.close()

    run(main)


# -- handshakes that fail


@pytest.mark.parametrize(
    ("name", "hostname", "text", "hint"),
    [
        ("stranger", "localhost", "certificate verify failed: self-signed certificate", True),
        ("server", "other.example", "certificate verify failed: Hostname mismatch, ", False),
        ("server", "127.0.0.9", "certificate verify failed: IP address mismatch, ", False),
    ],
)
def test_a_certificate_that_does_not_hold(run, name, hostname, text, hint):
    async def main():
        async with pair() as (a, b):
            accepting = go(outcome, tls.server(b, certs().server_context(name)))
            with pytest.raises(ssl.SSLCertVerificationError) as caught:
                await tls.client(a, certs().client_context(), server_hostname=hostname)
            error = caught.value
            ends = f"127.0.0.1:{a.local_addr[1]}->127.0.0.1:{b.local_addr[1]}"
            assert str(error).startswith(f"handshake tcp {ends}: {text}")
            assert ("load_verify_locations()" in str(error)) == hint
            assert not str(error).endswith(".")
            assert isinstance(error, OpError)
            assert isinstance(error, ValueError)
            assert isinstance(error.err, ssl.SSLCertVerificationError)
            assert error.__cause__ is error.err
            assert error.verify_code in (18, 62, 64)
            assert error.reason == "CERTIFICATE_VERIFY_FAILED"
            assert not error.is_temporary
            assert a.is_closed
            # The other end has been told why.
            other = await accepting
            assert isinstance(other, ssl.SSLError)
            assert "alert" in str(other)
            assert b.is_closed

    run(main)


def test_a_peer_that_speaks_no_tls(run):
    async def main():
        async with pair() as (a, b):
            await b.write(b"220 mail.example ESMTP\r\n")
            with pytest.raises(
                ssl.SSLError, match=r"wrong version number \(does the peer speak TLS"
            ):
                await tls.client(a, certs().client_context(), server_hostname="localhost")
        async with pair() as (a, b):
            await a.write(b"GET / HTTP/1.1\r\n\r\n")
            with pytest.raises(ssl.SSLError, match=r"http request \(does the peer speak TLS"):
                await tls.server(b, certs().server_context())

    run(main)


def test_a_peer_that_hangs_up(run):
    async def main():
        async with pair() as (a, b):
            connecting = go(tls.client(a, certs().client_context(), server_hostname="localhost"))
            assert len(await b.read()) > 100
            b.close()
            text = r"^handshake tcp .*: (unexpected EOF \(the peer has hung up|connection reset)"
            with pytest.raises(OpError, match=text):
                await connecting
            assert a.is_closed

    run(main)


def test_a_deadline_of_the_connection_holds(run):
    async def main():
        async with pair() as (a, _):
            a.set_timeout(0.01)
            with pytest.raises(TimeoutError, match=r"^handshake tcp .*: i/o timeout$") as caught:
                await tls.client(a, certs().client_context(), server_hostname="localhost")
            assert isinstance(caught.value, OpError)
            assert caught.value.is_timeout
            assert a.is_closed

    run(main)


def test_a_cancelled_handshake_closes_the_connection(run):
    async def main():
        async with pair() as (a, b):
            g = go(tls.client(a, certs().client_context(), server_hostname="localhost"))
            await parked(g)
            g.cancel("enough")
            with pytest.raises(Canceled, match="enough"):
                await g
            assert a.is_closed
            with pytest.raises(ssl.SSLEOFError, match=r"hung up during the handshake"):
                await tls.server(b, certs().server_context())

    run(main)


def test_arguments_that_make_no_sense_close_it_too(run):
    async def main():
        ctx = certs().client_context()
        for kind, text, options in (
            (ValueError, r"server_hostname is missing: .*check_hostname", {}),
            (ValueError, r"server_hostname is missing", {"server_hostname": ""}),
            (TypeError, "alpn must be a list of protocols, not str", {"alpn": "h2"}),
            (TypeError, "alpn must be a list of str, not of bytes", {"alpn": [b"h2"]}),
            (ValueError, "alpn: '' is no protocol", {"alpn": [""]}),
        ):
            async with pair() as (a, _):
                with pytest.raises(kind, match=text):
                    await tls.client(a, ctx, **options)
                assert a.is_closed
        async with pair() as (a, b):
            for end, call in ((a, tls.client), (b, tls.server)):
                with pytest.raises(TypeError, match=r"ctx must be an ssl\.SSLContext, not int"):
                    await call(end, 5)
                assert end.is_closed
        async with pair() as (a, b):
            # a context of the wrong side
            with pytest.raises(ssl.SSLError if sys.version_info < (3, 14) else ValueError):
                await tls.server(b, ctx)

    run(main)


def test_without_check_hostname_no_name_is_needed(run):
    async def main():
        trusting = certs().client_context(check_hostname=False)
        async with tls_pair(client=trusting, server_hostname=None) as (a, b):
            await ask_both(a, b)

    run(main)


# -- lazily


def test_the_first_read_or_write_shakes_hands(run):
    async def main():
        for first in ("read", "write"):
            async with pair() as (a, b):
                server = TLSConn(b, certs().server_context(), server_side=True)
                client = TLSConn(
                    a, certs().client_context(), server_side=False, server_hostname="localhost"
                )
                ops = [go(client.write, b"x"), go(client.write, b"y"), go(client.read)]
                await parked(*ops)
                if first == "read":
                    got = await server.read(1)
                    await server.write(b"z")
                else:
                    await server.write(b"z")
                    got = await server.read(1)
                assert got + await server.read(1) in (b"xy", b"yx")
                assert await ops[2] == b"z"
                await client.handshake()  # done already
                for g in ops[:2]:
                    await g
                client.close()
                server.close()

    run(main)


def test_a_handshake_that_has_failed_fails_for_everybody(run):
    async def main():
        async with pair() as (a, b):
            server = TLSConn(b, certs().server_context(), server_side=True)
            ops = [go(server.read), go(server.write, b"x"), go(server.handshake)]
            await parked(*ops)
            await a.write(b"no TLS")
            errors = [await outcome(g) for g in ops] + [await outcome(server.read())]
            assert len({id(error) for error in errors}) == 4
            for error in errors:
                assert isinstance(error, ssl.SSLError)
                assert str(error).startswith("handshake tcp ")
            assert errors[1].written == 0
            assert server.is_closed

    run(main)


def test_a_slow_client_does_not_keep_the_others_waiting(run):
    async def main():
        async with local_listener() as below:
            listener = tls.listener(below, certs().server_context(), alpn=["echo"])
            assert (listener.addr, listener.network) == (below.addr, "tcp")
            assert repr(listener) == f"<TLSListener tcp 127.0.0.1:{below.addr[1]}>"
            serving = go(serve, listener, echo)
            async with await dial("tcp", listener.addr):  # says nothing
                ctx = certs().client_context()
                async with await tls.dial_tls(
                    "tcp", listener.addr, ssl_context=ctx, alpn=["echo"]
                ) as conn:
                    assert conn.selected_alpn == "echo"
                    await ask(conn)
            await listener.close()
            assert await serving is None
            assert listener.is_closed
            async for _ in listener:
                raise AssertionError
            with pytest.raises(ClosedError):
                await listener.accept()

    run(main)


def test_dial_tls_refuses_what_is_no_context_by_its_name_and_does_not_dial(run):
    async def main():
        async with local_listener() as listener:
            nobody = listener.addr
        with pytest.raises(TypeError, match=r"^ssl_context must be an ssl\.SSLContext, not str$"):
            await gopoll.dial_tls("tcp", nobody, ssl_context="cert.pem")

    run(main)


def test_a_listener_has_a_deadline(run):
    async def main():
        async with local_listener() as below:
            async with tls.listener(below, certs().server_context()) as listener:
                listener.set_deadline(0)
                with pytest.raises(TimeoutError):
                    await listener.accept()
            assert below.is_closed
            with pytest.raises(TypeError, match="ctx must be"):
                tls.listener(below, None)

    run(main)


def test_a_failed_handshake_is_a_line_in_the_log_of_serve(run, caplog):
    async def main():
        async with local_listener() as below:
            serving = go(serve, tls.listener(below, certs().server_context()), echo)
            async with await dial("tcp", below.addr) as conn:
                await conn.write(b"GET / HTTP/1.0\r\n\r\n")
                while await conn.read():
                    pass
            below.close()
            await serving

    run(main)
    (record,) = caplog.records
    assert record.getMessage().startswith("handshake tcp 127.0.0.1:")
    assert record.exc_info is None


# -- dial_tls


@pytest.fixture
def trust(monkeypatch):
    """Have the default context trust the test's CA."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certs().ca))
    monkeypatch.setattr(tls, "_defaults", {})


def serving_tls(main):
    """Return an async function that runs main(listener) beside an echo server."""

    async def serving():
        async with local_listener() as below:
            g = go(serve, tls.listener(below, certs().server_context()), echo)
            await main(below)
            g.cancel()
            assert isinstance(await canceled(g), Canceled)

    return serving


async def canceled(g):
    try:
        return await g
    except Canceled as exc:
        return exc


def test_dial_tls_checks_the_host_of_the_address(run, trust):
    async def main(listener):
        port = listener.addr[1]
        for address in (f"localhost:{port}", ("127.0.0.1", port)):
            async with await gopoll.dial_tls("tcp", address, timeout=10) as conn:
                await ask(conn)
        async with await gopoll.dial_tls(
            "tcp4", listener.addr, server_hostname="www.example", alpn=["x"]
        ) as conn:
            assert conn.server_hostname == "www.example"
            await ask(conn)
        text = r"^handshake tcp .*Hostname mismatch"
        with pytest.raises(ssl.SSLCertVerificationError, match=text):
            await gopoll.dial_tls("tcp", listener.addr, server_hostname="other.example")
        assert len(tls._defaults) == 2  # made once for each list of protocols
        assert all(ctx.options & ssl.OP_NO_RENEGOTIATION for ctx in tls._defaults.values())

    run(serving_tls(main))


@pytest.mark.parametrize(
    ("network", "address", "host"),
    [
        ("tcp", "www.example:443", "www.example"),
        ("tcp", "www.example.:443", "www.example"),
        ("tcp6", "[fe80::1%eth0]:443", "fe80::1"),
        ("tcp", ("::1", 443), "::1"),
        ("tcp", "b\u00fccher.example:443", "xn--bcher-kva.example"),
        ("tcp", ":443", ""),
        ("unix", "/run/x.sock", None),
    ],
)
def test_the_host_of_an_address(network, address, host):
    assert tls._host_of(network, address) == host


def test_dial_tls_over_a_unix_socket_needs_a_name(run, trust):
    async def main():
        with short_folder() as folder:
            path = f"{folder}/s"
            async with await listen("unix", path) as below:
                g = go(serve, tls.listener(below, certs().server_context()), echo)
                async with await gopoll.dial_tls("unix", path, server_hostname="localhost") as c:
                    await ask(c)
                    assert c.network == "unix"
                with pytest.raises(ValueError, match="server_hostname is missing"):
                    await gopoll.dial_tls("unix", path)
                below.close()
                await g

    run(main)


def test_dial_tls_without_a_host_says_what_is_missing(run):
    async def main(listener):
        with pytest.raises(ValueError, match="server_hostname is missing"):
            await gopoll.dial_tls("tcp", f":{listener.addr[1]}")

    run(serving_tls(main))


def test_dial_tls_needs_a_stream(run):
    async def main():
        with pytest.raises(OpError, match=r"^dial udp: TLS needs a stream, and udp"):
            await gopoll.dial_tls("udp", ("127.0.0.1", 1))
        with pytest.raises(UnknownNetworkError):
            await gopoll.dial_tls("tls", "localhost:1")

    run(main)


def test_the_deadline_is_one_for_both(run):
    async def main():
        async with local_listener() as listener:  # which nobody answers
            start = time.monotonic()
            with pytest.raises(DeadlineExceeded) as caught:
                await gopoll.dial_tls("tcp", listener.addr, timeout=0.05)
            assert time.monotonic() >= start + 0.05
            error = caught.value
            assert isinstance(error, OpError)
            assert (error.op, error.net, error.addr) == ("handshake", "tcp", listener.addr)
            assert str(error).endswith(": i/o timeout")
            assert error.is_timeout
            with pytest.raises(DeadlineExceeded, match=r"^dial tcp"):
                await gopoll.dial_tls("tcp", listener.addr, timeout=-1)
            with pytest.raises(DeadlineExceeded) as caught:  # somebody else's
                async with timeout(0.01):
                    await gopoll.dial_tls("tcp", listener.addr, timeout=60)
            assert not isinstance(caught.value, OpError)

    run(main)


def test_many_dial_at_once(run, trust):
    """From several Ps where there are some; the default context is made once."""

    async def visit(listener, i):
        address = ("127.0.0.1", listener.addr[1])
        async with await gopoll.dial_tls("tcp", address) as conn:
            await ask(conn, bytes([i]) * 5000)

    async def main(listener):
        visits = [go(visit, listener, i) for i in range(40)]
        for g in visits:
            await g
        assert len(tls._defaults) == 1

    run(serving_tls(main))


# -- the door


def test_ssl_is_loaded_when_it_is_asked_for():
    code = """
import sys, gopoll
assert "ssl" not in sys.modules
assert "tls" in dir(gopoll) and "dial_tls" in dir(gopoll) and "TLSConn" in dir(gopoll)
assert gopoll.tls.dial_tls is gopoll.dial_tls
assert gopoll.tls.TLSConn is gopoll.TLSConn
from gopoll.tls import client
assert client is gopoll.tls.client
try:
    gopoll.nonsense
except AttributeError as exc:
    print(exc)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("module 'gopoll' has no attribute 'nonsense'\n", "")


def test_the_module_can_be_imported_by_itself():
    assert gopoll.tls.listener is tls.listener
    assert gopoll.tls.server is tls.server
