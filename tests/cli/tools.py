"""The command line as its users meet it: a process, its pipes, its terminal, and a real peer.

Called by tests, on the main thread. Everything is bounded by PATIENCE; nothing waits for time to
pass. The peer of a client is a socket of the test itself, so the test decides what comes when.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

SCRIPT = str(Path(sysconfig.get_path("scripts")) / "gopoll")
MODULE = (sys.executable, "-m", "gopoll")
WAYS = [(SCRIPT,), MODULE]  # the two ways to call it
WAY_IDS = ["script", "module"]

PATIENCE = 120.0  # seconds for anything that is bound to happen

# dial as it would be on a machine that is never too busy to answer within a second.
UNHURRIED = f"""if 1:
    import sys
    from gopoll._cli import client
    from gopoll.__main__ import main
    client.ANSWER_SECONDS = {PATIENCE}
    sys.exit(main())
"""
PATIENT = (sys.executable, "-c", UNHURRIED)

# Makes a terminal the controlling one of a new session, so that Ctrl-C is a signal; then execs.
SEIZE = """if 1:
    import fcntl, os, sys, termios
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.execv(sys.argv[1], sys.argv[1:])
"""


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a child: warnings are errors, and so land on stderr."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONDEVMODE", "COLUMNS")}
    return env | {"PYTHONWARNINGS": "error"} | changes


def gopoll(*args: object, way: tuple[str, ...] = MODULE, **options: Any) -> Any:
    """Run the command line to its end; stdin is empty unless said otherwise."""
    if "input" not in options:
        options.setdefault("stdin", subprocess.DEVNULL)
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    options.setdefault("text", True)
    options.setdefault("env", environment())
    return subprocess.run([*way, *map(str, args)], timeout=PATIENCE, **options)


def outcome(done: Any) -> tuple[int, Any, Any]:
    """Return status, stdout and stderr, to be compared at once."""
    return done.returncode, done.stdout, done.stderr


def shell(line: str, *args: object, **env: str) -> Any:
    """Run `line` in bash, with "$@" the gopoll of MODULE and *args*; the status is the first's."""
    return subprocess.run(
        ["bash", "-c", line + '\nexit "${PIPESTATUS[0]}"', "bash", *MODULE, *map(str, args)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(**env),
        timeout=PATIENCE,
    )


@contextlib.contextmanager
def running(
    *args: object, way: tuple[str, ...] = MODULE, **options: Any
) -> Iterator[subprocess.Popen[Any]]:
    """Have the command line run beside the test; it is killed at the end if it has not ended."""
    for name in ("stdin", "stdout", "stderr"):
        options.setdefault(name, subprocess.PIPE)
    options.setdefault("env", environment())
    with subprocess.Popen([*way, *map(str, args)], **options) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def finish(process: subprocess.Popen[Any], data: Any = None) -> tuple[int, Any, Any]:
    """Give it the rest of its input; return status, stdout and stderr."""
    out, err = process.communicate(data, timeout=PATIENCE)
    return process.returncode, out, err


class Terminal:
    """A pseudo-terminal with the command line on it, as its controlling terminal."""

    def __init__(self, *args: object, stdout: Any = None, stderr: Any = None) -> None:
        self.master, slave = os.openpty()
        self._seen = b""
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SEIZE, *MODULE, *map(str, args)],
                stdin=slave,
                stdout=stdout or slave,
                stderr=stderr or slave,
                start_new_session=True,
                env=environment(TERM="xterm"),
            )
        finally:
            os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)

    def type(self, data: bytes) -> None:
        """Press keys."""
        os.write(self.master, data)

    def expect(self, text: str) -> str:
        """Return what is shown up to *text*, and it; AssertionError if it does not come."""
        wanted = text.replace("\n", "\r\n").encode()
        while wanted not in self._seen:
            assert self._more(), f"no {text!r} in {self._seen!r}"
        before, found, self._seen = self._seen.partition(wanted)
        return (before + found).replace(b"\r\n", b"\n").decode()

    def finish(self) -> tuple[int, str]:
        """Return the exit status and what is shown to the end."""
        while self._more():
            pass
        shown = self._seen.replace(b"\r\n", b"\n").decode()
        return self.process.wait(PATIENCE), shown

    def _more(self) -> bool:
        """Read once; False at the end, which Linux reports as EIO."""
        ready, _, _ = select.select([self.master], [], [], PATIENCE)
        assert ready, f"nothing more than {self._seen!r}"
        try:
            self._seen += os.read(self.master, 65536)
        except OSError:
            return False
        return True


class Peer:
    """A listener, and the connection it accepts: the server of a client under test."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE)
        self.address = "{}:{}".format(*self._listener.getsockname())
        self.conn: socket.socket = self._listener

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.conn.close()
        self._listener.close()

    def accept(self) -> socket.socket:
        """Wait for the client."""
        self.conn, _ = self._listener.accept()
        self.conn.settimeout(PATIENCE)
        return self.conn

    def take(self, n: int) -> bytes:
        """Return the next *n* bytes, fewer at the end."""
        data = b""
        while len(data) < n and (more := self.conn.recv(n - len(data))):
            data += more
        return data

    def line(self) -> bytes:
        """Return the next line, b"" at the end."""
        data = b""
        while not data.endswith(b"\n") and (there := self.conn.recv(65536, socket.MSG_PEEK)):
            data += self.conn.recv(there.find(b"\n") + 1 or len(there))
        return data

    def echo_all(self) -> bytes:
        """Send everything back to the end, then close; return what it was."""
        seen = bytearray()
        with self.conn:
            while data := self.conn.recv(65536):
                seen += data
                self.conn.sendall(data)
        return bytes(seen)

    def reset(self) -> None:
        """Close so that the client gets a reset."""
        self.conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.conn.close()
