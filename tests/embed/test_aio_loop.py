"""What EventLoop has of its own: turns, callbacks, timers, threads, sock_* calls, forks.

What it has in common with asyncio's loop, CPython's own suite sees (test_cpython_asyncio.py).
"""

import asyncio
import contextlib
import contextvars
import gc
import os
import resource
import signal
import socket
import sys
import threading
import warnings
import weakref

import pytest

from embed.loops import loop, pair, spin  # noqa: F401  (fixtures)
from gopoll.embed import aio
from helpers.child import run_python
from plugins.header import FREE_THREADED

# ruff: noqa: F811


# -- doors


def test_run_returns_the_result_and_closes_the_loop():
    async def main():
        return asyncio.get_running_loop()

    loop = aio.run(main())
    assert type(loop) is aio.EventLoop
    assert loop.is_closed()


def test_run_in_a_running_loop_is_refused_before_there_is_another():
    async def never():
        raise AssertionError

    async def main():
        coro = never()
        try:
            with pytest.raises(RuntimeError, match=r"^aio\.run\(\) cannot be called"):
                aio.run(coro)
        finally:
            coro.close()

    fds = len(os.listdir("/proc/self/fd"))
    aio.run(main())
    asyncio.run(main())
    assert len(os.listdir("/proc/self/fd")) == fds


def test_run_in_debug_mode():
    async def main():
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)
        return loop.get_debug()

    assert aio.run(main(), debug=True)


def test_a_task_that_fails_in_debug_mode_is_told_of_at_once():
    """No frame of the loop's keeps it for the collector (Python 3.12 and later)."""
    told = []

    async def fails():
        raise ZeroDivisionError

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: told.append(type(context["exception"])))
        loop.create_task(fails())  # noqa: RUF006
        await asyncio.sleep(0)
        assert told == [ZeroDivisionError]

    gc.disable()
    try:
        aio.run(main(), debug=True)
    finally:
        gc.enable()


def test_new_event_loop_is_a_loop_factory():
    with asyncio.Runner(loop_factory=aio.new_event_loop) as runner:
        assert isinstance(runner.get_loop(), aio.EventLoop)


def test_an_unclosed_loop_warns_and_leaves_nothing_open():
    def lose():
        aio.new_event_loop()
        gc.collect()

    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        lose()


# -- callbacks


def test_handles_are_asyncios(loop):
    handle = loop.call_soon(print, 1)
    timer = loop.call_later(10, print, 2)
    assert type(handle) is asyncio.Handle
    assert isinstance(timer, asyncio.TimerHandle)  # of a class with a compiled cancel()
    assert type(timer).__name__ == "TimerHandle"
    assert "print(1)" in repr(handle) or "print" in repr(handle)
    assert timer.when() > loop.time()
    assert isinstance(handle.get_context() if hasattr(handle, "get_context") else None, object)
    handle.cancel()
    timer.cancel()
    spin(loop)
    assert handle.cancelled()
    assert timer.cancelled()


def identities(loop, schedule):
    """Let *schedule* have the loop call something ten times; return the handles' identities."""
    seen = []

    async def main():
        for _ in range(10):
            called = loop.create_future()
            seen.append(id(schedule(called.set_result, None)))
            await called
            await asyncio.sleep(0)  # the handle is done with only when it has been called

    loop.run_until_complete(main())
    return seen


@pytest.mark.parametrize("delay", [None, 0.0])
def test_what_a_handle_had_goes_when_it_has_been_called(loop, delay):
    """It may be kept for the next one, out of the collector's sight."""

    class Something:
        def __call__(self, argument):
            pass

    def begin(*call, context=None):
        if delay is None:
            return loop.call_soon(*call, context=context)
        return loop.call_later(delay, *call, context=context)

    before = sum(isinstance(thing, asyncio.Handle) for thing in gc.get_objects())
    callback, argument, context = Something(), Something(), contextvars.copy_context()
    gone = [weakref.ref(thing) for thing in (callback, argument, context)]
    for _ in range(20):  # more than the turns to come take again
        begin(callback, argument, context=context)
    del callback, argument, context
    spin(loop)
    assert [ref() for ref in gone] == [None, None, None]
    assert sum(isinstance(thing, asyncio.Handle) for thing in gc.get_objects()) == before
    assert (len(set(identities(loop, begin))) < 10) is not FREE_THREADED


