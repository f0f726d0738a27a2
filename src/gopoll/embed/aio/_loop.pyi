import asyncio
from collections.abc import Callable
from contextvars import Context

from typing_extensions import TypeVarTuple, Unpack, disjoint_base

from gopoll.embed._selector import SelectorCore

_Ts = TypeVarTuple("_Ts")

@disjoint_base
class LoopCore:
    def __init__(self, selector: SelectorCore) -> None: ...
    def time(self) -> float: ...
    def call_soon(
        self,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.Handle: ...
    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.Handle: ...
    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle: ...
    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle: ...

@disjoint_base
class Watcher: ...
