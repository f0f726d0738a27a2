from collections.abc import Generator

from typing_extensions import disjoint_base

from gopoll._fdop import Op
from gopoll._park import ParkRequest

@disjoint_base
class Vec: ...

@disjoint_base
class VecOp(Op):
    @property
    def written(self) -> int: ...
    def __await__(self) -> Generator[ParkRequest, None, int]: ...
