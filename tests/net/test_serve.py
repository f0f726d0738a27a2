"""serve(): a goroutine for each connection, limits, errors that pass, and how it ends."""

import contextlib
import errno
import functools
import logging
import os
import resource
import time

import pytest

from gopoll.errors import Canceled, ClosedError, DeadlineExceeded, OpError, op_error
from gopoll.net import serve as module
from gopoll.net import tls
from gopoll.net.dial import dial
from gopoll.net.listen import listen
from gopoll.net.serve import serve
from gopoll.net.unix import UnixConn
from gopoll.runtime.blocking import blocking
from gopoll.runtime.context import current_context, with_value
from gopoll.runtime.goroutine import go, sleep
from gopoll.runtime.group import Group
from gopoll.runtime.scope import shield, timeout
from helpers.child import run_python
from net.certs import certs
from net.tools import local_listener, parked, short_folder, sockets, until
from plugins.guard import wait_until


async def echo(conn):
    while data := await conn.read():
        await conn.write(data)


async def ask(conn, data=b"hello"):
    await conn.write(data)
    assert await conn.read() == data


@contextlib.asynccontextmanager
async def serving(handler, **options):
    """Serve for the length of a block: (the goroutine that serves, the listener)."""
    async with local_listener() as listener:
        g = go(serve(listener, handler, **options))
        try:
            yield g, listener
        finally:
            g.cancel()
            with contextlib.suppress(Canceled, OSError):
                await g


class Fake:
    """A listener whose accept does what the script says; then it is closed."""

    def __init__(self, *script):
        self.script = list(script)
        self.closed = False

    async def accept(self):
        if self.closed or not self.script:
            raise ClosedError("accept", "tcp")
        outcome = self.script.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def close(self):
        self.closed = True


async def lines(conn):
    """Yield, as no handler does."""
    yield await conn.read()


class FakeConn:
    """A connection that knows whether it was closed."""

    closed = 0

    def close(self):
        self.closed += 1


# -- connections


def test_every_connection_has_its_goroutine_and_is_closed_after_it(run):
    async def main():
        async with serving(echo) as (g, listener):
            clients = [await dial("tcp", listener.addr) for _ in range(5)]
            for client in reversed(clients):
                await ask(client)
            for client in clients:
                client.close_write()
                assert await client.read() == b""
                client.close()
            g.cancel("enough")
            with pytest.raises(Canceled, match="enough"):
                await g
            assert listener.is_closed

    run(main)


def test_the_connection_is_closed_whatever_the_handler_does(run, caplog):
    async def handler(conn):
        data = await conn.read()
        if data == b"error":
            raise LookupError("made up")
        if data == b"close":
            await conn.close()

    async def main():
        async with serving(handler) as (_, listener):
            for data in (b"return", b"error", b"close"):
                async with await dial("tcp", listener.addr) as client:
                    await client.write(data)
                    assert await client.read() == b""

    run(main)


def test_what_a_handler_raises_is_reported_and_the_server_goes_on(run, caplog):
    async def handler(conn):
        data = await conn.read()
        if data == b"bug":
            raise LookupError("made up")
        if data == b"net":
            await dial("tcp", closed)
        await conn.write(data)

    async def main():
        nonlocal closed
        async with local_listener() as gone:
            closed = gone.addr
        async with serving(handler) as (_, listener):
            for data in (b"bug", b"net", b"fine"):
                async with await dial("tcp", listener.addr) as client:
                    await client.write(data)
                    assert await client.read() == (b"fine" if data == b"fine" else b"")

    closed = None
    with caplog.at_level(logging.INFO, logger="gopoll"):
        run(main)
    bug, net = caplog.records
    assert (bug.name, bug.levelno) == ("gopoll", logging.ERROR)
    assert bug.getMessage().startswith("the handler of <TCPConn tcp 127.0.0.1:")
    assert bug.exc_info[0] is LookupError
    assert (net.levelno, net.exc_info) == (logging.WARNING, None)
    assert net.getMessage().startswith("dial tcp 127.0.0.1:")
    assert "connection refused" in net.getMessage()


def test_a_group_of_errors_of_the_network_is_a_line_for_each(run, caplog):
    """Two goroutines for a connection in a Group: a peer that has gone is no bug of theirs."""
    net = [OpError(op, "tcp", err="made up") for op in ("read", "write")]

    async def handler(conn):
        data = await conn.read()
        async with Group() as group:
            group.go(fail, net[0])
            group.go(fail, LookupError("a bug") if data == b"bug" else net[1])

    async def fail(error):
        raise error

    async def main():
        async with serving(handler) as (_, listener):
            for data in (b"net", b"bug"):
                async with await dial("tcp", listener.addr) as client:
                    await client.write(data)
                    assert await client.read() == b""

    run(main)
    *lines, bug = caplog.records
    assert [(r.levelno, r.exc_info) for r in lines] == 2 * [(logging.WARNING, None)]
    # In the order they failed in, which is anybody's where several threads run goroutines.
    assert sorted(r.getMessage() for r in lines) == [str(error) for error in net]
    assert (bug.levelno, bug.exc_info[0]) == (logging.ERROR, ExceptionGroup)


