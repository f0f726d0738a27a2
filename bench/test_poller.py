"""What the rest of the poller costs: register, pollDesc, park and wake, a break.

Run by `pytest bench --benchmark-only`, with the extra [bench]: docs/benchmarks.md.
"""

from bench.micro import descriptors
from bench.micro.contest import Group, contestants

GROUPS = [
    Group("register", "register and close a descriptor", "cycle", 10_000, descriptors.REGISTER),
    Group("polldesc", "pollDesc, alloc and free", "cycle", 200_000, descriptors.ALLOC),
    Group("park", "park, commit, wake one waiter", "cycle", 10_000, descriptors.PARK),
    Group("break", "break to wake-up across threads", "wake-up", 1000, descriptors.WAKE),
]


@contestants(GROUPS)
def test_poller(group, side, contest):
    contest(group, side)
