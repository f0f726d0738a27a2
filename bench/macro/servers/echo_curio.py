"""curio's echo server: a task for each connection, recv and sendall. Started by measure.py.

run_server() with a listening socket like that of the others, instead of tcp_server's, whose sockets
have Nagle's delay.
"""

import curio
from curio.io import Socket
from curio.network import run_server
from listening import READ_BYTES, announce, listen, start


async def echo(sock, address):
    """Echo until the end; run_server closes the socket."""
    try:
        while data := await sock.recv(READ_BYTES):
            await sock.sendall(data)
            del data  # not kept while it waits
    except OSError:
        pass


async def main():
    """Serve on 127.0.0.1."""
    listener = listen()
    announce(listener.getsockname())
    await run_server(Socket(listener), echo)


if __name__ == "__main__":
    start({"curio": lambda: curio.run(main)})
