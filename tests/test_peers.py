"""gopoll against peers that are not gopoll: Go's net package, socket in a thread, nc."""

import contextlib
import os
import shutil
import socket
import subprocess
import threading

import pytest

import gopoll
from helpers.go import build_go
from net.tools import needs_ipv6, short_folder

pytestmark = pytest.mark.timeout(600)  # Go's first build takes its time


@pytest.fixture(scope="session")
def go_echo(tmp_path_factory):
    """Return the built Go program."""
    return build_go("echo.go", tmp_path_factory.mktemp("go"))


def as_text(addr):
    """Return an address as Go takes it: host:port, [v6]:port, a path."""
    if isinstance(addr, str):
        return addr
    return f"[{addr[0]}]:{addr[1]}" if ":" in addr[0] else f"{addr[0]}:{addr[1]}"


@contextlib.contextmanager
def go_server(go_echo, network, address):
    """Give the address of Go's echo server on *network*."""
    command = [go_echo, "server", network, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


async def echo(conn):
    async with conn:
        while data := await conn.read():
            await conn.write(data)


async def serve(listener):
    async for conn in listener:
        gopoll.go(echo, conn)


async def echoed(conn, messages):
    """Send each message and read it back; then half-close and read the end."""
    reader = gopoll.Reader(conn)
    for message in messages:
        writing = gopoll.go(conn.write, message)
        assert await reader.read_exactly(len(message)) == message
        assert await writing == len(message)
    conn.close_write()
    assert await reader.read(1) == b""


MESSAGES = [bytes([i % 256]) * (1 + i * i % 20_000) for i in range(200)] + [os.urandom(3_000_000)]


# What a server may listen on: {} stands for a folder of the test's own.
STREAMS = [
    ("tcp", "127.0.0.1:0"),
    pytest.param("tcp6", "[::1]:0", marks=needs_ipv6),
    ("unix", "{}/s"),
    ("unix", "@{}/s"),
    ("unixpacket", "{}/s"),
]
PACKETS = [
    ("udp", "127.0.0.1:0"),
    ("udp4", "127.0.0.1:0"),
    pytest.param("udp6", "[::1]:0", marks=needs_ipv6),
    ("unixgram", "{}/s"),
    ("unixgram", "@{}/s"),
]


@pytest.fixture
def address(request):
    """Return where a server may listen."""
    with short_folder() as folder:
        yield request.param.format(folder)


def over(networks):
    """Run a test over *networks*."""
    return pytest.mark.parametrize(("network", "address"), networks, indirect=["address"])


@over(STREAMS)
def test_gopoll_dials_a_go_server(run, go_echo, network, address):
    # A packet has to be small, and its sender waits for it as a whole.
    messages = MESSAGES[:-1] if network == "unixpacket" else MESSAGES

    async def main():
        async with await gopoll.dial(network, served) as conn:
            await echoed(conn, messages)

    with go_server(go_echo, network, address) as served:
        run(main)


@over(STREAMS)
def test_a_go_client_dials_gopoll(run, go_echo, network, address):
    async def main():
        async with await gopoll.listen(network, address) as listener:
            serving = gopoll.go(serve, listener)
            command = [go_echo, "client", network, as_text(listener.addr), "300"]
            done = await gopoll.blocking(
                subprocess.run, command, capture_output=True, text=True, timeout=60
            )
        await serving
        return done

    done = run(main)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok 300 0\n", "")


@over(PACKETS)
def test_gopoll_exchanges_datagrams_with_a_go_server(run, go_echo, network, address):
    """Connected and not; an empty one is one as well."""
    messages = [b"", *MESSAGES[:-1]]

    async def main():
        local = f"{address}.client" if network == "unixgram" else None
        async with await gopoll.Dialer(local_addr=local).dial(network, served) as conn:
            conn.set_timeout(30)
            for message in messages:
                assert await conn.write(message) == len(message)
                assert await conn.read() == message
            server = conn.remote_addr
        other = f"{address}.other" if network == "unixgram" else address
        async with await gopoll.listen_packet(network, other) as packets:
            packets.set_timeout(30)
            for message in messages:
                assert await packets.write_to(message, server) == len(message)
                assert await packets.read_from() == (message, server)

    with go_server(go_echo, network, address) as served:
        run(main)


@over(PACKETS)
def test_a_go_client_exchanges_datagrams_with_gopoll(run, go_echo, network, address):
    async def echo_packets(packets):
        with contextlib.suppress(gopoll.ClosedError):
            while True:
                await packets.write_to(*await packets.read_from())

    async def main():
        async with await gopoll.listen_packet(network, address) as packets:
            echoing = gopoll.go(echo_packets, packets)
            command = [go_echo, "client", network, as_text(packets.local_addr), "200"]
            done = await gopoll.blocking(
                subprocess.run, command, capture_output=True, text=True, timeout=60
            )
        await echoing
        return done

    done = run(main)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok 200\n", "")


@over([("unix", "{}/s")])
def test_descriptors_pass_between_go_and_gopoll(run, go_echo, network, address):
    async def main():
        async with await gopoll.listen(network, address) as listener:
            command = [go_echo, "descriptors", address]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as peer:
                async with await listener.accept() as conn:
                    assert conn.peer_credentials().pid == peer.pid
                    data, [theirs] = await conn.recv_fds(64, 8)
                    assert data == b"reading end"
                    async with gopoll.open_fd(theirs) as file:
                        got = b""
                        while piece := await file.read():
                            got += piece
                    assert got == b"from Go"
                    r, w = os.pipe()
                    async with gopoll.open_fd(r) as file:
                        assert await conn.send_fds(b"writing end", [w]) == 11
                        os.close(w)
                        got = b""
                        while piece := await file.read():
                            got += piece
                    assert got == b"Go has got writing end"
                return await gopoll.blocking(peer.communicate)

    assert run(main) == ("ok 1 1\n", None)


def test_gopoll_dials_a_socket_server_in_a_thread(run):
    listener = socket.create_server(("127.0.0.1", 0))

    def server():
        conn, _ = listener.accept()
        with conn:
            while data := conn.recv(65536):
                conn.sendall(data)

    thread = threading.Thread(target=server)
    thread.start()

    async def main():
        async with await gopoll.dial("tcp", listener.getsockname()) as conn:
            await echoed(conn, MESSAGES)

    with listener:
        run(main)
        thread.join(60)
    assert not thread.is_alive()


def test_a_socket_client_in_a_thread_dials_gopoll(run):
    def client(address):
        with socket.create_connection(address) as sock, sock.makefile("rb") as file:
            for message in MESSAGES[:100]:
                sock.sendall(message)
                assert file.read(len(message)) == message
            sock.shutdown(socket.SHUT_WR)
            return file.read()

    async def main():
        async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
            serving = gopoll.go(serve, listener)
            rest = await gopoll.blocking(client, listener.addr)
        await serving
        return rest

    assert run(main) == b""


def nc_options(nc):
    """Return what makes this nc hand on the end of its stdin; four programs have that name."""
    done = subprocess.run([nc, "-h"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    said = (done.stdout + done.stderr).split()
    if b"-N" in said:
        return ["-N"]  # OpenBSD's
    return ["-q", "1"] if b"-q" in said else []  # the traditional one; Ncat and BusyBox do


def test_nc_talks_to_gopoll(run):
    nc = shutil.which("nc")
    if nc is None:
        pytest.skip("no nc (apt-get install netcat-openbsd)")

    async def main():
        async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
            serving = gopoll.go(serve, listener)
            host, port = listener.addr
            done = await gopoll.blocking(
                subprocess.run,
                [nc, *nc_options(nc), host, str(port)],
                input=b"one\ntwo\n",
                capture_output=True,
                timeout=60,
            )
        await serving
        return done

    assert run(main).stdout == b"one\ntwo\n"
