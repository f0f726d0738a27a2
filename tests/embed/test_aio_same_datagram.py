"""Datagram transports: order, backlogs, addresses, errors and ends, beside asyncio's own loop."""

import asyncio
import ctypes
import os
import socket
import sys
import tempfile
import time

import pytest

from embed.datagrams import HEADER, LOCAL, Told, drain, endpoint, plain, unix_pair, var
from embed.same import same, turns, until

# -- receiving


@same
async def test_all_that_has_come_comes_in_order(loop, say):
    """Y6: one edge for a burst, longer than a turn takes."""
    transport, protocol = await endpoint(say)
    with plain() as peer:
        for i in range(150):
            peer.sendto(b"%d" % i, transport.get_extra_info("sockname"))
        peer.sendto(b"", transport.get_extra_info("sockname"))
        await until(lambda: protocol.n == 151)
        transport.close()
        await protocol.lost
    say(transport.get_protocol(), transport.is_closing(), repr(transport))


@same
async def test_what_a_datagram_makes_ready_runs_before_the_next(loop, say):
    class Soon(Told):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            loop.call_soon(say, "soon", data)

    transport, protocol = await endpoint(say, Soon)
    with plain() as peer:
        for i in range(9):
            peer.sendto(b"%d" % i, transport.get_extra_info("sockname"))
        await until(lambda: protocol.n == 9)
    transport.close()
    await protocol.lost


@same
async def test_a_timer_that_a_datagram_sets_runs_before_those_after_the_next(loop, say):
    class Later(Told):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            loop.call_later(0, say, "due", data)

    transport, protocol = await endpoint(say, Later)
    with plain() as peer:
        for i in range(9):
            peer.sendto(b"%d" % i, transport.get_extra_info("sockname"))
        await until(lambda: protocol.n == 9)
    await turns(3)
    transport.abort()
    await protocol.lost


@same
async def test_a_slow_protocol_takes_turns_with_another(loop, say):
    class Slow(Told):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            time.sleep(0.001)

    a, told_a = await endpoint(lambda *what: say("a", *what), Slow)
    b, told_b = await endpoint(lambda *what: say("b", *what), Slow)
    with plain() as peer:
        for i in range(5):
            for transport in (a, b):
                peer.sendto(b"%d" % i, transport.get_extra_info("sockname"))
        await until(lambda: told_a.n == told_b.n == 5)
    a.abort()
    b.abort()
    await told_a.lost
    await told_b.lost


@same
async def test_a_task_may_wait_for_one_datagram_after_the_other(loop, say):
    class One(Told):
        def datagram_received(self, data, addr):
            self.next.set_result(data)  # InvalidStateError if nobody has taken the last

    transport, protocol = await endpoint(say, One)
    protocol.next = loop.create_future()
    with plain() as peer:
        for i in range(9):
            peer.sendto(b"%d" % i, transport.get_extra_info("sockname"))
        for _ in range(9):
            say(await protocol.next)
            protocol.next = loop.create_future()
    transport.abort()
    await protocol.lost


def ends(how):
    """Return a program whose protocol ends reading with the third datagram by *how*."""

    @same
    async def program(loop, say):
        class Ends(Told):
            def datagram_received(self, data, addr):
                super().datagram_received(data, addr)
                if self.n == 3:
                    getattr(self.transport, how)()

        transport, protocol = await endpoint(say, Ends)
        with plain() as peer:
            for i in range(9):
                peer.sendto(b"%d" % i, transport.get_extra_info("sockname"))
            await until(lambda: protocol.n >= 3)
            await turns()
            say(protocol.n, transport.is_closing(), transport.is_reading())
            if how == "pause_reading":
                say(repr(transport))
                transport.pause_reading()
                await asyncio.sleep(0.01)
                transport.resume_reading()
                transport.resume_reading()
                await until(lambda: protocol.n == 9)
                transport.close()
        await protocol.lost

    return program


test_close_in_datagram_received = ends("close")
test_abort_in_datagram_received = ends("abort")
test_pause_in_datagram_received = ends("pause_reading")


@same
async def test_what_comes_while_reading_is_paused_waits(loop, say):
    class Paused(Told):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

    transport, protocol = await endpoint(say, Paused)
    with plain() as peer:
        peer.sendto(b"1", transport.get_extra_info("sockname"))
        await asyncio.sleep(0.01)
        say(protocol.n)
        transport.resume_reading()
        await until(lambda: protocol.n == 1)
        transport.pause_reading()
        transport.close()
        transport.resume_reading()
    await protocol.lost


@same
async def test_a_protocol_that_raises_is_told_of_and_called_again(loop, say):
    class Raises(Told):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if self.n % 2:
                raise ValueError(data)

    transport, protocol = await endpoint(say, Raises)
    with plain() as peer:
        for i in range(5):
            peer.sendto(b"%d" % i, transport.get_extra_info("sockname"))
        await until(lambda: protocol.n == 5)
    say(transport.is_closing())
    transport.close()
    await protocol.lost


