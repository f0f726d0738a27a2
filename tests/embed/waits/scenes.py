"""What happens to a wait, and what it ends with, in the words of the table in docs/embedding.md.

Called by embed.waits, in the main task of a Lib's loop. A scene has a task wait in an operation,
lets one thing happen, and returns a cell.
"""

import errno
import functools
import re
import socket

from embed.waits import sockets
from embed.waits.base import ROUNDS, Wait

TRIES = 5  # in which two that queue must do so: they may keep their order by chance
SOON = 0.01  # seconds; nothing depends on how long it is
EVENTS = {
    "read": ["data", "FIN", "HUP", "RST", "closed", "deadline", "timeout", "cancelled", "second"],
    "write": ["room", "FIN", "RST", "closed", "deadline", "timeout", "cancelled", "rest", "second"],
    "accept": ["client", "reset", "HUP", "closed", "deadline", "timeout", "cancelled", "second"],
    "dial": ["connected", "refused", "closed", "deadline", "timeout", "cancelled"],
}
# gopoll's and gevent's errors are of one of Python's classes too.
DERIVED = re.compile(r"OpError\[(\w+)\]|OpError|cancel_wait_ex")


def name_of(exc):
    """Return the name of the class that a program would catch *exc* by, and a bare errno's."""
    names = [DERIVED.sub(r"\1", c.__name__) for c in type(exc).__mro__]
    name = next(filter(None, names))
    number = f" ({errno.errorcode[exc.errno]})" if name == "OSError" and exc.errno else ""
    return f"`{name}`{number}"


def tell(how):
    """Say what an operation has ended with."""
    if isinstance(how, BaseExceptionGroup):
        return ", ".join(sorted(set(map(tell, how.exceptions)))) + ", in a group"
    if isinstance(how, BaseException):
        return name_of(how)
    if isinstance(how, bytes):
        return "the bytes" if how else '`b""`'
    if how is None or how == len(sockets.BIG):
        return "all is sent"
    return "the connection"


class Scene:
    """A listener or one end of a connection to wait with, the other end, and a bystander."""

    def __init__(self, lib, event):
        self.lib, self.event = lib, event
        self.plain, self.wrapped = [], []

    async def open(self):
        """Connect the bystander, first of all: no number of a closed descriptor comes to it."""
        self.conn, self.far = await self.connect()

    async def close(self):
        await self.lib.end_waits()
        for sock in self.plain:
            sock.close()
        for each in self.wrapped:
            await self.lib.close(each)
        await self.lib.turns()  # a transport closes later

    async def connect(self):
        near, far = sockets.pair()
        self.plain.append(far)
        self.name = sockets.inode(near)
        self.wrapped.append(await self.lib.wrap(near))
        return self.wrapped[-1], far

    async def start(self, op, *args):
        """Have a task begin to wait, with the library's own scope around if that is the event."""
        wait = Wait(self.lib, op, *args, limit=SOON if self.event == "timeout" else None)
        await self.lib.parked(wait)
        return wait

    async def moving(self, done, move):
        """Wait until done(), which move() brings about."""
        await self.lib.until(lambda: (move(), done())[1])

    async def settled(self, done, move=lambda: False):
        """Let time pass for those who may hang: return when done(), or when nothing moves.

        Time is what the bystander's messages take: the kernel has delivered what it had before,
        and the loop has polled. move() does what would wake them, and reports whether any moved.
        """
        await self.lib.turns()
        still = 0
        while still < ROUNDS and not done():
            still = 0 if move() else still + 1
            message = Wait(self.lib, self.lib.read, self.conn)
            self.far.sendall(b".")
            await message.outcome()
        await self.lib.turns()

    async def after_close(self, wait, move):
        """Return what *wait* ends with where somebody has closed what it waits for."""
        await self.lib.turns()
        if not wait.done and sockets.is_open(self.name):
            await self.moving(lambda: wait.done, move)
            return waits_on(wait)
        if not wait.done:
            await self.settled(lambda: wait.done, move)
        return tell(wait.how) if wait.done else "hangs"


def waits_on(wait):
    """Return what *wait* has ended with: what it waited for, or an error."""
    return tell(wait.how) if wait.failed else "waits on"


