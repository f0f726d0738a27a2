"""What the first tests of the runtime found: each was seen to fail, and says why it must not.

Of errors that are lost, wake-ups that are lost, and clean-up that is left out.
"""

import gc
import math
import os
import select
import signal
import threading
import weakref

import pytest

import gopoll
from gopoll import Canceled, Chan, Group
from gopoll.runtime import stacks
from gopoll.runtime.sched import Scheduler
from helpers.child import run_python
from helpers.fds import half_pair
from plugins.guard import wait_parked, wait_until
from runtime.test_fork import said
from runtime.tools import ONE, Bare, Foreign, fails, until, value


async def forever():
    await gopoll.sleep(3600)


async def let_go():
    """Wait for the error that ends run(). Without a GIL an object that another thread has made
    dies when that thread goes on, or at the next collection."""
    async with gopoll.timeout(40):
        while True:
            gc.collect()
            await gopoll.sleep(0.01)


def test_a_group_ends_after_its_goroutines(run):
    """J1: they left the group in their last slice, not after it. The block could end while that
    slice ran on, and its look at who is left met one that was just leaving."""

    async def main():
        for _ in range(300):
            async with gopoll.Group() as group:
                gs = [group.go(value, n) for n in range(4)]
            assert [g.state for g in gs] == ["dead"] * 4

    run(main, procs=4)


def test_an_error_finds_its_handle_however_soon_it_comes(run, monkeypatch):
    """E2: go() made the handle after it had started the goroutine. On another thread that could
    have ended by then, with an error that nobody held: run() ended with it."""
    start = Scheduler.start_g

    def start_and_wait(sched, g, wake=True):
        start(sched, g, wake)
        if g.name == "fails":
            until(lambda: g.done and sched.npidle == 1)

    monkeypatch.setattr(Scheduler, "start_g", start_and_wait)

    async def main():
        g = gopoll.go(fails, KeyError("held"))
        with pytest.raises(KeyError, match="held"):
            await g

    run(main, procs=2)


def test_a_goroutine_is_not_resumed_while_its_stack_is_read(run):
    """G2: without a GIL a dump() crashed the interpreter when what it read was resumed."""

    async def main():
        for _ in range(50):
            chan, ran = Chan(), []

            async def child(chan=chan, ran=ran):
                await chan.recv()
                ran.append(1)

            handle = gopoll.go(child)
            g = handle._g
            await wait_parked(handle)
            assert g.hold()
            assert chan.try_send(1)
            with gopoll.syscall():  # somebody else is about to resume it
                until(lambda g=g: g.m_id)
                assert not ran
                assert stacks.of_goroutine(g) is None
                g.release()
            await handle
            assert ran
            until(g.hold)  # its end is told before its thread has left it
            g.release()

    run(main, procs=2)


# -- wake-ups --------------------------------------------------------------------------------------


@pytest.mark.leaks("the thread that nobody wakes, if the test fails")
def test_work_queued_before_the_first_poll_wakes_who_is_about_to_block(probe):
    """S1: wake_net_poller looked at `inited`, which the first netpoll sets after lastpoll = 0 and
    after the look at the global queue. What was queued in between broke nobody."""
    for _ in range(100):
        sched = Bare()
        thread = threading.Thread(target=sched.block, daemon=True)
        thread.start()
        until(lambda sched=sched: sched.npidle == 1)
        sched.globq.put(object())
        sched.wake_net_poller()
        thread.join(60)
        asleep = thread.is_alive()
        sched.poller.netpoll_break()
        thread.join(60)
        sched.globq.get()
        sched.poller.close()
        assert not asleep, "it sleeps over queued work"


def test_a_program_that_only_yields_polls_the_network_itself(run):
    """design.md: a busy P polls every 61 slices. The global queue's work must not come in before
    it: with gosched() alone the P's own queue is empty, and only sysmon polled, 10 ms later."""

    async def main():
        polls = gopoll.stats().polls
        for _ in range(61 * 40):
            await gopoll.gosched()
        assert gopoll.stats().polls - polls >= 20

    run(main, **ONE)


def test_a_goroutine_that_has_been_woken_is_runnable_until_it_runs(run):
    """Its state stayed "waiting", so wait_parked() takes it for one that has parked again."""

    async def main():
        with half_pair() as (fd, peer):
            reader = gopoll.go(fd.read, 1)
            await wait_parked(reader)
            peer.send(b"x")
            wakes = gopoll.stats().wakes
            until(lambda: gopoll.stats().wakes > wakes)  # sysmon has found it
            states = {reader.state}
            assert await reader == b"x"
            assert states <= {"runnable", "dead"}

    run(main, **ONE)


# -- errors that nobody sees -----------------------------------------------------------------------


