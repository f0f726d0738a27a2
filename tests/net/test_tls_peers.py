"""TLS against peers that are not gopoll: Go's crypto/tls, ssl in a thread, openssl both ways."""

import contextlib
import os
import socket
import ssl
import subprocess
import threading

import pytest

import gopoll
from gopoll.errors import Canceled, OpError
from gopoll.net import tls
from gopoll.net.conn import Conn
from gopoll.net.dial import dial
from gopoll.net.tlsconn import TLSConn
from gopoll.runtime.goroutine import go
from helpers.go import build_go
from net.certs import certs
from net.tools import local_listener, parked, until

V1_2, V1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = {"1.2": V1_2, "1.3": V1_3}
MESSAGES = [bytes([i % 256]) * (1 + i * i % 20_000) for i in range(100)] + [os.urandom(2_000_000)]


@pytest.fixture(params=VERSIONS)
def version(request):
    return request.param


def contexts(version):
    """Return (the server's context, the client's) for a version of TLS."""
    last = VERSIONS[version]
    server = certs().server_context(maximum_version=last)
    return server, certs().client_context(maximum_version=last)


async def echo(conn):
    while data := await conn.read():
        await conn.write(data)
    conn.close_write()


async def echoed(conn, messages=MESSAGES):
    """Send each message and read it back; then half-close and read the end."""
    reader = gopoll.Reader(conn)
    for message in messages:
        writing = gopoll.go(conn.write, message)
        assert await reader.read_exactly(len(message)) == message
        assert await writing == len(message)
    conn.close_write()
    assert await reader.read(1) == b""


@contextlib.asynccontextmanager
async def serving(ctx, alpn=()):
    """Echo TLS on loopback for the length of a block; give the address."""
    async with local_listener() as below:
        g = go(gopoll.serve, tls.listener(below, ctx, alpn=alpn), echo)
        host, port = below.addr
        yield f"{host}:{port}"
        below.close()
        await g


# -- Go


building_takes_its_time = pytest.mark.timeout(600)


@pytest.fixture(scope="session")
def go_program(tmp_path_factory):
    return build_go("tlsecho.go", tmp_path_factory.mktemp("go"))


@building_takes_its_time
def test_gopoll_dials_a_go_server(run, go_program, version):
    command = [go_program, "server", certs().server, certs().key("server")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        address = server.stdout.readline().strip()

        async def main():
            ctx = contexts(version)[1]
            async with await gopoll.dial_tls("tcp", address, ssl_context=ctx, alpn=["echo"]) as c:
                assert (c.version, c.selected_alpn) == (f"TLSv{version}", "echo")
                await echoed(c)

        try:
            run(main)
            assert server.stdout.readline() == "end\n"
        finally:
            server.kill()


@building_takes_its_time
def test_a_go_client_dials_gopoll(run, go_program, version):
    async def main():
        async with serving(certs().server_context(), ["echo"]) as address:
            command = [go_program, "client", address, certs().ca, version, "200"]
            return await gopoll.blocking(
                subprocess.run, command, capture_output=True, text=True, timeout=60
            )

    done = run(main)
    said = f"ok 200 0 TLS {version} echo\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


# -- ssl in a thread


def test_gopoll_dials_an_ssl_server(run, version):
    ends = []

    def server():
        raw, _ = listener.accept()
        with contexts(version)[0].wrap_socket(raw, server_side=True) as conn:
            while data := conn.recv(65536):
                conn.sendall(data)
            ends.append("announced")
            conn.unwrap()

    async def main():
        async with await gopoll.dial_tls(
            "tcp", listener.getsockname(), ssl_context=contexts(version)[1]
        ) as conn:
            await echoed(conn)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server)
        thread.start()
        run(main)
        thread.join(60)
    assert ends == ["announced"]


