from typing import Any, final

from gopoll.runtime._chan import Case
from gopoll.runtime._waitq import WaitOp

@final
class SelectOp(WaitOp[tuple[int, Any]]):
    wait_reason: str
    def __call__(self) -> None: ...

def select(
    *cases: Case | None, default: bool = False, timeout: float | None = None
) -> SelectOp: ...
