"""The errors of TLS: OpErrors that are the exceptions of ssl as well.

Made by tlscore, on any thread.
Go: crypto/tls (go1.27), whose errors come unwrapped; texts here are OpenSSL's.
"""

from __future__ import annotations

import re
import ssl

from gopoll.errors import TIMEOUT_TEXT, Addr, OpError, _class_for, _uncapitalise

__all__ = ["TLSError", "is_late", "tls_error", "unexpected_eof"]

UNEXPECTED_EOF_TEXT = "unexpected EOF"

# What OpenSSL makes of bytes that are no TLS at all.
_NOT_TLS = frozenset(
    {
        "HTTPS_PROXY_REQUEST",
        "HTTP_REQUEST",
        "PACKET_LENGTH_TOO_LONG",
        "UNKNOWN_PROTOCOL",
        "UNSUPPORTED_PROTOCOL",
        "WRONG_VERSION_NUMBER",
    }
)
_NOT_TLS_HINT = "does the peer speak TLS here, and a version that both allow?"
_NO_ISSUER = frozenset({18, 19, 20, 21})  # X509_V_ERR_: self-signed, or of nobody known
_NO_ISSUER_HINT = "if it may be trusted, name it or its issuer: SSLContext.load_verify_locations()"
_EOF_HINTS = {
    "handshake": "the peer has hung up during the handshake",
    "read": "no close_notify came before it: the data may have been cut short",
}


class TLSError(OpError):
    """TLS failed: "handshake tcp 127.0.0.1:5->127.0.0.1:443: certificate has expired".

    It is an instance of the class that ssl has for it, such as ssl.SSLCertVerificationError, with
    its attributes; errno is ssl's too. err: the exception of ssl.
    """

    def __init__(
        self, op: str, net: str, source: Addr | None, addr: Addr | None, exc: ssl.SSLError
    ) -> None:
        """Describe the failure *exc* of *op*."""
        eof = isinstance(exc, ssl.SSLEOFError)
        reason = getattr(exc, "reason", None)
        code = getattr(exc, "verify_code", None)
        hint = None
        if eof:
            hint = _EOF_HINTS.get(op)
        elif op == "handshake":
            hint = _NOT_TLS_HINT if reason in _NOT_TLS else None
            hint = _NO_ISSUER_HINT if code in _NO_ISSUER else hint
        OpError.__init__(self, op, net, source, addr, exc, hint=hint)
        self.strerror = UNEXPECTED_EOF_TEXT if eof else _text(exc)
        self.__dict__.update(exc.__dict__)  # library, reason, verify_code, verify_message

    def _what(self) -> str:
        return self.strerror or ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r}, errno={self.errno})"  # no errno of the system


def _text(exc: ssl.SSLError) -> str:
    """Return what *exc* says, without "[SSL: NAME]" before it and "(_ssl.c:1)" behind."""
    text = re.sub(r"^\[[^\]]*\] | \(_ssl\.c:\d+\)$", "", exc.strerror or str(exc))
    return _uncapitalise(text.removesuffix("."))


def tls_error(
    op: str, net: str, source: Addr | None, addr: Addr | None, exc: ssl.SSLError
) -> TLSError:
    """Return the error of *op* that *exc* is the cause of; it is of the class of *exc* too."""
    return _class_for(TLSError, type(exc))(op, net, source, addr, exc)


def unexpected_eof() -> ssl.SSLError:
    """Return what ssl raises for an end that was not announced."""
    return ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol")


def is_late(exc: OSError) -> bool:
    """Tell whether a deadline has ended a write: by text, for the kernel has time-outs too."""
    return isinstance(exc, TimeoutError) and getattr(exc, "err", TIMEOUT_TEXT) == TIMEOUT_TEXT
