"""The programs in examples/ that the README does not show: each does what it says."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from net.certs import certs

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def tls_server():
    command = [sys.executable, EXAMPLES / "tls_echo_server.py", certs().server]
    with subprocess.Popen(
        [*map(str, command), str(certs().key("server")), "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        yield server
        server.kill()


def test_tls_echo_server(tls_server):
    *said, host, port = tls_server.stdout.readline().split()
    assert said == ["listening", "on"]
    ctx = certs().client_context()
    with socket.create_connection((host, int(port)), timeout=60) as plain:
        plain.sendall(b"GET / HTTP/1.0\r\n\r\n")  # is told off, and harms nobody
        while plain.recv(1000):
            pass
    with socket.create_connection((host, int(port)), timeout=60) as raw:
        with ctx.wrap_socket(raw, server_hostname="localhost") as conn:
            conn.sendall(b"hello")
            assert conn.recv(100) == b"hello"
            tls_server.send_signal(signal.SIGINT)
            conn.sendall(b"more")  # there is time to finish
            assert conn.recv(100) == b"more"
            conn.unwrap()
    _, errors = tls_server.communicate(timeout=60)
    assert tls_server.returncode == 130
    (line,) = errors.splitlines()
    assert "http request" in line


@pytest.mark.parametrize(
    ("args", "text"),
    [((), "usage: python tls_echo_server.py"), (("/nowhere", "/nowhere"), "No such file")],
)
def test_tls_echo_server_says_what_it_lacks(args, text):
    command = [sys.executable, str(EXAMPLES / "tls_echo_server.py"), *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert text in done.stderr


def test_own_loop_fits_on_a_page():
    lines = (EXAMPLES / "own_loop.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 60


def test_own_loop_runs_to_its_end():
    command = [sys.executable, "-W", "error", "-X", "dev", str(EXAMPLES / "own_loop.py"), "2000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "echoed 2000 messages\n", "")
