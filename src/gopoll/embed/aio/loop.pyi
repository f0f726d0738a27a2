import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from gopoll.embed.aio._loop import LoopCore
from gopoll.embed.aio._net import NetCalls
from gopoll.embed.aio._sockop import SockCalls

__all__ = ["EventLoop", "new_event_loop", "run"]

_T = TypeVar("_T")

class EventLoop(NetCalls, SockCalls, LoopCore, asyncio.SelectorEventLoop):
    def __init__(self) -> None: ...

def new_event_loop() -> EventLoop: ...
def run(main: Coroutine[Any, Any, _T], *, debug: bool | None = None) -> _T: ...
