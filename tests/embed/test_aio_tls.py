"""TLS on an EventLoop: the same as on asyncio's loop, and what is ours alone.

Programs that are @same run on both. Both ends are loops' transports, unless a raw socket is told.
"""

import asyncio
import contextlib
import gc
import random
import ssl
import weakref
from asyncio import sslproto

import pytest

from embed.same import Told, pair, same, turns, until
from gopoll.embed import aio
from gopoll.embed.aio._sslproto import SSLTransport
from net.certs import certs

RECORD = 16384


class Gathered(Told):
    """Told, but of data only its sum: how it is cut depends on time."""

    def tell(self, *what):
        self.say(*what)

    @property
    def size(self):
        return len(self.data)


class Echo(Told):
    """Send back what comes."""

    def data_received(self, data):
        self.transport.write(data)


class Buffered(asyncio.BufferedProtocol):
    """Have what comes put into a buffer of *size*, of *kind*."""

    def __init__(self, size, kind=bytearray):
        self.buffer, self.data = kind(size), b""
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, nbytes):
        self.data += bytes(memoryview(self.buffer)[:nbytes])

    def connection_lost(self, exc):
        self.lost.set_result(exc)


async def tls_pair(client, server, kind="tcp", **options):
    """Connect two protocols over TLS: their transports and they, the client's first."""
    loop = asyncio.get_running_loop()
    a, b = pair(kind)
    named = {"server_hostname": "localhost"}
    mine, theirs = await asyncio.gather(
        loop.create_connection(client, sock=a, ssl=certs().client_context(), **named, **options),
        loop.connect_accepted_socket(server, b, ssl=certs().server_context()),
    )
    return *mine, *theirs


# -- messages


@same
async def test_messages_of_many_sizes_come_back(loop, say):
    transport, mine, _, theirs = await tls_pair(lambda: Gathered(say), lambda: Echo(say))
    rnd, sent = random.Random(7), bytearray()

    def is_back():
        return mine.size == len(sent)

    for i in range(150):
        size = rnd.choice((1, 100, 1024, RECORD - 1, RECORD, RECORD + 1, 70_000, 200_000))
        data = rnd.randbytes(size)
        sent += data
        transport.write(data)
        if i % 3 == 0:
            await until(is_back)
    await until(is_back)
    say(mine.data == sent)
    transport.close()
    await asyncio.gather(mine.lost, theirs.lost)


@same
async def test_what_can_be_written(loop, say):
    transport, mine, _, theirs = await tls_pair(lambda: Told(say), lambda: Gathered(say))
    kept = bytearray(b"a bytearray ")
    for data in (b"bytes ", kept, memoryview(b"a view "), b"", memoryview(b"8 bytes.").cast("I")):
        say.call(transport.write, data)
    kept[:] = b"x" * len(kept)
    for data in ("text", None, 5):
        with contextlib.suppress(TypeError):
            transport.write(data)
            say("no TypeError")
    say.call(transport.writelines, [b"and ", bytearray(b"lines"), memoryview(b"!")])
    say.call(transport.writelines, [])
    say.call(transport.writelines, iter([b" an iterator"]))
    say.call(transport.write_eof)
    await until(lambda: theirs.data.endswith(b"iterator"))
    say(theirs.data)
    transport.close()
    for _ in range(3):
        say.call(transport.write, b"too late")
    await asyncio.gather(mine.lost, theirs.lost)
    for _ in range(3):
        say.call(transport.write, b"too late")
    say(transport.is_closing())


@pytest.mark.parametrize("size", [1, 10, 1000, RECORD, 70_000])
def test_a_buffered_protocol_gets_it_in_its_own_buffer(size):
    async def program(loop, say):
        transport, mine, _, theirs = await tls_pair(
            lambda: Told(say), lambda: Buffered(size, lambda n: memoryview(bytearray(n)))
        )
        sent = random.Random(size).randbytes(100 * min(size, 3000))
        for at in range(0, len(sent), 20_000):
            transport.write(sent[at : at + 20_000])
        await until(lambda: len(theirs.data) == len(sent))
        say(theirs.data == sent)
        transport.close()
        await asyncio.gather(mine.lost, theirs.lost)

    program.__name__ = "program"
    same(program)()


