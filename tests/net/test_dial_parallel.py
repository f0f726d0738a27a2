"""The race of the families, and the row of addresses: who goes when, who wins, who is closed."""

import functools
import time

import pytest

from gopoll.errors import AddrError, Canceled, DeadlineExceeded, OpError, op_error
from gopoll.net.conn import TCPConn
from gopoll.net.dial import Dialer, _SysDialer
from gopoll.net.listen import listen
from gopoll.net.sock import map_err
from gopoll.runtime.context import background, with_cancel, with_deadline, with_timeout
from gopoll.runtime.debug import stats
from gopoll.runtime.goroutine import go
from gopoll.runtime.scope import timeout
from net.tools import full_backlog, local_listener, needs_ipv6, parked, sockets, until

A, B, C, D = (("10.0.0.1", 1), ("10.0.0.2", 1), ("::a", 1), ("::b", 1))


class Script(_SysDialer):
    """A dial whose single attempts follow a script instead of the network.

    outcome: {address: "ok", "refused", "slow" (ends with its context) or a coroutine function}
    """

    def __init__(self, outcome, **settings):
        super().__init__(Dialer(**settings), "tcp", None)
        self.outcome = outcome
        self.tried = []

    async def dial_tcp(self, ctx, laddr, raddr):
        self.tried.append((raddr, time.monotonic()))
        what = self.outcome[raddr]
        if what == "refused":
            raise op_error("dial", "tcp", None, raddr, 111)
        if what == "slow":
            await ctx.wait()
            raise map_err(ctx)
        return what if what == "ok" else await what(ctx)

    @property
    def order(self):
        return [addr for addr, _ in self.tried]


async def race(outcome, primaries, fallbacks, ctx=None, **settings):
    """Run dial_parallel until nobody is left; return the script and the outcome."""
    alone = stats().goroutines
    script = Script(outcome, **settings)
    script.start = time.monotonic()
    try:
        result = await script.dial_parallel(ctx or background(), primaries, fallbacks)
    except OSError as exc:
        result = exc
    await until(lambda: stats().goroutines == alone)
    return script, result


# A race returns what the script does: "ok" must pass for a connection.
@pytest.fixture(autouse=True)
def ok_is_a_connection(monkeypatch):
    import gopoll.net.dial as module

    class AnyConn(type):
        def __instancecheck__(cls, value):
            return value == "ok" or isinstance(value, TCPConn)

    class Conn(metaclass=AnyConn):
        pass

    monkeypatch.setattr(module, "Conn", Conn)


@pytest.mark.parametrize(
    ("outcome", "primaries", "fallbacks", "expected", "order"),
    [
        # One family: in order, the first that answers.
        ({A: "ok"}, [A], [], "ok", [A]),
        ({A: "refused", B: "ok"}, [A, B], [], "ok", [A, B]),
        ({A: "ok", B: "ok"}, [A, B], [], "ok", [A]),
        # The primaries win if they answer at all.
        ({A: "ok", C: "ok"}, [A], [C], "ok", [A]),
        ({A: "refused", B: "ok", C: "slow"}, [A, B], [C], "ok", [A, B]),
        # The fallbacks go at once when the primaries have failed.
        ({A: "refused", C: "ok"}, [A], [C], "ok", [A, C]),
        ({A: "refused", B: "refused", C: "ok"}, [A, B], [C], "ok", [A, B, C]),
        ({A: "refused", C: "refused", D: "ok"}, [A], [C, D], "ok", [A, C, D]),
    ],
)
def test_the_first_connection_wins_without_waiting(
    run, outcome, primaries, fallbacks, expected, order
):
    """Row 58. The delay is an hour: whoever had to wait for it would run into pytest-timeout."""

    async def main():
        script, result = await race(outcome, primaries, fallbacks, fallback_delay=3600)
        assert result == expected
        assert script.order == order

    run(main)


@pytest.mark.parametrize("delay", [1e-9, 0.05, 0, 0.3])
def test_the_fallbacks_wait_for_their_delay_and_no_less(run, delay):
    """Rows 58 and 59; 0 is the default."""

    async def main():
        script, result = await race({A: "slow", C: "ok"}, [A], [C], fallback_delay=delay)
        assert result == "ok"
        when = dict(script.tried)
        # After a delay of nothing, on another P, C may have won before A was tried.
        assert sorted(script.order) == [A, C] or (delay == 1e-9 and script.order == [C])
        assert when[C] >= script.start + (delay or 0.3)

    run(main)


