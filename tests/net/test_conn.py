"""Connections: reading, writing, half-closing, closing, resets and options."""

import errno
import functools
import os
import socket
import warnings

import pytest

from gopoll.errors import ClosedError, OpError
from gopoll.net.conn import KeepAliveConfig, TCPConn
from gopoll.net.dial import dial
from gopoll.runtime.debug import stats
from gopoll.runtime.goroutine import go, gosched
from net.tools import BIG, local_listener, option, pair, parked, reset

SOL_TCP, SOL_SOCKET = socket.IPPROTO_TCP, socket.SOL_SOCKET
CLOSED = r"use of closed network connection$"

# -- reading and writing


def test_bytes_go_both_ways(run):
    async def main():
        async with pair() as (a, b):
            for x, y in ((a, b), (b, a)):
                assert await x.write(b"hello") == 5
                assert await y.read() == b"hello"
            buffer = bytearray(8)
            await a.write(b"hi")
            assert await b.readinto(buffer) == 2
            assert buffer[:3] == b"hi\0"
            await a.write(memoryview(b"0123456789"))
            assert await b.read(4) == b"0123"
            assert await b.readinto(memoryview(buffer)[:2]) == 2
            assert await b.read() == b"6789"

    run(main)


def test_an_empty_read_does_not_wait(run):
    """Row 53."""

    async def main():
        async with pair() as (a, b):
            assert await a.read(0) == b""
            assert await a.readinto(bytearray()) == 0
            assert await a.write(b"") == 0
            await a.write(b"x")
            assert await b.read(0) == b""
            assert await b.read() == b"x"

    run(main)


def test_one_large_write_arrives_whole(run):
    """Row 83."""

    async def main():
        async with pair() as (a, b):
            data = os.urandom(1 << 16) * 128
            g = go(a.write, data)
            got = bytearray()
            while len(got) < len(data):
                got += await b.read(1 << 20)
            assert await g == len(data)
            assert got == data

    run(main)


def test_ten_thousand_round_trips(run):
    """Row 83."""

    async def main():
        async def echo(conn):
            while data := await conn.read():
                await conn.write(data)

        async with pair() as (a, b):
            server = go(echo, b)
            message = bytes(range(256)) * 2
            for _ in range(10_000):
                await a.write(message)
                assert await a.read(len(message)) == message
            a.close_write()
            await server

    run(main)


def test_large_writes_do_not_mix(run):
    async def main():
        async with pair() as (a, b):
            writers = [go(a.write, bytes([i]) * (1 << 20)) for i in range(8)]
            got = bytearray()
            while len(got) < 8 << 20:
                got += await b.read(1 << 20)
            for g in writers:
                await g
            runs = [got[i << 20 : (i + 1) << 20] for i in range(8)]
            assert sorted(r[0] for r in runs) == list(range(8))
            assert all(r == bytes([r[0]]) * (1 << 20) for r in runs)

    run(main)


def test_a_write_that_waits_does_not_spin(run):
    """Row 85."""

    async def main():
        async with pair() as (a, b):
            g = go(a.write, BIG)
            await parked(g, reason="write")
            before = stats()
            for _ in range(200):
                await gosched()
            after = stats()
            assert g.state == "waiting"
            # A spin would count 200; one of each is the peer's first acknowledgement coming late.
            assert after.spurious - before.spurious <= 1
            assert after.wakes - before.wakes <= 1
            b.close()
            with pytest.raises(OSError, match=r"^write tcp ") as caught:
                await g
            assert 0 < caught.value.written < len(BIG)

    run(main)


# -- the peer goes away


def test_the_peer_s_close_is_the_end(run):
    """Row 51."""

    async def main():
        async with pair() as (a, b):
            g = go(a.read)
            await parked(g, reason="read")
            b.close()
            assert await g == b""
            assert await a.read() == b""
            assert await a.readinto(bytearray(1)) == 0

    run(main)


def test_a_reset_is_an_error_and_not_the_end(run):
    """Row 54."""

    async def main():
        async with local_listener() as ln:
            for waiting in (False, True):
                peer = socket.create_connection(ln.addr)
                async with await ln.accept() as conn:
                    g = go(conn.read)
                    if waiting:
                        await parked(g, reason="read")
                    reset(peer)
                    with pytest.raises(ConnectionResetError, match="connection reset") as caught:
                        await g
                    assert isinstance(caught.value, OpError)
                    assert caught.value.op == "read"
                    assert not caught.value.is_temporary
                    assert not caught.value.is_timeout

    run(main)


