from collections.abc import Awaitable as PyAwaitable
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from typing_extensions import disjoint_base

from gopoll._park import Awaitable
from gopoll.runtime._context import Context
from gopoll.runtime._g import GBase

@disjoint_base
class Entered(Awaitable[Any]): ...

@disjoint_base
class Deadline:
    def __init__(self, when: float | None) -> None: ...
    @property
    def context(self) -> Context | None: ...
    @property
    def when(self) -> float | None: ...
    def reschedule(self, when: float | None) -> None: ...
    def __aenter__(self) -> PyAwaitable[Self]: ...
    def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> PyAwaitable[None]: ...

def step_in(what: str, make: Callable[[Context], Context]) -> tuple[GBase, Context]: ...
def step_out(ctx: Context, g: GBase) -> bool: ...
