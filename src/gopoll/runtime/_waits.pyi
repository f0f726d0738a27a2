from typing import Any

from gopoll._park import Awaitable
from gopoll.runtime._p import GBase, SchedBase

class Gosched(Awaitable[None]): ...

class Sleep(Awaitable[None]):
    def __init__(self, sched: SchedBase, ns: int) -> None: ...

class Join(Awaitable[Any]):
    def __init__(self, g: GBase) -> None: ...