def test_a_handler_that_is_not_async_is_told_of_once(run, caplog):
    """What a function returns is known when it has been called: it may be a coroutine."""
    script = [FakeConn() for _ in range(4)]
    run(serve, Fake(*script[:3]), lambda conn: len(str(conn)))
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.message == (
        "serve() takes an async function; test_a_handler_that_is_not_async_is_told_of_once."
        "<locals>.<lambda> returned int, and its connections are closed at once"
    )
    seen = []

    async def handler(conn):
        seen.append(conn)

    run(serve, Fake(script[3]), lambda conn: handler(conn))
    assert seen == script[3:]
    assert [conn.closed for conn in script] == [1, 1, 1, 1]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_ends_a_program_ends_the_run(run, caplog, kind):
    """As in any goroutine that nobody awaits; the connections are closed all the same."""
    conns = [FakeConn(), FakeConn()]

    async def handler(conn):
        raise kind(3)

    async def main():
        await serve(Fake(*conns), handler)
        await sleep(60)

    with pytest.raises(kind) as caught:
        run(main)
    assert caught.value.args == (3,)
    assert [conn.closed for conn in conns] == [1, 1]
    assert caplog.records == []


def test_handlers_see_the_values_of_the_context_and_not_its_end(run):
    seen = []

    async def handler(conn):
        seen.append(current_context().value("who"))
        await conn.read()
        seen.append("read")

    async def main():
        async with local_listener() as listener:
            ctx = with_value(current_context(), "who", "me")
            g = go(serve, listener, handler, context=ctx)
            async with await dial("tcp", listener.addr) as client:
                await until(lambda: seen)
                g.cancel()
                await until(lambda: listener.is_closed)
                await client.write(b"x")
                with pytest.raises(Canceled):
                    await g
        assert seen == ["me", "read"]

    run(main)


def test_any_listener_will_do(run):
    """One of a Unix socket, and in it one of TLS: what they accept is what the handler gets."""

    async def main():
        kinds = []

        async def handler(conn):
            kinds.append(type(conn))
            await echo(conn)

        for wrap in (lambda below: below, lambda below: tls.listener(below, server)):
            with short_folder() as folder:
                path = os.path.join(folder, "s")
                async with await listen("unix", path) as below:
                    g = go(serve, wrap(below), handler)
                    conn = await dial("unix", path)
                    if wrap(below) is not below:
                        conn = await tls.client(conn, client, server_hostname="localhost")
                    await ask(conn)
                    await conn.close()
                    below.close()
                    assert await g is None
                assert not os.path.exists(path)
        assert kinds == [UnixConn, tls.TLSConn]

    server, client = certs().server_context(), certs().client_context()
    run(main)


@pytest.mark.parametrize("limit", [1, 3])
def test_so_many_at_once_and_the_others_wait(run, limit):
    state = {"now": 0, "most": 0}

    async def handler(conn):
        state["now"] += 1
        state["most"] = max(state["most"], state["now"])
        await echo(conn)
        state["now"] -= 1

    async def visit(listener):
        async with await dial("tcp", listener.addr) as client:
            await ask(client)
            await parked(serving_now, reason="serve")
            return state["now"]

    async def main():
        nonlocal serving_now
        async with serving(handler, limit=limit) as (serving_now, listener):
            held = [await dial("tcp", listener.addr) for _ in range(limit)]
            for client in held:
                await ask(client)
            visitors = [go(visit, listener) for _ in range(4)]
            await parked(serving_now, *visitors)
            assert not any(g.done for g in visitors)
            held.pop().close()
            for g in visitors:
                assert await g == limit
            for client in held:
                client.close()

    serving_now = None
    run(main, procs=1, handoff=False)  # the counters of the handler are its own
    assert state["most"] == limit


# -- accept


