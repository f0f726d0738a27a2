"""gopoll.embed.aio: gopoll and asyncio.

attach() runs goroutines in an asyncio loop; EventLoop is an asyncio loop on gopoll.
"""

from gopoll.embed._attach_aio import attach
from gopoll.embed.aio.loop import EventLoop, new_event_loop, run

__all__ = ["EventLoop", "attach", "new_event_loop", "run"]