@pytest.mark.parametrize("debug", [False, True])
def test_a_timer_is_cancelled_as_asyncios_is(debug):
    """Of the same layout, state and words, whatever it was and is."""

    def told(make):
        loop = make()
        counted = []

        class Loop(type(loop)):
            def _timer_handle_cancelled(self, handle):
                counted.append(handle)
                super()._timer_handle_cancelled(handle)

        loop.close()
        loop = Loop()
        heard = []
        timer, held = loop.call_at(1e9, heard.append, 1), loop.call_at(0.0, heard.append, 2)
        spin(loop)
        loop.set_debug(debug)
        out = [heard[:], repr(timer), timer.cancelled(), loop._timer_cancelled_count]
        for handle in (timer, timer, held):
            out += [handle.cancel(), handle.cancelled(), loop._timer_cancelled_count]
        out += [handle._callback for handle in counted] + [handle._args for handle in counted]
        out += [repr(timer), repr(held), timer.when(), len(counted)]
        kind = type(timer)
        for wrong in (lambda: kind.cancel(7), lambda: kind.__new__(kind).cancel()):
            with pytest.raises((TypeError, AttributeError)) as caught:
                wrong()
            out.append(caught.type)
        spin(loop)
        loop.close()
        return out

    assert told(aio.new_event_loop) == told(asyncio.new_event_loop)


def test_a_timer_that_was_cancelled_is_used_again_only_if_nobody_has_it(loop):
    class Something:
        pass

    something = Something()
    gone = weakref.ref(something)
    context = contextvars.copy_context()
    context.run(contextvars.ContextVar("something").set, something)
    loop.call_later(1000, print, context=context).cancel()
    del something, context
    spin(loop)
    assert gone() is None
    kept = [loop.call_later(1000, print) for _ in range(3)]
    for timer in kept:
        timer.cancel()
    spin(loop)
    assert loop._scheduled == []
    fresh = loop.call_later(1000, print)
    assert not any(fresh is timer for timer in kept)
    assert all(timer.cancelled() for timer in kept)


def test_a_handle_that_somebody_has_is_not_used_for_another(loop):
    seen = []
    kept = [loop.call_soon(seen.append, 0)]
    spin(loop)
    kept += [loop.call_soon(seen.append, n) for n in range(1, 4)]
    spin(loop)
    kept[0].cancel()
    loop.call_soon(seen.append, 4)
    spin(loop)
    assert seen == [0, 1, 2, 3, 4]
    assert len({id(handle) for handle in kept}) == 4
    assert kept[0].cancelled()
    assert not any(handle.cancelled() for handle in kept[1:])


def test_a_handle_that_has_been_called_keeps_no_loop():
    loop = aio.new_event_loop()
    gone = weakref.ref(loop)
    for _ in range(20):
        loop.call_soon(int)
    spin(loop)
    loop.close()
    del loop
    gc.collect()
    assert gone() is None


def test_a_weak_reference_to_a_handle_ends_with_it(loop):
    for _ in range(3):
        handle = weakref.ref(loop.call_soon(int))
        timer = weakref.ref(loop.call_later(0, int))
        spin(loop)
        assert (handle(), timer()) == (None, None)


def test_more_handles_at_once_than_are_kept(loop):
    seen = []
    for at_once in (1000, 10, 300):
        for n in range(at_once):
            loop.call_soon(seen.append, n)
        spin(loop)
        assert seen == list(range(at_once))
        seen.clear()


def test_what_a_handle_had_calls_back_when_it_goes(loop):
    """In the midst of being put away for the next, which it asks for."""
    left = 500

    class Last:
        def __call__(self):
            pass

        def __del__(self):
            nonlocal left
            left -= 1
            if left > 0:
                for _ in range(3):
                    loop.call_soon(int)
                loop.call_soon(Last())

    for _ in range(200):
        loop.call_soon(int)
    loop.call_soon(Last())
    while left > 0:
        spin(loop)


