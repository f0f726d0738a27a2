import asyncio
import socket
from typing import Any

from gopoll.embed.aio._loop import LoopCore

__all__ = ["SocketTransport"]

class SocketTransport(asyncio.Transport):
    def __init__(
        self,
        loop: LoopCore,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
        server: asyncio.AbstractServer | None = None,
    ) -> None: ...
    def __del__(self) -> None: ...
