from asyncio import AbstractEventLoop, Future, Task
from typing import TypeVar

from typing_extensions import disjoint_base

from gopoll._park import Awaitable, ParkRequest

_T = TypeVar("_T", covariant=True)

@disjoint_base
class WaitOp(Awaitable[_T]):
    def throw(
        self,
        kind: BaseException | type[BaseException],
        value: object = None,
        traceback: object = None,
    ) -> ParkRequest: ...
    def close(self) -> None: ...

class Done(Awaitable[None]): ...

@disjoint_base
class Sleeper: ...

def resume(loop: AbstractEventLoop, future: Future[None]) -> None: ...
def complete_future(future: Future[None]) -> None: ...
def cancel_again(task: Task[object]) -> None: ...
