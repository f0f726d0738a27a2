"""What netpoll(0) costs, beside C's epoll_wait, select.epoll and selectors.

Run by `pytest bench --benchmark-only`, with the extra [bench]: docs/benchmarks.md.
"""

from bench.micro.contest import Group, contestants
from bench.micro.polls import netpoll

# Ready descriptors: pollers, so that what is timed at once is no mere blink; fewer with idle ones,
# which stand in each of them.
POLLERS = {0: 1, 1: 64, 64: 4, 1000: 1}
POLLERS_WITH_IDLE = {0: 1, 1: 4, 64: 2, 1000: 1}
COUNT = 20_000


def group(ready, idle, number):
    """Return the group of so many ready and idle descriptors a poller."""
    unit = "event" if ready else "call"
    title = f"netpoll(0), {ready:,} ready, {idle:,} idle"
    sides = netpoll(number, ready, idle)
    return Group(f"netpoll-{ready}-{idle}", title, unit, COUNT if ready != 1 else COUNT // 4, sides)


GROUPS = [
    *(group(ready, 0, number) for ready, number in POLLERS.items()),
    group(0, 1000, 1),
    *(group(ready, 10_000, number) for ready, number in POLLERS_WITH_IDLE.items()),
]


@contestants(GROUPS)
def test_netpoll(group, side, contest):
    contest(group, side)
