"""nginx and redis-server, started by a test: on loopback, with a folder and a configuration of its
own, ended by their process id.

Called by tests, on the main thread.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

PATIENCE = 20  # seconds that a server may take to end


def program(name: str, package: str) -> str:
    """Return the path of a server, which may be where only root looks, or skip the test."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"no {name} (apt-get install {package})")
    return found


@contextlib.contextmanager
def running(*command: object, **options: object) -> Iterator[subprocess.Popen[str]]:
    """Give a process that is ended, and waited for, in the end."""
    with subprocess.Popen(
        [str(word) for word in command], stdin=subprocess.DEVNULL, text=True, **options
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


NGINX = """
daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 512; }}
http {{
    access_log off;
    default_type text/plain;
    keepalive_requests 10000;
    keepalive_timeout 600;
    client_max_body_size 64m;
    {temporary}
    server {{
        listen {listen};
        {server}
        root {folder}/www;
        {locations}
    }}
}}
"""


@contextlib.contextmanager
def nginx(
    folder: Path, locations: str, *, unix: str | None = None, tls: tuple[Path, Path] | None = None
) -> Iterator[tuple[str, int] | str]:
    """Serve folder/www over HTTP; give the address.

    *locations*: what else the server does. *unix*: the path of a Unix socket, instead of TCP.
    *tls*: the files of a certificate and of its key, and it is HTTPS.
    """
    command = program("nginx", "nginx")
    (folder / "www").mkdir(exist_ok=True)
    if unix is not None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(unix)
        listener.listen()
        address = listener.getsockname()
        listen = f"unix:{address}"
    else:
        listener = socket.create_server(("127.0.0.1", 0))
        address = listener.getsockname()
        listen = "{}:{}".format(*address)
    temporary = "\n    ".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    server = ""
    if tls is not None:
        listen += " ssl"
        server = "ssl_certificate {}; ssl_certificate_key {};".format(*tls)
    config = folder / "nginx.conf"
    config.write_text(
        NGINX.format(
            folder=folder,
            listen=listen,
            locations=locations,
            server=server,
            temporary=temporary,
        )
    )
    # nginx takes the listening socket over, as it does when it replaces itself: no port is guessed.
    with listener:
        fd = listener.fileno()
        environment = {**os.environ, "NGINX": f"{fd};"}
        words = (command, "-e", "stderr", "-p", folder, "-c", config)
        with running(*words, env=environment, pass_fds=[fd], stderr=subprocess.DEVNULL):
            listener.close()
            yield address


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[tuple[tuple[str, int], str]]:
    """Run an empty redis-server without a disk; give its TCP address and its Unix address."""
    command = program("redis-server", "redis-server")
    path = folder / "redis.sock"
    for _ in range(5):  # it cannot take a socket over, and a port that was free may be taken
        with socket.create_server(("127.0.0.1", 0)) as probe:
            address = probe.getsockname()
        words = [command, "--bind", address[0], "--port", address[1], "--unixsocket", path]
        words += ["--dir", folder, "--save", "", "--appendonly", "no", "--daemonize", "no"]
        with running(*words, stdout=subprocess.PIPE) as process:
            if any("eady to accept connections" in line for line in process.stdout):
                yield address, str(path)
                return
    raise RuntimeError("redis-server does not start")
