"""SocketTransport: states, order of callbacks, flow control, ends and errors, on TCP and Unix."""

import asyncio
import fcntl
import gc
import mmap
import os
import socket
import struct
import sys
import tempfile
import termios
import tracemalloc
import warnings

import pytest

from embed.same import pair as pairs
from gopoll.embed import aio
from gopoll.embed.aio._transport import SocketTransport


class Record(asyncio.Protocol):
    """Keep what is called, in order."""

    def __init__(self, keep_open=False):
        self.calls = []
        self.data = bytearray()
        self.keep_open = keep_open
        self.lost = asyncio.get_running_loop().create_future()
        self.eof = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.calls.append("made")

    def data_received(self, data):
        self.calls.append("data")
        self.data += data

    def eof_received(self):
        self.calls.append("eof")
        self.eof.set_result(None)
        return self.keep_open

    def pause_writing(self):
        self.calls.append("pause")

    def resume_writing(self):
        self.calls.append("resume")

    def connection_lost(self, exc):
        self.calls.append("lost")
        self.lost.set_result(exc)


@pytest.fixture(params=["tcp", "unix"])
def run(request):
    """Return a function that runs test(protocol, transport, peer) with a connection of ours."""

    def run(test, protocol=Record, debug=False):
        async def main():
            loop = asyncio.get_running_loop()
            told = []
            loop.set_exception_handler(lambda _, context: told.append(context))
            a, b = pairs(request.param)
            with b:
                b.setblocking(False)
                transport, made = await loop.create_connection(protocol, sock=a)
                async with asyncio.timeout(30):
                    await test(made, transport, b)
                transport.abort()
                if not made.lost.done():
                    await made.lost
            return told

        return aio.run(main(), debug=debug)

    return run


async def until(condition):
    """Let the loop go on until condition()."""
    while not condition():
        await asyncio.sleep(0.0005)


async def fill(transport):
    """Write until something waits; return how much was written."""
    n = 0
    while not transport.get_write_buffer_size():
        transport.write(bytes(65536))
        n += 65536
    return n


async def drain(peer, n):
    """Read *n* bytes of *peer*."""
    loop, got = asyncio.get_running_loop(), bytearray()
    while len(got) < n:
        got += await loop.sock_recv(peer, 1 << 20)
    return got


def test_it_is_a_transport_of_asyncio(run):
    async def test(protocol, transport, peer):
        assert isinstance(transport, asyncio.Transport)
        assert transport.get_extra_info("socket").fileno() == transport._sock_fd
        assert transport.get_extra_info("nothing", 3) == 3
        assert transport.get_protocol() is protocol
        assert transport.can_write_eof()
        assert transport.is_reading()
        assert repr(transport).startswith("<SocketTransport fd=")
        assert "read=polling write=<idle, bufsize=0>" in repr(transport)
        transport.pause_reading()
        assert "read=idle" in repr(transport)
        transport.close()
        assert "closing" in repr(transport)
        await protocol.lost
        assert repr(transport).startswith("<SocketTransport closed fd=")
        assert transport.get_protocol() is None

    assert run(test) == []


def test_data_then_end_in_this_order(run):
    async def test(protocol, transport, peer):
        peer.send(b"one")
        await until(lambda: protocol.data == b"one")
        peer.send(b"two")
        peer.shutdown(socket.SHUT_WR)
        assert await protocol.lost is None
        assert protocol.calls == ["made", "data", "data", "eof", "lost"]
        assert protocol.data == b"onetwo"
        assert transport.is_closing()

    assert run(test) == []


def test_half_close(run):
    async def test(protocol, transport, peer):
        peer.shutdown(socket.SHUT_WR)
        await protocol.eof
        transport.write(b"still")
        assert await drain(peer, 5) == b"still"
        transport.write_eof()
        assert await asyncio.get_running_loop().sock_recv(peer, 10) == b""
        with pytest.raises(RuntimeError, match=r"Cannot call write\(\) after write_eof\(\)"):
            transport.write(b"x")
        transport.close()
        assert await protocol.lost is None

    assert run(test, lambda: Record(keep_open=True)) == []


def test_write_eof_comes_after_what_waits(run):
    async def test(protocol, transport, peer):
        n = await fill(transport)
        transport.write_eof()
        await drain(peer, n)
        assert await asyncio.get_running_loop().sock_recv(peer, 10) == b""

    assert run(test) == []