def test_a_bytearray_is_filled_to_its_end():
    """asyncio's own takes a slice of it, which is a copy, for each record after the first."""

    async def program(loop):
        transport, _, _, theirs = await tls_pair(
            asyncio.Protocol, lambda: Buffered(4 * RECORD, bytearray)
        )
        sent = random.Random(1).randbytes(4 * RECORD)
        transport.write(sent)
        await until(lambda: len(theirs.data) >= len(sent))
        assert theirs.data == sent
        transport.close()
        await theirs.lost

    on_ours(program)


def test_a_buffer_may_change_its_size_when_it_has_been_filled():
    class Growing(Buffered):
        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            self.buffer += bytes(100)

    async def program(loop):
        transport, _, _, theirs = await tls_pair(asyncio.Protocol, lambda: Growing(10))
        transport.write(b"m" * 5000)
        await until(lambda: len(theirs.data) == 5000)
        transport.close()
        assert await theirs.lost is None

    on_ours(program)


def test_an_empty_buffer_is_an_error_and_not_the_end():
    seen = []

    async def program(loop):
        loop.set_exception_handler(lambda _, context: seen.append(context["exception"]))
        transport, _, _, theirs = await tls_pair(asyncio.Protocol, lambda: Buffered(0))
        transport.write(b"m")
        assert str(await theirs.lost) == "get_buffer() returned an empty buffer"

    on_ours(program)
    assert [type(exc) for exc in seen] == [RuntimeError]


# -- flow


@same
async def test_reading_that_is_paused(loop, say):
    transport, mine, there, theirs = await tls_pair(lambda: Told(say), lambda: Gathered(say))
    there.pause_reading()
    say(there.is_reading())
    transport.write(b"m" * 3000)
    await asyncio.sleep(0.02)
    say(theirs.size)
    there.write(b"it still writes")
    await until(lambda: mine.data)
    there.resume_reading()
    say(there.is_reading())
    await until(lambda: theirs.size == 3000)
    there.pause_reading()
    transport.write(b"the last")
    transport.close()
    await asyncio.sleep(0.02)
    say(theirs.size)
    there.resume_reading()
    await asyncio.gather(mine.lost, theirs.lost)
    say(theirs.size)


@same
async def test_a_peer_that_does_not_read_stops_the_writer(loop, say):
    paused = []

    class Writer(Told):
        def pause_writing(self):
            paused.append(self.transport.get_write_buffer_size() > 0)

        def resume_writing(self):
            paused.append("resumed")

    transport, mine, there, theirs = await tls_pair(lambda: Writer(say), lambda: Gathered(say))
    there.pause_reading()
    total = 0
    while not paused:
        transport.write(b"m" * 100_000)
        total += 100_000
        await asyncio.sleep(0)
    say(paused, total > 500_000, transport.get_write_buffer_limits())
    there.resume_reading()
    await until(lambda: theirs.size == total)
    await until(lambda: paused[-1] == "resumed")
    transport.write(b"m" * 1000)
    transport.close()
    await asyncio.gather(mine.lost, theirs.lost)
    say(theirs.size == total + 1000)


@same
async def test_marks(loop, say):
    transport, mine, _, theirs = await tls_pair(lambda: Told(say), lambda: Told(say))
    for args in ((), (100,), (None, 10), (10, 20), (-1,), (0,), (2**80, 5)):
        for kind in ("write", "read"):
            say.call(getattr(transport, f"set_{kind}_buffer_limits"), *args)
            say(getattr(transport, f"get_{kind}_buffer_limits")())
        say(transport.get_write_buffer_size(), transport.get_read_buffer_size())
    transport.set_write_buffer_limits(10_000, 100)
    transport.close()
    await asyncio.gather(mine.lost, theirs.lost)


# -- the end


@same
async def test_how_a_connection_ends(loop, say):
    for end in ("close", "abort", "close both", "raw", "write and close", "close twice"):
        say(end)
        transport, mine, there, theirs = await tls_pair(lambda: Told(say), lambda: Told(say))
        await asyncio.sleep(0.01)
        if end == "abort":
            transport.abort()
        elif end == "raw":
            transport._ssl_protocol._transport.abort()
        else:
            if end == "write and close":
                transport.write(b"m" * 300_000)
            transport.close()
            if end == "close twice":
                transport.close()
            if end == "close both":
                there.close()
        say(transport.is_closing())
        await asyncio.gather(mine.lost, theirs.lost)


