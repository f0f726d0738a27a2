"""gopoll.embed: gopoll below somebody else's event loop. Each door is a module of its own.

selector.NetpollSelector is a selectors.BaseSelector. Nothing below imports this package.
"""
