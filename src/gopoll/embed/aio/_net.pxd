"""NetCalls, what EventLoop does for each connection. See _net.pyx."""