def test_close_sends_what_waits_and_abort_does_not(run):
    async def closed(protocol, transport, peer):
        n = await fill(transport)
        transport.close()
        transport.close()
        assert not protocol.lost.done()
        await drain(peer, n)
        assert await protocol.lost is None

    async def aborted(protocol, transport, peer):
        await fill(transport)
        transport.abort()
        assert transport.get_write_buffer_size() == 0
        assert not protocol.lost.done()  # in a turn of its own
        assert await protocol.lost is None

    assert run(closed) == []
    assert run(aborted) == []


def test_flow_control_of_writing(run):
    async def test(protocol, transport, peer):
        transport.set_write_buffer_limits(high=100_000, low=1000)
        assert transport.get_write_buffer_limits() == (1000, 100_000)
        n = await fill(transport)
        while "pause" not in protocol.calls:
            transport.write(bytes(50_000))
            n += 50_000
        assert transport.get_write_buffer_size() > 100_000
        await drain(peer, n)
        await until(lambda: "resume" in protocol.calls)
        assert protocol.calls == ["made", "pause", "resume"]
        with pytest.raises(ValueError, match="high"):
            transport.set_write_buffer_limits(high=1, low=2)

    assert run(test) == []


def test_pieces_arrive_in_order(run):
    async def test(protocol, transport, peer):
        n = await fill(transport)
        pieces = [os.urandom(i) for i in (1, 70_000, 3, 0, 5000)] * 40
        transport.writelines(pieces[:100])
        for piece in pieces[100:]:
            transport.write(memoryview(piece))
        sent = b"".join(pieces)
        got = await drain(peer, n + len(sent))
        assert got[n:] == sent

    assert run(test) == []


def test_a_bytearray_may_be_changed_after_write(run):
    async def test(protocol, transport, peer):
        n = await fill(transport)
        data = bytearray(b"a" * 1000)
        transport.write(data)
        data[:] = b"b" * 1000
        assert (await drain(peer, n + 1000))[n:] == b"a" * 1000

    assert run(test) == []


def test_what_cannot_be_written(run):
    named = "bytes, bytearray, or memoryview" if sys.version_info >= (3, 14) else "bytes-like"

    async def test(protocol, transport, peer):
        for wrong in ("text", 3, None):
            with pytest.raises(TypeError, match=f"data argument must be a {named} object"):
                transport.write(wrong)
        transport.write(b"")
        transport.writelines([])

    assert run(test) == []


@pytest.mark.parametrize("how", ["close", "abort"])
def test_writes_to_nobody_are_logged_from_the_fifth_on(run, how, caplog):
    """As asyncio's, which counts the loss as one of them."""

    async def test(protocol, transport, peer):
        getattr(transport, how)()
        await protocol.lost
        for _ in range(4):
            transport.write(b"x")
        assert caplog.messages == []
        transport.write(b"x")
        assert caplog.messages == ["socket.send() raised exception."]

    assert run(test) == []


def test_pause_in_data_received_stops_at_once(run):
    class Pauses(Record):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()

    async def test(protocol, transport, peer):
        for i in range(1, 6):
            peer.send(b"x" * 10)
            await until(lambda i=i: len(protocol.data) == 10 * i)
            peer.send(b"y")
            for _ in range(5):
                await asyncio.sleep(0)
            assert len(protocol.data) == 10 * i
            assert not transport.is_reading()
            transport.resume_reading()
            await until(lambda i=i: len(protocol.data) == 10 * i + 1)
            del protocol.data[-1:]
            transport.resume_reading()

    assert run(test, Pauses) == []


SIZES = [1, 8191, 8192, 8193, 1, 8192, 65536, 69631, 69632, 69633, 8192, 300_000, 1, 10_000]


def test_what_is_read_is_what_was_sent_whatever_the_sizes(run):
    """A large read goes straight into what the protocol gets, a small one does not."""

    async def test(protocol, transport, peer):
        sent = bytearray()
        for i, size in enumerate(SIZES * 2):
            data = bytes([i]) * size
            await asyncio.get_running_loop().sock_sendall(peer, data)
            sent += data
            total = len(sent)
            await until(lambda total=total: len(protocol.data) == total)
            assert protocol.data == sent

    assert run(test) == []


