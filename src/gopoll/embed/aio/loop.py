"""EventLoop: an asyncio event loop on gopoll. new_event_loop() is a loop_factory.

Called by whoever drives a loop, on the loop's thread. What asyncio's own selector loop does for
Unix is inherited: addresses, servers, pipes, signals, subprocesses. What is done for each packet,
callback and turn is LoopCore's, StreamCore's, DatagramCore's and SockOp's; for each connection,
NetCalls'.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import selectors
import socket
import sys
import warnings
from asyncio import (
    base_events,
    format_helpers,
    futures,
    unix_events,
)
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from gopoll.embed.aio._endpoint import DatagramTransport
from gopoll.embed.aio._loop import LoopCore
from gopoll.embed.aio._net import NetCalls
from gopoll.embed.aio._sockop import SockCalls
from gopoll.embed.aio._transport import SocketTransport, Transports
from gopoll.embed.selector import NetpollSelector

if TYPE_CHECKING:
    from ssl import SSLContext

    from _typeshed import FileDescriptorLike

_T = TypeVar("_T")

__all__ = ["EventLoop", "new_event_loop", "run"]


class _Selector(NetpollSelector):
    """The loop's selector: a descriptor that sock_* has registered gives way to add_reader()."""

    def __init__(self) -> None:
        super().__init__()
        self.loop: EventLoop | None = None

    def register(
        self, fileobj: FileDescriptorLike, events: int, data: Any = None
    ) -> selectors.SelectorKey:
        if self.loop is not None:
            with contextlib.suppress(AttributeError, TypeError, ValueError):  # it says so itself
                fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
                self.loop._give_up_sock(fd, events)
        return super().register(fileobj, events, data)

    def close(self) -> None:
        self.loop = None
        super().close()


@contextlib.contextmanager
def _held(sock: socket.socket) -> Iterator[None]:
    """Keep *sock* open: a close() by its owner comes into effect at the end."""
    if not isinstance(sock, socket.socket):
        yield
        return
    sock._io_refs += 1
    try:
        yield
    finally:
        sock._decref_socketios()


def _hand_over(reader: Any, tls: Any) -> None:
    """What a client has sent behind its STARTTLS is the handshake's, as of Python 3.14."""
    if reader is not None and reader._buffer:
        tls._incoming.write(reader._buffer)
        reader._buffer.clear()


def _has_child_watcher() -> bool:
    """Whether the policy has what asyncio waits for processes with; since 3.14 it needs none."""
    if sys.version_info < (3, 14):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                asyncio.get_child_watcher()
            except NotImplementedError:
                return False
    return True


