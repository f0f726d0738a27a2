"""A decorator that makes tests of programs: they end the same on asyncio's own loop and on ours.

Called by test_aio_same_*.py. A program gets the loop and say(), with which it tells what it sees.
What it tells, returns and raises, and what the loop's exception handler hears is compared; names
of classes, descriptors and addresses in memory are not.
"""

import asyncio
import difflib
import gc
import inspect
import re
import socket
import warnings

import pytest

from gopoll.embed import aio

SECONDS = 30

NAMES = [
    (re.compile(r"_SelectorSocketTransport|_SelectorTransport"), "SocketTransport"),
    (re.compile(r"_SelectorDatagramTransport"), "DatagramTransport"),
    (re.compile(r"_SSLProtocolTransport"), "SSLTransport"),
    (re.compile(r"_UnixSelectorEventLoop|BaseSelectorEventLoop"), "EventLoop"),
    (re.compile(r"0x[0-9a-f]+"), "0x"),
    (re.compile(r"writelines"), "write"),  # before 3.12
    (re.compile(r"when=\d+\.\d+"), "when=N"),
    (re.compile(r"', \d{4,5}\)"), "', PORT)"),
    (re.compile(r"fd=\d+"), "fd=N"),
    (re.compile(r"File descriptor \d+"), "File descriptor N"),
    (re.compile(r"/tmp/[\w./-]+"), "/tmp/PATH"),
    (re.compile(r" at /[\w./-]+:\d+"), " at PLACE"),
]


def plain(what):
    """Return *what* without what differs between two runs."""
    if isinstance(what, str):
        for pattern, name in NAMES:
            what = pattern.sub(name, what)
    elif isinstance(what, BaseException):
        what = f"{type(what).__name__}: {plain(str(what))}"
    elif isinstance(what, (tuple, list)):
        what = [plain(one) for one in what]
    return what


class Say:
    """Keep what a program tells."""

    def __init__(self):
        self.told = []

    def __call__(self, *what):
        self.told.append(plain(what))

    def call(self, function, *args, **kwargs):
        """Tell what *function* returns or raises."""
        try:
            self("returned", repr(function(*args, **kwargs)))
        except BaseException as exc:
            self("raised", exc)

    async def wait(self, awaitable):
        """Tell what *awaitable* comes to."""
        try:
            self("came", repr(await awaitable))
        except BaseException as exc:
            self("raised", exc)


def outcome(make, program):
    """Run *program* on a loop that *make* makes; return all that it told."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # for what a failure leaves, on either
        told = run(make(), program)
        gc.collect()
    return told


def run(loop, program):
    """Run *program* on *loop*, which is closed then; return all that it told."""
    say = Say()

    def handler(_, context):
        say("handler", sorted(context), context["message"], context.get("exception"))

    loop.set_exception_handler(handler)
    try:
        try:
            if inspect.iscoroutinefunction(program):
                result = loop.run_until_complete(asyncio.wait_for(program(loop, say), SECONDS))
            else:
                result = program(loop, say)
            say("result", result)
        except pytest.skip.Exception:
            raise
        except BaseException as exc:
            say("ended", exc)
        if not loop.is_closed():
            loop.set_task_factory(None)
            for _ in range(3):
                loop.run_until_complete(asyncio.sleep(0))
            loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
    return say.told


def differ(theirs, ours):
    """Return what differs, as a diff from asyncio's to ours."""
    theirs, ours = ([repr(line) for line in lines] for lines in (theirs, ours))
    return "\n".join(difflib.unified_diff(theirs, ours, "asyncio", "ours", lineterm=""))


def same(program):
    """Return a test: *program* tells the same on both loops."""

    def test():
        theirs, ours = outcome(asyncio.SelectorEventLoop, program), outcome(aio.EventLoop, program)
        assert len(theirs) > 1, "the program tells nothing"
        assert "TimeoutError" not in str(theirs[-1]), f"asyncio hangs: {theirs}"
        assert ours == theirs, differ(theirs, ours)

    test.__name__, test.__doc__, test.__module__ = program.__name__, program.__doc__, __name__
    return test


class Told(asyncio.Protocol):
    """Tell of each call; data that follows data is told as one."""

    keep_open = False

    def __init__(self, say):
        self.say = say
        self.data = b""
        self.lost = asyncio.get_running_loop().create_future()

    def tell(self, *what):
        if self.data:
            data, self.data = self.data, b""
            self.say("data", data if len(data) < 100 else len(data))
        self.say(*what)

    def connection_made(self, transport):
        self.transport = transport
        self.tell("made")

    def data_received(self, data):
        self.data += data

    def eof_received(self):
        self.tell("eof")
        return self.keep_open

    def pause_writing(self):
        self.tell("pause")

    def resume_writing(self):
        self.tell("resume")

    def connection_lost(self, exc):
        self.tell("lost", type(exc).__name__)
        self.lost.set_result(None)


def pair(kind):
    """Return two connected sockets of *kind*, tcp or unix."""
    if kind == "unix":
        return socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        a = socket.create_connection(listener.getsockname())
        b, _ = listener.accept()
    return a, b


async def connect(say, protocol=Told, kind="tcp"):
    """Return (transport, protocol, peer), connected; peer does not block."""
    a, peer = pair(kind)
    peer.setblocking(False)
    loop = asyncio.get_running_loop()
    transport, made = await loop.create_connection(lambda: protocol(say), sock=a)
    return transport, made, peer


async def turns(n=5):
    """Let the loop turn *n* times."""
    for _ in range(n):
        await asyncio.sleep(0)


async def until(condition):
    """Let the loop turn until condition()."""
    while not condition():
        await asyncio.sleep(0.0005)


async def drain(peer):
    """Read *peer* to its end; return how much that was."""
    loop, n = asyncio.get_running_loop(), 0
    while data := await loop.sock_recv(peer, 1 << 20):
        n += len(data)
    return n
