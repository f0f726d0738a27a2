"""What a call of NetpollSelector costs, beside selectors.EpollSelector.

Run by `pytest bench --benchmark-only`, with the extra [bench]: docs/benchmarks.md.
"""

from bench.micro import selecting
from bench.micro.contest import Group, contestants

MIXES = ((1, 0), (64, 0), (1000, 0), (1, 9000), (64, 9000))  # ready, idle
ACTS = {
    "select": (selecting.select, "select(0)"),
    "register": (selecting.register, "register and unregister"),
    "modify": (selecting.modify, "modify of events, twice"),
    "modify-data": (selecting.modify_data, "modify of data, twice"),
}


def group(name, ready, idle):
    """Return the group of one call, with so many ready and idle descriptors."""
    act, title = ACTS[name]
    title = f"{title}, {ready:,} ready, {idle:,} idle"
    count = 20_000 // ready + 20 if name == "select" else 5_000
    return Group(f"{name}-{ready}-{idle}", title, "call", count, selecting.sides(act, ready, idle))


GROUPS = [group(name, ready, idle) for name in ACTS for ready, idle in MIXES]


@contestants(GROUPS)
def test_selector(group, side, contest):
    contest(group, side)
