from collections.abc import Generator
from typing import Generic, TypeVar

from typing_extensions import disjoint_base

_T = TypeVar("_T", covariant=True)

@disjoint_base
class ParkRequest:
    def commit(self, waiter: object) -> bool: ...
    def abort(self, waiter: object) -> bool: ...

class SliceEnd(ParkRequest): ...

@disjoint_base
class Awaitable(ParkRequest, Generic[_T]):
    def __await__(self) -> Generator[ParkRequest, None, _T]: ...
    def __iter__(self) -> Generator[ParkRequest, None, _T]: ...