@pytest.mark.parametrize("method", ["data_received", "eof_received", "pause_writing"])
def test_a_protocol_that_raises(method):
    async def program(loop, say):
        def fail(self, *args):
            raise ZeroDivisionError(method)

        failing = type("Failing", (Told,), {method: fail})
        transport, mine, there, theirs = await tls_pair(lambda: Told(say), lambda: failing(say))
        await asyncio.sleep(0.01)
        if method == "pause_writing":
            there.set_write_buffer_limits(0)
            there.write(b"m")
        transport.write(b"m")
        await asyncio.sleep(0.01)
        transport.close()
        await asyncio.gather(mine.lost, theirs.lost)

    program.__name__ = "program"
    same(program)()


@same
async def test_handshakes_that_fail(loop, say):
    for options in (
        {"ssl": certs().client_context(), "server_hostname": "other"},
        {"ssl": ssl.create_default_context(), "server_hostname": "localhost"},
        {"ssl": certs().client_context(), "server_hostname": "localhost", "timeout": 0.02},
    ):
        a, b = pair("tcp")
        timeout = options.pop("timeout", None)
        with a, b:
            b.setblocking(False)
            if timeout is None:
                task = asyncio.create_task(
                    loop.connect_accepted_socket(lambda: Told(say), b, ssl=certs().server_context())
                )
            await say.wait(
                loop.create_connection(
                    lambda: Told(say), sock=a, ssl_handshake_timeout=timeout, **options
                )
            )
            if timeout is None:
                await say.wait(task)
    a, b = pair("tcp")
    b.sendall(b"no TLS at all\r\n")
    b.close()
    with contextlib.suppress(OSError):
        await loop.create_connection(
            lambda: Told(say), sock=a, ssl=certs().client_context(), server_hostname="localhost"
        )
        say("connected")


@same
async def test_a_peer_that_does_not_answer_the_end(loop, say):
    transport, mine, there, _ = await tls_pair(
        lambda: Told(say), lambda: Told(say), ssl_shutdown_timeout=0.02
    )
    there._ssl_protocol._transport.pause_reading()
    transport.close()
    await mine.lost
    there.abort()
    await turns()


@pytest.mark.parametrize("answer", ["nothing", "write", "close"])
def test_what_came_before_a_record_that_is_broken_is_given(answer):
    """asyncio's own loses what it has decrypted in the same turn. The error is the record's, be
    what is done with what came before it: written to, OpenSSL says another."""
    told = []

    class Answering(Gathered):
        def data_received(self, data):
            super().data_received(data)
            if answer == "write":
                self.transport.write(data)
            elif answer == "close":
                self.transport.close()

        def connection_lost(self, exc):
            self.lost.set_result(exc)

    async def program(loop):
        loop.set_exception_handler(lambda _, context: told.append(context["message"]))
        transport, _, there, theirs = await tls_pair(
            asyncio.Protocol, lambda: Answering(lambda *_: None)
        )
        await asyncio.sleep(0.01)
        there.pause_reading()
        transport.write(b"m" * 50_000)
        transport._ssl_protocol._transport.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        await until(lambda: there.get_read_buffer_size() > 50_000)
        there.resume_reading()
        exc = await theirs.lost
        assert isinstance(exc, ssl.SSLError)
        old = ssl.OPENSSL_VERSION_INFO < (3, 2)
        spoilt = "DECRYPTION_FAILED_OR_BAD_RECORD_MAC" if old else "RECORD_LAYER_FAILURE"
        assert exc.reason == spoilt
        assert theirs.data == b"m" * 50_000
        transport.abort()

    on_ours(program)
    assert told == []  # an ssl.SSLError is an OSError: it is connection_lost()'s


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("method", ["get_buffer", "buffer_updated", "data_received"])
def test_a_callback_that_ends_the_loop_loses_nothing(method, kind):
    """It may be run again; no edge tells of what has come already."""
    if method == "data_received":
        make = lambda: Gathered(lambda *_: None)  # noqa: E731
    else:
        make = lambda: Buffered(1000, lambda n: memoryview(bytearray(n)))  # noqa: E731
    raised, made = [], []

    async def begin():
        transport, _, there, theirs = await tls_pair(asyncio.Protocol, make)
        call = getattr(theirs, method)

        def once(*args):
            got = call(*args)
            if not raised:
                raised.append(args)
                raise kind
            return got

        setattr(theirs, method, once)
        there.set_protocol(theirs)  # which looks its methods up
        transport.write(b"m" * 10_000)
        made.extend((transport, theirs))
        await theirs.lost

    loop = aio.new_event_loop()
    try:
        task = loop.create_task(begin())
        with pytest.raises(kind):
            loop.run_until_complete(task)
        transport, theirs = made
        loop.run_until_complete(asyncio.wait_for(until(lambda: len(theirs.data) == 10_000), 30))
        transport.close()
        loop.run_until_complete(asyncio.wait_for(task, 30))
    finally:
        loop.close()


