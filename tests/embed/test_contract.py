"""What a wait ends with, in a goroutine and in the tasks of each host: the contract."""

import re
from pathlib import Path

import pytest

import gopoll
from embed.hosts import host, pair, parked, until, waiting  # noqa: F401  (host is a fixture)

# ruff: noqa: F811

TABLE = Path(__file__).parent.parent.parent / "docs" / "embedding.md"


class Ended:
    """A read that waits in a goroutine (where is None) or in a task of *host*, and how it ended."""

    def __init__(self, host, guest, where, conn):
        self.host, self.guest, self.where = host, guest, where
        self.how = None
        self.started = (gopoll.go if where is None else host.start)(self.read, conn)

    async def read(self, conn):
        try:
            self.how = await conn.read()
        except BaseException as exc:
            self.how = exc
            if isinstance(exc, (gopoll.Canceled, self.host.Cancelled)):
                raise

    async def waits(self):
        if self.where is None:
            await parked(self.host, self.started)
        else:
            await waiting(self.host, self.guest, 1)

    async def outcome(self):
        async with self.host.time_limit(20):
            while not self.started.done:
                await self.host.turn()
        return self.how


async def read_until(host, guest, where, event):
    """Have a read wait, let *event* happen, and return what the read ended with."""
    conn, peer = await pair()
    async with conn, peer:
        read = Ended(host, guest, where, conn)
        await read.waits()
        if event == "closed":
            conn.close()
        elif event == "deadline":
            conn.set_timeout(0)
        elif event == "cancelled":
            read.started.cancel()
        elif event == "end":
            peer.close()
        elif event == "reset":
            peer.set_linger(0)
            peer.close()
        elif event == "data":
            await peer.write(b"data")
        return await read.outcome()


@pytest.mark.parametrize("where", [None, "task"], ids=["goroutine", "task"])
@pytest.mark.parametrize(
    ("event", "want"),
    [
        ("closed", gopoll.ClosedError),
        ("deadline", TimeoutError),
        ("cancelled", None),
        ("end", b""),
        ("reset", ConnectionResetError),
        ("data", b"data"),
    ],
)
def test_what_a_read_ends_with(host, where, event, want):
    async def body():
        async with host.attach() as guest:
            return await read_until(host, guest, where, event)

    how = host.run(body)
    if want is None:
        want = gopoll.Canceled if where is None else host.Cancelled
    if isinstance(want, bytes):
        assert how == want
    else:
        assert isinstance(how, want), repr(how)
        assert isinstance(how, gopoll.OpError) or event == "cancelled"


@pytest.mark.parametrize("where", [None, "task"], ids=["goroutine", "task"])
def test_a_second_reader_queues_behind_the_first(host, where):
    async def body():
        async with host.attach() as guest:
            conn, peer = await pair()
            async with conn, peer:
                first = Ended(host, guest, where, conn)
                await first.waits()
                second = host.start(conn.read, 1)
                await waiting(host, guest, 1 + (where is not None))
                await peer.write(b"12")
                assert await first.outcome() == b"12"
                await peer.write(b"3")
                assert await second.outcome() == b"3"

    host.run(body)


@pytest.mark.parametrize("where", [None, "task"], ids=["goroutine", "task"])
def test_a_cancellation_is_a_state_but_in_asyncio(host, where):
    """It ends every wait; asyncio's ends one."""
    seen = []

    async def read_twice(conn):
        for _ in range(2):
            try:
                seen.append(await conn.read())
            except (gopoll.Canceled, host.Cancelled) as exc:
                seen.append(type(exc))

    async def body():
        async with host.attach() as guest:
            conn, peer = await pair()
            async with conn, peer:
                if where is None:
                    started = gopoll.go(read_twice, conn)
                    await parked(host, started)
                else:
                    started = host.start(read_twice, conn)
                    await waiting(host, guest, 1)
                started.cancel()
                if where is None or host.name == "trio":
                    await until(host, lambda: started.done)
                    return
                await until(host, lambda: seen)
                await waiting(host, guest, 1)
                await peer.write(b"data")
                await until(host, lambda: started.done)

    host.run(body)
    how = gopoll.Canceled if where is None else host.Cancelled
    assert seen == [how, how if where is None or host.name == "trio" else b"data"]


@pytest.mark.parametrize("where", [None, "task"], ids=["goroutine", "task"])
def test_an_operation_that_is_awaited_twice(host, where):
    async def body():
        async with host.attach() as guest:
            conn, peer = await pair()
            async with conn, peer:
                op = conn.read()

                async def reads():
                    return await op

                async def reads_too():
                    with pytest.raises(RuntimeError, match="cannot await an operation twice"):
                        await op
                    return "refused"

                first = (gopoll.go if where is None else host.start)(reads)
                if where is None:
                    await parked(host, first)
                    second = gopoll.go(reads_too)
                    assert await second == "refused"
                    await peer.write(b"data")
                    assert await first == b"data"
                else:
                    await waiting(host, guest, 1)
                    second = host.start(reads_too)
                    assert await second.outcome() == "refused"
                    await peer.write(b"data")
                    assert await first.outcome() == b"data"

    host.run(body)


def test_the_end_of_the_block(host):
    seen = {}

    async def body():
        async with host.attach() as guest:
            conn, peer = await pair()
            other, far = await pair()
            for where, its in ((None, conn), ("task", other)):
                seen[where] = Ended(host, guest, where, its)
                await seen[where].waits()
        for read in seen.values():
            seen[read.where] = await read.outcome()
        for each in (conn, peer, other, far):
            each.close()

    host.run(body)
    assert isinstance(seen[None], gopoll.Canceled)
    assert isinstance(seen["task"], RuntimeError)


def test_the_table_has_these_rows():
    text = TABLE.read_text(encoding="utf-8").partition("### What a wait ends with")[2]
    rows = re.findall(r"^\| ([^|]+?) \|", text.partition("\n#")[0], re.MULTILINE)
    assert rows[1:] == [
        "data has come",
        "the peer has closed (FIN)",
        "the peer has reset",
        "`conn.close()`, here or elsewhere",
        "the connection's deadline",
        "cancelled",
        "a second reader",
        "the same operation awaited twice",
        "the block of `attach()` ends",
    ]
