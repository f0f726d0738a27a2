from collections.abc import Generator, Iterable
from typing import Any

from _typeshed import HasFileno, ReadableBuffer
from typing_extensions import disjoint_base

from gopoll._fdop import Op
from gopoll._fdvec import VecOp
from gopoll._park import Awaitable, ParkRequest
from gopoll._sysfd import SysFD

class WritevOp(VecOp): ...

@disjoint_base
class SendFileOp(Op):
    @property
    def written(self) -> int: ...
    def __await__(self) -> Generator[ParkRequest, None, int]: ...

@disjoint_base
class SpliceInOp(Op):
    wait_reason: str

@disjoint_base
class SpliceOutOp(Op):
    wait_reason: str

@disjoint_base
class SpliceOp(Awaitable[int]):
    @property
    def written(self) -> int: ...
    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any: ...
    def close(self) -> None: ...

def descriptor_of(file: HasFileno | int) -> int: ...
def writev(fd: SysFD, buffers: Iterable[ReadableBuffer]) -> WritevOp: ...
def sendfile(
    fd: SysFD, file: HasFileno | int, offset: int | None = 0, count: int | None = None
) -> SendFileOp: ...
def splice_from(dst: SysFD, src: SysFD, count: int | None = None) -> SpliceOp: ...
