"""States, callbacks, descriptors, signals, tasks and executors, beside asyncio's own loop."""

import asyncio
import contextlib
import contextvars
import inspect
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from unittest import mock

from embed.same import plain, same, turns

# -- states


@same
def test_states_of_a_loop(loop, say):
    async def inside():
        say(loop.is_running(), loop.is_closed())
        say.call(loop.close)
        if sys.version_info[:3] != (3, 13, 0):  # which forgets then what runs
            say.call(loop.run_forever)
            other = type(loop)()
            say.call(other.run_forever)
            other.close()

    say(loop.is_running(), repr(loop))
    loop.run_until_complete(inside())
    loop.stop()
    loop.run_forever()
    loop.call_soon(loop.stop)
    say.call(loop.run_until_complete, loop.create_future())
    loop.close()
    loop.close()
    say(loop.is_closed(), repr(loop))
    for call in (loop.run_forever, lambda: loop.run_until_complete(loop.create_future())):
        say.call(call)


@same
def test_calls_to_a_closed_loop(loop, say):
    a, b = socket.socketpair()
    loop.close()
    with a, b:
        for call in (
            lambda: loop.call_soon(print),
            lambda: loop.call_later(0, print),
            lambda: loop.call_at(0, print),
            lambda: loop.call_soon_threadsafe(print),
            lambda: loop.add_reader(a, print),
            lambda: loop.add_writer(a, print),
            lambda: loop.remove_reader(a),
            lambda: loop.remove_writer(a),
            lambda: loop.run_in_executor(None, print),
            lambda: loop.add_signal_handler(signal.SIGUSR1, print),
            lambda: loop.remove_signal_handler(signal.SIGUSR1),
            lambda: loop.stop(),
            lambda: loop.time() > 0,
            lambda: loop.set_debug(True),
            lambda: loop.create_future().done(),
        ):
            say.call(call)


@same
def test_what_waits_when_a_loop_is_closed_is_dropped(loop, say):
    loop.call_soon(say, "never")
    loop.call_later(0, say, "never")
    timer = loop.call_later(10, say, "never")
    loop.close()
    timer.cancel()
    say(timer.cancelled())


@same
def test_a_clock_that_is_put_on_the_loop(loop, say):
    now = 1000.0
    loop.time = lambda: now
    say(loop.call_at(1004.5, say, "at").when(), loop.call_later(5, say, "later").when())
    loop.call_later(1000, say, "never")
    for now in (1004.5, 1005, 1005.25):
        loop.call_soon(loop.stop)
        loop.run_forever()
        say(now, loop.call_later(2, say, "never").when())


@same
def test_a_turn_after_stop(loop, say):
    def first():
        loop.stop()
        loop.call_soon(say, "in the next run")
        say("stopped")

    loop.call_soon(first)
    loop.call_soon(say, "in the same turn")
    loop.run_forever()
    say("ran")
    loop.stop()
    loop.run_forever()


# -- callbacks


@same
async def test_arguments_of_calls(loop, say):
    for call in (
        lambda: loop.call_later(None, print),
        lambda: loop.call_at(None, print),
        lambda: loop.call_later("1", print),
    ):
        say.call(call)
    loop.call_later(-5, say, "negative")
    loop.call_later(0, say, "zero")
    loop.call_soon(say, "soon")
    await asyncio.sleep(0.001)
    loop.call_soon(None)
    loop.call_soon(3, "x")
    await turns()


@same
async def test_timers_of_the_same_time_run_as_asyncios(loop, say):
    at = loop.time()
    for n in (1, 2, 3, 7, 40):
        for i in range(n):
            loop.call_at(at, say, n, i)
        for i in range(n):
            loop.call_at(at + 0.0001 * (i % 3), say, n, "later", i)
    cancelled = [loop.call_at(at, say, "never") for _ in range(150)]
    for timer in cancelled:
        timer.cancel()
    await asyncio.sleep(0.01)


@same
async def test_handles(loop, say):
    soon, timer = loop.call_soon(say, "x"), loop.call_later(1000, say, "y")
    say(repr(soon).split(" at ")[0], "when=" in repr(timer), timer.when() > loop.time())
    for handle in (soon, timer):
        handle.cancel()
        handle.cancel()
        say(repr(handle), handle.cancelled())

    def cancels_itself():
        handle.cancel()
        raise ValueError("after cancel")

    handle = loop.call_soon(cancels_itself)
    await turns()
    first = loop.call_at(5.0, print)
    second = loop.call_at(6.0, print)
    say(first < second, first == second, first >= second, hash(first) == hash(5.0))
    first.cancel()
    second.cancel()


