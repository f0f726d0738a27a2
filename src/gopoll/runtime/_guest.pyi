from collections.abc import Callable
from typing import Any

from typing_extensions import disjoint_base

from gopoll.runtime._exec import ExecBase
from gopoll.runtime._p import MBase

def check_turn(sched: ExecBase, m: MBase, call: str) -> None: ...
def begin_turn(sched: ExecBase, m: MBase) -> None: ...
def end_turn(sched: ExecBase, m: MBase) -> None: ...
def run_turn(
    sched: ExecBase,
    m: MBase,
    budget: int,
    begins: Callable[[Any], object],
    drops: Callable[[Any], object],
) -> int: ...

@disjoint_base
class Pump:
    def __init__(
        self,
        sched: ExecBase,
        m: MBase,
        budget: int,
        begins: Callable[[Any], object],
        drops: Callable[[Any], object],
        looks: Callable[[], object],
    ) -> None: ...
    def __call__(self, *args: object, **kwargs: object) -> None: ...

def has_work(sched: ExecBase) -> bool: ...
