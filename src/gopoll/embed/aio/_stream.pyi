from typing_extensions import disjoint_base

from gopoll.embed.aio._core import TransportCore

@disjoint_base
class StreamCore(TransportCore): ...