def test_callbacks_run_in_order_and_in_their_context(loop):
    var = contextvars.ContextVar("var", default=0)
    seen = []
    context = contextvars.copy_context()
    context.run(var.set, 7)
    loop.call_soon(lambda: seen.append(("a", var.get())))
    loop.call_soon(lambda: seen.append(("b", var.get())), context=context)
    loop.call_soon_threadsafe(lambda: seen.append(("c", var.get())), context=context)
    spin(loop)
    assert seen == [("a", 0), ("b", 7), ("c", 7)]


def test_what_a_callback_raises_goes_to_the_exception_handler(loop):
    told = []
    loop.set_exception_handler(lambda _, context: told.append(context))

    def boom():
        raise ValueError("boom")

    handle = loop.call_soon(boom)
    spin(loop)
    assert told[0]["message"].startswith("Exception in callback test_what_a_callback_raises")
    assert type(told[0]["exception"]) is ValueError
    assert told[0]["handle"] is handle


def test_what_ends_a_loop_leaves_the_rest_for_the_next_run(loop, pair):
    a, b = pair
    seen = []
    made = loop.run_until_complete(loop.create_connection(lambda: Collect(seen), sock=a))
    b.send(b"data")

    def stop():
        raise KeyboardInterrupt

    loop.call_soon(stop)
    loop.call_soon(seen.append, "later")
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert seen == []
    spin(loop)
    assert sorted(map(str, seen)) == ["b'data'", "later"]
    made[0].abort()
    spin(loop)


class Asked(asyncio.BufferedProtocol):
    """Count how often there may have been something to read."""

    def __init__(self):
        self.buffer, self.asked, self.got = bytearray(100), 0, 0

    def get_buffer(self, sizehint):
        self.asked += 1
        return self.buffer

    def buffer_updated(self, n):
        self.got += n


def test_a_wait_that_is_interrupted_leaves_no_event_of_the_last_one(loop, pair):
    """Else the next turn would not poll, and give what was ready before another turn."""
    a, b = pair
    transport, asked = loop.run_until_complete(loop.create_connection(Asked, sock=a))

    def on_alarm(number, frame):
        if asked.got:  # the event has had its turn, and the loop waits again
            raise KeyboardInterrupt
        if not sent:
            sent.append(b.send(b"data"))

    sent = []
    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (asked.asked, asked.got) == (1, 4)
    spin(loop)
    assert asked.asked == 1
    b.send(b"more")
    while asked.got < 8:
        spin(loop)
    transport.abort()
    spin(loop)


def test_an_event_of_a_socket_that_is_gone_is_not_for_who_has_its_slot(loop, pair):
    """Y1: a copy keeps its registration going, and nobody could take that out."""
    a, b = pair
    number = a.fileno()
    with a.dup():
        task = loop.create_task(loop.sock_recv(a, 10))
        spin(loop)
        b.send(b"x")
        assert loop.run_until_complete(task) == b"x"
        c, d = socket.socketpair()
        with d:
            a.close()
            with c:
                again = socket.socket(fileno=os.dup2(c.fileno(), number, inheritable=False))
            transport, asked = loop.run_until_complete(loop.create_connection(Asked, sock=again))
            b.send(b"for the copy")
            for _ in range(3):
                spin(loop)
            assert asked.asked == 0
            d.send(b"data")
            while not asked.got:
                spin(loop)
            assert asked.asked == 1
            transport.abort()
            spin(loop)


class Collect(asyncio.Protocol):
    """Put what comes into a list."""

    def __init__(self, seen):
        self.seen = seen

    def data_received(self, data):
        self.seen.append(data)


def test_timers_run_in_order_of_time_never_early(loop):
    seen = []
    base = loop.time()
    delays = [0.004, 0.001, 0.003, 0.0002, 0.002]

    def at(delay):
        assert loop.time() >= base + delay
        seen.append(delay)

    timers = [loop.call_at(base + d, at, d) for d in delays]
    loop.run_until_complete(asyncio.sleep(0.01))
    assert seen == sorted(delays)
    assert all(not timer._scheduled for timer in timers)


def test_many_cancelled_timers_are_taken_out(loop):
    timers = [loop.call_later(1000 + i % 7, print) for i in range(500)]
    for timer in timers[:-3]:
        timer.cancel()
    spin(loop, 2)
    assert len(loop._scheduled) < 10
    assert loop._timer_cancelled_count == 0
    left = [t for t in loop._scheduled if not t.cancelled()]
    assert sorted(t.when() for t in left) == sorted(t.when() for t in timers[-3:])


