"""What connections cost: deadlines, a message to and fro, parsing, connect and close.

Run by `pytest bench --benchmark-only`, with the extra [bench]: docs/benchmarks.md.
"""

from bench.micro import buffers, deadlines, trips
from bench.micro.contest import Group, contestants

GROUPS = [
    Group("deadline-set", "deadline set and cleared", "cycle", 20_000, deadlines.SET),
    Group("deadline-later", "deadline moved later", "move", 20_000, deadlines.LATER),
    Group("deadline-earlier", "deadline moved earlier", "move", 20_000, deadlines.EARLIER),
    Group("deadline-expired", "deadlines expired, 500 at once", "deadline", 500, deadlines.EXPIRE),
    Group("trip-unix", "1 byte to and fro, socketpair", "round trip", 1000, trips.BYTE),
    Group("trip-tcp", "1 KiB to and fro, TCP", "round trip", 1000, trips.KIB),
    Group("parse", "4 lines and 64 bytes, of many", "message", 5120, buffers.PARSE),
    Group("line", "a line to and fro, socketpair", "round trip", 1000, buffers.LINES),
    Group("connect", "connect, accept, close", "cycle", 200, trips.CONNECT),
]


@contestants(GROUPS)
def test_conn(group, side, contest):
    contest(group, side)
