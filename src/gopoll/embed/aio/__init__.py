"""gopoll.embed.aio: gopoll and asyncio. attach() runs goroutines in an asyncio loop."""

from gopoll.embed._attach_aio import attach

__all__ = ["attach"]
