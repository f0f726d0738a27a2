"""gopoll echo: send back what comes in, on every connection, until Ctrl-C.

serve() is the demo's server too. Called in goroutines.
"""

from __future__ import annotations

import time

import gopoll
from gopoll._cli.output import complain, say
from gopoll.errors import format_addr

__all__ = ["echo", "listen_and_serve", "serve"]

_BACK_OFF_MIN = 0.005  # seconds after the first accept that failed, doubled up to
_BACK_OFF_MAX = 1.0
_QUIET = 1.0  # seconds between two lines about accept


async def listen_and_serve(address: str) -> None:
    """Listen on *address*, say where, and serve until cancelled."""
    async with await gopoll.listen("tcp", address) as listener:
        say(f"listening on {format_addr(listener.addr)}")
        await serve(listener)


async def serve(listener: gopoll.Listener) -> None:
    """Start a goroutine for each connection; ends when *listener* is closed.

    Too many open files, and whatever else accept has to say, is waited out: it is no reason to
    drop the connections that work. Go: net/http.Server.Serve.
    """
    delay = 0.0
    said = float("-inf")
    while True:
        try:
            conn = await listener.accept()
        except gopoll.ClosedError:
            return
        except gopoll.OpError as exc:
            if time.monotonic() - said >= _QUIET:
                said = time.monotonic()
                complain(f"{exc}; trying again")
            delay = min(max(2 * delay, _BACK_OFF_MIN), _BACK_OFF_MAX)
            await gopoll.sleep(delay)
        else:
            delay = 0.0
            gopoll.go(echo, conn)


async def echo(conn: gopoll.Conn) -> None:
    """Send back what *conn* sends, to its end; a connection that breaks is its own affair."""
    async with conn:
        try:
            while data := await conn.read():
                await conn.write(data)
        except gopoll.OpError:
            pass  # reset, timed out: nobody is left to be told
