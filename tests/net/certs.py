"""Certificates for the tests of TLS: made once a run by openssl, thrown away after it.

A CA; a server that it vouches for ("localhost", 127.0.0.1, ::1 and "www.example"), a client, and a
stranger that vouches for itself. Called by tests, on any thread.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
NAMES = "subjectAltName=DNS:localhost,DNS:www.example,IP:127.0.0.1,IP:::1"


class Certs:
    """The files, and contexts that use them. A new context for each call."""

    def __init__(self, openssl: str, folder: Path) -> None:
        self.openssl = openssl
        self.folder = folder
        self.config = folder / "openssl.cnf"  # the system's would make each of them a CA
        self.config.write_text("[req]\ndistinguished_name = dn\n[dn]\n")
        # Python 3.13 is strict about CAs.
        usage = ("basicConstraints=critical,CA:true", "keyUsage=critical,keyCertSign,cRLSign")
        self.ca = self._make("ca", "/CN=test CA", usage)
        self.server = self._make("server", "/CN=localhost", [NAMES], signed=True)
        self.client = self._make("client", "/CN=a client", ["subjectAltName=DNS:c"], signed=True)
        self.stranger = self._make("stranger", "/CN=localhost", [NAMES])

    def _make(
        self, name: str, subject: str, extensions: Iterable[str], signed: bool = False
    ) -> Path:
        cert = self.folder / f"{name}.pem"
        command: list[object] = [
            *(self.openssl, "req", "-x509", "-config", self.config, *KEY, "-days", "30"),
            *("-subj", subject, "-keyout", self.key(name), "-out", cert),
        ]
        for extension in extensions:
            command += ["-addext", extension]
        if signed:
            command += ["-CA", self.ca, "-CAkey", self.key("ca")]
        subprocess.run([str(word) for word in command], check=True, capture_output=True)
        return cert

    def key(self, name: str) -> Path:
        """Return the file of a private key: of "server", "client" or "stranger"."""
        return self.folder / f"{name}.key"

    def server_context(self, name: str = "server", **settings: Any) -> ssl.SSLContext:
        """Return what a server needs; *settings* are attributes to set on it."""
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ctx.load_cert_chain(self.folder / f"{name}.pem", self.key(name))
        return _set(ctx, settings)

    def client_context(self, **settings: Any) -> ssl.SSLContext:
        """Return what a client needs that trusts the CA."""
        return _set(ssl.create_default_context(cafile=str(self.ca)), settings)


def _set(ctx: ssl.SSLContext, settings: dict[str, Any]) -> ssl.SSLContext:
    for name, value in settings.items():
        setattr(ctx, name, value)
    return ctx


@functools.cache
def certs() -> Certs:
    """Return the certificates; without openssl the test is skipped."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on this machine (apt-get install openssl)")
    folder = Path(tempfile.mkdtemp(prefix="gopoll-certs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Certs(openssl, folder)
