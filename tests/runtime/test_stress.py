"""A randomised stress of the scheduler: scenes in which goroutines do to each other what they can.

Drivers play scenes, one after another, until the time is over; each checks what it can see by
itself (what was sent has arrived, once; who was started has ended, once; a lock has one holder),
and at the end nothing is left. A lost wake-up shows as a scene that lasts too long. The seed
decides what is played, not how the threads interleave. `--stress SECONDS` goes on for so long,
`--stress-seed N` plays the same again.
"""

import collections
import contextlib
import io
import random
import sys
import threading
import time

import pytest

import gopoll
from gopoll import Canceled, Chan, ChanClosed, DeadlineExceeded, Mutex, RWMutex
from plugins.guard import wait_until

SECONDS = 3
PATIENCE = 40  # seconds: no scene lasts so long, however slow the machine
DRIVERS = 10
TOKENS = 24
PS = [(1, False), (1, True), (2, True), (8, True)]


class World:
    """What the drivers share."""

    def __init__(self, seed, seconds, procs, handoff):
        self.seed, self.procs, self.handoff = seed, procs, handoff
        self.end = time.monotonic() + seconds
        self.chans = [Chan(TOKENS // 3) for _ in range(5)]
        self.home = Chan(TOKENS)  # takes all of them: where a token goes that has no other place
        for token in range(TOKENS):
            self.home.try_send(token)
        self.mutex, self.rw = Mutex(), RWMutex()
        self.inside = self.readers = self.writers = 0
        self.listener = None

    def dice(self, *what):
        """Return the dice of one driver: a pair must not share them."""
        return random.Random(f"{self.seed}:{what}")

    def all_tokens(self):
        """Take the tokens out of every channel."""
        found = []
        for chan in [self.home, *self.chans]:
            while True:
                token, is_one = chan.try_recv()
                if not is_one:
                    break
                found.append(token)
        return sorted(found)


async def pause(dice):
    """Let others run, in one way or another, or not at all."""
    what = dice.randrange(6)
    if what == 0:
        await gopoll.sleep(dice.random() * 0.003)
    elif what == 1:
        with gopoll.syscall():
            time.sleep(dice.random() * 0.0005)
    elif what < 5:
        await gopoll.gosched()


async def join(world, dice, *threads):
    """Wait for plain threads. They may need goroutines: where Ps stay, not in a syscall()."""
    for thread in threads:
        if world.handoff and dice.random() < 0.5:
            with gopoll.syscall():
                thread.join()
        else:
            await gopoll.blocking(thread.join)


async def outcome(g):
    """Wait for the end of *g*: its result or its error, not our own cancellation."""
    try:
        return await g
    except (Exception, Canceled) as error:
        if not g.done:
            raise
        return error


# -- starting, ending, cancelling ------------------------------------------------------------------


async def spawn_and_join(world, dice):
    """Children end once each, however many wait for them, and everybody sees the same."""
    ends = collections.deque()  # whose append is atomic

    async def child(number, dice):
        try:
            await pause(dice)
            if number % 5 == 4:
                raise KeyError(number)
            return number
        finally:
            ends.append(number)

    numbers = range(dice.randrange(1, 12))
    children = [gopoll.go(child, n, world.dice(dice.random())) for n in numbers]
    watchers = [gopoll.go(outcome, g) for g in children for _ in range(dice.randrange(3))]
    for n, g in enumerate(children):
        got = await outcome(g)
        assert g.done
        assert got == n or (isinstance(got, KeyError) and got.args == (n,))
    for watcher in watchers:
        got = await watcher
        assert isinstance(got, KeyError) or got in numbers
    assert sorted(ends) == list(numbers)


async def forever_in(world, what, dice):
    """Wait in something that never happens."""
    if what == 0:
        await Chan(0).recv()
    elif what == 1:
        await gopoll.sleep(1e6)
    elif what == 2:
        chans = [Chan(0), Chan(1)]
        await gopoll.select(*(c.recv_case() for c in chans), timeout=dice.choice((None, 1e6)))
    elif what == 3:
        mutex = Mutex()
        await mutex.lock()
        await mutex.lock()
    elif what == 4:
        async with gopoll.timeout(1e6):
            await Chan(0).send(1)
    elif what == 5:
        mutex = Mutex()
        async with mutex:
            try:
                await gopoll.Cond(mutex).wait()
            finally:
                assert not mutex.try_lock()
    elif what == 6:
        group = gopoll.WaitGroup()
        group.add(1)
        await group.wait()
    elif what in (7, 8):
        if what == 7:
            await gopoll.current_context().wait()
        while True:
            await gopoll.gosched()
    elif what == 9:
        await gopoll.go(forever_in, world, dice.randrange(9), dice)
    else:
        async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
            await listener.accept()


async def cancel_what_waits(world, dice):
    """A wait ends by its goroutine's cancellation: before it, in it, or while it is woken."""
    gs = [
        gopoll.go(forever_in, world, dice.randrange(11), world.dice(dice.random()))
        for _ in range(dice.randrange(1, 8))
    ]
    await pause(dice)
    if dice.random() < 0.3:
        thread = threading.Thread(target=lambda: [g.cancel("by a thread") for g in gs])
        thread.start()
        await pause(dice)
        await join(world, dice, thread)
    for g in gs:
        g.cancel("by the scene")
    for g in gs:
        assert isinstance(await outcome(g), Canceled)


async def cancel_a_context(world, dice):
    """The end of a context reaches everything under it, and each function once."""
    called = collections.deque()
    ctx, cancel = gopoll.with_cancel(gopoll.current_context())
    with_key = gopoll.with_value(ctx, "key", 1)
    below, stop = gopoll.with_timeout(with_key, dice.choice((1e6, 0.002)))
    for _ in range(3):
        below.after_func(lambda: called.append(1))

    async def waits():
        await below.wait()
        assert below.done

    gs = [gopoll.go(waits) for _ in range(dice.randrange(1, 5))]
    await pause(dice)
    cancel("enough")
    for g in gs:
        await g
    stop()
    assert ctx.done
    assert below.done
    assert below.value("key") == 1
    await wait_until(lambda: len(called) == 3)
    await pause(dice)
    assert len(called) == 3


async def time_is_up(world, dice):
    """The body of timeout() ends at its end, also when that has been moved."""
    block = gopoll.timeout(dice.choice((0, 0.001, 1e6)))
    with contextlib.suppress(DeadlineExceeded):
        async with block:
            with contextlib.suppress(RuntimeError):
                block.reschedule(time.monotonic() + dice.random() * 0.004)
            if dice.random() < 0.5:
                async with gopoll.shield():
                    await pause(dice)
            await forever_in(world, dice.randrange(10), dice)
            pytest.fail("forever has passed")


async def group_of_some(world, dice):
    """A Group ends after all its goroutines, with every error."""
    failing = dice.randrange(4)
    handles = collections.deque()
    ended = collections.deque()

    async def child(group, depth, dice):
        try:
            await pause(dice)
            if depth:
                handles.append(group.go(child, group, depth - 1, world.dice(dice.random())))
            await pause(dice)
        finally:
            ended.append(1)

    async def fails():
        await pause(dice)
        raise KeyError

    try:
        async with gopoll.Group() as group:
            for _ in range(dice.randrange(5)):
                handles.append(group.go(child, group, 2, world.dice(dice.random())))
            handles.extend(group.go(fails) for _ in range(failing))
            if failing and dice.random() < 0.5:
                await gopoll.sleep(1e6)
    except BaseExceptionGroup as errors:
        wrong = errors.split(KeyError)[1]
        count = len(errors.exceptions)
    else:
        wrong, count = None, 0
    assert wrong is None
    assert bool(failing) == bool(count) <= failing
    assert all(g.done for g in handles), [g.state for g in handles]


# -- talking ---------------------------------------------------------------------------------------


async def carry(world, dice, rounds):
    """Take tokens from channels to others; whatever happens, none is lost or doubled."""
    for _ in range(rounds):
        here, there, other = dice.sample(world.chans, 3)
        cases = here.recv_case(), there.recv_case(), world.home.recv_case()
        index, token = await gopoll.select(*cases, timeout=dice.choice((0.001, 0.01)))
        if index < 0:
            continue
        try:
            await pause(dice)
            if dice.random() < 0.3:
                async with gopoll.timeout(dice.random() * 0.002):
                    await other.send(token)
            elif other.try_send(token):
                pass
            elif (await gopoll.select(other.send_case(token), default=True))[0] < 0:
                assert world.home.try_send(token)
        except (DeadlineExceeded, Canceled) as end:
            assert world.home.try_send(token)
            if isinstance(end, Canceled):
                raise


async def carry_tokens(world, dice):
    """Carriers, some of which are called off."""
    carriers = [gopoll.go(carry, world, world.dice(dice.random()), 6) for _ in range(3)]
    await pause(dice)
    for g in carriers:
        if dice.random() < 0.4:
            g.cancel()
    for g in carriers:
        assert await outcome(g) is None or isinstance(await outcome(g), Canceled)


async def produce_and_consume(world, dice):
    """What went into a channel came out, in the order of its sender, until it was closed."""
    chan = Chan(dice.choice((0, 0, 1, 7)))
    count = dice.randrange(1, 40)
    makers = dice.randrange(1, 4)
    got = collections.deque()

    async def produce(who, dice):
        for n in range(count):
            if dice.random() < 0.2:
                while not chan.try_send((who, n)):
                    await gopoll.gosched()
            else:
                await chan.send((who, n))

    async def consume(dice):
        mine = []
        async for value in chan:
            mine.append(value)
            got.append(value)
            if dice.random() < 0.1:
                await pause(dice)
        for who in range(makers):
            seen = [n for maker, n in mine if maker == who]
            assert seen == sorted(seen)

    consumers = [gopoll.go(consume, world.dice(dice.random())) for _ in range(dice.randrange(1, 4))]
    async with gopoll.Group() as group:
        for who in range(makers):
            group.go(produce, who, world.dice(dice.random()))
    chan.close()
    for g in consumers:
        await g
    assert sorted(got) == [(who, n) for who in range(makers) for n in range(count)]


async def close_a_channel(world, dice):
    """Whoever waits in a channel that is closed goes home, and what was sent is what arrived."""
    chan, other = Chan(dice.choice((0, 2))), Chan(0)
    sent, got = collections.deque(), collections.deque()

    async def send(dice):
        with contextlib.suppress(ChanClosed):
            for _ in range(20):
                if dice.random() < 0.5:
                    await chan.send(1)
                else:
                    await gopoll.select(chan.send_case(1), other.recv_case())
                sent.append(1)

    async def recv(dice):
        with contextlib.suppress(ChanClosed):
            while True:
                if dice.random() < 0.5:
                    await chan.recv()
                else:
                    await gopoll.select(chan.recv_case(), other.recv_case())
                got.append(1)

    gs = [gopoll.go(f, world.dice(dice.random())) for f in (send, recv, send, recv)]
    await pause(dice)
    chan.close()
    for g in gs:
        await g
    assert len(sent) == len(got)


async def talk_to_a_thread(world, dice):
    """A plain thread and goroutines over channels; a plain thread waits for a goroutine."""
    there, back = Chan(dice.choice((0, 3))), Chan(dice.choice((0, 3)))
    count = dice.randrange(1, 20)

    def work():
        with contextlib.suppress(ChanClosed):
            while True:
                back.send_sync(there.recv_sync(PATIENCE) + 1, PATIENCE)

    async def ask():
        for n in range(count):
            await there.send(n)
        there.close()
        return "asked"

    results = []
    asker = gopoll.go(ask)
    threads = [
        threading.Thread(target=work),
        threading.Thread(target=lambda: results.append(asker.result(PATIENCE))),
    ]
    for thread in threads:
        thread.start()
    assert [await back.recv() for _ in range(count)] == list(range(1, count + 1))
    await join(world, dice, *threads)
    assert results == ["asked"]


async def once_for_all(world, dice):
    """Once runs once; who asks meanwhile waits; a WaitGroup counts everybody."""
    once, group = gopoll.Once(), gopoll.WaitGroup()
    done = collections.deque()

    async def act():
        await pause(dice)
        done.append(1)

    async def ask():
        await once.do(act)
        assert len(done) == 1

    for _ in range(5):
        group.go(ask)
    await group.wait()
    assert len(done) == 1


# -- locks -----------------------------------------------------------------------------------------


async def exclude(world, dice):
    """A Mutex has one holder, whoever gives up waiting."""

    async def one(dice):
        for _ in range(5):
            try:
                async with gopoll.timeout(dice.choice((0.001, 1e6))), world.mutex:
                    world.inside += 1
                    assert world.inside == 1
                    try:
                        await pause(dice)
                    finally:
                        assert world.inside == 1
                        world.inside -= 1
            except DeadlineExceeded:
                pass

    await cancel_some(world, dice, one)


async def read_and_write(world, dice):
    """An RWMutex has one writer or any number of readers."""

    async def one(dice):
        for _ in range(5):
            try:
                async with gopoll.timeout(dice.choice((0.001, 1e6))):
                    if dice.random() < 0.7:
                        async with world.rw.reading():
                            assert not world.writers
                            await pause(dice)
                            assert not world.writers
                    else:
                        async with world.rw:
                            world.writers += 1
                            assert world.writers == 1
                            try:
                                await pause(dice)
                            finally:
                                world.writers -= 1
            except DeadlineExceeded:
                pass

    await cancel_some(world, dice, one)


async def cancel_some(world, dice, fn):
    """Run fn(dice) a few times side by side and cancel a part of them."""
    gs = [gopoll.go(fn, world.dice(dice.random())) for _ in range(4)]
    await pause(dice)
    if dice.random() < 0.3:
        gs[0].cancel()
    for g in gs:
        got = await outcome(g)
        assert got is None or (g is gs[0] and isinstance(got, Canceled)), got


async def wait_for_a_condition(world, dice):
    """A bounded buffer on a Mutex and two Conds, with consumers that are called off."""
    mutex = Mutex()
    full, free = gopoll.Cond(mutex), gopoll.Cond(mutex)
    items, got = [], collections.deque()

    async def put(n):
        async with mutex:
            while len(items) >= 2:
                await free.wait()
            items.append(n)
            full.signal()

    async def take():
        while True:
            async with mutex:
                try:
                    while not items:
                        await full.wait()
                except Canceled:
                    full.signal()  # it may have been meant for us
                    raise
                got.append(items.pop())
                free.signal()

    takers = [gopoll.go(take) for _ in range(3)]
    puts = [gopoll.go(put, n) for n in range(12)]
    await pause(dice)
    takers[0].cancel()
    for g in puts:
        await g
    await wait_until(lambda: len(got) == 12, seconds=PATIENCE)
    for g in takers:
        g.cancel()
        assert isinstance(await outcome(g), Canceled)
    assert sorted(got) == list(range(12))


# -- the network -----------------------------------------------------------------------------------


async def serve(world):
    """Echo whatever comes, until the listener is closed."""

    async def echo(conn):
        with contextlib.suppress(OSError):
            async with conn:
                while data := await conn.read():
                    await conn.write(data)

    handlers = gopoll.WaitGroup()
    async for conn in world.listener:
        handlers.go(echo, conn)
    await handlers.wait()


async def dial(world):
    """Return a connection to the echo server."""
    return await gopoll.dial("tcp", world.listener.addr, timeout=PATIENCE)


async def echo_bytes(world, dice):
    """Every byte comes back, whatever deadlines pass meanwhile."""
    async with await dial(world) as conn:
        data = dice.randbytes(dice.choice((1, 1000, 300_000)))
        sender = gopoll.go(conn.write, data)
        got = bytearray()
        while len(got) < len(data):
            if dice.random() < 0.2:
                conn.set_read_timeout(dice.choice((0, 0.0005, 0.5, None)))
            try:
                got += await conn.read(dice.choice((1 << 16, 1 << 10, 100_000)))
            except TimeoutError:
                conn.set_read_deadline(None)
        assert await sender == len(data) or len(data)
        assert got == data
        conn.set_deadline(None)
        conn.close_write()
        assert await conn.read() == b""


async def close_under_readers(world, dice):
    """A close wakes whoever reads, writes, or waits for its turn."""
    conn = await dial(world)

    async def read():
        while await conn.read():
            pass
        raise EOFError

    async def write():
        while True:
            await conn.write(bytes(1 << 16))

    gs = [gopoll.go(dice.choice((read, read, write))) for _ in range(dice.randrange(1, 6))]
    await pause(dice)
    if dice.random() < 0.5:
        gs[0].cancel()
    if dice.random() < 0.5:
        await conn.close()
        assert conn.fileno() == -1
    else:
        closers = [threading.Thread(target=conn.close) for _ in range(2)]
        for thread in closers:
            thread.start()
        await join(world, dice, *closers)
    for g in gs:
        got = await outcome(g)
        assert isinstance(got, (gopoll.ClosedError, Canceled)), got
        assert not isinstance(got, Canceled) or g is gs[0]
    await conn.close()


async def close_a_listener(world, dice):
    """Accepts end when their listener is closed; who has dialled gets an answer or an error."""
    listener = await gopoll.listen("tcp", "127.0.0.1:0")

    async def accept():
        async with await listener.accept():
            await pause(dice)

    async def call():
        async with await gopoll.dial("tcp", listener.addr, timeout=PATIENCE) as conn:
            assert await conn.read() == b""

    gs = [gopoll.go(accept) for _ in range(3)] + [gopoll.go(call) for _ in range(dice.randrange(3))]
    await pause(dice)
    if dice.random() < 0.3:
        gs[-1].cancel()
    await listener.close()
    for g in gs:
        got = await outcome(g)
        assert got is None or isinstance(got, (OSError, Canceled)), got


async def move_deadlines(world, dice):
    """A read that nothing comes for ends at its deadline, the one that was set last."""
    async with await dial(world) as conn:
        conn.set_read_timeout(1e6)
        reader = gopoll.go(conn.read)

        def move(dice):
            for _ in range(20):
                conn.set_read_timeout(100 + dice.random())
                conn.set_write_timeout(dice.choice((None, 50)))

        threads = [threading.Thread(target=move, args=(world.dice(dice.random()),)) for _ in "ab"]
        for thread in threads:
            thread.start()
        move(dice)
        await pause(dice)
        assert not reader.done
        await join(world, dice, *threads)
        conn.set_read_timeout(dice.choice((-1, 0, 0.001)))
        assert isinstance(await outcome(reader), TimeoutError)
        conn.set_deadline(None)
        await conn.write(b"alive")
        assert await conn.read() == b"alive"


async def dial_in_vain(world, dice):
    """Dials that are given up leave nothing."""
    gs = [gopoll.go(dial, world) for _ in range(3)]
    await pause(dice)
    for g in gs:
        g.cancel()
    for g in gs:
        got = await outcome(g)
        if not isinstance(got, Canceled):
            await got.close()


# -- threads ---------------------------------------------------------------------------------------


async def block(world, dice):
    """Calls that block, in and out of syscall(), nested, and on the pool."""
    for _ in range(dice.randrange(1, 5)):
        with gopoll.syscall(), gopoll.syscall():
            time.sleep(dice.random() * 0.001)
        assert await gopoll.blocking(lambda n: n + 1, 1) == 2
    with pytest.raises(KeyError), gopoll.syscall():
        raise KeyError
    with pytest.raises(ZeroDivisionError):
        await gopoll.blocking(lambda: 1 / 0)
    lost = gopoll.go(gopoll.blocking, time.sleep, 0.002)
    await pause(dice)
    lost.cancel()
    assert await outcome(lost) is None or isinstance(await outcome(lost), Canceled)


async def stay_on_a_thread(world, dice):
    """A locked goroutine keeps its thread over whatever it waits in."""

    async def pinned(dice, unlocks):
        gopoll.lock_os_thread()
        gopoll.lock_os_thread()
        here = threading.get_ident()
        chan = Chan(1)
        for _ in range(4):
            await pause(dice)
            assert threading.get_ident() == here
            await chan.send(1)
            await chan.recv()
            await gopoll.sleep(0)
            assert threading.get_ident() == here
        gopoll.unlock_os_thread()
        await pause(dice)
        assert threading.get_ident() == here
        if unlocks:
            gopoll.unlock_os_thread()
        else:
            await gopoll.sleep(dice.random() * 0.002)
            assert threading.get_ident() == here

    gs = [gopoll.go(pinned, world.dice(dice.random()), dice.random() < 0.5) for _ in range(3)]
    await pause(dice)
    if dice.random() < 0.3:
        gs[0].cancel()
    for g in gs:
        got = await outcome(g)
        assert got is None or (g is gs[0] and isinstance(got, Canceled)), got


async def compute(world, dice):
    """Keep a P for longer than sysmon allows, and wake others from there."""
    chan = Chan(100)
    receiver = gopoll.go(chan.recv)
    chan.try_send(1)
    end = time.monotonic() + dice.choice((0.002, 0.015, 0.03))
    while time.monotonic() < end:
        chan.try_send(1)
    other = gopoll.go(pause, world.dice(dice.random()))
    assert await receiver == 1
    await other


async def look(world, dice):
    """Look at everything from outside while it moves.

    G2: a coroutine that runs while its stack is read ends the process, without a GIL.
    """
    text = io.StringIO()
    gopoll.dump(text)
    assert "goroutine 1 " in text.getvalue()
    stats = gopoll.stats()
    assert stats.goroutines > 0
    assert stats.threads > 0
    if world.procs == 8 and dice.random() < 0.3:
        gopoll.gomaxprocs(dice.choice((1, 3, 8)))
    await pause(dice)


SCENES = [
    spawn_and_join, cancel_what_waits, cancel_a_context, time_is_up, group_of_some,
    carry_tokens, produce_and_consume, close_a_channel, talk_to_a_thread, once_for_all,
    exclude, read_and_write, wait_for_a_condition,
    echo_bytes, close_under_readers, close_a_listener, move_deadlines, dial_in_vain,
    block, stay_on_a_thread, compute, look,
]  # fmt: skip


# -- the test --------------------------------------------------------------------------------------


async def drive(world, number):
    """Play scenes until the time is over; how often each."""
    dice = world.dice(number)
    played = collections.Counter()
    while time.monotonic() < world.end:
        scene = dice.choice(SCENES)
        began = time.monotonic()
        try:
            async with gopoll.timeout(PATIENCE):
                await scene(world, world.dice(dice.random()))
        except (Exception, Canceled) as error:
            after = time.monotonic() - began
            error.add_note(f"in {scene.__name__}() of driver {number}, after {after:.1f} s")
            raise
        played[scene.__name__] += 1
    return played


async def play(world):
    """Let the drivers drive; what they have played."""
    world.listener = await gopoll.listen("tcp", "127.0.0.1:0", backlog=512)
    server = gopoll.go(serve, world)
    async with gopoll.Group() as group:
        drivers = [group.go(drive, world, number) for number in range(DRIVERS)]
    await world.listener.close()
    await server
    return sum([await g for g in drivers], collections.Counter())


@pytest.mark.stress
@pytest.mark.parametrize(("procs", "handoff"), PS, ids=lambda value: str(value))
def test_stress(run, request, procs, handoff):
    seed = request.config.getoption("--stress-seed")
    if seed is None:
        seed = random.SystemRandom().randrange(10**6)
    print(f"again: pytest {request.node.nodeid} --stress-seed {seed}")
    seconds = request.config.getoption("--stress") or SECONDS
    world = World(seed, seconds, procs, handoff)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        played = run(play, world, procs=procs, handoff=handoff)
    finally:
        sys.setswitchinterval(interval)
    assert world.all_tokens() == list(range(TOKENS))
    assert world.mutex.try_lock()
    assert world.rw.try_lock()
    assert (world.inside, world.writers) == (0, 0)
    assert sum(played.values()) >= DRIVERS
    print(sum(played.values()), "scenes:", dict(played))