def test_a_write_to_a_reset_connection_says_so(run):
    async def main():
        async with local_listener() as ln:
            peer = socket.create_connection(ln.addr)
            async with await ln.accept() as conn:
                reset(peer)
                with pytest.raises(ConnectionResetError):
                    await conn.read()
                ends = rf"tcp 127.0.0.1:{ln.addr[1]}->127.0.0.1:\d+"
                for _ in range(2):
                    with pytest.raises(
                        BrokenPipeError, match=rf"^write {ends}: write: broken pipe$"
                    ) as e:
                        await conn.write(b"x")
                    assert isinstance(e.value, OpError)
                    assert (e.value.errno, e.value.written) == (errno.EPIPE, 0)

    run(main)


# -- half-closing


def test_close_write_is_the_end_for_the_peer_only(run):
    """Row 49."""

    async def main():
        async with pair() as (a, b):
            g = go(b.read)
            await parked(g, reason="read")
            a.close_write()
            assert await g == b""
            await b.write(b"still here")
            assert await a.read() == b"still here"
            with pytest.raises(BrokenPipeError):
                await a.write(b"x")

    run(main)


def test_close_read_ends_the_reading(run):
    """Row 48: nothing queued is the end; what is queued, before or after, is still read."""

    async def main():
        async with pair() as (a, b):
            g = go(a.read)
            await parked(g, reason="read")
            a.close_read()
            assert await g == b""
            await b.write(b"late")
            b.close_write()
            got = await a.read()
            while not got:
                got = await a.read()
            assert got == b"late"
            assert await a.write(b"x") == 1

    run(main)


def test_closing_the_sides_again_is_no_more_than_a_shutdown(run):
    """Row 52."""

    async def main():
        async with pair() as (a, b):
            for close in (a.close_read, a.close_write):
                for _ in range(3):
                    close()
            for _ in range(3):
                a.close()
            for close in (a.close_read, a.close_write):
                with pytest.raises(ClosedError, match=rf"^close tcp .*->.*: {CLOSED}"):
                    close()
            assert await b.read() == b""

    run(main)


# -- closing


def test_close_wakes_whoever_waits(run):
    """Rows 50 and 51: four readers and four writers."""

    async def main():
        async with pair() as (a, _):
            readers = [go(a.read) for _ in range(4)]
            writers = [go(a.write, BIG) for _ in range(4)]
            await parked(*readers, *writers)
            await a.close()
            for g, op in [(g, "read") for g in readers] + [(g, "write") for g in writers]:
                with pytest.raises(ClosedError, match=rf"^{op} tcp .*->.*: {CLOSED}") as caught:
                    await g
                assert caught.value.errno == errno.EBADF
                assert not caught.value.is_timeout

    run(main)


def test_after_close_nothing_works(run):
    """Row 50."""

    async def main():
        async with pair() as (a, b):
            await b.write(b"unread")
            a.close()
            for op, call in (
                ("read", a.read),
                ("read", lambda: a.read(0)),
                ("read", lambda: a.readinto(bytearray(1))),
                ("write", lambda: a.write(b"x")),
            ):
                with pytest.raises(ClosedError, match=rf"^{op} tcp .*: {CLOSED}"):
                    await call()
            for call in (
                lambda: a.set_deadline(None),
                lambda: a.set_read_timeout(1),
                lambda: a.set_no_delay(True),
                lambda: a.set_linger(0),
                lambda: a.set_read_buffer(4096),
            ):
                with pytest.raises(ClosedError, match=rf"^set tcp 127.0.0.1:\d+: {CLOSED}") as e:
                    call()
                assert (e.value.source, e.value.addr) == (None, a.local_addr)
            with pytest.raises(ClosedError, match=CLOSED):
                a.raw_control(print)

    run(main)


def test_closing_twice_is_closing_once(run):
    async def main():
        async with pair() as (a, b):
            fd = a.fileno()
            g = go(a.read)
            await parked(g, reason="read")
            first, second = a.close(), a.close()
            assert a.is_closed
            with pytest.raises(ClosedError):
                await g
            await first
            await second
            assert a.fileno() == -1
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)
            await a.close()
            a.close()
            assert await b.read() == b""

    run(main)


def test_the_block_closes_also_on_an_error(run):
    async def main():
        async with local_listener() as ln:
            with pytest.raises(ZeroDivisionError):
                async with await dial("tcp", ln.addr) as conn:
                    raise ZeroDivisionError
            assert conn.fileno() == -1
            await (await ln.accept()).close()

    run(main)