def test_an_ssl_client_dials_gopoll(run, version):
    def client(address):
        host, _, port = address.rpartition(":")
        ctx = contexts(version)[1]
        with socket.create_connection((host, int(port))) as raw:
            conn = ctx.wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=False)
            for message in MESSAGES[:100]:
                conn.sendall(message)
                got = b""
                while len(got) < len(message):
                    got += conn.recv(65536)
                assert got == message
            conn.unwrap()  # sends close_notify, and waits for ours
            conn.close()

    async def main():
        async with serving(certs().server_context()) as address:
            await gopoll.blocking(client, address)

    run(main)


# -- openssl


class Program:
    """openssl s_client or s_server: what is typed goes in, what it prints is looked through."""

    def __init__(self, *command):
        # As a terminal's user would: line by line, so that its command letters work.
        self.process = subprocess.Popen(
            [certs().openssl, *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.said = b""

    def type(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def hear(self, *texts):
        """Read on until each of *texts* has been said; return what follows the last."""
        while not all(text in self.said for text in texts):
            more = os.read(self.process.stdout.fileno(), 65536)
            assert more, f"{texts} were not all in {self.said!r}"
            self.said += more
        return self.said.partition(texts[-1])[2]

    def close(self):
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def s_server(version, *options):
    """Give an s_server and its address."""
    program = Program(
        *("s_server", "-accept", "127.0.0.1:0", "-cert", certs().server),
        *("-key", certs().key("server"), f"-tls{version.replace('.', '_')}", *options),
    )
    try:
        rest = program.hear(b"ACCEPT 127.0.0.1:")
        while b"\n" not in rest:
            rest = program.hear(b"ACCEPT 127.0.0.1:") or rest
        yield program, ("127.0.0.1", int(rest.split()[0]))
    finally:
        program.close()


def test_openssl_s_server(run, version):
    async def main(server, address):
        ctx = contexts(version)[1]
        async with await gopoll.dial_tls("tcp", address, ssl_context=ctx) as conn:
            assert conn.version == f"TLSv{version}"
            await conn.write(b"from gopoll\n")
            await gopoll.blocking(server.hear, b"from gopoll\n")
            server.type(b"from openssl\n")
            assert await conn.read() == b"from openssl\n"
            server.type(b"Q\n")  # it hangs up without a word
            with pytest.raises(ssl.SSLEOFError):
                await conn.read()

    with s_server(version) as (server, address):
        run(main, server, address)


def test_openssl_s_client(run, version):
    async def main():
        async with serving(certs().server_context(), ["echo"]) as address:
            client = Program(
                *("s_client", "-connect", address, "-CAfile", certs().ca, "-alpn", "echo"),
                *("-verify_return_error", "-verify_hostname", "localhost"),
                *("-servername", "localhost", f"-tls{version.replace('.', '_')}"),
            )
            try:
                client.type(b"typed\n")
                await gopoll.blocking(
                    client.hear, b"ALPN protocol: echo", b"Verify return code: 0 (ok)", b"typed\n"
                )
                client.type(b"Q\n")
                await gopoll.blocking(client.hear, b"DONE")
            finally:
                client.close()

    run(main)


class Valve(Conn):
    """A connection whose writes wait while the valve is shut; what passes is counted."""

    def __init__(self, conn):
        self.conn = conn
        self.gate = gopoll.Mutex()
        self.sizes = []  # of the writes
        self.received = 0

    async def read(self, n=65536):
        data = await self.conn.read(n)
        self.received += len(data)
        return data

    async def write(self, data):
        async with self.gate:
            self.sizes.append(len(data))
            return await self.conn.write(data)

    def close(self):
        return self.conn.close()

    is_closed = property(lambda self: self.conn.is_closed)
    local_addr = property(lambda self: self.conn.local_addr)
    remote_addr = property(lambda self: self.conn.remote_addr)
    network = property(lambda self: self.conn.network)


@contextlib.asynccontextmanager
async def through_valve(address, version):
    """Give a TLS connection to *address* and the valve below it."""
    valve = Valve(await dial("tcp", address))
    ctx = contexts(version)[1]
    async with await tls.client(valve, ctx, server_hostname="localhost") as conn:
        yield conn, valve


async def updated(server, conn, valve, line):
    """Have the server change its keys, ask for new ones of ours and send *line*; read that."""
    reader = go(conn.read)
    await parked(reader)
    before = valve.received
    server.type(b"K\n")
    await until(lambda: valve.received > before)
    server.type(line)  # not with the command, which would swallow it
    return await reader


def test_a_key_update_is_answered_with_the_next_write(run):
    async def main(server, address):
        async with through_valve(address, "1.3") as (conn, valve):
            server.type(b"first\n")
            assert await conn.read() == b"first\n"
            await conn.write(b"old keys\n")
            assert await updated(server, conn, valve, b"second\n") == b"second\n"
            await conn.write(b"new keys\n")
            await gopoll.blocking(server.hear, b"old keys\n", b"new keys\n")
            assert valve.sizes[-1] > valve.sizes[-2]

    with s_server("1.3") as (server, address):
        run(main, server, address)


def test_a_key_update_does_not_wait_for_a_write_that_stalls(run):
    """Reads go on under the new keys, and the answer leaves behind what is stalled (W2)."""

    async def main(server, address):
        async with through_valve(address, "1.3") as (conn, valve):
            server.type(b"first\n")  # behind its session tickets, which are no answer to "K"
            assert await conn.read() == b"first\n"
            await valve.gate.lock()
            writers = [go(conn.write, b"a" * 100_000), go(conn.write, b"b\n")]
            await parked(*writers)
            for line in (b"one\n", b"two\n"):
                assert await updated(server, conn, valve, line) == line
            valve.gate.unlock()
            for g in writers:
                await g
            await conn.write(b"all\n")
            rest = await gopoll.blocking(server.hear, b"a" * 1000, b"b\n", b"all\n")
            assert b"error" not in rest

    with s_server("1.3") as (server, address):
        run(main, server, address)


def test_a_write_in_a_renegotiation_reads_first(run, monkeypatch):
    """W4: beside a reader, and alone after that one has been cancelled."""
    waited = []
    real = TLSConn._receive

    async def receive(conn):
        if conn._wants_read:
            waited.append(conn._rlock)
        await real(conn)

    monkeypatch.setattr(TLSConn, "_receive", receive)

    async def main(server, address):
        async with through_valve(address, "1.2") as (conn, valve):
            await conn.write(b"begin\n")
            await gopoll.blocking(server.hear, b"begin\n")
            for alone in (False, True):
                reader = go(conn.read)
                await parked(reader)
                await valve.gate.lock()
                before = valve.received
                server.type(b"r\n")  # a HelloRequest: our ClientHello waits at the valve
                await until(lambda before=before: valve.received > before)
                await until(conn._has_to_send)
                await parked(reader)
                if alone:
                    reader.cancel()
                    with pytest.raises(Canceled):
                        await reader
                line = f"written {'alone' if alone else 'beside a reader'}\n".encode()
                writer = go(conn.write, line)
                await parked(writer)
                valve.gate.unlock()
                assert await writer == len(line)
                await gopoll.blocking(server.hear, line)
                assert waited or not alone
                server.type(b"answer\n")
                assert await (conn.read() if alone else reader) == b"answer\n"

    with s_server("1.2") as (server, address):
        run(main, server, address)


def test_a_default_context_does_not_renegotiate(run, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certs().ca))
    monkeypatch.setattr(tls, "_defaults", {})

    async def main(server, address):
        async with await gopoll.dial_tls("tcp", address) as conn:
            server.type(b"r\n")
            server.type(b"still here\n")
            with contextlib.suppress(OpError):
                assert await conn.read() == b"still here\n"
            assert not conn._wants_read

    with s_server("1.2") as (server, address):
        run(main, server, address)
