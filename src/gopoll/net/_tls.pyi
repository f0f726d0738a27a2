import ssl
import threading
from collections.abc import Callable
from typing import Any, final

from _typeshed import ReadableBuffer
from typing_extensions import disjoint_base

from gopoll.net._bufio import BufferedOp
from gopoll.net.conn import Conn
from gopoll.net.tlswait import Waits
from gopoll.runtime._sync import Mutex

@disjoint_base
class TLSState:
    _conn: Conn
    _in: ssl.MemoryBIO
    _out: ssl.MemoryBIO
    _obj: ssl.SSLObject
    _lock: threading.RLock
    _waits: Waits
    _ask_deadline: Callable[[int], float | None] | None
    _hlock: Mutex
    _rlock: Mutex
    _wlock: Mutex
    _ready: bool
    _closed: bool
    _eof: bool
    _wants_read: bool
    _shut: bool
    _notified: bool
    _kicks: int
    def _begin(self, conn: Conn) -> None: ...
    def _kick(self) -> None: ...
    def _has_to_send(self) -> bool: ...
    def _decrypt(self, n: int, view: memoryview | None = None) -> Any: ...
    def _take_bytes(self, n: int) -> bytes: ...
    def read(self, n: int = 65536) -> TLSReadOp: ...
    def write(self, data: ReadableBuffer) -> TLSWriteOp: ...

@final
class TLSReadOp(BufferedOp[bytes]): ...

@final
class TLSWriteOp(BufferedOp[int]):
    @property
    def written(self) -> int: ...
