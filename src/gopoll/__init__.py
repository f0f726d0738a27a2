"""gopoll: Go's network poller for Python.

Goroutines, deadlines that can be moved, a close that wakes everybody, and dial: run(), go(),
dial() and listen() are the way in; Poller is for event loops that embed it.
"""

import importlib
import os
from typing import TYPE_CHECKING

from gopoll._park import ParkRequest
from gopoll._polldesc import PollDesc, Timer
from gopoll._poller import ABI as ABI_VERSION
from gopoll._poller import BOTH, EDGE, LEVEL, ONESHOT, READ, WRITE, Poller
from gopoll.errors import (
    Addr,
    AddrError,
    Canceled,
    ChanClosed,
    ClosedError,
    DeadlineExceeded,
    DeadlockError,
    DNSError,
    ForkedError,
    InternalError,
    LimitError,
    NotPollableError,
    OpError,
    UnknownNetworkError,
)
from gopoll.net.bufio import Reader, Writer
from gopoll.net.conn import Conn, PacketConn, TCPConn
from gopoll.net.dial import Dialer, dial
from gopoll.net.file import File, from_fd, from_socket, open_fd
from gopoll.net.listen import ListenConfig, Listener, TCPListener, listen, listen_packet
from gopoll.net.resolve import AddrResolver, Resolver
from gopoll.net.serve import serve
from gopoll.net.sock import Control, RawConn
from gopoll.net.sockopt import KeepAliveConfig
from gopoll.net.udp import UDPConn
from gopoll.net.unix import PeerCredentials, UnixConn, UnixListener
from gopoll.runtime._chan import Chan
from gopoll.runtime._select import select
from gopoll.runtime._sync import Cond, Mutex, RWMutex
from gopoll.runtime.blocking import blocking
from gopoll.runtime.context import (
    Context,
    background,
    current_context,
    with_cancel,
    with_deadline,
    with_timeout,
    with_value,
)
from gopoll.runtime.debug import Stall, StallWatch, Stats, dump, on_stall, stats
from gopoll.runtime.goroutine import (
    Goroutine,
    current,
    go,
    gomaxprocs,
    gosched,
    lock_os_thread,
    run,
    sleep,
    syscall,
    unlock_os_thread,
)
from gopoll.runtime.group import Group
from gopoll.runtime.notify import signal_notify, signal_stop
from gopoll.runtime.scope import deadline, shield, timeout
from gopoll.runtime.sync import Once, WaitGroup

if TYPE_CHECKING:
    from gopoll import tls
    from gopoll.net.tls import TLSConn, dial_tls

    __version__: str

__all__ = [
    "ABI_VERSION",
    "BOTH",
    "EDGE",
    "LEVEL",
    "ONESHOT",
    "READ",
    "WRITE",
    "Addr",
    "AddrError",
    "AddrResolver",
    "Canceled",
    "Chan",
    "ChanClosed",
    "ClosedError",
    "Cond",
    "Conn",
    "Context",
    "Control",
    "DNSError",
    "DeadlineExceeded",
    "DeadlockError",
    "Dialer",
    "File",
    "ForkedError",
    "Goroutine",
    "Group",
    "InternalError",
    "KeepAliveConfig",
    "LimitError",
    "ListenConfig",
    "Listener",
    "Mutex",
    "NotPollableError",
    "Once",
    "OpError",
    "PacketConn",
    "ParkRequest",
    "PeerCredentials",
    "PollDesc",
    "Poller",
    "RWMutex",
    "RawConn",
    "Reader",
    "Resolver",
    "Stall",
    "StallWatch",
    "Stats",
    "TCPConn",
    "TCPListener",
    "TLSConn",
    "Timer",
    "UDPConn",
    "UnixConn",
    "UnixListener",
    "UnknownNetworkError",
    "WaitGroup",
    "Writer",
    "background",
    "blocking",
    "current",
    "current_context",
    "deadline",
    "dial",
    "dial_tls",
    "dump",
    "from_fd",
    "from_socket",
    "get_include",
    "go",
    "gomaxprocs",
    "gosched",
    "listen",
    "listen_packet",
    "lock_os_thread",
    "on_stall",
    "open_fd",
    "run",
    "select",
    "serve",
    "shield",
    "signal_notify",
    "signal_stop",
    "sleep",
    "stats",
    "syscall",
    "timeout",
    "tls",
    "unlock_os_thread",
    "with_cancel",
    "with_deadline",
    "with_timeout",
    "with_value",
]


def get_include() -> str:
    """Return the folder to give to a C or Cython compiler that builds against gopoll."""
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


# Imported when first asked for: ssl takes a program that does without it 14 ms to load.
_LATE = frozenset({"TLSConn", "dial_tls", "tls"})


if not TYPE_CHECKING:  # a type checker has them from above, and is to find what is misspelt

    def __getattr__(name):
        if name == "__version__":
            return _version()
        if name not in _LATE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        tls = importlib.import_module("gopoll.tls")
        return tls if name == "tls" else getattr(tls, name)


def _version() -> str:
    """Return the version of the installed distribution. AttributeError if there is none."""
    metadata = importlib.import_module("importlib.metadata")  # slow to load, and seldom wanted
    try:
        found: str = metadata.version("gopoll")
    except ImportError:
        text = "gopoll was imported without its distribution: nothing says its version"
        raise AttributeError(text) from None
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE, "__version__"})
