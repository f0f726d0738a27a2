"""NetpollSelector: a selectors.BaseSelector on gopoll's epoll instance.

Called by asyncio.SelectorEventLoop and whoever else takes a selector, on the loop's thread; other
threads may register, unregister and modify meanwhile, as with selectors.EpollSelector.
"""

import selectors

from gopoll.embed._selector import SelectorCore

__all__ = ["NetpollSelector"]


class NetpollSelector(SelectorCore, selectors.BaseSelector):
    """A level-triggered selector that does what selectors.EpollSelector does, in less time.

    Errors and their texts are EpollSelector's. What differs: timeouts are kept to the nanosecond
    where the kernel can (EpollSelector rounds up to the millisecond), and close() ends a select()
    that is under way on another thread, with an empty list.
    """