def test_a_read_of_nothing_keeps_nothing(run):
    """After a large one: the end of file has memory ready that nobody gets."""

    async def test(protocol, transport, peer):
        peer.send(b"x" * 10_000)
        await until(lambda: len(protocol.data) == 10_000)
        peer.shutdown(socket.SHUT_WR)
        await protocol.eof

    run(test)
    tracemalloc.start()
    try:
        for _ in range(20):
            run(test)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 500_000
    finally:
        tracemalloc.stop()


def test_what_came_while_paused_is_read_after(run):
    """Y2: its edges have come; no other wakes a turn that sleeps over it."""

    async def test(protocol, transport, peer):
        transport.pause_reading()
        transport.pause_reading()
        data = os.urandom(1 << 20)
        task = asyncio.create_task(asyncio.get_running_loop().sock_sendall(peer, data))
        ours = transport.get_extra_info("socket")
        await until(lambda: int.from_bytes(fcntl.ioctl(ours, termios.FIONREAD, bytes(4)), "little"))
        for _ in range(20):  # each asks the poller
            await asyncio.sleep(0)
        assert protocol.data == b""
        transport.resume_reading()
        await task
        peer.shutdown(socket.SHUT_WR)
        assert await protocol.lost is None
        assert protocol.data == data

    assert run(test) == []


def test_a_reset_is_an_error_of_connection_lost():
    async def main():
        loop = asyncio.get_running_loop()
        a, b = pairs("tcp")
        transport, protocol = await loop.create_connection(Record, sock=a)
        b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        b.close()
        assert type(await protocol.lost) is ConnectionResetError
        assert protocol.calls == ["made", "lost"]
        for _ in range(10):
            transport.write(b"into the void")

    aio.run(main())


@pytest.mark.parametrize("method", ["data_received", "eof_received", "pause_writing"])
def test_what_a_protocol_raises_goes_to_the_exception_handler(run, method):
    class Raises(Record):
        pass

    def boom(self, *args):
        raise ValueError("boom")

    setattr(Raises, method, boom)

    async def test(protocol, transport, peer):
        if method == "pause_writing":
            transport.set_write_buffer_limits(high=0)
            await fill(transport)
        else:
            peer.send(b"x" if method == "data_received" else b"")
            peer.shutdown(socket.SHUT_WR)
            assert type(await protocol.lost) is ValueError

    (told,) = run(test, Raises)
    assert type(told["exception"]) is ValueError
    assert f"protocol.{method}() " in told["message"]


class Buffered(asyncio.BufferedProtocol):
    """Take data into a small buffer."""

    def __init__(self, size=7):
        self.buffer = bytearray(size)
        self.data = bytearray()
        self.lost = asyncio.get_running_loop().create_future()

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, n):
        self.data += self.buffer[:n]

    def connection_lost(self, exc):
        self.lost.set_result(exc)


def test_a_buffered_protocol_gets_everything(run):
    async def test(protocol, transport, peer):
        data = os.urandom(1000)
        peer.send(data)
        peer.shutdown(socket.SHUT_WR)
        assert await protocol.lost is None
        assert protocol.data == data

    assert run(test, Buffered) == []


def test_an_empty_buffer_is_an_error(run):
    async def test(protocol, transport, peer):
        peer.send(b"x")
        assert type(await protocol.lost) is RuntimeError

    (told,) = run(test, lambda: Buffered(0))
    assert told["message"] == "Fatal error: protocol.get_buffer() call failed."


class Holed(Buffered):
    """Give a buffer first that ends in missing pages: a mapping of a file that was cut."""

    def __init__(self, there=100 << 10):
        super().__init__(1 << 20)
        with tempfile.TemporaryFile() as file:
            file.truncate(1 << 18)
            self.mapping = mmap.mmap(file.fileno(), 1 << 18)
            file.truncate(there)
        self.counts = []

    def get_buffer(self, sizehint):
        return self.buffer if self.counts else self.mapping

    def buffer_updated(self, n):
        self.data += (self.mapping if not self.counts else self.buffer)[:n]
        self.counts.append(n)


def test_a_missing_page_does_not_hide_what_follows():
    """It cuts a read short as an empty socket does (R1): whose memory it is nobody can say."""

    async def main():
        loop = asyncio.get_running_loop()
        a, b = pairs("tcp")
        data = os.urandom(120 << 10)
        with b:
            b.setblocking(False)
            assert b.send(data) == len(data)
            transport, protocol = await loop.create_connection(Holed, sock=a)
            async with asyncio.timeout(30):
                await until(lambda: len(protocol.data) == len(data))
            assert protocol.data == data
            assert 0 < protocol.counts[0] < 100 << 10, "nothing was cut"
            transport.close()
            await protocol.lost
        protocol.mapping.close()

    aio.run(main())