@pytest.mark.parametrize("delay", [1e9, float("inf")])
def test_a_timer_far_away_does_not_keep_the_loop_from_waking(loop, delay):
    timer = loop.call_later(delay, print)
    threading.Timer(0.01, loop.call_soon_threadsafe, [loop.stop]).start()
    loop.run_forever()
    timer.cancel()


def test_a_time_of_an_odd_type_is_taken(loop):
    seen = []
    loop.call_later(0, seen.append, 1)
    loop.call_at(0, seen.append, 2)
    loop.call_later(True, print).cancel()
    spin(loop)
    assert seen == [2, 1] or seen == [1, 2]


def test_a_closed_loop_refuses(loop):
    loop.close()
    for call in (
        lambda: loop.call_soon(print),
        lambda: loop.call_soon_threadsafe(print),
        lambda: loop.call_later(1, print),
        lambda: loop.call_at(1, print),
        lambda: loop.run_until_complete(None),
    ):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            call()
    loop._write_to_self()  # what a late thread does


def test_many_threads_wake_the_loop_and_nothing_is_lost(loop):
    threads, each = 8, 500
    seen = []

    def feed(name):
        for i in range(each):
            loop.call_soon_threadsafe(seen.append, (name, i))

    async def main():
        feeders = [threading.Thread(target=feed, args=(n,)) for n in range(threads)]
        for thread in feeders:
            thread.start()
        while len(seen) < threads * each:
            await asyncio.sleep(0.0001)
        for thread in feeders:
            thread.join()

    loop.run_until_complete(asyncio.wait_for(main(), 60))
    for name in range(threads):
        assert [i for n, i in seen if n == name] == list(range(each))


def test_a_thread_may_cancel_a_handle_that_is_about_to_run(loop):
    ran = []
    stop = threading.Event()
    handles = []

    def cancel():
        while not stop.is_set():
            with contextlib.suppress(IndexError):
                handles.pop().cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        for i in range(3000):
            handles.append(loop.call_soon(ran.append, i))
            if i % 10 == 0:
                spin(loop, 1)
        spin(loop)
    finally:
        stop.set()
        thread.join()
    assert len(ran) <= 3000


def test_signal_handlers(loop):
    seen = []

    def handler():
        seen.append(1)
        loop.stop()

    loop.add_signal_handler(signal.SIGUSR1, handler)
    loop.call_later(0.01, os.kill, os.getpid(), signal.SIGUSR1)
    loop.call_later(30, loop.stop)
    loop.run_forever()
    assert seen == [1]
    assert loop.remove_signal_handler(signal.SIGUSR1)


# -- servers


@pytest.mark.parametrize("debug", [False, True])
def test_a_factory_that_raises_ends_its_connection_alone(loop, debug):
    made, heard = [], []
    loop.set_debug(debug)
    loop.set_exception_handler(lambda _, context: heard.append(repr(context["exception"])))

    def factory():
        made.append(1)
        if len(made) == 1:
            raise ValueError("not this one")
        return Greets()

    class Greets(asyncio.Protocol):
        def connection_made(self, transport):
            transport.write(b"hello")
            transport.close()

    async def main():
        server = await loop.create_server(factory, "127.0.0.1", 0)
        answers = []
        for _ in range(2):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            answers.append(await reader.read())
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return answers

    assert loop.run_until_complete(asyncio.wait_for(main(), 30)) == [b"", b"hello"]
    assert heard == (["ValueError('not this one')"] if debug else [])


