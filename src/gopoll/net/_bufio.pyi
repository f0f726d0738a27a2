from collections.abc import Coroutine
from typing import Any, TypeVar

from typing_extensions import disjoint_base

from gopoll._park import Awaitable

_T = TypeVar("_T", covariant=True)

@disjoint_base
class BufferedOp(Awaitable[_T]):
    @property
    def cr_await(self) -> Any: ...
    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any: ...
    def close(self) -> None: ...

@disjoint_base
class CallOp(BufferedOp[_T]):
    def __init__(self, coro: Coroutine[Any, Any, _T], count: Any) -> None: ...
    @property
    def written(self) -> int: ...

def written_by(op: object, exc: BaseException) -> int | None: ...
