import asyncio
import socket
from typing import Any

from typing_extensions import disjoint_base

from gopoll.embed.aio._loop import LoopCore, Watcher

@disjoint_base
class DatagramCore(Watcher):
    def __init__(
        self,
        loop: LoopCore,
        transport: asyncio.DatagramTransport,
        sock: socket.socket,
        address: Any,
        connected: bool,
    ) -> None: ...
