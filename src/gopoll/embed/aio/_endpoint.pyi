import asyncio
import socket
from typing import Any

from gopoll.embed.aio._core import TransportFace
from gopoll.embed.aio._loop import LoopCore

__all__ = ["DatagramTransport"]

class DatagramTransport(TransportFace, asyncio.Transport, asyncio.DatagramTransport):
    def __init__(
        self,
        loop: LoopCore,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        address: Any = None,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None: ...
