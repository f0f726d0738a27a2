"""A loop of ours, two sockets and a few turns: what the tests of EventLoop share.

Called by tests/embed/test_aio_*.py, on the main thread.
"""

import asyncio
import socket

import pytest

from gopoll.embed import aio


@pytest.fixture
def loop():
    loop = aio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def pair():
    """Two connected TCP sockets, not blocking."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        a = socket.create_connection(listener.getsockname())
        b, _ = listener.accept()
    for sock in (a, b):
        sock.setblocking(False)
    yield a, b
    a.close()
    b.close()


def spin(loop, turns=3):
    """Run a few turns of *loop*."""

    async def turn():
        for _ in range(turns):
            await asyncio.sleep(0)

    loop.run_until_complete(turn())
