# gopoll._netpoll: its functions are cdef, nothing here is visible to Python.
