"""TLSConn whose operations are cut, by deadlines of its own or from below; what that frees."""

import time

import pytest

from gopoll.errors import Canceled
from gopoll.runtime.goroutine import go
from net.tlstools import over, tls_pair
from net.tools import BIG, pair, parked
from plugins.guard import wait_until


def test_a_deadline_that_has_passed_holds_for_what_is_in_memory_too(run):
    """Row 38, for TLS: past deadline fails though data is ready."""

    async def main():
        async with tls_pair() as (a, b):
            await a.write(b"xy")
            assert await b.read(1) == b"x"
            b.set_read_deadline(0)
            with pytest.raises(TimeoutError, match=r"^read tcp .*i/o timeout"):
                await b.read(1)
            b.set_read_timeout(10)
            assert await b.read(1) == b"y"
            b.set_write_deadline(0)
            for _ in range(2):
                with pytest.raises(TimeoutError) as caught:
                    await b.write(b"z")
                assert caught.value.written == 0
            b.set_deadline(None)
            await b.write(b"!")
            assert await a.read() == b"!"  # no z

    run(main)


@pytest.mark.parametrize("connect", [pair, tls_pair])
def test_a_deadline_set_below_holds_for_what_is_in_memory(run, connect):
    """Before the handshake or after: the deadlines are those of the connection below."""

    async def main():
        async with connect() as (a, b):
            b.set_deadline(time.monotonic() + 3600)
            a, b = await over(a, b)
            await a.write(b"xyz")
            assert await b.read(1) == b"x"
            b.net_conn.set_deadline(time.monotonic() + 0.001)
            await wait_until(lambda: b.net_conn._deadline(1) == 0)
            with pytest.raises(TimeoutError, match=r"^read tcp .*i/o timeout"):
                await b.read(1)
            with pytest.raises(TimeoutError, match=r"^write tcp .*i/o timeout") as caught:
                await b.write(b"?")
            assert caught.value.written == 0
            b.net_conn.set_deadline(None)
            assert await b.read(1) == b"y"
            b.set_read_deadline(0)
            with pytest.raises(TimeoutError):
                await b.read(1)
            a.close()
            b.close()

    run(main)


@pytest.mark.parametrize("cut", ["deadline", "cancel"])
@pytest.mark.parametrize("name", ["readinto", "write", "writev"])
def test_an_operation_that_is_cut_gives_the_buffer_back(run, name, cut):
    """While the exception is handled, too: its traceback refers to what the frames had."""

    async def main():
        async with tls_pair() as (a, _):
            size = 100 if name == "readinto" else len(BIG)
            buffers = [bytearray(size), bytearray(3)]
            argument = buffers if name == "writev" else buffers[0]
            g = go(getattr(a, name), argument)
            await parked(g, reason="read" if name == "readinto" else "write")
            if cut == "deadline":
                a.set_deadline(0)
            else:
                g.cancel()
            try:
                await g
            except (TimeoutError, Canceled):
                for buffer in buffers:
                    buffer.append(0)  # BufferError while somebody has it
            else:
                raise AssertionError("it was not cut")

    run(main)
