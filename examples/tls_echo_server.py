r"""An echo server over TLS. Ctrl-C ends it, and gives those who are connected five seconds more.

usage: python tls_echo_server.py CERT KEY [ADDR]    (127.0.0.1:7443)

A certificate to try it with, and a client:

    openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem \
        -subj /CN=localhost -addext subjectAltName=DNS:localhost
    openssl s_client -connect 127.0.0.1:7443 -CAfile cert.pem
"""

import ssl
import sys

import gopoll


async def echo(conn):
    conn.set_timeout(10)  # a client that does not shake hands is not waited for
    await conn.handshake()
    conn.set_deadline(None)
    while data := await conn.read():
        await conn.write(data)


async def main(cert, key, address="127.0.0.1:7443"):
    ctx = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ctx.load_cert_chain(cert, key)
    listener = gopoll.tls.listener(await gopoll.listen("tcp", address), ctx)
    print("listening on", *listener.addr, flush=True)
    await gopoll.serve(listener, echo, limit=1000)


if not 3 <= len(sys.argv) <= 4:
    sys.exit(__doc__)
try:
    gopoll.run(main, *sys.argv[1:])
except (OSError, KeyboardInterrupt) as error:
    sys.exit(f"tls_echo_server: {error}" if isinstance(error, OSError) else 130)
