from typing_extensions import disjoint_base

from gopoll._fdop import Op

@disjoint_base
class AcceptOp(Op): ...

class ConnectOp(Op): ...
