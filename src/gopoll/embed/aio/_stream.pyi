import asyncio
import socket

from typing_extensions import disjoint_base

from gopoll.embed.aio._loop import LoopCore, Watcher

@disjoint_base
class StreamCore(Watcher):
    def __init__(
        self,
        loop: LoopCore,
        transport: asyncio.Transport,
        sock: socket.socket,
        server: asyncio.AbstractServer | None,
    ) -> None: ...
