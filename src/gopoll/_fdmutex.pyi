from typing_extensions import disjoint_base

from gopoll._polldesc import Note

@disjoint_base
class FdWait(Note): ...