def test_a_write_that_has_to_read_first_goes_out_after_that():
    """Y11: OpenSSL may have read what came, and SSL_read is asked though no byte is left."""
    refused = []

    class Reluctant(ssl.SSLObject):
        def write(self, data):
            if len(refused) < 2:
                refused.append(bytes(data))
                raise ssl.SSLWantReadError
            return super().write(data)

    async def program(loop):
        a, b = pair("tcp")
        context = certs().client_context()
        context.sslobject_class = Reluctant
        (transport, _), (there, theirs) = await asyncio.gather(
            loop.create_connection(
                asyncio.Protocol, sock=a, ssl=context, server_hostname="localhost"
            ),
            loop.connect_accepted_socket(
                lambda: Gathered(lambda *_: None), b, ssl=certs().server_context()
            ),
        )
        data = bytearray(b"first ")
        transport.write(data)
        data[:] = b"xxxxxx"
        transport.write(b"second")
        assert (refused, theirs.data) == ([b"first ", b"first "], b"")
        there.write(b"go on")
        await until(lambda: len(theirs.data) == 12)
        assert theirs.data == b"first second"
        transport.close()
        await theirs.lost

    on_ours(program)


class Partial(ssl.SSLObject):
    """It writes 100 bytes at a time."""

    def write(self, data):
        return super().write(bytes(data)[:100])


class Cached(ssl.SSLObject):
    """It has a buffer of its own, of which it gives 100 bytes at a time."""

    cache = b""

    def read(self, n=1024, buffer=None):
        if not self.cache:
            self.cache = super().read(65536)
        got, self.cache = self.cache[:100], self.cache[100:]
        return got


class WithoutPending:
    """It has what asyncio's own asks of it."""

    @classmethod
    def _create(cls, *args, **kwargs):
        made = cls()
        made.inner = ssl.SSLObject._create(*args, **kwargs)
        return made

    def __getattr__(self, name):
        if name == "pending":
            raise AttributeError(name)
        return getattr(self.inner, name)


@pytest.mark.parametrize("kind", [Partial, Cached, WithoutPending])
def test_an_object_of_the_programs_own_in_the_place_of_ssls(kind):
    async def program(loop, say):
        a, b = pair("tcp")
        context = certs().client_context()
        context.sslobject_class = kind
        (transport, mine), (there, theirs) = await asyncio.gather(
            loop.create_connection(
                lambda: Gathered(say), sock=a, ssl=context, server_hostname="localhost"
            ),
            loop.connect_accepted_socket(lambda: Echo(say), b, ssl=certs().server_context()),
        )
        transport.write(b"m" * 1000)
        transport.write(memoryview(bytes(4000)))
        await until(lambda: mine.size == 5000)
        say(mine.data == b"m" * 1000 + bytes(4000))
        transport.abort()
        there.abort()
        await asyncio.gather(mine.lost, theirs.lost)

    program.__name__ = "program"
    same(program)()


def test_who_traces_ssls_object_sees_its_calls(monkeypatch):
    calls = []
    read = ssl.SSLObject.read
    monkeypatch.setattr(
        ssl.SSLObject, "read", lambda self, *args: (calls.append(args), read(self, *args))[1]
    )

    async def program(loop):
        transport, _, _, theirs = await tls_pair(
            asyncio.Protocol, lambda: Gathered(lambda *_: None)
        )
        transport.write(b"m")
        await until(lambda: theirs.data)
        transport.close()
        await theirs.lost

    on_ours(program)
    assert calls