def test_what_may_pass_is_waited_out_longer_and_longer(run, monkeypatch, caplog):
    """Go: net/http.Server.Serve: 5 ms doubled up to 1 s, and from the start after a success."""
    slept = []

    async def fake_sleep(seconds):
        slept.append(seconds)

    async def handler(conn):
        pass

    monkeypatch.setattr(module, "sleep", fake_sleep)
    full = [op_error("accept", "tcp", None, ("::", 80), errno.EMFILE) for _ in range(10)]
    conn = FakeConn()
    others = [OSError(code, "x") for code in (errno.ENFILE, errno.ENOBUFS, errno.EPROTO)]
    run(serve, Fake(*full, conn, *others), handler)
    assert slept[:8] == [0.005 * 2**i for i in range(8)]
    assert slept[8:] == [1.0, 1.0, 0.005, 0.01, 0.02]
    assert conn.closed == 1
    assert len(caplog.records) == 13
    text = caplog.records[0].getMessage()
    assert text.startswith("accept tcp [::]:80: too many open files (limit ")
    assert text.endswith("; trying again in 0.005 s")


def test_other_errors_of_accept_end_it(run):
    conn = FakeConn()
    for error in (
        op_error("accept", "tcp", None, None, errno.EINVAL),
        TimeoutError(errno.ETIMEDOUT, "Connection timed out"),
        ZeroDivisionError("a bug"),
    ):
        listener = Fake(conn, error)
        with pytest.raises(type(error)) as caught:
            run(serve, listener, wait_for_it)
        assert caught.value is error
        assert listener.closed
    assert conn.closed == 3


async def wait_for_it(conn):
    await sleep(0)


def test_the_listener_s_own_deadline_ends_it(run):
    async def main():
        async with serving(echo) as (g, listener):
            async with await dial("tcp", listener.addr) as client:
                await ask(client)
                listener.set_deadline(0)
                client.close_write()
                with pytest.raises(TimeoutError, match="i/o timeout"):
                    await g
            assert listener.is_closed

    run(main)


def test_at_the_descriptor_limit_it_goes_on_when_one_is_free(run, caplog):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main():
        async with serving(echo) as (_, listener):
            async with await dial("tcp", listener.addr) as client:
                await ask(client)
                second = await dial("tcp", listener.addr)
                await ask(second)
                third = await dial("tcp", listener.addr)
                await ask(third)
                second.close()
                third.close()
                await wait_until(lambda: len(sockets()) == 3)
                # Room for one descriptor more: the client's own.
                lowest = os.dup(0)
                os.close(lowest)
                resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, hard))
                try:
                    late = await dial("tcp", listener.addr)
                    answer = go(ask, late)
                    await wait_until(lambda: len(caplog.records) > 2)
                    assert not answer.done
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                await answer
                await ask(client)
                late.close()

    run(main)
    assert "too many open files (limit " in caplog.records[0].getMessage()


# -- the end


def test_the_end_of_the_listener_is_a_normal_one(run):
    async def main():
        async with local_listener() as listener:
            g = go(serve, listener, echo)
            async with await dial("tcp", listener.addr) as client:
                await ask(client)
                listener.close()
                await parked(g, reason="serve")
                await ask(client)  # the handlers are waited for
            assert await g is None

    run(main)


def test_the_end_of_the_listener_is_seen_while_all_places_are_taken(run):
    async def main():
        async with local_listener() as listener:
            g = go(serve(listener, echo, limit=1, grace=0))
            async with await dial("tcp", listener.addr) as client:
                await ask(client)
                await parked(g, reason="serve")
                listener.close()
                assert await g is None
                assert await client.read() == b""

    run(main)


def test_handlers_get_their_time_to_finish(run):
    async def main():
        async with local_listener() as listener:
            g = go(serve(listener, echo, grace=None))
            async with await dial("tcp", listener.addr) as client:
                await ask(client)
                g.cancel()
                await listener.wait_closed()
                for _ in range(3):
                    await ask(client)
                assert not g.done
                with pytest.raises(ConnectionRefusedError):
                    await dial("tcp", listener.addr)
            with pytest.raises(Canceled):
                await g

    run(main)


@pytest.mark.parametrize("grace", [0, 0.01])
def test_after_that_they_are_cancelled_and_waited_for(run, grace):
    ended = []

    async def handler(conn):
        try:
            await echo(conn)
        except Canceled as exc:
            async with shield():
                await conn.write(b"goodbye")
                await blocking(lambda: None)
            ended.append(exc.cause)
            raise

    async def main():
        async with local_listener() as listener:
            g = go(serve(listener, handler, grace=grace))
            clients = [await dial("tcp", listener.addr) for _ in range(3)]
            for client in clients:
                await ask(client)
            g.cancel()
            with pytest.raises(Canceled):
                await g
            assert ended == ["serve() has ended"] * 3
            for client in clients:
                assert await client.read() == b"goodbye"
                assert await client.read() == b""
                client.close()

    run(main)


