import asyncio
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn

from typing_extensions import Buffer, disjoint_base

from gopoll._park import Awaitable
from gopoll.embed.aio._loop import LoopCore, Watcher

@disjoint_base
class SockWatcher(Watcher):
    def __init__(self, loop: LoopCore, sock: socket.socket, fd: int) -> None: ...

@disjoint_base
class SockOp(Awaitable[Any]):
    def __init__(self, loop: LoopCore, sock: socket.socket) -> None: ...
    @property
    def __name__(self) -> str: ...
    def __del__(self) -> None: ...
    def send(self, value: None) -> asyncio.Future[None]: ...
    def throw(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
    ) -> NoReturn: ...
    def close(self) -> None: ...

@disjoint_base
class RecvOp(SockOp):
    def __init__(self, loop: LoopCore, sock: socket.socket, n: int) -> None: ...

@disjoint_base
class RecvIntoOp(SockOp):
    def __init__(self, loop: LoopCore, sock: socket.socket, buf: Buffer) -> None: ...

@disjoint_base
class SendallOp(SockOp):
    def __init__(self, loop: LoopCore, sock: socket.socket, data: Buffer) -> None: ...

@disjoint_base
class CallOp(SockOp):
    def __init__(
        self,
        loop: LoopCore,
        sock: socket.socket,
        called: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        writes: bool,
    ) -> None: ...

class SockCalls:
    def sock_recv(self, sock: socket.socket, n: int) -> Any: ...
    def sock_recv_into(self, sock: socket.socket, buf: Buffer) -> Any: ...
    def sock_sendall(self, sock: socket.socket, data: Buffer) -> Any: ...
    def sock_recvfrom(self, sock: socket.socket, bufsize: int) -> Any: ...
    def sock_recvfrom_into(self, sock: socket.socket, buf: Buffer, nbytes: int = 0) -> Any: ...
    def sock_sendto(self, sock: socket.socket, data: Buffer, address: Any) -> Any: ...
    def sock_accept(self, sock: socket.socket) -> Any: ...