@same
def test_a_loop_that_a_datagram_ends_goes_on_with_the_next(loop, say):
    class Ends(Told):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if data == b"stop":
                loop.stop()
            elif data == b"exit":
                raise SystemExit(3)

    transport, protocol = loop.run_until_complete(endpoint(say, Ends))
    with plain() as peer:
        for data in (b"1", b"stop", b"2", b"exit", b"3"):
            peer.sendto(data, transport.get_extra_info("sockname"))
        loop.run_forever()
        say("stopped", protocol.n)
        say.call(loop.run_forever)
        say("ended", protocol.n)
        loop.run_until_complete(until(lambda: protocol.n == 5))
    transport.close()
    loop.run_until_complete(protocol.lost)


@same
async def test_contexts(loop, say):
    class Contexts(Told):
        def datagram_received(self, data, addr):
            say(data, var.get())
            self.n += 1
            var.set(data)

        def connection_lost(self, exc):
            say("lost", var.get())
            super().connection_lost(exc)

    var.set("creator")
    transport, protocol = await endpoint(say, Contexts)
    var.set("sender")
    with plain() as peer:
        for i in range(3):
            peer.sendto(b"%d" % i, transport.get_extra_info("sockname"))
        await until(lambda: protocol.n == 3)
        transport.pause_reading()
        var.set("resumer")
        transport.resume_reading()
        peer.sendto(b"last", transport.get_extra_info("sockname"))
        await until(lambda: protocol.n == 4)
    var.set("closer")
    transport.close()
    await protocol.lost


@same
async def test_an_error_of_the_socket_comes_once_and_reading_goes_on(loop, say):
    with plain() as peer:
        there = peer.getsockname()
    transport, protocol = await endpoint(say, remote_addr=there, local_addr=(LOCAL, 0))
    transport.sendto(b"nobody is there")
    await asyncio.sleep(0.02)
    with socket.socket(type=socket.SOCK_DGRAM) as peer:
        peer.bind(there)
        peer.sendto(b"somebody is", transport.get_extra_info("sockname"))
        await until(lambda: protocol.n == 1)
        transport.close()
        await protocol.lost


@same
async def test_a_socket_closed_by_somebody_else(loop, say):
    sock = plain()
    transport, protocol = await endpoint(say, sock=sock)
    os.close(sock.fileno())
    transport.sendto(b"x", (LOCAL, 9))
    sock.detach()
    await asyncio.sleep(0.01)
    transport.close()
    await protocol.lost


# -- addresses


@same
async def test_addresses_of_ipv4(loop, say):
    transport, protocol = await endpoint(say)
    with plain() as peer:
        port = peer.getsockname()[1]
        for address in (
            (LOCAL, port),
            [LOCAL, port],
            ("localhost", port),
            ("127.1", port),
            ("", port),
            (bytearray(b"127.0.0.1"), port),
            (b"127.0.0.1", port),
        ):
            transport.sendto(b"x", address)
            if not transport.is_closing():
                say(await loop.sock_recv(peer, 9))
        transport.sendto(b"y", ("::1", port))
        transport.sendto(b"y", ("999.1.1.1", port))
        say(transport.is_closing())
    transport.close()
    await protocol.lost


def wrong(*addresses, family=socket.AF_INET, host=LOCAL):
    """Return a program that sends to each of *addresses*, with an endpoint of its own."""

    @same
    async def program(loop, say):
        for address in addresses:
            transport, protocol = await endpoint(say, sock=plain(family, host))
            say.call(transport.sendto, b"x", address)
            say(transport.is_closing(), transport.get_write_buffer_size())
            transport.close()
            await protocol.lost

    return program


test_what_is_no_address_of_ipv4 = wrong(
    None,
    "text",
    3,
    (LOCAL,),
    (LOCAL, 70000),
    (LOCAL, -1),
    (LOCAL, 1 << 80),
    (LOCAL, "9"),
    (LOCAL, 9, 0, 0),
    (LOCAL, 0),
    ("127.0.0.1\0x", 9),
    ("\u00fc" * 80, 9),
    (None, 9),
    ("255.255.255.255", 9),
)
test_what_is_no_address_of_ipv6 = wrong(
    None,
    ("::1",),
    ("::1", 70000),
    ("::1", 9, 1 << 20),
    ("::1", 9, 0, -1),
    ("::1", 9, 0, 1 << 32),
    ("::1", 9, 0, 0, 0),
    ("127.0.0.1", 9),
    ("::1%nowhere", 9),
    family=socket.AF_INET6,
    host="::1",
)


