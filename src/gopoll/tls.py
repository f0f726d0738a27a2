"""gopoll.tls: TLS on connections. The door to gopoll.net.tls, opened when first asked for."""

from gopoll.net.tls import TLSConn, TLSListener, client, dial_tls, listener, server

__all__ = ["TLSConn", "TLSListener", "client", "dial_tls", "listener", "server"]
