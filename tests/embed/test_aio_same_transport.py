"""Transports of streams, beside asyncio's own: the same programs, the same outcome."""

import array
import asyncio
import contextvars
import io
import socket
import struct
import sys
import tempfile

from embed.same import Told, connect, drain, same, turns, until

RESET = struct.pack("ii", 1, 0)


def reset(peer):
    """Close *peer* with a reset."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    peer.close()


# -- writing


@same
async def test_what_write_says_of_wrong_data(loop, say):
    transport, protocol, peer = await connect(say)
    with peer:
        for data in ("text", None, 3, [b"x"], array.array("b", [1])):
            say.call(transport.write, data)
        for data in (b"", bytearray(), memoryview(b"")):
            say.call(transport.write, data)
        say.call(transport.writelines, [])
        transport.close()
        await protocol.lost


@same
async def test_odd_views_are_written_as_they_are(loop, say):
    transport, protocol, peer = await connect(say)
    with peer:
        transport.write(memoryview(array.array("I", [1, 2, 3])))
        transport.write(memoryview(bytes(range(6))).cast("B", (2, 3)))
        transport.write(bytearray(b"array"))
        transport.writelines([b"", memoryview(b"view"), bytearray(b"more"), b"", b"end"])
        transport.writelines([memoryview(b"")])
        transport.writelines([b"one"])
        transport.close()
        await protocol.lost
        say(await loop.sock_recv(peer, 1000))


@same
async def test_a_view_with_gaps_is_an_error(loop, say):
    transport, protocol, peer = await connect(say)
    with peer:
        say.call(transport.write, memoryview(b"0123456789")[::2])
        await protocol.lost


@same
async def test_writes_after_each_kind_of_end(loop, say):
    for end in ("close", "abort", "write_eof"):
        transport, protocol, peer = await connect(say)
        with peer:
            say(end)
            getattr(transport, end)()
            for _ in range(3):
                say.call(transport.write, b"late")
                if end == "write_eof":  # after the others 3.12 and 3.13 stumble over their state
                    say.call(transport.writelines, [b"late"])
                say.call(transport.write_eof)
                say.call(transport.get_write_buffer_size)
                say(transport.is_closing(), transport.is_reading())
                await turns()
            transport.abort()
            await protocol.lost
            say(transport.is_closing(), transport.get_protocol() is None)
            for name in ("close", "abort", "pause_reading", "resume_reading", "write_eof"):
                say.call(getattr(transport, name))


@same
async def test_limits_of_the_write_buffer(loop, say):
    transport, protocol, peer = await connect(say)
    with peer:
        for limits in (
            {},
            {"high": 0},
            {"low": 5},
            {"high": 100, "low": 7},
            {"high": 1e6},
            {"high": 1, "low": 2},
            {"high": -1},
            {"low": -4},
        ):
            say.call(transport.set_write_buffer_limits, **limits)
            say(transport.get_write_buffer_limits())
        say.call(transport.set_write_buffer_limits, high=float("inf"))
        say.call(transport.set_write_buffer_limits, high=1 << 80)
        transport.abort()
        await protocol.lost


@same
async def test_a_very_large_write_and_the_end_behind_it(loop, say):
    transport, protocol, peer = await connect(say)
    with peer:
        transport.write(bytes(30_000_000))
        transport.write(b"x")
        say(transport.get_write_buffer_size() > 0)
        transport.close()
        transport.write(b"y")
        say(await drain(peer))
        await protocol.lost


@same
async def test_flow_control_tells_once_each(loop, say):
    transport, protocol, peer = await connect(say)
    with peer:
        transport.set_write_buffer_limits(high=1000)
        for _ in range(5):
            transport.write(bytes(5_000_000))
        transport.write_eof()
        say(await drain(peer))
        await turns()
        transport.close()
        await protocol.lost


@same
async def test_abort_in_the_midst_of_a_write(loop, say):
    transport, protocol, peer = await connect(say)
    with peer:
        transport.write(bytes(30_000_000))
        transport.abort()
        say(transport.get_write_buffer_size())
        await protocol.lost


@same
async def test_a_peer_that_resets_what_waits(loop, say):
    transport, protocol, peer = await connect(say)
    transport.pause_reading()
    transport.write(bytes(30_000_000))
    reset(peer)
    await protocol.lost
    for _ in range(8):
        transport.write(b"late")


@same
async def test_what_flow_control_raises(loop, say):
    class Raises(Told):
        def pause_writing(self):
            raise ValueError("pause")

        def resume_writing(self):
            raise ValueError("resume")

    transport, protocol, peer = await connect(say, Raises)
    with peer:
        say.call(transport.set_write_buffer_limits, 10)
        say.call(transport.write, bytes(30_000_000))
        transport.close()
        say(await drain(peer))
        await protocol.lost


# -- reading and ends


@same
async def test_data_and_end(loop, say):
    for kind in ("tcp", "unix"):
        _, protocol, peer = await connect(say, kind=kind)
        with peer:
            peer.send(b"one")
            await until(lambda p=protocol: p.data == b"one")
            peer.send(b"two")
            peer.close()
            await protocol.lost


@same
async def test_half_close_with_what_is_written_after(loop, say):
    class Open(Told):
        keep_open = True

    transport, protocol, peer = await connect(say, Open)
    with peer:
        peer.send(b"question")
        peer.shutdown(socket.SHUT_WR)
        await turns()
        await asyncio.sleep(0.01)
        say(transport.is_closing(), transport.is_reading(), transport.can_write_eof())
        transport.write(b"answer")
        transport.write_eof()
        say(await loop.sock_recv(peer, 100), await loop.sock_recv(peer, 100))
        transport.close()
        await protocol.lost


@same
async def test_ends_from_within_connection_made(loop, say):
    for end in ("close", "abort", "pause_reading", "write_eof", "raise"):

        class Ends(Told):
            def connection_made(self, transport, end=end):
                super().connection_made(transport)
                transport.write(b"hello")
                if end == "raise":
                    raise ValueError(end)
                getattr(transport, end)()

        say(end)
        transport, protocol, peer = await connect(say, Ends)
        with peer:
            peer.send(b"data")
            await asyncio.sleep(0.02)
            say(protocol.data, transport.is_reading())
            transport.close()
            await protocol.lost
            say(await drain(peer))


@same
async def test_pause_and_resume_within_data_received(loop, say):
    class Pauses(Told):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()
            self.transport.resume_reading()
            self.transport.pause_reading()

    transport, protocol, peer = await connect(say, Pauses)
    with peer:
        peer.send(b"a")
        await until(lambda: protocol.data == b"a")
        peer.send(b"b")
        peer.shutdown(socket.SHUT_WR)
        await asyncio.sleep(0.01)
        say(protocol.data, transport.is_reading())
        transport.resume_reading()
        await until(lambda: protocol.data == b"ab")
        transport.resume_reading()
        await protocol.lost


@same
async def test_what_is_ready_runs_before_what_resume_reading_brings(loop, say):
    """Y2: who resumes reads after the next poll."""
    for kind in ("tcp", "unix"):
        for seconds in (0.02, 0):  # a turn has told of the data before; this one's poll has
            transport, protocol, peer = await connect(say, kind=kind)
            with peer:
                transport.pause_reading()
                await turns()
                peer.send(b"a")
                await asyncio.sleep(seconds)
                transport.resume_reading()
                loop.call_soon(protocol.tell, "called")
                await asyncio.sleep(0.02)
                transport.close()
                await protocol.lost


@same
async def test_what_a_protocol_raises(loop, say):
    for error in (ValueError, OSError, ConnectionResetError, asyncio.CancelledError):
        for method in ("data_received", "eof_received", "connection_lost"):

            class Raises(Told):
                pass

            def boom(self, *args, error=error, method=method):
                if method == "connection_lost":
                    self.lost.set_result(None)
                raise error("boom")

            setattr(Raises, method, boom)
            say(method)
            _, protocol, peer = await connect(say, Raises)
            with peer:
                peer.send(b"data")
                peer.shutdown(socket.SHUT_WR)
                await protocol.lost
            await turns()


def _interrupts(method):
    """Return a program in which *method* of a protocol raises what ends loops."""

    def program(loop, say):
        for error in (KeyboardInterrupt, SystemExit):

            class Raises(Told):
                pass

            def boom(self, *args, error=error):
                setattr(Raises, method, getattr(Told, method))
                raise error("stop")

            setattr(Raises, method, boom)

            async def main(cls=Raises):
                transport, protocol, peer = await connect(say, cls)
                try:
                    if method in ("data_received", "eof_received"):
                        peer.send(b"data")
                        peer.shutdown(socket.SHUT_WR)
                    elif method == "pause_writing":
                        transport.write(bytes(30_000_000))
                    else:
                        transport.abort()
                    await asyncio.wait([protocol.lost], timeout=0.05)
                finally:
                    transport.abort()
                    peer.close()

            task = loop.create_task(main())
            try:
                loop.run_until_complete(task)
            except BaseException as exc:
                say("out of the loop", exc)
            try:
                loop.run_until_complete(asyncio.wait([task], timeout=5))
                say(task.exception())
            except BaseException as exc:
                say("out of the loop again", exc)

    return program


for _method in ("connection_made", "data_received", "pause_writing", "connection_lost"):
    _program = _interrupts(_method)
    _program.__name__ = f"test_what_ends_loops_in_{_method}"
    globals()[_program.__name__] = same(_program)


# -- protocols


@same
async def test_protocols_may_be_changed_while_data_comes(loop, say):
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self, back):
            self.back, self.buffer = back, bytearray(4)

        def get_buffer(self, sizehint):
            say("get_buffer", sizehint)
            return self.buffer

        def buffer_updated(self, n):
            say("updated", bytes(self.buffer[:n]))
            self.back.transport.set_protocol(self.back)

    class Plain(Told):
        def data_received(self, data):
            say("data", data)
            self.transport.set_protocol(Buffered(self))

    transport, protocol, peer = await connect(say, Plain)
    with peer:
        for i in range(6):
            peer.send(b"%d" % i)
            await asyncio.sleep(0.005)
        transport.set_protocol(protocol)
        say(transport.get_protocol() is protocol)
        peer.close()
        await protocol.lost


@same
async def test_what_a_buffered_protocol_does_wrong(loop, say):
    def raises(*args):
        raise ValueError("no buffer")

    for wrong in (
        {"get_buffer": lambda self, n: bytearray()},
        {"get_buffer": lambda self, n: b"read only"},
        {"get_buffer": lambda self, n: None},
        {"get_buffer": lambda self, n: "text"},
        {"get_buffer": raises},
        {"get_buffer": lambda self, n: bytearray(10), "buffer_updated": raises},
        {"get_buffer": lambda self, n: self.transport.close() or bytearray(10)},
        {"get_buffer": lambda self, n: self.transport.abort() or bytearray(10)},
    ):
        methods = {"buffer_updated": lambda self, n: say("updated", n)} | wrong
        cls = type("Wrong", (Told, asyncio.BufferedProtocol), methods)
        _, protocol, peer = await connect(say, cls)
        with peer:
            peer.send(b"data")
            await asyncio.sleep(0.005)
            peer.close()
            await protocol.lost


@same
async def test_extra_info_and_repr(loop, say):
    transport, protocol, peer = await connect(say)
    with peer:
        for name in ("socket", "sockname", "peername"):
            say(type(transport.get_extra_info(name)).__name__)
        say(transport.get_extra_info("sslcontext"), transport.get_extra_info("x", "default"))
        say(transport.get_extra_info("peername") == peer.getsockname())
        sock = transport.get_extra_info("socket")
        say(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0, sock.type, sock.family)
        say(isinstance(transport, asyncio.Transport), bool(transport), repr(transport))
        transport.close()
        say(repr(transport))
        await protocol.lost
        say(repr(transport).removesuffix(" read=idle write=<idle, bufsize=0>"))
        say(transport.get_extra_info("sockname") is not None)


@same
async def test_contexts_of_callbacks(loop, say):
    var = contextvars.ContextVar("var", default="none")

    class Context(Told):
        def connection_made(self, transport):
            super().connection_made(transport)
            say("made in", var.get())

        def data_received(self, data):
            say("data in", var.get())

        def eof_received(self):
            say("eof in", var.get())

    var.set("before")
    _, protocol, peer = await connect(say, Context)
    var.set("after")
    with peer:
        peer.send(b"x")
        await turns(10)
        await asyncio.sleep(0.01)
        peer.close()
        await protocol.lost


# -- files


@same
async def test_sendfile(loop, say):
    with tempfile.TemporaryFile() as file:
        file.write(b"0123456789" * 100_000)
        file.flush()
        for args in ({}, {"offset": 10}, {"offset": 10, "count": 25}, {"offset": 2_000_000}):
            transport, protocol, peer = await connect(say)
            with peer:
                transport.write(b"head")
                got = asyncio.create_task(drain(peer))
                await say.wait(loop.sendfile(transport, file, **args))
                say(file.tell(), transport.is_reading())
                transport.write(b"tail")
                transport.close()
                say(await got)
                await protocol.lost


@same
async def test_sendfile_of_what_is_no_file(loop, say):
    for file in (io.BytesIO(b"memory" * 1000), io.StringIO("text")):
        for fallback in (True, False):
            transport, protocol, peer = await connect(say)
            with peer:
                await say.wait(loop.sendfile(transport, file, fallback=fallback))
                transport.close()
                await protocol.lost
                say(await drain(peer))
    transport, protocol, peer = await connect(say)
    with peer:
        transport.close()
        await say.wait(loop.sendfile(transport, io.BytesIO(b"late")))
        await protocol.lost


@same
async def test_no_write_while_a_file_is_sent(loop, say):
    with tempfile.TemporaryFile() as file:
        file.truncate(30_000_000)
        transport, protocol, peer = await connect(say)
        with peer:
            task = asyncio.create_task(loop.sendfile(transport, file))
            await turns()
            say.call(transport.write, b"x")
            got = asyncio.create_task(drain(peer))
            say(await task)
            transport.close()
            say(await got)
            await protocol.lost


# -- streams


@same
async def test_streams(loop, say):
    async def serve(reader, writer):
        while line := await reader.readline():
            writer.writelines([b"got ", line])
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=100)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), limit=50)
        writer.write(b"one\ntwo\n")
        say(await reader.readuntil(b"\n"), await reader.readexactly(8))
        writer.write(b"x" * 90 + b"\n")
        await say.wait(reader.readuntil(b"\n"))
        say(len(await reader.readexactly(95)), reader.at_eof(), writer.can_write_eof())
        writer.write_eof()
        say(await reader.read(), reader.at_eof())
        await say.wait(reader.readexactly(1))
        writer.close()
        say(writer.is_closing())
        await say.wait(writer.wait_closed())
        await say.wait(writer.drain())


@same
async def test_a_stream_that_is_reset(loop, say):
    gone = loop.create_future()

    async def serve(reader, writer):
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()
        gone.set_result(None)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await gone
        await say.wait(reader.read())
        await say.wait(writer.drain())
        writer.write(b"x")
        await say.wait(writer.drain())
        writer.close()
        await say.wait(writer.wait_closed())
        say(sys.exc_info())