@same
def test_what_callbacks_raise(loop, say):
    def raises(error):
        raise error("boom")

    for error in (ValueError, asyncio.CancelledError, GeneratorExit, StopIteration):
        loop.call_soon(raises, error)
        loop.call_later(0, raises, error)
    loop.run_until_complete(asyncio.sleep(0.001))
    a, b = socket.socketpair()
    with a, b:
        for error in (KeyboardInterrupt, SystemExit):
            for put in (loop.call_soon, lambda *call: loop.call_later(0, *call)):
                put(raises, error)
                put(say, "behind it")
                say.call(loop.run_forever)
                loop.run_until_complete(asyncio.sleep(0.001))
            loop.add_writer(a, raises, error)
            say.call(loop.run_forever)
            loop.remove_writer(a)


@same
def test_exception_handlers(loop, say):
    def boom():
        raise ValueError("boom")

    def bad(_, context):
        raise RuntimeError("handler")

    records = []
    keep = logging.Handler()
    keep.emit = lambda record: records.append(record.getMessage().splitlines()[0])
    logging.getLogger("asyncio").addHandler(keep)
    say.call(loop.set_exception_handler, 3)
    before = loop.get_exception_handler()
    for handler in (bad, None):
        loop.set_exception_handler(handler)
        say(loop.get_exception_handler() is handler)
        loop.call_soon(boom)
        loop.run_until_complete(asyncio.sleep(0))
    loop.call_exception_handler({"message": "told", "asyncgen": 3})
    logging.getLogger("asyncio").removeHandler(keep)
    loop.set_exception_handler(before)
    say([plain(record) for record in records])


@same
async def test_contexts(loop, say):
    var = contextvars.ContextVar("var", default=0)
    context = contextvars.copy_context()
    context.run(var.set, 5)

    def tell(what):
        say(what, var.get())
        var.set(var.get() + 1)

    for put in (loop.call_soon, loop.call_soon_threadsafe):
        put(tell, "own")
        put(tell, "given", context=context)
    loop.call_later(0, tell, "timer", context=context)
    loop.call_at(loop.time(), tell, "timer")
    say.call(context.run, lambda: loop.call_soon(tell, "entered"))
    await asyncio.sleep(0.001)
    say(var.get(), context[var])
    loop.call_soon(tell, "wrong", context=3)
    await turns()


@same
def test_threads(loop, say):
    got = []

    def thread():
        for i in range(100):
            loop.call_soon_threadsafe(got.append, i)
        say(asyncio.run_coroutine_threadsafe(asyncio.sleep(0, "result"), loop).result(10))
        loop.call_soon_threadsafe(loop.stop)

    worker = threading.Thread(target=thread)
    worker.start()
    loop.run_forever()
    worker.join()
    say(got == list(range(100)))


# -- debug mode


@same
def test_debug_mode(loop, say):
    records = []
    keep = logging.Handler()
    keep.emit = lambda record: records.append(record.getMessage().split(" took ")[0])
    logging.getLogger("asyncio").addHandler(keep)
    loop.set_debug(True)
    say(loop.get_debug(), repr(loop))

    async def main():
        loop.slow_callback_duration = 0.01
        loop.call_soon(time.sleep, 0.02)
        await turns()
        loop.slow_callback_duration = 10
        for call in (
            lambda: loop.call_soon("no function"),
            lambda: loop.call_later(1, asyncio.sleep),
            lambda: loop.call_soon_threadsafe(asyncio.sleep),
        ):
            say.call(call)
        thread = threading.Thread(target=say.call, args=(loop.call_soon, print))
        thread.start()
        thread.join()
        a, b = socket.socketpair()
        with a, b:
            await say.wait(loop.sock_recv(a, 1))
            await say.wait(loop.sock_sendall(a, b"x"))
            await say.wait(loop.sock_accept(a))
            await say.wait(loop.sock_recvfrom(a, 10))
            a.setblocking(False)
            b.setblocking(False)
            await loop.sock_sendall(a, b"debug")
            say(await loop.sock_recv(b, 10))

        def boom():
            raise ValueError("boom")

        loop.call_soon(boom)
        await turns()

    loop.run_until_complete(main())
    logging.getLogger("asyncio").removeHandler(keep)
    loop.set_debug(False)
    say([plain(r.split("(")[0]) for r in records if "Executing" in r])


# -- descriptors


