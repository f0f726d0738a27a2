from collections.abc import Generator
from typing import Any

from typing_extensions import disjoint_base

from gopoll._park import Awaitable, ParkRequest

@disjoint_base
class Op(Awaitable[Any]):
    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any: ...
    def close(self) -> None: ...

@disjoint_base
class ReadOp(Op): ...

@disjoint_base
class ReadIntoOp(Op): ...

@disjoint_base
class WriteOp(Op):
    @property
    def written(self) -> int: ...
    def __await__(self) -> Generator[ParkRequest, None, int]: ...