class Taker:
    """Takes what comes on the far end, for as long as it is asked to."""

    def __init__(self, sock):
        self.sock, self.got, self.ended = sock, b"", False

    def __call__(self):
        if not self.ended:
            data, self.ended = sockets.take(self.sock)
            self.got += data
            return bool(data)
        return False


async def read(s):
    """A read of which nothing has come yet."""
    conn, far = await s.connect()
    if s.event == "deadline" and not s.lib.set_deadline(conn, SOON):
        return "none"
    wait = await s.start(s.lib.read, conn)
    match s.event:
        case "data":
            far.sendall(b"data")
        case "FIN":
            far.shutdown(socket.SHUT_WR)
        case "HUP":
            sockets.shut_down(s.lib.fileno(conn), socket.SHUT_WR)
            far.shutdown(socket.SHUT_WR)
        case "RST":
            sockets.reset(far)
        case "closed":
            await s.lib.close(conn)
            return await s.after_close(wait, lambda: sockets.send(far, b"data"))
        case "cancelled":
            wait.cancel()
        case "second":
            return await second_read(s, wait, conn, far)
    how = tell(await wait.outcome())
    if s.event in ("deadline", "timeout", "cancelled"):
        if s.event == "deadline":
            s.lib.set_deadline(conn, None)
        far.sendall(b"later")
        again = Wait(s.lib, s.lib.read, conn)
        if await again.outcome() != b"later":
            how += f", and the next read ends with {tell(again.how)}"
    return how


async def second_read(s, first, conn, far):
    second = await s.start(s.lib.read, conn)
    far.sendall(b"1")
    if second.failed:
        return told_off(second, await first.outcome() == b"1")
    await s.lib.until(lambda: first.done or second.done)
    far.sendall(b"2")
    await both(s, first, second)
    return of_two(first, second, (first.how, second.how) == (b"1", b"2"))


def told_off(one, other_is_well):
    """Return what one of two ends with, where they cannot both wait."""
    return tell(one.how) + ("" if other_is_well else ", and the other is disturbed")


async def both(s, first, second, move=lambda: False):
    """Wait for the end of two waits; for that of the first only where the second is not last."""
    await s.moving(lambda: first.done or second.done, move)
    if first.done:
        await s.moving(lambda: second.done, move)
    else:
        await s.settled(lambda: first.done, move)


def of_two(first, second, in_order):
    """Return what two waits end with that both began."""
    if not first.done:
        return "the first hangs"
    if first.failed or second.failed:
        return f"{tell(first.how)}, {tell(second.how)}"
    return "queues" if in_order else "both go on, mixed"


async def write(s):
    """A write of more than there is room for."""
    conn, far = await s.connect()
    if s.event == "deadline" and not s.lib.set_deadline(conn, SOON):
        return "none"
    wait, taker = await s.start(s.lib.write, conn, sockets.BIG), Taker(far)
    match s.event:
        case "room":
            await s.moving(lambda: wait.done, taker)
        case "FIN":
            far.shutdown(socket.SHUT_WR)
            await s.settled(lambda: wait.done)
            if not wait.done:
                await s.moving(lambda: wait.done, taker)
                return waits_on(wait)
        case "RST":
            sockets.reset(far)
        case "closed":
            await s.lib.close(conn)
            return await s.after_close(wait, taker)
        case "cancelled":
            wait.cancel()
        case "rest":
            wait.cancel()
            await wait.outcome()
            await s.lib.close(conn)
            await s.moving(lambda: taker.ended, taker)
            return what_is_left(wait, taker)
        case "second":
            return await second_write(s, wait, conn, taker)
    return tell(await wait.outcome())


def what_is_left(wait, taker):
    """Return what has become of what a write had left that was cancelled."""
    if taker.got == sockets.BIG:
        return "sent"
    known = getattr(wait.how, "written", None) == len(taker.got)
    return "dropped, `written` says where" if known else "dropped"


