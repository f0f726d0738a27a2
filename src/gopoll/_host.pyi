from collections.abc import Awaitable, Callable
from typing import Any

from typing_extensions import disjoint_base

from gopoll._park import Awaitable as Op
from gopoll._park import HostBase, ParkRequest
from gopoll._pollerbase import PollerBase

CLOSED: str
FORKED: str

@disjoint_base
class HostLink(HostBase):
    def __init__(
        self,
        poller: PollerBase,
        make_future: Callable[
            [], tuple[Awaitable[Any], Callable[[Any], object], Callable[[BaseException], object]]
        ],
        comes_again: Callable[[BaseException], bool],
        create_future: Callable[[], Awaitable[Any]] | None = None,
    ) -> None: ...
    @property
    def is_closed(self) -> bool: ...
    @property
    def waiting(self) -> int: ...
    def enter_thread(self) -> None: ...
    def leave_thread(self) -> None: ...

@disjoint_base
class HostWaiter:
    def __call__(self, *args: object, **kwargs: object) -> None: ...

class Turn(ParkRequest): ...

@disjoint_base
class HostAwait(Op[Any]):
    def send(self, value: object) -> Any: ...
    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any: ...
    def close(self) -> None: ...