def test_both_families_failing_is_the_primaries_error(run):
    """Row 58."""

    async def main():
        _, result = await race({A: "refused", B: "refused", C: "refused"}, [A, B], [C])
        assert str(result) == "dial tcp 10.0.0.1:1: connection refused"
        # Also where the fallbacks have failed first.
        script, result = await race(
            {A: "slow", C: "refused"},
            [A],
            [C],
            with_timeout(background(), 0.5)[0],  # on a busy machine A is late
            fallback_delay=1e-9,
        )
        assert isinstance(result, DeadlineExceeded)
        assert result.addr == A
        assert sorted(script.order) == [A, C]

    run(main)


def test_nothing_to_dial_is_a_missing_address(run):
    """Row 58."""

    async def main():
        _, result = await race({}, [], [])
        assert isinstance(result, AddrError)
        assert str(result) == "dial tcp: missing address"

    run(main)


def test_a_thousand_addresses_are_tried_to_the_last(run):
    """Row 58."""

    async def main():
        addrs = [("10.0.0.1", port) for port in range(1, 1001)]
        outcome = dict.fromkeys(addrs, "refused")
        outcome[addrs[-1]] = "ok"
        script, result = await race(outcome, addrs, [])
        assert result == "ok"
        assert script.order == addrs

    run(main)


def test_a_race_ends_with_its_context(run):
    """Row 58."""

    async def main():
        outcome = {A: "slow", C: "slow"}
        for delay in (1e-9, 3600):
            ctx, cancel = with_cancel(background())
            g = go(functools.partial(race, outcome, [A], [C], ctx, fallback_delay=delay))
            await parked(g)
            cancel()
            _, result = await g
            assert str(result) == "dial tcp 10.0.0.1:1: operation was canceled"
        ctx, cancel = with_timeout(background(), 0.02)
        _, result = await race(outcome, [A], [C], ctx, fallback_delay=1e-9)
        assert isinstance(result, DeadlineExceeded)
        cancel()

    run(main)


def test_a_cancelled_race_takes_its_racers_along(run):
    async def main():
        alone = stats().goroutines
        script = Script({A: "slow", C: "slow"}, fallback_delay=1e-9)
        g = go(script.dial_parallel, background(), [A], [C])
        await until(lambda: len(script.tried) == 2)
        await parked(g)
        g.cancel("enough")
        with pytest.raises(Canceled, match="enough"):
            await g
        await until(lambda: stats().goroutines == alone)
        with pytest.raises(DeadlineExceeded) as caught:
            async with timeout(0.01):
                await script.dial_parallel(background(), [A], [C])
        assert not isinstance(caught.value, OpError)
        await until(lambda: stats().goroutines == alone)

    run(main)


def test_a_bug_in_a_racer_is_not_lost(run):
    async def main():
        async def bug(ctx):
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await race({A: bug, C: "refused"}, [A], [C])

    run(main)


def test_the_loser_s_late_connection_is_closed(run):
    """Row 60: it comes after the race, from a dial that did not look at its context."""

    async def main():
        alone = stats().goroutines
        late, release = with_cancel(background())
        async with local_listener() as ln:

            async def loser(ctx):
                conn = await Dialer().dial("tcp", ln.addr)
                await late.wait()
                return conn

            async def winner(ctx):
                return await Dialer().dial("tcp", ln.addr)

            script = Script({A: loser, C: winner}, fallback_delay=1e-9)
            async with await script.dial_parallel(background(), [A], [C]) as conn:
                await until(lambda: stats().goroutines == alone + 1)
                release()
                await until(lambda: stats().goroutines == alone)
                peers = [await ln.accept(), await ln.accept()]
                for peer in peers:
                    if peer.remote_addr != conn.local_addr:
                        assert await peer.read() == b""
                    peer.close()

    run(main)


def test_of_two_connections_at_once_one_is_closed(run):
    """Row 60: both are there before the race is looked at again."""

    async def main():
        alone = stats().goroutines
        async with local_listener() as ln:
            before = sockets()
            there = []

            async def racer(ctx):
                conn = await Dialer().dial("tcp", ln.addr)
                there.append(conn)
                await until(lambda: len(there) == 2)
                return conn

            script = Script({A: racer, C: racer}, fallback_delay=1e-9)
            conn = await script.dial_parallel(background(), [A], [C])
            await until(lambda: stats().goroutines == alone)
            assert len(sockets() - before) == 1
            conn.close()
            for _ in range(2):
                (await ln.accept()).close()

    run(main)


# -- one after the other


