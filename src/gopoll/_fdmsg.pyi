from collections.abc import Iterable
from typing import Any, TypeAlias

from _typeshed import ReadableBuffer, StrOrBytesPath, WriteableBuffer
from typing_extensions import disjoint_base

from gopoll._fdop import Op, ReadIntoOp, WriteOp
from gopoll._fdvec import VecOp
from gopoll._park import Awaitable, ParkRequest
from gopoll._sysfd import SysFD

_To: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | StrOrBytesPath

@disjoint_base
class ReadFromOp(Op):
    wait_reason: str

class ReadIntoFromOp(ReadIntoOp):
    wait_reason: str

@disjoint_base
class RecvMsgOp(Op):
    wait_reason: str

@disjoint_base
class Nap(ParkRequest):
    wait_reason: str

@disjoint_base
class WriteToOp(WriteOp):
    wait_reason: str

@disjoint_base
class SendMsgOp(VecOp):
    wait_reason: str

def read_from(fd: SysFD, n: int = 65536) -> Awaitable[tuple[bytes, Any]]: ...
def readinto_from(fd: SysFD, buffer: WriteableBuffer) -> Awaitable[tuple[int, Any]]: ...
def recvmsg(
    fd: SysFD, n: int, ancbufsize: int = 0, flags: int = 0
) -> Awaitable[tuple[bytes, list[tuple[int, int, bytes]], int, Any]]: ...
def write_to(fd: SysFD, data: ReadableBuffer, addr: _To) -> WriteToOp: ...
def sendmsg(
    fd: SysFD,
    buffers: Iterable[ReadableBuffer],
    ancdata: Iterable[tuple[int, int, ReadableBuffer]] = (),
    flags: int = 0,
    addr: _To | None = None,
) -> SendMsgOp: ...