@same
async def test_addresses_of_ipv6(loop, say):
    transport, protocol = await endpoint(say, local_addr=("::1", 0))
    with plain(socket.AF_INET6, "::1") as peer:
        port = peer.getsockname()[1]
        for rest in ((), (0,), (0, 0), (3, 0)):
            transport.sendto(b"x", ("::1", port, *rest))
            data, address = await loop.sock_recvfrom(peer, 9)
            say(data, address == transport.get_extra_info("sockname"))
        peer.sendto(b"back", transport.get_extra_info("sockname"))
        await until(lambda: protocol.n == 1)
    transport.close()
    await protocol.lost


@same
async def test_addresses_of_unix(loop, say):
    with tempfile.TemporaryDirectory() as folder:
        one, two = os.path.join(folder, "one"), os.path.join(folder, "two")
        a, told = await endpoint(say, family=socket.AF_UNIX, local_addr=one)
        b, _ = await endpoint(say, family=socket.AF_UNIX, local_addr=two)
        b.sendto(b"1", one)
        b.sendto(b"2", os.fsencode(one))
        b.sendto(b"nobody", one + "x")
        b.sendto(b"too long", one + "x" * 108)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:
            nameless.sendto(b"3", one)
        abstract = b"\0gopoll-test-%d" % os.getpid()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
            peer.bind(abstract)
            peer.setblocking(False)
            for address in (abstract, abstract.decode()):
                a.sendto(b"4", address)
                say(await loop.sock_recv(peer, 9))
            await until(lambda: told.n == 3)
            peer.sendto(b"5", one)
            await until(lambda: told.n >= 4 or a.is_closing())
        a.close()
        b.close()
        await turns()


@same
async def test_a_connected_endpoint_has_one_address(loop, say):
    with plain() as peer:
        there = peer.getsockname()
        transport, protocol = await endpoint(say, remote_addr=there)
        for address in (None, there, (LOCAL, 9), "x", list(there)):
            say.call(transport.sendto, b"x", address)
        say(transport.get_extra_info("peername") == there)
        transport.abort()
        for _ in range(3):
            say.call(transport.sendto, b"late")
        say.call(transport.sendto, b"late", (LOCAL, 9))
        await protocol.lost


@same
async def test_a_connected_socket_that_is_given(loop, say):
    with plain() as peer, plain() as other:
        sock = plain()
        sock.connect(peer.getsockname())
        transport, protocol = await endpoint(say, sock=sock)
        transport.sendto(b"1")
        transport.sendto(b"2", other.getsockname())  # goes to the peer: that is asyncio's
        say(await drain(peer, 2))
        transport.close()
        await protocol.lost


@same
async def test_broadcast(loop, say):
    with plain() as peer:
        there = peer.getsockname()
        transport, protocol = await endpoint(say, remote_addr=there, allow_broadcast=True)
        say(transport.get_extra_info("peername"))
        transport.sendto(b"1")
        transport.sendto(b"2", there)
        say.call(transport.sendto, b"3", (LOCAL, 9))
        say(await drain(peer, 2))
        transport.close()
        await protocol.lost


# -- sending


@same
async def test_what_can_be_sent(loop, say):
    transport, protocol, peer = await unix_pair(say)
    with peer:
        for data in (b"a", bytearray(b"b"), memoryview(b"cd"), memoryview(b"efgh").cast("H")):
            transport.sendto(data)
        say(await drain(peer, 4))
        for data in ("text", None, 3, [b"x"]):
            say.call(transport.sendto, data)
        transport.sendto(b"")
        transport.sendto(b"after")
        say(await drain(peer, 2 if sys.version_info >= (3, 13) else 1))
        say(transport.is_closing())
        transport.sendto(memoryview(b"gaps")[::2])
        say(transport.is_closing())
        await protocol.lost


@same
async def test_too_long_a_datagram(loop, say):
    transport, protocol = await endpoint(say)
    transport.sendto(b"x" * 70000, (LOCAL, 9))
    transport.sendto(b"", (LOCAL, 9))
    say(transport.is_closing())
    transport.close()
    await protocol.lost


@same
async def test_a_backlog_goes_in_order_with_flow_control(loop, say):
    transport, protocol, peer = await unix_pair(say)
    with peer:
        transport.set_write_buffer_limits(high=4000)
        say(transport.get_write_buffer_limits())
        sent = 0
        while transport.get_write_buffer_size() < 5000:
            transport.sendto(b"%4d" % sent + b"." * 496)
            sent += 1
        say(sent, transport.get_write_buffer_size() - HEADER * 10, repr(transport).count("polling"))
        say([int(data[:4]) for data in await drain(peer, sent)])
        await turns()
        say.call(transport.set_write_buffer_limits, high=1, low=2)
        transport.close()
        await protocol.lost