@same
async def test_readers_and_writers(loop, say):
    a, b = socket.socketpair()
    with a, b:
        say(loop.remove_reader(a), loop.remove_writer(a))
        loop.add_reader(a, say, "first")
        loop.add_reader(a.fileno(), say, "second")
        loop.add_writer(a, lambda: (say("writable"), loop.remove_writer(a)))
        b.send(b"x")
        await turns()
        say(loop.remove_reader(a), loop.remove_reader(a), loop.remove_writer(a))
        a.recv(10)

        def both():
            say("reader")
            loop.remove_reader(a)
            loop.remove_writer(a)

        loop.add_writer(a, lambda: say("writer before") or loop.remove_writer(a))
        await turns()
        loop.add_reader(a, both)
        b.send(b"y")
        await turns()
        loop.add_reader(a, 3)
        await turns()
        loop.remove_reader(a)


@same
async def test_descriptors_that_make_no_sense(loop, say):
    a, b = socket.socketpair()
    number = a.fileno()
    a.close()
    b.close()
    with tempfile.TemporaryFile() as file:
        for what in (-1, "text", None, 3.5, a, number, 1 << 20, file, file.fileno()):
            for call in (loop.add_reader, loop.add_writer):
                try:
                    call(what, print)
                except BaseException as exc:
                    say(type(exc).__name__)
                else:
                    say("returned")
            for call in (loop.remove_reader, loop.remove_writer):
                try:
                    say(call(what))
                except BaseException as exc:
                    say(type(exc).__name__)


@same
async def test_a_number_that_is_used_again(loop, say):
    for i in range(5):
        a, b = socket.socketpair()
        with a, b:
            loop.add_reader(a, lambda i=i, a=a: say(i, a.recv(10)))
            b.send(b"data")
            await turns()
            loop.remove_reader(a)


@same
async def test_a_hang_up_is_readable_and_writable(loop, say):
    a, b = socket.socketpair()
    with a:
        loop.add_reader(a, lambda: say("readable", a.recv(1)) or loop.remove_reader(a))
        b.close()
        await turns()
        loop.add_writer(a, lambda: say("writable") or loop.remove_writer(a))
        await turns()


@same
async def test_pipes(loop, say):
    r, w = os.pipe()
    lost = loop.create_future()

    class Reads(asyncio.Protocol):
        def connection_made(self, transport):
            say("made", isinstance(transport, asyncio.ReadTransport))

        def data_received(self, data):
            say(data)

        def eof_received(self):
            say("eof")

        def connection_lost(self, exc):
            lost.set_result(exc)

    await loop.connect_read_pipe(Reads, os.fdopen(r, "rb", 0))
    writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(w, "wb", 0))
    writer.write(b"through the pipe")
    say(writer.get_write_buffer_size(), writer.can_write_eof())
    writer.write_eof()
    say(await lost)
    with tempfile.TemporaryFile() as file:
        await say.wait(loop.connect_read_pipe(Reads, file))


# -- signals


@same
def test_signals(loop, say):
    async def never():
        pass

    for number in (signal.SIGKILL, 0, 1000, "SIGINT"):
        say.call(loop.add_signal_handler, number, print)
        say.call(loop.remove_signal_handler, number)
    say.call(loop.add_signal_handler, signal.SIGUSR1, never)
    say(loop.remove_signal_handler(signal.SIGUSR1))

    def raises():
        say("raises")
        loop.call_soon(loop.stop)
        raise ValueError("in a handler of a signal")

    def handler(*args):
        say("handler", args)
        loop.stop()

    for call in ((handler, 1), (handler, 2, 3), (raises,)):
        loop.add_signal_handler(signal.SIGUSR1, *call)
        loop.call_later(0.001, os.kill, os.getpid(), signal.SIGUSR1)
        loop.run_forever()
    say(loop.remove_signal_handler(signal.SIGUSR1), signal.getsignal(signal.SIGUSR1))


@same
def test_a_plain_signal_handler_may_call_the_loop(loop, say):
    old = signal.signal(signal.SIGALRM, lambda *_: loop.call_soon_threadsafe(loop.stop))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        loop.run_forever()
        say("stopped")
        signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(KeyError("signal")))
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        say.call(loop.run_forever)
    finally:
        signal.signal(signal.SIGALRM, old)


# -- tasks