def test_main_s_error_and_an_unawaited_one_are_both_told():
    """Never silence (E2): main's own error was dropped when there was another."""

    async def worker():
        try:
            await forever()
        finally:
            raise KeyError("of the worker")

    async def main():
        await wait_parked(gopoll.go(worker))
        raise ValueError("of main")

    with pytest.raises((ValueError, KeyError)) as caught:
        gopoll.run(main)
    told = "".join([repr(caught.value), *getattr(caught.value, "__notes__", ())])
    assert "of main" in told
    assert "of the worker" in told


def test_an_await_that_was_cancelled_has_not_seen_the_error():
    """E2: at the end there is neither a handle nor anybody who awaits it."""

    async def main():
        gate, open_gate = gopoll.with_cancel(gopoll.background())

        async def worker():
            await gate.wait()
            raise ValueError("seen by nobody")

        async def joiner():
            await gopoll.go(worker)

        g = gopoll.go(joiner)
        await wait_parked(g)
        g.cancel()
        with pytest.raises(Canceled):
            await g
        del g
        gc.collect()
        open_gate()
        await let_go()
        return "the error is lost"

    with pytest.raises(ValueError, match="seen by nobody"):
        gopoll.run(main)


def test_a_result_that_timed_out_has_not_seen_the_error():
    async def main():
        gate, open_gate = gopoll.with_cancel(gopoll.background())

        async def worker():
            await gate.wait()
            raise ValueError("seen by nobody")

        g = gopoll.go(worker)
        with pytest.raises(TimeoutError):
            await gopoll.blocking(g.result, 0.001)
        del g
        gc.collect()
        open_gate()
        await let_go()
        return "the error is lost"

    with pytest.raises(ValueError, match="seen by nobody"):
        gopoll.run(main)


def test_ctrl_c_is_not_overwritten_by_the_type_error_of_a_foreign_awaitable():
    async def main():
        os.kill(os.getpid(), signal.SIGINT)
        until(lambda: True)
        try:
            await Foreign(1)
        except TypeError:
            pass
        await gopoll.sleep(0.001)
        return "not interrupted"

    with pytest.raises(KeyboardInterrupt):
        gopoll.run(main, **ONE)


@pytest.mark.filterwarnings("error")
def test_a_nested_run_closes_the_coroutine_it_was_given(run):
    """As every other run() that fails: the error is the RuntimeError, not a warning beside it."""

    async def main():
        with pytest.raises(RuntimeError, match=r"use gopoll\.go"):
            gopoll.run(value())
        gc.collect()

    run(main)


# -- the end of a run ------------------------------------------------------------------------------


def test_a_goroutine_that_is_started_while_the_run_ends_is_cancelled_too():
    """run() waited for it for as long as it pleased, for ever if it served."""
    seen = []

    async def late():
        try:
            await gopoll.sleep(2)
            seen.append("slept to its end")
        except Canceled:
            seen.append("canceled")
            raise

    async def worker():
        try:
            await forever()
        finally:
            gopoll.go(late)

    async def main():
        await wait_parked(gopoll.go(worker))

    gopoll.run(main)
    assert seen == ["canceled"]


def test_a_signal_just_before_the_end_still_reaches_the_hosts_wake_up_descriptor():
    """asyncio runs the handlers of add_signal_handler when it reads that byte, and only then."""

    async def main():
        await gopoll.sleep(0.001)
        os.kill(os.getpid(), signal.SIGUSR1)

    r, w = os.pipe2(os.O_NONBLOCK)
    own = signal.signal(signal.SIGUSR1, lambda *args: None)
    before = signal.set_wakeup_fd(w)
    try:
        gopoll.run(main)
        assert select.select([r], [], [], 0)[0] == [r]
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGUSR1, own)
        os.close(r)
        os.close(w)


# -- the handle ------------------------------------------------------------------------------------


def test_a_function_that_returns_an_awaitable_gives_its_name_too(run):
    async def main():
        g = gopoll.go(gopoll.sleep, 0)
        await g
        return g.name

    assert run(main) == "sleep"


def test_result_is_refused_between_two_goroutines_too(run):
    """A function given to after_func runs on a thread that all wait for: this is a deadlock."""

    async def main():
        g = gopoll.go(forever)
        ctx, cancel = gopoll.with_timeout(gopoll.background(), 0.0001)
        seen = []

        def ask():
            try:
                g.result(0.05)
            except Exception as exc:
                seen.append(type(exc))

        ctx.after_func(ask)
        await wait_until(lambda: seen)
        cancel()
        g.cancel()
        with pytest.raises(Canceled):
            await g
        assert seen == [RuntimeError]

    run(main, **ONE)


def test_a_sleep_for_ever_can_be_had(run):
    """Contexts and timeouts take inf; sleep raised OverflowError."""

    async def main():
        gs = [gopoll.go(gopoll.sleep, seconds) for seconds in (math.inf, 1e300)]
        await wait_parked(*gs)
        for g in gs:
            g.cancel()
            with pytest.raises(Canceled):
                await g

    run(main)


