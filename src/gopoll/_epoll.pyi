# gopoll._epoll: its functions are cdef, nothing here is visible to Python.
