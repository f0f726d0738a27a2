from collections.abc import Callable
from typing import TypeVar

from typing_extensions import disjoint_base

from gopoll._fdop import Op
from gopoll._park import Awaitable
from gopoll._sysfd import SysFD

_T = TypeVar("_T")

@disjoint_base
class RawOp(Op):
    @property
    def wait_reason(self) -> str: ...

def raw_read(fd: SysFD, fn: Callable[[int], _T]) -> Awaitable[_T]: ...
def raw_write(fd: SysFD, fn: Callable[[int], _T]) -> Awaitable[_T]: ...
