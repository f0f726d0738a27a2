"""README.md: every Python block runs, and the first one is the example that is shipped."""

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
SERVER, OTHERS = BLOCKS[0], BLOCKS[1:]


def test_the_first_block_is_the_example():
    assert SERVER.strip() == (ROOT / "examples" / "echo_server.py").read_text().strip()


def test_the_echo_server_has_twelve_lines_and_echoes():
    assert len([line for line in SERVER.splitlines() if line.strip()]) == 12
    code = SERVER.replace("127.0.0.1:7000", "127.0.0.1:0").replace(
        "        async for", "        print(*listener.addr, flush=True)\n        async for"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            host, port = server.stdout.readline().split()
            with socket.create_connection((host, int(port)), timeout=60) as sock:
                sock.sendall(b"hello")
                assert sock.recv(100) == b"hello"
            server.send_signal(signal.SIGINT)
            _, errors = server.communicate(timeout=60)
        finally:
            server.kill()
    assert errors.strip().endswith("KeyboardInterrupt")


@pytest.mark.parametrize("code", OTHERS, ids=range(1, len(BLOCKS)))
def test_a_block_runs_by_itself(code):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_lines_to_paste_are_there_once_each():
    text = (ROOT / "README.md").read_text()
    for name in ("demo", "tests"):
        assert len(re.findall(rf"<!-- command: {name} -->\n```sh\n.+\n```", text)) == 1
