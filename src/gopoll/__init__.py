"""gopoll: Go's network poller for Python.

Goroutines, deadlines that can be moved, a close that wakes everybody, and dial: run(), go(),
dial() and listen() are the way in; Poller is for event loops that embed it.
"""

import os

from gopoll._park import ParkRequest
from gopoll._polldesc import PollDesc, Timer
from gopoll._poller import ABI as ABI_VERSION
from gopoll._poller import BOTH, EDGE, LEVEL, ONESHOT, READ, WRITE, Poller
from gopoll.errors import (
    AddrError,
    Canceled,
    ClosedError,
    DeadlineExceeded,
    DNSError,
    ForkedError,
    InternalError,
    LimitError,
    NotPollableError,
    OpError,
    UnknownNetworkError,
)
from gopoll.net.bufio import Reader
from gopoll.net.conn import Conn, TCPConn
from gopoll.net.dial import Dialer, dial
from gopoll.net.listen import Listener, listen
from gopoll.net.resolve import Resolver
from gopoll.net.sock import KeepAliveConfig
from gopoll.runtime.blocking import blocking
from gopoll.runtime.context import (
    Context,
    background,
    current_context,
    deadline,
    shield,
    timeout,
    with_cancel,
    with_deadline,
    with_timeout,
    with_value,
)
from gopoll.runtime.sched import Goroutine, Stats, current, go, gosched, run, sleep, stats

__all__ = [
    "ABI_VERSION",
    "BOTH",
    "EDGE",
    "LEVEL",
    "ONESHOT",
    "READ",
    "WRITE",
    "AddrError",
    "Canceled",
    "ClosedError",
    "Conn",
    "Context",
    "DNSError",
    "DeadlineExceeded",
    "Dialer",
    "ForkedError",
    "Goroutine",
    "InternalError",
    "KeepAliveConfig",
    "LimitError",
    "Listener",
    "NotPollableError",
    "OpError",
    "ParkRequest",
    "PollDesc",
    "Poller",
    "Reader",
    "Resolver",
    "Stats",
    "TCPConn",
    "Timer",
    "UnknownNetworkError",
    "background",
    "blocking",
    "current",
    "current_context",
    "deadline",
    "dial",
    "get_include",
    "go",
    "gosched",
    "listen",
    "run",
    "shield",
    "sleep",
    "stats",
    "timeout",
    "with_cancel",
    "with_deadline",
    "with_timeout",
    "with_value",
]


def get_include() -> str:
    """Return the folder to give to a C or Cython compiler that builds against gopoll."""
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