def test_a_forgotten_connection_warns_and_is_closed(run):
    async def main():
        async with local_listener() as ln:
            conn = await dial("tcp", ln.addr)
            text = repr(conn)
            async with await ln.accept() as peer:
                with pytest.warns(ResourceWarning) as caught:
                    del conn
                assert str(caught[0].message) == f"unclosed {text}"
                assert await peer.read() == b""

    run(main)


# -- what is shown, and options


def test_a_connection_shows_its_ends(run):
    async def main():
        async with pair() as (a, b):
            ends = [":".join(map(str, addr)) for addr in (a.local_addr, a.remote_addr)]
            assert repr(a) == f"<TCPConn tcp {ends[0]}->{ends[1]}>"
            assert repr(b) == f"<TCPConn tcp {ends[1]}->{ends[0]}>"
            a.close()
            assert repr(a).endswith(" closed>")
            assert not hasattr(a, "__dict__")

    run(main)


def test_no_delay_can_be_switched(run):
    async def main():
        async with pair() as (a, _):
            for on in (False, True, 0, 1 << 40):
                a.set_no_delay(on)
                assert bool(option(a, SOL_TCP, socket.TCP_NODELAY)) is bool(on)

    run(main)


def test_buffers_can_be_sized(run):
    async def main():
        async with pair() as (a, _):
            a.set_read_buffer(16384)
            a.set_write_buffer(8192)
            assert option(a, SOL_SOCKET, socket.SO_RCVBUF) == 32768
            assert option(a, SOL_SOCKET, socket.SO_SNDBUF) == 16384

    run(main)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (KeepAliveConfig(idle=30, interval=5, count=3), (1, 30, 5, 3)),
        (KeepAliveConfig(enable=False), (0, 15, 15, 9)),
        (60, (1, 60, 15, 9)),
        (-1, (0, 15, 15, 9)),
        (False, (0, 15, 15, 9)),
        (True, (1, 15, 15, 9)),
    ],
)
def test_keep_alive_can_be_set(run, config, expected):
    """Row 65."""

    async def main():
        async with pair() as (a, _):
            a.set_keep_alive(config)
            names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            figures = [option(a, SOL_TCP, name) for name in names]
            assert (option(a, SOL_SOCKET, socket.SO_KEEPALIVE), *figures) == expected

    run(main)


def test_an_option_that_the_system_refuses_is_an_error(run):
    async def main():
        async with pair() as (a, _):
            with pytest.raises(
                OpError, match=r"^set tcp 127.0.0.1:\d+: setsockopt: invalid argument$"
            ) as e:
                a.set_keep_alive(KeepAliveConfig(count=1000))
            assert (e.value.source, e.value.addr) == (None, a.local_addr)

    run(main)


@pytest.mark.parametrize(
    ("setter", "value", "error", "text"),
    [
        ("set_linger", "x", TypeError, "timeout must be seconds, not str"),
        ("set_linger", True, TypeError, "timeout must be seconds, not bool"),
        ("set_linger", float("nan"), ValueError, "timeout must not be nan"),
        ("set_no_delay", "yes", TypeError, "no_delay must be a bool, not str"),
        ("set_read_buffer", b"4096", TypeError, "size must be an int, not bytes"),
        ("set_write_buffer", 1.5, TypeError, "size must be an int, not float"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(run, setter, value, error, text):
    async def main():
        async with pair() as (a, _):
            with pytest.raises(error) as caught:
                getattr(a, setter)(value)
            assert str(caught.value) == text

    run(main)


def test_linger_zero_resets_on_close(run):
    async def main():
        for linger, expected in ((0, ConnectionResetError), (None, None), (0.5, None)):
            async with pair() as (a, b):
                a.set_linger(linger)
                await a.close()
                if expected:
                    with pytest.raises(expected):
                        await b.read()
                else:
                    assert await b.read() == b""

    run(main)


def test_raw_control_sees_the_descriptor(run):
    """Row 87."""

    async def main():
        async with pair() as (a, _):
            assert a.raw_control(lambda fd: fd) == a.fileno()
            with pytest.raises(ZeroDivisionError):
                a.raw_control(lambda fd: fd / 0)
            # A close inside is done when fn has returned.
            fd = a.fileno()
            a.raw_control(lambda fd: (a.close(), os.fstat(fd)))
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)

    run(main)


def test_setting_options_leaves_no_socket_object_behind(run):
    async def main():
        async with pair() as (a, _):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                for call in (functools.partial(a.set_no_delay, True), lambda: a.set_linger(None)):
                    call()
            await a.write(b"x")
            assert isinstance(a, TCPConn)

    run(main)
