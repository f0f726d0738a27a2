"""TLSConn under everything at once: whatever is cut, closed or moved, what was taken arrives."""

import random
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gopoll
from gopoll.errors import Canceled
from gopoll.runtime.goroutine import go, gosched
from net.tlstools import DATA, read_all, read_exactly, tls_pair

OPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "writev", "cancel", "deadline", "read", "yield"]),
        st.integers(0, 400_000),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(ops=OPS, end=st.sampled_from(["close_write", "close"]))
def test_whatever_is_cut_what_was_taken_arrives(ops, end):
    """Writes cut by deadline and cancellation, in any order beside reads: .written is the truth."""
    expected = bytearray()

    async def write(a, op, data):
        if op == "writev":
            return await a.writev([data[:10], data[10:]])
        if op == "cancel":
            g = go(a.write, data)
            await gosched()
            g.cancel()
            return await g
        if op == "deadline":
            a.set_write_timeout(0.0005)
        return await a.write(data)

    async def main():
        async with tls_pair() as (a, b):
            go_on = gopoll.Chan()
            got = []  # of a bytearray the length and extend() race, on several Ps

            async def reader():
                """Read so much when told to, then all."""
                try:
                    while True:
                        size = await go_on.recv()
                        while size > 0 and (data := await b.read(size)):
                            got.append(data)
                            size -= len(data)
                except gopoll.ChanClosed:
                    got.append(await read_all(b))

            g = go(reader)
            for i, (op, size) in enumerate(ops):
                if op == "read":
                    allowed = min(size, len(expected) - sum(map(len, got)))
                    go_on.try_send(allowed)
                elif op == "yield":
                    await gosched()
                else:
                    data = bytes([i + 1]) * size
                    a.set_write_timeout(0.01)
                    try:
                        taken = await write(a, op, data)
                    except (Canceled, TimeoutError) as exc:
                        taken = exc.written
                    expected.extend(data[:taken])
            a.set_write_deadline(None)
            go_on.close()
            a.close_write()
            await g
            assert b"".join(got) == expected

    gopoll.run(main)


@pytest.mark.parametrize("procs", [None, 4])
def test_close_write_beside_writes_is_always_seen(run, procs):
    """W3: whoever gives the lock up last sends close_notify, behind what was taken."""
    rng = random.Random(3)

    async def writer(a, size, taken):
        try:
            while True:
                taken.append(await a.write(DATA[:size]))
        except BrokenPipeError as exc:
            taken.append(exc.written)
        except (TimeoutError, Canceled) as exc:
            taken.append(exc.written)

    async def main():
        for i in range(25):
            async with tls_pair() as (a, b):
                b.set_read_timeout(30)
                taken = []
                writers = [go(writer, a, rng.randrange(1, 200_000), taken) for _ in range(3)]
                reader = go(read_all, b)
                for _ in range(rng.randrange(6)):
                    await gosched()
                thread = threading.Thread(target=a.close_write)
                if i % 3 == 0:
                    writers[0].cancel()
                if i % 5 == 0:
                    a.set_write_timeout(0.001)
                thread.start()
                for g in writers:
                    await g
                a.set_write_deadline(None)
                assert len(await reader) == sum(taken)
                thread.join()

    run(main, procs=procs)


def test_a_deadline_that_moves_all_the_time(run):
    """Whatever a thread does to it, all that was written arrives once it is lifted (W3)."""

    async def main():
        async with tls_pair() as (a, b):
            b.set_read_timeout(60)
            stop = threading.Event()

            def move():
                rng = random.Random(4)
                while not stop.is_set():
                    when = rng.choice((0, time.monotonic() + 0.0002, time.monotonic() + 1, None))
                    a.set_write_deadline(when)
                    stop.wait(0.0001)
                a.set_write_deadline(None)

            thread = threading.Thread(target=move)
            thread.start()
            reader = go(read_exactly, b, 8 * len(DATA))
            for _ in range(8):
                view = memoryview(DATA)
                while view:
                    try:
                        view = view[await a.write(view) :]
                    except TimeoutError as exc:
                        view = view[exc.written :]
                        await gosched()
            stop.set()
            assert await reader == DATA * 8  # nobody writes any more
            thread.join()

    run(main)