def test_a_timeout_around_it_is_an_end_too(run):
    async def handler(conn):
        limits[0].reschedule(time.monotonic() + 0.001)
        await echo(conn)

    async def limited(listener):
        async with timeout(None) as limit:
            limits.append(limit)
            await serve(listener, handler, grace=0)

    limits = []

    async def main():
        async with local_listener() as listener, await dial("tcp", listener.addr) as client:
            with pytest.raises(DeadlineExceeded):
                await limited(listener)
            assert await client.read() == b""

    run(main)


def test_a_connection_whose_handler_never_began_is_closed(run):
    """V1: accepted and cancelled in one slice."""
    conns = [FakeConn() for _ in range(50)]

    async def handler(conn):
        await sleep(60)

    async def main():
        await serve(Fake(*conns, OpError("accept", "tcp", err="made up")), handler, grace=0)

    with pytest.raises(OpError, match="made up"):
        run(main)
    assert [conn.closed for conn in conns] == [1] * 50


def test_a_connection_without_a_goroutine_is_closed(run, monkeypatch):
    """V1."""
    conn = FakeConn()

    def no_goroutine(*args, **options):
        raise MemoryError

    monkeypatch.setattr(module, "go", no_goroutine)
    with pytest.raises(MemoryError):
        run(serve, Fake(conn), echo)
    assert conn.closed == 1


class BadConn(FakeConn):
    """A connection of somebody else's, whose close() has a bug."""

    def close(self):
        super().close()
        raise ValueError("made up")


def test_a_close_that_raises_is_reported_and_the_server_goes_on(run, caplog):
    """V1: the connection is counted down, so that the end does not wait for it."""
    conns = [BadConn(), FakeConn(), BadConn()]

    async def handler(conn):
        pass

    run(functools.partial(serve, Fake(*conns), handler, limit=1, grace=None))
    assert [conn.closed for conn in conns] == [1, 1, 1]
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert all(text.startswith("the close of <") for text in messages)


def test_a_listener_that_cannot_be_closed_does_not_keep_the_handlers(run):
    ended = []

    class BadListener(Fake):
        def close(self):
            raise ValueError("made up")

    async def handler(conn):
        try:
            await sleep(3600)
        finally:
            ended.append(conn)

    async def main():
        conn = FakeConn()
        with pytest.raises(ValueError, match="made up"):
            await serve(BadListener(conn), handler, grace=0)
        assert conn.closed == 1

    run(main)


CTRL_C = """
import os, signal, sys
import gopoll

def say(what):
    os.write(1, f"{what}\\n".encode())  # in one piece

async def handler(conn):
    while data := await conn.read():
        if data == b"stop":
            os.kill(os.getpid(), signal.SIGINT)
            while not LISTENERS[0].is_closed:  # serve() has been told
                await gopoll.sleep(0.001)
        await conn.write(data)
        if data == b"stop" and STUBBORN:
            os.kill(os.getpid(), signal.SIGINT)
            try:
                await gopoll.sleep(3600)
            finally:
                say("cancelled")

async def client(addr):
    async with await gopoll.dial("tcp", addr) as conn:
        await conn.write(b"stop")
        say(await conn.read())
        if STUBBORN:
            say(await conn.read())

async def main():
    async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
        LISTENERS.append(listener)
        g = gopoll.go(client, listener.addr)
        try:
            await gopoll.serve(listener, handler, grace=3600)
        finally:
            await g

LISTENERS, STUBBORN = [], bool(int(sys.argv[1]))
try:
    gopoll.run(main)
except KeyboardInterrupt:
    say("interrupted")
"""


def test_ctrl_c_ends_it_as_a_cancellation_does():
    done = run_python(CTRL_C, 0)
    assert (done.stdout, done.stderr) == ("b'stop'\ninterrupted\n", "")


def test_a_second_ctrl_c_cuts_the_grace_short():
    done = run_python(CTRL_C, 1)
    lines = done.stdout.splitlines()  # the client and the handler print in either order
    assert (sorted(lines[:2]), lines[2:]) == (["b'stop'", "cancelled"], ["b''", "interrupted"])
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"grace": "x"}, TypeError, "grace must be seconds, not str"),
        ({"limit": 0}, ValueError, "limit must be above 0, not 0"),
        ({"limit": True}, TypeError, "limit must be an int, not bool"),
        ({"grace": -1}, ValueError, "grace must not be negative, not -1"),
        ({"grace": float("nan")}, ValueError, "grace must not be nan"),
    ],
)
def test_bad_arguments_are_named(run, options, kind, text):
    listener = Fake()
    with pytest.raises(kind, match=text):
        run(functools.partial(serve, listener, echo, **options))
    with pytest.raises(TypeError, match="handler must be an async function, not int"):
        run(serve, listener, 5)
    with pytest.raises(TypeError, match="handler must be an async function, but lines yields"):
        run(serve, listener, lines)
    assert not listener.closed  # nothing has begun