# -- contexts --------------------------------------------------------------------------------------


def test_a_deadline_below_one_that_is_moved_away_still_holds(run):
    """with_timeout armed nothing where the parent's deadline came first; then the parent's went."""

    async def main():
        async with gopoll.timeout(0.05) as scope:
            child, cancel = gopoll.with_deadline(scope.context, scope.when + 0.01)
            scope.reschedule(None)
            try:
                await wait_until(lambda: child.done)
            finally:
                cancel()

    run(main)


def test_a_deadline_that_was_moved_in_time_does_not_expire_all_the_same(run):
    """sysmon had taken the expiry out of the heap and posted it; moving the deadline found nothing
    to stop and said nothing, and then the posted call ended the context."""

    async def main():
        async with gopoll.timeout(0.001) as scope:
            timers = gopoll.stats().timers
            until(lambda: gopoll.stats().timers < timers)  # without a park: sysmon takes it
            try:
                scope.reschedule(None)
            except RuntimeError:
                return  # too late, and told so
            await gopoll.sleep(0.001)
            assert not scope.context.done

    run(main, **ONE)


def test_a_value_is_not_kept_by_the_context_it_was_derived_from():
    """Go's valueCtx is no child of its parent; ours stood in the parent's set until that ended."""

    class Request:
        pass

    server, cancel = gopoll.with_cancel(gopoll.background())
    request = Request()
    ref = weakref.ref(request)
    ctx = gopoll.with_value(server, "request", request)
    assert ctx.value("request") is request
    del request, ctx
    gc.collect()
    assert ref() is None
    cancel()


def test_a_signal_handler_may_use_the_context_that_it_interrupts():
    """A context's lock was taken again by the thread that held it: a handler that cancels, or a
    finaliser that the collector runs in there, waited for itself for ever."""
    done = run_python(
        """
        import faulthandler, signal
        import gopoll

        calls = 0

        async def main():
            async with gopoll.timeout(None) as scope:
                def handler(signum, frame):
                    count()
                    gopoll.with_cancel(scope.context)[1]()
                    signal.setitimer(signal.ITIMER_REAL, 0.0001)  # again, once this is done

                signal.signal(signal.SIGALRM, handler)
                signal.setitimer(signal.ITIMER_REAL, 0.0001)
                while calls < 3000:
                    async with gopoll.timeout(None):
                        pass
                signal.setitimer(signal.ITIMER_REAL, 0)

        def count():
            global calls
            calls += 1

        faulthandler.dump_traceback_later(100, exit=True)
        gopoll.run(main, procs=1)
        print("never waited for itself")
        """
    )
    assert done.stdout == "never waited for itself\n", done.stderr[:2000]


# -- fork ------------------------------------------------------------------------------------------


def test_an_inherited_connection_refuses_everything_and_quietly():
    """set_no_delay reached the parent's socket; refused operations said "never awaited"."""
    lines = said(
        """
        async def main():
            async with await gopoll.listen("tcp", "127.0.0.1:0") as ln:
                conn, peer = await gopoll.dial("tcp", ln.addr), await ln.accept()
                async with conn, peer:
                    kept.append(conn)
                    if fork():
                        await gopoll.gosched()

        async def child():
            (conn,) = kept
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    await conn.read(1)
                except gopoll.ForkedError:
                    pass
            say(*[w.message for w in caught], "told")
            for call in (
                lambda: conn.set_no_delay(True), lambda: conn.set_linger(0),
                lambda: conn.set_read_buffer(4096), lambda: conn.raw_control(print),
            ):
                try:
                    call()
                    say("no error")
                except gopoll.ForkedError:
                    say("forked")
            conn.close()

        kept = []
        try:
            gopoll.run(main)
        except gopoll.ForkedError:
            gopoll.run(child)
            os._exit(0)
        """
    )
    assert lines == ["told"] + ["forked"] * 4 + ["child ended with 0"]


def test_a_goroutine_that_could_not_be_started_is_let_go(run, monkeypatch):
    """It stayed for ever, with its coroutine: it kept who waits for its end, and that kept it."""

    def refuse(self, g, wake=True):
        raise RuntimeError("too late")

    async def child():
        pass

    async def main():
        refs = []
        async with Group() as group:
            with monkeypatch.context() as patch:
                patch.setattr(Scheduler, "start_g", refuse)
                for _ in range(3):
                    coro = child()
                    refs.append(weakref.ref(coro))
                    with pytest.raises(RuntimeError, match=r"^too late$"):
                        group.go(coro)
                    del coro
            await group.go(child)
        gc.collect()
        assert [ref() for ref in refs] == [None] * 3

    run(main)