@same
async def test_tasks_of_sock_calls(loop, say):
    a, b = socket.socketpair()
    a.setblocking(False)
    with a, b:
        b.send(b"0123456789")
        task = loop.create_task(loop.sock_recv(a, 2), name="reads")
        say(task.get_name(), await task, task.done())
        say(await asyncio.wait_for(loop.sock_recv(a, 2), 5))
        say(await asyncio.gather(loop.sock_recv(a, 2), asyncio.sleep(0, "slept")))
        say(await asyncio.shield(loop.sock_recv(a, 2)))
        say(await asyncio.ensure_future(loop.sock_recv(a, 2)))
        task = loop.create_task(loop.sock_recv(a, 2))
        task.cancel()
        await say.wait(task)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(loop.sock_recv(a, 2), 0.001)
        async with asyncio.TaskGroup() as group:
            waits = group.create_task(loop.sock_recv(a, 10))
            group.create_task(loop.sock_sendall(a, b"back"))
            b.send(b"group")
        say(waits.result(), b.recv(10))


@same
async def test_who_takes_a_socket_from_a_sock_call_keeps_it(loop, say):
    """Y12: the call took it back in the next turn, and the callback was never made again."""
    for sends in (False, True):
        a, b = socket.socketpair()
        with a, b:
            a.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while sends:
                    a.send(bytes(65536))
            waits = loop.create_task(loop.sock_sendall(a, b"x") if sends else loop.sock_recv(a, 9))
            await asyncio.sleep(0)
            (loop.add_writer if sends else loop.add_reader)(a, say, "ready")
            await turns(2)
            waits.cancel()
            await say.wait(waits)
            say("now")
            b.send(b"x")
            with contextlib.suppress(BlockingIOError):
                while sends:
                    b.recv(1 << 20, socket.MSG_DONTWAIT)
            await turns(2)
            say(loop.remove_writer(a) if sends else loop.remove_reader(a))


@same
async def test_task_factories(loop, say):
    say.call(loop.set_task_factory, 3)
    made = []

    def factory(loop, coro, **kwargs):
        made.append(sorted(kwargs))
        return asyncio.Task(coro, loop=loop, **kwargs)

    loop.set_task_factory(factory)
    say(loop.get_task_factory() is factory)
    await loop.create_task(asyncio.sleep(0))
    await loop.create_task(asyncio.sleep(0), context=contextvars.copy_context())
    loop.set_task_factory(None)
    say(loop.get_task_factory(), made)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        say.call(loop.create_task, 3)


if sys.version_info >= (3, 12):

    @same
    async def test_eager_tasks(loop, say):
        a, b = socket.socketpair()
        a.setblocking(False)
        loop.set_task_factory(asyncio.eager_task_factory)
        with a, b:
            b.send(b"here")
            task = loop.create_task(loop.sock_recv(a, 10))
            say(task.done())
            say(await task)
            task = loop.create_task(loop.sock_recv(a, 10))
            say(task.done())
            b.send(b"later")
            say(await task)
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            say(await reader.read())
            writer.close()
            await writer.wait_closed()


if sys.version_info >= (3, 13):  # 3.12 waits for the executor without a bound

    @same
    def test_the_executors_end_may_time_out(loop, say):
        stop = threading.Event()
        loop.run_in_executor(None, stop.wait)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            loop.run_until_complete(loop.shutdown_default_executor(0.01))
        say([str(w.message) for w in seen if "executor" in str(w.message)])
        stop.set()


@same
async def test_executors(loop, say):
    say.call(loop.set_default_executor, 3)
    say(await loop.run_in_executor(None, lambda: "from a thread"))
    await say.wait(loop.run_in_executor(None, int, "x"))
    say((await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM))[0][4])
    say(await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV))
    await loop.shutdown_default_executor()
    say.call(loop.run_in_executor, None, print)


@same
def test_asynchronous_generators_are_closed(loop, say):
    async def generator():
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            say("closed")

    async def main():
        kept.append(generator())
        return await anext(kept[0])

    kept = []
    say(loop.run_until_complete(main()))
    loop.run_until_complete(loop.shutdown_asyncgens())


@same
async def test_which_methods_are_coroutine_functions(loop, say):
    """Who replaces one asks: mock makes what can be awaited in the place of those alone."""
    asks = inspect if sys.version_info >= (3, 12) else asyncio  # the latter's warns since 3.14
    for name in sorted(vars(asyncio.AbstractEventLoop)):
        if not name.startswith("_"):
            say(name, asks.iscoroutinefunction(getattr(loop, name)))
    for autospec in (None, True):
        with mock.patch.object(loop, "create_connection", autospec=autospec) as made:
            made.return_value = 1, 2
            say(await loop.create_connection(None, "127.0.0.1", 1))
        with mock.patch.object(loop, "sock_recv", autospec=autospec) as made:
            made.return_value = b"1"
            say(await loop.sock_recv(None, 1))