class Last(bytearray):
    """A buffer whose end, when nobody holds it any more, is a system call that fails."""

    def __del__(self):
        os.path.exists("/nowhere")


class Fleeting(Buffered):
    """Give a new buffer for each read."""

    def get_buffer(self, sizehint):
        kept = Last(7)
        self.buffer = memoryview(kept)  # of the last one: it goes with the next
        return Last(7) if self.data else kept


def test_what_a_buffer_does_when_it_goes_is_no_error_of_the_read(run):
    """After 7 bytes of 7 it reads again, in vain: that is EAGAIN, whatever the errno is then."""

    async def test(protocol, transport, peer):
        peer.send(b"1234567")
        await until(lambda: protocol.data == b"1234567")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        peer.send(b"8")
        await until(lambda: len(protocol.data) == 8)
        assert not protocol.lost.done()

    assert run(test, Fleeting) == []


def test_descriptors_in_a_message_do_not_hide_what_follows():
    """Y3: a message with descriptors cuts a read of a Unix socket short, and no event tells."""

    async def main():
        loop = asyncio.get_running_loop()
        a, b = socket.socketpair()
        with b:
            b.send(b"one")
            socket.send_fds(b, [b"two"], [b.fileno()])
            b.send(b"three")
            transport, protocol = await loop.create_connection(Record, sock=a)
            async with asyncio.timeout(30):
                await until(lambda: protocol.data == b"onetwothree")
            transport.close()
            await protocol.lost

    aio.run(main())


def test_urgent_data_does_not_hide_what_follows():
    """Y3: it cuts a read short, and an event has told of it."""

    async def main():
        loop = asyncio.get_running_loop()
        a, b = pairs("tcp")
        with b:
            transport, protocol = await loop.create_connection(Record, sock=a)
            for i in range(1, 20):
                b.send(b"before")
                b.send(b"!", socket.MSG_OOB)
                b.send(b"after")
                async with asyncio.timeout(30):
                    await until(lambda i=i: protocol.data == b"beforeafter" * i)
            transport.close()
            await protocol.lost

    aio.run(main())


def test_an_unclosed_transport_warns_and_closes_its_socket():
    async def main():
        a, b = pairs("tcp")
        loop = asyncio.get_running_loop()
        await loop.create_connection(Record, sock=a)
        return b

    peer = aio.run(main())
    with peer, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        gc.collect()
    assert any("unclosed transport <SocketTransport fd=" in str(w.message) for w in seen)


def test_a_transport_of_a_closed_loop_can_still_be_closed():
    async def main():
        a, b = pairs("tcp")
        transport, _ = await asyncio.get_running_loop().create_connection(Record, sock=a)
        return transport, b

    transport, peer = aio.run(main())
    with peer:
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            transport.abort()
        transport._sock.close()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            del transport
            gc.collect()
    assert any("unclosed transport" in str(w.message) for w in seen)


def test_many_connections_and_much_data(run):
    async def test(protocol, transport, peer):
        async def echo(reader, writer):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()

        async def client(address, n):
            reader, writer = await asyncio.open_connection(*address)
            data = os.urandom(n)
            writer.write(data)
            assert await reader.readexactly(n) == data
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        await asyncio.gather(*(client(address, 1 + 10_000 * i) for i in range(30)))
        server.close()
        await server.wait_closed()

    assert run(test) == []


def test_in_debug_mode_the_same(run):
    async def test(protocol, transport, peer):
        peer.send(b"one")
        await until(lambda: protocol.data == b"one")
        transport.pause_reading()
        transport.resume_reading()
        n = await fill(transport)
        await drain(peer, n)
        peer.shutdown(socket.SHUT_WR)
        assert await protocol.lost is None

    assert run(test, debug=True) == []


class Named(socket.socket):
    """A class of its own that does nothing in its own way."""


def test_a_socket_that_is_only_named_differently_has_our_transport():
    async def main():
        sock = Named()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            sock.connect(listener.getsockname())
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=sock)
            assert type(transport) is SocketTransport
            transport.abort()

    aio.run(main())
