from collections.abc import Awaitable as PyAwaitable
from typing import Any, TypeVar

from _typeshed import ReadableBuffer, WriteableBuffer

from gopoll._fdop import WriteOp
from gopoll._park import Awaitable
from gopoll._sysfd import SysFD

_F = TypeVar("_F", bound=FD)

class FD(SysFD):
    def close(self) -> PyAwaitable[None]: ...
    def wait_closed(self) -> Awaitable[None]: ...
    def _deadline(self, mode: int) -> float | None: ...
    def read(self, n: int = 69632) -> Awaitable[bytes]: ...
    def readinto(self, buffer: WriteableBuffer) -> Awaitable[int]: ...
    def write(self, data: ReadableBuffer) -> WriteOp: ...
    def accept_conn(
        self,
        cls: type[_F],
        *,
        stream: bool = True,
        zero_read_is_eof: bool = True,
        iterate: bool = False,
    ) -> Awaitable[_F]: ...
    def wait_connect(self) -> Awaitable[Any]: ...