def test_a_transport_that_is_closed_again_lets_go_and_drops_what_is_written():
    """CPython's own test wants no garbage where the program's protocol keeps its transport."""

    class Keeps(Gathered):
        def connection_made(self, transport):
            super().connection_made(transport)
            self.kept = transport

    async def program(loop):
        transport, mine, _, theirs = await tls_pair(
            lambda: Keeps(lambda *_: None), lambda: Told(lambda *_: None)
        )
        tls = weakref.ref(transport._ssl_protocol)
        transport.close()
        assert transport.get_extra_info("cipher") is not None
        transport.close()
        transport.write(b"m")
        transport.writelines([b"m"])
        assert transport.get_extra_info("cipher", "none") == "none"
        with pytest.raises(ConnectionResetError, match="which is closed"):
            await loop.start_tls(transport, mine, certs().client_context())
        await asyncio.gather(mine.lost, theirs.lost)
        await turns()
        assert tls() is None

    gc.collect()
    gc.disable()
    try:
        on_ours(program)
    finally:
        gc.enable()
    of_another = SSLTransport(None, 1)
    of_another._closed = True
    with pytest.raises(TypeError, match="int"):
        of_another.write(b"m")


# -- start_tls


@same
async def test_tls_in_tls(loop, say):
    async def over(transport, protocol, **options):
        return await loop.start_tls(transport, protocol, **options)

    transport, mine, there, theirs = await tls_pair(lambda: Gathered(say), lambda: Echo(say))
    inner, there = await asyncio.gather(
        over(
            transport,
            mine,
            sslcontext=certs().client_context(),
            server_hostname="localhost",
        ),
        over(there, theirs, sslcontext=certs().server_context(), server_side=True),
    )
    theirs.transport = there
    for size in (1, 1000, 100_000):
        inner.write(b"m" * size)
        await until(lambda size=size: mine.size == size)
        say(mine.data == b"m" * size)
        mine.data = b""
    say(inner.get_extra_info("cipher") is not None)
    inner.close()
    await asyncio.gather(mine.lost, theirs.lost)


@same
async def test_start_tls_of_what_it_cannot_do(loop, say):
    a, b = pair("tcp")
    transport, protocol = await loop.create_connection(lambda: Told(say), sock=a)
    await say.wait(loop.start_tls(transport, protocol, None))
    await say.wait(loop.start_tls(None, protocol, certs().client_context()))
    for options in ({"ssl_handshake_timeout": 0}, {"ssl_shutdown_timeout": -1}):
        await say.wait(loop.start_tls(transport, protocol, certs().client_context(), **options))
    b.close()
    context, named = certs().client_context(), {"server_hostname": "localhost"}
    await say.wait(loop.start_tls(transport, protocol, context, **named))
    say(transport.is_closing())
    for end in ("close", "abort"):
        a, b = pair("tcp")
        with b:
            transport, protocol = await loop.create_connection(lambda: Told(say), sock=a)
            getattr(transport, end)()
            await say.wait(loop.start_tls(transport, protocol, context, **named))
            await turns()


@same
async def test_start_tls_that_is_cancelled(loop, say):
    a, b = pair("tcp")
    with b:
        transport, protocol = await loop.create_connection(lambda: Told(say), sock=a)
        task = asyncio.create_task(
            loop.start_tls(
                transport, protocol, certs().client_context(), server_hostname="localhost"
            )
        )
        await turns()
        task.cancel()
        await say.wait(task)
        say(transport.is_closing())
        await turns()


# -- what is ours


def on_ours(program):
    loop = aio.new_event_loop()
    try:
        loop.run_until_complete(asyncio.wait_for(program(loop), 30))
    finally:
        loop.close()


def test_it_is_ours_that_runs_and_asyncios_class():
    async def program(loop):
        transport, _, there, _ = await tls_pair(asyncio.Protocol, asyncio.Protocol)
        for one in (transport, there):
            assert isinstance(one, sslproto._SSLProtocolTransport)
            assert type(one).__name__ == "SSLTransport"
            assert isinstance(one._ssl_protocol, sslproto.SSLProtocol)
            assert len(one._ssl_protocol._ssl_buffer) == 0, "nobody reads into it"
        transport.abort()
        there.abort()
        await turns()

    on_ours(program)