def test_a_server_with_a_backlog_of_0_serves(loop):
    async def main():
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0, backlog=0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    loop.run_until_complete(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize("kind", ["IPv4", "IPv6", "no name", "path", "abstract", "undecodable"])
def test_an_accepted_connection_is_as_accept_of_socket_makes_it(loop, kind, tmp_path):
    if kind == "IPv6" and not has_ipv6():
        return
    if kind in ("IPv4", "IPv6"):
        where, family = (("127.0.0.1", 0), socket.AF_INET)
        if kind == "IPv6":
            where, family = (("::1", 0), socket.AF_INET6)
        listener = socket.create_server(where, family=family)
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "listener"))
        listener.listen()
    names = {
        "path": str(tmp_path / "client"),
        "abstract": f"\0gopoll-{os.getpid()}".encode(),
        "undecodable": os.fsencode(tmp_path) + b"/\xff",
    }

    async def main():
        made = loop.create_future()

        class Keeps(asyncio.Protocol):
            def connection_made(self, transport):
                made.set_result(transport)

        server = await loop.create_server(Keeps, sock=listener)
        with socket.socket(listener.family) as client:
            if kind in names:
                client.bind(names[kind])
            client.connect(listener.getsockname())
            transport = await made
            sock, peer = transport._sock, transport.get_extra_info("peername")
            assert peer == client.getsockname()
            assert type(peer) is type(client.getsockname())
            assert (sock.family, sock.type) == (listener.family, socket.SOCK_STREAM)
            assert sock.gettimeout() == 0
            assert not os.get_blocking(sock.fileno())
            assert not os.get_inheritable(sock.fileno())
            transport.abort()
            await asyncio.sleep(0)
        server.close()
        await server.wait_closed()

    loop.run_until_complete(asyncio.wait_for(main(), 30))


def has_ipv6():
    """Whether ::1 can be bound to."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_a_server_without_descriptors_serves_when_there_are_some_again(loop):
    told = []
    loop.set_exception_handler(lambda _, context: told.append(context["message"]))

    async def main():
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        async with server:
            client = socket.create_connection(server.sockets[0].getsockname())
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno(), hard))
            try:
                while not told:
                    await asyncio.sleep(0.001)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            with client:
                client.setblocking(False)
                assert await loop.sock_recv(client, 10) == b""

    loop.run_until_complete(asyncio.wait_for(main(), 30))
    assert set(told) == {"socket.accept() out of system resource"}


def test_a_loop_that_cannot_be_made_leaves_nothing():
    code = """
        import gc, os, resource
        from gopoll.embed import aio
        from helpers.child import open_fds
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        before = open_fds()
        lowest = os.dup(0)
        os.close(lowest)
        for made in range(20):
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + made, hard))
            try:
                loop = aio.new_event_loop()
            except OSError as exc:
                assert "Too many open files" in str(exc), exc
            else:
                break
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            assert open_fds() == before
        assert made > 2
        loop.close()
        assert open_fds() == before
    """
    done = run_python(code)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "Exception ignored" not in done.stderr


# -- datagrams


def test_datagrams_to_an_unnamed_peer(loop):
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    got = loop.create_future()

    class Protocol(asyncio.DatagramProtocol):
        def datagram_received(self, data, addr):
            got.set_result((data, addr))

    async def main():
        transport, _ = await loop.create_datagram_endpoint(Protocol, sock=a)
        assert transport.get_extra_info("peername") == ""
        transport.sendto(b"out")
        assert b.recv(10) == b"out"
        b.send(b"in")
        assert await got == (b"in", None)
        transport.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        transport.sendto(b"late")  # dropped

    with b:
        loop.run_until_complete(asyncio.wait_for(main(), 30))


# -- processes


def test_a_subprocess_needs_no_policy_with_a_watcher(loop, monkeypatch):
    def none():
        raise NotImplementedError

    if hasattr(asyncio, "get_child_watcher"):
        monkeypatch.setattr(asyncio, "get_child_watcher", none)

    async def main():
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", "echo out; exit 3", stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        return out, process.returncode

    assert loop.run_until_complete(main()) == (b"out\n", 3)


def test_a_subprocess_without_a_pidfd(loop, monkeypatch):
    def none(*args):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", none)

    async def main():
        process = await asyncio.create_subprocess_exec("sh", "-c", "exit 3")
        return await process.wait()

    if sys.version_info < (3, 14):
        monkeypatch.setattr("gopoll.embed.aio.loop._has_child_watcher", lambda: False)
        assert loop.run_until_complete(asyncio.wait_for(main(), 30)) == 3


def test_a_forked_child_runs_a_loop_of_its_own(loop):
    async def main():
        await asyncio.sleep(0.001)
        return 42

    spin(loop)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(BaseException):
            status = 0 if aio.run(main()) == 42 else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert loop.run_until_complete(main()) == 42