@same
async def test_close_sends_the_backlog_and_abort_drops_it(loop, say):
    for how in ("close", "abort"):
        transport, protocol, peer = await unix_pair(say)
        with peer:
            sent = 0
            while not transport.get_write_buffer_size():
                transport.sendto(b"%4d" % sent + b"." * 496)
                sent += 1
            transport.sendto(b"last")
            getattr(transport, how)()
            say(transport.is_closing(), protocol.lost.done())
            if how == "close":
                transport.close()
                transport.sendto(b"after close")  # it waits behind the others: asyncio's
                say([data[:4] for data in await drain(peer, sent + 2)])
            await protocol.lost


@same
async def test_what_sends_later_may_change_its_buffer(loop, say):
    transport, protocol, peer = await unix_pair(say)
    with peer:
        sent = 0
        while not transport.get_write_buffer_size():
            transport.sendto(b"." * 500)
            sent += 1
        data = bytearray(b"before")
        transport.sendto(data)
        data[:] = b"after!"
        say((await drain(peer, sent + 1))[-1])
        transport.close()
        await protocol.lost


@same
async def test_an_error_in_the_backlog_is_told_and_the_rest_goes(loop, say):
    class Contexts(Told):
        def error_received(self, exc):
            say(var.get())
            super().error_received(exc)

    with tempfile.TemporaryDirectory() as folder:
        one, two = os.path.join(folder, "one"), os.path.join(folder, "two")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
            peer.bind(one)
            peer.setblocking(False)
            transport, protocol = await endpoint(
                say, Contexts, family=socket.AF_UNIX, local_addr=two
            )
            var.set("sender")
            sent = 0
            while not transport.get_write_buffer_size():
                transport.sendto(b"%4d" % sent, one)
                sent += 1
            transport.sendto(b"nobody", one + "x")
            transport.sendto(b"last", one)
            var.set("reader")
            say((await drain(peer, sent + 1))[-1])
            await turns()
            say(transport.get_write_buffer_size() % 8, transport.is_closing())
            transport.close()
            await protocol.lost


# -- the end, and the rest of asyncio's face


@same
async def test_close_in_connection_made(loop, say):
    class Closes(Told):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.close()

    transport, protocol = await endpoint(say, Closes)
    await protocol.lost
    say(repr(transport))


@same
async def test_what_connection_lost_and_connection_made_raise(loop, say):
    class Raises(Told):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise ValueError("made")

        def connection_lost(self, exc):
            super().connection_lost(exc)
            raise ValueError("lost")

    loop.set_exception_handler(lambda _, context: say(sorted(context), context["exception"]))
    transport, protocol = await endpoint(say, Raises)
    transport.close()
    await protocol.lost
    await turns()
    say(repr(transport))


@same
async def test_what_error_received_raises(loop, say):
    class Raises(Told):
        def error_received(self, exc):
            super().error_received(exc)
            raise ValueError("error")

    transport, protocol = await endpoint(say, Raises)
    say.call(transport.sendto, b"x" * 70000, (LOCAL, 9))
    say(transport.is_closing())
    transport.close()
    await protocol.lost


@same
async def test_a_sender_whose_path_has_no_end(loop, say):
    class Answers(Told):
        def datagram_received(self, data, addr):
            self.n += 1
            say("got", data, type(addr), len(addr))
            self.transport.sendto(b"answer", addr)

    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        path = f"{place}/".encode().ljust(108, b"x")  # socket leaves one of them to a NUL
        name = socket.AF_UNIX.to_bytes(2, sys.byteorder) + path
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
            assert ctypes.CDLL(None).bind(peer.fileno(), name, len(name)) == 0
            transport, protocol = await endpoint(
                say, Answers, local_addr=f"{place}/s", family=socket.AF_UNIX
            )
            peer.sendto(b"x", f"{place}/s")
            await until(lambda: protocol.n == 1)
            transport.close()
            await protocol.lost


@same
async def test_another_protocol(loop, say):
    transport, _ = await endpoint(say)
    other = Told(lambda *what: say("other", *what))
    transport.set_protocol(other)
    say(transport.get_protocol() is other)
    with plain() as peer:
        peer.sendto(b"x", transport.get_extra_info("sockname"))
        await until(lambda: other.n == 1)
    transport.close()
    await other.lost


@same
async def test_a_descriptor_of_a_transport_is_nobody_else_s(loop, say):
    transport, protocol = await endpoint(say)
    sock = transport.get_extra_info("socket")
    for call in (loop.add_reader, loop.add_writer):
        with pytest.raises(RuntimeError, match="is used by transport"):
            call(sock.fileno(), print)
    say(type(sock).__name__, transport.get_extra_info("nothing", 3))
    transport.close()
    await protocol.lost


@same
def test_a_closed_loop(loop, say):
    transport, _ = loop.run_until_complete(endpoint(say))
    loop.close()
    say(repr(transport))
    say.call(transport.close)
