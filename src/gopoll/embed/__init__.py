"""gopoll.embed: gopoll inside somebody else's event loop, or below it. Each door is a module.

Guest runs goroutines inside a host's loop; aio.attach and trio.attach do it for asyncio and trio,
Host for any other. selector.NetpollSelector is a selectors.BaseSelector. Nothing below imports this
package.
"""

from gopoll.embed.guest import Guest, Host

__all__ = ["Guest", "Host"]
