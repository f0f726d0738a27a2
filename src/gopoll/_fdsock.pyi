from typing_extensions import disjoint_base

from gopoll._fdop import Op
from gopoll._park import Awaitable

@disjoint_base
class AcceptOp(Op): ...

class ConnectOp(Op): ...

@disjoint_base
class ClosingOp(Awaitable[None]): ...
