"""UDP: datagrams to and from anybody, or one peer.

Called by dial, listen and file; the connections by goroutines, close by any thread.
Go: net/udpsock.go, udpsock_posix.go (go1.27).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from gopoll.net.conn import FDPacketConn

__all__ = ["UDPConn", "new_udp_conn"]


class UDPConn(FDPacketConn):
    """A UDP socket, with a peer (dial) or without (listen_packet). Go: net.UDPConn."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def local_addr(self) -> tuple[str, int]: ...

        @property
        def remote_addr(self) -> tuple[str, int] | None: ...


new_udp_conn = functools.partial(UDPConn, stream=False, zero_read_is_eof=False)
