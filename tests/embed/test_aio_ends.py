"""Ends of a SocketTransport that come from inside a callback, a flush or a sendfile."""

import asyncio
import os
import socket
import struct
import tempfile

import pytest

from embed.same import drain
from gopoll.embed import aio


class Told(asyncio.Protocol):
    """Keep the end, and what the loop's exception handler is told."""

    def __init__(self):
        loop = asyncio.get_running_loop()
        self.errors = []
        self.lost = loop.create_future()
        loop.set_exception_handler(lambda _, context: self.errors.append(context["exception"]))

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, exc):
        self.lost.set_result(exc)


async def connect(protocol=Told, kind="unix"):
    """Return (transport, protocol, peer), which are connected."""
    if kind == "unix":
        a, peer = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            a = socket.create_connection(listener.getsockname())
            peer, _ = listener.accept()
    peer.setblocking(False)
    transport, made = await asyncio.get_running_loop().create_connection(protocol, sock=a)
    return transport, made, peer


def run(main):
    """Run main() on a loop of ours, for 30 s at most."""

    async def limited():
        async with asyncio.timeout(30):
            await main()

    aio.run(limited())


def take(peer):
    """Read what *peer* has; return its size."""
    n = 0
    try:
        while data := peer.recv(1 << 20):
            n += len(data)
    except BlockingIOError:
        pass
    return n


def test_connection_lost_after_a_backlog_may_raise():
    class Raises(Told):
        def connection_lost(self, exc):
            super().connection_lost(exc)
            raise ValueError("boom")

    async def main():
        transport, protocol, peer = await connect(Raises)
        with peer:
            transport.write(bytes(3_000_000))
            transport.close()
            while not protocol.lost.done():
                take(peer)
                await asyncio.sleep(0)
        while not protocol.errors:
            await asyncio.sleep(0)
        assert [type(error) for error in protocol.errors] == [ValueError]

    run(main)


def test_a_reset_before_the_shutdown_of_write_eof_ends_the_connection():
    peer = None

    class Resets(Told):
        def resume_writing(self):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()

    async def main():
        nonlocal peer
        transport, protocol, peer = await connect(Resets, "tcp")
        transport.set_write_buffer_limits(high=1000, low=0)
        transport.pause_reading()
        transport.write(bytes(8_000_000))
        transport.write_eof()
        while peer.fileno() >= 0:
            take(peer)
            await asyncio.sleep(0)
        assert isinstance(await protocol.lost, OSError)
        assert protocol.errors == []

    run(main)


@pytest.mark.parametrize("how", ["data", "data raises", "data raises OSError", "eof", "buffer"])
def test_a_callback_sends_the_last_of_a_closed_transport(how):
    peer = None

    class Last(Told):
        def last(self):
            self.transport.write(bytes(1_000_000))
            self.transport.close()
            while self.transport.get_write_buffer_size():
                take(peer)
                self.transport.writelines([b"x"])
            if "raises" in how:
                raise (OSError if "OSError" in how else ValueError)(how)

        def data_received(self, data):
            self.last()

        def eof_received(self):
            if how == "eof":
                self.last()

    class LastBuffered(Last, asyncio.BufferedProtocol):
        def get_buffer(self, sizehint):
            self.last()
            return bytearray(10)

        def buffer_updated(self, n):
            pass

    async def main():
        nonlocal peer
        _, protocol, peer = await connect(LastBuffered if how == "buffer" else Last)
        with peer:
            if how == "eof":
                peer.shutdown(socket.SHUT_WR)
            else:
                peer.send(b"x")
            assert await protocol.lost is None
        assert [type(error) for error in protocol.errors] == [ValueError] * (how == "data raises")

    run(main)


def test_the_end_of_file_is_told_again_after_an_interrupt():
    class Interrupted(Told):
        told = 0

        def eof_received(self):
            self.told += 1
            if self.told == 1:
                raise KeyboardInterrupt

    with asyncio.Runner(loop_factory=aio.new_event_loop) as runner:
        loop = runner.get_loop()
        _, protocol, peer = loop.run_until_complete(connect(Interrupted))
        with peer:
            peer.shutdown(socket.SHUT_WR)
            with pytest.raises(KeyboardInterrupt):
                loop.run_forever()
            assert loop.run_until_complete(asyncio.wait_for(protocol.lost, 30)) is None
        assert protocol.told == 2


def test_a_connection_that_closes_does_so_after_an_interrupt_of_resume_writing():
    class Interrupted(Told):
        def resume_writing(self):
            raise KeyboardInterrupt

    with asyncio.Runner(loop_factory=aio.new_event_loop) as runner:
        loop = runner.get_loop()
        transport, protocol, peer = loop.run_until_complete(connect(Interrupted))
        with peer:
            transport.set_write_buffer_limits(0)
            transport.write(bytes(20_000_000))
            transport.close()
            draining = loop.create_task(drain(peer))
            with pytest.raises(KeyboardInterrupt):
                loop.run_forever()
            assert loop.run_until_complete(asyncio.wait_for(protocol.lost, 30)) is None
            assert loop.run_until_complete(asyncio.wait_for(draining, 30)) == 20_000_000


@pytest.fixture
def file():
    """A file of 3 MB."""
    with tempfile.TemporaryFile() as file:
        os.truncate(file.fileno(), 3_000_000)
        yield file


def test_a_cancelled_sendfile_that_has_not_begun_leaves_the_transport_as_it_was(file):
    async def main():
        transport, _, peer = await connect()
        with peer:
            transport.write(bytes(1_000_000))
            task = asyncio.create_task(asyncio.get_running_loop().sendfile(transport, file))
            while transport.is_reading():
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert transport.is_reading()
            transport.write(b"x")
            transport.abort()
            await asyncio.sleep(0)

    run(main)


def test_abort_ends_a_sendfile(file):
    async def main():
        transport, protocol, peer = await connect()
        with peer:
            sock = transport.get_extra_info("socket")
            task = asyncio.create_task(asyncio.get_running_loop().sendfile(transport, file))
            while transport.is_reading():
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            transport.abort()
            assert await protocol.lost is None
            with pytest.raises(ConnectionError):
                await task
            assert sock.fileno() == -1

    run(main)


def test_a_wait_is_dropped_after_the_loop_is_closed():
    loop = aio.new_event_loop()
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        operation = loop.sock_recv(a, 10)

        async def wait():
            await operation

        task = loop.create_task(wait())
        loop.run_until_complete(asyncio.sleep(0))  # it was made first, so it waits by then
        assert a._io_refs == 1
        task._log_destroy_pending = False
        loop.close()
        operation.close()
        assert a._io_refs == 0
