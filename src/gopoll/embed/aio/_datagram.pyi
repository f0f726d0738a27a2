import asyncio
import socket
from typing import Any

from typing_extensions import disjoint_base

from gopoll.embed.aio._core import TransportCore
from gopoll.embed.aio._loop import LoopCore

@disjoint_base
class DatagramCore(TransportCore):
    def __init__(
        self,
        loop: LoopCore,
        transport: asyncio.DatagramTransport,
        sock: socket.socket,
        address: Any,
        connected: bool,
    ) -> None: ...