def test_tls_over_a_connection_that_has_ended_is_an_error():
    """asyncio's own waits for the handshake until that times out, after a minute."""

    async def program(loop):
        transport, mine, _, theirs = await tls_pair(
            lambda: Told(lambda *_: None), lambda: Told(lambda *_: None)
        )
        lower = transport._ssl_protocol._transport
        transport.close()
        await asyncio.gather(mine.lost, theirs.lost)
        await turns()
        for closed in (transport, lower):
            with pytest.raises(ConnectionResetError, match=r"over <.*>, which is closed$"):
                await loop.start_tls(closed, mine, certs().client_context())

    on_ours(program)


async def cut_off(size):
    """Return a Buffered of *size* that is paused, 50,000 bytes and an end without announcement
    having come to it."""
    transport, _, there, theirs = await tls_pair(
        asyncio.Protocol, lambda: Buffered(size, lambda n: memoryview(bytearray(n)))
    )
    there.pause_reading()
    transport.write(b"m" * 50_000)
    transport._ssl_protocol._transport.close()
    await until(lambda: there._ssl_protocol._state is sslproto.SSLProtocolState.FLUSHING)
    return theirs


@pytest.mark.parametrize("size", [100, RECORD])
def test_what_a_small_buffer_has_left_is_given_at_an_end_that_is_not_announced(size):
    """asyncio's own drops all but one buffer of it."""

    async def program(loop):
        theirs = await cut_off(size)
        theirs.transport.resume_reading()
        await theirs.lost
        assert theirs.data == b"m" * 50_000

    on_ours(program)


def test_a_protocol_that_changes_at_the_end_gets_the_rest():
    """What is left of a full buffer is the next protocol's, be that a buffered one or not."""

    async def program(loop):
        theirs = await cut_off(100)
        there = theirs.transport
        after = Gathered(lambda *_: None)
        theirs.buffer_updated = lambda _: there.set_protocol(after)
        there.set_protocol(theirs)
        there.resume_reading()
        await after.lost
        assert after.data == b"m" * 49_900

    on_ours(program)


def test_a_handshake_that_fails_within_tls_is_told():
    """asyncio's own of 3.11 has a TypeError of its own there."""

    async def program(loop):
        transport, mine, there, theirs = await tls_pair(
            lambda: Told(lambda *_: None), lambda: Told(lambda *_: None)
        )
        serving = loop.create_task(
            loop.start_tls(there, theirs, certs().server_context("stranger"), server_side=True)
        )
        with pytest.raises(ssl.SSLCertVerificationError):
            await loop.start_tls(
                transport, mine, certs().client_context(), server_hostname="localhost"
            )
        with pytest.raises(ConnectionResetError):
            await serving
        await asyncio.gather(mine.lost, theirs.lost)

    on_ours(program)


def test_nothing_is_left_of_a_connection_that_has_ended():
    refs = []

    async def program(loop):
        for _ in range(3):
            transport, mine, there, theirs = await tls_pair(
                lambda: Echo(lambda *_: None), lambda: Gathered(lambda *_: None)
            )
            there.write(b"m")
            await until(lambda theirs=theirs: theirs.data)
            refs.extend(weakref.ref(one) for one in (transport, transport._ssl_protocol, mine))
            transport.close()
            await asyncio.gather(mine.lost, theirs.lost)
            await turns()

    on_ours(program)
    gc.collect()
    assert [ref() for ref in refs if ref() is not None] == []


def test_a_transport_that_nobody_closes_is_told():
    async def program(loop):
        transport, _, there, _ = await tls_pair(asyncio.Protocol, asyncio.Protocol)
        made = [transport, there]
        lower = [one._ssl_protocol._transport for one in made]
        for one in made:
            one._ssl_protocol._app_transport = None
        del transport, there, one
        await turns()  # the handle that has woken us holds what gather() has come to
        with pytest.warns(ResourceWarning, match="unclosed transport"):
            made.clear()
        for one in lower:
            one.abort()
        await turns()

    on_ours(program)
