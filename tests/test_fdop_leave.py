"""Every way to leave an operation on an FD, and what it leaves behind: nothing."""

import contextlib
import gc

import pytest

import gopoll
from gopoll import Canceled
from gopoll._polldesc import Note
from helpers.fds import (
    CUTS,
    MORE_THAN_FITS,
    close_quietly,
    cut,
    half_pair,
    parked,
    still_works,
    tcp_pair,
)
from plugins.guard import wait_parked


def test_a_parked_operation_that_is_cancelled_releases_the_lock(run):
    async def main():
        with half_pair() as (fd, peer):
            reader = gopoll.go(fd.read, 1)
            await wait_parked(reader)
            reader.cancel("no more")
            with pytest.raises(Canceled) as caught:
                await reader
            assert caught.value.cause == "no more"
            assert caught.value.written is None
            await still_works(fd, peer)

    run(main)


def test_a_queued_operation_that_is_cancelled_leaves_the_queue(run):
    async def main():
        with half_pair() as (fd, peer):
            first, second, third = [await parked(fd.read, 1) for _ in range(3)]
            second.cancel()
            with pytest.raises(Canceled):
                await second
            peer.send(b"13")
            assert (await first, await third) == (b"1", b"3")
            await still_works(fd, peer)

    run(main)


def test_one_cancelled_after_it_was_handed_the_lock_hands_it_on(run):
    """M2."""

    async def main():
        with half_pair() as (fd, peer):
            first, heir, third = [await parked(fd.read, 1) for _ in range(3)]
            first.cancel()
            await gopoll.go(until_done, first)  # its unlock has made heir the owner
            heir.cancel()
            for g in (first, heir):
                with pytest.raises(Canceled):
                    await g
            peer.send(b"3")
            assert await third == b"3"
            await still_works(fd, peer)

    async def until_done(g):
        while not g.done:
            await gopoll.gosched()

    run(main)


def test_a_cancel_that_loses_to_readiness_leaves_the_data_for_the_next(run):
    async def main():
        with half_pair() as (fd, peer):
            for _ in range(50):
                reader = gopoll.go(fd.read, 1)
                await wait_parked(reader)
                peer.send(b"d")
                await gopoll.gosched()
                reader.cancel()
                try:
                    assert await reader == b"d"
                except Canceled:
                    assert await fd.read(1) == b"d"

    run(main)


@pytest.mark.parametrize("how", ["throw", "close", "drop"])
@pytest.mark.parametrize("phase", ["new", "queued", "parked", "ended"])
def test_an_operation_may_be_left_in_every_phase(run, how, phase):
    """What a coroutine does with what it awaits when it is thrown into, closed or dropped."""

    async def main():
        with half_pair() as (fd, peer):
            holder = None
            if phase == "queued":
                holder = gopoll.go(fd.read, 1)
                await wait_parked(holder)
            op = fd.read(1)
            if phase == "ended":
                peer.send(b"e")
                with pytest.raises(StopIteration, match="e"):
                    next(op.__await__())
            elif phase != "new":
                next(op.__await__())
            if how == "throw":
                with pytest.raises(KeyError):
                    op.throw(KeyError("k"))
                with pytest.raises(KeyError):
                    op.throw(KeyError, "k", None)
            elif how == "close":
                op.close()
                op.close()
            elif phase == "new":
                with pytest.warns(RuntimeWarning, match="read unix was never awaited"):
                    del op
            else:
                del op
            if holder is not None:
                peer.send(b"h")
                assert await holder == b"h"
            await still_works(fd, peer)

    run(main)


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("name", ["readinto", "write"])
def test_an_operation_that_is_cut_gives_the_buffer_back(run, name, how):
    """At once: without a GIL what refers to it lives on for a little."""

    async def main():
        for _ in range(20):
            fd, peer = tcp_pair()
            buffer = bytearray(1 if name == "readinto" else MORE_THAN_FITS)
            op = getattr(fd, name)(buffer)
            g = await parked(waiting_for, op)
            cut(how, fd, g, peer)
            with pytest.raises((CUTS[how], Canceled)):
                await g
            buffer.append(0)  # BufferError while somebody has it
            close_quietly(fd)
            peer.close()

    async def waiting_for(op):
        await op

    run(main)


def test_one_that_runs_out_of_memory_gives_its_lock_back(run):
    async def main():
        with half_pair() as (fd, peer):
            op = fd.read(1 << 62)
            with pytest.raises(MemoryError):
                await op
            await still_works(fd, peer)
            del op

    run(main)


def test_who_waits_for_the_end_and_is_cut_leaves_nothing(run):
    async def main():
        with half_pair() as (fd, _):
            before = notes()
            for _ in range(30):
                with contextlib.suppress(gopoll.DeadlineExceeded):
                    async with gopoll.timeout(0.0001):
                        await fd.wait_closed()
            assert notes() < before + 30

    def notes():
        gc.collect()
        return sum(isinstance(each, Note) for each in gc.get_objects())

    run(main)


def test_an_operation_is_awaited_once(run):
    async def main():
        with half_pair() as (fd, peer):
            peer.send(b"xy")
            op = fd.read(1)
            assert await op == b"x"
            with pytest.raises(RuntimeError, match=r"cannot await an operation twice \(read unix"):
                await op
            op = fd.read(9)
            op.close()
            with pytest.raises(RuntimeError, match="twice"):
                await op
            await still_works_after(fd, peer)

    async def still_works_after(fd, peer):
        assert await fd.read(9) == b"y"
        await still_works(fd, peer)

    run(main)


def test_two_goroutines_cannot_share_an_operation(run):
    async def main():
        with half_pair() as (fd, peer):
            op = fd.read(1)
            first = gopoll.go(op)
            await wait_parked(first)
            with pytest.raises(RuntimeError, match="twice"):
                await op
            peer.send(b"x")
            assert await first == b"x"
            await still_works(fd, peer)

    run(main)
