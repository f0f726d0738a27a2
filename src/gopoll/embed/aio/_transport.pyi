import asyncio
import socket
from contextvars import Context
from typing import Any

from typing_extensions import disjoint_base

from gopoll.embed.aio._core import TransportFace
from gopoll.embed.aio._loop import LoopCore

__all__ = ["SocketTransport"]

@disjoint_base
class Transports:
    def __setitem__(self, fd: int, transport: asyncio.BaseTransport, /) -> None: ...
    def __delitem__(self, fd: int, /) -> None: ...
    def __getitem__(self, fd: int, /) -> Any: ...
    def get(self, fd: int) -> Any: ...
    def values(self) -> list[Any]: ...

class SocketTransport(TransportFace, asyncio.Transport):
    def __init__(
        self,
        loop: LoopCore,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
        server: asyncio.AbstractServer | None = None,
        context: Context | None = None,
    ) -> None: ...
