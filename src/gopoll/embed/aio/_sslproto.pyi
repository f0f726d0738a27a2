from asyncio import sslproto
from collections.abc import Callable
from typing import Any

from typing_extensions import disjoint_base

__all__ = ["SSLProtocol", "SSLTransport"]

@disjoint_base
class SSLFlow:
    _app_protocol: Any
    _app_protocol_get_buffer: Callable[[int], Any] | None
    _app_protocol_buffer_updated: Callable[[int], None] | None
    _incoming: Any
    _outgoing: Any
    _loop: Any
    _state: Any
    _write_backlog: Any
    _incoming_high_water: Any
    _incoming_low_water: Any
    _outgoing_high_water: Any
    _outgoing_low_water: Any
    max_size: int
    _write_buffer_size: int
    _conn_lost: int
    _app_protocol_is_buffer: bool
    _app_reading_paused: bool
    _app_writing_paused: bool
    _ssl_reading_paused: bool
    _ssl_writing_paused: bool
    @property
    def _sslobj(self) -> Any: ...
    @_sslobj.setter
    def _sslobj(self, obj: Any) -> None: ...
    @property
    def _transport(self) -> Any: ...
    @_transport.setter
    def _transport(self, lower: Any) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def buffer_updated(self, nbytes: int) -> None: ...

class SSLProtocol(SSLFlow, sslproto.SSLProtocol):
    def __init__(self, *args: Any, **options: Any) -> None: ...

class SSLTransport(sslproto._SSLProtocolTransport): ...