def test_the_first_error_is_the_one_that_is_reported(run):
    async def main():
        script, result = await race({A: "refused", B: "slow"}, [A, B], [], fallback_delay=-1)
        assert script.order == [A, B]
        assert str(result) == "dial tcp 10.0.0.1:1: connection refused"

    async def bounded():
        ctx, cancel = with_timeout(background(), 0.2)
        script, result = await race({A: "refused", B: "slow"}, [A, B], [], ctx)
        assert script.order == [A, B]
        assert str(result) == "dial tcp 10.0.0.1:1: connection refused"
        cancel()

    run(bounded)


def test_each_address_gets_its_share_of_the_deadline(run):
    """Row 61: three addresses, 12 s: 4 s for the first, half of the rest for the second."""
    seen = []

    async def main():
        async def note(ctx):
            seen.append(ctx.deadline)
            raise op_error("dial", "tcp", None, None, 111)

        when = time.monotonic() + 12
        ctx, cancel = with_deadline(background(), when)
        _, result = await race(dict.fromkeys((A, B, C), note), [A, B, C], [], ctx)
        cancel()
        assert isinstance(result, ConnectionRefusedError)
        now = time.monotonic()
        assert when - 8 <= seen[0] <= now + 4
        assert when - 6 <= seen[1] <= now + 6
        assert seen[2] == when

    run(main)


def test_a_share_that_runs_out_leaves_time_for_the_next(run, monkeypatch):
    monkeypatch.setattr("gopoll.net.dial._SANE_MINIMUM", 0.0)

    async def main():
        seconds, result = 0.05, None
        while result != "ok":  # longer until a busy machine has time for the second
            assert seconds < 60, result
            seconds *= 2
            ctx, cancel = with_timeout(background(), seconds)
            script, result = await race({A: "slow", B: "ok"}, [A, B], [], ctx)
            cancel()
        assert script.order == [A, B]

    run(main)


def test_no_time_left_tries_nothing(run):
    async def main():
        ctx, cancel = with_timeout(background(), 3600)
        ctx._when = time.monotonic() - 1  # as if its timer were late
        script, result = await race({A: "ok"}, [A], [], ctx)
        assert script.order == []
        assert str(result) == "dial tcp 10.0.0.1:1: i/o timeout"
        assert isinstance(result, DeadlineExceeded)
        cancel()

    run(main)


# -- real sockets


class TwoFamilies:
    """A resolver whose every name has these hosts."""

    def __init__(self, *hosts):
        self.hosts = hosts

    async def lookup_addr(self, host, port, family=0):
        return [(host, port) for host in self.hosts]


@needs_ipv6
def test_dual_stack_dials_leak_no_sockets(run):
    """Row 63."""

    async def main():
        alone = stats().goroutines
        async with await listen("tcp4", "127.0.0.1:0") as v4:
            async with await listen("tcp6", ("::1", v4.addr[1])) as v6:
                before = sockets()
                for hosts in (("127.0.0.1", "::1"), ("::1", "127.0.0.1")):
                    dialler = Dialer(resolver=TwoFamilies(*hosts), fallback_delay=1e-9)
                    for _ in range(10):
                        conn = await dialler.dial("tcp", ("name", v4.addr[1]))
                        assert conn.remote_addr[0] in hosts
                        await conn.close()
                    await until(lambda: stats().goroutines == alone)
                for ln in (v4, v6):
                    ln.set_deadline(0)
                    ln.set_deadline(None)
                assert sockets() == before

    run(main)


@needs_ipv6
def test_a_family_that_does_not_answer_costs_the_delay_only(run):
    """Rows 59 and 75: the first address's family is tried first."""

    async def main():
        alone = stats().goroutines
        with full_backlog() as silent:
            async with await listen("tcp6", ("::1", silent[1])) as ln:
                dialler = Dialer(resolver=TwoFamilies("127.0.0.1", "::1"), fallback_delay=0.01)
                async with await dialler.dial("tcp", ("name", silent[1])) as conn:
                    assert conn.remote_addr == ln.addr
                await (await ln.accept()).close()
        await until(lambda: stats().goroutines == alone)

    run(main)


@needs_ipv6
@pytest.mark.parametrize(
    ("network", "delay"), [("tcp", -1), ("tcp4", 1e-9)], ids=["race off", "one family"]
)
def test_without_a_race_the_addresses_are_tried_in_order(run, network, delay):
    async def main():
        with full_backlog() as silent:
            async with await listen("tcp6", ("::1", silent[1])):
                dialler = Dialer(
                    resolver=TwoFamilies("127.0.0.1", "::1"), fallback_delay=delay, timeout=0.02
                )
                with pytest.raises(DeadlineExceeded):
                    await dialler.dial(network, ("name", silent[1]))

    run(main)
