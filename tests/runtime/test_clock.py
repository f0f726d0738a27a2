"""The clock of contexts that are made outside of run(): one thread, while something is to come.

T3 in clock.py. Go: runtime/time.go, whose timers need no thread either.
"""

import gc
import queue
import threading
import time

import pytest

import gopoll
from gopoll.runtime import clock
from runtime.tools import in_thread, said, until


def threads():
    return [t for t in threading.enumerate() if t.name == "gopoll-clock"]


@pytest.fixture(autouse=True)
def gone():
    """Begin and end without a thread."""
    until(lambda: not threads())
    yield
    until(lambda: not threads())


def later(seconds, call):
    return clock.call_at(time.monotonic() + seconds, call)


def test_any_number_of_deadlines_costs_one_thread():
    made = [gopoll.with_timeout(gopoll.background(), 3600) for _ in range(200)]
    assert len(threads()) == 1
    for _, cancel in made:
        cancel()


def test_alarms_ring_in_their_order_and_never_early():
    rung, now = [], time.monotonic()
    for ms in (230, 210, 220, 210, 0, -5):  # so soon, on any machine, the last has been put in
        when = now + ms / 1000
        clock.call_at(when, lambda ms=ms, when=when: rung.append((ms, time.monotonic() >= when)))
    until(lambda: len(rung) == 6)
    assert [ms for ms, _ in rung[2:]] == [210, 210, 220, 230]
    assert all(in_time for _, in_time in rung)


def test_an_earlier_alarm_wakes_the_thread():
    late, rung = later(3600, int), threading.Event()
    later(0.001, rung.set)
    assert rung.wait(60)
    assert late.is_pending
    late.stop()


def test_a_stopped_alarm_does_not_ring_and_holds_nothing():
    rung = []
    alarm = later(0.1, lambda: rung.append("stopped"))
    alarm.stop()
    alarm.stop()
    assert not alarm.is_pending
    later(0.12, lambda: rung.append("kept"))
    until(lambda: rung)
    assert rung == ["kept"]


def test_most_stopped_alarms_leave_the_heap_before_their_time():
    def there():
        gc.collect()  # without a GIL what two threads have held may be freed by this alone
        return sum(type(thing) is clock.Alarm for thing in gc.get_objects())

    keeps, before = later(3600, int), there()
    for alarm in [later(3600, int) for _ in range(100)]:
        alarm.stop()
    del alarm
    until(lambda: there() <= before + 1)
    keeps.stop()  # or the fixture would wait for an hour


def test_one_that_fails_is_told_and_the_next_rings(capsys):
    rung = threading.Event()
    later(0.001, lambda: 1 // 0)
    later(0.002, rung.set)
    assert rung.wait(60)
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_t3_an_alarm_that_comes_while_the_thread_leaves_is_not_missed(monkeypatch):
    """It has found nothing to come, and is about to look at the news under the lock."""
    rung = threading.Event()
    real, lock = clock._clock.news, threading.RLock()

    class Late:
        """The lock, in whose way a new alarm comes the first time that the clock takes it."""

        def __enter__(self):
            if threading.current_thread().name == "gopoll-clock" and not rung.is_set():
                in_thread(real.put, clock.Alarm(time.monotonic(), rung.set))
            lock.acquire()

        def __exit__(self, *exc):
            lock.release()

    monkeypatch.setattr(clock._clock, "lock", Late())
    later(0.001, int)
    assert rung.wait(60)
    until(lambda: not threads())


def test_alarms_of_many_threads_all_ring():
    rung = queue.SimpleQueue()

    def put():
        for i in range(50):
            later(0.0002 * (i % 7), lambda: rung.put(None))
            if i % 5 == 0:
                until(lambda: not threads())  # it starts again, and again

    many = [threading.Thread(target=put) for _ in range(4)]
    for thread in many:
        thread.start()
    for thread in many:
        thread.join(60)
    for _ in range(200):
        rung.get(timeout=60)


def test_where_no_thread_can_be_had_the_caller_hears_of_it(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            gopoll.with_timeout(gopoll.background(), 0.001)
    ctx, _ = gopoll.with_timeout(gopoll.background(), 0.001)
    until(lambda: ctx.done)


def test_a_deadline_beyond_what_a_thread_can_sleep():
    alarm = clock.call_at(1e300, int)
    until(clock._clock.news.empty)
    assert threads()
    alarm.stop()


def test_a_forked_child_has_a_clock_of_its_own():
    lines = said("""
        from gopoll.runtime import clock
        ctx, cancel = gopoll.with_timeout(gopoll.background(), 3600)
        short, _ = gopoll.with_timeout(gopoll.background(), 0.2)
        held, forked = threading.Event(), threading.Event()

        def hold():  # as a thread that is about to put an alarm in does
            with clock._clock.lock:
                held.set()
                forked.wait(60)

        threading.Thread(target=hold).start()
        held.wait(60)
        if fork():
            say(len(threading.enumerate()), "thread")
            own, _ = gopoll.with_timeout(gopoll.background(), 0.001)
            called = threading.Event()
            own.after_func(called.set)
            say(called.wait(30), own.cause)
            again = threading.Event()
            short.after_func(again.set)  # the parent's alarm; who waits here is called here
            say(again.wait(30))
            cancel()
            while len(threading.enumerate()) > 1:
                time.sleep(0.001)
            os._exit(0)
        forked.set()
        cancel()
    """)
    cause = gopoll.DeadlineExceeded()
    assert lines == ["1 thread", f"True {cause}", "True", "child ended with 0"]