class EventLoop(NetCalls, SockCalls, LoopCore, unix_events._UnixSelectorEventLoop):
    """An asyncio event loop whose turns, callbacks and stream transports are gopoll's.

    It does what asyncio.SelectorEventLoop does on Unix, in less time. Transports and handles are
    instances of asyncio's classes, tasks and futures are asyncio's own.
    """

    def __init__(self) -> None:
        self._closed = True  # for __del__, which would close what is not there yet
        selector = _Selector()
        selector.loop = self
        try:
            super().__init__(selector)
        except BaseException:
            self._closed = True
            selector.close()
            raise
        self._transports = Transports()

    def close(self) -> None:
        """Close the loop, which does not run; a second call does nothing."""
        super().close()
        self._forget_watchers()

    def _process_events(self, event_list: Any) -> NoReturn:
        raise NotImplementedError("events come to _run_once()")

    # -- transports

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: asyncio.BaseProtocol,
        sslcontext: Any,
        waiter: Any = None,
        *,
        extra: Any = None,
        server: Any = None,
        context: Any = None,
        **options: Any,
    ) -> asyncio.Transport:
        from gopoll.embed.aio._sslproto import SSLProtocol  # which wants ssl

        tls = SSLProtocol(self, protocol, sslcontext, waiter, **options)
        self._make_socket_transport(rawsock, tls, extra=extra, server=server, context=context)
        transport: asyncio.Transport = tls._app_transport
        return transport

    async def start_tls(
        self,
        transport: Any,
        protocol: asyncio.BaseProtocol,
        sslcontext: SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> asyncio.Transport:
        """Return a transport that speaks TLS over *transport*, which is to be left alone then."""
        import ssl

        from gopoll.embed.aio._sslproto import SSLProtocol

        if not isinstance(sslcontext, ssl.SSLContext):
            raise TypeError(
                f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}"
            )
        if not getattr(transport, "_start_tls_compatible", False):
            raise TypeError(f"transport {transport!r} is not supported by start_tls()")
        if transport.is_closing() and transport.get_protocol() is None:  # it has ended
            raise ConnectionResetError(f"cannot start TLS over {transport!r}, which is closed")
        shaken = self.create_future()
        tls = SSLProtocol(
            self,
            protocol,
            sslcontext,
            shaken,
            server_side,
            server_hostname,
            call_connection_made=False,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        transport.pause_reading()  # nothing is to come before connection_made()
        if server_side and isinstance(protocol, asyncio.StreamReaderProtocol):
            _hand_over(getattr(protocol, "_stream_reader", None), tls)
        transport.set_protocol(tls)
        begin = [
            self.call_soon(tls.connection_made, transport),
            self.call_soon(transport.resume_reading),
        ]
        try:
            await shaken
        except BaseException:
            transport.close()
            for handle in begin:
                handle.cancel()
            raise
        upgraded: asyncio.Transport = tls._app_transport
        return upgraded

    def _make_datagram_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        address: Any = None,
        waiter: Any = None,
        extra: Any = None,
    ) -> DatagramTransport:
        self._ensure_fd_no_transport(sock)
        return DatagramTransport(self, sock, protocol, address, waiter, extra)

    def _settle_when_ready(self, fd: int, writes: bool, future: asyncio.Future[None]) -> None:
        """Settle *future* when *fd* is ready, level-triggered, in the place of who waits there."""
        done = futures._set_result_unless_cancelled
        if writes:
            handle = self._add_writer(fd, done, future, None)
            future.add_done_callback(functools.partial(self._sock_write_done, fd, handle=handle))
        else:
            handle = self._add_reader(fd, done, future, None)
            future.add_done_callback(functools.partial(self._sock_read_done, fd, handle=handle))

    async def _sendfile_native(self, transp: Any, file: Any, offset: int, count: Any) -> Any:
        if not isinstance(transp, SocketTransport):
            return await super()._sendfile_native(transp, file, offset, count)
        waiter, sock, resume = transp._make_empty_waiter(), transp._sock, transp.is_reading()
        transp.pause_reading()
        try:
            await waiter
            with _held(sock):  # an abort() shuts it down, which ends the sending
                del self._transports[transp._sock_fd]
                transp._lend()
                try:
                    return await self.sock_sendfile(sock, file, offset, count, fallback=False)
                finally:
                    transp._take_back()
                    if transp._sock is not None:
                        self._transports[transp._sock_fd] = transp
        finally:
            transp._reset_empty_waiter()
            if resume:
                transp.resume_reading()

    async def _connect_looked_up(self, sock: socket.socket, address: Any) -> None:
        """Connect *sock* as asyncio does, which keeps it open until that has ended (Y5)."""
        with _held(sock):
            await unix_events._UnixSelectorEventLoop.sock_connect(self, sock, address)

    # -- subprocesses

    async def _make_subprocess_transport(self, protocol: Any, *args: Any, **kwargs: Any) -> Any:
        if _has_child_watcher():
            return await super()._make_subprocess_transport(protocol, *args, **kwargs)
        return await self._watch_subprocess(protocol, *args, **kwargs)

    async def _watch_subprocess(self, protocol: Any, *args: Any, **kwargs: Any) -> Any:
        """Start a process and wait for its end by its pidfd, whatever the policy."""
        waiter = self.create_future()
        transport = unix_events._UnixSubprocessTransport(
            self, protocol, *args, waiter=waiter, **kwargs
        )
        watcher = unix_events.PidfdChildWatcher()
        watcher.attach_loop(self)
        pid = transport.get_pid()
        try:
            watcher.add_child_handler(pid, self._process_exited, transport)
        except OSError:  # no pidfd: of the kernel, or of this process's limits
            threads = unix_events.ThreadedChildWatcher()
            threads.add_child_handler(pid, self._process_exited, transport)
        try:
            await waiter
        except BaseException as exc:
            if not isinstance(exc, (SystemExit, KeyboardInterrupt)):
                transport.close()
                await transport._wait()
            raise
        return transport

    def _process_exited(self, pid: int, status: int, transport: Any) -> None:
        self.call_soon_threadsafe(transport._process_exited, status)

    # -- callbacks

    def _handle_failed(self, handle: Any, exc: BaseException) -> None:
        """Tell the exception handler that *handle* has raised *exc*."""
        options = {"debug": self._debug} if sys.version_info >= (3, 13) else {}
        called = format_helpers._format_callback_source(handle._callback, handle._args, **options)
        context = {"message": f"Exception in callback {called}", "exception": exc, "handle": handle}
        if handle._source_traceback:
            context["source_traceback"] = handle._source_traceback
        self.call_exception_handler(context)

    def _run_in_debug(self, handle: Any) -> None:
        """Run *handle* as asyncio does in debug mode."""
        since = self.time()
        self._current_handle = handle
        try:
            handle._run()
        finally:
            self._current_handle = None
        self._tell_slow(handle, self.time() - since)
        handle = None  # an error that it ended with may keep this frame: that would be a cycle

    def _tell_slow(self, what: Any, seconds: float) -> None:
        """Log *what*, a handle or a Watcher, if it was slow."""
        if seconds >= self.slow_callback_duration:
            name = base_events._format_handle(what) if hasattr(what, "_callback") else repr(what)
            base_events.logger.warning("Executing %s took %.3f seconds", name, seconds)


def _mark_coroutine_functions(kind: type, names: str) -> None:
    """Have mock, and whoever asks asyncio, take methods that return coroutines for async ones."""
    for name in names.split():
        function: Any = vars(kind)[name]
        if sys.version_info >= (3, 12):
            inspect.markcoroutinefunction(function)
        else:
            function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]


_mark_coroutine_functions(NetCalls, "create_connection create_unix_connection")
_mark_coroutine_functions(
    SockCalls,
    "sock_recv sock_recv_into sock_sendall sock_recvfrom sock_recvfrom_into sock_sendto "
    "sock_accept sock_connect",
)


def new_event_loop() -> EventLoop:
    """Return a new EventLoop."""
    return EventLoop()


def run(main: Coroutine[Any, Any, _T], *, debug: bool | None = None) -> _T:
    """Run the coroutine *main* on a new EventLoop and return its result, as asyncio.run() does."""
    if asyncio._get_running_loop() is not None:  # or the Runner fails, and then its close() does
        raise RuntimeError("aio.run() cannot be called from a running event loop: await main there")
    with asyncio.Runner(debug=debug, loop_factory=new_event_loop) as runner:
        return runner.run(main)
