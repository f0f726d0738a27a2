from typing_extensions import disjoint_base

from gopoll._park import Awaitable
from gopoll.runtime._sched import SchedBase

@disjoint_base
class Gosched(Awaitable[None]):
    def close(self) -> None: ...

@disjoint_base
class Sleep(Awaitable[None]):
    def __init__(self, sched: SchedBase, ns: int) -> None: ...
    def close(self) -> None: ...