async def second_write(s, first, conn, taker):
    more = b"2" * len(sockets.BIG)  # little might find room, and end on the spot
    taker()  # there is room, most likely, before anybody is told
    second = await s.start(s.lib.write, conn, more)
    await s.moving(lambda: first.done or second.done, taker)
    if first.failed or second.failed:
        one, other = (first, second) if first.failed else (second, first)
        await s.moving(lambda: other.done, taker)
        return told_off(one, not other.failed)
    await both(s, first, second, taker)
    if first.done:
        await s.moving(lambda: len(taker.got) == len(sockets.BIG + more), taker)
    return of_two(first, second, taker.got == sockets.BIG + more)


async def accept(s):
    """An accept to which nobody has come yet."""
    sock, addr = sockets.listener()
    s.name = sockets.inode(sock)
    listener = await s.lib.listen(sock)
    s.wrapped.append(listener)
    if s.event == "deadline" and not s.lib.set_deadline(listener, SOON):
        return "none"

    async def accept_one():
        s.wrapped.append(await s.lib.accept(listener))
        return "accepted"

    def client():
        s.plain.append(sockets.connect(addr))

    wait = await s.start(accept_one)
    match s.event:
        case "client":
            client()
        case "reset":
            client()
            sockets.reset(s.plain[-1])
        case "HUP":
            sockets.shut_down(s.lib.fileno(listener), socket.SHUT_RDWR)
        case "closed":
            await s.lib.close(listener)
            return await s.after_close(wait, once(client))
        case "cancelled":
            wait.cancel()
        case "second":
            return await second_accept(s, wait, accept_one, client)
    how = tell(await wait.outcome())
    if s.event in ("deadline", "timeout", "cancelled"):
        if s.event == "deadline":
            s.lib.set_deadline(listener, None)
        client()
        again = Wait(s.lib, accept_one)
        if await again.outcome() != "accepted":
            how += f", and the next accept ends with {tell(again.how)}"
    return how


def once(fn):
    """Return a function that calls fn() the first time, and reports that it did."""
    calls = iter([fn])

    def move():
        for call in calls:
            call()
            return True
        return False

    return move


async def second_accept(s, first, accept_one, client):
    second = await s.start(accept_one)
    client()
    if second.failed:
        return told_off(second, await first.outcome() == "accepted")
    await s.lib.until(lambda: first.done or second.done)
    in_order = not second.done
    client()
    await both(s, first, second)
    return of_two(first, second, in_order)


async def dial(s):
    """A dial that nobody answers, but for the first two."""
    handle = s.lib.dialler() if s.lib.dial_closes else None
    if handle is not None:
        s.wrapped.append(handle)

    async def dial_to(addr, **how):
        conn = await s.lib.dial(handle, addr, how)
        s.wrapped.append(conn)
        return "connected"

    if s.event in ("connected", "refused"):
        sock, addr = sockets.listener()
        with sock:
            wait = Wait(s.lib, dial_to, addr if s.event == "connected" else sockets.closed_port())
            return tell(await wait.outcome())
    with sockets.full_backlog() as addr:
        if s.event == "deadline":
            how = await Wait(s.lib, functools.partial(dial_to, addr, timeout=SOON)).outcome()
            return "none" if isinstance(how, TypeError) else tell(how)
        if s.event == "closed":
            return await closed_dial(s, handle, addr, dial_to) if handle is not None else "-"
        wait = await s.start(dial_to, addr)
        if s.event == "cancelled":
            wait.cancel()
        return tell(await wait.outcome())


async def closed_dial(s, handle, addr, dial_to):
    """As Scene.after_close; but that the kernel tries again, which takes a second, is not awaited:
    who has the socket open waits on.
    """
    name = sockets.inode(handle)
    wait = await s.start(dial_to, addr)
    await s.lib.close(handle)
    await s.settled(lambda: wait.done)
    if wait.done:
        return tell(wait.how)
    return "waits on" if sockets.is_open(name) else "hangs"


SCENES = {"read": read, "write": write, "accept": accept, "dial": dial}


async def play(lib, wait, event):
    """Return the cell for *event* in a *wait* of *lib*."""
    for _ in range(TRIES):
        scene = Scene(lib, event)
        try:
            await scene.open()
            told = await SCENES[wait](scene)
        finally:
            await scene.close()
        if told != "queues":
            break
    return told
