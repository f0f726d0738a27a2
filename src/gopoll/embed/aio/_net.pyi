import asyncio
import os
from collections.abc import Callable
from typing import Any

class NetCalls:
    def create_connection(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | None = None,
        port: int | None = None,
        **options: Any,
    ) -> Any: ...
    def create_unix_connection(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        path: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> Any: ...

async def create_connection(
    loop: asyncio.AbstractEventLoop,
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    family: int,
    proto: int,
    address: Any,
) -> Any: ...
